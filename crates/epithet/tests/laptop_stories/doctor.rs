//! `epithet doctor`: a fault is planted, and the one reason has to be that fault, with what to do about it.

use crate::support::Story;
use epithet_testkit::devidp::DevProvider;
use epithet_testkit::{DEADLINE, Daemon, Finished, Home, KeyPair, Sshd, SshdSettings};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// What the doctor says: exit code, and `--json`.
fn diagnosis(story: &Story, words: &[&str]) -> (Option<i32>, Value) {
    diagnosis_by(story.laptop.epithet(), story, words)
}

/// The same by a program that was prepared for it.
pub(crate) fn diagnosis_by(mut program: Command, story: &Story, words: &[&str]) -> (Option<i32>, Value) {
    let ssh_config = story.laptop.home.join(".ssh/config");
    program
        .args(["doctor", "--json", "--ssh-config"])
        .arg(ssh_config)
        .args(words);
    let finished = Finished::of(program, DEADLINE);
    let value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", finished.stdout, finished.stderr));
    (finished.code(), value)
}

/// Asserts that the one reason is this check, says this, and advises this.
#[track_caller]
pub(crate) fn reason(story: &Story, words: &[&str], code: i32, name: &str, said: &str, remedy: &str) {
    is_reason(diagnosis(story, words), code, name, said, remedy);
}

/// The same of what the doctor said.
#[track_caller]
pub(crate) fn is_reason(diagnosis: (Option<i32>, Value), code: i32, name: &str, said: &str, remedy: &str) {
    let (found, value) = diagnosis;
    assert_eq!(found, Some(code), "{value:#}");
    let reason = &value["reason"];
    assert_eq!(reason["name"], name, "{value:#}");
    let text = |key: &str| reason[key].as_str().unwrap_or_default().to_owned();
    assert!(text("said").contains(said), "{said} is not in {reason:#}");
    assert!(text("remedy").contains(remedy), "{remedy} is not in {reason:#}");
}

pub(crate) fn well() -> Story {
    let story = Story::begin();
    story.in_background();
    story
}

#[test]
fn where_all_is_well_it_says_so_up_to_what_sshd_says() {
    let story = well();
    let (code, value) = diagnosis(&story, &["127.0.0.1"]);
    assert_eq!(code, Some(0), "{value:#}");
    assert_eq!(value["verdict"], "ok");
    let names: Vec<_> = value["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    for name in [
        "configuration",
        "ssh",
        "include",
        "broker",
        "run directory",
        "match",
        "open files",
        "hosts",
        "plugin",
        "CA",
        "clock",
        "host",
        "ssh -G",
        "certificate",
        "login",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    let accepted = story.sshd.wait_for_log("Accepted publickey");
    assert!(accepted.contains("ID alice@example.com"), "{accepted}");

    // For people: the marks, and the last line; no colours off a terminal.
    let ssh_config = story.laptop.home.join(".ssh/config").display().to_string();
    let page = story
        .epithet(["doctor", "--ssh-config", &ssh_config, "127.0.0.1"])
        .success()
        .stdout;
    assert!(
        page.ends_with("All is well; so is the way to 127.0.0.1.\n"),
        "{page}"
    );
    assert!(
        page.contains("\u{2713} broker") && !page.contains('\x1b'),
        "{page}"
    );
    assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
}

#[test]
fn nothing_set_up_and_nothing_running() {
    let story = Story::begin();
    reason(
        &story,
        &[],
        2,
        "broker",
        "not running",
        "epithet agent --background",
    );
    std::fs::remove_file(story.laptop.home.join(".epithet/config.yaml")).unwrap();
    reason(
        &story,
        &[],
        2,
        "configuration",
        "nothing is set up yet",
        "epithet setup",
    );
    // For people, the remedy is the end of it.
    let page = story.epithet(["doctor"]).stdout;
    assert!(page.ends_with("try: epithet setup\n"), "{page}");
}

#[test]
fn a_configuration_file_that_is_wrong_or_open_to_others() {
    let story = well();
    let path = story.laptop.home.join(".epithet/config.yaml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    reason(
        &story,
        &[],
        2,
        "configuration",
        "can be written by others",
        "chmod go-w ",
    );
    story
        .laptop
        .home
        .write(".epithet/config.yaml", "agent:\n  ca-urls: x\n");
    reason(&story, &[], 2, "configuration", "config.yaml:2:3", "");
}

#[test]
fn an_include_that_is_missing_or_below_something() {
    let story = well();
    let own = std::fs::read_to_string(story.laptop.home.join(".ssh/config")).unwrap();
    let (include, rest) = own.split_once('\n').unwrap();
    story.laptop.home.write(".ssh/config", rest);
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "include",
        "does not include",
        "epithet setup",
    );
    story
        .laptop
        .home
        .write(".ssh/config", format!("Host elsewhere\n{include}\n{rest}"));
    reason(
        &story,
        &[],
        2,
        "include",
        "line 2 of ~/.ssh/config stands below `Host elsewhere` (line 1)",
        "epithet setup",
    );
    story
        .laptop
        .home
        .write(".ssh/config", format!("IdentityAgent /x\n{include}\n{rest}"));
    reason(
        &story,
        &[],
        2,
        "include",
        "below `IdentityAgent /x`",
        "epithet setup",
    );
}

#[test]
fn settings_of_the_person_s_own_that_shadow_the_agent() {
    let story = well();
    let own = std::fs::read_to_string(story.laptop.home.join(".ssh/config")).unwrap();
    story
        .laptop
        .home
        .write("other.conf", "IdentityAgent /somewhere/agent\n");
    let other = story.laptop.home.join("other.conf").display().to_string();
    story
        .laptop
        .home
        .write(".ssh/config", format!("Include {other}\n{own}"));
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "ssh -G",
        "uses the agent /somewhere/agent",
        "line 1 of ~/.ssh/config",
    );
    story.laptop.home.write(
        ".ssh/config",
        own.replacen("Host 127", "Host 127.0.0.1\n  IdentitiesOnly yes\nHost 127", 1),
    );
    let (_, value) = diagnosis(&story, &["127.0.0.1"]);
    // Where the generated file turns it off itself, all is well.
    if value["verdict"] != "ok" {
        reason(
            &story,
            &["127.0.0.1"],
            2,
            "ssh -G",
            "IdentitiesOnly yes",
            "Match final host 127.0.0.1",
        );
    }
    story
        .laptop
        .home
        .write(".ssh/config", format!("{own}\nNoSuchKeyword yes\n"));
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "ssh -G",
        "bad configuration option",
        "ssh -G 127.0.0.1",
    );
}

#[test]
fn a_run_directory_that_others_can_enter() {
    let story = well();
    let dir = story.run_dir("");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    reason(
        &story,
        &[],
        2,
        "run directory",
        "open to others",
        "chmod go-rwx ~/.epithet/run/default",
    );
}

#[test]
fn a_plugin_that_is_not_there_or_that_fails() {
    let story = Story::begin();
    story.configure(story.site.url(), "no-such-login --now");
    story.in_background();
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "plugin",
        "`no-such-login` was not found",
        "whole path",
    );

    let failing = story.laptop.home.join("failing");
    let said = "#!/bin/sh\necho 'the smart card is missing' >&2\nexit 3\n";
    epithet_testkit::plugin_script(story.laptop.home.path(), "failing", said);
    story.configure(story.site.url(), &failing.display().to_string());
    story.epithet(["agent", "stop"]).success();
    story.in_background();
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "login",
        "the smart card is missing",
        "",
    );
    reason(
        &story,
        &["--plugin"],
        2,
        "plugin check",
        "",
        "epithet plugin check -- ",
    );
}

#[test]
fn a_ca_that_is_away() {
    let story = Story::begin();
    let nobody = format!("http://127.0.0.1:{}", epithet_testkit::free_port());
    story.configure(&nobody, &story.plugin.display().to_string());
    story.in_background();
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "CA",
        "refused",
        "curl -sS http://127.0.0.1",
    );
}

/// Answers every request with a CA's key and a time that is this much off.
fn ca_with_a_clock(ahead: i64) -> String {
    let home = Home::new();
    let key = KeyPair::generate(home.path(), "ca.key").public_line();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let now = jiff::Timestamp::now().as_second() + ahead;
            let date = jiff::Timestamp::from_second(now)
                .expect("a time")
                .strftime("%a, %d %b %Y %H:%M:%S GMT")
                .to_string();
            let body = format!("{}\n", key.trim_end());
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

#[test]
fn clocks_that_are_apart() {
    let story = Story::begin();
    for (ahead, code, said) in [
        (600, 2, "behind that of the CA"),
        (-600, 2, "ahead of that of the CA"),
        (45, 1, "behind"),
    ] {
        story.configure(&ca_with_a_clock(ahead), &story.plugin.display().to_string());
        story.in_background();
        reason(&story, &[], code, "clock", said, "timedatectl");
        story.epithet(["agent", "stop"]).success();
    }
}

#[test]
fn a_provider_that_is_not_the_one_that_was_pinned_or_that_is_away() {
    let story = Story::begin();
    let config = json!({"agent": {"ca-url": story.site.url(), "match": ["127.0.0.*"]}});
    story
        .laptop
        .home
        .write(".epithet/config.yaml", config.to_string());
    story.in_background();
    let (code, value) = diagnosis(&story, &[]);
    assert_eq!(code, Some(0), "{value:#}");
    assert!(
        value["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|check| check["name"] == "provider"),
        "{value:#}"
    );

    let pins = json!({format!("{}/", story.site.url().trim_end_matches('/')): {"issuer": "https://before.example.com", "client_id": "x"}});
    story.laptop.home.write(".epithet/pins", pins.to_string());
    reason(
        &story,
        &[],
        2,
        "pin",
        "https://before.example.com",
        "epithet trust http://127.0.0.1",
    );

    std::fs::remove_file(story.laptop.home.join(".epithet/pins")).unwrap();
    let issuer = story.provider.issuer().to_owned();
    let story = without_provider(story);
    reason(&story, &[], 2, "provider", &issuer, "epithet auth oidc probe");
}

/// Another provider takes the story's place, and the one that the site names ends.
fn without_provider(mut story: Story) -> Story {
    let other = DevProvider::start(epithet_testkit::devidp::Settings::default()).expect("a port");
    drop(std::mem::replace(&mut story.provider, other));
    story
}

#[test]
fn a_host_that_is_none_of_ours() {
    let story = well();
    story.laptop.ssh_config("Host web\n  HostName db.example.org\n");
    reason(
        &story,
        &["web"],
        2,
        "host",
        "db.example.org, which is what `HostName`",
        "match:",
    );
    reason(
        &story,
        &["other.example.com"],
        2,
        "host",
        "none of the hosts",
        "match:",
    );
}

#[test]
fn a_person_whom_policy_does_not_let_in() {
    let story = well();
    reason(
        &story,
        &["nobody@127.0.0.1"],
        2,
        "policy",
        "access denied by policy",
        "policy server",
    );
}

#[test]
fn a_token_that_the_ca_does_not_accept() {
    let story = Story::begin();
    epithet_testkit::plugin_script(
        story.laptop.home.path(),
        "stale",
        "#!/bin/sh\nprintf stale-token\n",
    );
    story.configure(
        story.site.url(),
        &story.laptop.home.join("stale").display().to_string(),
    );
    story.in_background();
    reason(&story, &["127.0.0.1"], 2, "token", "did not accept the token", "");
}

/// Another host at the same address, known or not.
fn host(story: &Story, settings: SshdSettings, known: bool) -> Sshd {
    let sshd = Sshd::start(settings);
    if known {
        story.laptop.knows(&sshd, "");
    } else {
        story.laptop.ssh_config(&format!(
            "Host 127.0.0.*\n  Port {}\n  User {}\n",
            sshd.port(),
            story.laptop.home.user().name()
        ));
    }
    sshd
}

#[test]
fn a_host_that_does_not_trust_the_ca() {
    let story = well();
    let _sshd = host(&story, SshdSettings::default(), true);
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "login",
        "does not accept the certificate",
        &story.site.fingerprint(),
    );

    let other = story.laptop.other_key.public_line();
    let sshd = Sshd::start(SshdSettings {
        authorized_keys: Some(other),
        ..SshdSettings::default()
    });
    story.laptop.knows(&sshd, &story.laptop.other_identity());
    reason(
        &story,
        &["127.0.0.1"],
        1,
        "login",
        "but not with the certificate",
        "trustedusercakeys",
    );
}

#[test]
fn a_host_that_does_not_listen_or_whose_key_is_not_the_known_one() {
    let story = well();
    let port = epithet_testkit::free_port();
    story
        .laptop
        .ssh_config(&format!("Host 127.0.0.*\n  Port {port}\n"));
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "network",
        &format!("nothing listens on port {port}"),
        "sshd",
    );
}

#[test]
fn a_host_key_that_is_unknown_or_has_changed() {
    let story = well();
    story.laptop.home.write(".ssh/known_hosts", "");
    let sshd = host(&story, SshdSettings::default(), false);
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "host key",
        "not known here yet",
        "ssh 127.0.0.1",
    );
    let changed = format!("[127.0.0.1]:{} {}\n", sshd.port(), story.sshd.host_key());
    story.laptop.home.write(".ssh/known_hosts", changed);
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "host key",
        "another host key",
        "ssh-keygen -f",
    );
}

#[test]
fn a_host_that_two_profiles_handle() {
    let story = well();
    let other = json!({"agent": {"name": "work", "ca-url": story.site.url(), "auth": "true", "match": ["127.0.0.1"]}});
    let path = story
        .laptop
        .home
        .write("work.yaml", other.to_string())
        .display()
        .to_string();
    story
        .epithet(["agent", "--background", "--config", &path])
        .success();
    reason(
        &story,
        &[],
        1,
        "hosts",
        "127.0.0.* of profile \"default\" and 127.0.0.1 of profile \"work\" both cover 127.0.0.1; ssh asks \"default\"",
        "--match",
    );
    story.epithet(["agent", "stop", "--name", "work"]).success();

    // Neither has a host of the other's as an example, and still they cross.
    let other = json!({"agent": {"name": "work", "ca-url": story.site.url(), "auth": "true", "match": ["{db,*}.[0-9].1"]}});
    story.laptop.home.write("work.yaml", other.to_string());
    story
        .epithet(["agent", "--background", "--config", &path])
        .success();
    let crossing = "both cover 127.0.0.1;";
    reason(&story, &["--name", "work"], 1, "hosts", crossing, "--match");
    story.epithet(["agent", "stop", "--name", "work"]).success();
}

#[test]
fn a_broker_that_hangs() {
    let story = well();
    let pid = story.status()["pid"].as_u64().expect("it runs").to_string();
    let signal = |name: &str| {
        let mut command = story.laptop.home.command("kill");
        command.args([name, &pid]);
        Finished::of(command, DEADLINE).success();
    };
    signal("-STOP");
    let (code, value) = diagnosis(&story, &["127.0.0.1"]);
    let said = value["reason"]["said"].as_str().unwrap_or_default();
    assert!(said.contains(&format!("(process {pid})")), "{value:#}");
    // It is ended by the process id in its lock, and woken for that.
    story.epithet(["agent", "stop"]).success();
    assert_eq!(
        (code, &value["reason"]["name"]),
        (Some(2), &"broker".into()),
        "{value:#}"
    );
    assert!(
        value["reason"]["remedy"]
            .as_str()
            .unwrap()
            .contains("epithet agent stop"),
        "{value:#}"
    );
}

#[test]
fn looking_starts_no_login_and_asks_no_ca_for_a_certificate() {
    let story = well();
    diagnosis(&story, &[]);
    assert!(story.site.decisions().is_empty());
    assert_eq!(story.status()["token"], "none");
    // What ssh prints with the answer assumed is no login either.
    let ssh_config = story.laptop.home.join(".ssh/config");
    let mut command = story.laptop.home.command("ssh");
    command
        .arg("-F")
        .arg(ssh_config)
        .args(["-G", "127.0.0.1"])
        .env("EPITHET_MATCH_DRY_RUN", "1");
    let mut printed = Daemon::start("ssh -G", command, None);
    printed.wait(DEADLINE).expect("it ends");
    assert!(
        printed
            .stdout()
            .wait_for_end(DEADLINE)
            .unwrap_or_default()
            .contains("/agent/")
    );
    assert_eq!(story.status()["token"], "none");
}
