//! A policy server that answers some requests and leaves others waiting for ever, as when one of several behind a load
//! balancer hangs: what everybody else still gets from the CA, and how soon all is well when it answers again.

use crate::house::{EPITHET, House, text};
use crate::load::{GOOD_HOST, answered, client, request};
use crate::{mib, ms, quantile};
use epithet_testkit::Server;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;
/// Clients whose requests are left waiting: fewer and more than may wait at once.
const WAITING: [usize; 3] = [0, 500, 2000];
const HOLE: &str = "hole.example.com";
const DECISION: &str = r#"{"certParams":{"identity":"alice@example.com","principals":["root"],"expiration":300000000000,"extensions":{"permit-pty":""}}}"#;

pub(crate) fn run(house: &House) {
    let (open, is_open) = watch::channel(false);
    let policy = start_policy(is_open);
    let audit = house.home.join("audit-of-holes.log");
    let arguments = [
        "ca",
        "--listen=127.0.0.1:0",
        "--policy",
        &format!("http://{policy}"),
        "--key",
        text(house.ca_key.path()),
        "--audit-file",
        text(&audit),
    ];
    let mut ca = Server::start(Path::new(EPITHET), &house.home, arguments);
    let address: SocketAddr = ca
        .url()
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    println!(
        "\na policy server that never answers some requests (503 after 5 s), {CONNECTIONS} connections whose requests it answers:"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // In turns, since what a machine gives changes from one moment to the next.
    let mut rounds: [Vec<Found>; WAITING.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (waiting, found) in WAITING.into_iter().zip(&mut rounds) {
            found.push(runtime.block_on(beside(address, &house.token, waiting)));
        }
    }
    let alone = rounds[0].clone();
    for (waiting, found) in WAITING.into_iter().zip(&rounds) {
        let of = |one: fn(&Found) -> usize| median(found.iter().map(one).collect());
        let share = |one: fn(&Found) -> usize| {
            let percent = found
                .iter()
                .zip(&alone)
                .map(|(beside, alone)| one(beside) * 100 / one(alone).max(1));
            match waiting {
                0 => String::new(),
                _ => format!(" ({} % of alone, goal: 90 %)", median(percent.collect())),
            }
        };
        let mut p99: Vec<_> = found.iter().map(|found| found.p99).collect();
        p99.sort();
        println!(
            "  beside {waiting} that wait: {} certificates a second, p99 {}{}, {} refused; GET / {} a second{}",
            rate(of(|found| found.certificates)),
            ms(quantile(&p99, 0.5)),
            share(|found| found.certificates),
            of(|found| found.refused),
            rate(of(|found| found.keys)),
            share(|found| found.keys)
        );
    }
    println!("    resident {}", mib(ca.daemon().resident_bytes()));
    let recovery = runtime.block_on(recovery(address, &house.token, &open));
    println!(
        "  it answers again: the first certificate of those that waited after {}   (goal: 1 s)",
        ms(recovery)
    );
}

fn rate(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX) / MEASURED.as_secs()
}

fn median(mut numbers: Vec<usize>) -> usize {
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}

/// What one round found.
#[derive(Debug, Clone)]
struct Found {
    certificates: usize,
    p99: Duration,
    refused: usize,
    keys: usize,
}

/// Certificates, and then `GET /`, while so many others wait.
async fn beside(address: SocketAddr, token: &str, waiting: usize) -> Found {
    let held: Vec<_> = (0..waiting)
        .map(|_| tokio::spawn(wait_again_and_again(address, request(address, token, HOLE))))
        .collect();
    let (certificates, refused) = measure(address, &request(address, token, GOOD_HOST)).await;
    let (keys, _) = measure(
        address,
        format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes(),
    )
    .await;
    for client in held {
        client.abort();
    }
    Found {
        certificates: certificates.len(),
        p99: quantile(&certificates, 0.99),
        refused,
        keys: keys.len(),
    }
}

/// The latencies of the measured time, and how often somebody was refused; they ask again, on a new connection.
async fn measure(address: SocketAddr, request: &[u8]) -> (Vec<Duration>, usize) {
    let begun = Instant::now();
    let (from, until) = (begun + WARM_UP, begun + WARM_UP + MEASURED);
    let asks = || {
        let request = request.to_vec();
        tokio::spawn(async move {
            let (mut latencies, mut refused) = (Vec::new(), 0);
            while Instant::now() < until {
                match client(address, request.clone(), from, until, &mut latencies).await {
                    Ok(()) => {}
                    Err(_) => refused += 1,
                }
            }
            (latencies, refused)
        })
    };
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| asks()).collect();
    let (mut latencies, mut refused) = (Vec::new(), 0);
    for client in clients {
        let (some, times) = client.await.expect("a client ends");
        latencies.extend(some);
        refused += times;
    }
    latencies.sort();
    (latencies, refused)
}

/// Asks, waits for the refusal, waits as long as a client would that was told to come later, and asks again.
async fn wait_again_and_again(address: SocketAddr, request: Vec<u8>) {
    let mut buffer = vec![0; 4096];
    loop {
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&request).await?;
            while stream.read(&mut buffer).await? > 0 {
                if buffer.starts_with(b"HTTP/1.1 503") {
                    break;
                }
            }
            io::Result::Ok(())
        };
        let _ = asked.await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// How long after the policy server answers everybody again the first of those who got no answer gets a certificate.
async fn recovery(address: SocketAddr, token: &str, open: &watch::Sender<bool>) -> Duration {
    let held: Vec<_> = (0..500)
        .map(|_| tokio::spawn(wait_again_and_again(address, request(address, token, HOLE))))
        .collect();
    tokio::time::sleep(Duration::from_secs(7)).await;
    open.send_replace(true);
    let begun = Instant::now();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&request(address, token, HOLE)).await?;
            answered(&mut stream, &mut buffer).await
        };
        if asked.await.is_ok() {
            break;
        }
    }
    let elapsed = begun.elapsed();
    for client in held {
        client.abort();
    }
    elapsed
}

/// A policy server on a thread of its own.
fn start_policy(is_open: watch::Receiver<bool>) -> SocketAddr {
    let (tell, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a loopback port is free");
            let _ = tell.send(listener.local_addr().expect("it is bound"));
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(decide(stream, is_open.clone()));
                }
            }
        });
    });
    address.recv().expect("the policy server starts")
}

/// Answers requests on one connection, but for those about the hole while it is one.
async fn decide(mut stream: TcpStream, mut is_open: watch::Receiver<bool>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = whole(&buffer) {
                break end;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let is_hole = String::from_utf8_lossy(&buffer[..end]).contains(HOLE);
        if is_hole {
            let mut more = [0];
            tokio::select! {
                opened = is_open.wait_for(|is_open| *is_open) => drop(opened),
                // The CA has given up waiting, and asks nothing more on this connection.
                _ = stream.read(&mut more) => return Ok(()),
            }
        }
        buffer.drain(..end);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{DECISION}",
            DECISION.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Where the first request ends, once it is there as a whole.
fn whole(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).ok()?.to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.trim().parse::<usize>().ok())
        .unwrap_or(0);
    (buffer.len() >= head + length).then_some(head + length)
}
