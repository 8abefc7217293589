//! One of the OpenAPI documents, and which of its responses were seen.

use crate::http::Answer;
use crate::schema::{differences, resolve};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// An interface as a document describes it.
pub(crate) struct Document {
    root: Value,
    seen: BTreeSet<(String, String, String)>,
}

impl Document {
    /// Reads `docs/NAME`.
    pub(crate) fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs")
            .join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let root: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(root["openapi"], "3.1.0");
        Self {
            root,
            seen: BTreeSet::new(),
        }
    }

    /// An answer has to be one of those that the document has for this request: status, headers, type and content.
    #[track_caller]
    pub(crate) fn saw(&mut self, method: &str, path: &str, answer: &Answer) {
        let (path, method, status) = (
            path.to_owned(),
            method.to_ascii_lowercase(),
            answer.status().to_string(),
        );
        let operation = &self.root["paths"][&path][&method];
        let described = &operation["responses"][&status];
        assert!(
            described.is_object(),
            "{method} {path} {status} is not described: {answer:?}"
        );
        let described = match described.get("$ref") {
            Some(reference) => resolve(&self.root, reference),
            None => described,
        };
        for (name, header) in described["headers"].as_object().into_iter().flatten() {
            match answer.header(&name.to_ascii_lowercase()) {
                Some(value) => {
                    let found = differences(&self.root, &header["schema"], &Value::from(value));
                    assert!(found.is_empty(), "{method} {path} {status} {name}: {found:?}");
                }
                None => assert_eq!(
                    header["required"], false,
                    "{method} {path} {status} has no {name}: {answer:?}"
                ),
            }
        }
        for (name, _) in answer.telling_headers() {
            let is_described = |(described, _): (&String, _)| described.eq_ignore_ascii_case(name);
            let described = described["headers"]
                .as_object()
                .into_iter()
                .flatten()
                .any(is_described);
            assert!(
                described || name == "content-type",
                "{method} {path} {status} has {name}: {answer:?}"
            );
        }
        let kind = answer.header("content-type").unwrap_or_default();
        let content = &described["content"][kind]["schema"];
        assert!(
            content.is_object(),
            "{method} {path} {status} as {kind} is not described: {answer:?}"
        );
        let body = match kind {
            "application/json" => serde_json::from_str(&answer.body).expect("JSON, as the type says"),
            _ => Value::from(answer.body.clone()),
        };
        let found = differences(&self.root, content, &body);
        assert!(
            found.is_empty(),
            "{method} {path} {status}: {found:?}\n{answer:?}"
        );
        self.seen.insert((path, method, status));
    }

    /// What the document says a request's body is.
    #[track_caller]
    pub(crate) fn asks(&self, path: &str, body: &str) {
        let schema =
            &self.root["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let body = serde_json::from_str(body).expect("JSON");
        let found = differences(&self.root, schema, &body);
        assert!(found.is_empty(), "{found:?}\n{body}");
    }

    /// Every response of the document was seen, and none of those that only other programs give.
    #[track_caller]
    pub(crate) fn has_nothing_that_was_not_seen(&self) {
        let mut missing = Vec::new();
        for (path, methods) in self.root["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                    let is_ours = response["x-of-others-only"] != true;
                    let seen = self
                        .seen
                        .contains(&(path.clone(), method.clone(), status.clone()));
                    if seen != is_ours {
                        missing.push(format!("{method} {path} {status}"));
                    }
                }
            }
        }
        assert!(
            missing.is_empty(),
            "described, and never seen, or seen though of others: {missing:?}"
        );
    }
}
