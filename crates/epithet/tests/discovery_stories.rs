//! Stories of a broker that was given no `--auth`: it asks the CA how to log in, and does not follow it blindly.

#![cfg(test)]

use epithet_testkit::devidp::{DevProvider, Person, Settings};
use epithet_testkit::{Broker, DEADLINE, FakeBrowser, Finished, Home, KeyPair, Server, Sshd};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");

/// A person at a machine with a browser, a provider they can log in at, and a CA that names it.
struct Story {
    home: Home,
    provider: DevProvider,
    browser: FakeBrowser,
    ca_key: KeyPair,
}

impl Story {
    fn begin() -> Self {
        let home = Home::new();
        let browser = FakeBrowser::with_person(home.path(), Person::default());
        let provider = DevProvider::start(Settings::default()).expect("the provider starts");
        let config = json!({"auth": {"oidc": {"browser": browser.program(), "flow": "browser"}}});
        home.write(".epithet/config.yaml", config.to_string());
        let ca_key = KeyPair::generate(home.path(), "ca.key");
        Self {
            home,
            provider,
            browser,
            ca_key,
        }
    }

    /// A CA that names `client_id` at the story's provider, listening on `listen`.
    fn server(&self, client_id: &str, listen: &str) -> Server {
        let rules = json!({"policy": {
            "oidc": {"issuer": self.provider.issuer(), "client-id": client_id},
            "users": {"alice@example.com": ["admin"]},
            "defaults": {"allow": {(self.home.user().name()): ["admin"]}},
            "hosts": {"127.0.0.1": {}},
        }});
        let rules = self.home.write("server.json", rules.to_string());
        let audit = self.home.join("audit.log");
        let path = |path: &Path| path.display().to_string();
        let arguments = [
            "server".to_owned(),
            "--config".to_owned(),
            path(&rules),
            "--listen".to_owned(),
            listen.to_owned(),
            "--ca-key".to_owned(),
            path(self.ca_key.path()),
            "--audit-file".to_owned(),
            path(&audit),
        ];
        Server::start(Path::new(EPITHET), &self.home, arguments)
    }

    fn broker(&self, ca_url: &str) -> Broker {
        Broker::start(Path::new(EPITHET), &self.home, ["--ca-url", ca_url])
    }

    fn broker_named(&self, ca_url: &str, name: &str) -> Broker {
        Broker::start(
            Path::new(EPITHET),
            &self.home,
            ["--ca-url", ca_url, "--name", name],
        )
    }

    fn ssh(&self, broker: &Broker, sshd: &Sshd) -> Finished {
        let include = broker.run_dir().join("ssh-config.conf");
        let port = sshd.port();
        self.home.ssh_config(&format!(
            "Include \"{}\"\nHost 127.0.0.1\n  Port {port}\n",
            include.display()
        ));
        self.home.trust(sshd);
        self.home.run_ssh(["127.0.0.1", "echo in"])
    }
}

#[test]
fn without_auth_the_ca_says_where_to_log_in_and_what_it_said_is_pinned() {
    let story = Story::begin();
    let server = story.server("epithet", "127.0.0.1:0");
    let sshd = Sshd::trusting(&story.ca_key.public_line());
    let broker = story.broker(server.url());
    let config = std::fs::read_to_string(broker.run_dir().join("ssh-config.conf")).unwrap();
    assert!(
        config.contains("127.0.0.1"),
        "the CA's hosts are the ones ssh asks about: {config}"
    );

    let login = story.ssh(&broker, &sshd).success();
    assert_eq!(login.stdout, "in\n");
    assert_eq!(story.browser.opened().len(), 1);
    let pins = std::fs::read_to_string(story.home.join(".epithet/pins")).unwrap();
    assert!(
        pins.contains(story.provider.issuer()) && pins.contains("\"epithet\""),
        "{pins}"
    );
}

#[test]
fn a_ca_that_names_another_client_is_not_followed_until_a_person_agrees() {
    let story = Story::begin();
    let sshd = Sshd::trusting(&story.ca_key.public_line());
    let server = story.server("epithet", "127.0.0.1:0");
    let (url, listen) = (
        server.url().to_owned(),
        server.url().trim_start_matches("http://").to_owned(),
    );
    let broker = story.broker(&url);
    story.ssh(&broker, &sshd).success();
    broker.stop(DEADLINE);
    server.stop(DEADLINE);

    let _server = story.server("another-application", &listen);
    let broker = story.broker(&url);
    let refused = story.ssh(&broker, &sshd);
    assert!(!refused.status.success());
    for words in ["epithet trust", "another-application", "nothing was sent"] {
        assert!(
            refused.stderr.contains(words),
            "{words:?} is missing in: {}",
            refused.stderr
        );
    }
    assert_eq!(
        story.browser.opened().len(),
        1,
        "no browser was opened for the other client"
    );

    let unasked = story.home.run(EPITHET, ["trust", &url]);
    assert!(
        !unasked.status.success() && unasked.stderr.contains("--yes"),
        "{}",
        unasked.stderr
    );
    story.home.run(EPITHET, ["trust", "--yes", &url]).success();
    let pins = std::fs::read_to_string(story.home.join(".epithet/pins")).unwrap();
    assert!(pins.contains("another-application"), "{pins}");
}

#[test]
fn a_ca_that_wants_a_command_run_is_refused_and_nothing_runs() {
    let story = Story::begin();
    let sshd = Sshd::trusting(&story.ca_key.public_line());
    let trace = story.home.join("pwned");
    let document = json!({
        "auth": {"type": "command", "command": format!("touch '{}'", trace.display())},
        "matchPatterns": ["127.0.0.1"],
    });
    let url = ca_that_only_has(document.to_string());
    let broker = story.broker(&url);
    let refused = story.ssh(&broker, &sshd);
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("which is refused"), "{}", refused.stderr);
    assert!(!trace.exists());
}

/// A server whose every page is a link to a discovery document, and that document.
fn ca_that_only_has(document: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let document = document.clone();
            std::thread::spawn(move || answer(&stream, &document));
        }
    });
    url
}

fn answer(stream: &TcpStream, document: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut writer = stream;
    write!(
        writer,
        "HTTP/1.1 200 OK\r\nLink: <discovery>; rel=\"discovery\"\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{document}",
        document.len()
    )
}

#[test]
fn without_a_network_the_hosts_are_those_that_the_ca_named_before() {
    let story = Story::begin();
    let server = story.server("epithet", "127.0.0.1:0");
    let url = server.url().to_owned();
    let broker = story.broker(&url);
    let named = std::fs::read_to_string(broker.run_dir().join("ssh-config.conf")).unwrap();
    assert!(named.contains("127.0.0.1"), "{named}");
    broker.stop(DEADLINE);
    server.stop(DEADLINE);

    let broker = story.broker(&url);
    let offline = std::fs::read_to_string(broker.run_dir().join("ssh-config.conf")).unwrap();
    assert_eq!(offline, named, "decided at once and as before");
    let listen = url.trim_start_matches("http://").to_owned();
    let _server = story.server("epithet", &listen);
    let sshd = Sshd::trusting(&story.ca_key.public_line());
    assert_eq!(
        story.ssh(&broker, &sshd).success().stdout,
        "in\n",
        "and it works when the CA is back"
    );

    // What another CA said counts for nothing, and nobody else may have written it.
    let nobody = story.broker_named(
        &format!("http://127.0.0.1:{}", epithet_testkit::free_port()),
        "other",
    );
    let unknown = std::fs::read_to_string(nobody.run_dir().join("ssh-config.conf")).unwrap();
    assert!(!unknown.contains("127.0.0.1"), "{unknown}");
}
