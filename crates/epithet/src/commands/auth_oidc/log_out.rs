//! `EPITHET_ACTION=logout`: has the provider revoke what the state stands for, and says what it answered.

use anyhow::{Context, bail};
use epithet_oidc::LoginOptions;
use epithet_oidc::revocation::{Logout, logout};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// Before the broker's own deadline, so that the person reads our words.
const TIMEOUT: Duration = Duration::from_secs(epithet_wire::limits::LOG_OUT_DEADLINE.as_secs() - 3);

/// Revokes the tokens in `state`.
pub(super) fn run(options: &LoginOptions, state: &[u8]) -> anyhow::Result<ExitCode> {
    let issuer = options.issuer.as_str();
    let result = crate::runtime::run(1, |ending| async move {
        let asking = ending.run_until_cancelled(timeout(TIMEOUT, logout(options, state)));
        let answered = asking.await.context("the logout was given up")?;
        Ok(answered.with_context(|| format!("{issuer} did not answer within {} s", TIMEOUT.as_secs()))??)
    })?;
    let asked = match result {
        Logout::NothingKept => {
            epithet_plugin::progress("no login is remembered that could be revoked");
            return Ok(ExitCode::SUCCESS);
        }
        Logout::NotSupported => {
            epithet_plugin::progress(&format!(
                "{issuer} offers no revocation (RFC 7009); its tokens end by themselves"
            ));
            return Ok(ExitCode::SUCCESS);
        }
        Logout::Asked(asked) => asked,
    };
    let mut refusals = Vec::new();
    for revocation in asked {
        let name = revocation.token.replace('_', " ");
        match revocation.result {
            Ok(()) => epithet_plugin::progress(&format!("{issuer} revoked the {name}")),
            Err(error) => refusals.push(format!("{issuer} did not revoke the {name}: {error}")),
        }
    }
    if !refusals.is_empty() {
        bail!("{}", refusals.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}
