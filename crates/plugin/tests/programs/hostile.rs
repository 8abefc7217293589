//! An auth plugin with a mode for every way of being wrong, and a few of being right.
//!
//! Started as `epithet-hostile-plugin MODE [ARGUMENT...]`; see `MODES`. It is what the tests, the soak and, by hand,
//! `epithet plugin check` run. Streams are opened by name (`/dev/fd/3`), so that it can do what the crate's own guest
//! side would refuse.
#![expect(clippy::print_stdout, reason = "its broker tells the tests what happens")]

use epithet_plugin::{Guard, Invocation, PluginCommand, Runner, progress_channel};
use rustix::process::{Pid, Signal, getpid, getsid, kill_process};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, thread};

type Mode = fn(&[String]) -> io::Result<u8>;

/// Every mode, in the order of how wrong it is.
const MODES: &[(&str, Mode)] = &[
    ("honest", honest),
    ("guest", guest),
    ("round-trip", round_trip),
    ("count", count),
    ("describe", describe),
    ("unread", unread),
    ("slow", slow),
    ("dribble", dribble),
    ("state-after-token", state_after_token),
    ("talk", talk),
    ("random", random),
    ("fail", fail),
    ("die", die),
    ("stop", stop),
    ("terminal", terminal),
    ("flood", flood),
    ("write", write_exactly),
    ("hang", hang),
    ("hang-deaf", hang_deaf),
    ("hang-alone", hang_alone),
    ("farewell", farewell),
    ("leave", leave),
    ("leave-late-writer", leave_late_writer),
    ("write-late", write_late),
    ("forks", forks),
    ("guard", guard),
    ("broker", broker),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mode = arguments.first().map_or("", String::as_str);
    let Some((_, run)) = MODES.iter().find(|(name, _)| *name == mode) else {
        eprintln!("no such mode: {mode}");
        return ExitCode::from(64);
    };
    match run(&arguments[1..]) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("{mode}: {error}");
            ExitCode::from(74)
        }
    }
}

fn stream(number: &str) -> io::Result<File> {
    OpenOptions::new().write(true).open(format!("/dev/fd/{number}"))
}

fn say(number: &str, bytes: &[u8]) -> io::Result<()> {
    stream(number)?.write_all(bytes)
}

fn read_stdin() -> io::Result<Vec<u8>> {
    let mut state = Vec::new();
    io::stdin().read_to_end(&mut state)?;
    Ok(state)
}

fn argument(arguments: &[String], index: usize) -> &str {
    arguments.get(index).map_or("", String::as_str)
}

fn number(arguments: &[String], index: usize) -> u64 {
    argument(arguments, index).parse().unwrap_or(0)
}

fn forever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// This program once more, with the same streams unless told otherwise.
fn again(mode: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(mode);
    Ok(command)
}

/// `TOKEN STATE`: as the protocol says.
fn honest(arguments: &[String]) -> io::Result<u8> {
    read_stdin()?;
    say("3", argument(arguments, 1).as_bytes())?;
    say("1", argument(arguments, 0).as_bytes())?;
    Ok(0)
}

/// By the crate's own guest side: the invocation becomes the token, the state grows by a byte.
fn guest(_: &[String]) -> io::Result<u8> {
    if !epithet_plugin::is_plugin() {
        eprintln!("not run as a plugin");
        return Ok(1);
    }
    epithet_plugin::keep_streams_from_children()?;
    let state = epithet_plugin::read_state()?;
    epithet_plugin::progress("working");
    // A browser that lives on: it must hold no stream of ours.
    again(&["hang"])?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let token = format!("{:?}", Invocation::from_env());
    epithet_plugin::finish(token.as_bytes(), &[&state[..], b"+"].concat())?;
    Ok(0)
}

/// The state as it came.
fn round_trip(_: &[String]) -> io::Result<u8> {
    say("3", &read_stdin()?)?;
    say("1", b"token")?;
    Ok(0)
}

/// State is a number; the token names it, the new state is the next.
fn count(_: &[String]) -> io::Result<u8> {
    let before: u64 = String::from_utf8_lossy(&read_stdin()?).parse().unwrap_or(0);
    say("3", (before + 1).to_string().as_bytes())?;
    say("1", format!("token-{before}").as_bytes())?;
    Ok(0)
}

/// What the plugin finds itself with, as the token.
fn describe(_: &[String]) -> io::Result<u8> {
    let mut open: Vec<u32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    open.sort_unstable();
    // The last one is the listing's own.
    open.pop();
    let own = getpid();
    let leads = getsid(None)? == own && rustix::process::getpgrp() == own;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let signals: Vec<&str> = status
        .lines()
        .filter(|line| line.starts_with("SigIgn") || line.starts_with("SigBlk"))
        .collect();
    let folder = env::current_dir()?;
    let path = env::var("PATH").unwrap_or_default();
    let text = format!(
        "fds {open:?}\nleads {leads}\n{}\ncwd {}\npath {path}",
        signals.join("\n"),
        folder.display()
    );
    say("1", text.as_bytes())?;
    Ok(0)
}

/// Leaves its state unread and is done at once.
fn unread(_: &[String]) -> io::Result<u8> {
    say("1", b"token")?;
    Ok(0)
}

/// `MILLISECONDS`: honest, in its own time.
fn slow(arguments: &[String]) -> io::Result<u8> {
    thread::sleep(Duration::from_millis(number(arguments, 0)));
    honest(&["token".to_owned(), "state".to_owned()])
}

/// Everything byte by byte.
fn dribble(_: &[String]) -> io::Result<u8> {
    for byte in b"dribbled" {
        for number in ["1", "2", "3", "4"] {
            say(number, &[*byte])?;
        }
    }
    Ok(0)
}

/// The state comes when the token is long complete.
fn state_after_token(_: &[String]) -> io::Result<u8> {
    say("1", b"token")?;
    thread::sleep(Duration::from_millis(100));
    say("3", b"state")?;
    Ok(0)
}

/// `TEXT...`: progress, one line each, and waits for a signal.
fn talk(arguments: &[String]) -> io::Result<u8> {
    for line in arguments {
        say("4", format!("{line}\n").as_bytes())?;
    }
    forever()
}

/// `SEED`: bytes of any value to any stream in any order, then any exit.
fn random(arguments: &[String]) -> io::Result<u8> {
    let mut seed = number(arguments, 0) | 1;
    let mut dice = |sides: u64| {
        // xorshift64
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % sides
    };
    for _ in 0..dice(40) {
        let bytes: Vec<u8> = (0..dice(5_000))
            .map(|_| u8::try_from(dice(256)).unwrap_or(0))
            .collect();
        say(
            ["1", "2", "3", "4"][usize::try_from(dice(4)).unwrap_or(0)],
            &bytes,
        )?;
        if dice(10) == 0 {
            thread::sleep(Duration::from_millis(dice(10)));
        }
    }
    Ok(u8::try_from(dice(3)).unwrap_or(0))
}

/// `STATUS [TEXT]`: writes token and state, says why, and fails.
fn fail(arguments: &[String]) -> io::Result<u8> {
    say("1", b"token of a failure")?;
    say("3", b"state of a failure")?;
    say("2", argument(arguments, 1).as_bytes())?;
    Ok(u8::try_from(number(arguments, 0)).unwrap_or(255))
}

/// `SIGNAL`: writes token and state and is ended by a signal.
fn die(arguments: &[String]) -> io::Result<u8> {
    say("1", b"token of the dead")?;
    say("3", b"state of the dead")?;
    let signal = match argument(arguments, 0) {
        "TERM" => Signal::TERM,
        "SEGV" => Signal::SEGV,
        "PIPE" => {
            // Rust's runtime ignores SIGPIPE; a shell gets it back to default.
            Command::new("/bin/sh")
                .args(["-c", &format!("kill -PIPE {}", getpid().as_raw_pid())])
                .status()?;
            Signal::KILL
        }
        _ => Signal::KILL,
    };
    // Rust's runtime takes the first SIGSEGV for a stack overflow, looks, and lets the second one through.
    kill_process(getpid(), signal)?;
    kill_process(getpid(), signal)?;
    forever()
}

/// Stops itself, as a program does that reads from a terminal in the background.
fn stop(_: &[String]) -> io::Result<u8> {
    say("4", b"stopping\n")?;
    kill_process(getpid(), Signal::STOP)?;
    forever()
}

/// Asks the terminal.
fn terminal(_: &[String]) -> io::Result<u8> {
    let mut answer = String::new();
    File::open("/dev/tty")?.read_to_string(&mut answer)?;
    Ok(0)
}

/// `STREAM`: without end.
fn flood(arguments: &[String]) -> io::Result<u8> {
    let mut stream = stream(argument(arguments, 0))?;
    let piece = [b'x'; 65_536];
    loop {
        stream.write_all(&piece)?;
    }
}

/// `STREAM BYTES [then]`: exactly so many, with a token unless that is the stream. `then hang` stays.
fn write_exactly(arguments: &[String]) -> io::Result<u8> {
    let (name, bytes) = (argument(arguments, 0), number(arguments, 1));
    let mut stream = stream(name)?;
    let piece = [b'x'; 65_536];
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    while left > 0 {
        let some = left.min(piece.len());
        stream.write_all(&piece[..some])?;
        left -= some;
    }
    drop(stream);
    if name != "1" {
        say("1", b"token")?;
    }
    if argument(arguments, 2) == "hang" {
        forever();
    }
    Ok(0)
}

/// Never exits.
fn hang(_: &[String]) -> io::Result<u8> {
    // As a grandchild it may have been given no stream at all.
    let _ = say("4", b"hanging\n");
    forever()
}

/// Never exits and ignores SIGTERM, which is what a shell's `trap` leaves behind across `exec`.
fn hang_deaf(_: &[String]) -> io::Result<u8> {
    use std::os::unix::process::CommandExt;
    let own = env::current_exe()?;
    Err(Command::new("/bin/sh")
        .args(["-c", r#"trap "" TERM HUP INT; exec "$0" hang"#])
        .arg(own)
        .exec())
}

/// A daemon: in a session of its own, out of reach of any group.
fn hang_alone(arguments: &[String]) -> io::Result<u8> {
    if number(arguments, 0) > 0 {
        let seconds = number(arguments, 0);
        rustix::process::setsid()?;
        thread::sleep(Duration::from_secs(seconds));
        return Ok(0);
    }
    hang(arguments)
}

/// Says on SIGTERM what it has to say, and leaves.
fn farewell(_: &[String]) -> io::Result<u8> {
    use std::os::unix::process::CommandExt;
    Err(Command::new("/bin/sh")
        .args([
            "-c",
            r#"trap 'echo "interrupted, nothing was changed" >&2; exit 1' TERM; echo hanging >&4; while :; do sleep 0.05; done"#,
        ])
        .exec())
}

/// `MODE [SECONDS]`: succeeds, and leaves a process that holds every stream.
fn leave(arguments: &[String]) -> io::Result<u8> {
    say("3", b"state")?;
    say("1", b"token")?;
    let mode: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let child = again(&mode)?.spawn()?;
    say("4", format!("left {}\n", child.id()).as_bytes())?;
    Ok(0)
}

/// Exits at once; a grandchild completes the state within the grace.
fn leave_late_writer(_: &[String]) -> io::Result<u8> {
    say("1", b"token")?;
    again(&["write-late"])?.spawn()?;
    Ok(0)
}

fn write_late(_: &[String]) -> io::Result<u8> {
    thread::sleep(Duration::from_millis(50));
    say("3", b"late state")?;
    Ok(0)
}

/// `DEPTH`: a tree of processes, two to the depth, all of which stay.
fn forks(arguments: &[String]) -> io::Result<u8> {
    let depth = number(arguments, 0);
    if depth > 0 {
        for _ in 0..2 {
            again(&["forks", &(depth - 1).to_string()])?.spawn()?;
        }
    } else {
        say("4", b"leaf\n")?;
    }
    forever()
}

/// The guard of the mode `broker`.
fn guard(_: &[String]) -> io::Result<u8> {
    epithet_plugin::guard_main();
    Ok(0)
}

/// `MODE...`: is a broker with a guard that runs this program in `MODE`; prints the guard's process id, progress and the end.
///
/// The whole of stdin is read first: each line `success` runs an honest plugin that leaves a process before.
fn broker(arguments: &[String]) -> io::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let own = env::current_exe()?.display().to_string();
    let guard = Arc::new(Guard::reexec(&["guard"])?);
    let runner = |mode: &[String]| {
        let words = std::iter::once(own.clone()).chain(mode.iter().cloned());
        Runner::new(PluginCommand::Argv(words.collect())).with_guard(guard.clone())
    };
    let before = String::from_utf8_lossy(&read_stdin()?).lines().count();
    runtime.block_on(async {
        for _ in 0..before {
            let (sink, mut feed) = progress_channel();
            let left = runner(&["leave".to_owned(), "hang".to_owned()]);
            let reply = left
                .run(
                    &Default::default(),
                    &Invocation::default(),
                    sink,
                    Default::default(),
                )
                .await;
            while let Some(progress) = feed.next().await {
                print!("{}", progress.text);
            }
            println!("success {}", reply.is_ok());
        }
        let (sink, mut feed) = progress_channel();
        let runner = runner(arguments);
        let run = tokio::spawn(async move {
            runner
                .run(
                    &Default::default(),
                    &Invocation::default(),
                    sink,
                    Default::default(),
                )
                .await
        });
        while let Some(progress) = feed.next().await {
            if let Some(process) = guard
                .process_id()
                .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            {
                println!("guard {}", process.as_raw_pid());
            }
            print!("{}", progress.text);
            io::stdout().flush()?;
        }
        let outcome = run.await.map_err(io::Error::other)?;
        match outcome {
            Ok(reply) => println!("succeeded\n{}", String::from_utf8_lossy(reply.token.expose())),
            Err(error) => println!("failed\n{}", error.explain()),
        }
        Ok(0)
    })
}
