//! Cookies (RFC 6265), as far as a login needs them.

use url::Url;

/// Cookies (RFC 6265), as far as a login needs them: by origin and path, gone when told to go.
#[derive(Debug, Default)]
pub(crate) struct Jar(Vec<Cookie>);

#[derive(Debug)]
struct Cookie {
    origin: String,
    path: String,
    name: String,
    value: String,
}

impl Jar {
    /// Takes in one `Set-Cookie` header of an answer from `url`.
    pub(crate) fn take(&mut self, url: &Url, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        let mut path = url
            .path()
            .rsplit_once('/')
            .map_or("/", |(folder, _)| folder)
            .to_owned();
        let mut is_over = false;
        for part in parts {
            let (key, setting) = part.split_once('=').unwrap_or((part, ""));
            match key.to_ascii_lowercase().as_str() {
                "path" if setting.starts_with('/') => path = setting.to_owned(),
                "max-age" => is_over = setting.parse::<i64>().is_ok_and(|seconds| seconds <= 0),
                "expires" => is_over = is_over || setting.contains(" 1970 "),
                _ => {}
            }
        }
        let origin = url.origin().ascii_serialization();
        self.0
            .retain(|cookie| !(cookie.origin == origin && cookie.path == path && cookie.name == name));
        if !is_over {
            self.0.push(Cookie {
                origin,
                path,
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
    }

    /// The `Cookie` header for a request to `url`.
    pub(crate) fn header(&self, url: &Url) -> Option<String> {
        let origin = url.origin().ascii_serialization();
        let covers = |path: &str| {
            let rest = url.path().strip_prefix(path);
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || path.is_empty() || path.ends_with('/')
            })
        };
        let pairs: Vec<String> = self
            .0
            .iter()
            .filter(|cookie| cookie.origin == origin && covers(&cookie.path))
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_go_back_to_where_they_belong_until_they_are_taken_away() {
        let at = |path: &str| Url::parse(&format!("http://127.0.0.1:1{path}")).unwrap();
        let mut jar = Jar::default();
        jar.take(&at("/auth"), "s=1; path=/; httponly");
        jar.take(&at("/auth"), "i=2; path=/interaction/x; samesite=lax");
        assert_eq!(jar.header(&at("/interaction/x")).as_deref(), Some("s=1; i=2"));
        assert_eq!(
            jar.header(&at("/interaction/x/login")).as_deref(),
            Some("s=1; i=2")
        );
        assert_eq!(jar.header(&at("/interaction/xy")).as_deref(), Some("s=1"));
        assert_eq!(jar.header(&Url::parse("http://127.0.0.1:2/").unwrap()), None);
        jar.take(&at("/auth"), "s=3; path=/");
        jar.take(
            &at("/auth"),
            "i=; path=/interaction/x; expires=Thu, 01 Jan 1970 00:00:00 GMT",
        );
        assert_eq!(jar.header(&at("/interaction/x")).as_deref(), Some("s=3"));
        jar.take(&at("/auth"), "s=3; path=/; Max-Age=0");
        assert_eq!(jar.header(&at("/")), None);
    }
}
