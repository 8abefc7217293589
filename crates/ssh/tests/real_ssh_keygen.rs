//! Our certificates and keys against the real `ssh-keygen`, in both directions.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use epithet_ssh::encoding::Put;
use epithet_ssh::{
    CaKey, CaKeyError, CaKeyFormatError, CaPublicKey, CertificateError, CertificateSpec, JwsAlgorithm,
    SubjectKeyError, SubjectPublicKey, UserCertificate, verify_host_signature,
};
use epithet_wire::SecretBytes;

fn keygen(arguments: &[&str]) -> Output {
    Command::new("ssh-keygen")
        .args(arguments)
        .output()
        .expect("ssh-keygen is installed")
}

fn keygen_ok(arguments: &[&str]) -> String {
    let output = keygen(arguments);
    assert!(output.status.success(), "ssh-keygen {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("ssh-keygen prints text")
}

/// Makes a key pair and returns the private file's path.
fn make_key(folder: &Path, kind: &str, bits: &str, passphrase: &str) -> PathBuf {
    let path = folder.join(format!("{kind}-{bits}"));
    let name = path.to_str().expect("a temporary path is text");
    let mut arguments = vec![
        "-q",
        "-t",
        kind,
        "-N",
        passphrase,
        "-C",
        "made for a test",
        "-f",
        name,
    ];
    if !bits.is_empty() {
        arguments.extend(["-b", bits]);
    }
    keygen_ok(&arguments);
    path
}

fn public_of(private: &Path) -> String {
    fs::read_to_string(format!("{}.pub", private.display())).expect("ssh-keygen wrote the public half")
}

fn options(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

fn spec(subject: &str) -> CertificateSpec {
    CertificateSpec {
        subject: SubjectPublicKey::parse(subject).expect("the subject key is allowed"),
        serial: 0xfedc_ba98_7654_3210,
        key_id: "alice@example.com (request 1)".parse().expect("a key id"),
        principals: vec![
            "alice".parse().expect("a principal"),
            "deploy".parse().expect("a principal"),
        ],
        valid_after: 1_767_225_540,
        valid_before: 1_767_225_900,
        critical_options: options(&[
            ("source-address", "10.0.0.0/8"),
            ("force-command", "/bin/true \"x\""),
        ]),
        extensions: options(&[
            ("permit-pty", ""),
            ("permit-port-forwarding", ""),
            ("login@github.com", "alice"),
        ]),
    }
}

const CA_KINDS: [(&str, &str, JwsAlgorithm); 6] = [
    ("ed25519", "", JwsAlgorithm::EdDsa),
    ("ecdsa", "256", JwsAlgorithm::Es256),
    ("ecdsa", "384", JwsAlgorithm::Es384),
    ("ecdsa", "521", JwsAlgorithm::Es512),
    ("rsa", "2048", JwsAlgorithm::Ps256),
    ("rsa", "3072", JwsAlgorithm::Ps256),
];

const SUBJECT_KINDS: [(&str, &str); 6] = [
    ("ed25519", ""),
    ("ecdsa", "256"),
    ("ecdsa", "384"),
    ("ecdsa", "521"),
    ("rsa", "2048"),
    ("rsa", "4096"),
];

/// FIDO keys need a token to be made, so these are public halves only.
const FIDO_SUBJECTS: [&str; 2] = [
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4AAAABHNzaDo=",
    "sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfUAAAAEc3NoOg==",
];

#[test]
fn ssh_keygen_reads_every_certificate_that_every_ca_makes_as_it_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let mut subjects: Vec<String> = SUBJECT_KINDS
        .iter()
        .map(|(kind, bits)| {
            let key_folder = folder.path().join(format!("subject-{kind}-{bits}"));
            fs::create_dir(&key_folder).unwrap();
            public_of(&make_key(&key_folder, kind, bits, ""))
        })
        .collect();
    subjects.extend(FIDO_SUBJECTS.map(String::from));
    for (kind, bits, jws) in CA_KINDS {
        let path = make_key(folder.path(), kind, bits, "");
        let ca = CaKey::load(&path, || panic!("no passphrase is needed")).unwrap();
        assert_eq!(ca.jws_algorithm(), jws);
        assert!(public_of(&path).starts_with(&ca.public_line()));
        for subject in &subjects {
            let certificate = spec(subject).sign(&ca).unwrap();
            let file = folder.path().join("certificate.pub");
            fs::write(&file, certificate.line()).unwrap();
            let shown = keygen_ok(&["-L", "-f", file.to_str().unwrap()]);
            let subject = SubjectPublicKey::parse(subject).unwrap();
            for expected in [
                "user certificate",
                &format!("{}\n", subject.fingerprint()),
                &ca.fingerprint(),
                "Key ID: \"alice@example.com (request 1)\"",
                "Serial: 18364758544493064720",
                "alice\n                deploy\n",
                "force-command /bin/true \"x\"\n                source-address 10.0.0.0/8\n",
                "permit-port-forwarding\n                permit-pty\n",
            ] {
                assert!(
                    shown.contains(expected),
                    "{kind} {bits}: {expected:?} is missing in\n{shown}"
                );
            }
            if kind == "rsa" {
                assert!(shown.contains("using rsa-sha2-512"), "{shown}");
            }
            let again = UserCertificate::parse(&certificate.line()).unwrap();
            assert_eq!(again, certificate);
            assert_eq!(again.subject_line(), subject.line());
            assert_eq!(again.ca_fingerprint(), ca.fingerprint());
            assert_eq!(again.principals(), ["alice", "deploy"]);
            assert_eq!(again.critical_options()["force-command"], "/bin/true \"x\"");
            assert_eq!(again.extensions()["login@github.com"], "alice");
            assert_eq!(again.extensions()["permit-pty"], "");
        }
    }
}

#[test]
fn certificates_of_ssh_keygen_are_read_and_those_that_no_ca_should_make_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let subject = make_key(folder.path(), "ed25519", "", "");
    let subject_name = format!("{}.pub", subject.display());
    let certificate_file = format!("{}-cert.pub", subject.display());
    let ca_folder = folder.path().join("ca");
    fs::create_dir(&ca_folder).unwrap();
    for (kind, bits, _) in CA_KINDS {
        let ca = make_key(&ca_folder, kind, bits, "");
        let ca_name = ca.to_str().unwrap();
        let base = ["-q", "-s", ca_name, "-I", "key id", "-z", "7"];
        let issue = |more: &[&str]| {
            let arguments: Vec<&str> = base.iter().chain(more).copied().chain([&*subject_name]).collect();
            keygen_ok(&arguments);
            UserCertificate::parse(&fs::read_to_string(&certificate_file).unwrap())
        };
        let good = issue(&[
            "-n",
            "alice",
            "-V",
            "20260101:20260102",
            "-O",
            "clear",
            "-O",
            "permit-pty",
        ])
        .unwrap();
        assert_eq!(
            (good.serial(), good.key_id(), good.principals()),
            (7, "key id", vec!["alice"])
        );
        assert_eq!(
            good.extensions().into_iter().collect::<Vec<_>>(),
            [("permit-pty", "")]
        );
        assert_eq!(
            good.subject_line(),
            SubjectPublicKey::parse(&public_of(&subject)).unwrap().line()
        );
        assert_eq!(
            good.ca_fingerprint(),
            CaPublicKey::parse(&public_of(&ca)).unwrap().fingerprint()
        );
        assert_eq!(issue(&["-n", "alice"]), Err(CertificateError::ForEver));
        assert_eq!(
            issue(&["-V", "20260101:20260102"]),
            Err(CertificateError::NoPrincipal)
        );
        assert_eq!(
            issue(&["-h", "-n", "host", "-V", "20260101:20260102"]),
            Err(CertificateError::NotForUsers(2))
        );
    }
}

#[test]
fn a_certificate_with_any_byte_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let subject = public_of(&make_key(folder.path(), "ed25519", "", ""));
    let ca = CaKey::generate_ed25519().unwrap();
    let blob = spec(&subject).sign(&ca).unwrap().blob().to_vec();
    for place in 0..blob.len() {
        let mut changed = blob.clone();
        changed[place] ^= 1;
        assert!(UserCertificate::from_blob(changed).is_err(), "byte {place}");
        assert!(
            UserCertificate::from_blob(&blob[..place]).is_err(),
            "cut at {place}"
        );
    }
    assert!(UserCertificate::from_blob([&blob[..], &[0]].concat()).is_err());
}

#[test]
fn an_encrypted_ca_key_opens_with_its_passphrase_only() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, bits) in [
        ("ed25519", ""),
        ("ecdsa", "384"),
        ("ecdsa", "521"),
        ("rsa", "2048"),
    ] {
        let path = make_key(folder.path(), kind, bits, "correct horse");
        let give = |text: &str| Some(SecretBytes::new(text.as_bytes().to_vec()));
        let ca = CaKey::load(&path, || give("correct horse")).unwrap();
        assert!(public_of(&path).starts_with(&ca.public_line()));
        let problem = |given| match CaKey::load(&path, || given) {
            Err(CaKeyError::Format { source, .. }) => source,
            other => panic!("{other:?}"),
        };
        assert_eq!(problem(give("wrong")), CaKeyFormatError::WrongPassphrase);
        assert_eq!(problem(None), CaKeyFormatError::Encrypted);
    }
}

#[test]
fn every_cipher_that_ssh_keygen_has_for_keys_works_or_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ciphers = keygen_ok_or_ssh("cipher");
    for cipher in ciphers.lines() {
        let path = folder.path().join(cipher);
        keygen_ok(&[
            "-q",
            "-t",
            "ed25519",
            "-N",
            "secret",
            "-Z",
            cipher,
            "-f",
            path.to_str().unwrap(),
        ]);
        match CaKey::load(&path, || Some(SecretBytes::new(b"secret".to_vec()))) {
            Ok(_) => {}
            Err(CaKeyError::Format {
                source: CaKeyFormatError::Cipher(name),
                ..
            }) => {
                assert_eq!((name.as_str(), cipher), ("3des-cbc", "3des-cbc"));
            }
            Err(other) => panic!("{cipher}: {other}"),
        }
    }
}

fn keygen_ok_or_ssh(query: &str) -> String {
    let output = Command::new("ssh")
        .args(["-Q", query])
        .output()
        .expect("ssh is installed");
    String::from_utf8(output.stdout).expect("ssh prints text")
}

#[test]
fn a_ca_key_that_others_can_reach_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = make_key(folder.path(), "ed25519", "", "");
    let load = |path: &Path| {
        CaKey::load(path, || None)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(load(&path), Ok(()));
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let message = load(&path).unwrap_err();
        assert!(
            message.contains(&format!("{mode:04o}")) && message.contains("chmod 600"),
            "{message}"
        );
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(load(&path), Ok(()));
    }
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(load(&link).unwrap_err().contains("symbolic link"));
    assert!(load(folder.path()).unwrap_err().contains("not a regular file"));
    assert!(
        load(&folder.path().join("absent"))
            .unwrap_err()
            .contains("cannot read")
    );
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(load(&pipe).unwrap_err().contains("not a regular file"));
    let large = folder.path().join("large");
    fs::write(&large, vec![b'x'; 64 * 1024 + 1]).unwrap();
    fs::set_permissions(&large, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(load(&large).unwrap_err().contains("larger than"));
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert!(load(&path).unwrap_err().contains("belongs to uid 65534"));
    }
}

/// What `ssh-keygen -t ed25519-sk` writes, up to the key's type: the rest needs a token to be made.
fn fido_private() -> String {
    let mut section = vec![7; 8];
    section.put_string("sk-ssh-ed25519@openssh.com");
    let mut content = b"openssh-key-v1\0".to_vec();
    for text in ["none", "none", ""] {
        content.put_string(text);
    }
    content.put_u32(1);
    content.put_string("");
    content.put_string(section);
    let encoded = STANDARD.encode(content);
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{encoded}\n-----END OPENSSH PRIVATE KEY-----\n")
}

#[test]
fn private_keys_in_other_formats_and_of_other_types_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let problem = |path: &Path| match CaKey::load(path, || None) {
        Err(CaKeyError::Format { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let pem = folder.path().join("pem");
    keygen_ok(&[
        "-q",
        "-t",
        "rsa",
        "-b",
        "2048",
        "-m",
        "PEM",
        "-N",
        "",
        "-f",
        pem.to_str().unwrap(),
    ]);
    assert_eq!(
        problem(&pem),
        CaKeyFormatError::OtherPem("RSA PRIVATE KEY".into())
    );
    let fido = folder.path().join("fido");
    fs::write(&fido, fido_private()).unwrap();
    fs::set_permissions(&fido, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        problem(&fido),
        CaKeyFormatError::Type("sk-ssh-ed25519@openssh.com".into())
    );
    let short = make_key(folder.path(), "rsa", "1024", "");
    assert_eq!(problem(&short), CaKeyFormatError::RsaSize(1024));
    // The remedy that the message names works.
    keygen_ok(&["-q", "-p", "-N", "", "-f", pem.to_str().unwrap()]);
    assert!(CaKey::load(&pem, || None).is_ok());
}

#[test]
fn subject_keys_are_exactly_those_on_the_list() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, bits) in SUBJECT_KINDS {
        let line = public_of(&make_key(folder.path(), kind, bits, ""));
        let key = SubjectPublicKey::parse(&line).unwrap();
        assert!(line.starts_with(&key.line()), "{kind} {bits}");
        let shown = keygen_ok(&[
            "-l",
            "-f",
            &format!("{}/{kind}-{bits}.pub", folder.path().display()),
        ]);
        assert!(shown.contains(&key.fingerprint()), "{shown}");
    }
    for line in FIDO_SUBJECTS {
        assert_eq!(SubjectPublicKey::parse(line).unwrap().line(), line);
    }
    let short = public_of(&make_key(folder.path(), "rsa", "1024", ""));
    assert_eq!(
        SubjectPublicKey::parse(&short),
        Err(SubjectKeyError::RsaSize(1024))
    );
    let ca = CaKey::generate_ed25519().unwrap();
    let certificate = spec(&public_of(&folder.path().join("ed25519-")))
        .sign(&ca)
        .unwrap();
    assert!(matches!(
        SubjectPublicKey::parse(&certificate.line()),
        Err(SubjectKeyError::Key(_))
    ));
    let dss = "ssh-dss AAAAB3NzaC1kc3MAAAABAQAAAAEBAAAAAQEAAAABAQ==";
    assert!(
        SubjectPublicKey::parse(dss)
            .unwrap_err()
            .to_string()
            .contains("ssh-dss")
    );
}

#[test]
fn a_token_signed_by_a_ca_key_verifies_with_its_public_half_only() {
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<CaKey> = CA_KINDS
        .iter()
        .map(|(kind, bits, _)| CaKey::load(make_key(folder.path(), kind, bits, ""), || None).unwrap())
        .collect();
    for (index, key) in keys.iter().enumerate() {
        let signature = key.sign_jws(b"header.claims").unwrap();
        for (other, public) in keys
            .iter()
            .map(|key| CaPublicKey::parse(&key.public_line()).unwrap())
            .enumerate()
        {
            assert_eq!(
                public.verify_jws(key.jws_algorithm(), b"header.claims", &signature),
                index == other
            );
            assert!(!public.verify_jws(key.jws_algorithm(), b"header.Claims", &signature));
        }
        assert_eq!(
            CaPublicKey::parse(&key.public_line()).unwrap().jws_algorithm(),
            key.jws_algorithm()
        );
    }
}

#[test]
fn host_signatures_verify_for_plain_keys_and_for_host_certificates() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, bits, _) in CA_KINDS {
        let path = make_key(folder.path(), kind, bits, "");
        let host = CaKey::load(&path, || None).unwrap();
        let signature = host.sign(b"session").unwrap();
        let plain = host.public().blob();
        assert_eq!(verify_host_signature(plain, b"session", &signature), Ok(()));
        assert!(verify_host_signature(plain, b"other", &signature).is_err());
        let public_name = format!("{}.pub", path.display());
        keygen_ok(&[
            "-q",
            "-s",
            path.to_str().unwrap(),
            "-I",
            "host",
            "-h",
            "-n",
            "h",
            &public_name,
        ]);
        let line = fs::read_to_string(format!("{}-cert.pub", path.display())).unwrap();
        let certificate = ssh_key::Certificate::from_openssh(&line)
            .unwrap()
            .to_bytes()
            .unwrap();
        assert_eq!(
            verify_host_signature(&certificate, b"session", &signature),
            Ok(())
        );
        assert!(verify_host_signature(&certificate, b"other", &signature).is_err());
    }
}

#[test]
fn ssh_key_s_own_builder_accepts_our_signer_and_we_accept_its_certificate() {
    let ca = CaKey::generate_ed25519().unwrap();
    let subject = CaKey::generate_ed25519().unwrap();
    let key_data = |key: &CaKey| {
        ssh_key::PublicKey::from_openssh(&key.public_line())
            .unwrap()
            .key_data()
            .clone()
    };
    struct Adapter<'a>(&'a CaKey, ssh_key::public::KeyData);
    impl signature::Signer<ssh_key::Signature> for Adapter<'_> {
        fn try_sign(&self, message: &[u8]) -> Result<ssh_key::Signature, signature::Error> {
            signature::Signer::try_sign(self.0, message)
        }
    }
    impl From<&Adapter<'_>> for ssh_key::public::KeyData {
        fn from(adapter: &Adapter<'_>) -> Self {
            adapter.1.clone()
        }
    }
    let mut builder =
        ssh_key::certificate::Builder::new(vec![7; 32], key_data(&subject), 1_767_225_540, 1_767_225_900)
            .unwrap();
    builder
        .serial(9)
        .unwrap()
        .key_id("k")
        .unwrap()
        .valid_principal("alice")
        .unwrap();
    builder
        .extension("permit-pty", "")
        .unwrap()
        .extension("a@b", "value")
        .unwrap();
    let theirs = builder.sign(&Adapter(&ca, key_data(&ca))).unwrap();
    let ours = UserCertificate::from_blob(theirs.to_bytes().unwrap()).unwrap();
    assert_eq!(
        (ours.serial(), ours.key_id(), ours.principals()),
        (9, "k", vec!["alice"])
    );
    assert_eq!(ours.extensions()["a@b"], "value");
    assert_eq!(ours.line(), theirs.to_openssh().unwrap());
}
