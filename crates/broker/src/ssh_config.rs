//! The file that people include into their ssh configuration: which program ssh asks, and where the agent then is.
//!
//! It has to suit OpenSSH 8.0 to 10.x: no `%j` (fatal before 9.6) and no `Tag` (fatal before 9.4). `Match final` makes
//! ssh ask once, with the final host, user and `%C`, wherever in the person's file the `Include` stands. The two lists
//! with `!*'*` come first because ssh does not check names that its configuration sets: a name with a quote in it never
//! reaches the shell.

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
}

/// A path that cannot stand in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the path {0} has a character that cannot be quoted for both ssh and a shell; use a path of letters, digits, blanks and `. _ + @ : / -`"
)]
pub struct PathError(PathBuf);

impl SshConfig {
    /// The file's text.
    pub fn render(&self) -> Result<String, PathError> {
        let mut command = "exec".to_owned();
        for word in &self.program {
            command.push_str(&format!(" '{}'", quotable(word)?));
        }
        let socket = quotable(&self.broker_socket)?;
        let agents = quotable(&self.agent_dir)?;
        let hosts = self.host_list();
        Ok(format!(
            "# Written by `epithet agent` at its start and removed at its end. Changes here are lost.\n\
             # Include it at the top of ~/.ssh/config:  Include ~/.epithet/run/*/ssh-config.conf\n\
             Match final user \"!*'*,*\" host \"!*'*,{hosts}\" exec \"{command} --host '%h' --port '%p' --user '%r' --hash '%C' --broker '{socket}'\"\n    \
             IdentityAgent \"{agents}/%C\"\n"
        ))
    }

    /// The hosts as ssh's own pattern list, so that ssh does not even start a program for others; `*` when that cannot be said.
    fn host_list(&self) -> String {
        let texts: Vec<_> = self
            .patterns
            .iter()
            .map(|pattern| pattern.as_str().to_ascii_lowercase())
            .collect();
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
fn quotable(path: &Path) -> Result<String, PathError> {
    let text = path.to_str().ok_or_else(|| PathError(path.to_owned()))?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"./_+@:- %=,".contains(&byte);
    if text.bytes().all(allowed) {
        Ok(text.replace('%', "%%"))
    } else {
        Err(PathError(path.to_owned()))
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
        }
    }

    #[test]
    fn the_line_guards_against_quotes_and_asks_only_about_our_hosts() {
        let text = config("/usr/bin/epithet-match", &["*.example.com", "Web-?"])
            .render()
            .unwrap();
        assert!(text.contains(
            r#"Match final user "!*'*,*" host "!*'*,*.example.com,web-?" exec "exec '/usr/bin/epithet-match' --host '%h' "#
        ));
        assert!(text.contains("\n    IdentityAgent \"/home/a/.epithet/run/default/agent/%C\"\n"));
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
    fn paths_are_quoted_or_refused() {
        assert!(
            config("/opt/my apps/epithet 100%", &[])
                .render()
                .unwrap()
                .contains("'/opt/my apps/epithet 100%%'")
        );
        for bad in [
            "/opt/it's/epithet",
            "/opt/a\"b",
            "/opt/$HOME",
            "/opt/a\nb",
            "/opt/a\\b",
            "/opt/`id`",
            "/opt/\u{e4}",
        ] {
            assert!(config(bad, &[]).render().is_err(), "{bad}");
        }
    }
}
