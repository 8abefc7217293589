//! `epithet agent stop`: ends the broker as SIGTERM does, and waits until it has gone.

use crate::cli::{BrokerChoice, StopOptions};
use crate::commands::ask_broker::converse;
use crate::commands::service;
use anyhow::{Context, bail};
use epithet_broker::RunDir;
use epithet_wire::ProfileName;
use epithet_wire::broker::{Empty, Request};
use epithet_wire::limits::BACKGROUND_STOP;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two looks at the lock.
const LOOK: Duration = Duration::from_millis(20);

/// Its process: as it says itself, or, when it says nothing, as the system says who holds its lock.
fn process_of(home: &Path, profile: &ProfileName) -> anyhow::Result<u32> {
    let choice = BrokerChoice {
        broker: None,
        name: Some(profile.clone()),
    };
    let request = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    match converse(&choice, &request) {
        Ok(reply) => Ok(reply.inspect.map_or(0, |inspection| inspection.pid)),
        Err(error) => RunDir::holder(home, profile)
            .ok_or(error)
            .context("a broker is running and cannot be asked for its process id"),
    }
}

/// Ends a profile's broker. One that is not running is no error.
pub(crate) fn stop(options: &StopOptions) -> anyhow::Result<ExitCode> {
    let profile = options.name.clone().unwrap_or_default();
    let home = crate::config::home()?;
    // A socket that starts the broker again has to go first.
    let by_manager = service::stop_units(&profile)?;
    if !RunDir::is_claimed(&home, &profile) {
        super::say(&match by_manager {
            true => {
                format!("epithet: stopped the broker of profile \"{profile}\" and the socket that starts it")
            }
            false => format!("epithet: no broker of profile \"{profile}\" is running"),
        });
        return Ok(ExitCode::SUCCESS);
    }
    let process = process_of(&home, &profile)?;
    let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else {
        bail!("the broker does not say its process id; is it another version?");
    };
    kill_process(pid, Signal::TERM).with_context(|| format!("cannot end process {process}"))?;
    let end = Instant::now() + BACKGROUND_STOP;
    while RunDir::is_claimed(&home, &profile) {
        if Instant::now() >= end {
            bail!(
                "the broker still runs after {}\ntry: kill -9 {process}",
                epithet_wire::format_duration(BACKGROUND_STOP)
            );
        }
        std::thread::sleep(LOOK);
    }
    super::say(&format!(
        "epithet: the broker of profile \"{profile}\" has ended (process {process})"
    ));
    Ok(ExitCode::SUCCESS)
}
