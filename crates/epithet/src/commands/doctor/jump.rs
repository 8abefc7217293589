//! The hosts that ssh goes through on its way (`ProxyJump`), each looked at as a host of its own.
//!
//! ssh starts another ssh for the last of them, that one for the last but one, and so on; what these say is not the
//! target's answer. So they are only asked when the target could not be reached, one after the other.

use super::ssh::{Destination, Intent, Ssh};
use epithet_wire::limits::DOCTOR_JUMPS_MAX;

/// A jump host as it is written in `ProxyJump`: `[user@]host[:port]` or the same as a `ssh://` URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) written: String,
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<String>,
}

impl Jump {
    /// As OpenSSH's `parse_user_host_port` (misc.c) takes it apart.
    pub(super) fn parse(written: &str) -> Self {
        let rest = written.strip_prefix("ssh://").unwrap_or(written);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
        };
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match rest.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (rest, None),
            },
        };
        Self {
            written: written.to_owned(),
            user,
            host: host.to_owned(),
            port: port.map(str::to_owned),
        }
    }

    /// As ssh takes it for a destination: `ProxyJump` has a port behind the name, and an address in brackets.
    pub(super) fn destination(&self) -> String {
        let user = self
            .user
            .as_ref()
            .map(|user| format!("{user}@"))
            .unwrap_or_default();
        let host = &self.host;
        match &self.port {
            None => format!("{user}{host}"),
            Some(port) if host.contains(':') => format!("ssh://{user}[{host}]:{port}"),
            Some(port) => format!("ssh://{user}{host}:{port}"),
        }
    }
}

/// A jump host on the way, and what ssh would do for it.
#[derive(Debug)]
pub(super) struct Station {
    jump: Jump,
    pub(super) destination: Destination,
    pub(super) intent: Intent,
}

/// Why the way could not be found.
#[derive(Debug)]
pub(super) enum Lost {
    /// The jump hosts lead back to this host.
    Loop(String),
    /// There is no end of them.
    TooMany,
    /// ssh does not accept what is written for this jump host.
    Refused(String, anyhow::Error),
}

impl Lost {
    /// What `ssh -G` ended with for `target`. It sees itself when a host is its own jump host (`jumphost loop via`, ssh.c).
    pub(super) fn by(target: &str, error: anyhow::Error) -> Self {
        let text = format!("{error:#}");
        let host = text
            .split_once("jumphost loop via ")
            .and_then(|(_, rest)| rest.split_whitespace().next());
        match host {
            Some(host) => Self::Loop(host.to_owned()),
            None => Self::Refused(target.to_owned(), error),
        }
    }
}

/// The jump hosts before the one that ssh would do this for, in the order in which they are passed. Nothing is started.
pub(super) async fn stations(ssh: &Ssh, intent: &Intent) -> Result<Vec<Station>, Lost> {
    let mut stations: Vec<Station> = Vec::new();
    let mut jumps = intent.jumps();
    while !jumps.is_empty() {
        let mut part = Vec::new();
        for (index, jump) in jumps.iter().enumerate() {
            if stations.len() + part.len() >= DOCTOR_JUMPS_MAX {
                return Err(Lost::TooMany);
            }
            let is_passed =
                |station: &&Station| station.jump.host == jump.host && station.jump.port == jump.port;
            if let Some(again) = stations.iter().chain(&part).find(is_passed) {
                return Err(Lost::Loop(again.jump.host.clone()));
            }
            let destination = Destination::jump(jump, &jumps[..index]);
            match ssh.intent(&destination).await {
                Ok(intent) => part.push(Station {
                    jump: jump.clone(),
                    destination,
                    intent,
                }),
                Err(error) => return Err(Lost::by(&destination.shown, error)),
            }
        }
        // The first is reached as its own configuration says, which may be through others.
        let first = part.first().map(|station| &station.intent);
        jumps = first.map(Intent::jumps).unwrap_or_default();
        part.append(&mut stations);
        stations = part;
    }
    Ok(stations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jump_hosts_are_taken_apart_as_ssh_does() {
        for (written, user, host, port, shown) in [
            ("j", None, "j", None, "j"),
            ("bob@j:2222", Some("bob"), "j", Some("2222"), "ssh://bob@j:2222"),
            ("a@b@j", Some("a@b"), "j", None, "a@b@j"),
            ("bob@[10.0.0.1]", Some("bob"), "10.0.0.1", None, "bob@10.0.0.1"),
            ("[::1]:22", None, "::1", Some("22"), "ssh://[::1]:22"),
            ("fe80::1", None, "fe80::1", None, "fe80::1"),
            ("ssh://bob@j:22/", Some("bob"), "j", Some("22"), "ssh://bob@j:22"),
        ] {
            let jump = Jump::parse(written);
            assert_eq!(
                (jump.user.as_deref(), jump.host.as_str(), jump.port.as_deref()),
                (user, host, port),
                "{written}"
            );
            assert_eq!(jump.destination(), shown, "{written}");
        }
    }
}
