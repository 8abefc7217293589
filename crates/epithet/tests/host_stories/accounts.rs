//! Accounts that sshd keeps out, and those that it lets in: the check says of each what a real login then meets, with PAM
//! and without. The accounts are in a world of their own.

use crate::other_worlds::World;
use crate::stage::Stage;
use epithet_testkit::{Sshd, SshdSettings};
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "epithet-story";
const SECONDS_OF_A_DAY: u64 = 24 * 60 * 60;

/// A machine with one account more, about which the story decides.
struct Machine {
    stage: Stage,
    world: World,
    passwd: PathBuf,
    shadow: PathBuf,
    flags: PathBuf,
}

impl Machine {
    /// `None` where the tests may not make one.
    fn new() -> Option<Self> {
        let stage = Stage::new();
        stage
            .ca
            .certify(&stage.key, "alice@example.com", NAME, 1, "-1m:+10m");
        // The whole folder: tests beside this one may exchange the machine's own files, and a mount on a file goes with it.
        let etc = stage.home.join("etc");
        let copied = Command::new("cp").arg("-a").arg("/etc").arg(&etc).status();
        copied.ok().filter(std::process::ExitStatus::success)?;
        let (passwd, shadow) = (etc.join("passwd"), etc.join("shadow"));
        let flags = stage.home.join("flags");
        std::fs::create_dir(&flags).unwrap();
        let lines = format!(
            "mount --bind {} /etc\nmount -t tmpfs tmpfs /run\nmkdir /run/sshd\nln -s {}/nologin /run/nologin",
            etc.display(),
            flags.display(),
        );
        let world = World::new(&stage.home, &lines)?;
        let machine = Self {
            stage,
            world,
            passwd,
            shadow,
            flags,
        };
        machine.account("*:19000:0:99999:7:::", "/bin/sh");
        Some(machine)
    }

    /// What the account is like: its line of the shadow file from the password on, and its shell.
    fn account(&self, shadow: &str, shell: &str) {
        let with = |file: &Path, line: String| {
            let all = std::fs::read_to_string(file).unwrap();
            let others = all.lines().filter(|line| !line.starts_with(NAME));
            let text: String = others.map(|line| format!("{line}\n")).collect();
            std::fs::write(file, format!("{text}{line}\n")).unwrap();
        };
        with(&self.passwd, format!("{NAME}:x:60123:65534::/:{shell}"));
        with(&self.shadow, format!("{NAME}:{shadow}"));
    }

    fn sshd(&self, more: &str) -> Sshd {
        self.world.start(SshdSettings {
            ca_public_key: Some(self.stage.ca.public_line()),
            more: more.to_owned(),
            ..SshdSettings::default()
        })
    }

    /// The check's reason, if any; a real login has to agree.
    #[track_caller]
    fn reason(&self, sshd: &Sshd) -> Option<String> {
        let config = sshd.folder().join("sshd_config").display().to_string();
        let public = self.stage.ca.public_path().display().to_string();
        let command = self.world.epithet(
            &self.stage,
            &[
                "host",
                "check",
                "--json",
                "--sshd-config",
                &config,
                "--ca-pubkey",
                &public,
                "--user",
                NAME,
            ],
        );
        let report = self.stage.read_check(command);
        let finished = self.stage.ssh(sshd, NAME);
        assert_eq!(
            report["accepts"] == true,
            finished.code() == Some(0),
            "{report}\n{}{}\n{}",
            finished.stdout,
            finished.stderr,
            sshd.log()
        );
        let reason = &report["reason"];
        reason["message"].as_str().map(|message| {
            assert!(!reason["remedy"].as_str().unwrap().is_empty(), "{report}");
            format!("{}: {message}", reason["rule"].as_str().unwrap())
        })
    }
}

/// A day counted from 1970, some days after today.
fn day(after_today: i64) -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_secs() / SECONDS_OF_A_DAY).unwrap() + after_today
}

/// Whether each of the accounts is let in without PAM and with it, or which words say why not.
#[track_caller]
fn holds(machine: &Machine, sshd: &Sshd, shadow: &str, shell: &str, words: Option<&str>) {
    machine.account(shadow, shell);
    let reason = machine.reason(sshd);
    match (&reason, words) {
        (None, None) => {}
        (Some(reason), Some(words)) => assert!(reason.contains(words), "{shadow} {shell}: {reason}"),
        _ => panic!("{shadow} {shell}: {reason:?} and not {words:?}"),
    }
}

#[test]
fn locked_and_ended_accounts_and_their_shells_are_told_apart_as_sshd_does_it() {
    let Some(machine) = Machine::new() else { return };
    let sshd = machine.sshd("UsePAM no\nLogLevel DEBUG1");
    let (yesterday, today) = (day(-1), day(0));
    for (shadow, shell, words) in [
        ("*:19000:0:99999:7:::".to_owned(), "/bin/sh", None),
        (
            "!:19000:0:99999:7:::".to_owned(),
            "/bin/sh",
            Some("account: the account epithet-story is locked"),
        ),
        (
            "!$6$salt$hash:19000:0:99999:7:::".to_owned(),
            "/bin/sh",
            Some("is locked"),
        ),
        ("!*:19000:0:99999:7:::".to_owned(), "/bin/sh", Some("is locked")),
        (
            format!("*:19000:0:99999:7::{yesterday}:"),
            "/bin/sh",
            Some("account: the account epithet-story has ended"),
        ),
        (format!("*:19000:0:99999:7::{today}:"), "/bin/sh", None),
        ("*:0:0:99999:7:::".to_owned(), "/bin/sh", None),
        ("*:10000:0:90:7:5::".to_owned(), "/bin/sh", None),
        (
            "*:19000:0:99999:7:::".to_owned(),
            "/usr/sbin/nologin",
            Some("which lets nobody in"),
        ),
        (
            "*:19000:0:99999:7:::".to_owned(),
            "/bin/false",
            Some("which lets nobody in"),
        ),
        (
            "*:19000:0:99999:7:::".to_owned(),
            "/no/such/shell",
            Some("is not a program"),
        ),
        ("*:19000:0:99999:7:::".to_owned(), "", None),
    ] {
        holds(&machine, &sshd, &shadow, shell, words);
    }
}

#[test]
fn pam_has_a_mind_of_its_own_about_them() {
    let Some(machine) = Machine::new() else { return };
    if !Path::new("/etc/pam.d/sshd").exists() {
        return;
    }
    let sshd = machine.sshd("UsePAM yes");
    let (yesterday, today) = (day(-1), day(0));
    for (shadow, words) in [
        ("*:19000:0:99999:7:::".to_owned(), None),
        ("!:19000:0:99999:7:::".to_owned(), None),
        (format!("*:19000:0:99999:7::{yesterday}:"), Some("has ended")),
        (format!("*:19000:0:99999:7::{today}:"), Some("has ended")),
        (
            "*:0:0:99999:7:::".to_owned(),
            Some("the password of epithet-story has ended"),
        ),
        (
            "*:10000:0:90:7:::".to_owned(),
            Some("the password of epithet-story has ended"),
        ),
        ("*:10000:0:90:7:5::".to_owned(), Some("not changed in time")),
    ] {
        holds(&machine, &sshd, &shadow, "/bin/sh", words);
    }
    let good = "*:19000:0:99999:7:::";
    std::fs::write(machine.flags.join("nologin"), "").unwrap();
    holds(
        &machine,
        &sshd,
        good,
        "/bin/sh",
        Some("nologin: /run/nologin is there"),
    );
    std::fs::remove_file(machine.flags.join("nologin")).unwrap();
    holds(&machine, &sshd, good, "/bin/sh", None);
}

#[test]
fn lists_of_users_and_groups_keep_an_account_out() {
    let Some(machine) = Machine::new() else { return };
    for (more, words) in [
        (
            "DenyUsers epithet-*",
            Some("DenyUsers: DenyUsers epithet-* covers epithet-story"),
        ),
        ("AllowUsers epithet-story@192.0.2.*", Some("AllowUsers: ")),
        ("AllowUsers epithet-story@127.0.0.1", None),
        ("AllowGroups nobody-has-this", Some("AllowGroups: ")),
        ("PubkeyAuthentication no", Some("PubkeyAuthentication: ")),
        ("PermitRootLogin no", None),
    ] {
        let reason = machine.reason(&machine.sshd(more));
        match (&reason, words) {
            (None, None) => {}
            (Some(reason), Some(words)) => assert!(reason.contains(words), "{more}: {reason}"),
            _ => panic!("{more}: {reason:?} and not {words:?}"),
        }
    }
}
