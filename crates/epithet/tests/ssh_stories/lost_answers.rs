//! A CA's answer that is lost on one way: the broker asks on the other, and the CA gives the same certificate.

use crate::laptop::start;
use crate::support::Story;
use epithet_testkit::{DEADLINE, Finished};
use serde_json::Value;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Passes requests on to `ca`, and of its first answer to a `POST` only so many bytes back before it hangs up. Returns its
/// URL and how many `POST`s there were.
fn losing(ca: &str, kept: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let target = ca.trim_start_matches("http://").to_owned();
    let posts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&posts);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (target, count) = (target.clone(), Arc::clone(&count));
            std::thread::spawn(move || pass_on(stream, &target, &count, kept));
        }
    });
    (url, posts)
}

/// One connection, until either side ends it.
fn pass_on(mut near: TcpStream, target: &str, posts: &AtomicUsize, kept: usize) -> io::Result<()> {
    let mut far = TcpStream::connect(target)?;
    loop {
        let question = message(&mut near)?;
        far.write_all(&question)?;
        let answer = message(&mut far)?;
        if question.starts_with(b"POST ") && posts.fetch_add(1, Ordering::SeqCst) == 0 {
            return near.write_all(&answer[..kept.min(answer.len())]);
        }
        near.write_all(&answer)?;
    }
}

/// One HTTP message with a `Content-Length`, or without a body.
fn message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut bytes, mut one) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut one)?;
        bytes.push(one[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok([bytes, body].concat())
}

#[test]
fn a_lost_answer_is_asked_for_again_and_is_the_same_certificate() {
    // Lost as a whole, and in the middle of its body.
    for kept in [0, 700] {
        let story = Story::begin();
        let (url, posts) = losing(story.site.url(), kept);
        let both = format!("{url},priority=50:{}", story.site.url());
        let mut command = story.laptop.agent(&both, &story.plugin);
        command.args(["--match", "127.0.0.*"]);
        let broker = start(command);
        let position = story.sshd.log_position();

        let said = story.laptop.log_in("127.0.0.1");

        assert!(!said.contains("no CA is available"), "{kept}: {said}");
        broker.wait_for_log("CA unavailable");
        assert_eq!(posts.load(Ordering::SeqCst), 1, "{kept}");
        assert_eq!(story.plugin_runs(), 1, "{kept}: one login paid for both");
        let decisions = story.site.decisions();
        let outcomes: Vec<_> = decisions.iter().map(|line| line["decision"].clone()).collect();
        assert_eq!(outcomes, ["issued", "repeated"], "{kept}: {decisions:#?}");
        for field in ["serial", "certificate", "key", "key_id", "request_id"] {
            assert_eq!(decisions[0][field], decisions[1][field], "{kept}: {field}");
        }
        let serial = decisions[0]["serial"].as_str().expect("a serial");
        let line = story.accepted(position);
        assert!(line.contains(&format!("(serial {serial})")), "{kept}: {line}");

        // An operator sees both, and that the second is no second certificate.
        let list = |more: &[&str]| {
            let mut command = story.laptop.epithet();
            command.args(["audit", "list"]).arg(&story.site.audit).args(more);
            Finished::of(command, DEADLINE).success().stdout
        };
        let rows: Vec<String> = list(&[]).lines().skip(1).map(str::to_owned).collect();
        assert_eq!(rows.len(), 2, "{rows:?}");
        for (row, outcome) in rows.iter().zip([" issued ", " repeated "]) {
            assert!(
                row.contains(outcome) && row.contains(&format!("serial={serial}")),
                "{row}"
            );
        }
        let repeated = list(&["--decision", "repeated", "--json"]);
        let repeated: Value = serde_json::from_str(&repeated).expect("one line");
        assert_eq!(repeated["serial"], serial, "{repeated}");
        assert_eq!(list(&["--decision", "issued"]).lines().count(), 2);
    }
}
