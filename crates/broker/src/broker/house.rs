//! What the broker looks after while it runs: that its directory, its socket and the file for ssh are there and its own, and
//! that ssh and the programs on this machine are those it wrote that file for.

use super::{Broker, BrokerError};
use crate::file_id::FileId;
use crate::listener;
use crate::run_dir::Held;
use epithet_wire::limits::RUN_DIR_LOOK;
use std::sync::PoisonError;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

impl Broker {
    /// Looks now and then, and puts right what can be: a directory that was tidied away comes back with its sockets. What
    /// cannot be put right is said once. Never ends by itself.
    pub(super) async fn keep_house(&self, listeners: &mpsc::Sender<UnixListener>) {
        let mut said = String::new();
        loop {
            tokio::time::sleep(RUN_DIR_LOOK).await;
            self.parts.household.glue.look();
            let problem = match self.put_right(listeners).await {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            if !problem.is_empty() && problem != said {
                tracing::warn!(%problem, "the broker cannot be asked for now; it tries again");
            }
            said = problem;
        }
    }

    async fn put_right(&self, listeners: &mpsc::Sender<UnixListener>) -> Result<(), BrokerError> {
        match self.run_dir.hold()? {
            Held::Still => {}
            Held::Again => tracing::warn!("the run directory had been removed, and was made again"),
            Held::Lost(process) => {
                tracing::error!(process, "another broker has this profile by now; this one ends");
                self.parts.household.ending.cancel();
                return Ok(());
            }
        }
        let path = self.run_dir.broker_socket();
        if FileId::at(&path) != self.socket_file() {
            self.run_dir.make_way()?;
            let listener = listener::bind(&path).map_err(|error| BrokerError::Socket(path.clone(), error))?;
            *self.socket_file.lock().unwrap_or_else(PoisonError::into_inner) = FileId::at(&path);
            tracing::warn!(socket = %path.display(), "the broker's socket had been removed, and was opened again");
            // Nobody takes it any more when the broker is about to end.
            let _ = listeners.send(listener).await;
        }
        if FileId::at(&self.run_dir.ssh_config()).is_none() {
            self.write_ssh_config()?;
        }
        Ok(())
    }

    fn socket_file(&self) -> Option<FileId> {
        *self.socket_file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
