//! The pages that a person sees: plain HTML, light and dark, nothing from outside, nothing that runs.

use crate::html::escape;
use aws_lc_rs::digest;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};
use std::sync::LazyLock;

/// What every page says, so that nobody takes this for a place to type a real password.
pub(crate) const LABEL: &str =
    "Development identity provider: for trying Epithet on this machine, never for real logins";

const STYLE: &str = "\
:root{color-scheme:light dark;--ground:#f6f7f9;--card:#fff;--ink:#1c2430;--quiet:#566070;--line:#d5dae2;--accent:#0b5cad;--on-accent:#fff;--warn:#fff3cd;--on-warn:#5c4400}\
@media(prefers-color-scheme:dark){:root{--ground:#12161c;--card:#1b212a;--ink:#e8ecf2;--quiet:#a3adbb;--line:#364050;--accent:#7ab8ff;--on-accent:#0b1622;--warn:#3d3000;--on-warn:#ffe08a}}\
*{box-sizing:border-box}form{margin:0 0 1rem}\
body{margin:0;min-height:100vh;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
header{background:var(--warn);color:var(--on-warn);padding:.75rem 1rem;text-align:center;font-weight:600;text-wrap:balance}\
main{max-width:26rem;margin:3rem auto;padding:2rem;background:var(--card);border:1px solid var(--line);border-radius:.75rem}\
h1{margin:0 0 1rem;font-size:1.4rem}p{margin:0 0 1rem}label{display:block;margin:0 0 .25rem;font-weight:600}\
input{width:100%;margin:0 0 1rem;padding:.6rem .75rem;font:inherit;color:inherit;background:transparent;border:1px solid var(--quiet);border-radius:.5rem}\
button{padding:.6rem 1.25rem;font:inherit;font-weight:600;border-radius:.5rem;border:1px solid var(--accent);background:var(--accent);color:var(--on-accent);cursor:pointer}\
button.second{background:transparent;color:var(--accent);margin-left:.5rem}\
a{color:var(--accent)}main>:last-child{margin-bottom:0}\
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}\
.quiet{color:var(--quiet);font-size:.9rem}.error{font-weight:600}code{overflow-wrap:anywhere}\
@media(max-width:30rem){main{margin:0;border:0;border-radius:0;min-height:70vh}}";

/// The style's hash, which lets the Content-Security-Policy admit exactly this style and no other.
static STYLE_HASH: LazyLock<String> =
    LazyLock::new(|| STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes())));

/// A page with this title and this body, which is HTML already. `form_targets` are the origins besides our own that
/// its form may end at: browsers apply `form-action` to the redirect after a form as well.
pub(crate) fn page(status: StatusCode, title: &str, body: &str, form_targets: &str) -> Response {
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action 'self' {form_targets}; base-uri 'none'; frame-ancestors 'none'",
        *STYLE_HASH
    );
    let text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} · Epithet development identity provider</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<header>{LABEL}</header>\n<main>\n<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n",
        title = escape(title),
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    (status, headers, text).into_response()
}

/// A page that says what went wrong and leads nowhere.
pub(crate) fn problem(status: StatusCode, title: &str, what: &str) -> Response {
    page(
        status,
        title,
        &format!("<p class=\"error\">{}</p>", escape(what)),
        "",
    )
}
