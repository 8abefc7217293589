//! One function a target: bytes in, and a panic when something is not as it should be.
//!
//! Beyond not panicking, a target says what must hold of whatever its parser accepts: it is read the same again when it
//! is written down, where it is cut makes no difference, nothing but a login is ever signed.

use epithet_agent::message::{SessionBind, SignRequest};
use epithet_agent::userauth::{Userauth, is_sshsig};
use epithet_agent::{Credential, Now, Reply, Request, Rules, Session, Verdict, firewall, frame};
use epithet_oidc::id_token::{Expectation, verify};
use epithet_oidc::jwks::KeySet;
use epithet_oidc::jws::{Algorithm, Compact};
use epithet_oidc::{Issuer, Provider};
use epithet_policy::{Document, Received, ServiceTokens};
use epithet_ssh::encoding::Put;
use epithet_ssh::{CaKey, CaPublicKey, CertificateSpec, SubjectKey, SubjectPublicKey, UserCertificate};
use epithet_wire::HostPattern;
use std::sync::OnceLock;
use std::time::Duration;

/// A target's function.
pub(crate) type Target = fn(&[u8]);

/// All of them, by the names of their corpora.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("agent_frame", agent_frame),
    ("userauth", userauth),
    ("session_bind", session_bind),
    ("broker_line", broker_line),
    ("client_config", client_config),
    ("policy_document", policy_document),
    ("audit_line", audit_line),
    ("id_token", id_token),
    ("jwks", jwks),
    ("discovery", discovery),
    ("key_line", key_line),
    ("plugin_directive", plugin_directive),
    ("ca_request", ca_request),
    ("service_token", service_token),
    ("host_pattern", host_pattern),
    ("callback_request", callback_request),
];

/// The moment at which everything happens.
const NOW: u64 = 1_767_225_600;
/// What stands in an input for what no fuzzer can guess: the agent's certificate, the host's key, the host's signature.
const CERTIFICATE: &[u8] = b"C";
const HOST_KEY: &[u8] = b"H";
const SIGNATURE: &[u8] = b"S";

struct Cast {
    credential: Credential,
    host: CaKey,
}

/// A live credential for alice, and a host; new keys for each process.
fn cast() -> &'static Cast {
    static CAST: OnceLock<Cast> = OnceLock::new();
    CAST.get_or_init(|| {
        let ca = CaKey::generate_ed25519().expect("random bytes");
        let key = SubjectKey::generate().expect("random bytes");
        let certificate = CertificateSpec {
            subject: SubjectPublicKey::parse(&key.public_line()).expect("our own key"),
            serial: 1,
            key_id: "alice@example.com".parse().expect("a key id"),
            principals: vec!["alice".parse().expect("a principal")],
            valid_after: NOW - 60,
            valid_before: NOW + 300,
            critical_options: [].into(),
            extensions: [].into(),
        };
        let certificate = certificate.sign(&ca).expect("a certificate");
        let user = "alice".parse().expect("a user");
        Cast {
            credential: Credential::new(key, certificate, user, now()).expect("a live certificate"),
            host: CaKey::generate_ed25519().expect("random bytes"),
        }
    })
}

fn now() -> Now {
    Now {
        unix: NOW,
        boot: Duration::from_secs(1000),
    }
}

/// A whole conversation with an agent: frames, one after the other, until one is none.
fn agent_frame(mut bytes: &[u8]) {
    let cast = cast();
    for rules in [
        Rules::default(),
        Rules {
            allow_forwarding: false,
            require_bind: true,
            is_suspect: false,
        },
    ] {
        let mut session = Session::default();
        let mut rest = bytes;
        while let Some((field, after)) = rest.split_first_chunk::<4>() {
            let Ok(length) = frame::length(*field) else { break };
            let Some((message, after)) = after.split_at_checked(length) else {
                break;
            };
            rest = after;
            ask(&mut session, cast, rules, message);
        }
    }
    // A message without a frame around it is worth asking as well.
    bytes = bytes.get(..bytes.len().min(4096)).unwrap_or_default();
    ask(&mut Session::default(), cast, Rules::default(), bytes);
}

/// Asks the firewall, having put the real keys in their places, and holds its answer against the rules.
fn ask(session: &mut Session, cast: &Cast, rules: Rules, message: &[u8]) {
    let blob = cast.credential.certificate().blob();
    let (data, session_signature);
    let request = match Request::decode(message) {
        Request::Sign(request) => {
            data = with_real_keys(request.data, blob, cast.host.public().blob());
            Request::Sign(SignRequest {
                key: if request.key == CERTIFICATE {
                    blob
                } else {
                    request.key
                },
                data: &data,
                ..request
            })
        }
        Request::Bind(bind) => {
            session_signature = match bind.signature == SIGNATURE {
                true => cast.host.sign(bind.session_id).expect("a signature"),
                false => Vec::new(),
            };
            Request::Bind(SessionBind {
                host_key: if bind.host_key == HOST_KEY {
                    cast.host.public().blob()
                } else {
                    bind.host_key
                },
                signature: if bind.signature == SIGNATURE {
                    &session_signature
                } else {
                    bind.signature
                },
                ..bind
            })
        }
        other => other,
    };
    let verdict = firewall::answer(session, Some(&cast.credential), rules, &request, now());
    let reply = match &verdict {
        Verdict::Reply(reply) | Verdict::Refuse(reply, _) => reply,
        Verdict::Empty => return,
    };
    let framed = reply.frame();
    let field = framed.first_chunk::<4>().expect("a frame has a length");
    assert_eq!(frame::length(*field), Ok(framed.len() - 4));
    if let (Reply::Signature(_), Request::Sign(request)) = (reply, &request) {
        let login = Userauth::parse(request.data).expect("nothing but a login is signed");
        assert!(!is_sshsig(request.data));
        assert_eq!((login.user, login.key, request.key), ("alice", blob, blob));
        assert!(!session.is_poisoned() && !session.is_forwarded());
        match session.last() {
            Some(binding) => assert_eq!(&*binding.session_id, login.session_id),
            None => assert!(!rules.require_bind),
        }
    }
}

/// The data of a sign request with the placeholders of a login replaced.
fn with_real_keys(data: &[u8], certificate: &[u8], host_key: &[u8]) -> Vec<u8> {
    match Userauth::parse(data) {
        Ok(login) => written(Userauth {
            key: if login.key == CERTIFICATE {
                certificate
            } else {
                login.key
            },
            host_key: login
                .host_key
                .map(|key| if key == HOST_KEY { host_key } else { key }),
            ..login
        }),
        Err(_) => data.to_vec(),
    }
}

/// A login as it is signed (RFC 4252 section 7).
fn written(login: Userauth<'_>) -> Vec<u8> {
    let mut data = Vec::new();
    data.put_string(login.session_id);
    data.put_u8(50);
    data.put_string(login.user);
    data.put_string("ssh-connection");
    data.put_string(match login.host_key {
        None => "publickey",
        Some(_) => "publickey-hostbound-v00@openssh.com",
    });
    data.put_u8(1);
    data.put_string(login.algorithm);
    data.put_string(login.key);
    if let Some(host_key) = login.host_key {
        data.put_string(host_key);
    }
    data
}

/// What a login is read to be is all there is in it, but for how a boolean is written.
fn userauth(bytes: &[u8]) {
    if let Ok(login) = Userauth::parse(bytes) {
        assert_eq!(written(login), bytes);
        assert!(!is_sshsig(bytes));
    }
}

/// Binds on one connection: host key, session id, signature and flag, as often as there are any.
fn session_bind(bytes: &[u8]) {
    let cast = cast();
    let mut session = Session::default();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first() {
        let (content, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        let mut message = vec![27];
        message.put_string("session-bind@openssh.com");
        message.extend_from_slice(content);
        let was_poisoned = session.is_poisoned();
        let hops = session.last().cloned();
        ask(&mut session, cast, Rules::default(), &message);
        assert!(
            session.is_poisoned() || !was_poisoned,
            "once poisoned, always poisoned"
        );
        if session.is_poisoned() {
            assert_eq!(session.last(), hops.as_ref(), "a failed bind adds no hop");
        }
    }
}

/// What is understood means the same when it is written down again.
fn broker_line(bytes: &[u8]) {
    if let Ok(request) = epithet_broker::parse_request(bytes) {
        let line = serde_json::to_vec(&request).expect("a request can be written");
        assert_eq!(epithet_broker::parse_request(&line).as_ref(), Ok(&request));
        if let Some(connection) = request.match_ {
            let _ = connection.connection().check();
        }
    }
}

fn client_config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(error) = epithet::understand(text)
    {
        assert!(!error.to_string().is_empty());
    }
}

/// A document that is read can be merged and become a policy, or say why not.
fn policy_document(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(document) = Document::from_yaml("fuzzed.yaml", text)
    {
        let _ = document.clone().merge(document);
    }
}

fn audit_line(bytes: &[u8]) {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    if let Ok(count) = epithet_ca::audit::verify(bytes) {
        assert!(count <= lines + 1);
    }
}

/// The keys of the tests' provider; whoever has its private key could make a token that is accepted.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"EC","crv":"P-256","kid":"two","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

fn id_token(bytes: &[u8]) {
    static KEY_SET: OnceLock<KeySet> = OnceLock::new();
    let keys = KEY_SET.get_or_init(|| KeySet::parse(KEYS.as_bytes()).expect("a key set"));
    let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let expected = Expectation::new("https://idp.example", "epithet", &algorithms);
    if let Ok(compact) = Compact::parse(bytes) {
        let _ = compact.payload();
    }
    assert!(
        verify(bytes, keys, &expected, NOW).is_err(),
        "nobody can sign for these keys"
    );
    let _ = epithet_oidc::unverified_issuer(bytes);
}

fn jwks(bytes: &[u8]) {
    if let Ok(keys) = KeySet::parse(bytes) {
        assert!(keys.key_ids().count() <= keys.len());
        for algorithm in [
            Algorithm::RS256,
            Algorithm::PS384,
            Algorithm::ES256,
            Algorithm::ES512,
            Algorithm::EdDSA,
        ] {
            assert!(keys.verify(algorithm, None, b"message", b"no signature").is_err());
        }
    }
}

fn discovery(bytes: &[u8]) {
    let issuer = Issuer::parse("https://idp.example").expect("an issuer");
    if let Ok(provider) = Provider::parse(&issuer, bytes) {
        assert_eq!(provider.issuer, issuer);
    }
}

/// Certificates and keys as lines: what is accepted is read the same again from the line that is made of it.
fn key_line(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(certificate) = UserCertificate::parse(text) {
        let again = UserCertificate::parse(&certificate.line()).expect("our own line");
        assert_eq!(again.blob(), certificate.blob());
        let _ = (
            certificate.key_id(),
            certificate.principals(),
            certificate.extensions(),
        );
        let _ = (
            certificate.critical_options(),
            certificate.subject_line(),
            certificate.ca_fingerprint(),
        );
    }
    if let Ok(key) = SubjectPublicKey::parse(text) {
        let again = SubjectPublicKey::parse(&key.line()).expect("our own line");
        assert_eq!(again.blob(), key.blob());
    }
    if let Ok(key) = CaPublicKey::parse(text) {
        let again = CaPublicKey::parse(&key.line()).expect("our own line");
        assert_eq!(again.blob(), key.blob());
    }
}

/// Where a plugin's words are cut by the pipe changes neither what people read nor what the broker is told.
fn plugin_directive(bytes: &[u8]) {
    let Some((at, words)) = bytes.split_first() else {
        return;
    };
    let (front, back) = words.split_at(usize::from(*at).min(words.len()));
    let whole = epithet_plugin::through([words]);
    // More than 64 directives that wait at once are ignored, which depends on when they are read.
    if whole.1.len() < epithet_wire::limits::DIRECTIVES_MAX {
        assert_eq!(epithet_plugin::through([front, back]), whole);
        assert_eq!(epithet_plugin::through(words.chunks(1)), whole);
    }
    assert!(
        whole
            .0
            .chars()
            .all(|c| !c.is_control() || matches!(c, '\n' | '\t')),
        "{:?}",
        whole.0
    );
}

fn ca_request(bytes: &[u8]) {
    let _ = epithet_ca::is_request(bytes);
}

/// Service tokens: one line of header, the rest is the body.
fn service_token(bytes: &[u8]) {
    static TOKENS: OnceLock<ServiceTokens> = OnceLock::new();
    let tokens = TOKENS.get_or_init(|| ServiceTokens::new([cast().host.public().clone()]));
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (header, body) = bytes.split_at(end);
    let received = Received {
        method: "POST",
        target: "policy.example.com/",
        body,
    };
    assert!(
        tokens.verify(Some(header), received, NOW).is_err(),
        "nobody can sign for this key"
    );
}

/// A pattern is read the same again from how it is written; a second line is a host that it may cover.
fn host_pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (text, host) = text.split_once('\n').unwrap_or((text, "web.example.com"));
    if let Ok(pattern) = HostPattern::parse(text) {
        let again = HostPattern::parse(pattern.as_str()).expect("its own text");
        assert_eq!(again, pattern);
        assert_eq!(again.matches(host), pattern.matches(host));
        if let Some(name) = pattern.exact_name() {
            assert!(pattern.matches(name), "{name:?}");
        }
    }
}

fn callback_request(bytes: &[u8]) {
    let Ok(head) = std::str::from_utf8(bytes) else {
        return;
    };
    if epithet_oidc::is_answer(head, "the-state-of-this-login") {
        assert!(head.starts_with("GET /callback?"), "{head:?}");
    }
}

/// Runs one target by its name.
///
/// # Panics
/// When there is none of this name, or something is not as it should be.
pub(crate) fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("there is no target {name}"));
    target(bytes);
}
