//! The agent with the real ssh, sshd, ssh-add and ssh-keygen.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::stage::{Stage, credential, credential_with, err, out, run, settings, text};
use epithet_agent::AgentSettings;

#[tokio::test(flavor = "multi_thread")]
async fn a_login_works_and_sshd_logs_who_it_was() {
    let stage = Stage::ready(settings());
    let sshd = stage.sshd("host");
    let output = stage.ssh(&sshd, &[], "echo arrived");
    assert_eq!(
        out(&output),
        "arrived\n",
        "{}{}",
        err(&output),
        stage.sshd_log("host")
    );
    assert_eq!(stage.activity.signatures(), 1);
    assert!(stage.activity.last_request().is_some());
    let log = stage.sshd_log("host");
    assert!(log.contains("ID alice@example.com (serial 42)"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_works_when_binding_is_required_and_to_a_host_with_a_certificate_of_its_own() {
    let strict = AgentSettings {
        require_bind: true,
        ..settings()
    };
    let stage = Stage::ready(strict);
    let sshd = stage.sshd("host");
    let host_ca = stage.path("host-ca");
    run(
        "ssh-keygen",
        &["-q", "-t", "ecdsa", "-N", "", "-f", text(&host_ca)],
    );
    let host_key = stage.path("host-host-key.pub");
    run(
        "ssh-keygen",
        &[
            "-q",
            "-s",
            text(&host_ca),
            "-I",
            "h",
            "-h",
            "-n",
            "host",
            text(&host_key),
        ],
    );
    let certificate = stage.path("host-host-key-cert.pub");
    stage.configure("host", &format!("HostCertificate {}", certificate.display()));
    // Only a host whose certificate is by that CA is believed, so this is a login to a host certificate.
    let known = stage.path("known-hosts");
    let host_ca_line = fs::read_to_string(stage.path("host-ca.pub")).unwrap();
    fs::write(&known, format!("@cert-authority host {host_ca_line}")).unwrap();
    let known_option = format!("UserKnownHostsFile={}", known.display());
    let mut command = stage.program("ssh");
    let output = command
        .args(["-o", "StrictHostKeyChecking=yes", "-o", &known_option])
        .args(Stage::ssh_options(&sshd))
        .arg("-o")
        .arg(format!("IdentityAgent={}", stage.socket.display()))
        .arg(format!("{}@host", stage.user))
        .arg("echo arrived")
        .output()
        .unwrap();
    assert_eq!(out(&output), "arrived\n", "{}", err(&output));
    assert_eq!(stage.activity.signatures(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_logged_in_with_the_certificate() {
    let (stage, fulfil) = Stage::pending(settings());
    // The host would let the certificate in, so it is the agent that has to say no.
    fulfil.ready(credential_with(&stage.ca, &stage.user, "alice"));
    let sshd = stage.sshd("host");
    let output = stage.ssh(&sshd, &[], "true");
    assert_ne!(output.status.code(), Some(0));
    assert_eq!(stage.activity.signatures(), 0);
    assert!(
        err(&output).contains("agent refused operation"),
        "{}",
        err(&output)
    );
}

/// What a hostile host does with an agent that it was handed: lists, signs, and goes on to the next host.
fn plunder(stage: &Stage, sshd_onward: &str) -> String {
    let onward = Stage::ssh_options(sshd_onward)
        .iter()
        .map(|option| format!("'{option}'"))
        .collect::<Vec<_>>()
        .join(" ");
    format!(
        "ssh-add -L; ssh-add -l; echo text > {file}; ssh-keygen -Y sign -n file -f {key} {file} && echo SIGNED; \
         ssh {onward} {user}@onward echo ONWARD; ssh-add -D; true",
        file = stage.path("plunder").display(),
        key = stage.path("certificate.pub").display(),
        user = stage.user,
    )
}

/// The certificate as a file, for a host that kept it from the login itself.
fn leak_certificate(stage: &Stage) {
    let shown = out(&stage
        .program("ssh-add")
        .arg("-L")
        .output()
        .expect("ssh-add is installed"));
    assert!(shown.starts_with("ssh-ed25519-cert-v01@openssh.com "), "{shown}");
    fs::write(stage.path("certificate.pub"), shown).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_host_that_is_handed_the_agent_gets_nothing_from_it() {
    let stage = Stage::ready(settings());
    leak_certificate(&stage);
    let (sshd, onward) = (stage.sshd("host"), stage.sshd("onward"));
    let output = stage.ssh(&sshd, &["-A"], &plunder(&stage, &onward));
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let (got, said) = (out(&output), err(&output));
    assert!(
        !got.contains("cert") && !got.contains("SIGNED") && !got.contains("ONWARD"),
        "{got}{said}"
    );
    assert_eq!(
        got.matches("The agent has no identities.").count(),
        2,
        "{got}{said}"
    );
    assert!(said.contains("Permission denied"), "{said}");
    assert_eq!(stage.activity.signatures(), 1, "the login to the host itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_host_that_is_allowed_to_go_on_can_do_that_and_nothing_more() {
    let stage = Stage::ready(AgentSettings {
        allow_forwarding: true,
        ..settings()
    });
    leak_certificate(&stage);
    let (sshd, onward) = (stage.sshd("host"), stage.sshd("onward"));
    let output = stage.ssh(&sshd, &["-A"], &plunder(&stage, &onward));
    let (got, said) = (out(&output), err(&output));
    assert!(got.contains("ONWARD") && !got.contains("SIGNED"), "{got}{said}");
    assert_eq!(stage.activity.signatures(), 2, "{got}{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_add_lists_one_certificate_and_can_only_remove_it() {
    let stage = Stage::ready(settings());
    let key = stage.path("key");
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", text(&key)]);
    let ask = stage.path("ask");
    fs::write(&ask, "#!/bin/sh\necho secret\n").unwrap();
    fs::set_permissions(&ask, fs::Permissions::from_mode(0o700)).unwrap();
    let ssh_add = |arguments: &[&str]| {
        let mut command = stage.program("ssh-add");
        command
            .env("SSH_ASKPASS", &ask)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .args(arguments);
        command.output().unwrap()
    };
    let listed = out(&ssh_add(&["-L"]));
    assert_eq!(listed.lines().count(), 1);
    assert!(
        listed.starts_with("ssh-ed25519-cert-v01@openssh.com "),
        "{listed}"
    );
    assert!(out(&ssh_add(&["-l"])).ends_with(" alice@example.com (ED25519-CERT)\n"));
    let refused = [
        vec![text(&key)],
        vec!["-t", "60", text(&key)],
        vec!["-c", text(&key)],
        vec!["-d", text(&key)],
        vec!["-x"],
        vec!["-X"],
        vec!["-s", "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"],
        vec!["-e", "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"],
    ];
    for arguments in refused {
        let output = ssh_add(&arguments);
        assert_ne!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
        assert_eq!(out(&ssh_add(&["-L"])), listed, "after {arguments:?}");
    }
    assert_eq!(ssh_add(&["-D"]).status.code(), Some(0));
    assert!(out(&ssh_add(&["-l"])).contains("no identities"));
    assert!(stage.socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_signs_no_files() {
    let stage = Stage::ready(settings());
    leak_certificate(&stage);
    let file = stage.path("file");
    fs::write(&file, "text").unwrap();
    let output = stage
        .program("ssh-keygen")
        .args([
            "-Y",
            "sign",
            "-n",
            "file",
            "-f",
            text(&stage.path("certificate.pub")),
            text(&file),
        ])
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(!stage.path("file.sig").exists());
    assert_eq!(stage.activity.signatures(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_arrives_while_ssh_shakes_hands_is_in_time() {
    let (stage, fulfil) = Stage::pending(settings());
    let sshd = stage.sshd("host");
    let certificate = credential(&stage.ca, &stage.user);
    let minting = tokio::spawn(async move {
        // Stands for the CA, which takes its time.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(fulfil.ready(certificate));
        fulfil
    });
    let output = tokio::task::block_in_place(|| stage.ssh(&sshd, &[], "echo arrived"));
    assert_eq!(out(&output), "arrived\n", "{}", err(&output));
    minting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_certificate_is_denied_ssh_goes_on_to_the_persons_other_keys() {
    let (stage, fulfil) = Stage::pending(settings());
    let sshd = stage.sshd("host");
    let key = stage.path("old-key");
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", text(&key)]);
    fs::copy(stage.path("old-key.pub"), stage.path("authorized-keys")).unwrap();
    // Dropped without a word, as by a task that died.
    drop(fulfil);
    let output = stage.ssh(&sshd, &["-i", text(&key)], "echo arrived");
    assert_eq!(out(&output), "arrived\n", "{}", err(&output));
    assert_eq!(stage.activity.signatures(), 0);
}
