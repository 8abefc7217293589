//! A CA's key is exchanged while people go on logging in.

use crate::office::Office;
use epithet_testkit::{DEADLINE, KeyPair, wait_until};
use epithet_wire::limits::CA_KEYS_ASK_PAUSE;
use rustix::process::Signal;

fn path(key: &KeyPair) -> String {
    key.path().display().to_string()
}

fn public(key: &KeyPair) -> String {
    key.public_path().display().to_string()
}

/// `algorithm base64`
fn bare(key: &KeyPair) -> String {
    key.public_line().split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_first_key_signs_and_all_are_published() {
    let office = Office::new();
    let [old, new, later] = ["old", "new", "later"].map(|name| office.key(name));
    let ca = office.server([
        "--ca-key",
        &path(&old),
        "--ca-key",
        &path(&new),
        "--ca-key",
        &public(&later),
    ]);
    let lines = format!("{}\n{}\n{}\n", bare(&old), bare(&new), bare(&later));
    for path in ["/", "/ca-keys"] {
        assert_eq!(ca.get(path).body, lines, "{path}");
    }
    let told = office.described(&ca.ask("alice", &office.question()));
    assert!(told.contains(&old.fingerprint()), "{told}");

    let refused = office.epithet(&["server", "--ca-key", &public(&later)]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("the first key signs"), "{refused:?}");
}

#[test]
fn a_policy_server_believes_whichever_published_key_signs() {
    let office = Office::new();
    let [old, new] = ["old", "new"].map(|name| office.key(name));
    // It is told the keys by a file of several lines, as a host is.
    let both = office.home.write(
        "both.pub",
        format!(
            "# the CA's keys\n{}\n\n{}\n",
            old.public_line(),
            new.public_line()
        ),
    );
    let mut policy = office.policy(["--listen=127.0.0.1:0", "--ca-pubkey", &both.display().to_string()]);
    for (first, second) in [(&old, &new), (&new, &old)] {
        let ca = office.ca(policy.url(), ["--key", &path(first), "--key", &path(second)]);
        let told = office.described(&ca.ask("alice", &office.question()));
        assert!(told.contains(&first.fingerprint()), "{told}");
    }
    // The old one is forgotten without a restart.
    std::fs::write(&both, new.public_line()).expect("a file");
    policy.server.daemon().signal(Signal::HUP);
    let forgotten = office.ca(policy.url(), ["--key", &path(&old)]);
    let refused = wait_until(DEADLINE, || {
        let answer = forgotten.ask("alice", &office.question());
        (answer.status() == 502).then_some(answer)
    });
    assert!(
        refused
            .expect("a refusal")
            .body
            .contains("does not accept this CA")
    );
    let ca = office.ca(policy.url(), ["--key", &path(&new)]);
    assert_eq!(ca.ask("alice", &office.question()).status(), 200);
}

#[test]
fn a_policy_server_takes_all_keys_from_the_cas_url() {
    let office = Office::new();
    let [old, new] = ["old", "new"].map(|name| office.key(name));
    let published = office.server(["--ca-key", &path(&old), "--ca-key", &path(&new)]);
    let policy = office.policy(["--listen=127.0.0.1:0", "--ca-pubkey", published.url()]);
    let ca = office.ca(policy.url(), ["--key", &path(&new), "--key", &path(&old)]);
    assert_eq!(ca.ask("alice", &office.question()).status(), 200);
}

/// As `ca rotate` leads through it: the CA is restarted with a key to come, and then that one signs.
#[test]
fn a_policy_server_asks_the_ca_for_its_keys_when_it_begins_to_sign_with_another() {
    let office = Office::new();
    let [old, new, unknown] = ["old", "new", "unknown"].map(|name| office.key(name));
    // Addresses that outlive the processes there.
    let [ca_url, policy_url] =
        ["ca", "policy"].map(|name| format!("unix://{}", office.home.join(name).display()));
    let ca = |keys: &[&str]| {
        let keys = keys.iter().flat_map(|key| ["--key", key]);
        office.ca_at(&ca_url, &policy_url, keys)
    };
    let running = ca(&[&path(&old)]);
    let mut policy = office.policy(["--listen", &policy_url, "--ca-pubkey", &ca_url]);
    assert_eq!(running.ask("alice", &office.question()).status(), 200);
    drop(running);
    let running = ca(&[&path(&old), &public(&new)]);
    assert_eq!(running.ask("alice", &office.question()).status(), 200);
    drop(running);
    let running = ca(&[&path(&new), &public(&old)]);
    let told = office.described(&running.ask("alice", &office.question()));
    assert!(told.contains(&new.fingerprint()), "{told}");

    // Strangers are refused, and however many they are, the CA is asked now and then.
    let asked = |policy: &mut crate::office::Running| {
        let log = policy.server.daemon().stderr().text();
        log.matches("requests of the CA with this key are answered")
            .count()
            / 2
    };
    let (before, began) = (asked(&mut policy), std::time::Instant::now());
    let stranger = office.ca(&policy_url, ["--key", &path(&unknown)]);
    for _ in 0..20 {
        assert_eq!(stranger.ask("alice", &office.question()).status(), 502);
    }
    let most = began.elapsed().as_secs() / CA_KEYS_ASK_PAUSE.as_secs() + 1;
    let more = asked(&mut policy) - before;
    assert!(
        u64::try_from(more).expect("a few") <= most,
        "{more} questions, expected {most} at most"
    );
    assert_eq!(running.ask("alice", &office.question()).status(), 200);
}

#[test]
fn rotate_says_which_step_is_next() {
    let office = Office::new();
    let [old, new] = ["old", "new"].map(|name| office.key(name));
    let trusted = office.home.write("trusted", old.public_line() + "\n");
    let rotate = |keys: &[&KeyPair], more: &[&str]| {
        let arguments: Vec<_> = keys
            .iter()
            .flat_map(|key| ["--ca-key".to_owned(), path(key)])
            .collect();
        let ca = office.server(arguments);
        let next = public(&new);
        let all = [&["ca", "rotate", ca.url(), "--next", &next][..], more].concat();
        let finished = office.epithet(&all);
        (finished.code(), finished.stdout)
    };
    let host = ["--trusted", &trusted.display().to_string()];
    for (keys, more, code, expected) in [
        (vec![&old], &[][..], 1, "step 2: publish"),
        (vec![&old, &new], &host[..], 1, "step 3: have these trust"),
        (vec![&old, &new], &[], 1, "step 4: --key NEW --key OLD"),
        (vec![&new, &old], &[], 1, "step 5 and 6"),
        (vec![&new], &[], 0, "Nothing is left to do."),
    ] {
        let (status, told) = rotate(&keys, more);
        assert!(told.contains(expected), "{told}");
        assert_eq!(status, Some(code), "{told}");
    }
    let (_, told) = rotate(&[&old, &new], &host);
    assert!(
        told.contains(&format!("does not trust {}", new.fingerprint())),
        "{told}"
    );
    std::fs::write(
        &trusted,
        format!("{}\n{}\n", old.public_line(), new.public_line()),
    )
    .expect("a file");
    let (_, told) = rotate(&[&old, &new], &host);
    assert!(
        told.contains("trusts all of them") && told.contains("step 4"),
        "{told}"
    );

    let (status, told) = rotate(&[&new], &host);
    assert!(
        told.contains(&format!("trusts {}", old.fingerprint())) && !told.contains("Nothing is left"),
        "{told}"
    );
    assert_eq!(status, Some(1), "{told}");
    std::fs::write(&trusted, new.public_line() + "\n").expect("a file");
    assert_eq!(rotate(&[&new], &host).0, Some(0));

    let nobody = office.epithet(&["ca", "rotate", "http://127.0.0.1:1"]);
    assert_eq!(nobody.code(), Some(1), "{nobody:?}");
    let insecure = office.epithet(&["ca", "rotate", "http://ca.example.com"]);
    assert!(insecure.stderr.contains("in the clear"), "{insecure:?}");
}

#[test]
fn rotate_reads_what_a_host_trusts_no_further_than_sshd_does() {
    let office = Office::new();
    let [one, two] = ["one", "two"].map(|name| office.key(name));
    let ca = office.server(["--ca-key", &path(&one), "--ca-key", &path(&two)]);
    let lines = format!(
        "{}\noops this line is no key\n{}\n",
        one.public_line(),
        two.public_line()
    );
    let trusted = office.home.write("broken", lines).display().to_string();
    let told = office.epithet(&["ca", "rotate", ca.url(), "--trusted", &trusted]);
    assert_eq!(told.code(), Some(1), "{told:?}");
    let verdict = format!(
        "does not trust {}; sshd reads no further than line 2",
        two.fingerprint()
    );
    assert!(
        told.stdout.contains(&verdict) && !told.stdout.contains("trusts all of them"),
        "{told:?}"
    );
}

/// Answers one request with so many bytes of comment before `line`, or without end; says how many it got rid of.
fn page(size: Option<usize>, line: &str) -> (String, std::thread::JoinHandle<usize>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let line = format!("\n{line}\n");
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = BufReader::new(stream.try_clone().expect("a stream"));
        while request
            .by_ref()
            .lines()
            .next()
            .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
        {}
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
        let padding = size.map_or(usize::MAX, |size| size - line.len());
        let mut written = 0;
        while written < padding {
            let piece = vec![b'#'; (padding - written).min(16 * 1024)];
            if stream.write_all(&piece).is_err() {
                return written;
            }
            written += piece.len();
        }
        let _ = stream.write_all(line.as_bytes());
        written
    });
    (url, serving)
}

#[test]
fn published_keys_are_read_up_to_a_limit_and_an_endless_answer_is_given_up() {
    use epithet_wire::limits::HTTP_BODY_MAX;
    let office = Office::new();
    let key = office.key("ca");
    let (url, serving) = page(Some(HTTP_BODY_MAX), &bare(&key));
    let all = office.epithet(&["ca", "rotate", &url]);
    assert!(all.stdout.contains(&key.fingerprint()), "{all:?}");
    serving.join().expect("the page was read");
    let (url, _) = page(Some(HTTP_BODY_MAX + 1), &bare(&key));
    let more = office.epithet(&["ca", "rotate", &url]);
    assert!(more.stderr.contains("larger than 65536 bytes"), "{more:?}");
    let (url, serving) = page(None, "");
    let endless = office.epithet(&["ca", "rotate", &url]);
    assert_eq!(endless.code(), Some(1), "{endless:?}");
    assert!(endless.stderr.contains("larger than 65536 bytes"), "{endless:?}");
    // What is beyond the limit lies in the buffers of the two sockets.
    let taken = serving.join().expect("the page ended");
    assert!(taken < 64 * 1024 * 1024, "{taken} bytes were taken");
}
