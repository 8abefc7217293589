//! FIDO keys as subjects: a real ssh logs in with one at a real sshd, with a certificate of the CA.

use crate::office::Office;
use epithet_ssh::{CaKey, CertificateSpec, SubjectPublicKey};
use epithet_testkit::{FIDO_TOUCHED, FIDO_VERIFIED, FidoAgent, FidoKind, Finished, KeyPair, Sshd, TestUser};
use std::time::{SystemTime, UNIX_EPOCH};

/// A host that trusts the office's CA, and the way there with a FIDO key.
struct Door {
    office: Office,
    ca_key: KeyPair,
    sshd: Sshd,
    user: TestUser,
}

impl Door {
    fn new() -> Self {
        let office = Office::new();
        let ca_key = office.key("ca");
        let user = TestUser::current();
        let allowed = format!("policy: {{defaults: {{allow: {{{}: [admin]}}}}}}\n", user.name());
        office.home.write(".epithet/rules2.yaml", allowed);
        let sshd = Sshd::trusting(&ca_key.public_line());
        office.home.trust(&sshd);
        Self {
            office,
            ca_key,
            sshd,
            user,
        }
    }

    fn agent(&self, kind: FidoKind) -> FidoAgent {
        let agent = FidoAgent::start(&self.office.home.join(format!("{kind:?}.sock")), kind);
        let config = format!(
            "Host target\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityAgent {}\n  KexAlgorithms curve25519-sha256\n",
            self.sshd.port(),
            self.user.name(),
            agent.socket().display()
        );
        self.office.home.ssh_config(&config);
        agent
    }

    /// A certificate with these critical options and extensions, signed by the CA's key.
    fn certificate(&self, agent: &FidoAgent, critical: &[&str], extensions: &[&str]) -> String {
        let named = |names: &[&str]| {
            names
                .iter()
                .map(|name| ((*name).to_owned(), String::new()))
                .collect()
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("it is after 1970").as_secs();
        let spec = CertificateSpec {
            subject: SubjectPublicKey::parse(&agent.public_line()).expect("a FIDO key"),
            serial: 78,
            key_id: "alice".parse().expect("a key id"),
            principals: vec![self.user.name().parse().expect("a principal")],
            valid_after: now - 60,
            valid_before: now + 300,
            critical_options: named(critical),
            extensions: named(extensions),
        };
        let ca = CaKey::load(self.ca_key.path(), || None).expect("the CA's key");
        spec.sign(&ca).expect("it is signed").line()
    }

    fn log_in(&self) -> Finished {
        self.office.home.run_ssh(["target", "echo in"])
    }

    #[track_caller]
    fn takes(&self, what: &str, agent: &FidoAgent) -> String {
        let position = self.sshd.log_position();
        let finished = self.log_in();
        assert_eq!(
            finished.stdout,
            "in\n",
            "{what}: {}\n{}",
            finished.stderr,
            self.sshd.log()
        );
        let line = self.sshd.wait_for_log_after(position, "Accepted publickey");
        let key = KeyPair::fingerprint_of(&self.office.home.write("fido.pub", agent.public_line()));
        assert!(line.contains("ID alice") && line.contains(&key), "{what}: {line}");
        line
    }

    #[track_caller]
    fn refuses(&self, what: &str, why: &str) {
        let position = self.sshd.log_position();
        let finished = self.log_in();
        assert_eq!(finished.code(), Some(255), "{what}: {}", finished.stdout);
        self.sshd.wait_for_log_after(position, why);
    }
}

#[test]
fn both_kinds_of_fido_keys_log_in_with_a_certificate_that_the_ca_issued() {
    let door = Door::new();
    let ca = door
        .office
        .server(["--ca-key", &door.ca_key.path().display().to_string()]);
    for kind in FidoKind::ALL {
        let agent = door.agent(kind);
        let mut question = door.office.question();
        question["publicKey"] = agent.public_line().into();
        question["connection"]["remoteUser"] = door.user.name().into();
        let answer = ca.ask("alice", &question);
        let shown = door.office.described(&answer);
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        agent.certify(body["certificate"].as_str().expect("a line"));
        let line = door.takes(&format!("{kind:?}"), &agent);
        // The serial that the CA gave is the one that sshd saw.
        let serial = shown
            .lines()
            .find_map(|line| line.trim().strip_prefix("Serial: "));
        let serial = serial.expect("a serial");
        assert!(line.contains(&format!("(serial {serial})")), "{kind:?}: {line}");
    }
}

#[test]
fn a_certificate_says_what_a_fido_token_must_have_seen_of_its_holder() {
    const NO_TOUCH: &str = "user presence (authenticator touch) requirement not met";
    const NO_PIN: &str = "user verification requirement not met";
    let door = Door::new();
    for kind in FidoKind::ALL {
        let agent = door.agent(kind);
        for (critical, extensions, flags, refused) in [
            (&[][..], &[][..], FIDO_TOUCHED, None),
            (&[], &[], 0, Some(NO_TOUCH)),
            (&[], &["no-touch-required"], 0, None),
            (&["verify-required"], &[], FIDO_TOUCHED | FIDO_VERIFIED, None),
            (&["verify-required"], &[], FIDO_TOUCHED, Some(NO_PIN)),
            (&["verify-required"], &["no-touch-required"], FIDO_VERIFIED, None),
            (&["verify-required"], &["no-touch-required"], 0, Some(NO_PIN)),
        ] {
            agent.certify(&door.certificate(&agent, critical, extensions));
            agent.set_flags(flags);
            let what = format!("{kind:?} {critical:?} {extensions:?} with flags {flags}");
            match refused {
                None => drop(door.takes(&what, &agent)),
                Some(why) => door.refuses(&what, why),
            }
        }
    }
}
