//! Forgetting the login, so that nobody has it any more but the plugin that may revoke it.

use super::Login;
use super::run::Run;
use crate::storm::StormGuard;
use epithet_wire::PluginState;
use std::sync::Arc;

/// What a logout found, and nobody has any more.
#[derive(Debug)]
pub(crate) struct Forgotten {
    pub(crate) state: PluginState,
    /// The plugin said that it can revoke what the state stands for.
    pub(crate) can_be_revoked: bool,
    pub(crate) had_token: bool,
    /// The run that was under way and is being ended.
    ending: Option<Arc<Run>>,
}

impl Forgotten {
    /// Waits until the run that was under way is gone.
    pub(crate) async fn ended(&self) {
        if let Some(run) = &self.ending {
            let _ = run.outcome().await;
        }
    }
}

impl Login {
    /// Forgets token and state, ends a run that is under way, and gives back what was forgotten, so that it can be
    /// revoked.
    pub(crate) fn forget(&self) -> Forgotten {
        let mut inner = self.inner();
        let had_token = inner.held.take().is_some();
        inner.storm = StormGuard::default();
        inner.epoch += 1;
        if let Some(run) = &inner.run {
            run.cancel.cancel();
        }
        Forgotten {
            had_token,
            can_be_revoked: std::mem::take(&mut inner.can_log_out),
            state: std::mem::take(&mut inner.state),
            ending: inner.run.clone(),
        }
    }
}
