//! Where and why a file is not a policy.

/// Why a file is not a policy: where, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    /// The file's name as the caller gave it.
    pub file: String,
    /// Line and column, both from 1, where they are known.
    pub place: Option<(u64, u64)>,
    /// What is wrong there.
    pub problem: String,
}

impl std::fmt::Display for DocumentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.problem),
            None => write!(f, "{}: {}", self.file, self.problem),
        }
    }
}

/// How an error begins to say that keys of the rules stand beside `policy:`.
const BESIDE: &str = " stands beside `policy:`";

impl DocumentError {
    /// A key of the rules that stands where the other sections of a configuration do.
    pub(crate) fn beside(file: &str, place: Option<(u64, u64)>, key: &str) -> Self {
        Self {
            file: file.to_owned(),
            place,
            problem: format!("`{key}`{BESIDE}; move it below"),
        }
    }

    /// Whether it is about where a key stands: [`Self::beside`].
    pub(crate) fn is_beside(&self) -> bool {
        self.problem.contains(BESIDE)
    }

    pub(crate) fn new(file: &str, error: &serde_saphyr::Error) -> Self {
        let place = error
            .location()
            .map(|location| (location.line(), location.column()));
        let mut problem = error.without_snippet().to_string();
        // The place stands in front already, and the parser's own options are no advice for whoever wrote the file.
        for superfluous in [" at line ", ", set DuplicateKeyPolicy"] {
            if let Some(end) = problem.rfind(superfluous) {
                problem.truncate(end);
            }
        }
        if problem.starts_with("cannot deserialize null into string") {
            problem = "nothing stands here, which is also what YAML reads in `~` and `null`; quote it if it is meant as text".to_owned();
        }
        for (said, meant) in [
            ("expected sequence start", "expected a list here, such as [a, b]"),
            (
                "expected mapping start",
                "expected a map here: keys with their values, such as {key: value}",
            ),
        ] {
            if problem == said {
                problem = meant.to_owned();
            }
        }
        if problem.starts_with("tabs disallowed") {
            problem = "a tab stands where YAML indents with blanks only; put blanks in its place".to_owned();
        }
        if let Some(limit) = problem.strip_prefix("budget breached: ") {
            problem = format!("this is more than is read of one file ({limit}); several files are merged");
        }
        Self {
            file: file.to_owned(),
            place,
            problem,
        }
    }
}
