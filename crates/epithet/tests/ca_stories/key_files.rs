//! CA keys in files: who may read them, and how an encrypted one is opened.

use crate::office::{EPITHET, Office, Running};
use epithet_testkit::{DEADLINE, Daemon, Finished, KeyPair, Server, wait_until};
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

fn encrypt(key: &KeyPair, passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    // Few rounds: it is not the passphrase that is tested here.
    command
        .args(["-q", "-p", "-a", "1", "-P", "", "-N", passphrase, "-f"])
        .arg(key.path());
    Finished::of(command, DEADLINE).success();
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_remedy() {
    let office = Office::new();
    let key = office.key("ca.key");
    for mode in [0o640, 0o604, 0o644, 0o620] {
        std::fs::set_permissions(key.path(), Permissions::from_mode(mode)).expect("a mode");
        let finished = office.epithet(&["server", "--ca-key", &key.path().display().to_string()]);
        assert_eq!(finished.code(), Some(1), "{mode:o}: {finished:?}");
        assert!(finished.stderr.contains("chmod 600"), "{finished:?}");
    }
    std::fs::set_permissions(key.path(), Permissions::from_mode(0o400)).expect("a mode");
    let ca = office.server(["--ca-key", &key.path().display().to_string()]);
    assert_eq!(ca.ask("alice", &office.question()).status(), 200);
}

/// Runs the server with `text` at descriptor 7.
fn with_descriptor(office: &Office, text: &str, keys: &[&KeyPair]) -> Command {
    let file = office.home.write("passphrases", text);
    let keys: String = keys
        .iter()
        .map(|key| format!(" --ca-key '{}'", key.path().display()))
        .collect();
    let mut command = office.home.command("/bin/sh");
    let script = format!(
        "exec '{EPITHET}' server -v --listen=127.0.0.1:0 --key-passphrase-fd 7{keys} 7<'{}'",
        file.display()
    );
    command.args(["-c", &script]);
    command
}

#[test]
fn passphrases_come_from_a_descriptor_a_line_for_each_key() {
    let office = Office::new();
    let [one, two] = ["one", "two"].map(|name| office.key(name));
    encrypt(&one, "first secret");
    encrypt(&two, "second secret");
    let start = |text: &str, keys: &[&KeyPair]| Server::try_start(with_descriptor(&office, text, keys));
    let both =
        start("first secret\nsecond secret\n", &[&one, &two]).unwrap_or_else(|error| panic!("{error}"));
    let ca = Running { server: both };
    assert_eq!(ca.get("/").body.lines().count(), 2);
    assert_eq!(ca.ask("alice", &office.question()).status(), 200);
    assert!(
        start("first secret", &[&one]).is_ok(),
        "the last line may lack its end"
    );

    let wrong = start("another\n", &[&one]).expect_err("a wrong passphrase");
    assert!(
        wrong.stderr.contains("the passphrase of the CA key is wrong"),
        "{wrong}"
    );
    assert!(!wrong.stderr.contains("another"), "{wrong}");
    let missing = office.epithet(&[
        "server",
        "--ca-key",
        &one.path().display().to_string(),
        "--key-passphrase-fd",
        "99",
    ]);
    assert_eq!(missing.code(), Some(1));
    for words in ["--key-passphrase-fd 99", "descriptor 99 is not open", "99<FILE"] {
        assert!(missing.stderr.contains(words), "{missing:?}");
    }
    let nobody = office.epithet(&["server", "--ca-key", &one.path().display().to_string()]);
    assert!(nobody.stderr.contains("no passphrase was given"), "{nobody:?}");
}

#[test]
fn a_passphrase_is_asked_at_the_terminal_and_not_shown() {
    let office = Office::new();
    let key = office.key("ca.key");
    encrypt(&key, "correct horse");
    let screen = office.home.join("screen");
    // `script` gives the program a terminal of its own; what is typed goes through its stdin.
    let mut command = office.home.command(Path::new("script"));
    let run = format!(
        "exec '{EPITHET}' server --listen=127.0.0.1:0 --audit-file /dev/null --ca-key '{}'",
        key.path().display()
    );
    command.args(["-qefc", &run]).arg(&screen).stdin(Stdio::piped());
    let mut daemon = Daemon::start("script", command, None);
    let mut typed = daemon.take_stdin().expect("a pipe");
    let mut seen = 0;
    let mut sees = |text: &str| {
        let found = wait_until(DEADLINE, || {
            let shown = std::fs::read_to_string(&screen).unwrap_or_default();
            shown
                .get(seen..)
                .and_then(|new| new.find(text))
                .map(|at| seen + at + text.len())
        });
        seen = found.unwrap_or_else(|| panic!("{text}: {:?}", std::fs::read_to_string(&screen)));
    };
    use std::io::Write;
    sees("Passphrase of the CA key");
    typed.write_all(b"a mistake\n").expect("a terminal");
    sees("That passphrase is wrong.");
    sees("Passphrase of the CA key");
    typed.write_all(b"correct horse\n").expect("a terminal");
    sees("ready: listening on");
    let shown = std::fs::read_to_string(&screen).expect("a screen");
    assert!(!shown.contains("mistake") && !shown.contains("horse"), "{shown}");
}

#[test]
fn ctrl_c_at_the_question_for_a_passphrase_leaves_at_once_and_shows_again_what_is_typed() {
    let office = Office::new();
    let key = office.key("encrypted");
    encrypt(&key, "secret");
    let line = format!(
        "trap : INT; '{EPITHET}' server --listen=127.0.0.1:0 --ca-key '{}'; echo code=$?; stty -a",
        key.path().display()
    );
    let mut command = office.home.command("script");
    command.args(["-qfc", &line, "/dev/null"]).stdin(Stdio::piped());
    let mut terminal = Daemon::start("a terminal", command, None);
    let mut keyboard = terminal.take_stdin().expect("stdin is a pipe");
    let asked = wait_until(DEADLINE, || {
        terminal
            .stdout()
            .text()
            .contains("Passphrase of the CA key")
            .then_some(())
    });
    asked.unwrap_or_else(|| panic!("it does not ask: {}", terminal.stdout().text()));
    keyboard.write_all(b"\x03").expect("the terminal is there");
    let status = terminal.wait(DEADLINE);
    let screen = terminal
        .stdout()
        .clone()
        .wait_for_end(DEADLINE)
        .unwrap_or_default();
    assert!(status.is_some(), "it does not end: {screen}");
    assert!(
        screen.contains("stopped at the question for the passphrase") && screen.contains("code=1"),
        "{screen}"
    );
    assert!(
        screen.contains(" echo ") && !screen.contains("-echo "),
        "{screen}"
    );
}
