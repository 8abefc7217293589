//! A CA that says what a story tells it to. Its certificates are real: sshd takes them.

use super::http::{HttpServer, Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_ssh::{CaKey, CertificateSpec, SubjectPublicKey};
use epithet_wire::ca::{CertificateRequest, CertificateResponse};
use epithet_wire::{KeyId, Principal};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// What the CA answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A certificate with this life.
    Certificate(Duration),
    /// A status and the CA's words.
    Refusal(u16, String),
}

/// A certificate that outlives the story.
pub(crate) fn certificate() -> Answer {
    certificate_for(Duration::from_secs(300))
}

/// A certificate with this life.
pub(crate) fn certificate_for(life: Duration) -> Answer {
    Answer::Certificate(life)
}

/// A status, with words for the person.
pub(crate) fn refusal(status: u16, words: &str) -> Answer {
    Answer::Refusal(status, words.to_owned())
}

/// A request for a certificate, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Which request this is, from 1: also the certificate's serial.
    pub(crate) number: u64,
    /// The token, decoded when the header says so.
    pub(crate) token: Vec<u8>,
    /// What stood after `Bearer `.
    pub(crate) header: String,
    /// `Epithet-Token-Encoding`.
    pub(crate) encoding: Option<String>,
    /// The host that ssh dials.
    pub(crate) host: String,
}

/// A scripted CA on loopback.
#[derive(Debug)]
pub(crate) struct FakeCa {
    key: Arc<CaKey>,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: HttpServer,
}

impl FakeCa {
    /// A CA with a new key. `judge` is asked about each request for a certificate, at once for those that come at once.
    pub(crate) fn start(judge: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let key = CaKey::generate_ed25519().expect("there are random bytes");
        Self::with_key(Arc::new(key), judge)
    }

    /// A second CA for the same hosts: with the key of another.
    pub(crate) fn beside(other: &Self, judge: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_key(Arc::clone(&other.key), judge)
    }

    fn with_key(key: Arc<CaKey>, judge: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (signer, record) = (Arc::clone(&key), Arc::clone(&asked));
        let server = HttpServer::start(move |request| {
            if request.method == "GET" {
                return Response {
                    status: 200,
                    body: format!("{}\n", signer.public_line()),
                };
            }
            let body: CertificateRequest =
                serde_json::from_slice(&request.body).expect("the broker sends a request for a certificate");
            let asked = {
                let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
                let number = record.len() as u64 + 1;
                let asked = read(request, &body, number);
                record.push(asked.clone());
                asked
            };
            match judge(&asked) {
                Answer::Certificate(life) => Response {
                    status: 200,
                    body: sign(&signer, &body, asked.number, life),
                },
                Answer::Refusal(status, body) => Response { status, body },
            }
        });
        Self { key, asked, server }
    }

    /// For `--ca-url`.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// For `TrustedUserCAKeys`.
    pub(crate) fn public_line(&self) -> String {
        self.key.public_line()
    }

    /// As sshd logs it.
    pub(crate) fn fingerprint(&self) -> String {
        self.key.fingerprint()
    }

    /// Every request for a certificate so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The tokens of these requests, as text.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let text = |asked: Asked| String::from_utf8_lossy(&asked.token).into_owned();
        self.asked().into_iter().map(text).collect()
    }
}

fn read(request: &Request, body: &CertificateRequest, number: u64) -> Asked {
    let authorization = request.header("authorization").unwrap_or_default();
    let header = authorization
        .strip_prefix("Bearer ")
        .unwrap_or_default()
        .to_owned();
    let encoding = request.header("epithet-token-encoding").map(str::to_owned);
    let token = match encoding.as_deref() {
        None => header.clone().into_bytes(),
        Some("base64url") => URL_SAFE_NO_PAD
            .decode(&header)
            .expect("the header says that this is base64url"),
        Some(other) => panic!("nobody defined the encoding {other}"),
    };
    Asked {
        number,
        token,
        header,
        encoding,
        host: body.connection.remote_host.clone(),
    }
}

fn sign(key: &CaKey, body: &CertificateRequest, serial: u64, life: Duration) -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("the clock is past 1970")
        .as_secs();
    let spec = CertificateSpec {
        subject: SubjectPublicKey::parse(body.public_key.trim_end()).expect("the broker sends a public key"),
        serial,
        key_id: KeyId::parse("story").expect("a key id"),
        principals: vec![Principal::parse(&body.connection.remote_user).expect("the broker sends a user")],
        valid_after: now - 60,
        valid_before: now + life.as_secs(),
        critical_options: BTreeMap::new(),
        extensions: BTreeMap::from([("permit-pty".to_owned(), String::new())]),
    };
    let certificate = spec.sign(key).expect("every field is in order");
    let response = CertificateResponse {
        certificate: format!("{}\n", certificate.line()),
    };
    serde_json::to_string(&response).expect("text is JSON")
}
