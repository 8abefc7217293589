//! The broker remembers the phases of the last connections, under the request id that the CA's audit log has.

use crate::support::Story;
use epithet_testkit::{Broker, DEADLINE, wait_until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// What `{"trace":{}}` answers.
fn traces(broker: &Broker) -> Vec<Value> {
    let mut stream = UnixStream::connect(broker.socket()).expect("the broker listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    stream.write_all(b"{\"trace\":{}}\n").expect("the broker reads");
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .expect("the broker answers");
    let reply: Value = serde_json::from_str(&line).expect("the answer is JSON");
    reply["traces"].as_array().expect("a list of traces").clone()
}

fn phases(trace: &Value) -> Vec<&str> {
    let phases = trace["phases"].as_array().expect("a list of phases");
    let names = phases.iter().filter_map(|phase| phase["name"].as_str());
    names.collect()
}

#[test]
fn each_connection_s_phases_are_kept_by_its_request_id_and_hosts_that_are_not_ours_leave_no_trace() {
    let story = Story::begin();
    let broker = story.broker_with(["--match", "127.0.0.*"]);
    story.laptop.log_in("127.0.0.1");
    story.laptop.log_in("127.0.0.1");
    // Not one of ours: it logs in with another key, or not at all.
    story.laptop.run_ssh(["localhost", "true"]);

    let traces = wait_until(DEADLINE, || {
        let traces = traces(&broker);
        let is_signed = |trace: &Value| phases(trace).contains(&"sign");
        (traces.len() == 2 && traces.iter().all(is_signed)).then_some(traces)
    })
    .expect("both logins were signed");
    let [first, second] = traces.as_slice() else {
        unreachable!("there are two")
    };
    for name in ["gate", "login", "match", "key", "ca", "list", "sign"] {
        assert!(phases(first).contains(&name), "{name} is not in {first}");
    }
    for name in ["gate", "match", "list", "sign"] {
        assert!(phases(second).contains(&name), "{name} is not in {second}");
    }
    assert!(!phases(second).contains(&"ca"), "{second}");
    assert_eq!(first["outcome"], "certificate");
    assert_eq!(second["outcome"], "agent was there");
    assert_eq!(first["host"], "127.0.0.1");
    assert_eq!(first["user"], story.laptop.home.user().name());
    assert_eq!(first["port"], story.sshd.port());
    let decisions = story.site.decisions();
    assert_eq!(decisions.len(), 1);
    for trace in [first, second] {
        assert_eq!(trace["requestId"], decisions[0]["request_id"], "{}", decisions[0]);
        let started: jiff::Timestamp = trace["startedAt"].as_str().unwrap().parse().unwrap();
        assert!(started.duration_until(jiff::Timestamp::now()).as_secs() < 600);
    }
    let ca = (first["phases"].as_array().unwrap().iter())
        .find(|phase| phase["name"] == "ca")
        .unwrap();
    assert!(ca["durationMs"].as_f64().unwrap() > 0.0, "{ca}");
    assert!(ca["note"].as_str().unwrap().contains(story.site.url()), "{ca}");
}

#[test]
fn a_connection_without_a_certificate_says_why_in_its_trace() {
    let story = Story::begin();
    let broker = story.broker();
    story.laptop.run_ssh(["-l", "nobody-here", "127.0.0.1", "true"]);
    let traces = traces(&broker);
    let [trace] = traces.as_slice() else {
        panic!("one trace, not {traces:?}")
    };
    let outcome = trace["outcome"].as_str().unwrap();
    assert!(outcome.starts_with("access denied by policy"), "{outcome}");
}
