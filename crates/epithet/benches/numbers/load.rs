//! How many certificates a CA issues: CA and policy in one process, 32 connections, the load on the same cores.

use crate::house::{EPITHET, House};
use crate::{ms, quantile};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(10);
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";

pub(crate) fn run(house: &House) {
    let address: SocketAddr = house
        .server
        .url()
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let request = request(address, &house.token);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (count, mut latencies, elapsed) = runtime.block_on(async {
        let begun = Instant::now();
        let (from, until) = (begun + WARM_UP, begun + WARM_UP + MEASURED);
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|_| tokio::spawn(client(address, request.clone(), from, until)))
            .collect();
        let mut latencies = Vec::new();
        for client in clients {
            latencies.extend(
                client
                    .await
                    .expect("a client ends")
                    .expect("the server answers 200"),
            );
        }
        (latencies.len(), latencies, MEASURED)
    });
    latencies.sort();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = count as f64 / elapsed.as_secs_f64();
    println!(
        "\nCA and policy in one process, RS256 token, Ed25519 CA key, {CONNECTIONS} connections, {} s:",
        MEASURED.as_secs()
    );
    println!("  {rate:.0} certificates a second   (goal: 10000)");
    println!(
        "  median {}, p99 {}   (goal: p99 10 ms)",
        ms(quantile(&latencies, 0.5)),
        ms(quantile(&latencies, 0.99))
    );
    println!("  binary {:.1} MB   (goal: 20 MB)", size(EPITHET));
}

#[expect(clippy::cast_precision_loss, reason = "a size to show")]
fn size(path: &str) -> f64 {
    std::fs::metadata(path).map_or(0.0, |metadata| metadata.len() as f64 / 1e6)
}

fn request(address: SocketAddr, token: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"publicKey":"{KEY}\n","connection":{{"remoteHost":"web.example.com","remoteUser":"root","port":22,"proxyJump":"","hash":"{}"}}}}"#,
        crate::house::hash(7)
    );
    let length = body.len();
    format!("POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// One connection that asks again as soon as it was answered; the latencies of the measured time.
async fn client(
    address: SocketAddr,
    request: Vec<u8>,
    from: Instant,
    until: Instant,
) -> io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut latencies, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok(latencies);
        }
        stream.write_all(&request).await?;
        answered(&mut stream, &mut buffer).await?;
        if begun >= from {
            latencies.push(begun.elapsed());
        }
    }
}

/// Reads one response, which must be a 200 with a length.
async fn answered(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
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
