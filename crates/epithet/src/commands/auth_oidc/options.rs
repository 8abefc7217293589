//! Flags, environment and configuration file become the login's options; what is wrong is named by its flag.

use crate::cli::OidcOptions;
use crate::config::OidcSection;
use anyhow::{Context, bail};
use epithet_oidc::browser::BrowserChoice;
use epithet_oidc::{ClientKey, Http, Issuer, LoginOptions, Secret, Surroundings};
use epithet_wire::format_duration;
use epithet_wire::limits::{PLUGIN_DEADLINE, PLUGIN_DEADLINE_RANGE};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// The HTTP client, trusting the certificates of `--tls-ca-cert` too.
pub(super) fn http(tls_ca_cert: Option<&Path>) -> anyhow::Result<Arc<Http>> {
    Ok(Arc::new(match crate::tls_roots::read_if_named(tls_ca_cert)? {
        Some(pem) => Http::with_roots(&pem).context("--tls-ca-cert")?,
        None => Http::default(),
    }))
}

/// The provider.
pub(super) fn issuer(options: &OidcOptions, section: &OidcSection) -> anyhow::Result<Issuer> {
    let Some(issuer) = options.issuer.as_ref().or(section.issuer.as_ref()) else {
        bail!("--issuer is required: the provider's URL, like https://accounts.google.com");
    };
    Issuer::parse(issuer).context("--issuer")
}

/// Which browser.
pub(super) fn browser(options: &OidcOptions, section: &OidcSection) -> anyhow::Result<BrowserChoice> {
    if options.no_browser {
        return Ok(BrowserChoice::None);
    }
    match (&options.browser, section.no_browser, &section.browser) {
        (Some(command), ..) | (None, None | Some(false), Some(command)) => {
            Ok(BrowserChoice::Command(command.clone()))
        }
        (None, Some(true), _) => Ok(BrowserChoice::None),
        (None, _, None) => Ok(BrowserChoice::System),
    }
}

/// Everything else.
pub(super) fn login(
    options: OidcOptions,
    section: OidcSection,
    http: Arc<Http>,
    browser: &BrowserChoice,
) -> anyhow::Result<LoginOptions> {
    let issuer = issuer(&options, &section)?;
    let Some(client_id) = options.client_id.or(section.client_id) else {
        bail!("--client-id is required: the id of the application that is registered at the provider");
    };
    let mut login = LoginOptions::new(http, issuer, client_id);
    login.surroundings = Surroundings::detect(|name| std::env::var(name).ok());
    // Whoever names a browser knows that it shows itself somewhere.
    login.surroundings.has_display |= epithet_oidc::browser::is_there(browser);
    login.client_secret = secret(
        options.client_secret.or(section.client_secret),
        options
            .client_secret_file
            .or(section.client_secret_file)
            .as_deref(),
    )?;
    if let Some(path) = options.client_key_file.or(section.client_key_file) {
        let path = crate::logging::home_expanded(&path)?;
        let named = || format!("--client-key-file {}", path.display());
        let pem = zeroize::Zeroizing::new(std::fs::read_to_string(&path).with_context(named)?);
        let key_id = options.client_key_id.or(section.client_key_id);
        login.client_key = Some(Arc::new(ClientKey::from_pem(&pem, key_id).with_context(named)?));
    }
    let scopes = match options.scopes.is_empty() {
        false => options.scopes,
        true => section.scopes.map(|scopes| scopes.0).unwrap_or_default(),
    };
    let scopes: Vec<_> = scopes
        .iter()
        .flat_map(|scope| scope.split([',', ' ']))
        .map(str::trim)
        .filter(|scope| !scope.is_empty())
        .map(str::to_owned)
        .collect();
    if !scopes.is_empty() {
        login.scopes = scopes;
    }
    set(&mut login.flow, "--flow", options.flow.or(section.flow))?;
    // The person who asks knows best where their browser is (`epithet login --flow`).
    if let Ok(flow) = std::env::var("EPITHET_LOGIN_FLOW")
        && !flow.is_empty()
    {
        set(&mut login.flow, "epithet login --flow", Some(flow))?;
    }
    set(
        &mut login.redirect_host,
        "--redirect-host",
        options.redirect_host.or(section.redirect_host),
    )?;
    set(
        &mut login.client_auth,
        "--client-auth",
        options.client_auth.or(section.client_auth),
    )?;
    login.token = match options.token.or(section.token).as_deref() {
        None | Some("id") => epithet_oidc::TokenKind::Id,
        Some("access") => epithet_oidc::TokenKind::Access,
        Some(other) => bail!("--token {other:?} is not one of id and access"),
    };
    login.ports = match (options.port.is_empty(), section.port) {
        (false, _) => options.port,
        (true, Some(ports)) => {
            let port = |text: &String| {
                text.parse()
                    .with_context(|| format!("auth.oidc.port: {text:?} is not a port"))
            };
            ports.0.iter().map(port).collect::<anyhow::Result<_>>()?
        }
        (true, None) => Vec::new(),
    };
    if let Some(path) = options.redirect_path.or(section.redirect_path) {
        login.redirect_path = path;
    }
    if let Some(uri) = options.redirect_uri.or(section.redirect_uri) {
        login.redirect_uri = Some(url::Url::parse(&uri).with_context(|| format!("--redirect-uri {uri:?}"))?);
    }
    login.audience = options.audience.or(section.audience);
    login.resources = options.resource.or(section.resource).into_iter().collect();
    login.prompt = options.prompt.or(section.prompt);
    login.login_hint = options.login_hint.or(section.login_hint);
    login.max_age = options.max_age.or(section.max_age);
    login.acr_values = options.acr_values.or(section.acr_values);
    let extra = match options.extra_param.is_empty() {
        false => options.extra_param,
        true => section.extra_param.map(|extra| extra.0).unwrap_or_default(),
    };
    for pair in extra {
        let Some((name, value)) = pair.split_once('=') else {
            bail!("--extra-param {pair:?} must be KEY=VALUE")
        };
        login.extra_parameters.push((name.to_owned(), value.to_owned()));
    }
    if let Some(timeout) = options.timeout.or(section.timeout.map(|text| text.0.0)) {
        let (least, most) = PLUGIN_DEADLINE_RANGE;
        if !(least..=most).contains(&timeout) {
            bail!(
                "--timeout must be {} to {}",
                format_duration(least),
                format_duration(most)
            );
        }
        if timeout >= PLUGIN_DEADLINE {
            tracing::warn!(
                "the broker waits {} unless `epithet agent --auth-timeout` is longer than --timeout",
                format_duration(PLUGIN_DEADLINE)
            );
        }
        login.timeout = timeout;
    }
    login.check()?;
    Ok(login)
}

/// Sets an option that has names for values, if it was named.
fn set<T>(option: &mut T, flag: &str, text: Option<String>) -> anyhow::Result<()>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    if let Some(text) = text {
        *option = text.parse().map_err(|error| anyhow::anyhow!("{flag}: {error}"))?;
    }
    Ok(())
}

/// The client's secret: from flag or environment, or a file of which the line end is not part.
fn secret(named: Option<String>, file: Option<&Path>) -> anyhow::Result<Option<Secret>> {
    match (named, file) {
        (Some(secret), _) => Ok(Some(Secret::new(secret))),
        (None, Some(path)) => {
            let path = crate::logging::home_expanded(path)?;
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("--client-secret-file {}", path.display()))?;
            Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())))
        }
        (None, None) => Ok(None),
    }
}
