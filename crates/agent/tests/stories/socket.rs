//! The agent's socket: who may reach it, what it does with bytes that nobody should send, and what it leaves behind.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::stage::{Stage, credential, err, out, private_folder, run, settings};
use epithet_agent::{AgentSettings, AgentSocket, Promise};
use epithet_ssh::encoding::Put;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

const FAILURE: &[u8] = &[0, 0, 0, 1, 5];
const SUCCESS: &[u8] = &[0, 0, 0, 1, 6];
const EXTENSION_FAILURE: &[u8] = &[0, 0, 0, 1, 28];
const NO_IDENTITIES: &[u8] = &[0, 0, 0, 5, 12, 0, 0, 0, 0];
const LIST: &[u8] = &[0, 0, 0, 1, 11];

/// A client that sends bytes and reads frames.
struct Client(UnixStream);

impl Client {
    async fn connect(path: &Path) -> Self {
        Self(UnixStream::connect(path).await.expect("the agent listens"))
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the agent reads");
    }

    /// The next frame, its length included; none when the agent closed the connection.
    async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 4];
        self.0.read_exact(&mut frame).await.ok()?;
        let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
        frame.resize(4 + usize::try_from(length).expect("a small frame"), 0);
        self.0.read_exact(&mut frame[4..]).await.ok()?;
        Some(frame)
    }

    async fn ask(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.send(bytes).await;
        self.receive().await
    }

    async fn lists_the_certificate(&mut self) -> bool {
        self.ask(LIST)
            .await
            .is_some_and(|frame| frame[4..9] == [12, 0, 0, 0, 1])
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.put_string(message);
    frame
}

#[tokio::test]
async fn an_unknown_or_damaged_message_gets_a_failure_and_the_connection_lives() {
    let stage = Stage::ready(settings());
    let mut client = Client::connect(&stage.socket).await;
    for message in [
        &[0][..],
        &[5],
        &[6],
        &[13],
        &[17, 0, 0, 0, 1],
        &[18],
        &[22, 0, 0, 0, 1, 120],
        &[23, 0, 0, 0, 1, 120],
        &[27],
        b"\x1b\0\0\0\x0bno@such.org",
        &[200],
        &[255; 4096],
    ] {
        assert_eq!(
            client.ask(&framed(message)).await.as_deref(),
            Some(FAILURE),
            "{message:?}"
        );
    }
    assert!(client.lists_the_certificate().await);
    let query = client.ask(&framed(b"\x1b\0\0\0\x05query")).await.unwrap();
    assert_eq!(
        &query[4..],
        b"\x1d\0\0\0\x05query\0\0\0\x05query\0\0\0\x18session-bind@openssh.com"
    );
}

#[tokio::test]
async fn frames_of_every_size_are_met_with_the_limit() {
    let stage = Stage::ready(settings());
    let mut client = Client::connect(&stage.socket).await;
    let mut largest = vec![255; 262_144];
    largest[0] = 200;
    assert_eq!(client.ask(&framed(&largest)).await.as_deref(), Some(FAILURE));
    assert!(client.lists_the_certificate().await);
    for length in [0u32, 262_145, 0x7fff_ffff, 0xffff_ffff] {
        let mut client = Client::connect(&stage.socket).await;
        client.send(&length.to_be_bytes()).await;
        assert_eq!(client.receive().await, None, "{length}");
    }
    assert!(Client::connect(&stage.socket).await.lists_the_certificate().await);
}

#[tokio::test]
async fn frames_arrive_whole_however_they_are_cut_or_joined() {
    let stage = Stage::ready(settings());
    let mut client = Client::connect(&stage.socket).await;
    for byte in [LIST, &framed(&[200])].concat() {
        client.send(&[byte]).await;
    }
    assert_eq!(client.receive().await.unwrap()[4], 12);
    assert_eq!(client.receive().await.as_deref(), Some(FAILURE));
    client.send(&[LIST, LIST, &framed(&[19]), LIST].concat()).await;
    assert_eq!(client.receive().await.unwrap()[5..9], [0, 0, 0, 1]);
    assert_eq!(client.receive().await.unwrap()[5..9], [0, 0, 0, 1]);
    assert_eq!(client.receive().await.as_deref(), Some(SUCCESS));
    assert_eq!(client.receive().await.as_deref(), Some(NO_IDENTITIES));
}

#[tokio::test]
async fn a_bind_that_cannot_be_read_poisons_its_connection_and_no_other() {
    let stage = Stage::ready(settings());
    let mut bind = vec![27];
    bind.put_string("session-bind@openssh.com");
    for rest in [&b""[..], b"\0\0\0\x01k", b"\0\0\0\x01k\0\0\0\x01i\0\0\0\x01s\x02"] {
        let mut client = Client::connect(&stage.socket).await;
        let message = [&bind[..], rest].concat();
        assert_eq!(client.ask(&framed(&message)).await.as_deref(), Some(FAILURE));
        assert_eq!(client.ask(LIST).await.as_deref(), Some(NO_IDENTITIES));
    }
    let mut client = Client::connect(&stage.socket).await;
    let wrong = [&bind[..], b"\0\0\0\x01k\0\0\0\x01i\0\0\0\x01s\x01"].concat();
    assert_eq!(
        client.ask(&framed(&wrong)).await.as_deref(),
        Some(EXTENSION_FAILURE)
    );
    assert_eq!(client.ask(LIST).await.as_deref(), Some(NO_IDENTITIES));
    assert!(Client::connect(&stage.socket).await.lists_the_certificate().await);
}

#[tokio::test]
async fn a_pending_certificate_is_waited_for_and_only_so_long() {
    let short = AgentSettings {
        wait: Duration::from_millis(50),
        ..settings()
    };
    let (stage, fulfil) = Stage::pending(short);
    let mut client = Client::connect(&stage.socket).await;
    let start = Instant::now();
    assert_eq!(client.ask(LIST).await.as_deref(), Some(NO_IDENTITIES));
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(fulfil.ready(credential(&stage.ca, &stage.user)));
    assert!(client.lists_the_certificate().await);

    let (stage, fulfil) = Stage::pending(settings());
    let mut waiting = Client::connect(&stage.socket).await;
    waiting.send(LIST).await;
    fulfil.refuse();
    assert_eq!(waiting.receive().await.as_deref(), Some(NO_IDENTITIES));
}

#[tokio::test]
async fn a_withdrawn_certificate_never_comes_back_and_its_key_is_freed() {
    let (stage, fulfil) = Stage::pending(settings());
    let first = credential(&stage.ca, &stage.user);
    let watched = std::sync::Arc::downgrade(&first);
    assert!(fulfil.ready(first));
    let mut client = Client::connect(&stage.socket).await;
    assert!(client.lists_the_certificate().await);
    assert!(
        fulfil.ready(credential(&stage.ca, &stage.user)),
        "a newer one replaces it"
    );
    assert!(watched.upgrade().is_none());
    assert!(client.lists_the_certificate().await);
    assert_eq!(client.ask(&framed(&[19])).await.as_deref(), Some(SUCCESS));
    fulfil.withdrawn().await;
    assert!(!fulfil.ready(credential(&stage.ca, &stage.user)));
    assert_eq!(client.ask(LIST).await.as_deref(), Some(NO_IDENTITIES));
}

#[tokio::test]
async fn the_sixty_fifth_connection_is_closed_and_the_others_live() {
    let stage = Stage::ready(settings());
    let mut clients = Vec::new();
    for _ in 0..64 {
        let mut client = Client::connect(&stage.socket).await;
        assert!(client.lists_the_certificate().await);
        clients.push(client);
    }
    let mut one_more = Client::connect(&stage.socket).await;
    assert_eq!(one_more.receive().await, None);
    assert!(clients[0].lists_the_certificate().await);
    drop(clients.pop());
    // The agent learns of the closed connection in its own time.
    loop {
        let mut client = Client::connect(&stage.socket).await;
        // A connection that is over the limit may be closed before or after its request is taken.
        let sent = client.0.write_all(LIST).await;
        if sent.is_ok() && client.receive().await.is_some() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_private_from_the_start_and_another_user_gets_nothing_even_if_it_is_not() {
    let stage = Stage::ready(settings());
    let mode = fs::metadata(&stage.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for path in [stage.folder.path(), &stage.socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let other = stage
        .program("setpriv")
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "ssh-add",
            "-L",
        ])
        .output()
        .unwrap();
    assert_ne!(other.status.code(), Some(0));
    assert_eq!(out(&other), "");
    assert!(
        !err(&other).contains("Permission denied"),
        "it did reach the socket: {}",
        err(&other)
    );
    assert_eq!(stage.activity.last_request(), None, "not a byte of it was read");
    assert!(out(&stage.program("ssh-add").arg("-L").output().unwrap()).starts_with("ssh-ed25519-cert"));
}

#[tokio::test]
async fn an_agent_that_ends_takes_its_socket_and_its_connections_with_it() {
    let mut stage = Stage::ready(settings());
    let mut client = Client::connect(&stage.socket).await;
    assert!(client.lists_the_certificate().await);
    stage.cancel.cancel();
    stage.agent.take().unwrap().await.unwrap();
    assert!(!stage.socket.exists());
    assert_eq!(client.receive().await, None);
}

#[tokio::test]
async fn an_agent_removes_no_socket_but_its_own() {
    let folder = private_folder();
    let path = folder.path().join("agent");
    let first = AgentSocket::bind(&path).unwrap();
    assert_eq!(
        AgentSocket::bind(&path).unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    assert!(path.exists());
    fs::remove_file(&path).unwrap();
    let second = AgentSocket::bind(&path).unwrap();
    drop(first);
    assert!(path.exists(), "it is the second's");
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn only_a_dead_socket_of_ours_is_replaced() {
    let folder = private_folder();
    let path = folder.path().join("agent");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(AgentSocket::bind(&path).unwrap());
    fs::write(&path, "a file").unwrap();
    assert_eq!(
        AgentSocket::bind(&path).unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    fs::remove_file(&path).unwrap();
    symlink(folder.path().join("elsewhere"), &path).unwrap();
    assert_eq!(
        AgentSocket::bind(&path).unwrap_err().kind(),
        io::ErrorKind::AddrInUse
    );
    assert!(!folder.path().join("elsewhere").exists());
}

#[tokio::test]
async fn a_directory_that_others_can_enter_and_a_path_that_is_too_long_are_refused() {
    let folder = private_folder();
    for mode in [0o750, 0o705, 0o777] {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = AgentSocket::bind(folder.path().join("agent")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let link = folder.path().join("link");
    symlink(folder.path(), &link).unwrap();
    assert_eq!(
        AgentSocket::bind(link.join("agent")).unwrap_err().kind(),
        io::ErrorKind::PermissionDenied
    );
    let room = 107 - folder.path().as_os_str().len() - 1;
    assert!(AgentSocket::bind(folder.path().join("a".repeat(room))).is_ok());
    let error = AgentSocket::bind(folder.path().join("a".repeat(room + 1))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(AgentSocket::bind(folder.path().join("absent/agent")).is_err());
}

#[tokio::test]
async fn each_kind_of_refusal_is_logged_loudly_once() {
    let (log, _guard) = crate::stage::log_to_memory();
    let stage = Stage::ready(settings());
    let mut client = Client::connect(&stage.socket).await;
    let mut sshsig = vec![13];
    sshsig.put_string("key");
    sshsig.put_string("SSHSIG\nfile");
    sshsig.put_u32(0);
    for _ in 0..20 {
        assert_eq!(client.ask(&framed(&sshsig)).await.as_deref(), Some(FAILURE));
        assert_eq!(client.ask(&framed(&[17])).await.as_deref(), Some(FAILURE));
    }
    let text = log.text();
    assert_eq!(text.matches("WARN").count(), 2, "{text}");
    assert_eq!(text.matches("an SSHSIG signature").count(), 1, "{text}");
    assert_eq!(text.matches("a message of type 17").count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_agents_are_small() {
    let folder = private_folder();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current.is_some_and(|soft| soft < 1200) {
        let raised = rustix::process::Rlimit {
            current: limit.maximum,
            ..limit
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    }
    let ca = epithet_ssh::CaKey::generate_ed25519().unwrap();
    let cancel = CancellationToken::new();
    let before = anonymous_kilobytes();
    let mut agents = Vec::new();
    for number in 0..1000 {
        let socket = AgentSocket::bind(folder.path().join(format!("{number:040}"))).unwrap();
        let promise = Promise::ready(credential(&ca, "alice"));
        agents.push(tokio::spawn(socket.serve(
            promise,
            AgentSettings::default(),
            cancel.clone(),
        )));
    }
    let mut last = Client::connect(&folder.path().join(format!("{:040}", 999))).await;
    assert!(last.lists_the_certificate().await);
    let grown = anonymous_kilobytes().saturating_sub(before);
    assert!(grown < 8 * 1024, "a thousand agents take {grown} KiB");
    cancel.cancel();
    for agent in agents {
        agent.await.unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The process's own memory, without its program text. Zero where it cannot be told.
fn anonymous_kilobytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn no_bytes_harm_the_agent(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stage = Stage::ready(settings());
            let mut client = Client::connect(&stage.socket).await;
            for chunk in &chunks {
                // The agent closes the connection when the framing breaks, so a write may fail.
                let _ = client.0.write_all(&framed(chunk)).await;
                let _ = client.0.write_all(chunk).await;
            }
            drop(client);
            assert!(Client::connect(&stage.socket).await.lists_the_certificate().await);
        });
    }
}

#[test]
fn the_programs_that_the_stories_need_are_here() {
    for program in ["ssh-keygen", "ssh-add", "/usr/sbin/sshd"] {
        run("sh", &["-c", &format!("command -v {program}")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_sleep_past_its_end_a_certificate_is_neither_listed_nor_signed_with() {
    let clock = epithet_agent::Clock::movable();
    let stage = Stage::ready(AgentSettings {
        clock: clock.clone(),
        ..settings()
    });
    let sshd = stage.sshd("host");
    let output = stage.ssh(&sshd, &[], "echo arrived");
    assert_eq!(out(&output), "arrived\n");
    clock.sleep(Duration::from_secs(240));
    assert_eq!(
        out(&stage.ssh(&sshd, &[], "echo arrived")),
        "arrived\n",
        "a minute is left"
    );
    clock.sleep(Duration::from_secs(56));
    let listed = stage.program("ssh-add").arg("-L").output().unwrap();
    assert!(out(&listed).contains("no identities"));
    assert_ne!(out(&stage.ssh(&sshd, &[], "echo arrived")), "arrived\n");
}
