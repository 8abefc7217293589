//! The firewall's decisions, one table row per story, without a socket.

use epithet_agent::message::{SessionBind, SignRequest};
use epithet_agent::session::BindError;
use epithet_agent::{
    Credential, CredentialError, Now, Refusal, Reply, Request, Rules, Session, Verdict, firewall,
};
use epithet_ssh::encoding::{Put, Reader};
use epithet_ssh::{CaKey, CertificateSpec, SubjectKey, SubjectPublicKey, verify_host_signature};
use proptest::prelude::*;
use std::time::Duration;

const START: u64 = 1_767_225_600;
const END: u64 = START + 300;

fn at(unix: u64) -> Now {
    Now {
        unix,
        boot: Duration::from_secs(1000 + unix.saturating_sub(START)),
    }
}

fn credential_until(valid_before: u64, now: Now) -> Result<Credential, CredentialError> {
    let ca = CaKey::generate_ed25519().expect("random bytes");
    let key = SubjectKey::generate().expect("random bytes");
    let certificate = CertificateSpec {
        subject: SubjectPublicKey::parse(&key.public_line()).expect("our own key"),
        serial: 1,
        key_id: "alice@example.com".parse().expect("a key id"),
        principals: vec!["alice".parse().expect("a principal")],
        valid_after: START - 60,
        valid_before,
        critical_options: [].into(),
        extensions: [].into(),
    }
    .sign(&ca)
    .expect("a certificate");
    Credential::new(key, certificate, "alice".parse().expect("a user"), now)
}

fn credential() -> Credential {
    credential_until(END, at(START)).expect("a live certificate")
}

/// A host that can sign session ids.
struct Host(CaKey);

impl Host {
    fn new() -> Self {
        Self(CaKey::generate_ed25519().expect("random bytes"))
    }

    fn key(&self) -> &[u8] {
        self.0.public().blob()
    }

    /// The answer to a session-bind by this host.
    fn bind(&self, session: &mut Session, session_id: &[u8], is_forwarding: bool) -> Verdict {
        let signature = self.0.sign(session_id).expect("a signature");
        let bind = SessionBind {
            host_key: self.key(),
            session_id,
            signature: &signature,
            is_forwarding,
        };
        firewall::answer(session, None, Rules::default(), &Request::Bind(bind), at(START))
    }
}

const BOUND: Verdict = Verdict::Reply(Reply::Success);

/// The data of a login, and every way to get it wrong.
#[derive(Clone)]
struct Login {
    session_id: Vec<u8>,
    user: &'static str,
    algorithm: &'static str,
    key: Vec<u8>,
    host_key: Option<Vec<u8>>,
}

impl Login {
    fn new(credential: &Credential, session_id: &[u8]) -> Self {
        Self {
            session_id: session_id.to_vec(),
            user: "alice",
            algorithm: "ssh-ed25519-cert-v01@openssh.com",
            key: credential.certificate().blob().to_vec(),
            host_key: None,
        }
    }

    fn at_host(mut self, host: &Host) -> Self {
        self.host_key = Some(host.key().to_vec());
        self
    }

    fn data(&self) -> Vec<u8> {
        let mut data = Vec::new();
        data.put_string(&self.session_id);
        data.put_u8(50);
        data.put_string(self.user);
        data.put_string("ssh-connection");
        data.put_string(match self.host_key {
            None => "publickey",
            Some(_) => "publickey-hostbound-v00@openssh.com",
        });
        data.put_u8(1);
        data.put_string(self.algorithm);
        data.put_string(&self.key);
        if let Some(host_key) = &self.host_key {
            data.put_string(host_key);
        }
        data
    }
}

fn sign(session: &mut Session, credential: &Credential, rules: Rules, data: &[u8], now: Now) -> Verdict {
    let request = SignRequest {
        key: credential.certificate().blob(),
        data,
        flags: 0,
    };
    firewall::answer(session, Some(credential), rules, &Request::Sign(request), now)
}

fn refusal(verdict: Verdict) -> Refusal {
    match verdict {
        Verdict::Refuse(Reply::Failure | Reply::ExtensionFailure, refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn assert_signed(verdict: &Verdict, credential: &Credential, data: &[u8]) {
    let Verdict::Reply(Reply::Signature(signature)) = verdict else {
        panic!("not signed: {verdict:?}");
    };
    let line = credential.certificate().subject_line();
    let key = SubjectPublicKey::parse(&line).expect("our own key");
    assert_eq!(verify_host_signature(key.blob(), data, signature), Ok(()));
}

fn list(session: &mut Session, credential: Option<&Credential>, rules: Rules, now: Now) -> usize {
    match firewall::answer(session, credential, rules, &Request::Identities, now) {
        Verdict::Reply(Reply::NoIdentities) => 0,
        Verdict::Reply(Reply::Identity { .. }) => 1,
        other => panic!("{other:?}"),
    }
}

const DENY: Rules = Rules {
    allow_forwarding: false,
    require_bind: false,
    is_suspect: false,
};
const STRICT: Rules = Rules {
    allow_forwarding: false,
    require_bind: true,
    is_suspect: false,
};
const ALLOW: Rules = Rules {
    allow_forwarding: true,
    require_bind: false,
    is_suspect: false,
};

#[test]
fn a_login_in_the_bound_session_is_signed_with_either_method() {
    let (credential, host) = (credential(), Host::new());
    for rules in [DENY, STRICT, ALLOW] {
        let mut session = Session::default();
        assert_eq!(host.bind(&mut session, b"session", false), BOUND);
        assert_eq!(list(&mut session, Some(&credential), rules, at(START)), 1);
        for login in [
            Login::new(&credential, b"session"),
            Login::new(&credential, b"session").at_host(&host),
        ] {
            let data = login.data();
            let verdict = sign(&mut session, &credential, rules, &data, at(START));
            assert_signed(&verdict, &credential, &data);
        }
    }
}

#[test]
fn a_client_that_never_binds_may_log_in_unless_binding_is_required() {
    let credential = credential();
    let data = Login::new(&credential, b"whatever").data();
    let verdict = sign(&mut Session::default(), &credential, DENY, &data, at(START));
    assert_signed(&verdict, &credential, &data);
    let strict = sign(&mut Session::default(), &credential, STRICT, &data, at(START));
    assert_eq!(refusal(strict), Refusal::NotBound);
    assert_eq!(
        list(&mut Session::default(), Some(&credential), STRICT, at(START)),
        1
    );
}

#[test]
fn a_login_that_differs_in_anything_is_refused() {
    let (credential, host, other_host) = (credential(), Host::new(), Host::new());
    let good = Login::new(&credential, b"session").at_host(&host);
    let plain_key = SubjectPublicKey::parse(&credential.certificate().subject_line()).unwrap();
    let change = |change: &dyn Fn(&mut Login)| {
        let mut login = good.clone();
        change(&mut login);
        login.data()
    };
    let mut trailing = good.data();
    trailing.push(0);
    let rows = [
        (
            change(&|login| login.user = "root"),
            Refusal::OtherUser("root".into()),
        ),
        (
            change(&|login| login.user = "Alice"),
            Refusal::OtherUser("Alice".into()),
        ),
        (
            change(&|login| login.user = ""),
            Refusal::OtherUser(String::new()),
        ),
        (
            change(&|login| login.session_id = b"Session".to_vec()),
            Refusal::OtherSession,
        ),
        (change(&|login| login.session_id = Vec::new()), Refusal::NotALogin),
        (
            change(&|login| login.algorithm = "ssh-ed25519"),
            Refusal::OtherKey,
        ),
        (
            change(&|login| login.key = plain_key.blob().to_vec()),
            Refusal::OtherKey,
        ),
        (
            change(&|login| login.host_key = Some(other_host.key().to_vec())),
            Refusal::OtherHost,
        ),
        (trailing, Refusal::NotALogin),
        (
            b"SSHSIG\0\0\0\x04file\0\0\0\0\0\0\0\x06sha512".to_vec(),
            Refusal::SshSig,
        ),
        (vec![7; 32], Refusal::NotALogin),
        (Vec::new(), Refusal::NotALogin),
    ];
    for (data, expected) in rows {
        let mut session = Session::default();
        host.bind(&mut session, b"session", false);
        assert_eq!(
            refusal(sign(&mut session, &credential, DENY, &data, at(START))),
            expected
        );
        // The connection itself has done nothing wrong and goes on.
        assert_signed(
            &sign(&mut session, &credential, DENY, &good.data(), at(START)),
            &credential,
            &good.data(),
        );
    }
    let mut session = Session::default();
    let request = |key, flags| {
        let data = good.data();
        let request = Request::Sign(SignRequest {
            key,
            data: &data,
            flags,
        });
        refusal(firewall::answer(
            &mut Session::default(),
            Some(&credential),
            DENY,
            &request,
            at(START),
        ))
    };
    assert_eq!(request(plain_key.blob(), 0), Refusal::OtherKey);
    assert_eq!(request(credential.certificate().blob(), 2), Refusal::Flags(2));
    assert_eq!(request(credential.certificate().blob(), 4), Refusal::Flags(4));
    let nobody = Request::Sign(SignRequest {
        key: b"",
        data: b"",
        flags: 0,
    });
    assert_eq!(
        refusal(firewall::answer(&mut session, None, DENY, &nobody, at(START))),
        Refusal::NoCredential
    );
}

#[test]
fn a_remote_host_gets_neither_a_signature_nor_a_name() {
    let (credential, jump, target) = (credential(), Host::new(), Host::new());
    let data = Login::new(&credential, b"onward").at_host(&target).data();
    for bind_onward in [false, true] {
        let mut session = Session::default();
        assert_eq!(jump.bind(&mut session, b"to jump", true), BOUND);
        if bind_onward {
            assert_eq!(target.bind(&mut session, b"onward", false), BOUND);
        }
        for rules in [DENY, STRICT] {
            assert_eq!(list(&mut session, Some(&credential), rules, at(START)), 0);
            let verdict = sign(&mut session, &credential, rules, &data, at(START));
            assert_eq!(refusal(verdict), Refusal::Forwarded);
        }
    }
}

#[test]
fn an_allowed_remote_host_may_log_in_onward_and_do_nothing_else() {
    let (credential, jump, target) = (credential(), Host::new(), Host::new());
    let onward = Login::new(&credential, b"onward").at_host(&target);
    let mut session = Session::default();
    jump.bind(&mut session, b"to jump", true);
    assert_eq!(list(&mut session, Some(&credential), ALLOW, at(START)), 1);
    // Not bound onward: neither a replay of the login to the jump host, nor anything it made up.
    for session_id in [&b"to jump"[..], b"onward"] {
        let data = Login::new(&credential, session_id).data();
        assert_eq!(
            refusal(sign(&mut session, &credential, ALLOW, &data, at(START))),
            Refusal::OtherSession
        );
    }
    target.bind(&mut session, b"onward", false);
    assert_signed(
        &sign(&mut session, &credential, ALLOW, &onward.data(), at(START)),
        &credential,
        &onward.data(),
    );
    let as_root = Login {
        user: "root",
        ..onward
    };
    let verdict = sign(&mut session, &credential, ALLOW, &as_root.data(), at(START));
    assert_eq!(refusal(verdict), Refusal::OtherUser("root".into()));
}

/// Makes a session's bind fail in one way.
type Failure<'a> = dyn Fn(&mut Session) -> Verdict + 'a;

#[test]
fn a_failed_bind_poisons_the_connection_for_good() {
    let (credential, host, other) = (credential(), Host::new(), Host::new());
    let data = Login::new(&credential, b"session").data();
    let failures: [(&str, &Failure<'_>); 8] = [
        ("a signature by another host", &|session| {
            let signature = other.0.sign(b"session").unwrap();
            bind(session, host.key(), b"session", &signature)
        }),
        ("a signature of another session", &|session| {
            bind(session, host.key(), b"session", &host.0.sign(b"Session").unwrap())
        }),
        ("no signature", &|session| {
            bind(session, host.key(), b"session", b"")
        }),
        ("no key", &|session| {
            bind(session, b"", b"session", &host.0.sign(b"session").unwrap())
        }),
        ("no session", &|session| {
            bind(session, host.key(), b"", &host.0.sign(b"").unwrap())
        }),
        ("a session id of 129 bytes", &|session| {
            host.bind(session, &[7; 129], false)
        }),
        ("a second bind after a login", &|session| {
            assert_eq!(host.bind(session, b"session", false), BOUND);
            other.bind(session, b"other", true)
        }),
        ("the same session with another key", &|session| {
            assert_eq!(host.bind(session, b"session", true), BOUND);
            other.bind(session, b"session", true)
        }),
    ];
    for (what, fail) in failures {
        let mut session = Session::default();
        assert!(
            matches!(
                fail(&mut session),
                Verdict::Refuse(Reply::ExtensionFailure, Refusal::Bind(_))
            ),
            "{what}"
        );
        for rules in [DENY, ALLOW] {
            assert_eq!(
                refusal(sign(&mut session, &credential, rules, &data, at(START))),
                Refusal::Poisoned,
                "{what}"
            );
            assert_eq!(
                list(&mut session, Some(&credential), rules, at(START)),
                0,
                "{what}"
            );
        }
        // A good bind afterwards does not heal it.
        assert_eq!(
            refusal(host.bind(&mut session, b"session", false)),
            Refusal::Bind(BindError::Poisoned)
        );
    }
}

fn bind(session: &mut Session, host_key: &[u8], session_id: &[u8], signature: &[u8]) -> Verdict {
    let bind = SessionBind {
        host_key,
        session_id,
        signature,
        is_forwarding: false,
    };
    firewall::answer(session, None, DENY, &Request::Bind(bind), at(START))
}

#[test]
fn sixteen_hops_can_be_bound_and_no_more() {
    let host = Host::new();
    let mut session = Session::default();
    for hop in 0..16u8 {
        assert_eq!(host.bind(&mut session, &[hop + 1], true), BOUND);
    }
    // The same again is no new hop.
    assert_eq!(host.bind(&mut session, &[1], true), BOUND);
    assert_eq!(
        refusal(host.bind(&mut session, &[17], true)),
        Refusal::Bind(BindError::TooMany)
    );
    assert_eq!(host.bind(&mut Session::default(), &[7; 128], false), BOUND);
}

#[test]
fn five_seconds_before_its_end_a_certificate_has_ended() {
    let credential = credential();
    let data = Login::new(&credential, b"session").data();
    for (unix, lives) in [
        (START, true),
        (END - 6, true),
        (END - 5, false),
        (END, false),
        (u64::MAX, false),
    ] {
        let mut session = Session::default();
        assert_eq!(
            list(&mut session, Some(&credential), DENY, at(unix)),
            usize::from(lives),
            "{unix}"
        );
        let verdict = sign(&mut session, &credential, DENY, &data, at(unix));
        if lives {
            assert_signed(&verdict, &credential, &data);
        } else {
            assert_eq!(refusal(verdict), Refusal::NoCredential);
        }
    }
    // The calendar was set back an hour after four minutes and 55 seconds: counting still says that it has ended.
    let set_back = |counted: u64| Now {
        unix: START - 3600,
        boot: Duration::from_secs(1000 + counted),
    };
    assert!(credential.is_live(set_back(294)));
    assert!(!credential.is_live(set_back(295)));
    assert!(
        credential_until(u64::MAX - 1, at(START))
            .unwrap()
            .is_live(at(END))
    );
    assert_eq!(
        credential_until(START + 5, at(START)).unwrap_err(),
        CredentialError::Ending { seconds: 5 }
    );
    assert_eq!(
        credential_until(START + 1, at(START)).unwrap_err(),
        CredentialError::Ending { seconds: 1 }
    );
    for ago in [0, 5] {
        assert_eq!(
            credential_until(START - ago, at(START)).unwrap_err(),
            CredentialError::Ended { seconds: ago }
        );
    }
}

#[test]
fn a_certificate_for_another_key_is_not_taken() {
    let theirs = credential();
    let ours = SubjectKey::generate().unwrap();
    let mixed = Credential::new(
        ours,
        theirs.certificate().clone(),
        "alice".parse().unwrap(),
        at(START),
    );
    assert_eq!(mixed.unwrap_err(), CredentialError::OtherKey);
}

#[test]
fn the_agent_can_be_emptied_and_not_filled_or_locked() {
    let credential = credential();
    let mut session = Session::default();
    let mut ask = |request| firewall::answer(&mut session, Some(&credential), DENY, &request, at(START));
    assert_eq!(ask(Request::RemoveAll), Verdict::Empty);
    assert_eq!(
        ask(Request::Remove {
            key: credential.certificate().blob()
        }),
        Verdict::Empty
    );
    assert_eq!(refusal(ask(Request::Remove { key: b"other" })), Refusal::OtherKey);
    assert_eq!(ask(Request::Query), Verdict::Reply(Reply::Extensions));
    for kind in [17, 20, 21, 22, 23, 25, 26, 200] {
        assert_eq!(
            refusal(ask(Request::Unsupported { kind })),
            Refusal::Unsupported { kind }
        );
    }
}

proptest! {
    /// Whatever comes, in whatever order, the only data that is ever signed is a login as alice with our key,
    /// and never on a connection that a remote host forwarded.
    #[test]
    fn nothing_but_the_login_is_ever_signed(messages in proptest::collection::vec(message(), 0..12)) {
        let (credential, host) = (credential(), Host::new());
        let mut session = Session::default();
        let mut was_forwarded = false;
        for message in messages {
            let bytes = message.bytes(&credential, &host);
            let request = Request::decode(&bytes);
            let verdict = firewall::answer(&mut session, Some(&credential), DENY, &request, at(START));
            if let (Request::Bind(bind), Verdict::Reply(Reply::Success)) = (&request, &verdict) {
                was_forwarded |= bind.is_forwarding;
            }
            if let Verdict::Reply(Reply::Signature(_)) = verdict {
                prop_assert!(!was_forwarded);
                let Request::Sign(request) = request else { panic!("{request:?}") };
                let mut reader = Reader::new(request.data);
                reader.string().unwrap();
                prop_assert_eq!(reader.u8().unwrap(), 50);
                prop_assert_eq!(reader.text().unwrap(), "alice");
            }
        }
    }
}

/// A message that is right, or nearly so.
#[derive(Debug, Clone)]
struct Message {
    kind: u8,
    forwarding: bool,
    flip: Option<prop::sample::Index>,
    noise: Vec<u8>,
}

fn message() -> impl Strategy<Value = Message> {
    let noise = proptest::collection::vec(any::<u8>(), 0..40);
    (
        0u8..6,
        any::<bool>(),
        proptest::option::weighted(0.4, any::<prop::sample::Index>()),
        noise,
    )
        .prop_map(|(kind, forwarding, flip, noise)| Message {
            kind,
            forwarding,
            flip,
            noise,
        })
}

impl Message {
    fn bytes(&self, credential: &Credential, host: &Host) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.kind {
            0 => bytes.push(11),
            1 | 2 => {
                bytes.push(13);
                bytes.put_string(credential.certificate().blob());
                bytes.put_string(Login::new(credential, b"session").data());
                bytes.put_u32(0);
            }
            3 | 4 => {
                bytes.push(27);
                bytes.put_string("session-bind@openssh.com");
                bytes.put_string(host.key());
                bytes.put_string("session");
                bytes.put_string(host.0.sign(b"session").expect("a signature"));
                bytes.put_u8(u8::from(self.forwarding));
            }
            _ => bytes.extend_from_slice(&self.noise),
        }
        if let (Some(place), false) = (self.flip, bytes.is_empty()) {
            let place = place.index(bytes.len());
            bytes[place] ^= 1;
        }
        bytes
    }
}

#[test]
fn a_connection_that_may_be_forwarded_without_saying_so_gets_nothing_even_when_it_is_bound() {
    let (credential, target) = (credential(), Host::new());
    let suspect = Rules {
        is_suspect: true,
        ..DENY
    };
    let data = Login::new(&credential, b"onward").at_host(&target).data();
    for bind_onward in [false, true] {
        let mut session = Session::default();
        if bind_onward {
            assert_eq!(target.bind(&mut session, b"onward", false), BOUND);
        }
        assert_eq!(list(&mut session, Some(&credential), suspect, at(START)), 0);
        let verdict = sign(&mut session, &credential, suspect, &data, at(START));
        assert_eq!(refusal(verdict), Refusal::NotAskedFor);
    }
}
