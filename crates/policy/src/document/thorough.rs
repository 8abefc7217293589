//! Reading a document to its end whatever is wrong in it, so that one look shows everything.
//!
//! A reader that stops at the first mistake cannot be asked for the second. So the text is read again without the entry
//! that was wrong, until nothing is: each entry that cannot be read is left out, with what it says, and the rest counts.

mod careful;

use super::{Document, DocumentError, PolicySection, SECTION, lines_begin_with};
use careful::{Careful, Pass};
use epithet_wire::limits::RULES_ERRORS_MAX;
use serde::Deserialize;
use serde_saphyr::options::{DuplicateKeyPolicy, Options};
use std::collections::BTreeSet;

/// What could be read of a text, and everything that could not.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// The document without the entries that are wrong.
    pub document: Document,
    /// What is wrong, in the order in which it stands there.
    pub errors: Vec<DocumentError>,
    /// There may be more than [`RULES_ERRORS_MAX`] errors: it was given up.
    pub is_cut: bool,
}

impl Document {
    /// Reads a file's text as [`Self::from_yaml`] does, and goes on after an error.
    pub fn read_all(file: &str, text: &str) -> Reading {
        let mut reading = Reading::default();
        let has_section = match serde_saphyr::from_str::<Option<super::Keys>>(text) {
            Ok(keys) => keys.is_some_and(|keys| keys.contains_key(SECTION)),
            // What stands after the mistake is not known, and need not be.
            Err(_) => lines_begin_with(text, SECTION),
        };
        let mut left_out = BTreeSet::new();
        loop {
            let pass = Pass::without(&left_out);
            let read = match has_section {
                false => read(text, &pass),
                true => read::<PolicySection>(text, &pass).map(|section| section.unwrap_or_default().policy),
            };
            let error = match read {
                Ok(document) => {
                    reading.document = document.unwrap_or_default();
                    break;
                }
                Err(error) => error,
            };
            if reading.errors.len() >= RULES_ERRORS_MAX {
                reading.is_cut = true;
                break;
            }
            let wrong = pass.into_failed();
            reading.errors.push(DocumentError::new(file, &error));
            // Leaving it out did not help, or there is nothing left: what follows cannot be read.
            if wrong.is_empty() || !left_out.insert(wrong) {
                keep_the_last_of_its_place(&mut reading.errors);
                break;
            }
        }
        // Whatever the server would stop at is an error here too.
        if let Err(error) = Self::from_yaml(file, text)
            && (reading.errors.is_empty() || error.is_beside())
        {
            reading.errors.push(error);
        }
        reading
            .errors
            .sort_by_key(|error| error.place.unwrap_or_default());
        reading.errors.dedup();
        reading
    }
}

/// What ends the reading is why anything else was said of that place.
fn keep_the_last_of_its_place(errors: &mut Vec<DocumentError>) {
    if let Some(last) = errors.pop() {
        errors.retain(|error| error.place != last.place);
        errors.push(last);
    }
}

fn read<'de, T: Deserialize<'de>>(text: &'de str, pass: &Pass<'_>) -> Result<Option<T>, serde_saphyr::Error> {
    let mut options = Options::default();
    // Told apart in `Careful`, which can go on after one.
    options.duplicate_keys = DuplicateKeyPolicy::PassThrough;
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        Option::<T>::deserialize(Careful::new(deserializer, pass))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        let reading = Document::read_all("p", text);
        assert_eq!(
            reading.errors.is_empty(),
            Document::from_yaml("p", text).is_ok(),
            "{text}"
        );
        reading.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_error_is_found_and_what_is_right_is_read() {
        let text = r#"
users: {alice: [admin], bob: eng, alice: [x]}
hosts:
  "[z-a]": {}
  web:
    ttl: soon
    experation: 5m
    allow: {"a,b": [x], root: [admin]}
    principals: [good, "{group}", "{user"]
  web.: {ttl: 1m, expiration: 2m}
  db: {source-address: [10.0.0.0/33], require: {age: 5m, acr: [x]}}
oidc: {client_id: x, issuer: https://i}
tokens: oidc
"#;
        let found = errors(text);
        let expected = [
            "p:2:30: ",
            "p:2:35: duplicate mapping key: alice",
            "p:4:3: the host pattern \"[z-a]\"",
            "p:6:10: `soon` is not a duration",
            "p:7:5: unknown field `experation`",
            "p:8:13: the user name must begin",
            "p:9:24: `{group}` is not",
            "p:9:35: `{user` is not",
            "p:10:9: duplicate field `expiration`",
            "p:11:",
            "p:11:49: unknown field `age`",
            "p:12:8: unknown field `client_id`",
            "p:13:1: unknown field `tokens`",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}\n{expected}");
        }
        let document = Document::read_all("p", text).document;
        assert_eq!(document.users["alice"], ["admin"]);
        assert_eq!(document.oidc.first.issuer.as_deref(), Some("https://i"));
        let web = &document.hosts[&"web".parse().unwrap()];
        assert_eq!((web.allow.len(), web.expiration), (1, None));
        // The same under `policy:`, where other sections are nobody's business.
        let below = format!(
            "agent: {{x: y}}\npolicy:{}",
            text.trim_end().replace('\n', "\n  ")
        );
        assert_eq!(errors(&below).len(), expected.len());
    }

    #[test]
    fn errors_before_one_that_ends_the_reading_are_found_too() {
        let found = errors("users: {a: b}\nhosts:\n  web: {ttl: 1}\n  db: [\n");
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(
            found[0].starts_with("p:1:12: ") && found[1].starts_with("p:3:14: "),
            "{found:#?}"
        );
        for (text, count) in [
            ("", 0),
            ("[a]", 1),
            ("a", 1),
            ("\t", 0),
            ("users: [", 1),
            ("a: b\nc: d\n", 2),
        ] {
            assert_eq!(errors(text).len(), count, "{text:?}: {:?}", errors(text));
        }
        let beside = errors("policy: {hosts: {h: {ttl: x}}}\nusers: {a: [b]}\n");
        assert_eq!(beside.len(), 2, "{beside:#?}");
        assert!(
            beside[1].starts_with("p:2:1: `users` stands beside"),
            "{beside:#?}"
        );
    }

    #[test]
    fn anchors_and_merge_keys_mean_what_they_mean_to_the_server() {
        let text = "hosts:\n  a: &base {ttl: 1m, allow: {root: [x]}}\n  b: {<<: *base, ttl: 2m}\n  c: *base\n  d: {<<: *base, ttl: x}\n";
        let found = errors(text);
        assert!(found.len() == 1 && found[0].starts_with("p:5:23: "), "{found:#?}");
        let document = Document::read_all("p", text).document;
        let life = |name: &str| {
            document.hosts[&name.parse().unwrap()]
                .expiration
                .map(|life| life.get().as_secs())
        };
        assert_eq!((life("b"), life("c")), (Some(120), Some(60)));
        assert_eq!(document.hosts[&"b".parse().unwrap()].allow.len(), 1);
    }

    #[test]
    fn it_is_given_up_after_a_number_of_errors() {
        let text = |count: usize| {
            let users: String = (0..count).map(|n| format!("  u{n}: x\n")).collect();
            format!("users:\n{users}")
        };
        let most = Document::read_all("p", &text(RULES_ERRORS_MAX));
        assert_eq!((most.errors.len(), most.is_cut), (RULES_ERRORS_MAX, false));
        let more = Document::read_all("p", &text(RULES_ERRORS_MAX + 1));
        assert_eq!((more.errors.len(), more.is_cut), (RULES_ERRORS_MAX, true));
    }
}
