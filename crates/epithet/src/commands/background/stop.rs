//! `epithet agent stop`: ends the broker as SIGTERM does, and waits until it has gone.
//!
//! Its process is the one that holds the profile's lock, as it wrote there itself; so one that cannot be asked any more,
//! because its socket is gone or because it hangs, can be ended all the same.

use crate::cli::{BrokerChoice, StopOptions};
use crate::commands::ask_broker::{converse, runtime_dir};
use crate::commands::service;
use anyhow::{Context, bail};
use epithet_broker::{RunDir, SocketOwner};
use epithet_wire::ProfileName;
use epithet_wire::broker::{Empty, Request};
use epithet_wire::format_duration;
use epithet_wire::limits::{BACKGROUND_KILL, BACKGROUND_STOP};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two looks at the lock.
const LOOK: Duration = Duration::from_millis(20);

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
    let id = process_of(&home, &profile)?;
    let process = Process::open(id).with_context(|| format!("cannot end process {id}"))?;
    // From here on `process` is one process for ever. If it held the lock after it was found, it is the broker.
    let still = RunDir::holder(&home, &profile).is_none_or(|holder| holder.process == id);
    if RunDir::is_claimed(&home, &profile) && still {
        process
            .end()
            .with_context(|| format!("cannot end process {id}"))?;
    }
    if is_gone_within(&home, &profile, BACKGROUND_STOP) {
        super::say(&format!(
            "epithet: the broker of profile \"{profile}\" has ended (process {id})"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let patience = format_duration(BACKGROUND_STOP);
    if still {
        let _ = process.signal(Signal::KILL);
    }
    if !is_gone_within(&home, &profile, BACKGROUND_KILL) {
        bail!("the broker still runs after {patience}, and cannot be killed\ntry: kill -9 {id}");
    }
    // What it left behind: whoever takes the place of a killed broker clears it.
    drop(RunDir::claim(
        &home,
        runtime_dir().as_deref(),
        &profile,
        SocketOwner::Broker,
    ));
    super::say(&format!(
        "epithet: the broker of profile \"{profile}\" did not end within {patience} and was killed (process {id})"
    ));
    Ok(ExitCode::SUCCESS)
}

/// Waits for the lock to be free.
fn is_gone_within(home: &Path, profile: &ProfileName, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while RunDir::is_claimed(home, profile) {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// The broker's process: as the lock says, or, where an older version wrote nothing there, as it says itself.
fn process_of(home: &Path, profile: &ProfileName) -> anyhow::Result<u32> {
    if let Some(holder) = RunDir::holder(home, profile) {
        return Ok(holder.process);
    }
    let choice = BrokerChoice {
        broker: None,
        name: Some(profile.clone()),
    };
    let request = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    let lock = RunDir::path_of(home, profile).join("lock");
    let reply = converse(&choice, &request).with_context(|| {
        format!(
            "a broker is running and cannot be asked for its process id\ntry: fuser -k {}",
            lock.display()
        )
    })?;
    let process = reply.inspect.map_or(0, |inspection| inspection.pid);
    if process == 0 {
        bail!("the broker does not say its process id; is it another version?");
    }
    Ok(process)
}

/// A process: where the system has them, by a descriptor, which never stands for another one that was given the same number.
struct Process {
    id: Pid,
    #[cfg(target_os = "linux")]
    handle: Option<std::os::fd::OwnedFd>,
}

impl Process {
    fn open(id: u32) -> rustix::io::Result<Self> {
        let id = i32::try_from(id).ok().and_then(Pid::from_raw);
        let id = id.ok_or(rustix::io::Errno::SRCH)?;
        Ok(Self {
            id,
            #[cfg(target_os = "linux")]
            handle: rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).ok(),
        })
    }

    /// Asks it to end, and wakes it if it was stopped: a stopped process does not hear.
    fn end(&self) -> rustix::io::Result<()> {
        for signal in [Signal::TERM, Signal::CONT] {
            match self.signal(signal) {
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                sent => sent?,
            }
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(handle) = &self.handle {
            return rustix::process::pidfd_send_signal(handle, signal);
        }
        kill_process(self.id, signal)
    }
}
