//! CAs that break, networks that are not there, providers that are down.

use crate::broken_ca::{Breaks, BrokenCa};
use crate::laptop::start;
use crate::namespaces::{Ground, inside};
use crate::rounds::repeat;
use crate::support::Story;
use epithet_testkit::{Broker, DEADLINE, free_port, plugin_script};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What a login may take when its CA does not work, on a busy machine.
pub(crate) const BOUNDED: Duration = Duration::from_secs(20);

pub(crate) fn broker(story: &Story, ca_urls: &[&str], plugin: &str) -> Broker {
    let mut command = story.laptop.epithet();
    command.args(["agent", "-v", "--auth", plugin, "--match", "127.0.0.*"]);
    for url in ca_urls {
        command.args(["--ca-url", url]);
    }
    start(command)
}

/// Logs in with the other key, and returns what was said; within bounds.
#[track_caller]
pub(crate) fn falls_through(story: &Story) -> String {
    falls_through_at(story, "127.0.0.1")
}

/// Logs in to `host` with the other key, and returns what was said; within bounds.
#[track_caller]
pub(crate) fn falls_through_at(story: &Story, host: &str) -> String {
    let (position, began) = (story.sshd.log_position(), Instant::now());
    let said = story.laptop.log_in(host);
    assert!(
        began.elapsed() < BOUNDED,
        "ssh took {:?}: {said}",
        began.elapsed()
    );
    let accepted = story.accepted(position);
    assert!(
        accepted.contains(&story.laptop.other_key.fingerprint()),
        "{accepted}{said}"
    );
    said
}

/// Logs in with a certificate.
#[track_caller]
fn with_a_certificate(story: &Story) -> Duration {
    with_a_certificate_at(story, "127.0.0.1")
}

/// Logs in to `host` with a certificate, and says how long that took.
#[track_caller]
pub(crate) fn with_a_certificate_at(story: &Story, host: &str) -> Duration {
    let (position, began) = (story.sshd.log_position(), Instant::now());
    let said = story.laptop.log_in(host);
    let accepted = story.accepted(position);
    assert!(accepted.contains("ID alice@example.com"), "{accepted}\n{said}");
    began.elapsed()
}

#[test]
fn a_ca_that_breaks_alone() {
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    repeat(
        "a CA dies within its answer, or is a portal: a clean word, and ssh goes on",
        |number| {
            for breaks in in_turn(number) {
                let ca = BrokenCa::start(breaks);
                let broker = broker(&story, &[&ca.url()], &story.plugin);
                let said = falls_through(&story);
                assert!(
                    said.contains("epithet: no CA is available: "),
                    "{breaks:?}: {said}"
                );
                assert!(
                    said.contains(&ca.url()) || said.contains("127.0.0.1"),
                    "{breaks:?} names it: {said}"
                );
                assert!(ca.asked() > 0);
                broker.stop(DEADLINE);
            }
            None
        },
    );
    assert!(story.site.decisions().is_empty(), "nobody asked the real one");
}

#[test]
fn a_ca_that_breaks_beside_a_good_one() {
    let story = Story::begin();
    let mut logins = 0;
    repeat(
        "the same with a second CA: it gives the certificate, and writes it down",
        |number| {
            let mut longest = Duration::ZERO;
            for breaks in in_turn(number) {
                let ca = BrokenCa::start(breaks);
                let broker = broker(
                    &story,
                    &[&format!("priority=200:{}", ca.url()), story.site.url()],
                    &story.plugin,
                );
                longest = longest.max(with_a_certificate(&story));
                logins += 1;
                assert!(ca.asked() > 0, "{breaks:?} is asked first");
                broker.stop(DEADLINE);
            }
            Some(longest)
        },
    );
    assert_eq!(
        story.site.decisions().len(),
        logins,
        "one line in the audit log for each certificate"
    );
}

/// Every way to break in a short run; one after the other in a long one.
fn in_turn(number: usize) -> Vec<Breaks> {
    if crate::rounds::count() < Breaks::ALL.len() {
        Breaks::ALL.to_vec()
    } else {
        vec![Breaks::ALL[number % Breaks::ALL.len()]]
    }
}

/// A port on which connecting neither succeeds nor fails, as behind a firewall that drops: a full queue.
struct BlackHole {
    address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    fn open() -> Self {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        );
        let socket = socket.expect("a socket");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        rustix::net::bind(&socket, &any).expect("a loopback port is free");
        rustix::net::listen(&socket, 0).expect("it listens");
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().expect("a listener has an address");
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        let queue: Vec<_> = std::iter::from_fn(connect).take(16).collect();
        assert!(queue.len() < 16, "the queue never fills up");
        Self {
            address,
            _listener: listener,
            _queue: queue,
        }
    }
}

#[test]
fn a_network_that_drops_or_rejects() {
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    repeat(
        "a CA behind a network that drops or rejects: the next one, or a clean word",
        |_| {
            let hole = BlackHole::open();
            let dropped = format!("http://{}", hole.address);
            let rejected = format!("http://127.0.0.1:{}", free_port());
            let mut longest = Duration::ZERO;
            for bad in [&dropped, &rejected] {
                let broker = broker(
                    &story,
                    &[&format!("priority=200:{bad}"), story.site.url()],
                    &story.plugin,
                );
                longest = longest.max(with_a_certificate(&story));
                broker.stop(DEADLINE);
            }
            let broker = broker(&story, &[&dropped, &rejected], &story.plugin);
            let said = falls_through(&story);
            assert!(said.contains("no CA is available"), "{said}");
            broker.stop(DEADLINE);
            Some(longest)
        },
    );
}

#[test]
fn no_network_at_all() {
    inside("networks::no_network_at_all", &["--net"], |ground| {
        let story = Story::begin();
        story.laptop.knows(&story.sshd, &story.laptop.other_identity());
        repeat(
            "a broker without any network: it starts, says so, and ssh goes on",
            |_| {
                // What has no network of its own cannot lose it: there the CA's port is closed.
                let closed = format!("http://127.0.0.1:{}", free_port());
                let mut command = match ground {
                    Ground::Own => story.laptop.home.command("unshare"),
                    Ground::Shared => story.laptop.epithet(),
                };
                let url = match ground {
                    Ground::Own => {
                        command.args(["--net", "--"]).arg(&story.laptop.program);
                        story.site.url()
                    }
                    Ground::Shared => &closed,
                };
                command.args(["agent", "-v", "--auth", &story.plugin]);
                command.args(["--match", "127.0.0.*", "--ca-url", url]);
                let broker = start(command);
                let said = falls_through(&story);
                assert!(said.contains("no CA is available"), "{said}");
                assert!(
                    said.contains("etwork is unreachable") || said.contains("onnection refused"),
                    "{said}"
                );
                broker.stop(DEADLINE);
                None
            },
        );
    });
}

#[test]
fn a_provider_that_is_down() {
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    let home = &story.laptop.home;
    let (down, states) = (home.join("down"), home.join("states"));
    let script = format!(
        "#!/bin/sh\ncat >> '{states}'; echo >> '{states}'\nif [ -e '{down}' ]; then echo 'cannot reach the provider' >&2; exit 1; fi\n\
         printf kept >&3; exec '{plugin}'\n",
        states = states.display(),
        down = down.display(),
        plugin = story.plugin
    );
    let plugin = plugin_script(home.path(), "refreshing", &script)
        .display()
        .to_string();
    repeat(
        "the provider is down: ssh goes on, the state is kept, and then it works again",
        |_| {
            let _ = std::fs::remove_file(&states);
            let mut command = story.laptop.agent(story.site.url(), &plugin);
            command.args(["--match", "127.0.0.*", "--token-reuse", "0s"]);
            let broker = start(command);
            with_a_certificate(&story);
            home.write("down", "");
            story.laptop.log_in("127.0.0.2");
            let said = story.laptop.log_in("127.0.0.3");
            assert!(said.contains("authentication failed"), "{said}");
            std::fs::remove_file(&down).expect("it was made");
            // A cool-down after a login that nobody completed is for background callers that a person would have to help.
            let position = story.sshd.log_position();
            let back = epithet_testkit::wait_until(DEADLINE, || {
                story.laptop.log_in("127.0.0.2");
                story.sshd.log()[position..]
                    .contains("ID alice@example.com")
                    .then_some(())
            });
            assert!(back.is_some(), "it does not come back: {}", broker.log());
            let read = std::fs::read_to_string(&states).expect("the plugin wrote it");
            assert_eq!(
                read.lines().last(),
                Some("kept"),
                "the state of the last good run: {read:?}"
            );
            broker.stop(DEADLINE);
            None
        },
    );
}
