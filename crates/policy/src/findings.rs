//! Everything that can be said about a file of rules by reading it: `epithet policy check`.

use crate::document::{Document, DocumentError, Reading, TokenKind};
use crate::places::Places;
use crate::policy::{Policy, PolicyError, issuer_problems};
use crate::warnings::{CaLimits, Doubtful, Warning};
use std::sync::Arc;

/// What is wrong with a file of rules, and what looks so; each in the order in which it stands there.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The rules, without what is wrong.
    pub document: Document,
    /// What is wrong: a server would not use the file.
    pub errors: Vec<DocumentError>,
    /// What looks wrong.
    pub warnings: Vec<Warning>,
    /// There may be more errors than these.
    pub is_cut: bool,
}

impl Findings {
    /// Reads a file's text. `file` is only used to name it.
    pub fn of(file: &str, text: &str, limits: &CaLimits) -> Self {
        let Reading {
            document,
            mut errors,
            is_cut,
        } = Document::read_all(file, text);
        let places = Places::of(text);
        let mut doubtful = Doubtful::default();
        for error in &errors {
            doubtful.note(error.place.and_then(|place| places.section_at(place)));
        }
        let mut warnings = document.warnings_but(places, limits, doubtful);
        let places = Places::of(text);
        for (path, problem) in document.standing_problems() {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let place = places.find_section(&path);
            let problem_text = problem.to_string();
            let may_be_elsewhere = matches!(problem, PolicyError::NoIssuer | PolicyError::NoClientId);
            if may_be_elsewhere && path.len() < 2 {
                // A flag or another file may have it; or it is one of the errors.
                if errors.is_empty() {
                    warnings.push(Warning {
                        place,
                        problem: format!("not in this file: {problem_text}"),
                    });
                }
            } else {
                errors.push(DocumentError {
                    file: file.to_owned(),
                    place,
                    problem: problem_text,
                });
            }
        }
        errors.sort_by_key(|error| error.place.unwrap_or_default());
        warnings.sort_by_key(|warning| warning.place.unwrap_or_default());
        Self {
            document,
            errors,
            warnings,
            is_cut,
        }
    }
}

impl Document {
    /// Why this document could not run, each with the path to what it is about.
    fn standing_problems(&self) -> Vec<(Vec<String>, PolicyError)> {
        if self.token_kind() == TokenKind::Oidc {
            let is_list = !self.oidc.further.is_empty();
            let path = |index: usize, key: &str| {
                let mut path = vec!["oidc".to_owned()];
                // What the first one lacks, a flag may say.
                if is_list && (index > 0 || !key.is_empty()) {
                    path.push(index.to_string());
                }
                path.extend((!key.is_empty()).then(|| key.to_owned()));
                path
            };
            let problems = issuer_problems(self).into_iter();
            return problems
                .map(|(index, problem)| (path(index, problem.key()), problem))
                .collect();
        }
        let section = match self.token_kind() {
            TokenKind::Introspection => "introspection",
            _ => "command",
        };
        let problem = Policy::new(self, Arc::default()).err();
        problem
            .map(|problem| (vec![section.to_owned(), problem.key().to_owned()], problem))
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn findings(text: &str) -> (Vec<String>, Vec<String>) {
        let limits = CaLimits {
            max_ttl: Duration::from_secs(600),
            extensions: BTreeSet::new(),
            allows_principal: Arc::new(|_| true),
        };
        let found = Findings::of("p", text, &limits);
        let warnings = found.warnings.iter().map(|warning| {
            let (line, column) = warning.place.unwrap_or_default();
            format!("{line}:{column}: {warning}")
        });
        (
            found.errors.iter().map(ToString::to_string).collect(),
            warnings.collect(),
        )
    }

    #[test]
    fn errors_and_warnings_are_found_together_and_none_is_false_for_what_an_error_left_out() {
        let text = "users: {alice: [admin], bob: []}\nhosts:\n  web: {allow: {root: [admin]}, ttl: 1h}\n  \"[\": {}\n";
        let (errors, warnings) = findings(text);
        assert!(
            errors.len() == 1 && errors[0].starts_with("p:4:3: "),
            "{errors:#?}"
        );
        let begin: Vec<&str> = warnings
            .iter()
            .filter_map(|found| found.split(" ").next())
            .collect();
        assert_eq!(begin, ["1:25:", "3:33:"], "{warnings:#?}");
        // The tag may be one of carol's, and the rule that uses it may be the one that cannot be read.
        let (errors, warnings) =
            findings("users: {carol: admin, bob: [eng]}\nhosts: {web: {allow: {root: [admin]}}, db: 7}\n");
        assert_eq!(
            (errors.len(), warnings.len()),
            (2, 0),
            "{errors:#?} {warnings:#?}"
        );
        // Of what is no YAML nothing else is said.
        let (errors, warnings) = findings("users: {alice: [], bob: []}\nhosts: [\n");
        assert_eq!(
            (errors.len(), warnings.len()),
            (1, 0),
            "{errors:#?} {warnings:#?}"
        );
    }

    #[test]
    fn every_issuer_that_cannot_be_used_is_named_where_it_stands() {
        const RULES: &str = "users: {a: [t]}\nhosts: {h: {allow: {root: [t]}}}\n";
        let list = "oidc:\n  - {issuer: 'https://a', client-id: x}\n  - {issuer: 'https://b', client-id: x}\n  \
                    - {issuer: 'ftp://c', client-id: x, identity-prefix: 'c:'}\n  \
                    - {client-id: x, identity-prefix: 'c:'}\n  \
                    - {issuer: 'https://a', identity-prefix: 'd:'}\n";
        let (errors, warnings) = findings(&format!("{list}{RULES}"));
        let expected = [
            ("p:3:5: ", "needs identity-prefix"),
            ("p:4:6: ", "oidc.issuer:"),
            ("p:5:5: ", "oidc.issuer is required"),
            ("p:5:20: ", "two issuers have the identity-prefix"),
            ("p:6:5: ", "oidc.client-id is required"),
            ("p:6:6: ", "twice"),
        ];
        assert_eq!(errors.len(), expected.len(), "{errors:#?}");
        for (found, (place, words)) in errors.iter().zip(expected) {
            assert!(
                found.starts_with(place) && found.contains(words),
                "{found}\n{place}{words}"
            );
        }
        assert_eq!(warnings, [""; 0]);
        let (errors, warnings) = findings(RULES);
        assert_eq!((errors.len(), warnings.len()), (0, 2), "{warnings:#?}");
        assert!(
            warnings
                .iter()
                .all(|found| found.contains("not in this file: oidc.")),
            "{warnings:#?}"
        );
        let (errors, _) = findings(&format!(
            "token: command\ncommand: {{run: x, timeout: 0s}}\n{RULES}"
        ));
        assert!(
            errors.len() == 1 && errors[0].starts_with("p:2:19: command.timeout"),
            "{errors:#?}"
        );
        let (errors, _) = findings(&format!(
            "policy:\n  token: introspection\n  {}",
            RULES.replace('\n', "\n  ").trim()
        ));
        assert!(
            errors.len() == 1 && errors[0].starts_with("p:1:1: introspection."),
            "{errors:#?}"
        );
    }
}
