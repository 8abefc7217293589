//! Networks that are there, and bad: far away and losing a packet in twenty, or with a hotel's login page before them.

use crate::namespaces::{Ground, inside, run};
use crate::networks::{BOUNDED, broker, falls_through, with_a_certificate_at};
use crate::relay::{Relay, Way};
use crate::rounds::{count, repeat};
use crate::support::Story;
use epithet_testkit::{DEADLINE, wait_until};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Half a round trip of 300 ms.
const EACH_WAY: Duration = Duration::from_millis(150);

/// Lets one in twenty packets to and from a TCP port be lost.
fn lose_packets(port: u16) {
    run(["nft", "add", "table", "inet", "lossy"]);
    run([
        "nft",
        "add chain inet lossy arriving { type filter hook input priority 0; }",
    ]);
    for side in ["dport", "sport"] {
        let rule = format!("add rule inet lossy arriving tcp {side} {port} numgen random mod 20 0 drop");
        run(["nft", &rule]);
    }
}

/// A connection needs its first packet and the answer to it within two seconds, in which both are sent twice: one in a
/// hundred connections does not get there. That is a word with the reason, and the next attempt.
#[test]
fn far_away_and_lossy() {
    inside("far_networks::far_away_and_lossy", &["--net"], |ground| {
        let story = Story::begin();
        story.laptop.knows(&story.sshd, &story.laptop.other_identity());
        let stalls = ground == Ground::Shared;
        let way = Way::Far {
            each_way: EACH_WAY,
            stalls,
        };
        let relay = Relay::start(LOOPBACK, story.site.url(), way);
        if ground == Ground::Own {
            lose_packets(relay.port());
        }
        let (mut logins, mut at_once) = (0, 0);
        repeat(
            "300 ms of round trip and 5 % of packets lost: certificates, or a word and then certificates",
            |_| {
                let broker = broker(&story, &[&relay.url()], &story.plugin);
                let mut longest = Duration::ZERO;
                for host in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
                    logins += 1;
                    let (position, began) = (story.sshd.log_position(), Instant::now());
                    let said = story.laptop.log_in(host);
                    let took = began.elapsed();
                    assert!(took < BOUNDED, "ssh took {took:?}: {said}");
                    longest = longest.max(took);
                    if story.accepted(position).contains("ID alice@example.com") {
                        at_once += 1;
                        continue;
                    }
                    assert!(
                        said.contains("no CA is available") && said.contains(" in time"),
                        "{said}"
                    );
                    let later = wait_until(DEADLINE, || {
                        let position = story.sshd.log_position();
                        story.laptop.log_in(host);
                        story
                            .accepted(position)
                            .contains("ID alice@example.com")
                            .then_some(())
                    });
                    assert!(later.is_some(), "it does not come back: {}", broker.log());
                }
                broker.stop(DEADLINE);
                Some(longest)
            },
        );
        // In a short run, chance may have it otherwise.
        assert!(
            count() < 20 || at_once * 10 >= logins * 9,
            "{at_once} of {logins} logins had a certificate at once"
        );
    });
}

#[test]
fn a_login_page_before_the_network() {
    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 46\r\nConnection: close\r\n\r\n<html><body>Welcome to our hotel</body></html>";
    let story = Story::begin();
    story.laptop.knows(&story.sshd, &story.laptop.other_identity());
    let relay = Relay::start(LOOPBACK, story.site.url(), Way::Straight);
    repeat(
        "a hotel's login page instead of the CA: it is named, and when the network is open it works",
        |_| {
            relay.change(Way::Answers(PAGE));
            let broker = broker(&story, &[&relay.url()], &story.plugin);
            let said = falls_through(&story);
            assert!(
                said.contains(
                    "it is not a CA: it answered with a web page. If this network has a login page"
                ),
                "{said}"
            );
            relay.change(Way::Straight);
            let began = Instant::now();
            let open = wait_until(DEADLINE, || {
                let position = story.sshd.log_position();
                story.laptop.log_in("127.0.0.1");
                story
                    .accepted(position)
                    .contains("ID alice@example.com")
                    .then_some(())
            });
            assert!(open.is_some(), "it does not come back: {}", broker.log());
            let took = began.elapsed();
            with_a_certificate_at(&story, "127.0.0.2");
            broker.stop(DEADLINE);
            Some(took)
        },
    );
}
