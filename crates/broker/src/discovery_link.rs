//! Where a CA's discovery document is: the `Link` header of its front page (RFC 8288), and only at the CA itself.

use epithet_wire::ca::{AUTH_RELATION, DISCOVERY_RELATION};
use epithet_wire::display::sanitize_line;
use url::Url;

/// The target of the first link-value in a `Link` header (RFC 8288) whose relation is one of the two for discovery.
pub(crate) fn discovery_target(header: &str) -> Option<String> {
    let mut rest = header;
    while let Some(open) = rest.find('<') {
        let (target, after) = rest[open + 1..].split_once('>')?;
        let (parameters, next) = split_parameters(after);
        let relation = parameters
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("rel"))
            .map(|(_, value)| value.as_str());
        // RFC 8288 section 2.1: relations are compared without regard to case.
        let is_discovery = |relation: &str| {
            [AUTH_RELATION, DISCOVERY_RELATION]
                .iter()
                .any(|name| relation.eq_ignore_ascii_case(name))
        };
        if relation.is_some_and(|relations| relations.split_ascii_whitespace().any(is_discovery)) {
            return Some(target.to_owned());
        }
        rest = next;
    }
    None
}

/// The parameters up to the comma that ends a link-value, and what follows it.
fn split_parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let (mut quoted, mut escaped) = (false, false);
    let end = text.find(|c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => return true,
            _ => {}
        }
        false
    });
    let (own, next) = end.map_or((text, ""), |end| (&text[..end], &text[end + 1..]));
    let parameters = own.split(';').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
    });
    (parameters.collect(), next)
}

/// Resolves a discovery link against the CA's URL taken as a directory, and refuses another origin.
pub(crate) fn discovery_url(ca: &Url, target: &str) -> Result<Url, String> {
    let mut base = ca.clone();
    base.set_query(None);
    base.set_fragment(None);
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    let url = base.join(target).map_err(|error| {
        format!(
            "its discovery link `{}` is not a URL: {error}",
            sanitize_line(target, 100)
        )
    })?;
    if url.origin() == ca.origin() {
        Ok(url)
    } else {
        Err(format!(
            "it advertised discovery at a different origin ({})",
            sanitize_line(url.as_str(), 100)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discovery_link_is_found_among_others() {
        let auth = AUTH_RELATION;
        let found = [
            format!("<discovery>; rel=\"{auth}\""),
            format!("<x>; rel=next, <discovery>; rel=\"{auth}\""),
            format!("<discovery>; rel=\"alternate {auth}\""),
            format!("<discovery>; title=\"a, b\"; rel=\"{auth}\""),
            format!("<discovery>; REL=\"{auth}\""),
            format!("<discovery>; rel=\"{}\"", auth.to_uppercase()),
            format!("<\u{fffd}>; title=\"\u{fffd}\", <discovery>; rel=\"{auth}\""),
            "<discovery>; rel=\"discovery\"".to_owned(),
        ];
        for header in &found {
            assert_eq!(discovery_target(header).as_deref(), Some("discovery"), "{header}");
        }
        let not = [
            "<discovery>; rel=next".to_owned(),
            String::new(),
            "discovery; rel=discovery".to_owned(),
            format!("<discovery>; rel=next; rel=\"{auth}\""),
        ];
        for header in &not {
            assert_eq!(discovery_target(header), None, "{header}");
        }
    }

    #[test]
    fn discovery_stays_with_its_ca() {
        let resolve =
            |ca: &str, target: &str| discovery_url(&Url::parse(ca).unwrap(), target).map(String::from);
        for ca in [
            "https://whee.example.com/epithet/ca",
            "https://whee.example.com/epithet/ca/",
        ] {
            assert_eq!(
                resolve(ca, "discovery").unwrap(),
                "https://whee.example.com/epithet/ca/discovery"
            );
        }
        for ca in [
            "https://ca.example.com",
            "https://ca.example.com/",
            "https://ca.example.com/?debug=1",
        ] {
            assert_eq!(
                resolve(ca, "discovery").unwrap(),
                "https://ca.example.com/discovery"
            );
        }
        for target in [
            "https://evil.example.com/discovery",
            "//evil/discovery",
            "http://ca.example.com/discovery",
            "https://ca.example.com:8443/d",
        ] {
            assert!(
                resolve("https://ca.example.com", target)
                    .unwrap_err()
                    .contains("different origin"),
                "{target}"
            );
        }
    }
}
