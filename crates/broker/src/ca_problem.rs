//! Why a CA said nothing, or something that no CA says: one sentence for each situation that a person can act on.

use epithet_wire::display::{TLS_CA_AS_SERVER, sanitize_line};
use reqwest::StatusCode;
use std::error::Error;
use std::io;
use std::time::Duration;
use url::{Host, Url};

/// How much of a cause is shown to a person.
const WORDS_SHOWN: usize = 500;
/// How long a look at a name may take that decides between two sentences.
const NAME_LOOKUP: Duration = Duration::from_secs(1);

/// What became of a request that got no answer.
pub(crate) async fn no_answer(error: &reqwest::Error, ca: &Url) -> String {
    if error.is_timeout() {
        return if error.is_connect() && !resolves(ca).await {
            format!(
                "the name {} cannot be resolved (no name server answers); are you online, and is the name right?",
                ca.host_str().unwrap_or_default()
            )
        } else if error.is_connect() {
            "no connection in time; is the network there, and is a firewall in between?".to_owned()
        } else {
            "no answer in time".to_owned()
        };
    }
    let cause = Cause::of(error);
    if cause.is_without_route() {
        return without_route(ca, &cause.words).await;
    }
    cause.sentence(ca)
}

/// Whether the CA's name resolves without much ado, so that it is not what the time was spent on.
async fn resolves(ca: &Url) -> bool {
    let Some(Host::Domain(name)) = ca.host() else {
        return true;
    };
    let port = ca.port_or_known_default().unwrap_or(443);
    let found = tokio::time::timeout(NAME_LOOKUP, tokio::net::lookup_host((name, port))).await;
    matches!(found, Ok(Ok(_)))
}

/// What an error comes down to.
#[derive(Debug)]
struct Cause {
    /// The innermost reason, which says more than the chain above it.
    words: String,
    /// The words of the whole chain, for finding out which layer failed.
    chain: String,
    os_error: Option<i32>,
}

impl Cause {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let (mut chain, mut os_error) = (String::new(), None);
        let mut words = String::new();
        let mut next = Some(error);
        while let Some(cause) = next {
            words = cause.to_string();
            chain.push_str(&words);
            chain.push('\n');
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                os_error = error.raw_os_error().or(os_error);
            }
            next = cause.source();
        }
        // The number says nothing to a person that the words before it do not.
        let words = words.split(" (os error ").next().unwrap_or_default();
        Self {
            words: sanitize_line(words, WORDS_SHOWN),
            chain,
            os_error,
        }
    }

    fn is_without_route(&self) -> bool {
        use rustix::io::Errno;
        [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ADDRNOTAVAIL]
            .iter()
            .any(|errno| self.os_error == Some(errno.raw_os_error()))
    }

    /// What to do about a TLS certificate that rustls does not accept, for the reason it names.
    fn certificate_remedy(&self, host: &str) -> String {
        let has = |words: &str| self.chain.contains(words);
        let (ca_as_server, remedy) = TLS_CA_AS_SERVER;
        if has(ca_as_server) {
            remedy.into()
        } else if has("not valid for name") || has("NotValidForName") {
            format!("it is for another name than {host}: correct the CA's URL, or what the server shows")
        } else if has("expired") || has("Expired") || has("not valid yet") || has("NotValidYet") {
            "is this machine's clock right? If it is, the server needs a new one".into()
        } else {
            "if it is signed by a CA of your own, name that with --tls-ca-cert; if not, something in between looks into TLS".into()
        }
    }

    fn sentence(&self, ca: &Url) -> String {
        let (words, host) = (&self.words, ca.host_str().unwrap_or_default());
        if self.chain.contains("dns error") {
            format!("the name {host} cannot be resolved ({words}); are you online, and is the name right?")
        } else if self.chain.contains("tunnel") || self.chain.contains("proxy") {
            format!("the proxy (HTTPS_PROXY) does not let it through: {words}")
        } else if self.chain.contains("invalid peer certificate") {
            format!(
                "its TLS certificate is not accepted: {words}; {}",
                self.certificate_remedy(host)
            )
        } else if self.chain.contains("alert")
            || self.chain.contains("handshake")
            || self.chain.contains("InvalidMessage")
            || self.chain.contains("corrupt message")
        {
            format!("TLS failed: {words}; does an https server listen there?")
        } else {
            words.clone()
        }
    }
}

/// There is no way to the CA's addresses. Which kind they are says whether the network is the reason.
async fn without_route(ca: &Url, words: &str) -> String {
    let host = ca
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let port = ca.port_or_known_default().unwrap_or(443);
    let addresses: Vec<_> = match tokio::net::lookup_host((host.as_str(), port)).await {
        Ok(addresses) => addresses.collect(),
        Err(_) => Vec::new(),
    };
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    route_sentence(&host, v4, addresses.len() - v4, words)
}

fn route_sentence(host: &str, v4: usize, v6: usize, words: &str) -> String {
    match (v4, v6) {
        (1.., 0) => format!(
            "there is no route to it ({words}): {host} has IPv4 addresses only; is this machine offline, or in a network that has IPv6 only?"
        ),
        (0, 1..) => format!(
            "there is no route to it ({words}): {host} has IPv6 addresses only; is this machine offline, or in a network that has IPv4 only?"
        ),
        _ => format!("there is no route to it ({words}); is this machine offline?"),
    }
}

/// An answer that no CA gives: a page for a browser, as a network's login page ("captive portal") shows instead of what
/// was asked for. `None` when the answer is none of that kind.
pub(crate) fn not_a_ca(
    status: StatusCode,
    content_type: &str,
    location: &str,
    body: &[u8],
) -> Option<String> {
    if status.is_redirection() {
        let location = sanitize_line(location, 200);
        return Some(format!(
            "it redirects ({status}) to {location}, which is not followed: a token goes nowhere but to the CA. Log in to the network with a browser if it asks for that, or correct the CA's URL"
        ));
    }
    (status.is_success() && is_web_page(content_type, body)).then(|| {
        "it is not a CA: it answered with a web page. If this network has a login page, open it in a browser and log in there; else correct the CA's URL"
            .to_owned()
    })
}

/// What an answer says, for a person to read: its text in one line, and of a web page only that it is one.
pub(crate) fn words(content_type: &str, body: &[u8], shown: usize) -> String {
    if is_web_page(content_type, body) {
        return "(a web page; a CA answers in plain words: is the CA's URL right?)".to_owned();
    }
    sanitize_line(&String::from_utf8_lossy(body), shown)
}

fn is_web_page(content_type: &str, body: &[u8]) -> bool {
    let mut start = String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned();
    start.make_ascii_lowercase();
    let start = start.trim_start();
    content_type.trim_start().starts_with("text/html")
        || start.starts_with("<!doctype html")
        || start.starts_with("<html")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_web_page_nothing_is_repeated() {
        for (kind, body) in [("text/html", "<p>no"), ("", "<!DOCTYPE HTML PUBLIC \"-//W3C\">")] {
            let words = words(kind, body.as_bytes(), 100);
            assert!(
                words.starts_with("(a web page") && !words.contains('<'),
                "{words}"
            );
        }
        assert_eq!(words("text/plain", b"not today\n", 100), "not today");
    }

    /// An error with a source, as HTTP clients wrap them.
    #[derive(Debug)]
    struct Wrapped(&'static str, Option<io::Error>);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|error| error as _)
        }
    }

    #[test]
    fn each_situation_has_a_sentence_of_its_own() {
        let ca = Url::parse("https://ca.example.com/").unwrap();
        let cases = [
            (
                Wrapped("dns error", Some(io::Error::other("Name or service not known"))),
                "the name ca.example.com cannot be resolved (Name or service not known)",
            ),
            (
                Wrapped(
                    "x",
                    Some(io::Error::other("invalid peer certificate: UnknownIssuer")),
                ),
                "--tls-ca-cert",
            ),
            (
                Wrapped(
                    "invalid peer certificate: certificate expired: verification time 2",
                    None,
                ),
                "is this machine's clock right?",
            ),
            (
                Wrapped(
                    "invalid peer certificate: certificate not valid for name \"ca.example.com\"; certificate is only valid for x",
                    None,
                ),
                "it is for another name than ca.example.com",
            ),
            (
                Wrapped(
                    "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                    None,
                ),
                "that is a TLS CA's own certificate",
            ),
            (
                Wrapped(
                    "x",
                    Some(io::Error::other(
                        "received corrupt message of type InvalidContentType",
                    )),
                ),
                "does an https server listen there?",
            ),
            (
                Wrapped("tunnel error", Some(io::Error::other("unsuccessful"))),
                "HTTPS_PROXY",
            ),
            (
                Wrapped("tcp connect error", Some(io::Error::from_raw_os_error(111))),
                "Connection refused",
            ),
        ];
        for (error, words) in cases {
            let sentence = Cause::of(&error).sentence(&ca);
            assert!(sentence.contains(words), "{words} is not in: {sentence}");
        }
        for number in [101, 113, 99] {
            let error = Wrapped("tcp connect error", Some(io::Error::from_raw_os_error(number)));
            assert!(Cause::of(&error).is_without_route(), "{number}");
        }
        assert!(route_sentence("h", 2, 0, "x").contains("IPv6 only?"));
        assert!(route_sentence("h", 0, 1, "x").contains("IPv4 only?"));
        assert!(route_sentence("h", 1, 1, "x").ends_with("offline?"));
    }

    #[test]
    fn a_web_page_is_not_a_ca_and_a_redirect_is_not_followed() {
        let page = |status: u16, kind, body: &str| {
            not_a_ca(
                StatusCode::from_u16(status).unwrap(),
                kind,
                "http://portal/",
                body.as_bytes(),
            )
        };
        for (kind, body) in [
            ("text/html; charset=utf-8", "hello"),
            ("", "\n<!DOCTYPE HTML><title>Welcome</title>"),
            ("text/plain", "<html>"),
        ] {
            assert!(
                page(200, kind, body).unwrap().contains("it is not a CA"),
                "{kind} {body}"
            );
        }
        assert!(page(302, "", "").unwrap().contains("http://portal/"));
        assert_eq!(page(200, "application/json", "{}"), None);
        // The words of a CA behind a proxy that makes pages of errors.
        assert_eq!(page(403, "text/html", "<html>no"), None);
    }
}
