//! `epithet auth oidc`: the plugin that ships with Epithet. What it knows is in the crate; here are its streams and flags.

mod log_out;
mod options;
mod screen;

use crate::cli::{Global, OidcCommand, OidcOptions};
use crate::config;
use anyhow::Context;
use epithet_oidc::{Claims, Flow, How, Outcome};
use epithet_wire::display::sanitize_line;
use epithet_wire::format_duration;
use screen::Screen;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

/// Logs in as a plugin, or by hand as a check.
pub(crate) fn run(global: &Global, options: OidcOptions) -> anyhow::Result<ExitCode> {
    let config = config::load(global.config.as_deref())?;
    crate::logging::start(global, &config.common(), LevelFilter::ERROR)?;
    let tls_ca_cert = global.tls_ca_cert.clone().or(config.tls_ca_cert);
    let http = options::http(tls_ca_cert.as_deref())?;
    if let Some(OidcCommand::Probe) = options.command {
        return probe(&options::issuer(&options, &config.auth.oidc)?, &http);
    }
    let browser = options::browser(&options, &config.auth.oidc)?;
    let login = options::login(options, config.auth.oidc, http, &browser)?;
    let is_plugin = epithet_plugin::is_plugin();
    let state = epithet_plugin::read_state().context("cannot read the state on stdin")?;
    if epithet_plugin::Action::from_env() == epithet_plugin::Action::LogOut {
        return log_out::run(&login, &state);
    }
    // A browser that stays open must hold neither the token's stream nor the state's.
    epithet_plugin::keep_streams_from_children().context("cannot keep the plugin's streams to itself")?;
    let outcome = crate::runtime::run(1, |ending| async move {
        let mut screen = Screen::new(browser, is_plugin);
        let login = epithet_oidc::login(&login, &state, &mut screen);
        let finished = ending.run_until_cancelled(login).await;
        Ok(finished.context("the login was given up")??)
    })?;
    match is_plugin {
        true => {
            epithet_plugin::offer_log_out();
            epithet_plugin::finish(outcome.token.expose(), outcome.state.expose())
                .context("cannot hand over the token")?;
        }
        false => print_check(&outcome)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn probe(issuer: &epithet_oidc::Issuer, http: &epithet_oidc::Http) -> anyhow::Result<ExitCode> {
    let sheet = crate::runtime::briefly(epithet_oidc::probe::probe(http, issuer))??;
    writeln!(std::io::stdout(), "{sheet}").context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

/// What a person who tries the plugin by hand wants to know: who they are and what the token says, never the token.
fn print_check(outcome: &Outcome) -> anyhow::Result<()> {
    let mut text = String::from("logged in");
    text.push_str(match outcome.how {
        How::Refreshed => " with the refresh token\n",
        How::LoggedIn(Flow::Browser) => " in the browser\n",
        How::LoggedIn(Flow::Device) => " with a code\n",
        How::LoggedIn(Flow::Paste) => " with the address that you brought\n",
    });
    match &outcome.claims {
        Some(claims) => text.push_str(&describe(claims)),
        None => text.push_str("the provider sent a token without claims\n"),
    }
    text.push_str("run by hand: nothing was given to a broker, and nothing is kept\n");
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print")
}

fn describe(claims: &Claims) -> String {
    let left = Duration::from_secs(claims.expires_at.saturating_sub(epithet_oidc::clock::unix_now()));
    let who = claims.verified_email().unwrap_or(&claims.subject);
    let mut text = format!("  you are     {}\n", sanitize_line(who, 300));
    if let (Some(email), false) = (&claims.email, claims.email_verified) {
        let email = sanitize_line(email, 300);
        text.push_str(&format!(
            "  warning     the provider does not vouch for {email}; a policy will know you by sub\n"
        ));
    }
    let until = i64::try_from(claims.expires_at).ok();
    let until = until.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let until = until.map_or_else(|| "for ever".to_owned(), |until| until.to_string());
    text.push_str(&format!(
        "  until       {until} ({} from now)\n",
        format_duration(left)
    ));
    text.push_str("the token says\n");
    for (name, value) in &claims.raw {
        let value = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.push_str(&format!(
            "  {:<11} {}\n",
            sanitize_line(name, 60),
            sanitize_line(&value, 300)
        ));
    }
    text
}
