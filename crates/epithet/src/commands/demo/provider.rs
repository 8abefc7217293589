//! The demo's identity provider, and the stand-in for a person with a browser.

use crate::cli::Global;
use anyhow::{Context, bail};
use epithet_devidp::{DevProvider, Person, Settings};
use std::io::Write;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

/// The client that the demo's provider knows.
pub(super) const CLIENT_ID: &str = "epithet-demo";

/// Runs the development identity provider on 127.0.0.1 until SIGINT or SIGTERM.
pub(super) fn run(global: &Global, port: u16) -> anyhow::Result<ExitCode> {
    crate::logging::start(global, &crate::config::Common::default(), LevelFilter::WARN)?;
    crate::runtime::run(1, |ending| async move {
        let mut settings = Settings {
            client_id: CLIENT_ID.to_owned(),
            ..Settings::default()
        };
        settings.listen.set_port(port);
        let provider = DevProvider::start(settings).context("the development identity provider")?;
        // The demo that started us reads this line; without a reader there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "ready: listening on {}", provider.issuer());
        ending.cancelled().await;
        provider.stop();
        Ok(ExitCode::SUCCESS)
    })
}

/// Opens a login page, types `user` and presses the button.
pub(super) fn sign_in(user: &str, url: &str) -> anyhow::Result<ExitCode> {
    let person = Person::named(user);
    let page = epithet_devidp::sign_in_blocking(url, &person).context("the stand-in for a browser")?;
    if page.status >= 400 {
        bail!("the last page answered {}", page.status);
    }
    Ok(ExitCode::SUCCESS)
}
