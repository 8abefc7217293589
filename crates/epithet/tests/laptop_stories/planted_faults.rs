//! More faults that are planted for `epithet doctor`: versions that do not fit, clocks, limits, files that ssh refuses.

use crate::doctor::{diagnosis_by, is_reason, reason, well};
use crate::support::{Story, program};
use epithet_testkit::{DEADLINE, Daemon, Finished, plugin_script, search_path, wait_until};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// `epithet` with the home's own programs first in its path.
pub(crate) fn with_own_programs(story: &Story) -> Command {
    let mut command = story.laptop.epithet();
    let home = story.laptop.home.path().display();
    command.env("PATH", format!("{home}:{}", search_path().display()));
    command
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a file of ours");
}

#[test]
fn an_ssh_that_is_too_old_for_the_generated_file_or_for_forwarding() {
    let story = well();
    let pretend = |version: &str| {
        let script = format!("#!/bin/sh\necho 'OpenSSH_{version}p1, OpenSSL 1.1.1' >&2\n");
        plugin_script(story.laptop.home.path(), "ssh", &script);
        diagnosis_by(with_own_programs(&story), &story, &[])
    };
    for old in ["6.7", "7.9"] {
        let said = format!("OpenSSH {old} does not understand the generated configuration");
        is_reason(pretend(old), 2, "ssh", &said, "install OpenSSH 8.0 or later");
    }
    for old in ["8.0", "8.2", "8.4"] {
        let said = "does not tell agents which host";
        is_reason(pretend(old), 1, "ssh", said, "8.9 or later");
    }
}

#[test]
fn a_host_whose_agent_ssh_finds_by_user_and_host_is_looked_at_as_any_other() {
    let story = Story::begin();
    let old = "#!/bin/sh\necho 'OpenSSH_8.2p1, OpenSSL 1.1.1' >&2\n";
    plugin_script(story.laptop.home.path(), "ssh", old);
    let mut broker = with_own_programs(&story);
    broker.args(["agent", "--background"]);
    Finished::of(broker, DEADLINE).success();
    let file = std::fs::read_to_string(story.run_dir("ssh-config.conf")).unwrap();
    assert!(file.contains(" --by-name "), "{file}");

    let (code, value) = diagnosis_by(story.laptop.epithet(), &story, &["127.0.0.1"]);
    assert_eq!((code, &value["verdict"]), (Some(0), &"ok".into()), "{value:#}");
}

#[test]
fn an_include_in_a_block_counts_when_the_block_is_for_every_host() {
    let story = well();
    let own = std::fs::read_to_string(story.laptop.home.join(".ssh/config")).unwrap();
    let (include, rest) = own.split_once('\n').unwrap();
    let write = |text: String| story.laptop.home.write(".ssh/config", text);
    // As ssh itself sees it: the host's whole way is looked at, too.
    write(format!("Host *\n  ServerAliveInterval 60\n\n{include}\n{rest}"));
    let (code, value) = diagnosis_by(story.laptop.epithet(), &story, &["127.0.0.1"]);
    assert_eq!((code, &value["verdict"]), (Some(0), &"ok".into()), "{value:#}");

    write(format!(
        "Host *\n  IdentityAgent /somewhere/agent\n{include}\n{rest}"
    ));
    let said = "stands below `IdentityAgent /somewhere/agent` (line 2), so ssh uses that agent";
    reason(&story, &["127.0.0.1"], 2, "include", said, "epithet setup");
    write(format!("Host *\nHost elsewhere\n  User x\n\n{include}\n{rest}"));
    let said = "stands below `Host elsewhere` (line 2), so it counts for those hosts only";
    reason(&story, &["127.0.0.1"], 2, "include", said, "epithet setup");
}

#[test]
fn an_ssh_configuration_that_ssh_refuses() {
    let story = well();
    let path = story.laptop.home.join(".ssh/config");
    mode(&path, 0o664);
    let said = "can be written by others (mode 0664), so ssh refuses every connection";
    reason(&story, &[], 2, "include", said, "chmod go-w ~/.ssh/config");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    reason(
        &story,
        &[],
        2,
        "include",
        "is a directory",
        "ls -ld ~/.ssh/config",
    );
}

#[test]
fn a_directory_where_a_configuration_file_should_be() {
    let story = Story::begin();
    let path = story.laptop.home.join(".epithet/config.yaml");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let said = "config.yaml is a directory";
    reason(&story, &[], 2, "configuration", said, "ls -la ");
    // And everything else that reads it says so as well.
    let finished = story.epithet(["agent", "--ca-url", "https://ca.example.com"]);
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains(said), "{}", finished.stderr);
}

/// Answers each request of a provider's configuration and keys with a time that is this much off.
fn provider_with_a_clock(ahead: i64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let issuer = format!("http://{}", listener.local_addr().expect("an address"));
    let document = json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"), "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"), "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"], "code_challenge_methods_supported": ["S256"],
    });
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 4096];
            let length = stream.read(&mut asked).unwrap_or(0);
            let keys = asked[..length].starts_with(b"GET /keys");
            let body = if keys {
                json!({"keys": []})
            } else {
                document.clone()
            }
            .to_string();
            let now = jiff::Timestamp::now().as_second() + ahead;
            let date = jiff::Timestamp::from_second(now).expect("a time");
            let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT");
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    issuer
}

#[test]
fn a_provider_whose_clock_is_another() {
    let story = Story::begin();
    for (ahead, code, said) in [
        (0, 0, ""),
        (900, 2, "behind that of the provider"),
        (-900, 2, "ahead of that of the provider"),
    ] {
        let issuer = provider_with_a_clock(ahead);
        let auth = format!("epithet auth oidc --issuer {issuer} --client-id x");
        story.configure(story.site.url(), &auth);
        let mut start = with_own_programs(&story);
        start.args(["agent", "--background"]);
        std::os::unix::fs::symlink(program(), story.laptop.home.join("epithet")).ok();
        Finished::of(start, DEADLINE).success();
        let found = diagnosis_by(with_own_programs(&story), &story, &[]);
        if code == 0 {
            assert_eq!(found.0, Some(0), "{:#}", found.1);
        } else {
            is_reason(found, code, "clock", said, "timedatectl");
        }
        story.epithet(["agent", "stop"]).success();
    }
}

/// A broker of another version: it holds the lock, and says who it is.
fn broker_of_version(story: &Story, version: &str) -> std::fs::File {
    let run = story.run_dir("");
    std::fs::create_dir_all(&run).unwrap();
    for folder in [&run, &story.laptop.home.join(".epithet/run")] {
        mode(folder, 0o700);
    }
    let lock = std::fs::File::create(story.run_dir("lock")).unwrap();
    lock.lock().unwrap();
    let socket = story.run_dir("broker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    mode(&socket, 0o600);
    let own = story.site.url().to_owned();
    let answer = json!({"inspect": {
        "version": version, "pid": std::process::id(), "profile": "default", "socketPath": socket, "agentSocketDir": run.join("agent"),
        "hosts": {"patterns": ["127.0.0.*"], "source": "configuration"}, "caEndpoints": [{"url": own, "state": "closed"}], "agents": [],
    }, "result": {"allow": true}});
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let _ = writeln!(stream, "{answer}");
        }
    });
    lock
}

#[test]
fn a_broker_of_another_version_than_the_program() {
    let story = Story::begin();
    let _lock = broker_of_version(&story, "0.0.7");
    let (code, value) = diagnosis_by(story.laptop.epithet(), &story, &[]);
    assert!(code.is_some_and(|code| code > 0), "{value:#}");
    let checks = value["checks"].as_array().unwrap();
    let broker = checks.iter().find(|check| check["name"] == "broker").unwrap();
    assert_eq!(broker["verdict"], "warning", "{value:#}");
    let said = broker["said"].as_str().unwrap();
    assert!(
        said.contains("it is version 0.0.7, and this program is "),
        "{said}"
    );
    assert!(
        broker["remedy"]
            .as_str()
            .unwrap()
            .contains("epithet agent stop && epithet agent --background"),
        "{broker:#}"
    );
}

#[test]
fn a_match_program_of_another_version_or_none_any_more() {
    let mut story = Story::begin();
    story.laptop.program = story.laptop.home.install(program());
    let script = |version: &str| {
        let script = format!("#!/bin/sh\n[ \"$1\" = --version ] || exit 0\necho 'epithet-match {version}'\n");
        plugin_script(story.laptop.home.path(), "epithet-match", &script)
    };
    let small = script(env!("CARGO_PKG_VERSION"));
    story.in_background();
    let (code, value) = diagnosis_by(story.laptop.epithet(), &story, &[]);
    assert_eq!(code, Some(0), "{value:#}");

    script("0.0.7");
    let said = "epithet-match, which is version 0.0.7, and the broker is version";
    reason(
        &story,
        &[],
        1,
        "match",
        said,
        "install `epithet` and `epithet-match`",
    );
    // One that is older than the question.
    plugin_script(story.laptop.home.path(), "epithet-match", "#!/bin/sh\nexit 80\n");
    reason(
        &story,
        &[],
        1,
        "match",
        "which is of another version",
        "epithet agent stop",
    );

    std::fs::remove_file(small).unwrap();
    reason(
        &story,
        &[],
        2,
        "match",
        "which is not there any more",
        "epithet agent stop && epithet agent --background",
    );
    std::fs::remove_file(story.run_dir("ssh-config.conf")).unwrap();
    reason(
        &story,
        &[],
        2,
        "match",
        "ssh-config.conf is not there",
        "epithet agent stop",
    );
}

#[test]
fn a_broker_that_may_open_too_few_files() {
    let story = Story::begin();
    let mut limited = story.laptop.home.command("sh");
    limited.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]);
    limited.arg(program()).args(["agent", "--background"]);
    Finished::of(limited, DEADLINE).success();
    let taken = (0..64).take_while(|number| {
        let mut question = Command::new(env!("CARGO_BIN_EXE_epithet-match"));
        question.args(["--host", "127.0.0.1", "--port", "22", "--user", "root", "--hash"]);
        question
            .arg(format!("{number:040x}"))
            .arg("--broker")
            .arg(story.run_dir("broker.sock"));
        Finished::of(question, DEADLINE).code() == Some(0)
    });
    assert!((1..64).contains(&taken.count()), "the limit is reached");
    let said = "may open 64 files only, which is enough for";
    reason(&story, &[], 2, "open files", said, "ulimit -n 8192");
}

#[test]
fn where_the_host_is_the_reason_its_own_check_is_named() {
    let story = well();
    let sshd = epithet_testkit::Sshd::start(epithet_testkit::SshdSettings::default());
    story.laptop.knows(&sshd, "");
    let check = format!("as root: epithet host check --ca-url {}", story.site.url());
    reason(
        &story,
        &["127.0.0.1"],
        2,
        "login",
        "does not accept the certificate",
        &check,
    );
}

#[test]
fn a_profile_is_looked_at_by_its_own_section() {
    let story = Story::begin();
    let config = json!({"profiles": {"work": {"ca-url": story.site.url(), "auth": "no-such-login", "match": ["127.0.0.*"]}}});
    story
        .laptop
        .home
        .write(".epithet/config.yaml", config.to_string());
    reason(
        &story,
        &[],
        2,
        "configuration",
        "nothing is set up yet",
        "epithet setup",
    );
    reason(
        &story,
        &["--name", "work"],
        2,
        "broker",
        "not running",
        "epithet agent --background --name work",
    );
    let (_, value) = diagnosis_by(story.laptop.epithet(), &story, &["--name", "work"]);
    let plugin = value["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["name"] == "plugin");
    assert_eq!(plugin.unwrap()["verdict"], "broken", "{value:#}");
}

/// An ssh that only says what it would do: this agent for every host.
fn ssh_that_uses(story: &Story, agent: &Path) {
    let user = story.laptop.home.user().name();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -V ] && {{ echo 'OpenSSH_9.6p1, OpenSSL' >&2; exit; }}\n\
         for word in \"$@\"; do [ \"$word\" = -G ] && {{ printf 'hostname 127.0.0.1\\nport 22\\nuser {user}\\n\
         identityagent {}\\npubkeyacceptedalgorithms ssh-ed25519-cert-v01@openssh.com\\n'; exit; }}; done\nexit 255\n",
        agent.display()
    );
    plugin_script(story.laptop.home.path(), "ssh", &script);
}

#[test]
fn with_a_tag_the_hosts_are_those_for_which_ssh_uses_the_broker_s_agent() {
    let story = Story::begin();
    let config = json!({"agent": {"ca-url": story.site.url(), "auth": story.plugin.display().to_string(), "tag": "work"}});
    story
        .laptop
        .home
        .write(".epithet/config.yaml", config.to_string());
    let ours = story.run_dir("agent").join("a".repeat(40));
    ssh_that_uses(&story, &ours);
    let mut broker = with_own_programs(&story);
    broker.args(["agent", "--background"]);
    Finished::of(broker, DEADLINE).success();
    let (_, value) = diagnosis_by(with_own_programs(&story), &story, &["web"]);
    let checks = value["checks"].as_array().unwrap();
    let host = checks.iter().find(|check| check["name"] == "host").unwrap();
    assert_eq!(
        host["said"], "127.0.0.1 is handled: it has the tag work",
        "{value:#}"
    );
    let page = story.epithet(["agent", "status"]).success().stdout;
    assert!(page.contains("those with the tag work\n"), "{page}");

    ssh_that_uses(&story, Path::new("/somewhere/agent"));
    let found = diagnosis_by(with_own_programs(&story), &story, &["web"]);
    is_reason(
        found,
        2,
        "host",
        "web does not have the tag work",
        "ssh -P work web",
    );
}

#[test]
fn a_host_with_a_tag_is_followed_to_its_end_by_an_ssh_that_knows_tags() {
    if epithet_testkit::ssh_version() < (9, 4) {
        return;
    }
    let story = Story::begin();
    let config = json!({"agent": {"ca-url": story.site.url(), "auth": story.plugin.display().to_string(), "tag": "work"}});
    story
        .laptop
        .home
        .write(".epithet/config.yaml", config.to_string());
    story.in_background();
    let found = diagnosis_by(story.laptop.epithet(), &story, &["127.0.0.1"]);
    is_reason(
        found,
        2,
        "host",
        "does not have the tag work",
        "ssh -P work 127.0.0.1",
    );
    story.laptop.knows(&story.sshd, "  Tag work\n");
    let (code, value) = diagnosis_by(story.laptop.epithet(), &story, &["127.0.0.1"]);
    assert_eq!((code, &value["verdict"]), (Some(0), &"ok".into()), "{value:#}");
}

#[test]
fn a_profile_whose_host_another_one_is_asked_about_first() {
    let story = well();
    let other = json!({"agent": {"name": "work", "ca-url": story.site.url(), "auth": "true", "match": ["127.0.0.1"]}});
    let path = story.laptop.home.write("work.yaml", other.to_string());
    let path = path.display().to_string();
    story
        .epithet(["agent", "--background", "--config", &path])
        .success();
    let said = "the profile \"default\" is asked about 127.0.0.1 first";
    let words = ["--name", "work", "127.0.0.1"];
    let found = diagnosis_by(story.laptop.epithet(), &story, &words);
    story.epithet(["agent", "stop", "--name", "work"]).success();
    is_reason(found, 2, "ssh -G", said, "give each profile hosts of its own");
}

#[test]
fn an_ssh_that_is_told_to_show_no_key() {
    let story = well();
    for (setting, said) in [
        (
            "PubkeyAuthentication no",
            "`PubkeyAuthentication no` holds for 127.0.0.1",
        ),
        (
            "PreferredAuthentications password",
            "`PreferredAuthentications` leaves out publickey",
        ),
    ] {
        story.laptop.knows(&story.sshd, &format!("  {setting}\n"));
        let remedy = format!("(`{setting}`)");
        reason(&story, &["127.0.0.1"], 2, "ssh -G", said, &remedy);
    }
}

/// Answers every request with a page, as a network does that wants to be logged in to.
fn portal() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let page = "<!DOCTYPE html><html><body>Welcome to the hotel</body></html>";
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            );
        }
    });
    url
}

#[test]
fn a_network_that_answers_with_a_page_of_its_own_is_the_reason_not_what_the_ca_has_not_said() {
    let story = Story::begin();
    let url = portal();
    let config = json!({"agent": {"ca-url": url, "auth": story.plugin.display().to_string()}});
    story
        .laptop
        .home
        .write(".epithet/config.yaml", config.to_string());
    story.in_background();
    for words in [&[][..], &["127.0.0.1"]] {
        reason(&story, words, 2, "CA", "web page", "curl -sS ");
    }
    let failing = wait_until(DEADLINE, || {
        let page = story.epithet(["agent", "status"]).success().stdout;
        let says_so = page.contains("web page") && !page.contains("healthy");
        says_so.then_some(())
    });
    failing.expect("the status says what the CA answered");
}

#[test]
fn a_login_that_failed_is_the_reason_also_while_nobody_may_start_another() {
    let story = Story::begin();
    let script = "#!/bin/sh\necho 'no network today' >&2\nexit 3\n";
    let plugin = plugin_script(story.laptop.home.path(), "failing", script);
    story.configure(story.site.url(), &plugin.display().to_string());
    story.in_background();
    let failed = "the auth plugin exited with status 3";
    // The second is too soon.
    for _ in 0..2 {
        let found = diagnosis_by(story.laptop.epithet(), &story, &["127.0.0.1"]);
        let said = found.1["reason"]["said"].as_str().unwrap_or_default().to_owned();
        assert!(said.contains("no network today"), "{said}");
        is_reason(found, 2, "login", failed, "");
    }
    let login = story.epithet(["login"]);
    for part in ["the last login failed: ", failed, "no network today"] {
        assert!(login.stderr.contains(part), "{login:?}");
    }
    assert!(!login.stderr.contains("`epithet login`"), "{login:?}");
}

#[test]
fn a_login_that_failed_is_no_reason_any_more_when_looking_has_logged_in() {
    let story = Story::begin();
    let token = story.laptop.home.join("token");
    let away = story.laptop.home.join("token.away");
    story.in_background();
    std::fs::rename(&token, &away).unwrap();
    let ssh = story.laptop.run_ssh(["127.0.0.1", "true"]);
    assert_eq!(ssh.code(), Some(255), "{ssh:?}");
    reason(&story, &[], 1, "plugin", "the last login failed", "epithet login");
    std::fs::rename(&away, &token).unwrap();
    let well = wait_until(DEADLINE, || {
        let (code, value) = diagnosis_by(story.laptop.epithet(), &story, &["127.0.0.1"]);
        // Not before the pause after a failure is over.
        let too_soon = value.to_string().contains("may start one again only in");
        (!too_soon).then_some((code, value))
    });
    let (code, value) = well.expect("the pause ends");
    assert_eq!((code, &value["verdict"]), (Some(0), &"ok".into()), "{value:#}");
}

#[test]
fn a_broker_that_would_not_start_again() {
    let story = well();
    let path = story.laptop.home.join(".epithet/config.yaml");
    let config = json!({"agent": {"ca-url": story.site.url(), "ca-timeout": "0s"}});
    story
        .laptop
        .home
        .write(".epithet/config.yaml", config.to_string());
    let said = "would not start again: --ca-timeout must be longer than 0s";
    reason(&story, &[], 1, "configuration", said, "correct the setting");
    std::fs::remove_file(path).unwrap();
    let said = "no file names a CA any more";
    reason(&story, &[], 1, "configuration", said, "epithet setup");
    story.epithet(["agent", "stop"]).success();

    // One that was told by flags needs no file.
    let told = ["agent", "--background", "--match", "127.0.0.*", "--ca-url"];
    let plugin = story.plugin.display().to_string();
    let words = told.iter().copied().chain([story.site.url(), "--auth", &plugin]);
    story.epithet(words).success();
    let (code, value) = diagnosis_by(story.laptop.epithet(), &story, &[]);
    assert_eq!(code, Some(0), "{value:#}");
}

#[test]
fn what_is_tried_ends_with_whoever_looks() {
    let story = well();
    let agent = story.run_dir("agent").join("a".repeat(40));
    ssh_that_uses(&story, &agent);
    let script = std::fs::read_to_string(story.laptop.home.join("ssh")).unwrap();
    let pid = story.laptop.home.join("pid");
    let hangs = format!(
        "sleep 600 & echo $! >'{0}.new'; mv '{0}.new' '{0}'; wait\n",
        pid.display()
    );
    plugin_script(
        story.laptop.home.path(),
        "ssh",
        &script.replace("exit 255\n", &hangs),
    );
    let mut command = with_own_programs(&story);
    let ssh_config = story.laptop.home.join(".ssh/config");
    command
        .args(["doctor", "--ssh-config"])
        .arg(ssh_config)
        .arg("web");
    let temporary = story.laptop.home.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    command.env("TMPDIR", &temporary);
    let mut doctor = Daemon::start("doctor", command, None);
    let started = wait_until(DEADLINE, || std::fs::read_to_string(&pid).ok());
    let started = started.expect("it tries").trim().to_owned();
    doctor.signal(rustix::process::Signal::INT);
    doctor.wait(DEADLINE).expect("it ends");
    // A process that is gone, or that nobody has asked about yet.
    let gone = wait_until(DEADLINE, || {
        let state = std::fs::read_to_string(format!("/proc/{started}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    });
    gone.expect("what it started is gone");
    assert_eq!(std::fs::read_dir(temporary).unwrap().count(), 0);
}
