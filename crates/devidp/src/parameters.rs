//! The parameters of a request, from its query or its form.

use url::form_urlencoded;

/// Parameters in the order in which they came. A parameter without a value counts as absent (RFC 6749, section 3.1).
#[derive(Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

/// A parameter that came twice, which RFC 6749 forbids: two readers could take a different one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repeated(pub(crate) String);

impl Parameters {
    /// Reads an `application/x-www-form-urlencoded` text. `resource` may repeat (RFC 8707); the first one counts.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Repeated> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text) {
            if value.is_empty() {
                continue;
            }
            if all.iter().any(|(known, _)| *known == name) {
                if name == "resource" {
                    continue;
                }
                return Err(Repeated(name.into_owned()));
            }
            all.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(all))
    }

    /// The value of the parameter `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_there_once_or_not_at_all() {
        let parameters = Parameters::parse(b"a=1&b=&c=x%20y+z&b=2").unwrap();
        assert_eq!(parameters.get("a"), Some("1"));
        assert_eq!(parameters.get("b"), Some("2"));
        assert_eq!(parameters.get("c"), Some("x y z"));
        assert_eq!(parameters.get("d"), None);
        assert_eq!(Parameters::parse(b"a=1&a=1").unwrap_err(), Repeated("a".into()));
        assert_eq!(
            Parameters::parse(b"resource=a&resource=b")
                .unwrap()
                .get("resource"),
            Some("a")
        );
    }
}
