//! `epithet trust`: a person agrees that a CA names another provider than when it was first used.

use crate::cli::{Global, TrustOptions};
use crate::config;
use anyhow::{Context, bail};
use epithet_broker::{CaHttp, Pin, Pins, fetch_pin};
use epithet_wire::limits::CA_DEADLINE;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

/// Shows what is pinned and what the CA names now, and asks.
pub(crate) fn run(global: &Global, options: &TrustOptions) -> anyhow::Result<ExitCode> {
    let config = config::load(global.config.as_deref())?;
    let tls_ca_cert = global.tls_ca_cert.clone().or(config.tls_ca_cert);
    let roots = crate::tls_roots::read_if_named(tls_ca_cert.as_deref())?;
    let http = CaHttp::new(roots.as_deref(), CA_DEADLINE)?;
    let ca = options.ca_url.to_string();
    let pins = Pins::at(config::home()?.join(".epithet/pins"));
    let named = crate::runtime::briefly(fetch_pin(&http, &options.ca_url))?
        .map_err(|problem| anyhow::anyhow!("the CA {}: {problem}", options.ca_url))?;
    let pinned = pins.get(&ca)?;
    let mut stderr = std::io::stderr();
    writeln!(stderr, "CA:          {ca}")?;
    writeln!(
        stderr,
        "trusted now: {}",
        pinned.as_ref().map_or("nothing yet".to_owned(), describe)
    )?;
    writeln!(stderr, "it names:    {}", describe(&named))?;
    if pinned.as_ref() == Some(&named) {
        writeln!(stderr, "nothing to do")?;
        return Ok(ExitCode::SUCCESS);
    }
    if !options.yes {
        if !std::io::stdin().is_terminal() {
            bail!("nobody is at a terminal to agree; to agree without being asked, add --yes");
        }
        write!(
            stderr,
            "You will log in there, and tokens for that client id will be sent to this CA. Agree? [y/N] "
        )?;
        let mut answer = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut answer)
            .context("cannot read your answer")?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was changed");
        }
    }
    pins.replace(&ca, named)?;
    writeln!(stderr, "trusted from now on")?;
    Ok(ExitCode::SUCCESS)
}

fn describe(pin: &Pin) -> String {
    let shown = |text: &str| epithet_wire::display::sanitize_line(text, 300);
    format!("{} with client id {}", shown(&pin.issuer), shown(&pin.client_id))
}
