//! Keys that a CA publishes: fetched, compared, and its clock with them.

use crate::stage::{EtcSsh, Stage};
use epithet_testkit::{DEADLINE, Finished, KeyPair, Server, wait_until};
use jiff::{Timestamp, ToSpan};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

/// Answers every request with this body, as of a time so many seconds from now.
fn answering(status: &str, body: String, seconds: i64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let status = status.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let date = (Timestamp::now() + seconds.seconds()).strftime("%a, %d %b %Y %H:%M:%S GMT");
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ndate: {date}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

#[test]
fn ctrl_c_ends_it_while_a_ca_does_not_answer() {
    let (stage, etc) = (
        Stage::new(),
        EtcSsh::new("Include {folder}/sshd_config.d/*.conf\n"),
    );
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let folder = etc.path().display().to_string();
    let mut setup = stage
        .epithet(&["host", "setup", "--ca-url", &url, "--sshd-config-dir", &folder])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("epithet starts");
    let _asked = listener.accept().expect("it asks the CA");
    let pid = rustix::process::Pid::from_child(&setup);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is there");
    let ended = wait_until(DEADLINE, || setup.try_wait().expect("it can be waited for"));
    let _ = setup.kill();
    assert_eq!(ended.and_then(|status| status.signal()), Some(2), "{ended:?}");
}

#[test]
fn a_real_ca_s_key_is_fetched_shown_and_trusted_once_its_fingerprint_was_named() {
    let (stage, etc) = (
        Stage::new(),
        EtcSsh::new("Include {folder}/sshd_config.d/*.conf\n"),
    );
    let key = stage.ca.path().display().to_string();
    let arguments = [
        "ca",
        "--listen=127.0.0.1:0",
        "--policy=http://127.0.0.1:1",
        "--key",
        &key,
    ];
    let ca = Server::start(Path::new(crate::stage::EPITHET), &stage.home, arguments);
    let folder = etc.path().display().to_string();
    let setup = |more: &[&str]| {
        let mut command = stage.epithet(&[
            "host",
            "setup",
            "--sshd-config-dir",
            &folder,
            "--ca-url",
            ca.url(),
        ]);
        command.args(more);
        Finished::of(command, DEADLINE)
    };
    let shown = setup(&[]).success();
    assert!(shown.stdout.contains(&format!(
        "{} epithet {}/",
        stage.ca.public_line().rsplit_once(' ').unwrap().0,
        ca.url()
    )));
    let before = etc.files();
    let unasked = setup(&["--apply"]);
    assert_eq!(unasked.code(), Some(1));
    let right = format!("--fingerprint {}", stage.ca.fingerprint());
    assert!(unasked.stderr.contains(&right), "{}", unasked.stderr);
    let other = KeyPair::generate(stage.home.path(), "other").fingerprint();
    let wrong = setup(&["--apply", "--fingerprint", &other]);
    assert_eq!(wrong.code(), Some(1));
    assert!(
        wrong.stderr.contains("no --fingerprint names"),
        "{}",
        wrong.stderr
    );
    assert_eq!(etc.files(), before);
    setup(&["--apply", "--fingerprint", &stage.ca.fingerprint()]).success();
    assert!(stage.logs_in(&etc.start()));
    let report = stage.check_with(
        &etc.config(),
        &["--ca-url", ca.url(), "--user", stage.user.name()],
    );
    assert_eq!(report["accepts"], true, "{report}");
    assert!(
        report["clock_ahead_seconds"].as_i64().unwrap().abs() < 30,
        "{report}"
    );
}

#[test]
fn a_change_of_keys_reaches_the_host_by_running_setup_again() {
    let (stage, etc) = (
        Stage::new(),
        EtcSsh::new("Include {folder}/sshd_config.d/*.conf\n"),
    );
    let next = Stage::new();
    let file = stage.home.join("published");
    let folder = etc.path().display().to_string();
    let publish = |keys: &[&KeyPair]| {
        let lines: Vec<_> = keys.iter().map(|key| key.public_line() + "\n").collect();
        std::fs::write(&file, lines.concat()).unwrap();
        let mut command = stage.epithet(&[
            "host",
            "setup",
            "--apply",
            "--sshd-config-dir",
            &folder,
            "--ca-pubkey",
        ]);
        command.arg(&file);
        Finished::of(command, DEADLINE).success();
    };
    publish(&[&stage.ca]);
    let sshd = etc.start();
    assert_eq!((stage.logs_in(&sshd), next.logs_in(&sshd)), (true, false));
    publish(&[&stage.ca, &next.ca]);
    assert_eq!((stage.logs_in(&sshd), next.logs_in(&sshd)), (true, true));
    publish(&[&next.ca]);
    assert_eq!((stage.logs_in(&sshd), next.logs_in(&sshd)), (false, true));
}

/// What `epithet host setup --apply` says on a host like this one, in a folder of its own.
fn applied(stage: &Stage, etc: &EtcSsh, from: &Path, ca: [&str; 2]) -> Finished {
    let folder = etc.path().display().to_string();
    let mut command = stage.epithet(&["host", "setup", "--apply", "--sshd-config-dir", &folder]);
    command.args(ca).current_dir(from);
    Finished::of(command, DEADLINE).success()
}

#[test]
fn a_key_that_the_ca_does_not_publish_is_noted_or_goes_wherever_it_came_from() {
    let old = Stage::new();
    let next = Stage::new();
    let bare = |key: &KeyPair| key.public_line() + "\n";
    let ca = |key: &KeyPair| answering("200 OK", bare(key), 0);
    let by_url = |etc: &EtcSsh, url: &str, key: &KeyPair| {
        let folder = etc.path().display().to_string();
        let mut command = old.epithet(&["host", "setup", "--apply", "--sshd-config-dir", &folder]);
        command.args(["--ca-url", url, "--fingerprint", &key.fingerprint()]);
        Finished::of(command, DEADLINE).success().stderr
    };
    let including = "Include {folder}/sshd_config.d/*.conf\n";

    // By hand: it stays, and is spoken of each time.
    let etc = EtcSsh::new(including);
    std::fs::write(etc.path().join("epithet-ca.pub"), bare(&old.ca)).expect("a file");
    let url = ca(&next.ca);
    for _ in 0..2 {
        let said = by_url(&etc, &url, &next.ca);
        let note = format!("also trusts {}", old.ca.fingerprint());
        assert!(said.contains(&note) && said.contains("take it out"), "{said}");
        assert!(!said.contains("everything is as it should be"), "{said}");
    }

    // By a file first, and then by a URL that publishes it: it goes when the URL publishes it no more.
    let etc = EtcSsh::new(including);
    let public = old.ca.public_path().display().to_string();
    applied(&old, &etc, old.home.path(), ["--ca-pubkey", &public]);
    let file = old.home.join("published");
    std::fs::write(&file, bare(&old.ca)).expect("a file");
    let (url, _serving) = changing(file.clone());
    by_url(&etc, &url, &old.ca);
    std::fs::write(&file, bare(&next.ca)).expect("a file");
    let said = by_url(&etc, &url, &next.ca);
    assert!(
        said.contains(&format!("{} comes out of", old.ca.fingerprint())),
        "{said}"
    );
    let sshd = etc.start();
    assert_eq!((old.logs_in(&sshd), next.logs_in(&sshd)), (false, true));
}

/// Answers every request with what a file holds then.
fn changing(file: std::path::PathBuf) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let serving = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let body = std::fs::read_to_string(&file).unwrap_or_default();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (url, serving)
}

#[test]
fn files_of_one_name_in_two_folders_are_two_cas_and_standard_input_is_anybody_s() {
    let (one, two) = (Stage::new(), Stage::new());
    let etc = EtcSsh::new("Include {folder}/sshd_config.d/*.conf\n");
    for stage in [&one, &two] {
        applied(&one, &etc, stage.home.path(), ["--ca-pubkey", "ca.pub"]);
    }
    let sshd = etc.start();
    assert_eq!((one.logs_in(&sshd), two.logs_in(&sshd)), (true, true));

    let etc = EtcSsh::new("Include {folder}/sshd_config.d/*.conf\n");
    for stage in [&one, &two] {
        let folder = etc.path().display().to_string();
        let mut command = one.epithet(&["host", "setup", "--apply", "--sshd-config-dir", &folder]);
        let public = std::fs::File::open(stage.ca.public_path()).expect("a public key");
        command.args(["--ca-pubkey", "-"]).stdin(public);
        let finished = command.output().expect("epithet runs");
        assert!(finished.status.success(), "{finished:?}");
    }
    let sshd = etc.start();
    assert_eq!((one.logs_in(&sshd), two.logs_in(&sshd)), (true, true));
}

#[test]
fn a_clock_that_is_off_is_the_reason_and_a_small_difference_is_not() {
    let stage = Stage::new();
    let sshd = stage.host("");
    let config = sshd.folder().join("sshd_config");
    let check = |seconds| {
        let url = answering("200 OK", stage.ca.public_line() + "\n", seconds);
        stage.check_with(&config, &["--ca-url", &url])
    };
    for (seconds, words) in [(3600, "not yet valid"), (-3600, "have expired")] {
        let report = check(seconds);
        assert_eq!(report["reason"]["rule"], "clock", "{report}");
        assert!(
            report["reason"]["message"].as_str().unwrap().contains(words),
            "{report}"
        );
    }
    assert_eq!(check(0)["accepts"], true);
    let report = check(45);
    assert_eq!(report["accepts"], true, "{report}");
    assert!(
        report["notes"][0].as_str().unwrap().contains("differ by"),
        "{report}"
    );
}

#[test]
fn what_is_no_list_of_keys_is_refused_with_the_url() {
    let (stage, etc) = (Stage::new(), EtcSsh::new(""));
    let folder = etc.path().display().to_string();
    let long = format!("{}\n", "#".repeat(70_000));
    for (status, body, words) in [
        ("200 OK", "<html>log in to the hotel</html>".to_owned(), "line 1"),
        ("200 OK", String::new(), "no key"),
        ("200 OK", long, "larger than"),
        ("302 Found", String::new(), "302"),
        ("500 Oh", String::new(), "500"),
    ] {
        let url = answering(status, body, 0);
        let command = stage.epithet(&[
            "host",
            "setup",
            "--apply",
            "--sshd-config-dir",
            &folder,
            "--ca-url",
            &url,
        ]);
        let finished = Finished::of(command, DEADLINE);
        assert_eq!(finished.code(), Some(1));
        assert!(
            finished.stderr.contains(words) && finished.stderr.contains(&url),
            "{words}: {}",
            finished.stderr
        );
    }
    assert!(!etc.path().join("epithet-ca.pub").exists());
}
