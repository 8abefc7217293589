//! CA keys that an ssh-agent holds.

use crate::office::{Office, Running};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use epithet_testkit::{DEADLINE, Finished, KeyPair, Server, SshAgent, Sshd, SshdSettings, wait_until};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

/// The kinds of keys that OpenSSH's agent and a CA have in common, with the algorithm that certificates are signed with.
const KINDS: [(&str, Option<u32>, &str); 5] = [
    ("ed25519", None, "ssh-ed25519"),
    ("ecdsa", Some(256), "ecdsa-sha2-nistp256"),
    ("ecdsa", Some(384), "ecdsa-sha2-nistp384"),
    ("ecdsa", Some(521), "ecdsa-sha2-nistp521"),
    ("rsa", Some(3072), "rsa-sha2-512"),
];

fn agent_key(agent: &SshAgent, key: &str) -> String {
    format!("agent:{}#{key}", agent.socket().display())
}

/// A certificate from this CA is good, says who signed it, and lets its holder in at a real sshd.
fn certifies(office: &Office, ca: &Running, fingerprint: &str, algorithm: &str) {
    let told = office.described(&ca.ask("alice", &office.question()));
    let line = told
        .lines()
        .find(|line| line.contains("Signing CA:"))
        .expect("a CA");
    assert!(line.contains(fingerprint), "{line}");
    assert!(line.contains(&format!("(using {algorithm})")), "{line}");
}

#[test]
fn every_kind_of_key_in_an_agent_signs_certificates_and_the_cas_own_tokens() {
    let office = Office::new();
    let agent = SshAgent::start(&office.home.join("agent.sock"));
    for (kind, bits, algorithm) in KINDS {
        let name = format!("ca-{kind}-{}", bits.unwrap_or(0));
        let key = KeyPair::generate_kind(office.home.path(), &name, kind, bits);
        agent.add(&key);
        // By fingerprint and by comment, in one process and with a policy server that checks the tokens.
        let by_fingerprint = agent_key(&agent, &key.fingerprint());
        let together = office.server(["--ca-key", &by_fingerprint]);
        certifies(&office, &together, &key.fingerprint(), algorithm);
        assert_eq!(together.get("/readyz").body, "ready\n");
        let public: Vec<_> = key.public_line().split(' ').take(2).map(str::to_owned).collect();
        assert_eq!(together.get("/").body, public.join(" ") + "\n");

        let policy = office.policy([
            "--listen=127.0.0.1:0",
            "--ca-pubkey",
            &key.public_path().display().to_string(),
        ]);
        let apart = office.ca(policy.url(), ["--key", &agent_key(&agent, &name)]);
        certifies(&office, &apart, &key.fingerprint(), algorithm);
        assert_eq!(apart.ask("mallory", &office.question()).status(), 403);
    }
}

/// The CA's own token, taken from the first request that a CA with this key makes to its policy server.
fn service_token(office: &Office, key: &str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let ca = office.ca(&url, ["--key", key]);
    let asking = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the CA");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("text")
    });
    assert_eq!(ca.ask("alice", &office.question()).status(), 503);
    let head = asking.join().expect("it was asked");
    let token = head
        .lines()
        .find_map(|line| line.strip_prefix("authorization: Bearer "));
    token.expect("a token").to_owned()
}

#[test]
fn the_cas_own_token_by_an_rsa_key_in_an_agent_is_an_rs256_jws_that_openssl_verifies() {
    let office = Office::new();
    let agent = SshAgent::start(&office.home.join("agent.sock"));
    let key = KeyPair::generate_kind(office.home.path(), "ca", "rsa", Some(2048));
    agent.add(&key);
    let token = service_token(&office, &agent_key(&agent, "ca"));
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let header = signed.split('.').next().expect("a header");
    assert_eq!(decode(header), br#"{"alg":"RS256"}"#);
    let signed = office.home.write("signed", signed);
    let signature = office.home.write("signature", decode(signature));
    let mut convert = Command::new("ssh-keygen");
    convert.args(["-e", "-m", "PKCS8", "-f"]).arg(key.public_path());
    let pem = office
        .home
        .write("ca.pem", Finished::of(convert, DEADLINE).success().stdout);
    let mut openssl = Command::new("openssl");
    openssl
        .args(["dgst", "-sha256", "-verify"])
        .arg(pem)
        .arg("-signature")
        .arg(signature)
        .arg(signed);
    assert_eq!(Finished::of(openssl, DEADLINE).success().stdout, "Verified OK\n");
}

#[test]
fn the_agent_of_the_environment_is_used_when_no_socket_is_named() {
    let office = Office::new();
    let agent = SshAgent::start(&office.home.join("agent.sock"));
    let key = office.key("ca");
    agent.add(&key);
    let name = format!("--ca-key=agent:{}", key.fingerprint());
    let arguments = ["server", "--listen=127.0.0.1:0", &name];
    let mut command = office.command(&arguments);
    command.env("SSH_AUTH_SOCK", agent.socket());
    let server = Server::try_start(command).unwrap_or_else(|error| panic!("{error}"));
    let ca = Running { server };
    certifies(&office, &ca, &key.fingerprint(), "ssh-ed25519");

    let mut command = office.command(&arguments);
    command.env_remove("SSH_AUTH_SOCK");
    let failed = Finished::of(command, DEADLINE);
    assert_eq!(failed.code(), Some(1), "{failed:?}");
    assert!(failed.stderr.contains("SSH_AUTH_SOCK is not set"), "{failed:?}");
}

#[test]
fn a_security_module_behind_the_agent_signs() {
    let office = Office::new();
    let agent = SshAgent::with_security_module(office.home.path(), &office.home.join("agent.sock"));
    let line = agent.list().remove(0);
    let file = office.home.write("module.pub", &line);
    let mut command = Command::new("ssh-keygen");
    command.arg("-lf").arg(&file);
    let told = Finished::of(command, DEADLINE).success().stdout;
    let fingerprint = told.split(' ').nth(1).expect("a fingerprint");
    let policy = office.policy(["--listen=127.0.0.1:0", "--ca-pubkey", &file.display().to_string()]);
    let ca = office.ca(policy.url(), ["--key", &agent_key(&agent, fingerprint)]);
    certifies(&office, &ca, fingerprint, "ecdsa-sha2-nistp256");
    assert_eq!(ca.get("/readyz").body, "ready\n");
}

#[test]
fn a_host_lets_in_who_has_a_certificate_by_a_key_in_an_agent() {
    for (kind, bits) in [("rsa", 2048), ("ecdsa", 521)] {
        lets_in_with(kind, bits);
    }
}

fn lets_in_with(kind: &str, bits: u32) {
    let office = Office::new();
    let agent = SshAgent::start(&office.home.join("agent.sock"));
    let key = KeyPair::generate_kind(office.home.path(), "ca", kind, Some(bits));
    agent.add(&key);
    let user = epithet_testkit::TestUser::current();
    office.home.write(
        ".epithet/rules2.yaml",
        format!("policy: {{defaults: {{allow: {{{}: [admin]}}}}}}\n", user.name()),
    );
    let ca = office.server(["--ca-key", &agent_key(&agent, "ca")]);
    let subject = office.key("me");
    let mut question = office.question();
    question["publicKey"] = subject.public_line().into();
    question["connection"]["remoteUser"] = user.name().into();
    let answer = ca.ask("alice", &question);
    assert_eq!(answer.status(), 200, "{answer:?}");
    let certificate: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    office.home.write(
        "me-cert.pub",
        certificate["certificate"].as_str().expect("a line"),
    );
    let sshd = Sshd::start(SshdSettings {
        ca_public_key: Some(key.public_line()),
        ..SshdSettings::default()
    });
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-F",
        "none",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
    ])
    .args([
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "BatchMode=yes",
        "-p",
        &sshd.port().to_string(),
    ])
    .arg("-i")
    .arg(subject.path())
    .args([&format!("{}@127.0.0.1", user.name()), "echo in"]);
    assert_eq!(Finished::of(ssh, DEADLINE).success().stdout, "in\n");
}

#[test]
fn an_agent_that_is_gone_means_503_until_it_is_back() {
    let office = Office::new();
    let socket = office.home.join("agent.sock");
    let mut agent = SshAgent::start(&socket);
    let key = office.key("ca");
    agent.add(&key);
    let mut ca = office.server(["--ca-key", &agent_key(&agent, &key.fingerprint())]);
    assert_eq!(ca.ask("alice", &office.question()).status(), 200);

    // Restarted with its key, and nobody noticed: the kept connections are dead.
    agent.kill();
    let agent = SshAgent::start(&socket);
    agent.add(&key);
    certifies(&office, &ca, &key.fingerprint(), "ssh-ed25519");

    // Without the key.
    agent.remove_all();
    let refused = ca.ask("alice", &office.question());
    assert_eq!(refused.status(), 503, "{refused:?}");
    assert!(
        refused.body.contains("the CA's key cannot be used") && !refused.body.contains("agent.sock"),
        "{refused:?}"
    );
    let ready = ca.get("/readyz");
    assert_eq!(
        (ready.status(), ready.body.as_str()),
        (503, "the CA's key cannot be used\n")
    );
    let line = ca.audit_line(&refused);
    assert_eq!(
        (line["decision"].as_str(), line["status"].as_u64()),
        (Some("refused"), Some(503))
    );
    assert!(
        line["reason"].as_str().expect("a reason").contains("refused"),
        "{line}"
    );

    // Without an agent.
    drop(agent);
    assert_eq!(ca.ask("alice", &office.question()).status(), 503);
    assert_eq!(ca.get("/readyz").status(), 503);

    // And back again; a failure counts for a while.
    let agent = SshAgent::start(&socket);
    agent.add(&key);
    certifies(&office, &ca, &key.fingerprint(), "ssh-ed25519");
    assert_eq!(ca.get("/readyz").status(), 200);
}

#[test]
fn a_key_that_is_not_there_is_an_error_that_lists_those_that_are() {
    let office = Office::new();
    let agent = SshAgent::start(&office.home.join("agent.sock"));
    let [one, two] = ["one", "two"].map(|folder| {
        std::fs::create_dir(office.home.join(folder)).expect("a folder");
        KeyPair::generate(&office.home.join(folder), "twin")
    });
    agent.add(&one);
    agent.add(&two);
    let unknown = format!("SHA256:{}", "A".repeat(43));
    for (name, expected) in [
        (
            agent_key(&agent, &unknown),
            vec!["does not hold", &one.fingerprint(), "(twin)"],
        ),
        (agent_key(&agent, "other"), vec!["does not hold other"]),
        (
            agent_key(&agent, "twin"),
            vec!["several keys with the comment", &two.fingerprint()],
        ),
        (
            "agent:/nowhere/agent.sock#ca".to_owned(),
            vec!["/nowhere/agent.sock", "cannot be reached"],
        ),
    ] {
        let finished = office.epithet(&["server", "--listen=127.0.0.1:0", "--ca-key", &name]);
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        for text in expected {
            assert!(finished.stderr.contains(text), "{text}: {finished:?}");
        }
    }
    let wrong = office.epithet(&["server", "--ca-key", "agent:ca"]);
    assert_eq!(wrong.code(), Some(80), "{wrong:?}");
    assert!(
        wrong.stderr.contains("agent:/path/to/socket#comment"),
        "{wrong:?}"
    );
}

/// Passes messages on to a real agent, and changes the last byte of each signature.
fn lying_agent(socket: &Path, real: &Path) {
    let listener = UnixListener::bind(socket).expect("a socket");
    let real = real.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut near, mut far) = (
                stream.expect("a client"),
                UnixStream::connect(&real).expect("the agent"),
            );
            std::thread::spawn(move || {
                while let Some(question) = message(&mut near) {
                    far.write_all(&question).expect("the agent listens");
                    let Some(mut answer) = message(&mut far) else {
                        return;
                    };
                    if answer.get(4) == Some(&14) {
                        *answer.last_mut().expect("a byte") ^= 1;
                    }
                    near.write_all(&answer).expect("the client listens");
                }
            });
        }
    });
}

fn message(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut field = [0; 4];
    stream.read_exact(&mut field).ok()?;
    let mut message = vec![0; usize::try_from(u32::from_be_bytes(field)).ok()?];
    stream.read_exact(&mut message).ok()?;
    Some([&field[..], &message].concat())
}

#[test]
fn a_signature_that_does_not_verify_leaves_the_ca_as_no_certificate() {
    let office = Office::new();
    let agent = SshAgent::start(&office.home.join("agent.sock"));
    agent.add(&office.key("ca"));
    let liar = office.home.join("liar.sock");
    lying_agent(&liar, agent.socket());
    let mut ca = office.server(["--ca-key", &format!("agent:{}#ca", liar.display())]);
    let answer = ca.ask("alice", &office.question());
    assert_eq!(answer.status(), 503, "{answer:?}");
    let line = ca.audit_line(&answer);
    assert!(
        line["reason"]
            .as_str()
            .expect("a reason")
            .contains("does not verify"),
        "{line}"
    );
    assert_eq!(ca.get("/readyz").status(), 503);
}

#[test]
fn an_agent_that_says_nothing_costs_a_deadline_and_no_more() {
    let office = Office::new();
    let real = SshAgent::start(&office.home.join("agent.sock"));
    real.add(&office.key("ca"));
    // Answers the first question, and holds its tongue from then on.
    let socket = office.home.join("silent.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let behind = real.socket().to_owned();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for (number, stream) in listener.incoming().enumerate() {
            let mut near = stream.expect("a client");
            if number == 0 {
                let mut far = UnixStream::connect(&behind).expect("the agent");
                let question = message(&mut near).expect("a question");
                far.write_all(&question).expect("the agent listens");
                let answer = message(&mut far).expect("an answer");
                near.write_all(&answer).expect("the client listens");
            }
            kept.push(near);
        }
    });
    let ca = office.server(["--ca-key", &format!("agent:{}#ca", socket.display())]);
    let answer = ca.ask("alice", &office.question());
    assert_eq!(answer.status(), 503, "{answer:?}");
    // The discovery document and liveness need no key.
    assert_eq!(ca.get("/healthz").status(), 200);
    let all = wait_until(DEADLINE, || (ca.get("/discovery").status() == 200).then_some(()));
    assert!(all.is_some());
}
