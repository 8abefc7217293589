//! What ssh's own log says, line by line.

/// ssh's lines, those for people and those for debugging apart.
pub(super) struct Said<'a> {
    plain: Vec<&'a str>,
    debug: Vec<&'a str>,
    /// The host's own last words, as ssh logs them: they are read for what they are, and nothing behind them.
    pub(super) disconnect: Option<&'a str>,
}

impl<'a> Said<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        const LAST_WORDS: &str = "Received disconnect from ";
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let before = lines.take_while(|line| !line.starts_with(LAST_WORDS));
        let (debug, plain) = before.partition(|line| line.starts_with("debug"));
        let disconnect = text
            .lines()
            .map(str::trim_end)
            .find(|line| line.starts_with(LAST_WORDS));
        Self {
            plain,
            debug,
            disconnect,
        }
    }

    pub(super) fn plain(&self, word: &str) -> Option<&'a str> {
        self.plain.iter().copied().find(|line| line.contains(word))
    }

    pub(super) fn last_plain(&self) -> Option<&'a str> {
        self.plain.last().copied()
    }

    pub(super) fn all_debug(&self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.debug.iter().copied().filter(move |line| line.contains(word))
    }

    /// The last one counts: what came before did not do. Older versions say some of it to people.
    pub(super) fn debug(&self, word: &'a str) -> Option<&'a str> {
        let plain = self.plain.iter().copied().filter(|line| line.contains(word));
        self.all_debug(word).chain(plain).last()
    }
}
