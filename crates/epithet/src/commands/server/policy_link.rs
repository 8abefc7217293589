//! The way from a CA to its policy server: whether an answer can be known to be the policy server's.
//!
//! Whoever can answer in the policy server's place can have any certificate within the CA's limits. So an answer is bound
//! to who gives it by one of: TLS with a checked name, a Unix socket whose owner is checked, a signature (`--policy-key`).

use anyhow::bail;
use epithet_wire::{Endpoint, EndpointError};

/// Where the policy server is, if it can be asked there safely. `is_signed` says that its answers have to be.
///
/// # Errors
/// Plain http to another machine, signed or not: a signature protects the answer, but the question has a person's token in
/// it, which everybody on the way could read.
pub(super) fn endpoint(named: &str, is_signed: bool) -> anyhow::Result<Endpoint> {
    let endpoint = match Endpoint::parse(named) {
        Ok(endpoint) => endpoint,
        Err(EndpointError::Insecure(url)) => bail!(
            "--policy {url}: over plain http anybody on the way can read people's tokens, and answer in the policy server's place\n\
             try one of:\n  \
             https://..., with --tls-ca-cert for a CA of your own (epithet policy has --tls-cert)\n  \
             unix:///run/epithet/policy.sock, where both are on one machine\n  \
             http://127.0.0.1:PORT, where a tunnel to the policy server begins (ssh -L, stunnel), with --policy-key"
        ),
        Err(error) => return Err(anyhow::Error::new(error).context("--policy")),
    };
    match bond(&endpoint, is_signed) {
        Some(bond) => {
            tracing::info!(policy = %endpoint, by = bond, "the policy server's answers are bound to it");
        }
        None => tracing::warn!(
            policy = %endpoint,
            "whoever of this machine's users listens there in the policy server's place can give out certificates; use \
             unix:///..., or --policy-key with the policy server's --reply-key"
        ),
    }
    Ok(endpoint)
}

/// What binds answers to the policy server; nothing does on a port of this machine, which is anybody's while it is free.
fn bond(endpoint: &Endpoint, is_signed: bool) -> Option<&'static str> {
    match endpoint {
        _ if is_signed => Some("their signature"),
        Endpoint::Unix(_) => Some("the socket's owner"),
        Endpoint::Http(url) if url.scheme() == "https" => Some("TLS"),
        Endpoint::Http(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bound_by_signature_socket_or_tls() {
        for (named, is_signed, expected) in [
            ("https://policy.example.com", false, Some("TLS")),
            ("https://policy.example.com", true, Some("their signature")),
            ("unix:///run/policy.sock", false, Some("the socket's owner")),
            ("http://127.0.0.1:9999", true, Some("their signature")),
            ("http://[::1]:9999", false, None),
            ("http://localhost", false, None),
        ] {
            let endpoint = endpoint(named, is_signed).unwrap();
            assert_eq!(bond(&endpoint, is_signed), expected, "{named} {is_signed}");
        }
    }

    #[test]
    fn plain_http_to_another_machine_is_refused_with_the_three_ways_out() {
        for is_signed in [false, true] {
            let error = endpoint("http://policy.example.com:9999", is_signed)
                .unwrap_err()
                .to_string();
            for way in [
                "https://",
                "unix:///",
                "--policy-key",
                "http://policy.example.com:9999",
            ] {
                assert!(error.contains(way), "{way}: {error}");
            }
        }
        let other = endpoint("ftp://policy.example.com", false).unwrap_err();
        assert!(format!("{other:#}").starts_with("--policy: "), "{other:#}");
    }
}
