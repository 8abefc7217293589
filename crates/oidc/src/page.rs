//! The page on which a login ends: small, by itself, and without any power.
//!
//! No script, nothing from elsewhere, no link, nothing kept: the policy allows one style sheet, by its hash.
//! Text that came from the provider is escaped.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::LazyLock;

/// One finished page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status it goes with.
    pub status: u16,
    title: String,
    message: String,
    detail: Option<String>,
    is_good: bool,
}

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#1c2430;--quiet:#5a6472;--line:#dfe3e8;--good:#177245;--bad:#b3261e}\
@media(prefers-color-scheme:dark){:root{--paper:#12161c;--card:#1b212a;--ink:#e8ecf1;--quiet:#9aa5b3;--line:#2d3540;--good:#5fd39a;--bad:#ff8a80}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--paper);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}\
main{width:100%;max-width:30rem;padding:2rem;background:var(--card);border:1px solid var(--line);border-radius:.75rem}\
h1{display:flex;gap:.75rem;align-items:center;margin:0 0 .75rem;font-size:1.35rem;line-height:1.3}\
h1 svg{flex:none;width:1.75rem;height:1.75rem}\
p{margin:0}\
.good{color:var(--good)}.bad{color:var(--bad)}\
.detail{margin-top:1rem;padding:.75rem 1rem;border-left:3px solid var(--bad);background:var(--paper);overflow-wrap:anywhere;white-space:pre-wrap}\
footer{margin-top:1.5rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--quiet);font-size:.875rem}";

const GOOD: &str = "<svg class=\"good\" viewBox=\"0 0 24 24\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\" \
    stroke-linecap=\"round\" stroke-linejoin=\"round\" aria-hidden=\"true\">\
    <circle cx=\"12\" cy=\"12\" r=\"10\"/><path d=\"m7.5 12.5 3 3 6-7\"/></svg>";
const BAD: &str = "<svg class=\"bad\" viewBox=\"0 0 24 24\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\" \
    stroke-linecap=\"round\" aria-hidden=\"true\">\
    <circle cx=\"12\" cy=\"12\" r=\"10\"/><path d=\"M12 7v6M12 16.5v.01\"/></svg>";

/// Allows this page's style sheet and nothing else at all.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

impl Page {
    /// The login worked.
    pub fn success(who: Option<&str>) -> Self {
        Self {
            status: 200,
            title: "You are logged in".to_owned(),
            message: who.map_or_else(
                || "Go back to your terminal; it goes on by itself.".to_owned(),
                |who| format!("You are logged in as {who}. Go back to your terminal; it goes on by itself."),
            ),
            detail: None,
            is_good: true,
        }
    }

    /// The login did not work; `detail` says why, possibly in the provider's own words.
    pub fn failure(detail: &str) -> Self {
        Self {
            status: 200,
            title: "The login did not work".to_owned(),
            message: "Your terminal says more. Nothing was changed; you can try again from there.".to_owned(),
            detail: Some(sentence(detail)),
            is_good: false,
        }
    }

    /// A request that is not part of the login.
    pub fn stray(status: u16, detail: &str) -> Self {
        Self {
            status,
            title: "Not part of this login".to_owned(),
            message: "The login in your terminal is still waiting for its own answer.".to_owned(),
            detail: Some(sentence(detail)),
            is_good: false,
        }
    }

    /// The document.
    pub fn html(&self) -> String {
        let (title, message) = (escape(&self.title), escape(&self.message));
        let icon = if self.is_good { GOOD } else { BAD };
        let detail = self
            .detail
            .as_deref()
            .map(|detail| format!("<p class=\"detail\">{}</p>", escape(detail)))
            .unwrap_or_default();
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title} \u{2013} Epithet</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <h1>{icon}<span>{title}</span></h1>\n<p>{message}</p>\n{detail}\n\
             <footer>You can close this tab. \u{2013} Epithet</footer>\n</main>\n</body>\n</html>\n"
        )
    }

    /// The whole HTTP/1.1 response, after which the connection closes.
    pub fn response(&self, with_body: bool) -> Vec<u8> {
        let body = self.html();
        let reason = match self.status {
            200 => "OK",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            409 => "Conflict",
            421 => "Misdirected Request",
            _ => "Bad Request",
        };
        let allow = if self.status == 405 { "Allow: GET\r\n" } else { "" };
        let mut response = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
             Content-Security-Policy: {}\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nCross-Origin-Opener-Policy: same-origin\r\n\
             {allow}Connection: close\r\n\r\n",
            self.status,
            body.len(),
            *POLICY,
        );
        if with_body {
            response.push_str(&body);
        }
        response.into_bytes()
    }
}

/// Words of an error that stand for themselves: with a capital at the beginning.
pub(crate) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().chain(characters).collect())
        .unwrap_or_default()
}

/// Text that cannot be anything but text, in content and in attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_providers_words_stay_words() {
        let html = Page::failure("<script>alert('x')</script>\"&").html();
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;"));
        assert!(!html.contains("<script"));
    }

    #[test]
    fn the_page_may_do_nothing_but_show_its_own_style() {
        let response = String::from_utf8(Page::success(Some("alice@example.com")).response(true)).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let style = body
            .split_once("<style>")
            .unwrap()
            .1
            .split_once("</style>")
            .unwrap()
            .0;
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
        assert!(
            head.contains(&format!("default-src 'none'; style-src 'sha256-{hash}'")),
            "{head}"
        );
        for header in [
            "Referrer-Policy: no-referrer",
            "Cache-Control: no-store",
            "nosniff",
            "Connection: close",
        ] {
            assert!(head.contains(header), "{header}");
        }
        for foreign in ["http:", "https:", "src=", "href=", "url(", "@import", "style=\""] {
            assert!(!body.contains(foreign), "{foreign}");
        }
        assert!(body.contains("alice@example.com") && body.contains("You can close this tab"));
        assert_eq!(
            head.split("Content-Length: ")
                .nth(1)
                .unwrap()
                .lines()
                .next()
                .unwrap(),
            body.len().to_string()
        );
    }
}
