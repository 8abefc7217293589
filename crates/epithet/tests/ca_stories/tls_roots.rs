//! `--tls-ca-cert`, and a TLS CA's certificate where a server's should be: mistakes are told where they are made.

use crate::office::Office;
use epithet_testkit::{DEADLINE, Finished};
use std::process::Command;

/// A certificate that may sign others, as `openssl req -x509` makes it unless told otherwise, and its key.
fn certificate(office: &Office) -> [String; 2] {
    let [certificate, key] = ["tls.pem", "tls.key"].map(|name| office.home.join(name).display().to_string());
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]);
    openssl.args([
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ]);
    Finished::of(openssl, DEADLINE).success();
    [certificate, key]
}

#[test]
fn a_file_without_a_usable_certificate_is_refused_by_every_command_that_reads_it() {
    let office = Office::new();
    let [certificate, key] = certificate(&office);
    let ca_key = office.key("ca");
    let (ca_key_path, ca_public) = (
        ca_key.path().display().to_string(),
        ca_key.public_path().display().to_string(),
    );
    let whole = std::fs::read_to_string(&certificate).expect("a certificate");
    let file = |name: &str, text: &str| office.home.write(name, text).display().to_string();
    let broken = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let files = [
        (file("junk", "hello\n"), "no certificate in it"),
        (file("empty", ""), "no certificate in it"),
        (ca_public.clone(), "no certificate in it"),
        (key, "no certificate in it"),
        (
            file("broken", &format!("{whole}{broken}")),
            "certificate 2 cannot be read: ",
        ),
    ];
    let url = "https://127.0.0.1:1";
    let commands: [&[&str]; 8] = [
        &["ca", "--key", &ca_key_path, "--policy", url],
        &["ca", "rotate", url],
        &["policy", "--ca-pubkey", &ca_public],
        &["server", "--ca-key", &ca_key_path],
        &["agent", "--ca-url", url, "--match", "*.example.com"],
        &["trust", url],
        &["host", "check", "--ca-url", url],
        &["auth", "oidc", "probe", "--issuer", url],
    ];
    for (file, said) in &files {
        for command in commands {
            let finished = office.epithet(&[command, &["--tls-ca-cert", file]].concat());
            assert_eq!(finished.code(), Some(1), "{command:?}: {finished:?}");
            let words = format!("--tls-ca-cert {file}: {said}");
            assert!(finished.stderr.contains(&words), "{command:?}: {finished:?}");
        }
    }
    let doctor = office.epithet(&["doctor", "--tls-ca-cert", &files[0].0]);
    assert!(doctor.stdout.contains("no certificate in it"), "{doctor:?}");
}

#[test]
fn a_tls_ca_s_own_certificate_in_a_server_s_place_is_explained() {
    const WORDS: &str = "that is a TLS CA's own certificate: the server needs one that this CA issued for it";
    let office = Office::new();
    let [certificate, key] = certificate(&office);
    let ca_key = office.key("ca");
    let (ca_key_path, ca_public) = (
        ca_key.path().display().to_string(),
        ca_key.public_path().display().to_string(),
    );
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    let policy = office.policy([&["--listen=127.0.0.1:0", "--ca-pubkey", &ca_public][..], &tls].concat());
    let roots = ["--tls-ca-cert", &certificate];
    let served = [&["--key", &ca_key_path][..], &roots, &tls].concat();
    let ca = office.ca(policy.url(), served);
    let asked = office.epithet(&[&["ca", "rotate", ca.url()][..], &roots].concat());
    assert!(asked.stderr.contains(WORDS), "{asked:?}");
    let asked = office.epithet(&[&["policy", "--ca-pubkey", ca.url()][..], &roots].concat());
    assert!(asked.stderr.contains(WORDS), "{asked:?}");

    let plain = office.ca(policy.url(), [&["--key", &ca_key_path][..], &roots].concat());
    assert_eq!(plain.ask("alice", &office.question()).status(), 503);
    assert!(plain.server.wait_for_log("no decision").contains(WORDS));
}
