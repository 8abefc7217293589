//! Names that do not resolve, addresses of the wrong family, proxies in between. Each has its own sentence, and is over when
//! it is over.

use crate::laptop::start;
use crate::namespaces::{Ground, inside, run};
use crate::networks::{broker, falls_through, with_a_certificate_at};
use crate::relay::{Relay, Way};
use crate::rounds::repeat;
use crate::support::Story;
use epithet_testkit::{Broker, DEADLINE, Finished, Server, free_port, wait_until};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// The CA's name. Nobody has it (RFC 6761).
const NAME: &str = "ca.invalid";
/// An address that is nobody's (RFC 5737).
const NOBODY: &str = "192.0.2.1";

/// A story whose CA also answers over TLS, under a name.
struct Scene {
    story: Story,
    server: Server,
    certificate: PathBuf,
}

impl Scene {
    fn begin() -> Self {
        let story = Story::begin();
        story.laptop.knows(&story.sshd, &story.laptop.other_identity());
        let (server, certificate) = behind_tls(&story);
        Self {
            story,
            server,
            certificate,
        }
    }

    fn port(&self) -> &str {
        self.server.url().rsplit(':').next().unwrap_or_default()
    }

    /// A broker for the CA's name.
    fn broker(&self, port: &str, environment: &[(&str, &str)]) -> Broker {
        let mut command = self
            .story
            .laptop
            .agent(&format!("https://{NAME}:{port}"), &self.story.plugin);
        command.args(["--match", "127.0.0.*", "--tls-ca-cert"]);
        command.arg(&self.certificate).envs(environment.iter().copied());
        start(command)
    }

    /// Logs in with a certificate, as soon as the CA is tried again.
    #[track_caller]
    fn comes_back(&self, broker: &Broker) {
        let back = wait_until(DEADLINE, || {
            let position = self.story.sshd.log_position();
            self.story.laptop.log_in("127.0.0.1");
            self.story
                .accepted(position)
                .contains("ID alice@example.com")
                .then_some(())
        });
        assert!(back.is_some(), "it does not come back: {}", broker.log());
    }
}

/// The story's CA once more, over TLS and under its name: a server of its own, and the certificate that it shows.
fn behind_tls(story: &Story) -> (Server, PathBuf) {
    let home = &story.laptop.home;
    let (certificate, key) = (home.join("tls.pem"), home.join("tls.key"));
    let path = |path: &Path| path.display().to_string();
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj"])
        .args([&format!("/CN={NAME}"), "-addext"])
        .args([&format!("subjectAltName=DNS:{NAME}"), "-addext"])
        .args(["basicConstraints=critical,CA:FALSE", "-keyout", &path(&key)])
        .args(["-out", &path(&certificate)]);
    Finished::of(openssl, DEADLINE).success();
    let ca_key = story.site.key.path();
    let rules = ca_key.with_file_name(".epithet").join("server.json");
    let arguments = [
        "server".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        format!("--config={}", path(&rules)),
        format!("--ca-key={}", path(ca_key)),
        format!("--audit-file={}", path(&home.join("tls-audit.log"))),
        format!("--tls-cert={}", path(&certificate)),
        format!("--tls-key={}", path(&key)),
    ];
    let server = Server::start(&story.laptop.program, home, arguments);
    (server, certificate)
}

/// The files that names are looked up with, as this test wants them; in a mount namespace.
struct Names {
    hosts: PathBuf,
    resolver: PathBuf,
}

impl Names {
    fn of(scene: &Scene) -> Self {
        let home = &scene.story.laptop.home;
        let names = Self {
            hosts: home.write("hosts", ""),
            resolver: home.write("resolv.conf", ""),
        };
        let order = home.write("nsswitch.conf", "hosts: files dns\n");
        let covers = [
            (&names.hosts, "/etc/hosts"),
            (&names.resolver, "/etc/resolv.conf"),
            (&order, "/etc/nsswitch.conf"),
        ];
        for (file, place) in covers {
            if Path::new(place).exists() {
                run(["mount", "--bind", &file.display().to_string(), place]);
            }
        }
        names
    }

    fn hosts(&self, text: &str) {
        std::fs::write(&self.hosts, text).expect("a file of ours");
    }

    fn resolver(&self, address: &str) {
        let text = format!("nameserver {address}\noptions timeout:5 attempts:2\n");
        std::fs::write(&self.resolver, text).expect("a file of ours");
    }
}

#[test]
fn names_that_do_not_resolve() {
    inside(
        "names_and_proxies::names_that_do_not_resolve",
        &["--net", "--mount"],
        |ground| {
            let scene = Scene::begin();
            let names = (ground == Ground::Own).then(|| Names::of(&scene));
            // A name server that hears everything and says nothing.
            let silent = names.is_some().then(|| UdpSocket::bind("127.0.0.54:53"));
            let silent = silent.transpose().expect("a port of a namespace of ours");
            repeat(
                "the CA's name does not resolve: refused, or silence; it is named, and then it works",
                |_| {
                    let servers: &[&str] = if silent.is_some() {
                        &["127.0.0.53", "127.0.0.54"]
                    } else {
                        &[""]
                    };
                    for server in servers {
                        if let Some(names) = &names {
                            names.hosts("127.0.0.1 localhost\n");
                            names.resolver(server);
                        }
                        let broker = scene.broker(scene.port(), &[]);
                        let said = falls_through(&scene.story);
                        assert!(
                            said.contains(&format!("the name {NAME} cannot be resolved")),
                            "{server}: {said}"
                        );
                        if let Some(names) = &names {
                            names.hosts(&format!("127.0.0.1 localhost {NAME}\n"));
                            scene.comes_back(&broker);
                        }
                        broker.stop(DEADLINE);
                    }
                    None
                },
            );
        },
    );
}

#[test]
fn ipv6_only() {
    inside("names_and_proxies::ipv6_only", &["--net", "--mount"], |ground| {
        let scene = Scene::begin();
        let names = (ground == Ground::Own).then(|| Names::of(&scene));
        let plain = Relay::start(LOOPBACK_6, scene.story.site.url(), Way::Straight);
        let tls = Relay::start(LOOPBACK_6, scene.server.url(), Way::Straight);
        repeat(
            "only IPv6: a CA with IPv4 alone is named as that, one with both gives certificates",
            |_| {
                let broker = broker(&scene.story, &[&plain.url()], &scene.story.plugin);
                with_a_certificate_at(&scene.story, "127.0.0.2");
                broker.stop(DEADLINE);
                let Some(names) = &names else { return None };

                // Of all IPv4 this namespace has its own addresses only: there is no way to anybody else's.
                names.hosts(&format!("127.0.0.1 localhost\n{NOBODY} {NAME}\n"));
                let broker = scene.broker(&tls.port().to_string(), &[]);
                let said = falls_through(&scene.story);
                assert!(
                    said.contains(&format!(
                        "{NAME} has IPv4 addresses only; is this machine offline"
                    )),
                    "{said}"
                );
                names.hosts(&format!("127.0.0.1 localhost\n{NOBODY} {NAME}\n::1 {NAME}\n"));
                scene.comes_back(&broker);
                broker.stop(DEADLINE);
                None
            },
        );
    });
}

/// What a proxy says that does not lead to the CA, and the words for that.
const REFUSALS: [(&str, &str); 3] = [
    (
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"office\"\r\nContent-Length: 0\r\n\r\n",
        "proxy authorization required",
    ),
    (
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 12\r\n\r\n<html>Never.",
        "tunnel",
    ),
    ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "tunnel"),
];

#[test]
fn a_proxy_in_between() {
    let scene = Scene::begin();
    let proxy = Relay::start(LOOPBACK, scene.server.url(), Way::Tunnel);
    let dead = format!("http://127.0.0.1:{}", free_port());
    repeat(
        "a proxy that leads there, refuses, or is gone: certificates, or it is named and then works",
        |number| {
            let (refusal, words) = REFUSALS[number % REFUSALS.len()];
            proxy.change(Way::Answers(refusal));
            let broker = scene.broker(scene.port(), &[("HTTPS_PROXY", &proxy.url())]);
            let said = falls_through(&scene.story);
            assert!(
                said.contains("the proxy (HTTPS_PROXY) does not let it through") && said.contains(words),
                "{said}"
            );
            let asked = proxy.asked();
            proxy.change(Way::Tunnel);
            scene.comes_back(&broker);
            assert!(proxy.asked() > asked, "the way is through the proxy");
            broker.stop(DEADLINE);

            let broker = scene.broker(scene.port(), &[("HTTPS_PROXY", &dead)]);
            let said = falls_through(&scene.story);
            assert!(said.contains("the proxy (HTTPS_PROXY)"), "{said}");
            broker.stop(DEADLINE);
            None
        },
    );
}

/// Plain HTTP is for CAs on this machine, and a token for those does not leave it: not towards a proxy either.
#[test]
fn a_ca_on_this_machine_is_never_asked_through_a_proxy() {
    let story = Story::begin();
    let proxy = Relay::start(LOOPBACK, story.site.url(), Way::Straight);
    let mut command = story.laptop.agent(story.site.url(), &story.plugin);
    command.args(["--match", "127.0.0.*"]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"] {
        command.env(name, proxy.url());
    }
    let broker = start(command);
    with_a_certificate_at(&story, "127.0.0.1");
    assert_eq!(proxy.asked(), 0, "{}", broker.log());
    broker.stop(Duration::from_secs(10));
}
