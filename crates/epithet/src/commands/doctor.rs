//! `epithet doctor`: looks at everything on the way of an ssh login, in the order in which it is passed, and names the one
//! reason why it does not work. Each look is one value: what was looked at, how it is, and what to do.

mod broker;
mod chain;
mod check;
mod glue;
mod handshake;
mod here;
mod jump;
mod network;
mod offered;
mod reach;
mod said;
mod ssh;
mod trial;

use crate::cli::{DoctorOptions, Global};
use crate::config;
use crate::terminal::Screen;
use check::{Check, Report};
use epithet_broker::CaHttp;
use epithet_wire::ProfileName;
use epithet_wire::broker::Inspection;
use epithet_wire::limits::CA_DEADLINE;
use ssh::Ssh;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

pub(super) use reach::problem as why_ssh_goes_elsewhere;

/// What every look needs to know.
#[derive(Debug)]
struct Patient {
    home: PathBuf,
    profile: ProfileName,
    /// The profile's section of the files.
    agent: config::AgentSection,
    /// The provider that the files name for Epithet's own plugin.
    issuer: Option<String>,
    roots: Option<PathBuf>,
    ssh: Ssh,
}

/// Looks at everything, and ends with the reason.
pub(crate) fn run(global: &Global, options: &DoctorOptions) -> anyhow::Result<ExitCode> {
    crate::logging::start(global, &config::Common::default(), LevelFilter::ERROR)?;
    let report = crate::runtime::run(1, |ending| async move {
        tokio::spawn(async move {
            ending.cancelled().await;
            // Nothing is written here, so there is nothing to undo.
            trial::end_all();
            std::process::exit(130);
        });
        let mut report = Report::begin(options.host.as_deref(), options.json, Screen::of_stdout());
        examine(global, options, &mut report).await?;
        Ok(report)
    })?;
    report.end()
}

/// The looks, from the ground up. What cannot be looked at because of something before is left out.
async fn examine(global: &Global, options: &DoctorOptions, report: &mut Report) -> anyhow::Result<()> {
    let (patient, check) = here::configuration(global, options)?;
    report.add(check)?;
    report.add(here::ssh_version(&patient).await)?;
    report.add(here::include(&patient))?;

    let (inspection, check) = broker::running(&patient);
    report.add(check)?;
    report.add(broker::run_directory(&patient, inspection.as_ref()))?;
    if let Some(inspection) = &inspection {
        let question = glue::question(&patient, inspection).await;
        let can_ask = question.verdict == check::Verdict::Ok;
        report.add(question)?;
        report.add(broker::open_files(inspection))?;
        if inspection.hosts.source != broker::UNKNOWN {
            report.add(broker::hosts(&patient, inspection))?;
        }
        if options.host.is_none()
            && can_ask
            && let Some(check) = reach::any_host(&patient.ssh, inspection).await
        {
            report.add(check)?;
        }
    }

    report.add(here::plugin(&patient, inspection.as_ref()))?;
    if options.host.is_none() {
        last_login(inspection.as_ref(), report)?;
    }
    if options.plugin {
        report.add(here::plugin_check(&patient, inspection.as_ref()).await)?;
    }

    let roots = crate::tls_roots::read_if_named(patient.roots.as_deref());
    let http = match roots.and_then(|roots| Ok(CaHttp::new(roots.as_deref(), CA_DEADLINE)?)) {
        Ok(http) => http,
        Err(error) => {
            let remedy = "name a readable PEM file, or leave `tls-ca-cert` out";
            return report.add(Check::broken("CA", format!("{error:#}"), remedy));
        }
    };
    let views = network::cas(&patient, inspection.as_ref(), &http, report).await?;
    if let Some(inspection) = &inspection
        && inspection.hosts.source == broker::UNKNOWN
        && !report.is_broken(network::CA)
    {
        report.add(broker::hosts(&patient, inspection))?;
    }
    network::pins(&patient, &views, report)?;
    network::provider(&patient, inspection.as_ref(), &views, report).await?;

    match (&options.host, &inspection) {
        // Without a CA that says which hosts are its own, there is nothing to follow.
        (Some(_), Some(inspection)) if inspection.hosts.source == broker::UNKNOWN => {
            last_login(Some(inspection), report)
        }
        (Some(host), Some(inspection)) => {
            chain::follow(&patient, inspection, host, report).await?;
            // Following it may have logged in.
            last_login(broker::inspect(&patient.profile).ok().as_ref(), report)
        }
        _ => Ok(()),
    }
}

/// Says that the last login failed, if it did and nothing since has succeeded.
fn last_login(inspection: Option<&Inspection>, report: &mut Report) -> anyhow::Result<()> {
    match inspection.and_then(here::last_login) {
        Some(check) => report.add(check),
        None => Ok(()),
    }
}
