//! SIGHUP: what is in files is read again. What cannot be used is logged, and what was in force stays.
//!
//! Rules are read again without it when their files change. They are looked at by time, size and inode, not by waiting
//! for the system to tell: that sees every way in which files are replaced (an editor, a rename, a link that Kubernetes
//! moves, a network disk), and a file that is still being written is left alone until it rests.

use super::numbers::Reloads;
use crate::cli::{Global, RuleOptions};
use crate::config::{self, Files};
use anyhow::Context;
use epithet_ca::AuditLog;
use epithet_policy::{Policy, ServiceTokens};
use epithet_serve::Tls;
use epithet_ssh::CaPublicKey;
use epithet_wire::limits::{CA_KEYS_REFRESH, RULES_WATCH};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

/// Everything of a server that comes from files and may change while it runs.
pub(super) struct Reload {
    pub(super) rules: Option<Rules>,
    pub(super) callers: Option<Callers>,
    pub(super) audit: Option<Arc<AuditLog>>,
    pub(super) tls: Option<Tls>,
    pub(super) reloads: Reloads,
}

/// A policy, and how its rules were found.
pub(super) struct Rules {
    pub(super) policy: Arc<Policy>,
    global: Global,
    flags: RuleOptions,
    /// The files as they were when the rules were last read, used or not.
    read: Files,
    /// The files as they were when they were last looked at.
    seen: Files,
}

impl Rules {
    /// `read` are the files that `policy` was made of.
    pub(super) fn new(policy: Arc<Policy>, global: &Global, flags: RuleOptions, read: Files) -> Self {
        Self {
            policy,
            global: global.clone(),
            flags,
            seen: read.clone(),
            read,
        }
    }

    fn read_again(&mut self, reloads: &Reloads) {
        self.read = self.look();
        let document = config::load(self.global.config.as_deref())
            .and_then(|config| super::document(&config, &self.flags));
        match self.policy.reload(document) {
            Ok(()) => {
                reloads.note("rules", true);
                tracing::info!("the rules were read again");
            }
            Err(error) => {
                reloads.note("rules", false);
                let error = format!("{error:#}");
                tracing::error!(error, "the rules cannot be used; the old ones stay in force");
            }
        }
    }

    /// Reads the rules again if their files changed and have rested since they were last looked at.
    fn read_if_changed(&mut self, reloads: &Reloads) {
        let now = self.look();
        let rests = now == self.seen;
        self.seen = now;
        if rests && self.seen != self.read {
            self.read_again(reloads);
        }
    }

    fn look(&self) -> Files {
        Files::now(self.global.config.as_deref())
    }
}

/// The CAs that a policy server answers, and how their keys were found.
#[derive(Clone)]
pub(super) struct CallersKeys {
    named: String,
    roots: Option<Vec<u8>>,
    reloads: Reloads,
}

impl CallersKeys {
    pub(super) fn new(named: String, roots: Option<Vec<u8>>, reloads: Reloads) -> Self {
        Self {
            named,
            roots,
            reloads,
        }
    }

    /// Whether a CA is asked for its keys, which it may exchange.
    pub(super) fn are_asked_for(&self) -> bool {
        self.named.contains("://")
    }

    /// The keys as they are now; `None`, with an error in the log, when they cannot be read.
    pub(super) async fn now(&self) -> Option<Vec<CaPublicKey>> {
        match super::ca_keys::public(&self.named, self.roots.as_deref()).await {
            Ok(keys) => {
                self.reloads.note("ca_keys", true);
                Some(keys)
            }
            Err(error) => {
                self.reloads.note("ca_keys", false);
                let error = format!("{error:#}");
                tracing::error!(error, "the CA's keys cannot be read; the old ones stay in force");
                None
            }
        }
    }
}

/// Who is answered, and where their keys are.
pub(super) struct Callers {
    pub(super) keys: CallersKeys,
    pub(super) tokens: Arc<ServiceTokens>,
}

impl Callers {
    async fn read_again(&self) {
        if let Some(keys) = self.keys.now().await {
            self.tokens.replace_keys(keys);
        }
    }
}

impl Reload {
    /// Does so from now on: all of it at each SIGHUP, the rules when their files change, and a CA is asked for its keys now
    /// and then.
    pub(super) fn whenever_needed(mut self) -> anyhow::Result<()> {
        let mut hang_ups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let mut looks = tokio::time::interval(RULES_WATCH);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(async move {
            let mut due = tokio::time::interval(CA_KEYS_REFRESH);
            due.reset();
            loop {
                tokio::select! {
                    hang_up = hang_ups.recv() => match hang_up {
                        Some(()) => self.all().await,
                        None => break,
                    },
                    _ = due.tick() => if let Some(callers) = self.callers.as_ref().filter(|one| one.keys.are_asked_for()) {
                        callers.read_again().await;
                    },
                    _ = looks.tick(), if self.rules.is_some() => {
                        self.rules.iter_mut().for_each(|rules| rules.read_if_changed(&self.reloads));
                    }
                }
            }
        });
        Ok(())
    }

    async fn all(&mut self) {
        if let Some(callers) = &self.callers {
            callers.read_again().await;
        }
        if let Some(audit) = &self.audit {
            match audit.reopen().await {
                Ok(()) => {
                    self.reloads.note("audit", true);
                    tracing::info!("the audit log was opened again");
                }
                Err(error) => {
                    self.reloads.note("audit", false);
                    tracing::error!(%error, "the audit log could not be opened again; the old file stays in use");
                }
            }
        }
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(()) => {
                    self.reloads.note("tls", true);
                    tracing::info!("the TLS certificate and key were read again");
                }
                Err(error) => {
                    self.reloads.note("tls", false);
                    tracing::error!(%error, "the TLS files cannot be used; the old certificate stays in use");
                }
            }
        }
        if let Some(rules) = &mut self.rules {
            rules.read_again(&self.reloads);
        }
    }
}
