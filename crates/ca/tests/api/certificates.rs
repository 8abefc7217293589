//! Certificates, wherever policy is.

use crate::setup::{Ca, certificate, in_process, question, with_policy_server};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use epithet_ca::{LocalDecision, LocalPolicy, LocalReadiness, PolicyRefusal, PolicySource};
use epithet_devidp::DevProvider;
use epithet_ssh::{CaKey, SubjectKey};
use epithet_wire::ca::Discovery;
use epithet_wire::policy::{CertParams, PolicyResponse};
use epithet_wire::{ConnectionFields, Token};
use http::StatusCode;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

async fn issues_what_was_decided(ca: &Ca, provider: &DevProvider) {
    let end = now() + 90;
    let token = provider.mint_id_token("alice", &json!({"exp": end}));
    let key = SubjectKey::generate().unwrap();
    let request = ca
        .client
        .post(format!("http://{}/", ca.address))
        .header("Authorization", format!("Bearer {token}"))
        .body(question(&key.public_line(), "root@web.prod.example.com"));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let id = answer.headers()["epithet-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = answer.text().await.unwrap();
    assert!(
        body.starts_with(r#"{"certificate":"ssh-ed25519-cert-v01@openssh.com AAAA"#),
        "{body}"
    );
    assert!(body.ends_with("\\n\"}"), "{body}");

    let issued = certificate(&body);
    assert!(issued.certifies(&key));
    assert_eq!(issued.ca_fingerprint(), ca.key.fingerprint());
    assert_eq!(
        (issued.key_id(), issued.principals()),
        ("alice@example.com", vec!["root"])
    );
    assert_eq!(
        issued.valid_before(),
        end,
        "the token's end comes before the rule's two minutes"
    );
    assert!((now() - 61..=now() - 59).contains(&issued.valid_after()));

    let lines = ca.audit_lines();
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!(line["request_id"], id);
    assert_eq!(line["decision"], "issued");
    assert_eq!(line["serial"], issued.serial().to_string());
    assert_eq!(line["certificate"], issued.fingerprint());
    assert_eq!(line["key"], issued.public_key_fingerprint());
    assert_eq!(line["ca"], ca.key.fingerprint());
    assert_eq!(
        (&line["host"], &line["user"]),
        (&json!("web.prod.example.com"), &json!("root"))
    );
    assert_eq!(
        (&line["port"], &line["jump"], &line["client"]),
        (&json!(22), &json!("jump"), &json!("127.0.0.1"))
    );
    assert_eq!(line["rule"], "*.prod.example.com");
    assert_eq!(line["principals"], json!(["root"]));

    // Refusals are policy's own, and written down too.
    for (token, target, status, text) in [
        (
            token.as_str(),
            "deploy@web.prod.example.com",
            403,
            "User alice@example.com not authorized for deploy@web.prod.example.com",
        ),
        (
            token.as_str(),
            "root@github.com",
            403,
            "User alice@example.com not authorized for root@github.com",
        ),
        (
            token.as_str(),
            "@web.prod.example.com",
            403,
            "User alice@example.com not authorized for @web.prod.example.com",
        ),
        (
            "garbage",
            "root@web.prod.example.com",
            401,
            "Invalid token: token verification failed: ",
        ),
    ] {
        let (found, body) = ca.ask(token, target).await;
        assert_eq!(found, status, "{body}");
        assert!(body.starts_with(text), "{body}");
        let last = ca.audit_lines().pop().unwrap();
        assert_eq!(
            (&last["decision"], &last["status"]),
            (&json!("refused"), &json!(status))
        );
        assert_eq!(last["reason"], body);
        assert!(last.get("serial").is_none());
    }

    let discovery = ca.get("/discovery").await;
    assert_eq!(discovery.headers()["cache-control"], "max-age=300");
    assert_eq!(discovery.headers()["content-type"], "application/json");
    assert_eq!(
        discovery.text().await.unwrap(),
        format!(
            r#"{{"auth":{{"type":"oidc","issuer":"{}","client_id":"epithet","scopes":["openid","profile","email"]}},"matchPatterns":["*.prod.example.com"]}}"#,
            provider.issuer()
        )
    );
    assert_eq!(ca.get("/readyz").await.text().await.unwrap(), "ready\n");
}

#[tokio::test]
async fn policy_in_another_server_decides() {
    let (ca, provider, _policy) = with_policy_server(Path::new("127.0.0.1:0")).await;
    issues_what_was_decided(&ca, &provider).await;
}

#[tokio::test]
async fn policy_behind_a_unix_socket_decides() {
    let directory = tempfile::tempdir().unwrap();
    let listen = format!("unix://{}/policy.sock", directory.path().display());
    let (ca, provider, _policy) = with_policy_server(Path::new(&listen)).await;
    issues_what_was_decided(&ca, &provider).await;
}

#[tokio::test]
async fn policy_in_the_same_process_decides() {
    let (ca, provider) = in_process().await;
    issues_what_was_decided(&ca, &provider).await;
}

#[tokio::test]
async fn nothing_is_issued_that_cannot_be_written_down() {
    let directory = tempfile::tempdir().unwrap();
    let key = Arc::new(CaKey::generate_ed25519().unwrap());
    let ca = Ca::start_with_audit(key, PolicySource::local(Yes), directory, "/dev/full".into()).await;
    for _ in 0..3 {
        let (status, body) = ca.ask("token", "root@h").await;
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("audit log") && !body.contains("ssh-"), "{body}");
    }
    let ready = ca.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("audit log"));
}

/// Says yes to the token it echoes as the identity.
struct Yes;

impl LocalPolicy for Yes {
    fn decide<'a>(&'a self, token: &'a Token, connection: &'a ConnectionFields) -> LocalDecision<'a> {
        Box::pin(async move {
            let identity = URL_SAFE_NO_PAD.encode(token.expose());
            if identity.is_empty() {
                return Err(PolicyRefusal {
                    status: StatusCode::UNAUTHORIZED,
                    message: String::new(),
                    grounds: None,
                });
            }
            Ok(PolicyResponse {
                cert_params: CertParams {
                    identity,
                    principals: vec![connection.remote_user.clone()],
                    expiration_ns: 60_000_000_000,
                    ..CertParams::default()
                },
            })
        })
    }

    fn discovery(&self) -> Discovery {
        Discovery::default()
    }

    fn ready(&self) -> LocalReadiness<'_> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn any_bytes_can_be_a_token() {
    let ca = Ca::start(
        Arc::new(CaKey::generate_ed25519().unwrap()),
        PolicySource::local(Yes),
    )
    .await;
    for bytes in [
        &b"plain"[..],
        b"\0\xff\r\n",
        b"with blank ",
        "t\u{f6}k".as_bytes(),
        &[0xff; epithet_wire::limits::TOKEN_MAX],
    ] {
        let token = Token::new(bytes.to_vec()).unwrap();
        let header = token.header_value();
        let key = SubjectKey::generate().unwrap();
        let bearer = format!("Bearer {}", *header.value);
        let mut headers = vec![("Authorization", bearer.as_str())];
        if header.encoded {
            headers.push(("Epithet-Token-Encoding", "base64url"));
        }
        let (status, body) = ca
            .send("POST", "/", &headers, &question(&key.public_line(), "root@h"))
            .await;
        if bytes.len() > 300 {
            // It arrived; as an identity it is too long for a key id.
            assert_eq!(status, 502, "{body}");
            assert!(body.contains("key id"), "{body}");
        } else {
            assert_eq!(status, 200, "{body}");
            assert_eq!(certificate(&body).key_id(), URL_SAFE_NO_PAD.encode(bytes));
        }
    }
}

#[tokio::test]
async fn every_allowed_kind_of_key_is_certified_and_no_other() {
    let ca = Ca::start(
        Arc::new(CaKey::generate_ed25519().unwrap()),
        PolicySource::local(Yes),
    )
    .await;
    let issued = ca.ask("token", "root@h").await.1;
    let (plain, certified) = (
        SubjectKey::generate().unwrap().public_line(),
        certificate(&issued).line(),
    );
    let short_rsa = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDHbV7lpFMJFy0Bqd0xfOHmXA5zWn8jNJcm7yzJbOe4Yq8h7m3M0o2b8vF8qV2y7bbJ";
    for (key, fine) in [
        (plain.as_str(), true),
        (&format!("{plain} a comment"), true),
        (&certified, false),
        (short_rsa, false),
        ("ssh-dss AAAAB3NzaC1kc3M=", false),
        (&format!("command=\"x\" {plain}"), false),
        (&format!("{plain}\n{plain}"), false),
        (&plain[..plain.len() - 8], false),
        ("garbage", false),
    ] {
        let headers = [("Authorization", "Bearer token")];
        let (status, body) = ca.send("POST", "/", &headers, &question(key, "root@h")).await;
        assert_eq!(status, if fine { 200 } else { 400 }, "{key}: {body}");
        if !fine {
            assert!(body.starts_with("error generating crt: the public key"), "{body}");
        }
    }
}

/// As [`Yes`], with a PIN for each login.
struct YesWithPin;

impl LocalPolicy for YesWithPin {
    fn decide<'a>(&'a self, token: &'a Token, connection: &'a ConnectionFields) -> LocalDecision<'a> {
        Box::pin(async move {
            let mut response = Yes.decide(token, connection).await?;
            let option = ("verify-required".to_owned(), String::new());
            response.cert_params.critical_options.extend([option]);
            Ok(response)
        })
    }

    fn discovery(&self) -> Discovery {
        Discovery::default()
    }

    fn ready(&self) -> LocalReadiness<'_> {
        Yes.ready()
    }
}

/// An sshd passes over `verify-required` when the key is not a FIDO token's: it would let such a certificate in unasked.
#[tokio::test]
async fn a_pin_is_not_promised_of_a_key_that_cannot_prove_it() {
    let ca = Ca::start(
        Arc::new(CaKey::generate_ed25519().unwrap()),
        PolicySource::local(YesWithPin),
    )
    .await;
    let key = SubjectKey::generate().unwrap();
    let point = &key.public_blob()[key.public_blob().len() - 32..];
    let name = "sk-ssh-ed25519@openssh.com";
    let string = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat();
    let blob = [string(name.as_bytes()), string(point), string(b"ssh:")].concat();
    let fido = format!("{name} {}", STANDARD.encode(blob));
    let headers = [("Authorization", "Bearer token")];
    for (key, expected) in [(key.public_line(), 403), (fido, 200)] {
        let (status, body) = ca.send("POST", "/", &headers, &question(&key, "root@h")).await;
        assert_eq!(status, expected, "{body}");
        if status == 403 {
            assert!(
                body.trim_end().ends_with("can prove; this one is ssh-ed25519"),
                "{body}"
            );
        } else {
            assert_eq!(certificate(&body).critical_options()["verify-required"], "");
        }
    }
}
