//! `epithet ca`, `epithet policy` and `epithet server`: three ways to wire the same parts.

mod ca_keys;
mod in_process;
mod issuing;
mod numbers;
mod passphrase;
mod policy_link;
mod reload;

use crate::cli::{Global, RuleOptions, ServeCaOptions, ServePolicyOptions, ServerOptions};
use crate::config::{self, Config};
use anyhow::{Context, bail};
pub(crate) use ca_keys::{KeyName, fetch, parse_lines, public_half};
use epithet_ca::{PolicyClient, PolicySource};
use epithet_policy::{Document, Lifetime, Policy, ServiceTokens};
use epithet_serve::{Settings, Tls};
use epithet_ssh::CaPublicKey;
use epithet_wire::limits::{CA_DEADLINE, POLICY_DEADLINE, POLICY_DEADLINE_RANGE};
use in_process::InProcess;
use issuing::{Issuing, serve};
use numbers::Numbers;
use passphrase::Passphrases;
use reload::{Callers, CallersKeys, Reload, Rules};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

/// Where the CA's key is unless it is named.
const KEY: &str = "/etc/epithet/ca.key";
/// Where CA and combined server listen unless told: this machine, because without TLS nobody else should reach them.
const CA_LISTEN: &str = "127.0.0.1:8080";
/// Where the policy server listens unless told.
const POLICY_LISTEN: &str = "127.0.0.1:9999";

/// `epithet ca`
pub(crate) fn ca(global: &Global, options: ServeCaOptions) -> anyhow::Result<ExitCode> {
    let config = start(global)?;
    let section = &config.ca;
    let keys = names(options.key, section.key.as_ref());
    let roots = roots(global, &config)?;
    crate::runtime::run(threads(), |ending| async move {
        let mut passphrases = Passphrases::new(options.issuing.key_passphrase_fd, &ending);
        let keys = ca_keys::load(&keys, "--key", &mut passphrases).await?;
        let Some(policy) = options.policy.or_else(|| section.policy.clone()) else {
            bail!(
                "--policy is required: the policy server's URL, https://policy.example.com or unix:///run/epithet/policy.sock"
            );
        };
        let policy_keys = match &section.policy_key {
            Some(named) if options.policy_key.is_empty() => &named.0,
            _ => &options.policy_key,
        };
        let policy_keys = ca_keys::named(policy_keys, "--policy-key")?;
        let endpoint = policy_link::endpoint(&policy, !policy_keys.is_empty())?;
        let configured = section.policy_timeout.as_ref().map(|text| text.0.0);
        let client = PolicyClient::new(&endpoint, keys.signer.clone(), roots.as_deref())?
            .with_deadline(policy_deadline(options.policy_timeout.or(configured))?)
            .with_reply_keys(policy_keys);
        let issuing = Issuing::gather(options.issuing, section.issuing())?;
        let listen = options.listen.or_else(|| section.listen.clone());
        let listen = listen.unwrap_or_else(|| CA_LISTEN.to_owned());
        issuing
            .serve(keys, PolicySource::remote(client), None, &listen, ending)
            .await
    })
}

/// How long policy may take.
fn policy_deadline(named: Option<Duration>) -> anyhow::Result<Duration> {
    let (least, most) = POLICY_DEADLINE_RANGE;
    let deadline = named.unwrap_or(POLICY_DEADLINE);
    if !(least..=most).contains(&deadline) {
        bail!(
            "--policy-timeout must be from {}s to {}s: clients wait {}s for the CA",
            least.as_secs(),
            most.as_secs(),
            CA_DEADLINE.as_secs()
        );
    }
    Ok(deadline)
}

/// The keys that flags or environment name, else the file, else the default.
fn names(flags: Vec<KeyName>, file: Option<&config::OneOrMany<KeyName>>) -> Vec<KeyName> {
    match file {
        _ if !flags.is_empty() => flags,
        Some(names) => names.0.clone(),
        None => vec![KeyName::File(PathBuf::from(KEY))],
    }
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
    let metrics_listen = options.metrics_listen.or_else(|| document.metrics_listen.clone());
    let tls = tls(options.tls_cert.as_deref(), options.tls_key.as_deref())?;
    let http = provider_http(roots.as_deref())?;
    let policy = Arc::new(Policy::new(&document, http)?);
    let rules = Rules::new(Arc::clone(&policy), global, options.rules, config.files);
    crate::runtime::run(threads(), |ending| async move {
        let keys = ca_keys::public(&ca_pubkey, roots.as_deref()).await?;
        let numbers = Numbers::new(tls.as_ref(), Some(&policy));
        numbers.reloads.expect("ca_keys");
        let callers_keys = CallersKeys::new(ca_pubkey, roots, numbers.reloads.clone());
        let callers = Arc::new(service_tokens(keys, &callers_keys));
        let reload = Reload {
            rules: Some(rules),
            callers: Some(Callers {
                keys: callers_keys,
                tokens: Arc::clone(&callers),
            }),
            audit: None,
            tls: tls.clone(),
            reloads: numbers.reloads.clone(),
        };
        reload.whenever_needed()?;
        let reply_key = match &options.reply_key {
            Some(name) => Some(ca_keys::one(name, "--reply-key", &ending).await?),
            None => None,
        };
        if let Some(address) = &metrics_listen {
            numbers.serve(address, ending.clone()).await?;
        }
        keep_keys_fresh(&policy);
        let router = epithet_policy::router_with(policy, callers, reply_key);
        let settings = Settings {
            tls,
            ..Settings::default()
        };
        serve(router, &listen, settings, ending).await
    })
}

/// Accepts requests of the CAs with these keys; a CA that can be asked is asked for them when it signs with another.
fn service_tokens(keys: Vec<CaPublicKey>, there: &CallersKeys) -> ServiceTokens {
    let tokens = ServiceTokens::new(keys);
    if !there.are_asked_for() {
        return tokens;
    }
    let there = there.clone();
    tokens.asking(move || {
        let there = there.clone();
        Box::pin(async move { there.now().await })
    })
}

/// `epithet server`: CA and policy in one process, with no HTTP between them.
pub(crate) fn server(global: &Global, options: ServerOptions) -> anyhow::Result<ExitCode> {
    let config = start(global)?;
    let config = &config;
    let section = &config.server;
    let keys = names(options.ca_key, section.ca_key.as_ref());
    let roots = roots(global, config)?;
    crate::runtime::run(threads(), |ending| async move {
        let mut passphrases = Passphrases::new(options.issuing.key_passphrase_fd, &ending);
        let keys = ca_keys::load(&keys, "--ca-key", &mut passphrases).await?;
        let document = document(config, &options.rules)?;
        let policy = Arc::new(Policy::new(&document, provider_http(roots.as_deref())?)?);
        keep_keys_fresh(&policy);
        let source = PolicySource::local(InProcess::new(Arc::clone(&policy)));
        let rules = Rules::new(policy, global, options.rules, config.files.clone());
        let issuing = Issuing::gather(options.issuing, section.issuing())?;
        let listen = options.listen.or_else(|| section.listen.clone());
        let listen = listen.unwrap_or_else(|| CA_LISTEN.to_owned());
        issuing.serve(keys, source, Some(rules), &listen, ending).await
    })
}

/// Has the providers' keys fetched ahead of time for as long as the process lives.
fn keep_keys_fresh(policy: &Arc<Policy>) {
    let policy = Arc::clone(policy);
    tokio::spawn(async move { policy.keep_keys_fresh().await });
}

fn start(global: &Global) -> anyhow::Result<Config> {
    let config = config::load(global.config.as_deref())?;
    crate::logging::serving(global, &config.common(), LevelFilter::WARN)?;
    epithet_broker::harden();
    epithet_broker::raise_open_files();
    // A descriptor with a passphrase is nothing for the programs that policy may run.
    epithet_plugin::close_inherited_on_exec().context("cannot read /dev/fd")?;
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
        let lifetime = Lifetime::new(duration).context("--default-expiration must be a second or more")?;
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
pub(crate) fn roots(global: &Global, config: &Config) -> anyhow::Result<Option<Vec<u8>>> {
    let path = global.tls_ca_cert.as_ref().or(config.tls_ca_cert.as_ref());
    crate::tls_roots::read_if_named(path.map(PathBuf::as_path))
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
