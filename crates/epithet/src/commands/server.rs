//! `epithet ca`, `epithet policy` and `epithet server`: three ways to wire the same parts.

mod ca_keys;
mod in_process;
mod look_at_rules;
mod reload;

use crate::cli::{CaOptions, Global, IssuingOptions, RuleOptions, ServePolicyOptions, ServerOptions};
use crate::config::{self, Config};
use anyhow::{Context, bail};
use epithet_ca::{AuditLog, Authority, Ceilings, PolicyClient, PolicySource, PrincipalPattern};
use epithet_policy::{Document, Lifetime, Policy, ServiceTokens};
use epithet_serve::{Listen, Settings, Tls};
use epithet_ssh::CaKey;
use epithet_wire::Endpoint;
use in_process::InProcess;
pub(crate) use look_at_rules::{check, explain};
use reload::{Reload, Rules};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

/// Where the CA's key is unless it is named.
const KEY: &str = "/etc/epithet/ca.key";
/// Where CA and combined server listen unless told: this machine, because without TLS nobody else should reach them.
const CA_LISTEN: &str = "127.0.0.1:8080";
/// Where the policy server listens unless told.
const POLICY_LISTEN: &str = "127.0.0.1:9999";

/// `epithet ca`
pub(crate) fn ca(global: &Global, options: CaOptions) -> anyhow::Result<ExitCode> {
    let config = start(global)?;
    let section = &config.ca;
    let key = ca_keys::load(
        &options
            .key
            .or_else(|| section.key.clone())
            .unwrap_or_else(|| PathBuf::from(KEY)),
        "--key",
    )?;
    let Some(policy) = options.policy.or_else(|| section.policy.clone()) else {
        bail!(
            "--policy is required: the policy server's URL, https://policy.example.com or unix:///run/epithet/policy.sock"
        );
    };
    let endpoint = Endpoint::parse(&policy).context("--policy")?;
    let roots = roots(global, &config)?;
    let policy = PolicySource::remote(PolicyClient::new(&endpoint, Arc::clone(&key), roots.as_deref())?);
    let issuing = Issuing::gather(
        options.issuing,
        section.max_ttl.as_ref().map(|text| text.0.0),
        section.allow_principal.as_ref().map(|list| list.0.as_slice()),
        &section.audit_file,
        &section.tls_cert,
        &section.tls_key,
    );
    let listen = options.listen.or_else(|| section.listen.clone());
    serve_ca(
        key,
        policy,
        issuing,
        None,
        &listen.unwrap_or_else(|| CA_LISTEN.to_owned()),
    )
}

/// `epithet policy`
pub(crate) fn policy(global: &Global, options: ServePolicyOptions) -> anyhow::Result<ExitCode> {
    let config = start(global)?;
    let roots = roots(global, &config)?;
    let document = document(&config, &options.rules)?;
    let Some(ca_pubkey) = options.ca_pubkey.or_else(|| document.ca_pubkey.clone()) else {
        bail!(
            "ca-pubkey is required (via --ca-pubkey flag or policy.ca-pubkey in config): the CA's public key as a file, a line or the CA's URL"
        );
    };
    let listen = options
        .listen
        .or_else(|| document.listen.clone())
        .unwrap_or_else(|| POLICY_LISTEN.to_owned());
    let tls = tls(options.tls_cert.as_deref(), options.tls_key.as_deref())?;
    let http = provider_http(roots.as_deref())?;
    let policy = Arc::new(Policy::new(&document, http)?);
    let reload = Reload {
        rules: Some(Rules::new(
            Arc::clone(&policy),
            global,
            options.rules,
            config.files,
        )),
        audit: None,
        tls: tls.clone(),
    };
    crate::runtime::run(threads(), |ending| async move {
        reload.whenever_needed()?;
        let key = ca_keys::public(&ca_pubkey, roots.as_deref()).await?;
        let router = epithet_policy::router(policy, ServiceTokens::new([key]));
        serve(router, &listen, tls, ending).await
    })
}

/// `epithet server`: CA and policy in one process, with no HTTP between them.
pub(crate) fn server(global: &Global, options: ServerOptions) -> anyhow::Result<ExitCode> {
    let config = start(global)?;
    let section = &config.server;
    let key = ca_keys::load(
        &options
            .ca_key
            .or_else(|| section.ca_key.clone())
            .unwrap_or_else(|| PathBuf::from(KEY)),
        "--ca-key",
    )?;
    let roots = roots(global, &config)?;
    let document = document(&config, &options.rules)?;
    let policy = Arc::new(Policy::new(&document, provider_http(roots.as_deref())?)?);
    let source = PolicySource::local(InProcess::new(Arc::clone(&policy)));
    let rules = Rules::new(policy, global, options.rules, config.files.clone());
    let issuing = Issuing::gather(
        options.issuing,
        section.max_ttl.as_ref().map(|text| text.0.0),
        section.allow_principal.as_ref().map(|list| list.0.as_slice()),
        &section.audit_file,
        &section.tls_cert,
        &section.tls_key,
    );
    let listen = options.listen.or_else(|| section.listen.clone());
    serve_ca(
        key,
        source,
        issuing,
        Some(rules),
        &listen.unwrap_or_else(|| CA_LISTEN.to_owned()),
    )
}

/// What CA and combined server were told about issuing and TLS.
struct Issuing {
    max_ttl: Option<Duration>,
    allow_principal: Vec<PrincipalPattern>,
    audit_file: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

impl Issuing {
    /// Flags and environment over the file.
    fn gather(
        flags: IssuingOptions,
        max_ttl: Option<Duration>,
        allow_principal: Option<&[PrincipalPattern]>,
        audit_file: &Option<PathBuf>,
        tls_cert: &Option<PathBuf>,
        tls_key: &Option<PathBuf>,
    ) -> Self {
        Self {
            max_ttl: flags.max_ttl.or(max_ttl),
            allow_principal: match flags.allow_principal.as_slice() {
                [] => allow_principal.unwrap_or_default().to_vec(),
                flags => flags.to_vec(),
            },
            audit_file: flags.audit_file.or_else(|| audit_file.clone()),
            tls_cert: flags.tls_cert.or_else(|| tls_cert.clone()),
            tls_key: flags.tls_key.or_else(|| tls_key.clone()),
        }
    }
}

/// Builds the CA and serves it; `rules` are those of a policy in the same process.
fn serve_ca(
    key: Arc<CaKey>,
    policy: PolicySource,
    issuing: Issuing,
    rules: Option<Rules>,
    listen: &str,
) -> anyhow::Result<ExitCode> {
    // The request's id in sshd's log is what leads from a login to its audit line.
    let mut ceilings = Ceilings {
        request_in_key_id: true,
        principals: issuing.allow_principal,
        ..Ceilings::default()
    };
    if let Some(max_ttl) = issuing.max_ttl {
        if max_ttl < Duration::from_secs(1) {
            bail!("--max-ttl must be at least 1s");
        }
        ceilings.max_ttl = max_ttl;
    }
    let audit = match &issuing.audit_file {
        Some(path) => AuditLog::file(&crate::logging::home_expanded(path)?)?,
        None => AuditLog::stdout(),
    };
    let tls = tls(issuing.tls_cert.as_deref(), issuing.tls_key.as_deref())?;
    let audit = Arc::new(audit);
    let mut router = epithet_ca::router(Authority::new(key, ceilings), policy, Arc::clone(&audit));
    if let Some(rules) = &rules {
        router = in_process::say_when_rules_are_old(router, Arc::clone(&rules.policy));
    }
    let reload = Reload {
        rules,
        audit: Some(audit),
        tls: tls.clone(),
    };
    crate::runtime::run(threads(), |ending| async move {
        reload.whenever_needed()?;
        serve(router, listen, tls, ending).await
    })
}

/// Binds, says so, and serves until the end.
async fn serve(
    router: axum::Router,
    listen: &str,
    tls: Option<Tls>,
    ending: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let listener = Listen::parse(listen).context("--listen")?.bind().await?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = listener
        .tcp_address()
        .map_or_else(|| listener.address(), |address| format!("{scheme}://{address}"));
    // Nobody listening on stderr is no reason not to serve.
    let _ = writeln!(std::io::stderr(), "ready: listening on {address}");
    epithet_serve::serve(
        listener,
        router,
        Settings {
            tls,
            ..Settings::default()
        },
        ending,
    )
    .await;
    Ok(ExitCode::SUCCESS)
}

fn start(global: &Global) -> anyhow::Result<Config> {
    let config = config::load(global.config.as_deref())?;
    crate::logging::start(global, &config.common(), LevelFilter::WARN)?;
    epithet_broker::harden();
    epithet_broker::raise_open_files();
    Ok(config)
}

/// The rules of the files with the flags over them.
fn document(config: &Config, flags: &RuleOptions) -> anyhow::Result<Document> {
    let mut document = config.policy.clone();
    let over = |there: &mut Option<String>, flag: &Option<String>| {
        if flag.is_some() {
            there.clone_from(flag);
        }
    };
    over(&mut document.oidc.first.issuer, &flags.oidc_issuer);
    over(&mut document.oidc.first.client_id, &flags.oidc_client_id);
    over(&mut document.oidc.first.client_secret, &flags.oidc_client_secret);
    if let Some(text) = &flags.default_expiration {
        let duration = epithet_wire::parse_duration(text).context("--default-expiration")?;
        let lifetime = Lifetime::new(duration).context("--default-expiration must be longer than 0s")?;
        document.default_expiration = Some(lifetime);
    }
    if document.users.is_empty() && document.groups.is_empty() {
        tracing::warn!("policy.users is empty, so everybody is refused; name users in a configuration file");
    }
    if document.hosts.is_empty() {
        tracing::warn!("policy.hosts is empty, so every host is refused; name hosts in a configuration file");
    }
    Ok(document)
}

/// The certificates of `--tls-ca-cert`, as PEM.
fn roots(global: &Global, config: &Config) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(path) = global.tls_ca_cert.as_ref().or(config.tls_ca_cert.as_ref()) else {
        return Ok(None);
    };
    let path = crate::logging::home_expanded(path)?;
    std::fs::read(&path)
        .map(Some)
        .with_context(|| format!("--tls-ca-cert {}", path.display()))
}

fn provider_http(roots: Option<&[u8]>) -> anyhow::Result<Arc<epithet_oidc::Http>> {
    Ok(Arc::new(match roots {
        Some(pem) => epithet_oidc::Http::with_roots(pem).context("--tls-ca-cert")?,
        None => epithet_oidc::Http::default(),
    }))
}

fn tls(certificate: Option<&Path>, key: Option<&Path>) -> anyhow::Result<Option<Tls>> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(Tls::load(certificate, key)?)),
        (None, None) => Ok(None),
        _ => bail!("--tls-cert and --tls-key belong together; name both or neither"),
    }
}

/// One thread a core: the work is signing and verifying.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
