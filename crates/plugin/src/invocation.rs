//! What a login is for, as a plugin finds it in its environment.
//!
//! These are values in variables, never parts of a command: nothing from ssh's command line reaches a shell.

use crate::PROTOCOL;

/// The connection a plugin is asked to log in for, and whether a person is there to help.
///
/// Most plugins need none of it: a token is for the person, not for a host. It is there for those that print a prompt
/// ("logging in for alice@server"), that ask for a hardware key's touch only when somebody is at the terminal, or that
/// show a code instead of opening a browser in a remote session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invocation {
    /// `EPITHET_HOST`: the host that ssh is about to dial.
    pub host: String,
    /// `EPITHET_USER`: the user name on that host.
    pub user: String,
    /// `EPITHET_PORT`: the port on that host; 0 when it is not known.
    pub port: u16,
    /// `EPITHET_INTERACTIVE`: whether somebody is at a terminal. Without one, a plugin should fail rather than open a window.
    pub interactive: bool,
    /// `EPITHET_REMOTE_SESSION`: whether that terminal is itself an ssh session, so that a browser opened here helps nobody.
    pub remote_session: bool,
}

impl Invocation {
    /// The invocation this process was started for.
    ///
    /// `None` when `EPITHET_PROTOCOL` is missing or names a version this crate does not know: the plugin is run by
    /// hand or by a broker that tells nothing, and decides for itself. The three streams work all the same.
    pub fn from_env() -> Option<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        (variable("EPITHET_PROTOCOL")? == PROTOCOL).then(|| Self {
            host: variable("EPITHET_HOST").unwrap_or_default(),
            user: variable("EPITHET_USER").unwrap_or_default(),
            port: variable("EPITHET_PORT")
                .and_then(|port| port.parse().ok())
                .unwrap_or_default(),
            interactive: variable("EPITHET_INTERACTIVE").as_deref() == Some("1"),
            remote_session: variable("EPITHET_REMOTE_SESSION").as_deref() == Some("1"),
        })
    }

    /// The variables that tell a plugin about this invocation, [`PROTOCOL`] among them.
    pub fn variables(&self) -> [(&'static str, String); 6] {
        let claim = |is: bool| String::from(if is { "1" } else { "0" });
        [
            ("EPITHET_PROTOCOL", PROTOCOL.to_owned()),
            ("EPITHET_HOST", self.host.clone()),
            ("EPITHET_USER", self.user.clone()),
            ("EPITHET_PORT", self.port.to_string()),
            ("EPITHET_INTERACTIVE", claim(self.interactive)),
            ("EPITHET_REMOTE_SESSION", claim(self.remote_session)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn read_back(variables: &HashMap<&str, String>) -> Option<Invocation> {
        Invocation::from_variables(|name| variables.get(name).cloned())
    }

    #[test]
    fn a_plugin_reads_what_the_runner_wrote() {
        let invocation = Invocation {
            host: "db.example.com".to_owned(),
            user: "alice".to_owned(),
            port: 2222,
            interactive: true,
            remote_session: false,
        };
        let variables = HashMap::from(invocation.variables());
        assert_eq!(read_back(&variables), Some(invocation));
    }

    #[test]
    fn an_unknown_protocol_says_nothing_and_missing_parts_are_empty() {
        assert_eq!(read_back(&HashMap::new()), None);
        assert_eq!(
            read_back(&HashMap::from([("EPITHET_PROTOCOL", "2".to_owned())])),
            None
        );
        let bare = HashMap::from([
            ("EPITHET_PROTOCOL", "1".to_owned()),
            ("EPITHET_PORT", "many".to_owned()),
            ("EPITHET_INTERACTIVE", "yes".to_owned()),
        ]);
        assert_eq!(read_back(&bare), Some(Invocation::default()));
    }
}
