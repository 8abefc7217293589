//! State and token are in the memory of broker and plugin, and nowhere else: a word that is in both of them is looked
//! for everywhere a curious process of the same person could look.

use crate::support::{FakeCa, Gate, Plugin, Stage, certificate, processes, refusal, start};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use epithet_testkit::{Broker, DEADLINE, plugin_script};
use rustix::process::Signal;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The word. No file has it in one piece, the plugin's script included.
const CANARY: [&str; 2] = ["canary-x7Qz", "-kept-in-memory"];

/// A plugin whose token and state have the word in them. The second run waits, holding its state; the third fails with
/// the word already on stdout; the fourth has a token that has to be encoded.
fn singing_plugin(stage: &Stage) -> PathBuf {
    let [front, back] = CANARY;
    let text = format!(
        "#!/bin/sh\n\
         given=$(cat)\n\
         run=$(($(cat run 2>/dev/null || echo 0) + 1))\n\
         echo $run > run\n\
         word='{front}'; word=$word'{back}'\n\
         [ $run = 1 ] || [ \"$given\" = \"state $word\" ] || exit 9\n\
         echo \"run $run waits, with ${{#given}} bytes of state\" >&4\n\
         [ $run != 2 ] || read -r _ < plugin/gate\n\
         printf 'token-%s-%s' $run \"$word\"\n\
         [ $run != 4 ] || echo\n\
         printf 'state %s' \"$word\" >&3\n\
         [ $run != 3 ] || exit 3\n"
    );
    plugin_script(stage.home.path(), "singing.sh", &text)
}

/// The word in the forms in which it could be written down.
fn forms() -> Vec<Vec<u8>> {
    let word = CANARY.concat();
    let mut forms = vec![word.clone().into_bytes()];
    forms.push(
        word.bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .into_bytes(),
    );
    let list: Vec<String> = word.bytes().map(|byte| byte.to_string()).collect();
    forms.push(list.join(", ").into_bytes());
    // In base64 it looks different by where it begins; its edges mix with what is around it.
    for before in 0..3 {
        let bytes = [vec![b'.'; before], word.clone().into_bytes()].concat();
        for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.push(text.as_bytes()[4..text.len() - 4].to_vec());
        }
    }
    forms
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

#[track_caller]
fn is_clean(place: &str, bytes: &[u8]) {
    for form in forms() {
        assert!(
            !contains(bytes, &form),
            "{place} has the secret, as {}",
            String::from_utf8_lossy(&form)
        );
    }
}

/// Every regular file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

fn files_are_clean(stage: &Stage) {
    let files = files(stage.home.path());
    for name in ["singing.sh", "ssh-config.conf", "agent.log"] {
        assert!(
            files.iter().any(|path| path.ends_with(name)),
            "{name} is among what is searched"
        );
    }
    for path in files {
        is_clean(&path.display().to_string(), &std::fs::read(&path).unwrap());
    }
}

fn processes_are_clean() {
    let all = processes();
    for part in ["singing.sh", "epithet\0agent", "--hash"] {
        let seen = |bytes: &[u8]| contains(bytes, part.as_bytes());
        assert!(
            all.iter().any(|process| seen(&process.command_line)),
            "{part} is among who is searched"
        );
    }
    for process in all {
        let name = format!("process {}", process.pid);
        is_clean(&format!("the command line of {name}"), &process.command_line);
        // What this user may not read is kept from everybody like them.
        if let Ok(environment) = process.environment {
            is_clean(&format!("the environment of {name}"), &environment);
        }
    }
}

fn inspection_is_clean(stage: &Stage, broker: &Broker) {
    is_clean("inspect --json", stage.inspect(broker).to_string().as_bytes());
    let socket = broker.socket().display().to_string();
    let page = epithet_testkit::Finished::of(stage.epithet(["inspect", "--broker", &socket]), DEADLINE);
    is_clean("inspect", page.success().stdout.as_bytes());
}

/// Core dumps are off for the broker and for whoever it starts.
fn no_core_is_dumped(pid: i32) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "process {pid}: {line}");
}

#[test]
fn a_word_in_state_and_token_is_found_in_no_file_log_process_or_inspection() {
    let ca = FakeCa::start(|asked| match asked.number {
        2 => refusal(401, "once more"),
        _ => certificate(),
    });
    let stage = Stage::new(&ca.public_line());
    let gate_keeper = Plugin::counting(&stage.home);
    let mut gate = Gate::of(&gate_keeper);
    let plugin = singing_plugin(&stage);
    stage.home.write("tmp/.kept", "");
    let log = stage.home.join("agent.log");
    let mut command = stage.agent(&ca.url(), plugin.to_str().unwrap(), ["-vvv"]);
    command
        .arg("--log-file")
        .arg(&log)
        .env("TMPDIR", stage.home.join("tmp"));
    let mut broker = start(command);
    stage.log_in("127.0.0.1").success();

    // The second connection's 401 leads to a run that is given the state, and waits.
    let mut waiting = stage.begin("127.0.0.2");
    let word = CANARY.concat();
    waiting.expect_line(
        &format!("run 2 waits, with {} bytes", word.len() + "state ".len()),
        DEADLINE,
    );
    // A third one's `match` waits as well.
    let mut other = stage.begin("127.0.0.3");
    other.expect_line("run 2 waits", DEADLINE);
    processes_are_clean();
    files_are_clean(&stage);
    inspection_is_clean(&stage, &broker);
    let broker_pid = i32::try_from(broker.daemon().pid()).unwrap();
    let children: Vec<i32> = processes()
        .iter()
        .filter(|process| process.parent == broker_pid)
        .map(|process| process.pid)
        .collect();
    assert_eq!(children.len(), 2, "the guard and the plugin");
    no_core_is_dumped(broker_pid);
    for child in children {
        no_core_is_dumped(child);
    }
    gate.open();
    for ssh in [&mut waiting, &mut other] {
        assert!(ssh.wait(DEADLINE).unwrap().success(), "{}", ssh.stderr());
        is_clean("ssh's stderr", &ssh.stderr().bytes());
    }

    // A login that fails halfway, and one whose token is encoded.
    for succeeds in [false, true] {
        let login = stage.epithet_login_from_terminal(&broker);
        assert_eq!(login.status.success(), succeeds, "{login:?}");
        is_clean("the terminal", login.stdout.as_bytes());
    }
    stage.log_in("127.0.0.4").success();
    assert!(
        ca.asked().last().unwrap().encoding.is_some(),
        "the CA was sent the encoded token"
    );
    assert!(
        contains(&ca.asked()[0].token, word.as_bytes()),
        "the CA is the one who gets it"
    );
    inspection_is_clean(&stage, &broker);
    is_clean("sshd's log", stage.sshd.log().as_bytes());
    let said = std::fs::read_to_string(&log).unwrap();
    for part in [
        "auth plugin started",
        "auth plugin failed",
        "auth plugin succeeded",
        "certificate received",
    ] {
        assert!(said.contains(part), "{part} is in the log");
    }

    // Not even a crash writes it down.
    broker.daemon().signal(Signal::ABORT);
    broker.daemon().wait(DEADLINE).expect("a crash ends it");
    is_clean("the broker's stderr", &broker.log().bytes());
    files_are_clean(&stage);
}

/// How often the word is in the memory that a process can write, which root may read however the process is hardened.
fn times_in_memory(pid: u32) -> Option<usize> {
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let word = CANARY.concat().into_bytes();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        let (from, to) = (
            u64::from_str_radix(from, 16).ok()?,
            u64::from_str_radix(to, 16).ok()?,
        );
        let mut piece = vec![0; usize::try_from(to - from).ok()?];
        // A region may have gone, or be one that nobody can read.
        if memory.read_exact_at(&mut piece, from).is_ok() {
            found += occurrences(&piece, &word);
        }
    }
    Some(found)
}

fn occurrences(haystack: &[u8], word: &[u8]) -> usize {
    let starts = haystack.iter().enumerate().filter(|(_, byte)| **byte == word[0]);
    starts.filter(|(at, _)| haystack[*at..].starts_with(word)).count()
}

#[test]
fn after_a_logout_no_copy_of_state_or_token_is_left_in_the_brokers_memory() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else may look: that is what the hardening is for.
        return;
    }
    let ca = FakeCa::start(|_| certificate());
    let stage = Stage::new(&ca.public_line());
    let gate_keeper = Plugin::counting(&stage.home);
    let mut gate = Gate::of(&gate_keeper);
    let plugin = singing_plugin(&stage);
    let mut broker = stage.broker(&ca.url(), plugin.to_str().unwrap(), []);
    let pid = broker.daemon().pid();
    let login = |succeeds: bool| {
        let login = stage.epithet_login_from_terminal(&broker);
        assert_eq!(login.status.success(), succeeds, "{login:?}");
    };
    login(true);
    gate.open();
    login(true);
    // The two that are held: what they replaced has been wiped, and so have the buffers in which they came.
    assert_eq!(times_in_memory(pid), Some(2));
    login(false);
    assert_eq!(
        times_in_memory(pid),
        Some(2),
        "a failed run leaves nothing of its own"
    );

    let socket = broker.socket().display().to_string();
    epithet_testkit::Finished::of(stage.epithet(["logout", "--broker", &socket]), DEADLINE).success();
    assert_eq!(times_in_memory(pid), Some(0));
}
