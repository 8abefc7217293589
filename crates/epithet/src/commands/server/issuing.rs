//! What CA and combined server do alike: issue within their own limits, write it down, serve.

use super::ca_keys::CaKeys;
use super::numbers::Numbers;
use super::reload::{Reload, Rules};
use super::{in_process, tls};
use crate::cli::IssuingOptions;
use crate::config::IssuingSection;
use anyhow::{Context, bail};
use epithet_ca::{AuditLog, Authority, Ceilings, PolicySource};
use epithet_serve::{Listen, Settings};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest name of an extension.
const EXTENSION_MAX: usize = 256;

/// What CA and combined server were told about issuing and TLS, checked.
pub(super) struct Issuing {
    ceilings: Ceilings,
    audit: AuditLog,
    settings: Settings,
    metrics_listen: Option<String>,
}

impl Issuing {
    /// Flags and environment over the file.
    pub(super) fn gather(flags: IssuingOptions, file: IssuingSection) -> anyhow::Result<Self> {
        // What flags say about the audit log replaces all that the file says about it.
        let (audit_file, audit_syslog) = match (flags.audit_file, flags.audit_syslog) {
            (None, None) => (file.audit_file, file.audit_syslog),
            flags => flags,
        };
        let audit = match (audit_file, audit_syslog) {
            (Some(_), Some(_)) => bail!("audit-file and audit-syslog: name one of the two"),
            (Some(path), None) => AuditLog::file(&crate::logging::home_expanded(&path)?)?,
            (None, Some(path)) => AuditLog::syslog(&path)?,
            (None, None) => AuditLog::stdout()?,
        };
        let extensions = match flags.allow_extension {
            none if none.is_empty() => file.allow_extension,
            some => Some(some),
        };
        let mut ceilings = ceilings(flags.max_ttl.or(file.max_ttl), extensions)?;
        ceilings.principals = match flags.allow_principal {
            none if none.is_empty() => file.allow_principal.unwrap_or_default(),
            some => some,
        };
        Ok(Self {
            ceilings,
            audit,
            settings: Settings {
                tls: tls(
                    flags.tls_cert.or(file.tls_cert).as_deref(),
                    flags.tls_key.or(file.tls_key).as_deref(),
                )?,
                trusted_proxies: match flags.trusted_proxy {
                    none if none.is_empty() => file.trusted_proxy.unwrap_or_default(),
                    some => some,
                },
                ..Settings::default()
            },
            metrics_listen: flags.metrics_listen.or(file.metrics_listen),
        })
    }

    /// Builds the CA and serves it; `rules` are those of a policy in the same process.
    pub(super) async fn serve(
        self,
        keys: CaKeys,
        policy: PolicySource,
        rules: Option<Rules>,
        listen: &str,
        ending: CancellationToken,
    ) -> anyhow::Result<ExitCode> {
        let audit = Arc::new(self.audit);
        let authority = Authority::new(keys.signer, self.ceilings).publish_also(keys.others);
        let mut numbers = Numbers::new(
            self.settings.tls.as_ref(),
            rules.as_ref().map(|rules| &rules.policy),
        );
        numbers.of_audit(&audit);
        let mut router = epithet_ca::router_with(authority, policy, Arc::clone(&audit), numbers.of_ca());
        if let Some(rules) = &rules {
            router = in_process::say_when_rules_are_old(router, Arc::clone(&rules.policy));
        }
        let reload = Reload {
            rules,
            callers: None,
            audit: Some(audit),
            tls: self.settings.tls.clone(),
            reloads: numbers.reloads.clone(),
        };
        reload.whenever_needed()?;
        if let Some(address) = &self.metrics_listen {
            numbers.serve(address, ending.clone()).await?;
        }
        serve(router, listen, self.settings, ending).await
    }
}

/// The CA's own limits.
fn ceilings(max_ttl: Option<Duration>, extensions: Option<Vec<String>>) -> anyhow::Result<Ceilings> {
    // The request's id in sshd's log is what leads from a login to its audit line.
    let mut ceilings = Ceilings {
        request_in_key_id: true,
        ..Ceilings::default()
    };
    if let Some(max_ttl) = max_ttl {
        if max_ttl < Duration::from_secs(1) {
            bail!("--max-ttl must be at least 1s");
        }
        ceilings.max_ttl = max_ttl;
    }
    if let Some(names) = extensions {
        let is_name = |name: &&String| {
            name.is_empty() || name.len() > EXTENSION_MAX || !name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if let Some(wrong) = names.iter().find(is_name) {
            bail!("--allow-extension: {wrong:?} is not the name of an extension, such as permit-pty");
        }
        ceilings.extensions = names.into_iter().collect();
    }
    Ok(ceilings)
}

/// Binds, says so, and serves until the end.
pub(super) async fn serve(
    router: axum::Router,
    listen: &str,
    settings: Settings,
    ending: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let listener = Listen::parse(listen).context("--listen")?.bind().await?;
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let address = listener
        .tcp_address()
        .map_or_else(|| listener.address(), |address| format!("{scheme}://{address}"));
    crate::logging::say(&format!("ready: listening on {address}"));
    epithet_serve::serve(listener, router, settings, ending).await;
    Ok(ExitCode::SUCCESS)
}
