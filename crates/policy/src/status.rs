//! Which rules are in force: for health checks and metrics.

use crate::document::Document;
use jiff::Timestamp;

/// Which rules are in force, since when, and whether newer ones could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// When the rules in force were read.
    pub loaded_at: Timestamp,
    /// How many users, groups and host patterns they have.
    pub users: usize,
    /// See there.
    pub groups: usize,
    /// See there.
    pub hosts: usize,
    /// How often rules were read again and took effect.
    pub reloads: u64,
    /// How often rules were read again and could not be used.
    pub failed_reloads: u64,
    /// What was wrong with the last ones, if they could not be used: with file, line and column where they are known.
    /// For the log of whoever runs the server; it may have words of the file in it.
    pub problem: Option<String>,
}

impl Status {
    pub(crate) fn loaded(document: &Document) -> Self {
        Self {
            loaded_at: Timestamp::now(),
            users: document.users.len(),
            groups: document.groups.len(),
            hosts: document.hosts.len(),
            reloads: 0,
            failed_reloads: 0,
            problem: None,
        }
    }

    pub(crate) fn replace(&mut self, new: Self) {
        *self = Self {
            reloads: self.reloads + 1,
            failed_reloads: self.failed_reloads,
            ..new
        };
    }

    pub(crate) fn fail(&mut self, error: &dyn std::fmt::Display) {
        self.failed_reloads += 1;
        // Alternate, so that an error with several causes says them all.
        self.problem = Some(format!("{error:#}"));
    }

    /// What `/readyz` says of a server that can verify tokens.
    pub fn readiness(&self) -> String {
        let place = self
            .place()
            .map(|place| format!(" ({place})"))
            .unwrap_or_default();
        match self.problem {
            None => "ready\n".to_owned(),
            Some(_) => format!("ready, with older rules than the file's: the last reload failed{place}\n"),
        }
    }

    /// The place at which [`Self::problem`] is, `policy.yaml:3:5`, without a word of what stands there: for anybody.
    pub fn place(&self) -> Option<&str> {
        let problem = self.problem.as_deref()?;
        let mut ends = problem.match_indices(':').map(|(at, _)| at);
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // The first `:LINE:COLUMN:`; a file's name may have colons in it.
        let mut before = ends.next()?;
        let mut middle = ends.next()?;
        for end in ends {
            if is_number(&problem[before + 1..middle]) && is_number(&problem[middle + 1..end]) {
                let place = &problem[..end];
                let name = place.rfind([' ', '/']).map_or(0, |at| at + 1);
                return Some(&place[name..]);
            }
            (before, middle) = (middle, end);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_problem_is_told_without_what_stands_there() {
        for (problem, place) in [
            ("policy.yaml:3:5: unknown field `x`", Some("policy.yaml:3:5")),
            (
                "configuration file /etc/epithet/a b:c.yaml:13:50: secret",
                Some("b:c.yaml:13:50"),
            ),
            ("p:1:2:3: x", Some("p:1:2")),
            ("oidc.issuer is required: such as https://x", None),
            ("a: b: c", None),
            ("", None),
        ] {
            let mut status = Status::loaded(&Document::default());
            status.fail(&problem);
            assert_eq!(status.place(), place, "{problem}");
            assert_eq!(status.failed_reloads, 1);
        }
    }
}
