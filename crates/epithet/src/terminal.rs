//! What a page for a person may look like where it is shown: its width, whether colours and box characters are welcome.

use epithet_wire::display::sanitize_line;
use std::io::IsTerminal;

/// The width of what is not a terminal, or does not say.
const WIDTH: usize = 80;
/// Beyond this, a line is harder to read, not easier.
const WIDTH_MAX: usize = 120;

/// How stdout may be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    /// Columns.
    pub(crate) width: usize,
    /// Whether characters beyond ASCII are understood.
    pub(crate) unicode: bool,
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
    /// Beside the point.
    Faint,
    /// The point.
    Strong,
}

impl Screen {
    /// Looks at stdout and the environment.
    pub(crate) fn of_stdout() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let text = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let locale = text("LC_ALL")
            .or_else(|| text("LC_CTYPE"))
            .or_else(|| text("LANG"));
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        let columns = size.map_or(0, |size| usize::from(size.ws_col));
        Self {
            width: if columns == 0 {
                WIDTH
            } else {
                columns.min(WIDTH_MAX)
            },
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
            colours: is_terminal
                && text("NO_COLOR").is_none()
                && text("TERM").is_some_and(|terminal| terminal != "dumb"),
        }
    }

    /// A page without colours and of ASCII only.
    #[cfg(test)]
    pub(crate) fn plain(width: usize) -> Self {
        Self {
            width,
            unicode: false,
            colours: false,
        }
    }

    /// The text in a tone, where colours are welcome.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        if self.colours && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Somebody else's text on one line of at most `max` columns, in characters that the terminal understands.
    pub(crate) fn line(&self, text: &str, max: usize) -> String {
        let understood = |c: char| if self.unicode || c.is_ascii() { c } else { '?' };
        let (mark, marked) = self.either(("\u{2026}", 1), ("...", 3));
        let whole = sanitize_line(text, usize::MAX);
        if whole.chars().count() <= max {
            return whole.chars().map(understood).collect();
        }
        let kept = whole.chars().take(max.saturating_sub(marked)).map(understood);
        kept.chain(mark.chars()).collect()
    }

    /// The first where the terminal understands it, else the second.
    pub(crate) fn either<T>(&self, unicode: T, ascii: T) -> T {
        if self.unicode { unicode } else { ascii }
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

/// The text broken at blanks so that no line is longer than `width`, later lines indented by `indent` blanks.
pub(crate) fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let mut page = String::new();
    for (index, line) in text.lines().enumerate() {
        if index > 0 {
            page.push('\n');
            page.push_str(&" ".repeat(indent));
        }
        let mut column = indent;
        for (index, word) in line.split(' ').enumerate() {
            let length = word.chars().count();
            if index > 0 && column + 1 + length > width {
                page.push('\n');
                page.push_str(&" ".repeat(indent));
                column = indent;
            } else if index > 0 {
                page.push(' ');
                column += 1;
            }
            page.push_str(word);
            column += length;
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_blanks_and_commands_stay_whole_words() {
        assert_eq!(
            wrapped("one two three four", 12, 4),
            "one two\n    three\n    four"
        );
        assert_eq!(wrapped("averyveryverylongword", 5, 2), "averyveryverylongword");
        assert_eq!(wrapped("a\nb", 80, 3), "a\n   b");
        assert_eq!(wrapped("", 80, 3), "");
    }

    #[test]
    fn a_line_is_cut_to_its_room_in_the_terminal_s_own_characters() {
        let unicode = Screen {
            unicode: true,
            ..Screen::plain(80)
        };
        for (screen, shown) in [
            (unicode, "gr\u{fc}\u{df} \u{2026}"),
            (Screen::plain(80), "gr?..."),
        ] {
            let line = screen.line("gr\u{fc}\u{df} Gott", 6);
            assert_eq!(line, shown);
            assert!(line.chars().count() <= 6);
        }
        assert_eq!(Screen::plain(80).line("short", 8), "short");
    }

    #[test]
    fn nothing_is_painted_where_colours_are_not_welcome() {
        assert_eq!(Screen::plain(80).paint(Tone::Bad, "no"), "no");
        let colours = Screen {
            colours: true,
            ..Screen::plain(80)
        };
        assert_eq!(colours.paint(Tone::Bad, "no"), "\x1b[31mno\x1b[0m");
        assert_eq!(colours.paint(Tone::Bad, ""), "");
    }
}
