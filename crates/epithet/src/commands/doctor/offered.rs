//! What was tried with whom, as far as it helps to find out why it failed.

use super::ssh::Intent;
use epithet_ssh::UserCertificate;
use std::path::Path;

/// What was shown to whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offered<'a> {
    /// As it was typed.
    pub(super) target: &'a str,
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) user: &'a str,
    /// The broker's certificate; `None` for a host that is none of the broker's.
    pub(super) certificate: Option<Shown<'a>>,
    /// Where that CA is asked.
    pub(super) ca_url: &'a str,
    /// How ssh finds what it knows of host keys.
    pub(super) known: Known<'a>,
    /// The program through which ssh talks to the host.
    pub(super) proxy_command: Option<&'a str>,
}

/// A certificate, as far as it helps to find the reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// The fingerprint of the CA that signed it.
    pub(super) ca: &'a str,
    pub(super) key_id: &'a str,
    /// Whether it lets its owner through to other hosts.
    pub(super) forwards: bool,
}

impl<'a> Shown<'a> {
    pub(super) fn of(certificate: &'a UserCertificate, ca: &'a str) -> Self {
        Self {
            ca,
            key_id: certificate.key_id(),
            forwards: certificate.extensions().contains_key("permit-port-forwarding"),
        }
    }
}

/// Where ssh looks for a host's key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known<'a> {
    /// The files, as `ssh -G` prints them.
    pub(super) files: &'a str,
    pub(super) alias: &'a str,
}

impl<'a> Known<'a> {
    pub(super) fn of(intent: &'a Intent) -> Self {
        Self {
            files: intent.get("userknownhostsfile"),
            alias: intent.get("hostkeyalias"),
        }
    }

    /// The command that forgets a host's key.
    pub(super) fn forget(self, host: &str, port: u16) -> String {
        let name = match (self.alias, port) {
            ("" | "none", 22) => host.to_owned(),
            ("" | "none", port) => format!("[{host}]:{port}"),
            (alias, _) => alias.to_owned(),
        };
        // A path with a blank in it cannot be told from two.
        let whole = Path::new(self.files).exists().then_some(self.files);
        let first = || {
            self.files
                .split_whitespace()
                .find(|file| Path::new(file).exists())
        };
        match whole.or_else(first) {
            Some(file) => format!("ssh-keygen -f {} -R {}", quoted(file), quoted(&name)),
            None => format!("ssh-keygen -R {}", quoted(&name)),
        }
    }
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
