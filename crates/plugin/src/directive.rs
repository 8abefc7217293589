//! Directives: what a plugin says to the broker beside its streams, on lines that no person sees.
//!
//! A line on fd 4 that begins with `#epithet: ` is a directive. It is for the broker and never shown; an unknown one
//! is ignored, so that a plugin of tomorrow works with the broker of today. A plugin writes them only when
//! `EPITHET_PROTOCOL` is set: another broker would show them.
//!
//! | directive | meaning |
//! |---|---|
//! | `can-log-out` | run with `EPITHET_ACTION=logout`, this plugin revokes what its state stands for |
//! | `paste URL` | an address that the person pastes may be delivered to this loopback URL, by a GET with its query |

/// How the line of a directive begins.
pub const DIRECTIVE_PREFIX: &str = "#epithet: ";
pub(crate) const CAN_LOG_OUT: &str = "can-log-out";
pub(crate) const PASTE: &str = "paste";

/// What a plugin is run for: `EPITHET_ACTION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// `login`, or nothing: print a token.
    #[default]
    LogIn,
    /// `logout`: revoke what the state on stdin stands for. No token and no new state; stderr and progress are shown.
    ///
    /// Only plugins whose last successful run said `can-log-out` are run for this.
    LogOut,
}

impl Action {
    /// What this process is run for.
    pub fn from_env() -> Self {
        Self::from_value(std::env::var(Self::VARIABLE).ok().as_deref())
    }

    /// The variable.
    pub(crate) const VARIABLE: &str = "EPITHET_ACTION";

    fn from_value(value: Option<&str>) -> Self {
        match value {
            Some("logout") => Self::LogOut,
            _ => Self::LogIn,
        }
    }

    /// The variable's value.
    #[cfg(feature = "host")]
    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::LogIn => "login",
            Self::LogOut => "logout",
        }
    }
}

/// The line, if it can be one: a blank or a control character in an argument would make it say something else.
pub(crate) fn line(name: &str, argument: Option<&str>) -> Option<String> {
    let Some(argument) = argument else {
        return Some(format!("{DIRECTIVE_PREFIX}{name}\n"));
    };
    let is_word = !argument.is_empty() && argument.bytes().all(|byte| byte.is_ascii_graphic());
    is_word.then(|| format!("{DIRECTIVE_PREFIX}{name} {argument}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_is_one_line_of_one_or_two_words() {
        assert_eq!(line(CAN_LOG_OUT, None).unwrap(), "#epithet: can-log-out\n");
        assert_eq!(
            line(PASTE, Some("http://127.0.0.1:7/cb")).unwrap(),
            "#epithet: paste http://127.0.0.1:7/cb\n"
        );
        for argument in ["", "a b", "a\nb", "\u{e4}", "a\x1b"] {
            assert_eq!(line(PASTE, Some(argument)), None, "{argument:?}");
        }
    }

    #[test]
    fn only_a_logout_is_a_logout() {
        assert_eq!(Action::from_value(Some("logout")), Action::LogOut);
        for value in [None, Some(""), Some("login"), Some("LOGOUT"), Some("refresh")] {
            assert_eq!(Action::from_value(value), Action::LogIn, "{value:?}");
        }
    }
}
