//! Certificates of every shape that the CA makes, read by `ssh-keygen -L` and judged by a real `sshd`.

use epithet_ssh::{CaKey, CertificateSpec, SubjectPublicKey, UserCertificate};
use epithet_testkit::{DEADLINE, Finished, Home, KeyPair, Sshd, SshdSettings, TestUser};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

const CA_KINDS: [(&str, Option<u32>); 6] = [
    ("ed25519", None),
    ("ecdsa", Some(256)),
    ("ecdsa", Some(384)),
    ("ecdsa", Some(521)),
    ("rsa", Some(2048)),
    ("rsa", Some(4096)),
];
const SUBJECT_KINDS: [(&str, Option<u32>); 6] = [
    ("ed25519", None),
    ("ecdsa", Some(256)),
    ("ecdsa", Some(384)),
    ("ecdsa", Some(521)),
    ("rsa", Some(2048)),
    ("rsa", Some(4096)),
];

/// One home, one host that trusts several CAs, and the account that logs in.
struct Court {
    home: Home,
    sshd: Sshd,
    cas: Vec<CaKey>,
    user: TestUser,
    key: KeyPair,
}

impl Court {
    fn new(kinds: &[(&str, Option<u32>)]) -> Self {
        let home = Home::new();
        let pairs: Vec<KeyPair> = kinds
            .iter()
            .enumerate()
            .map(|(index, (kind, bits))| {
                KeyPair::generate_kind(home.path(), &format!("ca{index}"), kind, *bits)
            })
            .collect();
        let lines: Vec<String> = pairs.iter().map(KeyPair::public_line).collect();
        let sshd = Sshd::start(SshdSettings {
            ca_public_key: Some(lines.join("\n")),
            ..SshdSettings::default()
        });
        home.trust(&sshd);
        let cas = pairs
            .iter()
            .map(|pair| CaKey::load(pair.path(), || None).expect("a CA key"));
        Self {
            cas: cas.collect(),
            user: TestUser::current(),
            key: KeyPair::generate(home.path(), "subject"),
            home,
            sshd,
        }
    }

    /// What the CA issues by default for this key.
    fn spec(&self, key: &KeyPair) -> CertificateSpec {
        let now = now();
        CertificateSpec {
            subject: SubjectPublicKey::parse(&key.public_line()).expect("a subject key"),
            serial: 77,
            key_id: "alice@example.com".parse().expect("a key id"),
            principals: vec![self.user.name().parse().expect("a principal")],
            valid_after: now - 60,
            valid_before: now + 300,
            critical_options: BTreeMap::new(),
            extensions: [("permit-pty".to_owned(), String::new())].into(),
        }
    }

    /// `ssh` with this key and certificate.
    fn log_in(&self, key: &KeyPair, certificate: &UserCertificate, arguments: &[&str]) -> Finished {
        let file = self.home.write("certificate.pub", certificate.line() + "\n");
        self.home.ssh_config(&format!(
            "Host target\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  CertificateFile {}\n  IdentitiesOnly yes\n  KexAlgorithms curve25519-sha256\n",
            self.sshd.port(),
            self.user.name(),
            key.path().display(),
            file.display()
        ));
        self.home.run_ssh(arguments.iter().chain(&["target", "echo in"]))
    }

    /// The certificate is taken, and sshd says whose it is.
    #[track_caller]
    fn takes(&self, what: &str, key: &KeyPair, certificate: &UserCertificate) {
        let position = self.sshd.log_position();
        let finished = self.log_in(key, certificate, &[]);
        assert_eq!(
            (finished.code(), finished.stdout.as_str()),
            (Some(0), "in\n"),
            "{what}: {}\n{}",
            finished.stderr,
            self.sshd.log()
        );
        let line = self.sshd.wait_for_log_after(position, "Accepted publickey");
        assert!(
            line.contains("ID alice@example.com (serial 77)"),
            "{what}: {line}"
        );
    }

    /// It is not, and sshd says why.
    #[track_caller]
    fn refuses(&self, what: &str, certificate: &UserCertificate, why: &str) {
        let position = self.sshd.log_position();
        let finished = self.log_in(&self.key, certificate, &[]);
        assert_eq!(finished.code(), Some(255), "{what}: {}", finished.stdout);
        self.sshd.wait_for_log_after(position, why);
    }
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("it is after 1970").as_secs()
}

fn options(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn described(home: &Home, certificate: &UserCertificate) -> String {
    let file: PathBuf = home.write("described.pub", certificate.line() + "\n");
    let mut command = Command::new("ssh-keygen");
    command.args(["-L", "-f"]).arg(file).env("TZ", "UTC");
    Finished::of(command, DEADLINE).success().stdout
}

#[test]
fn every_kind_of_subject_key_logs_in_with_every_kind_of_ca_key() {
    let court = Court::new(&CA_KINDS);
    for (index, (kind, bits)) in SUBJECT_KINDS.iter().enumerate() {
        let key = KeyPair::generate_kind(court.home.path(), &format!("subject{index}"), kind, *bits);
        for (ca, (ca_kind, ca_bits)) in court.cas.iter().zip(CA_KINDS) {
            let what = format!("{kind} {bits:?} by {ca_kind} {ca_bits:?}");
            let certificate = court.spec(&key).sign(ca).expect("it is signed");
            let shown = described(&court.home, &certificate);
            for part in [
                "user certificate",
                &key.fingerprint(),
                &ca.fingerprint(),
                "Serial: 77",
                "permit-pty",
            ] {
                assert!(shown.contains(part), "{what}: {part} is not in\n{shown}");
            }
            court.takes(&what, &key, &certificate);
        }
    }
}

#[test]
fn principals_and_times_decide() {
    let court = Court::new(&CA_KINDS[..1]);
    let sign = |change: &dyn Fn(&mut CertificateSpec)| {
        let mut spec = court.spec(&court.key);
        change(&mut spec);
        spec.sign(&court.cas[0]).expect("it is signed")
    };
    let user = court.user.name();
    let principals = |names: &[&str]| {
        let names: Vec<_> = names
            .iter()
            .map(|name| name.parse().expect("a principal"))
            .collect();
        sign(&|spec: &mut CertificateSpec| spec.principals.clone_from(&names))
    };
    court.takes(
        "the user among others",
        &court.key,
        &principals(&["somebody", user, "else"]),
    );
    court.refuses(
        "somebody else",
        &principals(&["somebody", "else"]),
        "name is not a listed principal",
    );
    court.refuses(
        "a name that begins alike",
        &principals(&[&format!("{user}x")]),
        "name is not a listed principal",
    );
    let times = |after: u64, before: u64| {
        sign(&move |spec: &mut CertificateSpec| (spec.valid_after, spec.valid_before) = (after, before))
    };
    let now = now();
    court.takes("it just began", &court.key, &times(now - 1, now + 300));
    court.refuses(
        "it has not begun",
        &times(now + 3600, now + 3900),
        "Certificate invalid: not yet valid",
    );
    court.refuses(
        "it has ended",
        &times(now - 3900, now - 1),
        "Certificate invalid: expired",
    );
    let shown = described(&court.home, &times(1_767_225_540, 1_767_225_900));
    assert!(
        shown.contains("Valid: from 2025-12-31T23:59:00 to 2026-01-01T00:05:00"),
        "{shown}"
    );
}

#[test]
fn critical_options_decide() {
    let court = Court::new(&CA_KINDS[..1]);
    let with = |list: &[(&str, &str)]| {
        let mut spec = court.spec(&court.key);
        spec.critical_options = options(list);
        spec.sign(&court.cas[0]).expect("it is signed")
    };
    for addresses in [
        "127.0.0.1",
        "127.0.0.0/8",
        "10.0.0.0/8,127.0.0.1/32",
        "::1,127.0.0.0/24",
    ] {
        let certificate = with(&[("source-address", addresses)]);
        assert!(described(&court.home, &certificate).contains(&format!("source-address {addresses}")));
        court.takes(addresses, &court.key, &certificate);
    }
    for addresses in ["10.0.0.0/8", "127.0.0.2", "::1"] {
        court.refuses(
            addresses,
            &with(&[("source-address", addresses)]),
            "not from a permitted source address",
        );
    }
    let forced = with(&[("force-command", "echo forced; echo \"$SSH_ORIGINAL_COMMAND\"")]);
    assert!(described(&court.home, &forced).contains("force-command echo forced;"));
    let finished = court.log_in(&court.key, &forced, &[]);
    assert_eq!(finished.stdout, "forced\necho in\n", "{}", finished.stderr);
    court.refuses(
        "an option that nobody knows",
        &with(&[("no-such-option@example.com", "")]),
        "no-such-option@example.com",
    );
}

#[test]
fn extensions_allow_what_they_say_and_no_more() {
    let court = Court::new(&CA_KINDS[..1]);
    let with = |list: &[(&str, &str)]| {
        let mut spec = court.spec(&court.key);
        spec.extensions = options(list);
        spec.sign(&court.cas[0]).expect("it is signed")
    };
    let (pty, none) = (with(&[("permit-pty", "")]), with(&[]));
    let terminal = |certificate: &UserCertificate| {
        let finished = court.log_in(&court.key, certificate, &["-tt"]);
        (
            finished.stdout.contains("in"),
            finished.stderr.contains("PTY allocation request failed"),
        )
    };
    assert_eq!(terminal(&pty), (true, false));
    assert_eq!(terminal(&none), (false, true));
    assert!(described(&court.home, &none).contains("Extensions: (none)"));
    // A forward to the host's own sshd, which greets whoever connects.
    let forward = format!("127.0.0.1:{}", court.sshd.port());
    let forwarded = |certificate: &UserCertificate| {
        let finished = court.log_in(&court.key, certificate, &["-W", &forward]);
        finished.stdout.starts_with("SSH-2.0-")
    };
    assert!(!forwarded(&pty));
    assert!(forwarded(&with(&[("permit-port-forwarding", "")])));
    // What sshd does not know is no reason to refuse.
    court.takes(
        "an extension of somebody's",
        &court.key,
        &with(&[("login@example.com", "alice")]),
    );
}

#[test]
fn a_certificate_of_another_ca_or_with_another_key_is_refused() {
    let court = Court::new(&CA_KINDS[..1]);
    let other = CaKey::generate_ed25519().expect("random bytes");
    let position = court.sshd.log_position();
    let strange = court.spec(&court.key).sign(&other).expect("it is signed");
    assert_eq!(court.log_in(&court.key, &strange, &[]).code(), Some(255));
    let line = court.sshd.wait_for_log_after(position, "Failed publickey");
    assert!(line.contains(&other.fingerprint()), "{line}");
    // Somebody else's certificate, without the key that belongs to it.
    let owner = KeyPair::generate(court.home.path(), "owner");
    let stolen = court.spec(&owner).sign(&court.cas[0]).expect("it is signed");
    assert_eq!(court.log_in(&court.key, &stolen, &[]).code(), Some(255));
    court.takes("with it", &owner, &stolen);
}
