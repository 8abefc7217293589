//! As much of JSON Schema 2020-12 as the documents use; anything else in them is an error, so that nothing is skipped.

use serde_json::Value;

/// Every way in which `value` differs from `schema`. `document` is where `$ref` looks.
pub(crate) fn differences(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(document, schema, value, "$", &mut found);
    found
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let keywords = schema.as_object().expect("a schema is an object");
    for (keyword, wanted) in keywords {
        let is_right = match keyword.as_str() {
            "description" => true,
            "$ref" => {
                check(document, resolve(document, wanted), value, at, found);
                true
            }
            "type" => is_of_type(wanted.as_str().expect("a type"), value),
            "const" => value == wanted,
            "minLength" => length(value).is_none_or(|length| length >= number(wanted)),
            "maxLength" => length(value).is_none_or(|length| length <= number(wanted)),
            "minItems" => items(value).is_none_or(|items| items.len() as u64 >= number(wanted)),
            "maxItems" => items(value).is_none_or(|items| items.len() as u64 <= number(wanted)),
            "minimum" => value
                .as_i64()
                .is_none_or(|value| value >= wanted.as_i64().expect("a number")),
            "maximum" => value
                .as_i64()
                .is_none_or(|value| value <= wanted.as_i64().expect("a number")),
            "pattern" => value
                .as_str()
                .is_none_or(|text| matches(wanted.as_str().expect("a pattern"), text)),
            "required" => {
                for name in wanted
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter_map(Value::as_str)
                {
                    if value.get(name).is_none() {
                        found.push(format!("{at}: {name} is missing"));
                    }
                }
                true
            }
            "properties" => {
                for (name, schema) in wanted.as_object().expect("an object") {
                    if let Some(value) = value.get(name) {
                        check(document, schema, value, &format!("{at}.{name}"), found);
                    }
                }
                // Readers ignore what they do not know; what our own servers send has to be described.
                let known = |name: &String| wanted.get(name).is_some();
                let unknown = value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, _)| name)
                    .filter(|name| !known(name));
                found.extend(unknown.map(|name| format!("{at}.{name} is not described")));
                true
            }
            "additionalProperties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    check(document, wanted, value, &format!("{at}.{name}"), found);
                }
                true
            }
            "items" => {
                for (index, value) in items(value).into_iter().flatten().enumerate() {
                    check(document, wanted, value, &format!("{at}[{index}]"), found);
                }
                true
            }
            other => panic!("this test does not know the keyword {other}"),
        };
        if !is_right {
            found.push(format!("{at}: {value} is not {keyword} {wanted}"));
        }
    }
}

/// What `#/components/...` names.
pub(crate) fn resolve<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let pointer = reference
        .as_str()
        .and_then(|text| text.strip_prefix('#'))
        .expect("a reference within the document");
    document
        .pointer(pointer)
        .unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("this test does not know the type {other}"),
    }
}

fn length(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}

fn items(value: &Value) -> Option<&Vec<Value>> {
    value.as_array()
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// The patterns of the documents, by grep, so that nothing of ours reads them in its own way.
fn matches(pattern: &str, text: &str) -> bool {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut grep = Command::new("grep")
        .args(["-zqP", "--", pattern])
        .stdin(Stdio::piped())
        .spawn()
        .expect("grep is installed");
    grep.stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("grep reads");
    grep.wait().expect("grep ends").success()
}

#[test]
fn what_differs_is_found() {
    let document = serde_json::json!({"a": {"type": "string", "minLength": 2}});
    let schema = serde_json::json!({
        "type": "object", "required": ["x"], "properties": {"x": {"$ref": "#/a"}, "n": {"type": "integer", "maximum": 3}, "p": {"pattern": "^a+$"}}
    });
    let of = |value: Value| differences(&document, &schema, &value).len();
    assert_eq!(of(serde_json::json!({"x": "ab", "n": 3, "p": "aa"})), 0);
    for wrong in [
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!({"x": "a"}),
        serde_json::json!({"x": 7}),
        serde_json::json!({"x": "ab", "n": 4}),
        serde_json::json!({"x": "ab", "p": "b"}),
        serde_json::json!({"x": "ab", "new": 1}),
    ] {
        assert_ne!(of(wrong.clone()), 0, "{wrong}");
    }
}
