//! The file that people include into their ssh configuration: which program ssh asks, and where the agent then is.
//!
//! It has to suit OpenSSH 8.0 to 10.x. Before 8.3, `%C` is an unknown key to `Match exec` and `IdentityAgent`, which ends
//! every ssh; so those are told to find their agent by user and host (`by_name`). `Tag` is fatal before 9.4, so it stands
//! there only when it was asked for and that ssh is here; `%j` is fatal before 9.6 and nothing guards it against quotes, so
//! it never does. `Match final` makes ssh ask once, with the final host, user and `%C`, wherever in the person's file the
//! `Include` stands. The two lists
//! with `!*'*` come first because ssh does not check names that its configuration sets: a name with a quote in it never
//! reaches the shell.

use crate::tag::TagName;
use epithet_ssh::OpenSshVersion;
use epithet_wire::HostPattern;
use std::path::{Path, PathBuf};

/// How long the host list in the file may be; beyond, the broker alone decides.
const HOST_LIST_MAX: usize = 900;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshConfig {
    /// The program and the words that come before `--host`.
    pub program: Vec<PathBuf>,
    /// The broker's socket.
    pub broker_socket: PathBuf,
    /// Where the agents' sockets are.
    pub agent_dir: PathBuf,
    /// The hosts, when they are known; empty means that the broker is asked about every host.
    pub patterns: Vec<HostPattern>,
    /// The tag that hosts must have (`Tag` in the person's configuration, or `ssh -P`), if that is how they are chosen.
    pub tag: Option<TagName>,
    /// Which OpenSSH reads it; `None` when that is not known.
    pub version: Option<OpenSshVersion>,
}

/// Why there can be no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsayable {
    /// A path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// An ssh that does not understand the file.
    #[error("the ssh that is here is OpenSSH {0}, which is too old; install {OLDEST} or later", OLDEST = SshConfig::OLDEST)]
    TooOld(OpenSshVersion),
    /// An ssh without tags.
    #[error(
        "`tag` needs OpenSSH {TAGGED} or later, and the ssh that is here is {}; name your hosts with --match instead, or install a newer ssh",
        .0.map_or_else(|| "of an unknown version".to_owned(), |version| version.to_string())
    )]
    NoTags(Option<OpenSshVersion>),
}

/// The first version whose `Match exec` and `IdentityAgent` know `%C`.
const HASHED: OpenSshVersion = OpenSshVersion::new(8, 3);

/// The first version with `Tag` and `Match tagged`; for all others either is a fatal error in every ssh.
const TAGGED: OpenSshVersion = OpenSshVersion::new(9, 4);

/// A path that cannot stand in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the path {} has a character that cannot be quoted for both ssh and a shell (a quote, `\\`, `` ` ``, `$`, `*`, `?`, `[` or a control character); use a path without",
    .0.display()
)]
pub struct PathError(PathBuf);

impl SshConfig {
    /// The first version with `Match final`.
    pub const OLDEST: OpenSshVersion = OpenSshVersion::new(8, 0);

    /// A file for an ssh that cannot be told: it says why, and changes nothing.
    pub fn nothing(problem: &Unsayable) -> String {
        let problem = problem.to_string().replace(['\n', '\r'], " ");
        format!("# Written by `epithet agent`, which does nothing here: {problem}\n")
    }

    /// The file's text.
    pub fn render(&self) -> Result<String, Unsayable> {
        if let Some(version) = self.version.filter(|version| *version < Self::OLDEST) {
            return Err(Unsayable::TooOld(version));
        }
        let tagged = match &self.tag {
            None => String::new(),
            Some(tag) if self.version.is_some_and(|version| version >= TAGGED) => {
                format!("tagged \"{tag}\" ")
            }
            Some(_) => return Err(Unsayable::NoTags(self.version)),
        };
        let mut command = "exec".to_owned();
        for word in &self.program {
            command.push_str(&format!(" '{}'", quotable(word)?));
        }
        let socket = quotable(&self.broker_socket)?;
        let agents = quotable(&self.agent_dir)?;
        let hosts = self.host_list();
        let (name, agent) = match self.version {
            Some(version) if version < HASHED => ("--by-name", "%r@%h"),
            _ => ("--hash '%C'", "%C"),
        };
        Ok(format!(
            "# Written by `epithet agent` at its start and removed at its end. Changes here are lost.\n\
             # Include it at the top of ~/.ssh/config:  Include ~/.epithet/run/*/ssh-config.conf\n\
             Match final {tagged}user \"!*'*,*\" host \"!*'*,{hosts}\" exec \"{command} --host '%h' --port '%p' --user '%r' {name} --broker '{socket}'\"\n    \
             IdentityAgent \"{agents}/{agent}\"\n    \
             IdentitiesOnly no\n"
        ))
    }

    /// The hosts as ssh's own pattern list, so that ssh does not even start a program for others; `*` when that cannot be said.
    ///
    /// To ssh a dot at the end of a name is a character like others, so each pattern stands there with it, too.
    fn host_list(&self) -> String {
        let mut texts = Vec::new();
        for pattern in &self.patterns {
            let text = pattern.as_str().to_ascii_lowercase();
            let dotted = (!text.ends_with(['*', '.'])).then(|| format!("{text}."));
            texts.push(text);
            texts.extend(dotted);
        }
        let list = texts.join(",");
        let sayable = self.patterns.iter().all(HostPattern::is_ssh_pattern);
        if sayable && !list.is_empty() && list.len() <= HOST_LIST_MAX {
            list
        } else {
            "*".to_owned()
        }
    }
}

/// A path with `%` doubled, when every character survives ssh's double quotes and a shell's single quotes.
///
/// Not a quote or a backslash, which ssh's quotes take for their own; not a `$`, which ssh expands in `IdentityAgent`; not a
/// line's end. And not what the `Include` line takes for a pattern, `*`, `?` and `[`: ssh would find no file.
fn quotable(path: &Path) -> Result<String, PathError> {
    let text = path.to_str().ok_or_else(|| PathError(path.to_owned()))?;
    let forbidden = |character: char| character.is_control() || "'\"\\`$*?[".contains(character);
    if text.contains(forbidden) {
        Err(PathError(path.to_owned()))
    } else {
        Ok(text.replace('%', "%%"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(program: &str, patterns: &[&str]) -> SshConfig {
        SshConfig {
            program: vec![program.into()],
            broker_socket: "/home/a/.epithet/run/default/broker.sock".into(),
            agent_dir: "/home/a/.epithet/run/default/agent".into(),
            patterns: patterns
                .iter()
                .map(|text| HostPattern::parse(text).unwrap())
                .collect(),
            tag: None,
            version: None,
        }
    }

    #[test]
    fn the_line_guards_against_quotes_and_asks_only_about_our_hosts() {
        let text = config("/usr/bin/epithet-match", &["*.example.com", "Web-?"])
            .render()
            .unwrap();
        assert!(text.contains(
            r#"Match final user "!*'*,*" host "!*'*,*.example.com,*.example.com.,web-?,web-?." exec "exec '/usr/bin/epithet-match' --host '%h' "#
        ));
        assert!(text.contains(
            "\n    IdentityAgent \"/home/a/.epithet/run/default/agent/%C\"\n    IdentitiesOnly no\n"
        ));
        assert!(!text.contains("%j"));
    }

    #[test]
    fn hosts_that_ssh_cannot_say_are_left_to_the_broker() {
        for patterns in [&[][..], &["web{1,2}"], &["[ab]*"]] {
            assert!(
                config("/e", patterns)
                    .render()
                    .unwrap()
                    .contains(r#"host "!*'*,*" exec"#)
            );
        }
        let many: Vec<_> = (0..200).map(|n| format!("host{n}.example.com")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(
            config("/e", &many)
                .render()
                .unwrap()
                .contains(r#"host "!*'*,*" exec"#)
        );
    }

    #[test]
    fn the_file_suits_the_ssh_that_reads_it() {
        let version = |major, minor| Some(OpenSshVersion::new(major, minor));
        let too_old = [version(6, 7), version(7, 9)];
        let without_hash = [version(8, 0), version(8, 1), version(8, 2)];
        let without_tags = [version(8, 3), version(8, 9), version(9, 2), version(9, 3)];
        let with_tags = [
            version(9, 4),
            version(9, 6),
            version(9, 9),
            version(10, 0),
            version(10, 5),
        ];
        let plain = config("/e", &["*.example.com"]);
        let tagged = SshConfig {
            tag: Some("work".parse().unwrap()),
            ..plain.clone()
        };
        let render = |config: &SshConfig, version| {
            SshConfig {
                version,
                ..config.clone()
            }
            .render()
        };
        for version in too_old {
            assert_eq!(render(&plain, version), Err(Unsayable::TooOld(version.unwrap())));
        }
        let text = plain.render().unwrap();
        assert!(
            text.contains(" --user '%r' --hash '%C' --broker ") && text.contains("/agent/%C\"\n"),
            "{text}"
        );
        let by_name = (text.replace("--hash '%C'", "--by-name")).replace("/agent/%C\"", "/agent/%r@%h\"");
        assert!(!by_name.contains("%C"), "{by_name}");
        for version in without_hash {
            assert_eq!(render(&plain, version), Ok(by_name.clone()));
            assert_eq!(render(&tagged, version), Err(Unsayable::NoTags(version)));
        }
        for version in without_tags.into_iter().chain([None]) {
            assert_eq!(render(&plain, version), Ok(text.clone()));
            let problem = render(&tagged, version).unwrap_err().to_string();
            assert!(
                problem.contains("9.4") && problem.contains("--match"),
                "{problem}"
            );
        }
        for version in with_tags {
            assert_eq!(render(&plain, version), Ok(text.clone()));
            let text = render(&tagged, version).unwrap();
            assert!(
                text.contains(r#"Match final tagged "work" user "!*'*,*" host "!*'*,*.example.com,*.example.com." exec "#),
                "{text}"
            );
        }
    }

    #[test]
    fn a_file_that_says_nothing_is_one_comment() {
        let text = SshConfig::nothing(&Unsayable::NoTags(None));
        assert!(text.starts_with('#') && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn paths_are_quoted_or_refused() {
        assert!(
            config("/opt/my apps/epithet 100%", &[])
                .render()
                .unwrap()
                .contains("'/opt/my apps/epithet 100%%'")
        );
        let odd = "/opt/J\u{fc}rgen (o'clock) #1 ~&;<>|{}^!]/epithet".replace('\'', "");
        let text = config(&odd, &[]).render().unwrap();
        assert!(text.contains(&format!("'{odd}'")), "{text}");
        for bad in [
            "/opt/it's/epithet",
            "/opt/a\"b",
            "/opt/$HOME",
            "/opt/a\nb",
            "/opt/a\\b",
            "/opt/`id`",
            "/opt/a*",
            "/opt/a?",
            "/opt/[a]",
            "/opt/\u{85}",
        ] {
            assert!(config(bad, &[]).render().is_err(), "{bad}");
        }
    }
}
