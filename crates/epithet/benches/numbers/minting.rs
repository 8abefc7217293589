//! A certificate from a warm broker: from the question of `match` to the agent's list with the certificate in it.

use crate::house::{House, hash};
use crate::{ms, quantile};
use epithet_match::BrokerClient;
use epithet_wire::broker::{Asker, MatchRequest, Request};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const CERTIFICATES: usize = 300;

pub(crate) fn run(house: &House) {
    let mut answers = Vec::new();
    let mut certificates = Vec::new();
    for number in 0..CERTIFICATES {
        let number = 1000 + number;
        let begun = Instant::now();
        ask(house.broker.socket(), number);
        answers.push(begun.elapsed());
        list(&house.agent_socket(number));
        certificates.push(begun.elapsed());
    }
    answers.sort();
    certificates.sort();
    println!("\ncertificate from a warm broker, {CERTIFICATES} connections one after another:");
    let line = |times: &[Duration]| {
        format!(
            "median {}, p99 {}",
            ms(quantile(times, 0.5)),
            ms(quantile(times, 0.99))
        )
    };
    println!("  match answers        {}", line(&answers));
    println!(
        "  agent has it         {}   (goal: median 3 ms)",
        line(&certificates)
    );
}

/// Asks as `match` does, and waits for the yes.
pub(crate) fn ask(socket: &Path, number: usize) {
    let request = MatchRequest {
        remote_host: "web.example.com".into(),
        remote_user: "root".into(),
        port: 22,
        hash: hash(number),
        asker: Some(Asker {
            stderr: true,
            ..Asker::default()
        }),
        ..MatchRequest::default()
    };
    let request = Request {
        match_: Some(request),
        ..Request::default()
    };
    let mut broker = BrokerClient::send(socket, &request, true).expect("the broker answers");
    loop {
        if let Some(result) = broker.next_reply().expect("a reply").result {
            assert!(result.allow, "{}", result.error);
            return;
        }
    }
}

/// Asks the agent for its list, as ssh does, and waits until the certificate is in it.
pub(crate) fn list(socket: &Path) {
    let mut agent = UnixStream::connect(socket).expect("the agent listens");
    agent.write_all(&[0, 0, 0, 1, 11]).expect("the agent reads");
    let mut length = [0; 4];
    agent.read_exact(&mut length).expect("a reply");
    let mut reply = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("a length")];
    agent.read_exact(&mut reply).expect("a whole reply");
    assert_eq!(reply[..5], [12, 0, 0, 0, 1], "the agent has one certificate");
}
