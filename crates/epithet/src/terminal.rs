//! What a page for a person may look like where it is shown.

use std::io::IsTerminal;

/// How stdout may be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    colours: bool,
}

/// What a colour stands for; nothing is said by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// To be looked at.
    Warning,
    /// Broken.
    Bad,
}

impl Screen {
    /// Looks at stdout and the environment.
    pub(crate) fn of_stdout() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let text = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        Self {
            colours: is_terminal
                && text("NO_COLOR").is_none()
                && text("TERM").is_some_and(|terminal| terminal != "dumb"),
        }
    }

    /// A page without colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colours: false }
    }

    /// The text in a tone, where colours are welcome.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        if self.colours && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A path as people write it: the home directory as `~`.
pub(crate) fn short_path(path: &std::path::Path) -> String {
    let home = crate::config::home().ok();
    match home.as_deref().and_then(|home| path.strip_prefix(home).ok()) {
        Some(rest) if rest.as_os_str().is_empty() => "~".to_owned(),
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_painted_where_colours_are_not_welcome() {
        assert_eq!(Screen::plain().paint(Tone::Bad, "no"), "no");
        let colours = Screen { colours: true };
        assert_eq!(colours.paint(Tone::Bad, "no"), "\x1b[31mno\x1b[0m");
        assert_eq!(colours.paint(Tone::Bad, ""), "");
    }
}
