//! How many logins one agent signs: 32 connections, each bound to a session of its own, the load on the same cores.

use crate::house::{House, hash};
use crate::minting::ask;
use epithet_ssh::CaKey;
use epithet_ssh::encoding::{Put, Reader};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 32;
const MEASURED: Duration = Duration::from_secs(5);
const NUMBER: usize = 9_000_000;

pub(crate) fn run(house: &House) {
    ask(house.broker.socket(), NUMBER);
    let socket = house.broker.run_dir().join("agent").join(hash(NUMBER));
    let until = Instant::now() + MEASURED;
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let socket: PathBuf = socket.clone();
            thread::spawn(move || signed(&socket, number, until))
        })
        .collect();
    let count: usize = clients
        .into_iter()
        .map(|client| client.join().expect("a client ends"))
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = count as f64 / MEASURED.as_secs_f64();
    println!(
        "\none agent, {CONNECTIONS} connections, each bound to its session, {} s:",
        MEASURED.as_secs()
    );
    println!("  {rate:.0} signatures a second   (goal: 5000)");
}

/// Binds a connection, as ssh does, and has logins signed until then. Says how many.
fn signed(socket: &Path, number: usize, until: Instant) -> usize {
    let mut agent = UnixStream::connect(socket).expect("the agent listens");
    let host = CaKey::generate_ed25519().expect("random bytes");
    let session_id = format!("{number:032}");
    let mut bind = vec![27];
    bind.put_string("session-bind@openssh.com");
    bind.put_string(host.public().blob());
    bind.put_string(&session_id);
    bind.put_string(host.sign(session_id.as_bytes()).expect("a signature"));
    bind.put_u8(0);
    assert_eq!(exchange(&mut agent, &bind), [6], "the bind holds");
    let key = certificate(&mut agent);
    let mut login = Vec::new();
    login.put_string(&session_id);
    login.put_u8(50);
    login.put_string("root");
    login.put_string("ssh-connection");
    login.put_string("publickey");
    login.put_u8(1);
    login.put_string("ssh-ed25519-cert-v01@openssh.com");
    login.put_string(&key);
    let mut sign = vec![13];
    sign.put_string(&key);
    sign.put_string(&login);
    sign.put_u32(0);
    let mut count = 0;
    while Instant::now() < until {
        let reply = exchange(&mut agent, &sign);
        assert_eq!(reply[0], 14, "the login is signed");
        count += 1;
    }
    count
}

fn certificate(agent: &mut UnixStream) -> Vec<u8> {
    let reply = exchange(agent, &[11]);
    let mut reader = Reader::new(&reply[5..]);
    reader.string().expect("the agent has its certificate").to_vec()
}

fn exchange(agent: &mut UnixStream, message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(message.len() + 4);
    frame.put_string(message);
    agent.write_all(&frame).expect("the agent reads");
    let mut length = [0; 4];
    agent.read_exact(&mut length).expect("a reply");
    let mut reply = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("a length")];
    agent.read_exact(&mut reply).expect("a whole reply");
    reply
}
