//! Stories of whoever reads the CA's audit log: who got what, what happens now, and is it all there?

use crate::http::exchange;
use crate::named::{EPITHET, Named};
use epithet_testkit::{DEADLINE, Daemon, Finished, Server, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

struct Story {
    named: Named,
    server: Server,
    log: PathBuf,
}

impl Story {
    fn begin() -> Self {
        let named = Named::new();
        let log = named.home.join("audit.jsonl");
        let server = named.server(&["-v", "--audit-file", log.to_str().unwrap()]);
        Self { named, server, log }
    }

    fn ask(&self, token: &str, host: &str) {
        let answer = self.named.ask(&self.server, token, host);
        assert!([200, 403].contains(&answer.status()), "{answer:?}");
    }

    fn daemon_ends(&mut self) {
        let ended = self.server.daemon().terminate(DEADLINE);
        assert!(ended.is_some_and(|status| status.success()));
    }

    fn daemon_starts(&mut self) {
        self.server = self.named.server(&["-v", "--audit-file", text(&self.log)]);
    }

    /// Moves the log away and lets the server make a new one.
    fn rotate(&mut self, name: &str) -> PathBuf {
        let old = self.named.home.join(name);
        std::fs::rename(&self.log, &old).unwrap();
        let before = self.server.log().position();
        self.server.daemon().signal(Signal::HUP);
        self.server
            .daemon()
            .expect_line_after(before, "the audit log was opened again", DEADLINE);
        old
    }

    fn audit(&self, arguments: &[&str]) -> Finished {
        let mut command = self.named.home.command(EPITHET);
        command
            .env("EPITHET_CONFIG_ONLY", "1")
            .arg("audit")
            .args(arguments);
        Finished::of(command, DEADLINE)
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_table_has_a_row_for_every_decision_and_filters_leave_the_wanted_ones() {
    let story = Story::begin();
    story.ask("alice", "web.example.com");
    story.ask("mallory", "web.example.com");
    story.ask("alice", "db.example.com");
    story.ask("alice", "web.example.org");
    let lines = story.lines();
    let field = |line: usize, name: &str| lines[line][name].as_str().unwrap().to_owned();
    let log = text(&story.log);
    let table = story.audit(&["list", log]).success().stdout;
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 5, "{table}");
    assert!(rows[0].starts_with("TIME (UTC)"), "{table}");
    assert!(
        !table.contains('\x1b'),
        "no colours where no terminal is: {table}"
    );
    for part in [
        "issued",
        "alice",
        "root@web.example.com",
        "for 2m",
        &field(0, "serial"),
        &field(0, "request_id"),
    ] {
        assert!(rows[1].contains(part), "{part} is not in {}", rows[1]);
    }
    assert!(
        rows[2].contains("refused 403") && rows[2].contains("root@web.example.com"),
        "{table}"
    );

    let (serial, request_id) = (field(2, "serial"), field(1, "request_id"));
    for (filter, wanted) in [
        (vec!["--decision", "issued"], vec![0, 2]),
        (vec!["--decision", "refused"], vec![1, 3]),
        (vec!["--host", "*.example.com"], vec![0, 1, 2]),
        (vec!["--host", "WEB.example.com", "--decision", "issued"], vec![0]),
        (vec!["--identity", "ali*"], vec![0, 2, 3]),
        (vec!["--user", "root"], vec![0, 1, 2, 3]),
        (vec!["--user", "daemon"], vec![]),
        (vec!["--serial", &serial], vec![2]),
        (vec!["--request-id", &request_id], vec![1]),
        (vec!["--since", "1h"], vec![0, 1, 2, 3]),
        (vec!["--since", "2100-01-01"], vec![]),
    ] {
        let listed = story
            .audit(&[&["list", "--json", log], &filter[..]].concat())
            .success()
            .stdout;
        let listed: Vec<Value> = listed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let wanted: Vec<Value> = wanted.into_iter().map(|line| lines[line].clone()).collect();
        assert_eq!(listed, wanted, "{filter:?}");
    }
    // As they stand in the log, so that what is kept can still be verified.
    let whole = story.audit(&["list", "--json", log]).success().stdout;
    assert_eq!(whole, std::fs::read_to_string(&story.log).unwrap());
}

#[test]
fn broken_lines_are_left_out_and_said_to_be() {
    let story = Story::begin();
    story.ask("alice", "web.example.com");
    story.ask("mallory", "web.example.com");
    let good = std::fs::read_to_string(&story.log).unwrap();
    let (first, second) = good.split_once('\n').unwrap();
    let long = "x".repeat(3 * 1024 * 1024);
    let mut broken = format!("{first}\n{{\"time\":\"20\n\n{long}\n{{}}\n").into_bytes();
    broken.extend_from_slice(b"\xff\xfe\x00\n\x1b[2J\n");
    broken.extend_from_slice(second.as_bytes());
    let file = story.named.home.write("broken", broken);
    let listed = story.audit(&["list", text(&file)]).success();
    assert_eq!(listed.stdout.lines().count(), 3, "{}", listed.stdout);
    assert!(
        listed.stderr.contains("5 lines are no line of an audit log"),
        "{}",
        listed.stderr
    );
    assert!(
        listed.stderr.contains(&format!("line 2 of {}", file.display())),
        "{}",
        listed.stderr
    );
}

#[test]
fn several_files_and_standard_input_are_listed_and_a_missing_one_is_named() {
    let mut story = Story::begin();
    story.ask("alice", "web.example.com");
    let old = story.rotate("audit.jsonl.1");
    story.ask("alice", "db.example.com");
    let listed = story
        .audit(&["list", text(&old), text(&story.log)])
        .success()
        .stdout;
    assert_eq!(listed.lines().count(), 3);
    assert!(listed.find("web.example.com").unwrap() < listed.find("db.example.com").unwrap());
    let mut command = story.named.home.command(EPITHET);
    command
        .args(["audit", "list", "-"])
        .stdin(std::fs::File::open(&old).unwrap());
    assert_eq!(
        Finished::of(command, DEADLINE).success().stdout.lines().count(),
        2
    );
    let missing = story.audit(&["list", "/nonexistent/audit.jsonl"]);
    assert_eq!(missing.code(), Some(1));
    assert!(
        missing.stderr.contains("cannot open /nonexistent/audit.jsonl"),
        "{}",
        missing.stderr
    );
    let unnamed = story.audit(&["list"]);
    assert_eq!(unnamed.code(), Some(1));
    assert!(
        unnamed.stderr.contains("name the audit log"),
        "{}",
        unnamed.stderr
    );
    assert_eq!(story.audit(&["list", "--since", "soon", "x"]).code(), Some(80));
    let followed = story.audit(&["list", "--follow", "-"]);
    assert_eq!(followed.code(), Some(1));
}

#[test]
fn the_log_of_the_configured_ca_is_the_one_that_is_listed_without_a_name() {
    let story = Story::begin();
    story.ask("alice", "web.example.com");
    let config = story.named.home.write(
        "config.json",
        format!("{{\"ca\": {{\"audit-file\": \"{}\"}}}}", story.log.display()),
    );
    let mut command = story.named.home.command(EPITHET);
    command
        .env("EPITHET_CONFIG_ONLY", "1")
        .args(["audit", "list", "--config"])
        .arg(config);
    let listed = Finished::of(command, DEADLINE).success().stdout;
    assert!(listed.contains("root@web.example.com"), "{listed}");
}

#[test]
fn following_goes_on_when_the_log_is_rotated() {
    let mut story = Story::begin();
    story.ask("alice", "one.example.com");
    let mut command = story.named.home.command(EPITHET);
    command.args(["audit", "list", "--follow", text(&story.log)]);
    let mut following = Daemon::start("audit list --follow", command, None);
    let saw = |following: &Daemon, host: &str| {
        let line = following.stdout().wait_for_line(host, DEADLINE);
        assert!(
            line.is_some(),
            "{host}: {}{}",
            following.stdout().text(),
            following.stderr().text()
        );
    };
    saw(&following, "one.example.com");
    story.ask("mallory", "two.example.com");
    saw(&following, "two.example.com");
    story.rotate("audit.jsonl.1");
    story.ask("alice", "three.example.com");
    saw(&following, "three.example.com");
    story.rotate("audit.jsonl.2");
    story.ask("alice", "four.example.com");
    saw(&following, "four.example.com");
    assert_eq!(
        following.stdout().text().lines().count(),
        5,
        "nothing comes twice"
    );
    following.signal(Signal::INT);
    assert!(following.wait(DEADLINE).is_some());
}

#[test]
fn rotating_while_certificates_are_issued_loses_no_line_and_the_chain_holds_across_the_files() {
    const ROTATIONS: usize = 5;
    let mut story = Story::begin();
    let url = story.server.url().to_owned();
    let asking = story.named.asking("alice", "web.example.com");
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut files = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let answer = exchange(&url, &asking);
                    assert_eq!(answer.status(), 200, "{answer:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for number in (1..=ROTATIONS).rev() {
            // Something to rotate.
            let before = answered.load(Ordering::SeqCst);
            let some = wait_until(DEADLINE, || {
                (answered.load(Ordering::SeqCst) > before + 8).then_some(())
            });
            some.expect("certificates are issued");
            files.push(story.rotate(&format!("audit.jsonl.{number}")));
        }
        done.store(true, Ordering::SeqCst);
    });
    files.push(story.log.clone());
    let names: Vec<&str> = files.iter().map(|file| text(file)).collect();
    let verified = story.audit(&[&["verify"], &names[..]].concat()).success().stdout;
    let lines = answered.load(Ordering::SeqCst);
    assert!(
        verified.contains(&format!("{lines} lines, the chain holds")),
        "{lines}: {verified}"
    );
    for file in &files[..ROTATIONS] {
        let lines = std::fs::read_to_string(file).unwrap().lines().count();
        assert!(lines > 0, "{} is empty", file.display());
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let story = Story::begin();
    story.ask("alice", "web.example.com");
    let many = std::fs::read_to_string(&story.log).unwrap().repeat(5000);
    let many = story.named.home.write("many", many);
    let script = format!(
        "set -o pipefail; '{EPITHET}' audit list '{}' | head -1",
        many.display()
    );
    let finished = story.named.home.run("bash", ["-c", &script]).success();
    assert_eq!(
        (finished.stdout.lines().count(), finished.stderr.as_str()),
        (1, "")
    );
}

#[test]
fn whatever_was_done_to_a_log_is_found() {
    let mut story = Story::begin();
    for host in ["one", "two", "three"] {
        story.ask("alice", &format!("{host}.example.com"));
    }
    let old = story.rotate("audit.jsonl.1");
    for host in ["four", "five"] {
        story.ask("alice", &format!("{host}.example.com"));
    }
    let whole = story
        .audit(&["verify", text(&old), text(&story.log)])
        .success()
        .stdout;
    assert!(whole.contains("5 lines, the chain holds"), "{whole}");
    let last = whole
        .split("last line: ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap()
        .to_owned();
    let second = story.audit(&["verify", text(&story.log)]).success().stdout;
    assert!(second.contains("follows one of an earlier file"), "{second}");
    assert!(!whole.contains("follows one of an earlier file"), "{whole}");

    let old_text = std::fs::read_to_string(&old).unwrap();
    let lines: Vec<&str> = old_text.lines().collect();
    let verify = |name: &str, lines: &[&str], end: &str| {
        let file = story.named.home.write(name, lines.join("\n") + end);
        (
            story.audit(&["verify", text(&file), text(&story.log)]),
            file.display().to_string(),
        )
    };
    let changed = lines[1].replace("two.example.com", "owt.example.com");
    let cases: [(&str, Vec<&str>, &str, &str); 7] = [
        (
            "changed",
            vec![lines[0], &changed, lines[2]],
            "\n",
            "line 3 does not follow",
        ),
        (
            "missing",
            vec![lines[0], lines[2]],
            "\n",
            "line 2 does not follow",
        ),
        (
            // What begins a log may begin another one; what follows it has to.
            "reordered",
            vec![lines[1], lines[0], lines[2]],
            "\n",
            "line 3 does not follow",
        ),
        (
            "added",
            vec![lines[0], lines[1], lines[1], lines[2]],
            "\n",
            "line 3 does not follow",
        ),
        (
            "truncated",
            vec![lines[0], lines[1], &lines[2][..40]],
            "\n",
            "line 3 is not a whole line",
        ),
        (
            "torn",
            vec![lines[0], lines[1], &lines[2][..lines[2].len() - 1]],
            "",
            "line 3 is not a whole line",
        ),
        // The next file does not follow.
        (
            "beheaded",
            vec![lines[0], lines[1]],
            "\n",
            "line 1 does not follow",
        ),
    ];
    for (name, lines, end, words) in cases {
        let (found, file) = verify(name, &lines, end);
        assert_eq!(found.code(), Some(1), "{name}: {}", found.stdout);
        assert!(found.stderr.contains(words), "{name}: {}", found.stderr);
        let wrong = if name == "beheaded" {
            text(&story.log)
        } else {
            &file
        };
        assert!(found.stderr.contains(wrong), "{name}: {}", found.stderr);
    }
    // The first file begins with zeros, as another log would.
    let swapped = story.audit(&["verify", text(&story.log), text(&old)]);
    assert_eq!(swapped.code(), Some(2), "{}", swapped.stdout);
    let place = format!("a new chain begins at line 1 of {}", text(&old));
    assert!(swapped.stdout.contains(&place), "{}", swapped.stdout);

    // Lines taken from the end can be noticed by whoever kept the hash of the last.
    story
        .audit(&["verify", "--includes", &last, text(&old), text(&story.log)])
        .success();
    let shortened = story.named.home.write("shortened", lines.join("\n") + "\n");
    story.audit(&["verify", text(&shortened)]).success();
    let noticed = story.audit(&["verify", "--includes", &last, text(&shortened)]);
    assert_eq!(noticed.code(), Some(1));
    assert!(
        noticed.stderr.contains("the end of the log was taken away"),
        "{}",
        noticed.stderr
    );
    let mut file = std::fs::OpenOptions::new().append(true).open(&shortened).unwrap();
    file.write_all(b"\n").unwrap();
    assert_eq!(story.audit(&["verify", text(&shortened)]).code(), Some(1));
}

#[test]
fn an_end_that_was_changed_or_cut_off_is_found_by_the_file_beside_the_log() {
    let mut story = Story::begin();
    let log = text(&story.log).to_owned();
    let beside = format!("{log}.last");
    let nothing = story.audit(&["verify", &log]).success().stdout;
    assert!(
        nothing.contains("0 lines, the chain holds") && !nothing.contains("cannot be checked"),
        "{nothing}"
    );
    for host in ["one", "two", "three"] {
        story.ask("alice", &format!("{host}.example.com"));
    }
    let whole = std::fs::read_to_string(&log).unwrap();
    let fine = story.audit(&["verify", &log]).success().stdout;
    assert!(
        fine.contains("3 lines, the chain holds") && !fine.contains("the end"),
        "{fine}"
    );

    story.daemon_ends();
    let lines: Vec<&str> = whole.lines().collect();
    let first_only = format!("{}\n", lines[0]);
    let last_changed = whole.replace("three.example.com", "eerht.example.com");
    let last_missing = format!("{}\n{}\n", lines[0], lines[1]);
    for (what, written) in [
        ("its last line changed", &last_changed),
        ("its last line missing", &last_missing),
        ("but one line missing", &first_only),
    ] {
        std::fs::write(&log, written).unwrap();
        let found = story.audit(&["verify", &log]);
        assert_eq!(found.code(), Some(1), "{what}: {}", found.stdout);
        assert_eq!(found.stdout, "", "{what}");
        for words in [
            "the log ends before, or other than with, the line that was written last",
            &log,
            &beside,
            "try: compare the log with a copy",
        ] {
            assert!(found.stderr.contains(words), "{what}: {words}: {}", found.stderr);
        }
    }

    // Lines after the last one: a CA that was killed between the two files, or somebody who can count.
    let kept = std::fs::read(&beside).unwrap();
    std::fs::write(&log, &whole).unwrap();
    story.daemon_starts();
    story.ask("alice", "four.example.com");
    story.daemon_ends();
    let written = std::fs::read(&beside).unwrap();
    std::fs::write(&beside, kept).unwrap();
    let behind = story.audit(&["verify", &log]).success().stdout;
    assert!(behind.contains("1 line stands after the one that"), "{behind}");
    std::fs::write(&beside, &written).unwrap();

    // Rotated: the last line is in the earlier file, which may be given or not.
    let old = format!("{log}.1");
    std::fs::rename(&log, &old).unwrap();
    std::fs::write(&log, "").unwrap();
    let both = story.audit(&["verify", &old, &log]).success().stdout;
    assert!(
        both.contains("4 lines") && !both.contains("cannot be checked"),
        "{both}"
    );
    let alone = story.audit(&["verify", &log]);
    assert_eq!(alone.code(), Some(2), "{}", alone.stderr);
    let alone = alone.stdout;
    assert!(
        alone.contains("names a line of an earlier file; give that file too"),
        "{alone}"
    );
    let earlier = story.audit(&["verify", &old]).success().stdout;
    assert!(
        earlier.contains("the end cannot be checked: there is no"),
        "{earlier}"
    );
    let four = std::fs::read_to_string(&old).unwrap();
    std::fs::write(&old, four.replace("four.example.com", "ruof.example.com")).unwrap();
    assert_eq!(story.audit(&["verify", &old, &log]).code(), Some(1));

    // Without a hash nobody can tell.
    std::fs::write(&old, &four).unwrap();
    std::fs::rename(&old, &log).unwrap();
    std::fs::write(&beside, "nothing\n").unwrap();
    let garbled = story.audit(&["verify", &log]).success().stdout;
    assert!(
        garbled.contains("the end cannot be checked") && garbled.contains("holds no hash"),
        "{garbled}"
    );
    std::fs::remove_file(&beside).unwrap();
    let unknown = story.audit(&["verify", &log]).success().stdout;
    assert!(
        unknown.contains("the end cannot be checked: there is no"),
        "{unknown}"
    );
}

#[test]
fn a_log_stays_one_chain_over_a_rotation_and_a_start_and_a_new_chain_is_told_from_a_broken_one() {
    let mut story = Story::begin();
    story.ask("alice", "one.example.com");
    let whole_log = std::fs::read(&story.log).unwrap();
    let old = story.named.home.join("audit.jsonl.1");
    story.daemon_ends();
    std::fs::rename(&story.log, &old).unwrap();
    story.daemon_starts();
    story.ask("alice", "two.example.com");
    let verify = |story: &Story| story.audit(&["verify", text(&old), text(&story.log)]);
    let whole = verify(&story).success().stdout;
    assert!(whole.contains("2 lines, the chain holds"), "{whole}");
    // Another log in its place is noticed by the CA that goes on with it, and shows.
    story.daemon_ends();
    std::fs::write(&story.log, &whole_log).unwrap();
    story.daemon_starts();
    story
        .server
        .wait_for_log("does not hold the line that was written last");
    story.ask("alice", "three.example.com");
    let broken = story.audit(&["verify", text(&story.log)]);
    assert_eq!(broken.code(), Some(1), "{}", broken.stdout);
    assert!(
        broken.stderr.contains("line 2 does not follow"),
        "{}",
        broken.stderr
    );
    // Without the file beside it nobody can tell; that is said, and is not the same as a broken chain.
    story.daemon_ends();
    std::fs::remove_file(&story.log).unwrap();
    std::fs::remove_file(story.named.home.join("audit.jsonl.last")).unwrap();
    story.daemon_starts();
    story.ask("alice", "four.example.com");
    let anew = verify(&story);
    assert_eq!(anew.code(), Some(2), "{}", anew.stderr);
    let place = format!("a new chain begins at line 1 of {}", text(&story.log));
    assert!(anew.stdout.contains(&place), "{}", anew.stdout);
}

#[test]
fn certificates_go_on_with_a_new_file_when_the_log_is_deleted_and_everybody_is_told() {
    let story = Story::begin();
    story.ask("alice", "one.example.com");
    std::fs::remove_file(&story.log).unwrap();
    story.ask("alice", "two.example.com");
    let lines = story.lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["host"], "two.example.com");
    story.server.wait_for_log("the audit log's file was deleted");
}
