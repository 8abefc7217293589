//! The little HTML that is needed: escaping what goes into a page, and finding the form in somebody's page.
//!
//! The reader is for the login pages of test providers. It knows tags, attributes and character references; scripts
//! and styles are skipped, and nothing is executed.

/// Text as it must be written in HTML, in content and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// One `input` or `button`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    /// The `type`, lower case; `submit` for a button that names none.
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) value: String,
}

/// A form and what it sends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Form {
    pub(crate) id: String,
    pub(crate) action: String,
    pub(crate) is_post: bool,
    pub(crate) fields: Vec<Field>,
}

/// A link with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) target: String,
    pub(crate) text: String,
}

/// What a stand-in for a person can act on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) forms: Vec<Form>,
    pub(crate) links: Vec<Link>,
}

/// Finds the forms and links of a page.
pub(crate) fn read(page: &str) -> Document {
    let mut document = Document::default();
    // Buttons outside their form name it with `form="id"`; the form may come later.
    let mut elsewhere: Vec<(String, Field)> = Vec::new();
    let mut open_form: Option<usize> = None;
    let mut open_link: Option<Link> = None;
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        if let Some(link) = &mut open_link {
            link.text.push_str(&unescape(&rest[..start]));
        }
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix("<!--") {
            rest = after.find("-->").map_or("", |end| &after[end + 3..]);
            continue;
        }
        let (tag, attributes, after) = read_tag(rest);
        rest = after;
        let attribute = |name: &str| {
            attributes
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
                .unwrap_or_default()
        };
        match tag.as_str() {
            "script" | "style" => {
                let end = format!("</{tag}");
                rest = rest.find(&end).map_or("", |position| &rest[position..]);
            }
            "form" => {
                document.forms.push(Form {
                    id: attribute("id"),
                    action: attribute("action"),
                    is_post: attribute("method").eq_ignore_ascii_case("post"),
                    fields: Vec::new(),
                });
                open_form = Some(document.forms.len() - 1);
            }
            "/form" => open_form = None,
            "input" | "button" => {
                let default_kind = if tag == "input" { "text" } else { "submit" };
                let kind = match attribute("type").to_ascii_lowercase() {
                    kind if kind.is_empty() => default_kind.to_owned(),
                    kind => kind,
                };
                let field = Field {
                    kind,
                    name: attribute("name"),
                    value: attribute("value"),
                };
                let owner = attribute("form");
                match open_form {
                    _ if !owner.is_empty() => elsewhere.push((owner, field)),
                    Some(index) => document.forms[index].fields.push(field),
                    None => {}
                }
            }
            "a" => {
                open_link = Some(Link {
                    target: attribute("href"),
                    text: String::new(),
                });
            }
            "/a" => {
                if let Some(mut link) = open_link.take() {
                    link.text = link.text.trim().to_owned();
                    document.links.push(link);
                }
            }
            _ => {}
        }
    }
    for (owner, field) in elsewhere {
        if let Some(form) = document.forms.iter_mut().find(|form| form.id == owner) {
            form.fields.push(field);
        }
    }
    document
}

/// Reads the tag at the start of `text`: its name in lower case (`/a` for an end), its attributes, what follows.
fn read_tag(text: &str) -> (String, Vec<(String, String)>, &str) {
    let body = &text[1..];
    let name_end = body
        .find(|c: char| c.is_whitespace() || c == '>')
        .unwrap_or(body.len());
    let name = body[..name_end].trim_end_matches('/').to_ascii_lowercase();
    let mut attributes = Vec::new();
    let mut rest = body[name_end..].trim_start();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if rest.is_empty() {
            return (name, attributes, rest);
        }
        if let Some(after) = rest.strip_prefix('>') {
            return (name, attributes, after);
        }
        let key_end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '=' | '>' | '/'))
            .unwrap_or(rest.len());
        // A stray `=` is a name of its own, so that each round takes something.
        let key_end = key_end.max(rest.chars().next().map_or(0, char::len_utf8));
        let key = rest[..key_end].to_ascii_lowercase();
        rest = rest[key_end..].trim_start();
        let mut value = String::new();
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start();
            let (raw, remaining) = match after.chars().next() {
                Some(quote @ ('"' | '\'')) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
                _ => after.split_at(
                    after
                        .find(|c: char| c.is_whitespace() || c == '>')
                        .unwrap_or(after.len()),
                ),
            };
            value = unescape(raw);
            rest = remaining;
        }
        attributes.push((key, value));
    }
}

/// Resolves character references: the five named ones that matter, and numbers.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        let reference = rest.find(';').filter(|end| *end <= 10).map(|end| &rest[1..end]);
        let character = reference.and_then(|name| match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => {
                let number = name.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                code.ok().and_then(char::from_u32)
            }
        });
        match (reference, character) {
            (Some(name), Some(c)) => {
                plain.push(c);
                rest = &rest[name.len() + 2..];
            }
            _ => {
                plain.push('&');
                rest = &rest[1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_escaped_reads_back_the_same() {
        let text = r#"<a href="x">&amp; 'q' ü"#;
        assert!(!escape(text).contains(['<', '>', '"', '\'']));
        assert_eq!(unescape(&escape(text)), text);
        assert_eq!(unescape("&#x27;&#47;&unknown; & &;"), "'/&unknown; & &;");
    }

    #[test]
    fn a_form_is_found_with_its_fields_wherever_its_buttons_are() {
        let page = r#"<!-- <form action="/no"> --><style>a<b{}</style>
            <form id="f" action='/go?a=1&amp;b=2' METHOD=post>
            <input type="hidden" name="xsrf" value="t&quot;"/><input required name=login placeholder="a > b">
            </form><button type="submit" form="f">Continue</button><button name="abort" value="yes" form="f">No</button>
            <a href="/x/abort">[ <b>Cancel</b> ]</a>"#;
        let document = read(page);
        let field = |kind: &str, name: &str, value: &str| Field {
            kind: kind.into(),
            name: name.into(),
            value: value.into(),
        };
        assert_eq!(
            document.forms,
            vec![Form {
                id: "f".into(),
                action: "/go?a=1&b=2".into(),
                is_post: true,
                fields: vec![
                    field("hidden", "xsrf", "t\""),
                    field("text", "login", ""),
                    field("submit", "", ""),
                    field("submit", "abort", "yes"),
                ],
            }]
        );
        assert_eq!(
            document.links,
            vec![Link {
                target: "/x/abort".into(),
                text: "[ Cancel ]".into()
            }]
        );
    }

    #[test]
    fn broken_pages_end() {
        for page in [
            "<",
            "<a",
            "<a href",
            "<a href=",
            "<a href=\"",
            "<form =>",
            "<input = = =",
            "<!--",
            "<script>",
            "&",
            "<é ü=ö",
        ] {
            read(page);
        }
    }
}
