//! How many certificates a CA issues, the load on the same cores: CA and policy in one process, in two over a Unix
//! socket, and beside thousands of clients that never finish.

use crate::house::{EPITHET, House, KEY};
use crate::{mib, ms, quantile};
use epithet_testkit::Server;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A host that the rules are about.
pub(crate) const GOOD_HOST: &str = "web.example.com";
const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(10);
/// Clients that never finish, and the ones beside them that do.
const SLOW: usize = 2000;
const BESIDE_SLOW: usize = 8;

pub(crate) fn run(house: &mut House) {
    println!(
        "\ncertificates, RS256 token, Ed25519 CA key, {CONNECTIONS} connections, {} s, the load on the same cores:",
        MEASURED.as_secs()
    );
    let one = measure(&house.server, &house.token, CONNECTIONS, 0);
    print(
        "CA and policy in one process",
        &one,
        "goal: 10000 a second, p99 10 ms",
    );
    println!(
        "    resident {}   (goal: 24 MiB)",
        mib(house.server.daemon().resident_bytes())
    );

    let (mut ca, mut policy) = house.in_two_processes();
    let two = measure(&ca, &house.token, CONNECTIONS, 0);
    print(
        "CA and policy in two, over a Unix socket",
        &two,
        "goal: 6000 a second, p99 10 ms",
    );
    println!(
        "    resident {} and {}   (goal: 24 MiB each)",
        mib(ca.daemon().resident_bytes()),
        mib(policy.daemon().resident_bytes())
    );

    let beside = measure(&house.server, &house.token, BESIDE_SLOW, SLOW);
    print(
        &format!("{BESIDE_SLOW} connections beside {SLOW} that never finish"),
        &beside,
        "goal: p99 200 ms",
    );
    println!("    resident {}", mib(house.server.daemon().resident_bytes()));
    println!("  binary {:.1} MB   (goal: 20 MB)", size(EPITHET));
}

fn print(what: &str, latencies: &[Duration], goal: &str) {
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = latencies.len() as f64 / MEASURED.as_secs_f64();
    println!("  {what}:");
    println!(
        "    {rate:.0} a second, median {}, p99 {}   ({goal})",
        ms(quantile(latencies, 0.5)),
        ms(quantile(latencies, 0.99))
    );
}

/// The latencies of the measured time, sorted.
fn measure(server: &Server, token: &str, connections: usize, slow: usize) -> Vec<Duration> {
    let address: SocketAddr = server
        .url()
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let request = request(address, token, GOOD_HOST);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut latencies = runtime.block_on(async {
        let begun = Instant::now();
        let (from, until) = (begun + WARM_UP, begun + WARM_UP + MEASURED);
        for number in 0..slow {
            tokio::spawn(never_finish(address, request.clone(), number));
        }
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let request = request.clone();
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    let ended = client(address, request, from, until, &mut latencies).await;
                    ended.map(|()| latencies)
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for client in clients {
            let answered = client.await.expect("a client ends");
            latencies.extend(answered.expect("the server answers 200"));
        }
        latencies
    });
    latencies.sort();
    latencies
}

#[expect(clippy::cast_precision_loss, reason = "a size to show")]
fn size(path: &str) -> f64 {
    std::fs::metadata(path).map_or(0.0, |metadata| metadata.len() as f64 / 1e6)
}

/// A request for a certificate for root at `host`.
pub(crate) fn request(address: SocketAddr, token: &str, host: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"publicKey":"{KEY}\n","connection":{{"remoteHost":"{host}","remoteUser":"root","port":22,"proxyJump":"","hash":"{}"}}}}"#,
        crate::house::hash(7)
    );
    let length = body.len();
    format!("POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Sends a part of a request, a byte more each second, and begins again when it is hung up on.
async fn never_finish(address: SocketAddr, request: Vec<u8>, number: usize) {
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        // In the middle of the headers, or of the body.
        let mut sent = if number.is_multiple_of(2) {
            40
        } else {
            request.len() - 30
        };
        let mut next = &request[..sent];
        while stream.write_all(next).await.is_ok() && sent + 1 < request.len() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            next = &request[sent..=sent];
            sent += 1;
        }
    }
}

/// One connection that asks again as soon as it was answered; adds the latencies of the measured time.
pub(crate) async fn client(
    address: SocketAddr,
    request: Vec<u8>,
    from: Instant,
    until: Instant,
    latencies: &mut Vec<Duration>,
) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok(());
        }
        stream.write_all(&request).await?;
        answered(&mut stream, &mut buffer).await?;
        if begun >= from {
            latencies.push(begun.elapsed());
        }
    }
}

/// Reads one response, which must be a 200 with a length.
pub(crate) async fn answered(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let bad = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, problem.to_owned());
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(bad("the server hung up"));
        }
        filled += read;
        let Some(end) = buffer[..filled]
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
        else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end])
            .map_err(|_| bad("no HTTP"))?
            .to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(bad(&String::from_utf8_lossy(&buffer[..filled])));
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.parse::<usize>().ok());
        if filled >= end + 4 + length.ok_or_else(|| bad("no length"))? {
            return Ok(());
        }
    }
}
