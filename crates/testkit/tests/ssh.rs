//! The `sshd` fixture with a real `ssh`: plain keys, certificates, root and ordinary users.

#![cfg(test)]

use epithet_testkit::{DEADLINE, Daemon, Home, KeyPair, Sshd, SshdSettings, TestUser};
use std::time::Duration;

fn config(sshd: &Sshd, user: &TestUser, identity: &std::path::Path) -> String {
    format!(
        "Host target\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  KexAlgorithms curve25519-sha256\n",
        sshd.port(),
        user.name(),
        identity.display()
    )
}

#[test]
fn a_plain_key_logs_in_and_sshd_says_so() {
    let user = TestUser::current();
    let home = Home::new();
    let key = KeyPair::generate(home.path(), "key");
    let sshd = Sshd::start(SshdSettings {
        authorized_keys: Some(key.public_line()),
        ..SshdSettings::default()
    });
    home.trust(&sshd);
    home.ssh_config(&config(&sshd, &user, key.path()));
    let finished = home.run_ssh(["target", "echo here; exit 7"]);
    assert_eq!(
        (finished.code(), finished.stdout.as_str()),
        (Some(7), "here\n"),
        "{}",
        finished.stderr
    );
    let line = sshd.wait_for_log("Accepted publickey");
    assert!(line.contains(&key.fingerprint()), "{line}");
    assert!(
        std::fs::read_to_string(sshd.log_path())
            .unwrap()
            .contains("Accepted publickey")
    );

    let other = KeyPair::generate(home.path(), "other");
    home.ssh_config(&config(&sshd, &user, other.path()));
    let refused = home.run_ssh(["target", "true"]);
    assert_eq!(refused.code(), Some(255));
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
}

#[test]
fn a_certificate_of_the_trusted_ca_logs_in_and_sshd_names_key_id_serial_and_ca() {
    let user = TestUser::current();
    let home = Home::new();
    let (ca, key) = (
        KeyPair::generate(home.path(), "ca"),
        KeyPair::generate(home.path(), "key"),
    );
    ca.certify(&key, "alice@example.com", user.name(), 42, "+5m");
    let sshd = Sshd::trusting(&ca.public_line());
    home.trust(&sshd);
    home.ssh_config(&config(&sshd, &user, key.path()));
    home.run_ssh(["target", "true"]).success();
    let line = sshd.wait_for_log("Accepted publickey");
    for part in ["ID alice@example.com (serial 42)", &ca.fingerprint()] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn an_ordinary_user_is_logged_in_to_by_root_s_sshd_and_can_run_one_of_their_own() {
    let Some(user) = TestUser::ordinary() else { return };
    let home = Home::of(&user);
    let (ca, key) = (
        KeyPair::generate(home.path(), "ca"),
        KeyPair::generate(home.path(), "key"),
    );
    // ssh runs as the user and has to read its key.
    std::os::unix::fs::chown(key.path(), Some(user.uid()), Some(user.gid())).unwrap();
    ca.certify(&key, "bob", user.name(), 1, "+5m");
    let of_root = Sshd::trusting(&ca.public_line());
    let settings = SshdSettings {
        ca_public_key: Some(ca.public_line()),
        user: Some(user.clone()),
        ..SshdSettings::default()
    };
    let of_user = Sshd::start(settings);
    for sshd in [&of_root, &of_user] {
        home.trust(sshd);
        home.ssh_config(&config(sshd, &user, key.path()));
        let finished = home.run_ssh(["target", "id -un"]).success();
        assert_eq!(finished.stdout.trim(), user.name());
        sshd.wait_for_log("ID bob (serial 1)");
    }
}

#[test]
fn commands_of_a_home_run_as_its_user_with_nothing_of_the_tests_environment() {
    let user = TestUser::ordinary().unwrap_or_else(TestUser::current);
    let home = Home::of(&user);
    let file = home.write(".epithet/config.yaml", "x: 1\n");
    let finished = home
        .run(
            "/bin/sh",
            [
                "-c",
                "id -un; echo $HOME; cat ~/.epithet/config.yaml; env | wc -l",
            ],
        )
        .success();
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines[..3], [user.name(), home.path().to_str().unwrap(), "x: 1"]);
    assert!(
        lines[3].trim().parse::<usize>().unwrap() < 15,
        "{}",
        finished.stdout
    );
    assert!(file.starts_with(home.path()));
    let copy = home.install(std::path::Path::new("/bin/true"));
    home.run(copy, [""; 0]).success();
}

#[test]
fn a_daemon_is_ended_by_its_own_id_when_it_is_dropped() {
    let home = Home::new();
    let mut command = home.command("/bin/sh");
    command.args(["-c", "echo ready: now >&2; exec sleep 600"]);
    let mut daemon = Daemon::start("a sleeper", command, None);
    let stderr = daemon.stderr().clone();
    assert_eq!(daemon.wait_ready(&stderr, "ready: ", DEADLINE).unwrap(), "now");
    let process = std::path::PathBuf::from(format!("/proc/{}", daemon.pid()));
    assert!(process.exists());
    assert!(daemon.resident_bytes().unwrap() > 0);
    drop(daemon);
    assert!(!process.exists());

    let mut command = home.command("/bin/sh");
    command.args(["-c", "echo no: such thing >&2; exit 4"]);
    let mut daemon = Daemon::start("a failure", command, None);
    let stderr = daemon.stderr().clone();
    let error = daemon.wait_ready(&stderr, "ready: ", DEADLINE).unwrap_err();
    assert_eq!(error.status.unwrap().code(), Some(4));
    assert!(error.to_string().contains("no: such thing"));
    assert_eq!(daemon.wait(Duration::ZERO).unwrap().code(), Some(4));
}
