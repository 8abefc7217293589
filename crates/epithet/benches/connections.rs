//! The numbers of the broker under people's hands: `cargo bench -p epithet --bench connections`.
//!
//! What Epithet adds to a first connection, a hundred ssh at once, many agents, and many signatures. Real ssh and sshd, real
//! processes of the release build, everything on loopback; the CA is 20 ms away. Prints; judges nothing.

#![expect(clippy::print_stdout, reason = "prints its figures")]

use epithet_ssh::encoding::{Put, Reader};
use epithet_testkit::{Broker, Home, KeyPair, Server, Sshd, SshdSettings, plugin_script};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");
/// How far away the CA is: half of it each way.
const ROUND_TRIP: Duration = Duration::from_millis(20);
const PAIRS: usize = 100;
const AT_ONCE: usize = 100;
/// As many as the usual limit of open files (20 000) allows.
const AGENTS: usize = 9_000;
const SIGNERS: usize = 32;
const SIGNING: Duration = Duration::from_secs(5);

fn main() {
    // `cargo test --benches` runs benches too, as a test that they start; the numbers would mean nothing there.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let scene = Scene::build();
    pairs(&scene);
    at_once(&scene);
    signatures(&scene);
    agents(&scene);
}

/// A person with a key and a broker, a host that takes both, and a CA that is far away.
struct Scene {
    home: Home,
    sshd: Sshd,
    broker: Broker,
    server: Server,
    plugin: PathBuf,
    user: String,
}

impl Scene {
    fn build() -> Self {
        let home = Home::new();
        let (ca, own) = (
            KeyPair::generate(home.path(), "ca.key"),
            KeyPair::generate(home.path(), "own_key"),
        );
        let user = home.user().name().to_owned();
        let rules = json!({"policy": {
            "token": "command",
            "command": r#"printf '{"identity": "alice"}'"#,
            "users": {"alice": ["admin"]},
            "defaults": {"allow": {(user.clone()): ["admin"]}, "expiration": "10m"},
            "hosts": {"127.*": {}, "*.example.com": {}},
        }});
        let rules = home.write("server.json", rules.to_string());
        let path = |path: &Path| path.display().to_string();
        let server = Server::start(
            Path::new(EPITHET),
            &home,
            [
                "server".to_owned(),
                "--listen=127.0.0.1:0".to_owned(),
                format!("--config={}", path(&rules)),
                format!("--ca-key={}", path(ca.path())),
                format!("--audit-file={}", path(&home.join("audit.log"))),
            ],
        );
        let plugin = plugin_script(home.path(), "plugin", "#!/bin/sh\necho token\n");
        let sshd = Sshd::start(SshdSettings {
            ca_public_key: Some(ca.public_line()),
            authorized_keys: Some(own.public_line()),
            more: "MaxStartups 1000\n".to_owned(),
            ..SshdSettings::default()
        });
        home.trust(&sshd);
        let broker = broker(&home, &far_away(server.url()), &plugin, &[]);
        let host = format!(
            "Host 127.0.0.1\n  Port {}\n  User {user}\n  KexAlgorithms curve25519-sha256\n  UserKnownHostsFile {}\n",
            sshd.port(),
            home.join(".ssh/known_hosts").display()
        );
        let include = broker.run_dir().join("ssh-config.conf");
        home.write("plain", format!("{host}  IdentityFile {}\n", path(own.path())));
        home.write("epithet", format!("Include {}\n{host}", include.display()));
        Self {
            home,
            sshd,
            broker,
            server,
            plugin,
            user,
        }
    }

    /// `ssh host true`, and how long that took.
    fn ssh(&self, config: &str) -> Duration {
        let began = Instant::now();
        let status = self
            .home
            .command("ssh")
            .arg("-F")
            .arg(self.home.join(config))
            .args(["127.0.0.1", "true"])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create("/dev/null").expect("/dev/null"))
            .status();
        let elapsed = began.elapsed();
        assert!(
            status.is_ok_and(|status| status.success()),
            "{config}: {}",
            self.sshd.log()
        );
        elapsed
    }

    /// The agent of the one connection, once it is there.
    fn agent(&self) -> PathBuf {
        let mut entries = std::fs::read_dir(self.broker.run_dir().join("agent")).expect("a folder");
        entries.next().expect("an agent").expect("an entry").path()
    }
}

fn broker(home: &Home, ca_url: &str, plugin: &Path, more: &[&str]) -> Broker {
    let plugin = plugin.display().to_string();
    let arguments = [
        "--ca-url",
        ca_url,
        "--match",
        "127.0.0.*,*.example.com",
        "--token-reuse",
        "1h",
        "--auth",
        &plugin,
    ];
    Broker::start(Path::new(EPITHET), home, arguments.iter().chain(more))
}

/// A proxy that passes everything on, each way half a round trip later.
fn far_away(url: &str) -> String {
    let target = url.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(&target).expect("the server listens");
            for (from, to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))] {
                let (from, to) = (from.expect("a socket"), to.expect("a socket"));
                let _ = to.set_nodelay(true);
                std::thread::spawn(move || pass_on(from, to));
            }
        }
    });
    format!("http://127.0.0.1:{port}")
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(ROUND_TRIP / 2);
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// What Epithet adds to the first connection to a host when a login is at hand.
fn pairs(scene: &Scene) {
    scene.ssh("epithet");
    let (mut plain, mut with, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        // An emptied agent is as good as none: the next ssh gets a certificate of its own.
        exchange(&mut UnixStream::connect(scene.agent()).expect("the agent"), &[19]);
        let (one, other) = (scene.ssh("plain"), scene.ssh("epithet"));
        plain.push(one);
        with.push(other);
        added.push(other.saturating_sub(one));
    }
    for times in [&mut plain, &mut with, &mut added] {
        times.sort();
    }
    println!("`ssh host true`, first connection, login at hand, CA {ROUND_TRIP:?} away, {PAIRS} pairs:");
    println!("  ssh -i key    median {}", ms(quantile(&plain, 0.5)));
    println!(
        "  with epithet  median {}   difference of the medians {}   (goal: 5 ms)",
        ms(quantile(&with, 0.5)),
        ms(quantile(&with, 0.5).saturating_sub(quantile(&plain, 0.5)))
    );
}

/// Many ssh at the same moment.
fn at_once(scene: &Scene) {
    let began = Instant::now();
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE)
            .map(|_| scope.spawn(|| scene.ssh("epithet")))
            .collect();
        running
            .into_iter()
            .map(|ssh| ssh.join().expect("an ssh"))
            .collect()
    });
    times.sort();
    println!(
        "\n{AT_ONCE} ssh at once: all in {}, median {}",
        ms(began.elapsed()),
        ms(quantile(&times, 0.5))
    );
}

/// How many logins one agent signs.
fn signatures(scene: &Scene) {
    let socket = scene.agent();
    let mut agent = UnixStream::connect(&socket).expect("the agent");
    let list = exchange(&mut agent, &[11]);
    let mut reader = Reader::new(&list[5..]);
    let certificate = reader.string().expect("a certificate").to_vec();
    let mut login = Vec::new();
    login.put_string([7; 32]);
    login.put_u8(50);
    for word in [scene.user.as_str(), "ssh-connection", "publickey"] {
        login.put_string(word);
    }
    login.put_u8(1);
    login.put_string("ssh-ed25519-cert-v01@openssh.com");
    login.put_string(&certificate);
    let mut request = vec![13];
    request.put_string(&certificate);
    request.put_string(&login);
    request.put_u32(0);
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let sign = || {
            let mut agent = UnixStream::connect(&socket).expect("the agent");
            let (began, mut count) = (Instant::now(), 0);
            while began.elapsed() < SIGNING {
                assert_eq!(exchange(&mut agent, &request)[0], 14, "a signature");
                count += 1;
            }
            count
        };
        let running: Vec<_> = (0..SIGNERS).map(|_| scope.spawn(sign)).collect();
        running
            .into_iter()
            .map(|signer| signer.join().expect("a signer"))
            .collect()
    });
    println!(
        "\none agent, {SIGNERS} connections: {} signatures a second   (goal: 5000)",
        counts.iter().sum::<usize>() / usize::try_from(SIGNING.as_secs()).expect("seconds")
    );
}

/// Many agents: what they keep, what they burn, and how fast the next question is answered.
fn agents(scene: &Scene) {
    let mut broker = broker(
        &scene.home,
        scene.server.url(),
        &scene.plugin,
        &["--name", "many", "--max-agents", "10000"],
    );
    let before = broker.daemon().resident_bytes();
    let mut times = Vec::new();
    for number in 0..AGENTS {
        times.push(ask(broker.socket(), &scene.user, number));
    }
    let last = times.split_off(AGENTS - 1000);
    let after = broker.daemon().resident_bytes();
    let pid = broker.daemon().pid();
    let burnt = cpu(pid);
    std::thread::sleep(Duration::from_secs(20));
    let idle = cpu(pid).saturating_sub(burnt);
    let mut there: Vec<_> = (0..1000)
        .map(|number| ask(broker.socket(), &scene.user, number))
        .collect();
    let mut last = last;
    for times in [&mut there, &mut last] {
        times.sort();
    }
    println!("\n{AGENTS} live agents:");
    println!(
        "  resident      {} at its start, {} with all   (goal: 64 MiB for 10000)",
        mib(before),
        mib(after)
    );
    println!(
        "  idle CPU      {:.2} %   (goal: 0.5 %)",
        idle.as_secs_f64() / 20.0 * 100.0
    );
    println!(
        "  match, agent there     median {}, p99 {}   (goal: p99 10 ms)",
        ms(quantile(&there, 0.5)),
        ms(quantile(&there, 0.99))
    );
    println!(
        "  match with certificate median {}, p99 {}",
        ms(quantile(&last, 0.5)),
        ms(quantile(&last, 0.99))
    );
}

/// Asks as `match` does without a terminal: the answer comes with the certificate.
fn ask(socket: &Path, user: &str, number: usize) -> Duration {
    let question = json!({"match": {"remoteHost": "web.example.com", "remoteUser": user, "port": 22, "proxyJump": "", "hash": format!("{number:040x}")}});
    let began = Instant::now();
    let mut stream = UnixStream::connect(socket).expect("the broker listens");
    stream
        .write_all(format!("{question}\n").as_bytes())
        .expect("the broker reads");
    for line in BufReader::new(stream).lines() {
        let reply: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        if let Some(result) = reply.get("result") {
            assert_eq!(result["allow"], true, "{number}: {result}");
            break;
        }
    }
    began.elapsed()
}

/// One message to an agent and its answer, without the length.
fn exchange(agent: &mut UnixStream, message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::new();
    framed.put_string(message);
    agent.write_all(&framed).expect("the agent reads");
    let mut length = [0; 4];
    agent.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("a length")];
    agent.read_exact(&mut answer).expect("a whole answer");
    answer
}

/// The processor time that a process has used.
fn cpu(pid: u32) -> Duration {
    let output = Command::new("getconf").arg("CLK_TCK").output().expect("getconf");
    let ticks: f64 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap_or(100.0);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let used: f64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Duration::from_secs_f64(used / ticks)
}

fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "a size to show")]
fn mib(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".to_owned(), |bytes| {
        format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0)
    })
}
