//! `epithet host setup`: shown, done, done again, and taken back.

use crate::stage::{EtcSsh, Stage};
use epithet_testkit::{DEADLINE, Finished};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const INCLUDING: &str =
    "Include {folder}/sshd_config.d/*.conf\nUsePAM no\nMatch User nobody\n  PermitTTY no\nMatch all\n";
const WITHOUT: &str = "UsePAM no\nMatch User nobody\n  PermitTTY no\nMatch all\n";

fn setup(stage: &Stage, etc: &EtcSsh, more: &[&str]) -> Finished {
    let mut command = stage.epithet(&["host", "setup", "--sshd-config-dir"]);
    command.arg(etc.path());
    if !more.contains(&"--undo") {
        command.arg("--ca-pubkey").arg(stage.ca.public_path());
    }
    Finished::of(
        {
            command.args(more);
            command
        },
        DEADLINE,
    )
}

#[test]
fn after_apply_a_certificate_logs_in_and_after_undo_nothing_is_left() {
    for (text, file) in [
        (INCLUDING, "sshd_config.d/10-epithet.conf"),
        (WITHOUT, "sshd_config"),
    ] {
        let (stage, etc) = (Stage::new(), EtcSsh::new(text));
        let before = etc.files();
        assert!(!stage.logs_in(&etc.start()));
        assert_eq!(stage.check(&etc.config())["reason"]["rule"], "TrustedUserCAKeys");

        let applied = setup(&stage, &etc, &["--apply"]).success();
        assert!(
            applied.stderr.contains(&stage.ca.fingerprint()),
            "{}",
            applied.stderr
        );
        assert!(
            applied.stderr.contains("this host accepts certificates"),
            "{}",
            applied.stderr
        );
        assert!(etc.read(file).contains("TrustedUserCAKeys"), "{file}");
        let mode = |name: &str| {
            std::fs::metadata(etc.path().join(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(mode("epithet-ca.pub"), 0o644);
        assert_eq!(stage.check(&etc.config())["accepts"], true);
        assert!(stage.logs_in(&etc.start()));

        let once = etc.files();
        let again = setup(&stage, &etc, &["--apply"]).success();
        assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
        assert_eq!(etc.files(), once);

        setup(&stage, &etc, &["--undo", "--apply"]).success();
        let is_a_copy = |path: &Path| path.to_string_lossy().ends_with(".before-epithet");
        let after: Vec<_> = etc
            .files()
            .into_iter()
            .filter(|(path, ..)| !is_a_copy(path))
            .collect();
        assert_eq!(after, before);
        assert!(!stage.logs_in(&etc.start()));
        let again = setup(&stage, &etc, &["--undo", "--apply"]).success();
        assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    }
}

#[test]
fn without_apply_nothing_changes_and_what_is_shown_does_the_same_when_run() {
    for text in [INCLUDING, WITHOUT] {
        let (stage, etc) = (Stage::new(), EtcSsh::new(text));
        let before = etc.files();
        let shown = setup(&stage, &etc, &[]).success();
        assert_eq!(etc.files(), before);
        assert!(
            shown.stderr.contains("compare the fingerprints"),
            "{}",
            shown.stderr
        );
        // As far as testing the configuration; there is no sshd to be reloaded.
        let (script, _) = shown.stdout.rsplit_once("sshd -t").unwrap();
        stage.home.run("/bin/sh", ["-c", script]).success();
        let again = setup(&stage, &etc, &["--apply"]).success();
        assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
        assert!(stage.logs_in(&etc.start()));
    }
}

#[test]
fn a_configuration_that_sshd_does_not_take_is_put_back_as_it_was() {
    let (stage, etc) = (Stage::new(), EtcSsh::new(INCLUDING));
    let before = etc.files();
    // An sshd that is content until the settings are there, and then is not.
    let fussy = stage.home.write(
        "sshd",
        format!(
            "#!/bin/sh\nif [ -e {0}/sshd_config.d/10-epithet.conf ]; then echo 'no such keyword: here' >&2; exit 255; fi\nexec /usr/sbin/sshd \"$@\"\n",
            etc.path().display()
        ),
    );
    std::fs::set_permissions(&fussy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = setup(&stage, &etc, &["--apply", "--sshd", &fussy.display().to_string()]);
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.stderr.contains("nothing was changed") && refused.stderr.contains("no such keyword: here"),
        "{}",
        refused.stderr
    );
    assert_eq!(etc.files(), before);

    // One that refuses the settings themselves sees them before any file does.
    let fussier = stage.home.write(
        "sshd2",
        "#!/bin/sh\nif grep -q TrustedUserCAKeys \"$3\"; then echo 'line 1: no' >&2; exit 255; fi\nexec /usr/sbin/sshd \"$@\"\n",
    );
    std::fs::set_permissions(&fussier, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = setup(
        &stage,
        &etc,
        &["--apply", "--sshd", &fussier.display().to_string()],
    );
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.stderr.contains("does not take the new settings"),
        "{}",
        refused.stderr
    );
    assert_eq!(etc.files(), before);
}

#[test]
fn a_configuration_that_is_broken_already_is_left_alone() {
    let (stage, etc) = (Stage::new(), EtcSsh::new("NoSuchKeyword yes\n"));
    let before = etc.files();
    let refused = setup(&stage, &etc, &["--apply"]);
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.stderr.contains("broken already") && refused.stderr.contains("NoSuchKeyword"),
        "{}",
        refused.stderr
    );
    assert_eq!(etc.files(), before);
}

#[test]
fn a_host_that_trusts_another_ca_goes_on_trusting_it() {
    let stage = Stage::new();
    let etc = EtcSsh::new("TrustedUserCAKeys {folder}/others.pub\n");
    let other = Stage::new();
    std::fs::write(etc.path().join("others.pub"), other.ca.public_line()).unwrap();
    setup(&stage, &etc, &["--apply"]).success();
    let sshd = etc.start();
    assert!(stage.logs_in(&sshd));
    assert!(other.logs_in(&sshd));
    setup(&stage, &etc, &["--undo", "--apply"]).success();
    assert!(!stage.logs_in(&sshd), "sshd reads the keys at each login");
    assert!(other.logs_in(&sshd));
}

#[test]
fn principals_in_files_let_in_whom_they_list() {
    let stage = Stage::new();
    let etc = EtcSsh::new(INCLUDING);
    let folder = etc.path().join("principals");
    let folder = folder.to_str().unwrap();
    setup(&stage, &etc, &["--apply", "--principals-dir", folder]).success();
    let reason = &stage.check(&etc.config())["reason"];
    assert_eq!(reason["rule"], "AuthorizedPrincipalsFile", "{reason}");
    let sshd = etc.start();
    assert!(!stage.logs_in(&sshd));
    let user = stage.user.name();
    setup(
        &stage,
        &etc,
        &["--apply", "--principals-dir", folder, "--principals-user", user],
    )
    .success();
    assert!(stage.logs_in(&sshd));
    assert_eq!(stage.check(&etc.config())["accepts"], true);
    // The keys are renewed without naming the folder again.
    let again = setup(&stage, &etc, &["--apply"]).success();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    setup(&stage, &etc, &["--undo", "--apply"]).success();
    assert!(!Path::new(folder).exists());
}

#[test]
fn reload_makes_a_running_sshd_accept_what_it_refused() {
    let stage = Stage::new();
    let etc = EtcSsh::new("Include {folder}/sshd_config.d/*.conf\nPidFile {folder}/pid\n");
    let sshd = etc.start();
    assert!(!stage.logs_in(&sshd));
    let position = sshd.log_position();
    let applied = setup(&stage, &etc, &["--apply", "--reload"]).success();
    assert!(applied.stderr.contains("reloaded sshd"), "{}", applied.stderr);
    sshd.wait_for_log_after(position, "Server listening");
    assert!(stage.logs_in(&sshd));
}

#[test]
fn a_pid_file_that_names_no_sshd_gets_no_signal() {
    let stage = Stage::new();
    let etc = EtcSsh::new("PidFile {folder}/pid\n");
    std::fs::write(etc.path().join("pid"), format!("{}\n", std::process::id())).unwrap();
    let applied = setup(&stage, &etc, &["--apply", "--reload"]);
    assert_eq!(applied.code(), Some(1));
    assert!(applied.stderr.contains("is no sshd"), "{}", applied.stderr);
    assert!(etc.path().join("epithet-ca.pub").exists());
}

#[test]
fn wrong_command_lines_say_what_is_missing() {
    let (stage, etc) = (Stage::new(), EtcSsh::new(WITHOUT));
    let run = |arguments: &[&str]| {
        let mut command = stage.epithet(&["host", "setup", "--sshd-config-dir"]);
        command.arg(etc.path()).args(arguments);
        Finished::of(command, DEADLINE)
    };
    let none = run(&[]);
    assert_eq!(none.code(), Some(1));
    assert!(none.stderr.contains("--ca-url"), "{}", none.stderr);
    let public = stage.ca.public_path().display().to_string();
    for (arguments, code, words) in [
        (vec!["--ca-url", "http://ca.example.com"], 1, "https://"),
        (vec!["--ca-url", "unix:///run/ca.sock"], 1, "--ca-pubkey"),
        (vec!["--ca-pubkey", "/nonexistent"], 1, "/nonexistent"),
        (vec!["--ca-pubkey", &public, "--undo"], 80, "--undo"),
        (vec!["--ca-pubkey", &public, "--reload"], 80, "--apply"),
        (
            vec!["--ca-pubkey", &public, "--principals-user", "root"],
            80,
            "--principals-dir",
        ),
        (
            vec!["--ca-pubkey", &public, "--fingerprint", "MD5:00"],
            1,
            "ssh-keygen -l",
        ),
        (
            vec!["--ca-pubkey", &public, "--principals-dir", "not/absolute"],
            1,
            "absolute",
        ),
    ] {
        let finished = run(&arguments);
        assert_eq!(finished.code(), Some(code), "{arguments:?}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(words),
            "{arguments:?}: {}",
            finished.stderr
        );
    }
    let empty = tempfile::tempdir().unwrap();
    let mut command = stage.epithet(&["host", "setup", "--ca-pubkey", &public, "--sshd-config-dir"]);
    command.arg(empty.path());
    let missing = Finished::of(command, DEADLINE);
    assert!(missing.stderr.contains("--sshd-config-dir"), "{}", missing.stderr);
}
