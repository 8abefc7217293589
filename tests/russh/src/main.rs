//! Logs in with russh through an agent of Epithet's, and says how it went, one JSON line a step.
//!
//! russh does not read ssh's `Match exec`, so this program asks the broker itself, as ssh would. It can bind its agent
//! connection to the session (`session-bind@openssh.com`), and does so where the step says it.

use russh::client::{self, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::PublicKey;
use russh::{ChannelMsg, Preferred};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

type Error = Box<dyn std::error::Error>;

struct Options(HashMap<String, String>);

impl Options {
    fn read() -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let pairs = words.chunks(2).map(|pair| (pair[0].trim_start_matches("--").to_owned(), pair[1].clone()));
        Self(pairs.collect())
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("--{name} is required"))
    }

    fn agent(&self) -> PathBuf {
        let broker = PathBuf::from(self.get("broker"));
        broker.with_file_name("agent").join(self.get("hash"))
    }
}

/// Takes only the host key that it was told.
struct KnownHost(PublicKey);

impl client::Handler for KnownHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(matches!(key, russh::keys::PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.0.key_data()))
    }
}

/// Asks the broker for the connection, as ssh does by running the same program.
fn ask(options: &Options) {
    let mut question = Command::new(options.get("match"));
    for name in ["host", "port", "user", "hash", "broker"] {
        question.arg(format!("--{name}")).arg(options.get(name));
    }
    assert!(question.status().expect("it is installed").success(), "the broker says no");
}

/// A whole login with connections of its own. Returns what `command` printed, or why there was no login.
async fn log_in(options: &Options, binds: bool, command: &str) -> Result<String, Error> {
    let known = std::fs::read_to_string(options.get("known-hosts"))?;
    let (_, key) = known.trim().split_once(' ').ok_or("a known host is a name and a key")?;
    let preferred = Preferred {
        ..Preferred::default()
    };
    let config = Arc::new(client::Config {
        preferred,
        ..client::Config::default()
    });
    let address = (options.get("host"), options.get("port").parse::<u16>()?);
    let mut session = client::connect(config, address, KnownHost(PublicKey::from_openssh(key)?)).await?;
    let mut agent = AgentClient::connect_uds(options.agent()).await?;
    if binds {
        let binding = session.agent_session_binding().ok_or("no binding")?.clone();
        agent.bind_session(&binding, false).await?;
    }
    for identity in agent.request_identities().await? {
        if let AgentIdentity::Certificate { certificate, .. } = identity {
            let result = session
                .authenticate_certificate_with(options.get("user"), certificate, None, &mut agent)
                .await?;
            if result.success() {
                return run(&session, command).await;
            }
        }
    }
    Err("no key of the agent was accepted".into())
}

async fn run(session: &Handle<KnownHost>, command: &str) -> Result<String, Error> {
    let mut channel = session.channel_open_session().await?;
    channel.exec(true, command).await?;
    let mut said = Vec::new();
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::Data { data } = message {
            said.extend_from_slice(&data);
        }
    }
    Ok(String::from_utf8(said)?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::read();
    let steps = [
        ("asked", true, false),
        ("not asked again", false, false),
        ("asked again", true, false),
        ("bound", true, true),
    ];
    for (step, asks, binds) in steps {
        if asks {
            ask(&options);
        }
        let (name, words) = match log_in(&options, binds, "echo logged in").await {
            Ok(said) => ("said", said),
            Err(error) => ("refused", error.to_string()),
        };
        println!("{{\"step\": {step:?}, {name:?}: {words:?}}}");
    }
}
