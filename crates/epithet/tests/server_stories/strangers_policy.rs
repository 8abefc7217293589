//! `examples/policy-server`: somebody else's policy server, behind the real CA.

use crate::http::{exchange, request};
use crate::named::EPITHET;
use crate::service_token::Claims;
use epithet_ssh::CaKey;
use epithet_testkit::{Broker, DEADLINE, Finished, Home, KeyPair, Server, Sshd, TestUser, plugin_script};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

const TOKEN: &str = "a secret that was handed out";
/// Its SHA-256, by `printf %s "$TOKEN" | sha256sum`.
const NAME: &str = "9c07fee5e12c476443af36af39835c7f06350e18c418a0320426d152d74d4266";

struct Strangers {
    home: Home,
    key: KeyPair,
}

impl Strangers {
    fn new() -> Self {
        let home = Home::new();
        let key = KeyPair::generate(home.path(), "ca.key");
        let strangers = Self { home, key };
        strangers.hand_out(TOKEN);
        strangers
    }

    /// Rules under which whoever holds this token is Alice.
    fn hand_out(&self, token: &str) {
        let users = [Some(TestUser::current()), TestUser::ordinary()]
            .into_iter()
            .flatten();
        let logins: Vec<String> = users.map(|user| user.name().to_owned()).collect();
        let person = json!({"identity": "alice@example.com", "logins": logins, "hosts": "127.0.0.*"});
        let rules = json!({
            "people": {sha256(&self.home, token): person}, "seconds": 300,
            "auth": {"issuer": "https://idp.example.com", "client_id": "epithet"},
        });
        self.home.write("rules.json", rules.to_string());
    }

    /// The example, to be run.
    fn example(&self) -> Command {
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policy-server/policy_server.py");
        let mut command = self.home.command("python3");
        command
            .arg(program)
            .arg("--ca-pubkey")
            .arg(self.key.public_path())
            .arg("--rules")
            .arg(self.home.join("rules.json"));
        command
    }

    /// A key for its answers, made as its page says: the key's file, and what the CA is given.
    fn reply_key(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = self.home.join(format!("{name}.pem"));
        let arguments = ["genpkey", "-algorithm", "ed25519", "-out"].map(OsStr::new);
        self.home
            .run("openssl", arguments.into_iter().chain([key.as_os_str()]))
            .success();
        let mut show = self.example();
        show.arg("--reply-key").arg(&key).arg("--show-reply-key");
        let line = Finished::of(show, DEADLINE).success().stdout;
        (key, self.home.write(format!("{name}.pub"), line))
    }

    fn policy(&self, listen: &str, reply_key: Option<&Path>) -> Server {
        let mut command = self.example();
        command.args(["--listen", listen]);
        if let Some(key) = reply_key {
            command.arg("--reply-key").arg(key);
        }
        Server::try_start(command).unwrap_or_else(|error| panic!("the example did not start: {error}"))
    }

    fn ca(&self, policy: &Server, policy_key: Option<&Path>) -> (Server, PathBuf) {
        let audit = self.home.join("audit.log");
        let path = |path: &Path| path.display().to_string();
        let (key, log) = (path(self.key.path()), path(&audit));
        let mut arguments = vec![
            "ca",
            "--listen=127.0.0.1:0",
            "--key",
            &key,
            "--policy",
            policy.url(),
            "--audit-file",
            &log,
        ];
        let policy_key = policy_key.map(path);
        arguments.extend(policy_key.iter().flat_map(|key| ["--policy-key", key]));
        (Server::start(Path::new(EPITHET), &self.home, arguments), audit)
    }
}

fn sha256(home: &Home, text: &str) -> String {
    let script = format!("printf %s '{text}' | sha256sum | cut -d' ' -f1");
    home.run("/bin/sh", ["-c", &script])
        .success()
        .stdout
        .trim()
        .to_owned()
}

#[test]
fn a_login_is_decided_by_a_page_of_python() {
    let strangers = Strangers::new();
    let (reply_key, policy_key) = strangers.reply_key("reply");
    let port = "127.0.0.1:0".to_owned();
    let socket = format!("unix://{}", strangers.home.join("policy.sock").display());
    for (listen, is_signed) in [(&port, false), (&socket, false), (&port, true)] {
        let policy = strangers.policy(listen, is_signed.then_some(&*reply_key));
        let (ca, audit) = strangers.ca(&policy, is_signed.then_some(&*policy_key));
        let home = Home::new();
        let sshd = Sshd::trusting(&strangers.key.public_line());
        home.trust(&sshd);
        home.ssh_config(&format!(
            "Include {}\nHost 127.0.0.1\n  Port {}\n  User {}\n  KexAlgorithms curve25519-sha256\n",
            home.join(".epithet/run/*/ssh-config.conf").display(),
            sshd.port(),
            home.user().name()
        ));
        let plugin = plugin_script(
            home.path(),
            "plugin",
            &format!("#!/bin/sh\nprintf %s '{TOKEN}'\n"),
        );
        let arguments = [
            "--ca-url",
            ca.url(),
            "--match",
            "127.0.0.*",
            "--auth",
            plugin.to_str().unwrap(),
        ];
        let _broker = Broker::start(Path::new(EPITHET), &home, arguments);
        let finished = home.run_ssh(["127.0.0.1", "echo logged in"]).success();
        assert_eq!(finished.stdout, "logged in\n");
        let line = sshd.wait_for_log("Accepted publickey");
        assert!(line.contains("ID alice@example.com"), "{line}");
        let decisions: Vec<Value> = std::fs::read_to_string(audit)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(decisions[0]["decision"], "issued");
        assert_eq!(decisions[0]["identity"], "alice@example.com");
        assert_eq!(decisions[0]["extensions"], json!({"permit-pty": ""}));
        std::fs::remove_file(strangers.home.join("audit.log")).unwrap();
    }
}

#[test]
fn its_answers_are_believed_by_their_signature_when_the_ca_has_its_key() {
    let strangers = Strangers::new();
    let (reply_key, policy_key) = strangers.reply_key("reply");
    let (_, other) = strangers.reply_key("other");
    let subject = KeyPair::generate(strangers.home.path(), "subject").public_line();
    let user = TestUser::current();
    let ask = |ca: &Server, token: &str, user: &str| {
        let connection =
            json!({"remoteHost": "127.0.0.1", "remoteUser": user, "port": 22, "proxyJump": "", "hash": "x"});
        let body = json!({"publicKey": subject, "connection": connection}).to_string();
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        exchange(ca.url(), &request("POST", "/", &headers, body.as_bytes())).status()
    };
    let token = TOKEN.replace(' ', "-");
    strangers.hand_out(&token);
    for (signs, policy_key, (yes, no, unknown)) in [
        (true, Some(&policy_key), (200, 403, 401)),
        (true, None, (200, 403, 401)),
        (true, Some(&other), (502, 502, 502)),
        (false, Some(&policy_key), (502, 502, 502)),
    ] {
        let policy = strangers.policy("127.0.0.1:0", signs.then_some(&*reply_key));
        let (ca, _) = strangers.ca(&policy, policy_key.map(PathBuf::as_path));
        let what = format!("signed: {signs}, with {policy_key:?}");
        assert_eq!(ask(&ca, &token, user.name()), yes, "{what}");
        assert_eq!(ask(&ca, &token, "daemon"), no, "{what}");
        assert_eq!(ask(&ca, "another", user.name()), unknown, "{what}");
        let discovery = exchange(ca.url(), &request("GET", "/discovery", &[], b"")).status();
        assert_eq!(discovery, if yes == 200 { 200 } else { 502 }, "{what}");
    }
}

#[test]
fn its_noes_are_those_of_the_documents_and_a_request_that_is_not_the_ca_s_gets_nothing() {
    let strangers = Strangers::new();
    let key = CaKey::load(strangers.key.path(), || None).unwrap();
    let policy = strangers.policy("127.0.0.1:0", None);
    let authority = policy.url().trim_start_matches("http://").to_owned();
    let user = TestUser::current().name().to_owned();
    let question = |token: &str, user: &str, host: &str| {
        let connection =
            json!({"remoteHost": host, "remoteUser": user, "port": 22, "proxyJump": "", "hash": "x"});
        json!({"token": token, "connection": connection}).to_string()
    };
    let send = |method: &str, authorization: &str, body: &str| {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        exchange(policy.url(), request.as_bytes())
    };
    let mut document = crate::document::Document::read("policy-server-api.yaml");
    let target = format!("{authority}/");
    let yes = question(TOKEN, &user, "127.0.0.1");
    for (method, body, status) in [
        ("GET", String::new(), 200),
        ("POST", yes.clone(), 200),
        ("POST", question("another", &user, "127.0.0.1"), 401),
        ("POST", question(TOKEN, "daemon", "127.0.0.1"), 403),
        ("POST", "not JSON".to_owned(), 400),
    ] {
        let answer = send(
            method,
            &Claims::of(&key, method, &target, &body).signed_by(&key),
            &body,
        );
        assert_eq!(answer.status(), status, "{answer:?}");
        assert_eq!(answer.header("epithet-error"), None, "{answer:?}");
        document.saw(method, "/", &answer);
    }
    let right = Claims::of(&key, "POST", &target, &yes);
    let other = CaKey::generate_ed25519().unwrap();
    let wrong = [
        Claims {
            issuer: other.fingerprint(),
            ..right.clone()
        },
        Claims {
            audience: "somebody".into(),
            ..right.clone()
        },
        Claims {
            method: "GET".into(),
            ..right.clone()
        },
        Claims {
            target: "policy.example.com/".into(),
            ..right.clone()
        },
        Claims {
            body: "another".into(),
            ..right.clone()
        },
        Claims {
            age: 120,
            ..right.clone()
        },
        Claims {
            age: -60,
            ..right.clone()
        },
        Claims {
            life: 600,
            ..right.clone()
        },
    ];
    let used = right.signed_by(&key);
    assert_eq!(send("POST", &used, &yes).status(), 200);
    let mut tokens: Vec<String> = wrong.iter().map(|claims| claims.signed_by(&key)).collect();
    tokens.extend([
        used,
        right.signed_by(&other),
        "Bearer a.b.c".into(),
        "Basic x".into(),
        String::new(),
    ]);
    for token in tokens {
        let answer = send("POST", &token, &yes);
        assert_eq!(answer.status(), 401, "{token}: {answer:?}");
        assert_eq!(
            answer.header("epithet-error"),
            Some("service-auth"),
            "{token}: {answer:?}"
        );
        document.saw("POST", "/", &answer);
    }
}

#[test]
fn the_name_in_the_example_s_page_is_the_hash_that_its_command_gives() {
    let home = Home::new();
    assert_eq!(sha256(&home, TOKEN), NAME);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policy-server/README.md");
    assert!(std::fs::read_to_string(page).unwrap().contains(NAME));
}
