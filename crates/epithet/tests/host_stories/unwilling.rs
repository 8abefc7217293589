//! Hosts that cannot be set up, or not by this person: what is said, and that nothing changes.

use crate::other_worlds::World;
use crate::stage::{EPITHET, EtcSsh, Stage};
use epithet_testkit::{DEADLINE, Finished, TestUser};

fn setup(stage: &Stage, etc: &EtcSsh, more: &[&str]) -> Finished {
    let mut command = stage.epithet(&["host", "setup", "--sshd-config-dir"]);
    command.arg(etc.path());
    command.arg("--ca-pubkey").arg(stage.ca.public_path()).args(more);
    Finished::of(command, DEADLINE)
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_reason() {
    let (stage, etc) = (Stage::new(), EtcSsh::new("UsePAM no\n"));
    let lines = format!(
        "mount --bind {0} {0}\nmount -o remount,bind,ro {0}",
        etc.path().display()
    );
    let Some(world) = World::new(&stage.home, &lines) else {
        return;
    };
    let before = etc.files();
    let folder = etc.path().display().to_string();
    let public = stage.ca.public_path().display().to_string();
    let arguments = [
        "host",
        "setup",
        "--sshd-config-dir",
        &folder,
        "--ca-pubkey",
        &public,
    ];
    let shown = Finished::of(world.epithet(&stage, &arguments), DEADLINE).success();
    assert!(
        shown.stdout.contains("TrustedUserCAKeys"),
        "to show needs no writing"
    );
    let mut command = world.epithet(&stage, &arguments);
    command.arg("--apply");
    let refused = Finished::of(command, DEADLINE);
    assert_eq!(refused.code(), Some(1));
    for words in [
        "nothing was changed",
        &folder,
        "Read-only file system",
        "make it writable first",
    ] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("root"), "{}", refused.stderr);
    assert_eq!(etc.files(), before);
}

#[test]
fn whoever_is_not_root_is_told_to_be() {
    let Some(user) = TestUser::ordinary() else { return };
    let (stage, etc) = (Stage::new(), EtcSsh::new("UsePAM no\n"));
    for (path, mode) in [(etc.path(), 0o755), (stage.home.path(), 0o755)] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let public = stage.home.write("public", stage.ca.public_line());
    std::fs::set_permissions(&public, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    for verb in ["setup", "check"] {
        let mut command = user.command(EPITHET);
        command.env("EPITHET_CONFIG_ONLY", "1").args(["host", verb]);
        match verb {
            "setup" => command.arg("--sshd-config-dir").arg(etc.path()).arg("--apply"),
            _ => command.arg("--sshd-config").arg(etc.config()),
        };
        let refused = Finished::of(
            {
                command.arg("--ca-pubkey").arg(&public);
                command
            },
            DEADLINE,
        );
        assert_eq!(refused.code(), Some(1));
        let said = refused.stdout + &refused.stderr;
        assert!(said.contains("try: run this as root"), "{verb}: {said}");
        assert!(!said.contains("broken"), "{verb}: {said}");
    }
}

#[test]
fn without_a_pid_file_a_reload_that_was_asked_for_is_an_error() {
    let (stage, etc) = (Stage::new(), EtcSsh::new("PidFile none\n"));
    let failed = setup(&stage, &etc, &["--apply", "--reload"]);
    assert_eq!(failed.code(), Some(1));
    assert!(
        failed.stderr.contains("sshd was not reloaded") && failed.stderr.contains("PidFile"),
        "{}",
        failed.stderr
    );
    assert!(etc.path().join("epithet-ca.pub").exists(), "the files stay");
    let shown = setup(&stage, &etc, &["--apply"]).success();
    assert!(shown.stderr.contains("nothing to do"), "{}", shown.stderr);
}

#[test]
fn folders_and_copies_of_an_attempt_that_failed_are_gone_too() {
    let stage = Stage::new();
    let etc =
        EtcSsh::new("Include {folder}/sshd_config.d/*.conf\nTrustedUserCAKeys {folder}/keys/of/others.pub\n");
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(etc.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = names();
    // sshd is content with what it is shown, and not with what it then has.
    let fussy = stage.home.write(
        "sshd",
        format!(
            "#!/bin/sh\nif [ -e {}/principals ]; then echo 'not today' >&2; exit 255; fi\nexec /usr/sbin/sshd \"$@\"\n",
            etc.path().display()
        ),
    );
    std::fs::set_permissions(&fussy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let principals = etc.path().join("principals/here").display().to_string();
    let more = [
        "--apply",
        "--principals-dir",
        &principals,
        "--principals-user",
        stage.user.name(),
        "--sshd",
        fussy.to_str().unwrap(),
    ];
    let refused = setup(&stage, &etc, &more);
    assert_eq!(refused.code(), Some(1));
    assert!(
        refused.stderr.contains("nothing was changed") && refused.stderr.contains("not today"),
        "{}",
        refused.stderr
    );
    assert_eq!(names(), before);
    // A folder for the keys is made where the configuration names one that is not there.
    setup(&stage, &etc, &["--apply"]).success();
    assert!(stage.logs_in(&etc.start()));
}

#[test]
fn a_match_block_that_trusts_others_is_pointed_out() {
    let stage = Stage::new();
    let etc = EtcSsh::new("Match User deploy\n  TrustedUserCAKeys /etc/ssh/deploy-ca.pub\nMatch all\n");
    let applied = setup(&stage, &etc, &["--apply"]).success();
    assert!(
        applied
            .stderr
            .contains("TrustedUserCAKeys /etc/ssh/deploy-ca.pub")
            && applied.stderr.contains("--user NAME"),
        "{}",
        applied.stderr
    );
    assert!(stage.logs_in(&etc.start()));
}
