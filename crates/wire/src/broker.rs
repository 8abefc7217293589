//! The wire between `epithet match` (and `inspect`, `login`, `logout`) and the broker: JSON lines on a Unix socket.
//!
//! One request line of at most [`crate::limits::BROKER_LINE_MAX`] bytes; then any number of `output` lines and one
//! `result`, `inspect` or `traces` line. Compatible with epithet 0.19, to which the fields marked *ours* are unknown and thereby
//! ignored. `match` may pass its stderr along with the first byte (`SCM_RIGHTS`): then the broker can speak to the
//! person after `match` has gone. An `output` line with empty text only says that the broker is still at work.

use crate::connection::{ConnectionFields, null_as_default};
use crate::trace::Trace;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// With this in the environment `match` answers yes, and nobody is asked: for whoever wants to know by `ssh -G` what ssh
/// would do then (`epithet doctor`, and the broker itself). The agent that ssh is sent to is not there, so nobody can log in
/// by it.
pub const DRY_RUN: &str = "EPITHET_MATCH_DRY_RUN";

/// A request; exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// May this connection use an agent, and is it ready?
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub match_: Option<MatchRequest>,
    /// What are you doing?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspect: Option<Empty>,
    /// Log in now, before the first ssh. *Ours.*
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Asker>,
    /// Forget state, token and every agent, after the provider was asked to do the same. *Ours.*
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logout: Option<Asker>,
    /// What became of the last connections? *Ours.*
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Empty>,
}

/// An object without fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A connection, and who asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MatchRequest {
    /// The host (`%h`).
    pub remote_host: String,
    /// The user (`%r`).
    pub remote_user: String,
    /// The port (`%p`).
    pub port: u32,
    /// The jump hosts (`%j`), where ssh tells them.
    pub proxy_jump: String,
    /// `%C`.
    pub hash: String,
    /// This ssh looks for its agent at `USER@HOST`, because `%C` means nothing to it (OpenSSH before 8.3); the broker makes
    /// the hash, and `hash` is empty. *Ours.*
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_name: bool,
    /// Who asks. *Ours.*
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asker: Option<Asker>,
}

impl MatchRequest {
    /// The connection's fields, to be checked.
    pub fn connection(&self) -> ConnectionFields {
        ConnectionFields {
            remote_host: self.remote_host.clone(),
            remote_user: self.remote_user.clone(),
            port: self.port,
            proxy_jump: self.proxy_jump.clone(),
            hash: self.hash.clone(),
        }
    }
}

/// Who is asking: what decides whether a browser may be opened, and what the person is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Asker {
    /// Whether somebody is at a terminal.
    pub terminal: bool,
    /// Whether that terminal is itself an ssh session.
    pub remote_session: bool,
    /// The command line that started ssh, shortened, for the person to recognise.
    pub command: String,
    /// Its process id; 0 where unknown.
    pub process: u32,
    /// Whether stderr was passed along with the request.
    pub stderr: bool,
    /// How the person wants to log in this time, in a word that the plugin knows; empty when it shall choose.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub flow: String,
    /// The person's own agent (`SSH_AUTH_SOCK`), to be offered after ours when that is configured.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_socket: String,
    /// What ssh is about to do.
    #[serde(skip_serializing_if = "Purpose::is_connect")]
    pub purpose: Purpose,
}

/// What ssh is about to do, as far as its command line tells: not every ssh logs in anywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Print its configuration (`-G`).
    Print,
    /// Speak to a shared connection that is there already (`-O`).
    Control,
    /// Connect, or whatever else is not known to be less.
    #[default]
    #[serde(other)]
    Connect,
}

impl Purpose {
    /// Whether ssh may be about to log in.
    pub fn is_connect(&self) -> bool {
        *self == Self::Connect
    }
}

/// A reply line; exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Text for the person, as it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The end of a `match`, `login` or `logout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<MatchResult>,
    /// The answer to `inspect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspect: Option<Box<Inspection>>,
    /// A pasted redirect address may be delivered to this loopback URL, by a GET with the pasted address's query. A
    /// later one takes the place of an earlier one. *Ours.*
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paste: Option<String>,
    /// The answer to `trace`: the newest last. *Ours.*
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<Vec<Trace>>,
}

impl Reply {
    /// Text for the person.
    pub fn output(text: impl Into<String>) -> Self {
        Self {
            output: Some(text.into()),
            ..Self::default()
        }
    }

    /// A pasted address may be delivered there.
    pub fn paste(deliver_to: &crate::LoopbackAddress) -> Self {
        Self {
            paste: Some(deliver_to.to_string()),
            ..Self::default()
        }
    }

    /// Yes: the agent socket is listening.
    pub fn allow() -> Self {
        Self {
            result: Some(MatchResult {
                allow: true,
                error: String::new(),
            }),
            ..Self::default()
        }
    }

    /// No, with a reason for the person, or without one for a host that is none of ours.
    pub fn deny(error: impl Into<String>) -> Self {
        Self {
            result: Some(MatchResult {
                allow: false,
                error: error.into(),
            }),
            ..Self::default()
        }
    }
}

/// The end of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchResult {
    /// Whether ssh shall use the agent.
    pub allow: bool,
    /// Why not; may have several lines.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub error: String,
}

/// What a broker is doing. Never contains a token, state or private key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Inspection {
    /// The profile. *Ours.*
    pub profile: String,
    /// The broker's version. *Ours.*
    pub version: String,
    /// The broker's process id. *Ours.*
    pub pid: u32,
    /// When it started. *Ours.*
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The broker's socket.
    pub socket_path: String,
    /// Where the agents' sockets are.
    pub agent_socket_dir: String,
    /// Which hosts are handled, and who said so. *Ours.*
    pub hosts: HostsInspection,
    /// The login. *Ours.*
    pub login: LoginInspection,
    /// What is held for plugins, and how much of it is kept out of swap. *Ours.*
    pub memory: MemoryInspection,
    /// The agents.
    pub agents: Vec<AgentInspection>,
    /// The CAs.
    pub ca_endpoints: Vec<CaInspection>,
}

/// Which hosts a broker handles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostsInspection {
    /// The patterns.
    pub patterns: Vec<String>,
    /// Where they came from: `configuration`, `ca` or `everything`.
    pub source: String,
    /// Why the CA could not be asked for them, while it has not said anything yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The login of a broker, without anything secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoginInspection {
    /// The plugin's command as configured.
    pub command: String,
    /// Whether a token is held.
    pub token: bool,
    /// When the token was obtained.
    pub token_since: Option<Timestamp>,
    /// Whether it pays for the next certificate, too: it is younger than `token-reuse`, and no certificate got with it has
    /// ended.
    pub token_serves: bool,
    /// How much state the plugin left, in bytes.
    pub state_bytes: usize,
    /// How often the plugin ran to success.
    pub logins: u64,
    /// How often it failed.
    pub failures: u64,
    /// Whether it runs now.
    pub running: bool,
    /// The last failure's first line.
    pub last_error: Option<String>,
}

/// States and tokens in a broker's memory, in bytes; nothing of what they say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryInspection {
    /// In use.
    pub held_bytes: usize,
    /// Of these, locked: kept out of swap.
    pub locked_bytes: usize,
}

/// One connection's agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentInspection {
    /// `%C`.
    pub hash: String,
    /// The socket.
    pub socket_path: String,
    /// When the certificate ends; absent while it is being fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The certificate, one line; empty while it is being fetched.
    pub certificate: String,
    /// `waiting`, `ready`, `refused` or `ended`. *Ours.*
    pub state: String,
    /// The host. *Ours.*
    pub remote_host: String,
    /// The user. *Ours.*
    pub remote_user: String,
    /// The port. *Ours.*
    pub port: u16,
    /// The request's name in the CA's log. *Ours.*
    pub request_id: String,
}

/// One CA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CaInspection {
    /// The URL.
    pub url: String,
    /// Higher is asked first.
    pub priority: u32,
    /// `closed` (healthy), `resting` (healthy, and asked after the others for a moment, as it wished: *ours*), `open` (left
    /// alone for a while) or `half-open` (being tried again).
    pub state: String,
    /// The last failure. *Ours.*
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_bytes_of_epithet_0_19() {
        let request = Request {
            match_: Some(MatchRequest {
                remote_host: "server.example.com".into(),
                remote_user: "root".into(),
                port: 22,
                hash: "abc123".into(),
                ..MatchRequest::default()
            }),
            ..Request::default()
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"match":{"remoteHost":"server.example.com","remoteUser":"root","port":22,"proxyJump":"","hash":"abc123"}}"#
        );
        let mut by_name = request;
        if let Some(request) = &mut by_name.match_ {
            request.hash = String::new();
            request.by_name = true;
        }
        let line = serde_json::to_string(&by_name).unwrap();
        assert!(line.ends_with(r#""hash":"","byName":true}}"#), "{line}");
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), by_name);
        let lines = [
            (
                Reply::output("visit https://x\n"),
                r#"{"output":"visit https://x\n"}"#,
            ),
            (Reply::allow(), r#"{"result":{"allow":true}}"#),
            (Reply::deny("no"), r#"{"result":{"allow":false,"error":"no"}}"#),
            (Reply::deny(""), r#"{"result":{"allow":false}}"#),
            (
                Reply::paste(&"http://127.0.0.1:7/callback".parse().unwrap()),
                r#"{"paste":"http://127.0.0.1:7/callback"}"#,
            ),
        ];
        for (reply, line) in lines {
            assert_eq!(serde_json::to_string(&reply).unwrap(), line);
            assert_eq!(serde_json::from_str::<Reply>(line).unwrap(), reply);
        }
        assert!(
            serde_json::from_str::<Request>(r#"{"inspect":{}}"#)
                .unwrap()
                .inspect
                .is_some()
        );
    }
}
