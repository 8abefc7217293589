//! A person's `~/.ssh/config`, as far as it concerns us: where the `Include` of the generated file stands, and whether it
//! counts there (ssh_config(5): the first value of a setting wins; what follows a `Host` or `Match` is for those only).

use std::path::{Path, PathBuf};

/// What the generated files' pattern ends with, however its beginning is written.
const PATTERN_END: &str = ".epithet/run/*/ssh-config.conf";

/// Where our `Include` stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Above everything that could be in its way.
    Counts,
    /// Nowhere.
    Missing,
    /// Below a line that takes its effect, for some hosts or for all: its own line, the other's line, and what that one is.
    Below {
        line: usize,
        other: usize,
        keyword: String,
    },
}

impl Standing {
    /// What the line above does to the `Include`.
    pub(crate) fn effect(keyword: &str) -> &'static str {
        match words(keyword).0.as_str() {
            "identityagent" => "so ssh uses that agent instead of the broker's",
            _ => "so it counts for those hosts only",
        }
    }
}

/// Finds the `Include` in a file's text. Lines count from 1.
///
/// What follows a `Host` or `Match` is for those hosts, up to the next one; `Host *` and `Match all` are for all.
pub(crate) fn standing(text: &str) -> Standing {
    let (mut block, mut agent) = (None, None);
    for (index, line) in text.lines().enumerate() {
        let (keyword, arguments) = words(line);
        let this = || Some((index + 1, line.trim().to_owned()));
        match keyword.as_str() {
            "host" | "match" if is_for_all(&keyword, arguments) => block = None,
            "host" | "match" => block = this(),
            "identityagent" if block.is_none() && agent.is_none() => agent = this(),
            "include" if is_ours(arguments) => {
                return match agent.or(block) {
                    None => Standing::Counts,
                    Some((other, keyword)) => Standing::Below {
                        line: index + 1,
                        other,
                        keyword,
                    },
                };
            }
            _ => {}
        }
    }
    Standing::Missing
}

/// What sets something before the generated line can.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// A line that does, and the block that it may stand in instead.
    Set {
        line: usize,
        setting: String,
        block: String,
    },
    /// Nothing here, but another file is included, which may.
    Included { line: usize, setting: String },
}

/// The line that sets `keyword` (in lower case) before the final names are known. Lines count from 1.
pub(crate) fn obstacle(text: &str, keyword: &str) -> Option<Obstacle> {
    let (mut block, mut is_final, mut included) = ("Match final all".to_owned(), false, None);
    for (index, line) in text.lines().enumerate() {
        let (word, arguments) = words(line);
        let arguments = arguments.trim();
        let (line, setting) = (index + 1, line.trim().to_owned());
        match word.as_str() {
            "host" | "match" => {
                let criteria = arguments.to_ascii_lowercase();
                is_final = word == "match" && criteria.split_whitespace().any(|word| word == "final");
                block = match word.as_str() {
                    _ if is_for_all(&word, arguments) => "Match final all".to_owned(),
                    "host" => format!(
                        "Match final host {}",
                        arguments.split_whitespace().collect::<Vec<_>>().join(",")
                    ),
                    _ => format!("Match final {arguments}"),
                };
            }
            "include" if !is_ours(arguments) && included.is_none() => {
                included = Some(Obstacle::Included { line, setting });
            }
            word if word == keyword && !is_final => return Some(Obstacle::Set { line, setting, block }),
            _ => {}
        }
    }
    included
}

/// Whether a `Host` or `Match` holds whatever the host.
fn is_for_all(keyword: &str, arguments: &str) -> bool {
    let arguments = arguments.split('#').next().unwrap_or_default();
    let arguments = arguments.trim().trim_matches('"').to_ascii_lowercase();
    matches!((keyword, arguments.as_str()), ("host", "*") | ("match", "all"))
}

/// Whether an `Include` has nothing but our pattern, so that it can be moved as a line.
pub(crate) fn is_ours_alone(line: &str) -> bool {
    let (keyword, arguments) = words(line);
    keyword == "include" && is_ours(arguments) && arguments.split_whitespace().count() == 1
}

/// The line to write.
pub(crate) fn include_line() -> anyhow::Result<String> {
    let home = crate::config::home()?;
    // ssh's `~` is the account's home, whatever HOME says.
    if account_home().is_none_or(|account| account == home) {
        return Ok(format!("Include ~/{PATTERN_END}"));
    }
    let path = home.join(PATTERN_END);
    let is_plain = |character: char| character.is_alphanumeric() || "/.*_-+".contains(character);
    let quote = if path.to_string_lossy().chars().all(is_plain) {
        ""
    } else {
        "\""
    };
    Ok(format!("Include {quote}{}{quote}", path.display()))
}

/// The home directory of this account, where ssh looks for its files; `None` where the account is not in `/etc/passwd`.
pub(crate) fn account_home() -> Option<PathBuf> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = rustix::process::getuid().as_raw().to_string();
    let account = accounts
        .lines()
        .find(|line| line.split(':').nth(2) == Some(uid.as_str()))?;
    account.split(':').nth(5).map(|home| Path::new(home).to_owned())
}

/// A line's keyword in lower case, and what follows it (ssh_config(5): blanks, or one `=` among optional blanks).
fn words(line: &str) -> (String, &str) {
    let line = line.trim();
    if line.starts_with('#') {
        return (String::new(), "");
    }
    let end = line
        .find(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or(line.len());
    let arguments = line[end..].trim_start();
    let arguments = arguments.strip_prefix('=').unwrap_or(arguments);
    (line[..end].to_ascii_lowercase(), arguments.trim())
}

fn is_ours(arguments: &str) -> bool {
    arguments
        .split_whitespace()
        .any(|argument| argument.trim_matches('"').ends_with(PATTERN_END))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_include_counts_only_above_what_could_be_in_its_way() {
        let include = "Include ~/.epithet/run/*/ssh-config.conf";
        let below = |line, other, keyword: &str| Standing::Below {
            line,
            other,
            keyword: keyword.into(),
        };
        let cases = [
            (format!("{include}\nHost *\n"), Standing::Counts),
            (
                "# mine\n\n  include=\"/home/a/.epithet/run/*/ssh-config.conf\"".to_owned(),
                Standing::Counts,
            ),
            (
                "ForwardAgent no\nInclude other ~/.epithet/run/*/ssh-config.conf\n".to_owned(),
                Standing::Counts,
            ),
            (String::new(), Standing::Missing),
            (
                format!("# {include}\nInclude ~/.orbstack/ssh/config\n"),
                Standing::Missing,
            ),
            (
                format!("Host web\n  User a\n{include}\n"),
                below(3, 1, "Host web"),
            ),
            (format!("match web\n{include}"), below(2, 1, "match web")),
            (
                format!("Host *\n  ServerAliveInterval 60\n{include}\n"),
                Standing::Counts,
            ),
            (
                format!("Host web\n  IdentityAgent ~/x\nMatch all # of them\n{include}\n"),
                Standing::Counts,
            ),
            (
                format!("Host *\n  IdentityAgent ~/x\n\n{include}\n"),
                below(4, 2, "IdentityAgent ~/x"),
            ),
            (
                format!("Host *\nHost * !web\n{include}\n"),
                below(3, 2, "Host * !web"),
            ),
            (
                format!("IdentityAgent ~/x\n{include}"),
                below(2, 1, "IdentityAgent ~/x"),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(standing(&text), expected, "{text}");
        }
        assert!(is_ours_alone(&format!("  {include}")));
        assert!(!is_ours_alone("Include a ~/.epithet/run/*/ssh-config.conf"));
        assert!(!is_ours_alone("Host a"));
    }

    #[test]
    fn what_is_set_before_the_final_names_are_known_is_found_with_the_block_it_may_stand_in() {
        let set = |line, setting: &str, block: &str| {
            let (setting, block) = (setting.to_owned(), block.to_owned());
            Some(Obstacle::Set { line, setting, block })
        };
        let include = "Include ~/.epithet/run/*/ssh-config.conf\n";
        let cases = [
            ("", None),
            ("Host *\n  Port 22\nMatch final all\n  IdentityAgent x\n", None),
            (
                "Host *\n  Port 22\n  IdentityAgent x\n",
                set(4, "IdentityAgent x", "Match final all"),
            ),
            ("IdentityAgent=x\n", set(2, "IdentityAgent=x", "Match final all")),
            (
                "Host a *.b\n  identityagent x\n",
                set(3, "identityagent x", "Match final host a,*.b"),
            ),
            (
                "Match user bob\n  IdentityAgent x\n",
                set(3, "IdentityAgent x", "Match final user bob"),
            ),
            (
                "Include config.d/*\n",
                Some(Obstacle::Included {
                    line: 2,
                    setting: "Include config.d/*".to_owned(),
                }),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                obstacle(&format!("{include}{text}"), "identityagent"),
                expected,
                "{text}"
            );
        }
    }
}
