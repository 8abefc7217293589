//! The demo itself, from top to bottom: provider, server, sshd, broker, ssh, and what each of them saw.

use super::process::{Process, output};
use super::report::{Report, milliseconds};
use super::stage::Stage;
use super::sweeper::Sweeper;
use anyhow::{Context, bail};
use epithet_match::BrokerClient;
use epithet_wire::broker::{Empty, Request};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long an ssh of the demo may take.
const SSH: Duration = Duration::from_secs(60);
/// How far apart two processes hear the same Ctrl-C.
const SAME_MOMENT: Duration = Duration::from_millis(200);
/// The exit code of a demo that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// The processes that are running, in the order of their start.
#[derive(Default)]
struct Cast {
    provider: Option<Process>,
    server: Option<Process>,
    sshd: Option<Process>,
    broker: Option<Process>,
}

impl Cast {
    /// Ends them all, the last started first.
    async fn end(self) {
        for process in [self.broker, self.sshd, self.server, self.provider]
            .into_iter()
            .flatten()
        {
            process.end().await;
        }
    }
}

/// Runs the demo; with `stay`, leaves everything running until Ctrl-C.
pub(super) fn run(stay: bool) -> anyhow::Result<ExitCode> {
    crate::runtime::run(2, |ending| async move {
        let report = Report::begin();
        end_with_the_terminal(&ending)?;
        let mut cast = Cast::default();
        let stage = Stage::set().await?;
        let sweeper = Arc::new(Sweeper::start(&stage.path(""))?);
        let shown = ending
            .run_until_cancelled(play(&report, &stage, &mut cast, &sweeper, stay, ending.clone()))
            .await;
        // Ctrl-C reaches ssh as well, and ssh may be the first to say so.
        let interrupted = tokio::time::timeout(SAME_MOMENT, ending.cancelled());
        let shown = match shown {
            Some(Err(_)) if interrupted.await.is_ok() => None,
            shown => shown,
        };
        cast.end().await;
        let directory = stage.path("");
        drop(stage);
        if let Some(sweeper) = Arc::into_inner(sweeper) {
            sweeper.done();
        }
        match shown {
            None => {
                report.line(&format!(
                    "interrupted; every process has ended and {} is gone",
                    directory.display()
                ));
                Ok(ExitCode::from(if stay { 0 } else { INTERRUPTED }))
            }
            Some(Ok(())) => {
                report.done("demo: it works; every process has ended and nothing was left behind");
                Ok(ExitCode::SUCCESS)
            }
            Some(Err(error)) => Err(error.context("demo")),
        }
    })
}

/// A closed terminal (SIGHUP) and Ctrl-\ (SIGQUIT) end the demo as Ctrl-C does.
fn end_with_the_terminal(ending: &CancellationToken) -> anyhow::Result<()> {
    for kind in [SignalKind::hangup(), SignalKind::quit()] {
        let mut signals = signal(kind).context("cannot listen for signals")?;
        let ending = ending.clone();
        tokio::spawn(async move {
            signals.recv().await;
            ending.cancel();
        });
    }
    Ok(())
}

async fn play(
    report: &Report,
    stage: &Stage,
    cast: &mut Cast,
    sweeper: &Arc<Sweeper>,
    stay: bool,
    ending: CancellationToken,
) -> anyhow::Result<()> {
    let binary = std::env::current_exe().context("cannot find the running program")?;
    report.step(
        "directory",
        &format!("{} (removed at the end)", stage.path("").display()),
    );

    let provider = cast.provider.insert(Process::start(
        "the identity provider",
        epithet(stage, &binary, &["demo", "provider"]),
        sweeper,
    )?);
    let issuer = provider.wait_for(address).await?;
    report.step(
        "identity provider",
        &format!("{issuer} (for development only: it believes every name)"),
    );

    let rules = stage.write_rules(&issuer)?.display().to_string();
    let (key, audit) = (
        stage.path("ca.key").display().to_string(),
        stage.path("audit.log").display().to_string(),
    );
    let arguments = [
        "server",
        "--config",
        &rules,
        "--listen",
        "127.0.0.1:0",
        "--ca-key",
        &key,
        "--audit-file",
        &audit,
    ];
    let server = cast.server.insert(Process::start(
        "the server",
        epithet(stage, &binary, &arguments),
        sweeper,
    )?);
    let ca_url = server.wait_for(address).await?;
    report.step(
        "CA and policy",
        &format!("{ca_url} (alice@example.com may log in as {})", stage.user),
    );

    cast.sshd = Some(start_sshd(stage, sweeper).await?);
    report.step(
        "sshd",
        &format!(
            "127.0.0.1:{} (unchanged OpenSSH, one line: TrustedUserCAKeys)",
            stage.ssh_port
        ),
    );

    let config = stage
        .write_agent_config(&ca_url, &issuer, &binary)?
        .display()
        .to_string();
    let broker = cast.broker.insert(Process::start(
        "the broker",
        epithet(stage, &binary, &["agent", "-v", "--config", &config]),
        sweeper,
    )?);
    let socket = broker
        .wait_for(|line| line.strip_prefix("ready: broker socket ").map(PathBuf::from))
        .await?;
    let include = broker
        .wait_for(|line| line.strip_prefix("include: ").map(str::to_owned))
        .await?;
    report.step("broker", &socket.display().to_string());

    let ssh_config = stage.write_ssh_config(&include)?;
    let line = format!("{} -F {} 127.0.0.1", stage.ssh, ssh_config.display());
    report.step("ssh", &line);
    let (hello, first) = ssh(stage, &ssh_config, "the first login").await?;
    report.step("the host says", &hello);
    report.step(
        "logged in",
        &format!("{} with a login in the (stand-in) browser", milliseconds(first)),
    );
    let (_, second) = ssh(stage, &ssh_config, "second login").await?;
    report.step(
        "logged in again",
        &format!("{} with the certificate that is there", milliseconds(second)),
    );

    report.finding(
        "The certificate (ssh-keygen -L):",
        &certificate(stage, &socket).await?,
    );
    report.finding("The CA's audit line:", &audit_line(stage)?);
    report.finding("What sshd logged:", &sshd_lines(cast));
    if stay {
        let binary = binary.display();
        let client_id = super::provider::CLIENT_ID;
        report.finding(
            "It stays until Ctrl-C. In another terminal:",
            &[
                line,
                format!("{binary} inspect --broker {}", socket.display()),
                format!("{binary} auth oidc --issuer {issuer} --client-id {client_id}   (a login in your own browser)"),
                format!("and the provider's page: {issuer}"),
            ],
        );
        ending.cancelled().await;
    }
    Ok(())
}

/// One of our own processes, which sees the demo's home and no configuration but the one it is given.
fn epithet(stage: &Stage, binary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .env("HOME", stage.home())
        .env("EPITHET_CONFIG_ONLY", "1")
        .env_remove("XDG_RUNTIME_DIR");
    for (name, _) in std::env::vars_os() {
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("EPITHET_") || name == "POLICY_URL" || name == "PORT");
        if ours && name != "EPITHET_CONFIG_ONLY" {
            command.env_remove(name);
        }
    }
    command
}

fn address(line: &str) -> Option<String> {
    line.strip_prefix("ready: listening on ").map(str::to_owned)
}

async fn start_sshd(stage: &Stage, sweeper: &Arc<Sweeper>) -> anyhow::Result<Process> {
    if rustix::process::geteuid().is_root() {
        // Debian's package leaves this directory to its service.
        std::fs::create_dir_all("/run/sshd").context("sshd wants the directory /run/sshd")?;
    }
    let mut command = Command::new(&stage.sshd);
    command.arg("-D").arg("-e").arg("-f").arg(stage.path("sshd.conf"));
    let sshd = Process::start("sshd", command, sweeper)?;
    sshd.wait_for(|line| line.contains("Server listening on").then_some(()))
        .await?;
    Ok(sshd)
}

/// Logs in and lets the host say hello; says what it said and how long it took.
async fn ssh(stage: &Stage, config: &Path, what: &str) -> anyhow::Result<(String, Duration)> {
    let begun = Instant::now();
    let child = Command::new(&stage.ssh)
        .arg("-F")
        .arg(config)
        .args([
            "-o",
            "BatchMode=yes",
            "127.0.0.1",
            "echo \"hello, $USER, on $(uname -n)\"",
        ])
        .env_remove("SSH_AUTH_SOCK")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start ssh")?;
    let Ok(output) = tokio::time::timeout(SSH, child.wait_with_output()).await else {
        bail!("{what}: ssh does not end")
    };
    let output = output?;
    if !output.status.success() {
        bail!("{what}: ssh ended with {}", output.status);
    }
    let hello = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok((hello, begun.elapsed()))
}

/// The live agent's certificate, as `ssh-keygen -L` reads it.
async fn certificate(stage: &Stage, socket: &Path) -> anyhow::Result<Vec<String>> {
    let request = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    let socket = socket.to_owned();
    let asking = tokio::task::spawn_blocking(move || {
        let mut broker = BrokerClient::send(&socket, &request, false)?;
        loop {
            if let Some(inspection) = broker.next_reply()?.inspect {
                return Ok::<_, epithet_match::ClientError>(inspection);
            }
        }
    });
    let inspection = asking.await??;
    let agent = inspection.agents.first().context("the broker has no agent")?;
    let file = stage
        .write("certificate.pub", agent.certificate.as_bytes())?
        .display()
        .to_string();
    let text = output("ssh-keygen", &["-L", "-f", &file]).await?;
    Ok(text
        .lines()
        .skip(1)
        .map(|line| line.strip_prefix("        ").unwrap_or(line).to_owned())
        .collect())
}

fn audit_line(stage: &Stage) -> anyhow::Result<Vec<String>> {
    let log = std::fs::read_to_string(stage.path("audit.log")).context("the CA's audit log")?;
    Ok(log.lines().last().map(str::to_owned).into_iter().collect())
}

fn sshd_lines(cast: &Cast) -> Vec<String> {
    let lines = cast.sshd.as_ref().map(Process::lines).unwrap_or_default();
    let telling = |line: &String| line.contains("Accepted publickey");
    lines
        .into_iter()
        .filter(telling)
        .map(|line| line.trim().to_owned())
        .collect()
}
