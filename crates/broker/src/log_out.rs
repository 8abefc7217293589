//! Logging out: everything that could log anybody in is forgotten at once; then the plugin is asked to have it revoked
//! where it was given out.
//!
//! What could go wrong at the provider changes nothing here: by then, nobody has the state but the plugin that revokes it.

use crate::login::{Forgotten, Login, invocation};
use crate::voice::Voice;
use epithet_plugin::{Farewell, progress_channel};
use epithet_wire::broker::{Asker, Reply};
use epithet_wire::limits::LOG_OUT_DEADLINE;
use tokio_util::sync::CancellationToken;

impl Login {
    /// Revokes what was forgotten, as far as the plugin offered that, and tells the asker what came of it.
    ///
    /// Dropping the future ends the plugin.
    pub(crate) async fn revoke(&self, forgotten: Forgotten, asker: &Asker, voice: &Voice) -> Reply {
        forgotten.ended().await;
        if forgotten.state.is_empty() {
            if !forgotten.had_token {
                voice.say("epithet: nobody was logged in\n");
            }
            return Reply::allow();
        }
        if !forgotten.can_be_revoked {
            voice.say(
                "epithet: the auth plugin cannot revoke the login, so what it was given stays valid elsewhere until it ends by itself\n",
            );
            return Reply::allow();
        }
        match self.run_log_out(&forgotten, asker, voice).await {
            Ok(farewell) => {
                tracing::info!(elapsed = ?farewell.elapsed, "auth plugin logged out");
                voice.say(&farewell.stderr);
                Reply::allow()
            }
            Err(explanation) => {
                tracing::warn!("auth plugin could not log out");
                Reply::deny(format!(
                    "everything was forgotten here, but the login could not be revoked: {explanation}"
                ))
            }
        }
    }

    async fn run_log_out(
        &self,
        forgotten: &Forgotten,
        asker: &Asker,
        voice: &Voice,
    ) -> Result<Farewell, String> {
        let cancel = self.ending().child_token();
        let _ended_when_dropped = cancel.clone().drop_guard();
        let runner = self.runner(LOG_OUT_DEADLINE, &cancel).await;
        let runner = runner.map_err(|error| error.explain())?;
        let (sink, mut progress) = progress_channel();
        let invocation = invocation(None, asker);
        let running = runner.log_out(
            &forgotten.state,
            &invocation,
            sink,
            CancellationToken::clone(&cancel),
        );
        let telling = async {
            while let Some(piece) = progress.next().await {
                voice.say(&piece.text);
            }
        };
        let (result, ()) = tokio::join!(running, telling);
        result.map_err(|error| error.explain())
    }
}
