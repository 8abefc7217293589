//! SIGHUP: what is in files is read again. What cannot be used is logged, and what was in force stays.

use crate::cli::{Global, RuleOptions};
use crate::config;
use anyhow::Context;
use epithet_ca::AuditLog;
use epithet_policy::Policy;
use epithet_serve::Tls;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Everything of a server that comes from files and may change while it runs.
pub(super) struct Reload {
    pub(super) rules: Option<Rules>,
    pub(super) audit: Option<Arc<AuditLog>>,
    pub(super) tls: Option<Tls>,
}

/// A policy, and how its rules were found.
pub(super) struct Rules {
    pub(super) policy: Arc<Policy>,
    global: Global,
    flags: RuleOptions,
}

impl Rules {
    pub(super) fn new(policy: Arc<Policy>, global: &Global, flags: RuleOptions) -> Self {
        let global = global.clone();
        Self {
            policy,
            global,
            flags,
        }
    }

    fn read_again(&self) -> anyhow::Result<()> {
        let document = config::load(self.global.config.as_deref())
            .and_then(|config| super::document(&config, &self.flags));
        self.policy.reload(document)
    }
}

impl Reload {
    /// Does so at each SIGHUP from now on.
    pub(super) fn on_hang_up(self) -> anyhow::Result<()> {
        let mut hang_ups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        tokio::spawn(async move {
            while hang_ups.recv().await.is_some() {
                self.all();
            }
        });
        Ok(())
    }

    fn all(&self) {
        if let Some(audit) = &self.audit {
            match audit.reopen() {
                Ok(()) => tracing::info!("the audit log was opened again"),
                Err(error) => {
                    tracing::error!(%error, "the audit log could not be opened again; the old file stays in use");
                }
            }
        }
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(()) => tracing::info!("the TLS certificate and key were read again"),
                Err(error) => {
                    tracing::error!(%error, "the TLS files cannot be used; the old certificate stays in use");
                }
            }
        }
        if let Some(rules) = &self.rules {
            match rules.read_again() {
                Ok(()) => tracing::info!("the rules were read again"),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the rules cannot be used; the old ones stay in force");
                }
            }
        }
    }
}
