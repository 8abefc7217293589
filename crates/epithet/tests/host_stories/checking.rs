//! `epithet host check`: each fault is planted in a real sshd, which refuses the login, and the check names that fault.

use crate::stage::{EtcSsh, Stage};
use epithet_testkit::{DEADLINE, Finished, KeyPair, Sshd, SshdSettings, TestUser};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The check names this rule and says these words, and a real login is refused; after `mend` both are content.
#[track_caller]
fn refused(stage: &Stage, sshd: &Sshd, rule: &str, words: &str) -> Value {
    let config = sshd.folder().join("sshd_config");
    let report = stage.check(&config);
    assert_eq!(report["reason"]["rule"], rule, "{report}");
    let message = report["reason"]["message"].as_str().unwrap();
    assert!(message.contains(words), "{words:?} is not in {message:?}");
    assert!(!report["reason"]["remedy"].as_str().unwrap().is_empty());
    assert!(
        !stage.logs_in(sshd),
        "the check says {message}, and yet: logged in"
    );
    report
}

#[track_caller]
fn accepted(stage: &Stage, sshd: &Sshd) -> Value {
    let report = stage.check(&sshd.folder().join("sshd_config"));
    assert_eq!(report["accepts"], true, "{report}");
    assert!(
        stage.logs_in(sshd),
        "the check says yes: {report}\n{}",
        sshd.log()
    );
    report
}

fn trusted_file(sshd: &Sshd) -> std::path::PathBuf {
    sshd.folder().join("ca.pub")
}

#[test]
fn a_host_that_trusts_the_ca_accepts_whatever_kind_its_key_is_of() {
    for (kind, bits) in [
        ("ed25519", None),
        ("ecdsa", Some(256)),
        ("ecdsa", Some(384)),
        ("rsa", Some(2048)),
    ] {
        let stage = Stage::with_ca_of_kind(kind, bits);
        let report = accepted(&stage, &stage.host(""));
        assert_eq!(report["trusted_keys"][0], stage.ca.fingerprint());
    }
}

#[test]
fn the_ca_is_not_trusted_at_all() {
    let stage = Stage::new();
    let sshd = Sshd::start(SshdSettings::default());
    refused(&stage, &sshd, "TrustedUserCAKeys", "has no TrustedUserCAKeys");
    let sshd = stage.host("TrustedUserCAKeys /nonexistent/ca.pub");
    refused(
        &stage,
        &sshd,
        "TrustedUserCAKeys",
        "/nonexistent/ca.pub, which cannot be read",
    );
    let sshd = stage.host("");
    std::fs::write(trusted_file(&sshd), "").unwrap();
    refused(&stage, &sshd, "TrustedUserCAKeys", "does not have the CA's key");
}

#[test]
fn another_ca_is_trusted() {
    let (stage, other) = (Stage::new(), Stage::new());
    let sshd = other.host("");
    let report = refused(&stage, &sshd, "TrustedUserCAKeys", &stage.ca.fingerprint());
    assert!(
        report["reason"]["message"]
            .as_str()
            .unwrap()
            .contains(&other.ca.fingerprint())
    );
    accepted(&other, &sshd);
}

#[test]
fn a_line_above_the_key_that_is_no_key_ends_the_file() {
    let stage = Stage::new();
    let sshd = stage.host("");
    let good = stage.ca.public_line();
    for bad in [
        "hello world",
        &format!("cert-authority {good}"),
        "<html>404</html>",
    ] {
        std::fs::write(trusted_file(&sshd), format!("# keys\n{bad}\n{good}\n")).unwrap();
        refused(&stage, &sshd, "TrustedUserCAKeys", "line 2 of");
        // Below it does no harm.
        std::fs::write(trusted_file(&sshd), format!("{good}\n{bad}\n")).unwrap();
        accepted(&stage, &sshd);
    }
}

#[test]
fn keys_are_no_way_in() {
    let stage = Stage::new();
    refused(
        &stage,
        &stage.host("PubkeyAuthentication no"),
        "PubkeyAuthentication",
        "is no",
    );
    let sshd = stage.host("AuthenticationMethods password\nPasswordAuthentication yes");
    refused(&stage, &sshd, "AuthenticationMethods", "password");
    // What is said for one account counts for that account alone.
    let sshd = stage.host(&format!(
        "Match User {}\n  PubkeyAuthentication no\nMatch all",
        stage.user.name()
    ));
    refused(&stage, &sshd, "PubkeyAuthentication", "is no");
    let public = stage.ca.public_path().display().to_string();
    let config = sshd.folder().join("sshd_config");
    assert_eq!(
        stage.check_with(&config, &["--ca-pubkey", &public])["accepts"],
        true
    );
}

#[test]
fn algorithms_are_not_allowed() {
    let stage = Stage::new();
    let sshd = stage.host("CASignatureAlgorithms ecdsa-sha2-nistp256,rsa-sha2-512");
    refused(&stage, &sshd, "CASignatureAlgorithms", "ssh-ed25519");
    let sshd = stage.host("PubkeyAcceptedAlgorithms -ssh-ed25519-cert-v01@openssh.com");
    refused(
        &stage,
        &sshd,
        "PubkeyAcceptedAlgorithms",
        "ssh-ed25519-cert-v01@openssh.com",
    );
    let rsa = Stage::with_ca_of_kind("rsa", Some(2048));
    let sshd = rsa.host("CASignatureAlgorithms -rsa-sha2-512");
    refused(&rsa, &sshd, "CASignatureAlgorithms", "rsa-sha2-512");
}

#[test]
fn the_ca_s_key_is_revoked_or_the_list_cannot_be_read() {
    let stage = Stage::new();
    let list = stage.home.join("revoked");
    let sshd = stage.host(&format!("RevokedKeys {}", list.display()));
    refused(&stage, &sshd, "RevokedKeys", "cannot be read");
    std::fs::write(&list, "").unwrap();
    accepted(&stage, &sshd);
    std::fs::write(&list, "no key\n").unwrap();
    refused(&stage, &sshd, "RevokedKeys", "line 1 of");
    std::fs::write(&list, stage.ca.public_line() + "\n").unwrap();
    refused(&stage, &sshd, "RevokedKeys", &stage.ca.fingerprint());
    let other = KeyPair::generate(stage.home.path(), "other");
    let revoke = |key: &KeyPair| {
        let (list, public) = (
            list.display().to_string(),
            key.public_path().display().to_string(),
        );
        stage
            .home
            .run("ssh-keygen", ["-q", "-k", "-f", &list, &public])
            .success();
    };
    revoke(&stage.ca);
    refused(&stage, &sshd, "RevokedKeys", &stage.ca.fingerprint());
    revoke(&other);
    accepted(&stage, &sshd);
}

#[test]
fn the_user_s_file_of_principals_decides() {
    let stage = Stage::new();
    let folder = stage.home.join("principals");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join(stage.user.name());
    let sshd = stage.host(&format!("AuthorizedPrincipalsFile {}/%u", folder.display()));
    refused(&stage, &sshd, "AuthorizedPrincipalsFile", "is not there");
    std::fs::write(&file, "somebody\nelse\n").unwrap();
    refused(&stage, &sshd, "AuthorizedPrincipalsFile", "somebody, else");
    for text in [
        format!("{}\n", stage.user.name()),
        format!("# admins\nno-pty {} # them\n", stage.user.name()),
    ] {
        std::fs::write(&file, text).unwrap();
        accepted(&stage, &sshd);
    }
}

#[test]
fn strict_modes_want_files_that_nobody_else_can_write() {
    let stage = Stage::new();
    // Everything below /tmp is unsafe to sshd, so it has to be elsewhere.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(folder.path(), 0o755);
    let file = folder.path().join(stage.user.name());
    std::fs::write(&file, format!("{}\n", stage.user.name())).unwrap();
    let sshd = stage.host(&format!(
        "StrictModes yes\nAuthorizedPrincipalsFile {}/%u",
        folder.path().display()
    ));
    mode(&file, 0o666);
    refused(
        &stage,
        &sshd,
        "StrictModes",
        "can be written by its group or by everybody",
    );
    mode(&file, 0o644);
    mode(folder.path(), 0o777);
    refused(&stage, &sshd, "StrictModes", folder.path().to_str().unwrap());
    mode(folder.path(), 0o755);
    accepted(&stage, &sshd);
}

#[test]
fn the_account_is_kept_out() {
    let stage = Stage::new();
    let name = stage.user.name();
    refused(
        &stage,
        &stage.host(&format!("DenyUsers {name}@127.*")),
        "DenyUsers",
        name,
    );
    refused(
        &stage,
        &stage.host("AllowUsers somebody"),
        "AllowUsers",
        "does not cover",
    );
    refused(
        &stage,
        &stage.host("AllowGroups no-such-group"),
        "AllowGroups",
        "does not cover",
    );
    accepted(
        &stage,
        &stage.host(&format!("AllowUsers somebody {name}@127.0.0.0/8")),
    );
    if TestUser::is_root() {
        refused(
            &stage,
            &stage.host("PermitRootLogin no"),
            "PermitRootLogin",
            "is no",
        );
        refused(
            &stage,
            &stage.host("PermitRootLogin forced-commands-only"),
            "PermitRootLogin",
            "forced",
        );
        accepted(&stage, &stage.host("PermitRootLogin prohibit-password"));
    }
    let sshd = stage.host("");
    let config = sshd.folder().join("sshd_config");
    let public = stage.ca.public_path().display().to_string();
    let report = stage.check_with(&config, &["--ca-pubkey", &public, "--user", "no-such-account"]);
    assert_eq!(report["reason"]["rule"], "account", "{report}");
    // Every system has one that is not for logging in.
    let report = stage.check_with(&config, &["--ca-pubkey", &public, "--user", "daemon"]);
    assert_eq!(report["reason"]["rule"], "account", "{report}");
    assert!(
        report["reason"]["message"].as_str().unwrap().contains("nologin"),
        "{report}"
    );
}

#[test]
fn sshd_does_not_start_with_its_configuration() {
    let stage = Stage::new();
    let etc = EtcSsh::new("NoSuchKeyword yes\n");
    let report = stage.check(&etc.config());
    assert_eq!(report["reason"]["rule"], "sshd_config", "{report}");
    assert!(
        report["reason"]["message"]
            .as_str()
            .unwrap()
            .contains("NoSuchKeyword")
    );
}

#[test]
fn without_a_ca_the_trusted_keys_are_listed_and_a_person_is_told_in_words() {
    let stage = Stage::new();
    let sshd = stage.host("");
    let config = sshd.folder().join("sshd_config").display().to_string();
    let run = |arguments: &[&str]| {
        let mut command = stage.epithet(&["host", "check", "--sshd-config", &config]);
        command.args(arguments);
        Finished::of(command, DEADLINE)
    };
    let said = run(&[]).success().stdout;
    assert!(
        said.starts_with("this host accepts certificates of the keys it trusts\n"),
        "{said}"
    );
    assert!(said.contains(&stage.ca.fingerprint()), "{said}");
    std::fs::set_permissions(trusted_file(&sshd), std::fs::Permissions::from_mode(0o666)).unwrap();
    let said = run(&[]).success().stdout;
    assert!(said.contains("note: ") && said.contains("chmod 644"), "{said}");
    std::fs::write(trusted_file(&sshd), "\n").unwrap();
    let said = run(&[]);
    assert_eq!(said.code(), Some(1));
    assert!(
        said.stdout.contains("because: ") && said.stdout.contains("try: epithet host setup"),
        "{}",
        said.stdout
    );
}
