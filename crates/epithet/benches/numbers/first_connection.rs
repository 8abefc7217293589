//! What a whole `ssh host true` takes: with a key from a file, with a certificate from a file, with the agent already
//! there, and as the first connection to a host whose certificate has to come from a CA that is 20 ms away.

use crate::distance;
use crate::house::{House, text};
use crate::{ms, quantile};
use epithet_testkit::{Broker, KeyPair, Sshd, SshdSettings, TestUser};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const ROUNDS: usize = 100;
/// Half of the round trip to the CA.
const ONE_WAY: Duration = Duration::from_millis(10);

/// The quickest key exchange that everybody has: the less time ssh needs itself, the less is there to hide behind.
const KEX: &str = "  KexAlgorithms curve25519-sha256\n";

/// The ways to log in, in the order in which each round tries them.
const WAYS: [&str; 4] = [
    "key from a file",
    "certificate from a file",
    "agent alive",
    "first connection",
];

pub(crate) fn run(house: &House) {
    let user = TestUser::current();
    let key = KeyPair::generate(house.home.path(), "plain_key");
    house.ca_key.certify(&key, "bench", user.name(), 1, "+1h");
    let sshd = Sshd::start(SshdSettings {
        ca_public_key: Some(house.ca_key.public_line()),
        authorized_keys: Some(key.public_line()),
        ..SshdSettings::default()
    });
    house.home.trust(&sshd);
    let address = house
        .server
        .url()
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let ca_url = format!("http://127.0.0.1:{}", distance::relay(address, ONE_WAY));
    let broker = house.another_broker("distant", &ca_url, &["--match", "127.0.0.1"]);
    let configs = configs(house, &sshd, &broker, &key);

    // A terminal's place is taken by a file: with a pipe, `match` would wait for the CA, to say a late "no" itself.
    let words = house.home.join("first-connection.stderr");
    let log_in = |way: usize| {
        let stderr = std::fs::File::create(&words).expect("the home can be written to");
        let mut ssh = house.home.command("ssh");
        ssh.arg("-F").arg(&configs[way]).args(["127.0.0.1", "true"]);
        ssh.stdout(Stdio::null()).stderr(stderr);
        let begun = Instant::now();
        let status = ssh.status().expect("ssh is installed");
        let elapsed = begun.elapsed();
        assert!(
            status.success(),
            "{}: {}",
            WAYS[way],
            std::fs::read_to_string(&words).unwrap_or_default()
        );
        elapsed
    };
    // The login, the CA's keys, and everything's first time.
    for way in 0..WAYS.len() {
        log_in(way);
    }
    let mut times: [Vec<Duration>; WAYS.len()] = Default::default();
    for round in 0..ROUNDS {
        // Each round begins with another way, so that nothing that repeats itself is always somebody's.
        for turn in 0..WAYS.len() {
            let way = (round + turn) % WAYS.len();
            if WAYS[way] == "first connection" {
                empty_agents(broker.run_dir());
            }
            times[way].push(log_in(way));
        }
    }
    report(times);
}

/// A configuration for each way, in their order: the same but for the line that says what to log in with.
fn configs(house: &House, sshd: &Sshd, broker: &Broker, key: &KeyPair) -> [String; WAYS.len()] {
    let certificate = format!("{}-cert.pub", key.path().display());
    let from_file = format!(
        "  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n",
        key.path().display()
    );
    let include = format!("Include {}/ssh-config.conf\n", broker.run_dir().display());
    let ways = [
        (String::new(), from_file.clone() + "  CertificateFile none\n"),
        (
            String::new(),
            format!("{from_file}  CertificateFile {certificate}\n"),
        ),
        (include.clone(), String::new()),
        (include, String::new()),
    ];
    let mut number = 0;
    ways.map(|(before, lines)| {
        number += 1;
        let host = format!(
            "{before}Host 127.0.0.1\n  Port {}\n  User {}\n{KEX}{lines}",
            sshd.port(),
            TestUser::current().name()
        );
        let isolation = format!(
            "Match all\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  IdentityFile none\n  BatchMode yes\n",
            text(&house.home.join(".ssh/known_hosts"))
        );
        let path = house.home.write(format!(".ssh/way-{number}"), host + &isolation);
        text(&path).to_owned()
    })
}

/// Makes every agent forget its certificate (RFC 9987 section 3.4), so that the next connection is a first one.
fn empty_agents(run_dir: &Path) {
    for entry in std::fs::read_dir(run_dir.join("agent")).expect("the broker made it") {
        let path = entry.expect("a name").path();
        let mut agent = UnixStream::connect(path).expect("the agent listens");
        agent.write_all(&[0, 0, 0, 1, 19]).expect("the agent reads");
        let mut reply = [0; 5];
        agent.read_exact(&mut reply).expect("a reply");
        assert_eq!(reply[4], 6, "the agent is emptied");
    }
}

fn report(times: [Vec<Duration>; WAYS.len()]) {
    println!(
        "\nwhole `ssh host true`, CA {} ms away, {ROUNDS} rounds of all four:",
        2 * ONE_WAY.as_millis()
    );
    let goals = ["", "", "   (goal: +2 ms)", "   (goal: +5 ms)"];
    for (way, name) in WAYS.iter().enumerate() {
        let mut added: Vec<_> = times[way]
            .iter()
            .zip(&times[0])
            .map(|(ours, plain)| signed_ms(*ours, *plain))
            .collect();
        added.sort_by(f64::total_cmp);
        let mut sorted = times[way].clone();
        sorted.sort();
        println!(
            "  {name:<24} median {}, p95 {}, median of the pairs {:+.2} ms{}",
            ms(quantile(&sorted, 0.5)),
            ms(quantile(&sorted, 0.95)),
            added[ROUNDS / 2],
            goals[way]
        );
    }
}

fn signed_ms(ours: Duration, plain: Duration) -> f64 {
    (ours.as_secs_f64() - plain.as_secs_f64()) * 1000.0
}
