//! Several CAs, slow ones, and things that answer in a CA's place.

use crate::fake_ca::{FakeCa, answer};
use crate::laptop::{Laptop, start};
use epithet_ssh::CaKey;
use epithet_testkit::{Broker, Finished, Sshd, SshdSettings, plugin_script};
use serde_json::Value;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const LIFE: Duration = Duration::from_secs(300);
const NO_SUCH_TIME: Duration = Duration::from_secs(3600);

/// A person with a plugin that always has a token, and a host that trusts `key`.
struct Scene {
    laptop: Laptop,
    _sshd: Sshd,
    plugin: String,
}

impl Scene {
    fn new(key: &CaKey) -> Self {
        let laptop = Laptop::new();
        let sshd = Sshd::start(SshdSettings {
            ca_public_key: Some(key.public_line()),
            ..SshdSettings::default()
        });
        laptop.knows(&sshd, "");
        let plugin = plugin_script(laptop.home.path(), "plugin", "#!/bin/sh\necho token\n");
        Self {
            plugin: plugin.display().to_string(),
            laptop,
            _sshd: sshd,
        }
    }

    fn broker(&self, cas: &[String], more: &[&str]) -> Broker {
        let mut command = self.laptop.agent(&cas.join(","), &self.plugin);
        command.args(["--match", "127.0.0.*"]).args(more);
        start(command)
    }

    fn ssh(&self) -> Finished {
        self.laptop.run_ssh(["127.0.0.1", "echo logged in"])
    }

    fn ca(&self, broker: &Broker, place: usize) -> Value {
        self.laptop.inspect(broker)["caEndpoints"][place].clone()
    }
}

fn key() -> Arc<CaKey> {
    Arc::new(CaKey::generate_ed25519().expect("random bytes"))
}

/// A CA that takes requests for certificates and says nothing until the returned sender is dropped, and nothing useful then.
fn stuck() -> (FakeCa, std::sync::mpsc::Sender<()>) {
    let (release, held): (_, Receiver<()>) = channel();
    let held = std::sync::Mutex::new(held);
    let ca = FakeCa::start(move |asked| {
        if asked.method == "POST" {
            let _ = held.lock().expect("nobody panicked").recv_timeout(NO_SUCH_TIME);
        }
        answer("503 Service Unavailable", "", "too late")
    });
    (ca, release)
}

#[test]
fn a_slow_ca_is_hedged_by_the_next_one_under_the_same_name_and_asked_after_it_for_a_while() {
    let key = key();
    let (slow, _release) = stuck();
    let fast = FakeCa::certifying(&key, LIFE);
    let scene = Scene::new(&key);
    let cas = [slow.url(), format!("priority=50:{}", fast.url())];
    let broker = scene.broker(&cas, &[]);

    assert_eq!(scene.ssh().success().stdout, "logged in\n");

    let (first, second) = (slow.asked(), fast.asked());
    assert_eq!((first.len(), second.len()), (1, 1), "each was asked once");
    let name = first[0].header("idempotency-key");
    assert!(!name.is_empty());
    assert_eq!(second[0].header("idempotency-key"), name);
    assert_eq!(second[0].header("epithet-request-id"), name);
    // That is no failure of the slow one, which is only asked later now.
    assert_eq!(scene.ca(&broker, 0)["state"], "closed");
    broker.wait_for_log("CA slower than usual");
    scene.laptop.run_ssh(["localhost", "true"]);
    let other = scene.laptop.run_ssh(["-p", "1", "127.0.0.1", "true"]);
    assert!(!other.stderr.contains("epithet: no CA"), "{}", other.stderr);
    assert_eq!(slow.asked().len(), 1, "the other one was fast enough");
}

#[test]
fn a_ca_that_fails_is_followed_by_the_next_and_asked_again_when_it_answers_anything() {
    let key = key();
    let broken = FakeCa::start(|asked| match asked.method.as_str() {
        "GET" => answer("200 OK", "", "ssh-ed25519 AAAA"),
        _ => answer(
            "503 Service Unavailable",
            "retry-after: 45\r\n",
            "the policy server is away",
        ),
    });
    let well = FakeCa::certifying(&key, LIFE);
    let scene = Scene::new(&key);
    let broker = scene.broker(&[broken.url(), format!("priority=1:{}", well.url())], &[]);
    assert_eq!(scene.ssh().success().stdout, "logged in\n");
    assert_eq!((broken.asked().len(), well.asked().len()), (1, 1));
    let state = scene.ca(&broker, 0);
    assert_eq!(state["state"], "open", "{state}");
    assert!(
        state["lastError"]
            .as_str()
            .unwrap()
            .contains("the policy server is away"),
        "{state}"
    );
    // It asked to be left alone for 45 seconds.
    scene.laptop.run_ssh(["-p", "1", "127.0.0.1", "true"]);
    assert_eq!((broken.asked().len(), well.asked().len()), (1, 2));
}

#[test]
fn a_ca_that_declines_for_now_is_well_and_another_one_is_asked_while_it_rests() {
    let key = key();
    let busy = FakeCa::start(|asked| match asked.method.as_str() {
        "GET" => answer("200 OK", "", "ssh-ed25519 AAAA"),
        _ => answer("429 Too Many Requests", "retry-after: 45\r\n", "too many of you"),
    });
    let well = FakeCa::certifying(&key, LIFE);
    let scene = Scene::new(&key);
    let broker = scene.broker(&[busy.url(), format!("priority=1:{}", well.url())], &[]);
    assert_eq!(scene.ssh().success().stdout, "logged in\n");
    assert_eq!((busy.asked().len(), well.asked().len()), (1, 1));
    let state = scene.ca(&broker, 0);
    assert_eq!(state["state"], "resting", "{state}");
    assert!(
        state["lastError"].as_str().unwrap().contains("too many of you"),
        "{state}"
    );
    scene.laptop.run_ssh(["-p", "1", "127.0.0.1", "true"]);
    assert_eq!((busy.asked().len(), well.asked().len()), (1, 2));
}

#[test]
fn a_denial_is_an_answer_and_no_other_ca_is_asked() {
    let key = key();
    let strict = FakeCa::start(|asked| match asked.method.as_str() {
        "GET" => answer("200 OK", "", "ssh-ed25519 AAAA"),
        _ => answer("403 Forbidden", "", "not you"),
    });
    let other = FakeCa::certifying(&key, LIFE);
    let scene = Scene::new(&key);
    let broker = scene.broker(&[strict.url(), format!("priority=1:{}", other.url())], &[]);
    let refused = scene.ssh();
    assert!(refused.stderr.contains("not you"), "{}", refused.stderr);
    assert!(other.asked().is_empty());
    assert_eq!(scene.ca(&broker, 0)["state"], "closed");
}

#[test]
fn a_network_s_login_page_and_a_redirect_are_named_as_what_they_are_and_see_no_token_twice() {
    let key = key();
    for (portal, words) in [
        (
            FakeCa::start(|_| {
                answer(
                    "200 OK",
                    "content-type: text/html\r\n",
                    "<html>Welcome to the hotel",
                )
            }),
            "it is not a CA: it answered with a web page. If this network has a login page, open it in a browser",
        ),
        (
            FakeCa::start(|_| answer("302 Found", "location: http://portal.example/login\r\n", "")),
            "it redirects (302 Found) to http://portal.example/login, which is not followed",
        ),
        (
            FakeCa::start(|_| answer("200 OK", "", "{\"certificat\": 1}")),
            "it is not a CA: it answered 200 without a certificate",
        ),
    ] {
        let scene = Scene::new(&key);
        let broker = scene.broker(&[portal.url()], &[]);
        let finished = scene.ssh();
        assert_eq!(finished.code(), Some(255));
        assert!(
            finished.stderr.contains("no CA is available"),
            "{}",
            finished.stderr
        );
        assert!(
            finished.stderr.contains(words),
            "{words} is not in: {}",
            finished.stderr
        );
        assert_eq!(portal.asked().len(), 1);
        assert!(scene.ca(&broker, 0)["lastError"].is_string());
    }
}

#[test]
fn nobody_at_the_address_and_a_name_that_is_none_each_have_a_sentence() {
    let key = key();
    let scene = Scene::new(&key);
    let port = epithet_testkit::free_port();
    let _broker = scene.broker(
        &[
            format!("http://127.0.0.1:{port}"),
            format!("priority=1:https://localhost:{port}"),
        ],
        &[],
    );
    let finished = scene.ssh();
    assert!(
        finished.stderr.contains("Connection refused"),
        "{}",
        finished.stderr
    );
    assert!(
        finished.stderr.contains("check the network and the CA's URL"),
        "{}",
        finished.stderr
    );
    assert_eq!(
        finished.stderr.matches("Connection refused").count(),
        2,
        "both were asked: {}",
        finished.stderr
    );
}

/// In a network namespace without any network, as a laptop is somewhere between two stations.
#[test]
fn without_a_network_each_ca_s_problem_is_said_by_its_kind_and_the_broker_works_when_asked_again() {
    let isolated = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.arg("--net").args(arguments);
        command
    };
    let may_isolate = isolated(&["true"]).status().is_ok_and(|status| status.success());
    if !rustix::process::geteuid().is_root() || !may_isolate {
        eprintln!("only root can make a network namespace here");
        return;
    }
    let scene = Scene::new(&key());
    let cas = "https://192.0.2.1,priority=50:https://[2001:db8::1],priority=1:https://ca.invalid";
    let agent = scene.laptop.agent(cas, &scene.plugin);
    let mut command = scene.laptop.home.command("unshare");
    command
        .arg("--net")
        .arg(agent.get_program())
        .args(agent.get_args());
    command.args(["--match", "127.0.0.*"]);
    let broker = start(command);
    let finished = scene.ssh();
    for words in [
        "192.0.2.1 has IPv4 addresses only; is this machine offline, or in a network that has IPv6 only?",
        "2001:db8::1 has IPv6 addresses only",
        "the name ca.invalid cannot be resolved",
    ] {
        assert!(
            finished.stderr.contains(words),
            "{words} is not in: {}",
            finished.stderr
        );
    }
    // All of them were left alone for a moment, and are asked anyway: there is nobody else.
    assert_eq!(scene.ca(&broker, 0)["state"], "open");
    assert!(scene.ssh().stderr.contains("has IPv4 addresses only"));
}
