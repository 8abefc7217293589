//! What running a plugin costs over starting the same program and reading what it prints.
//!
//! `cargo run -p epithet-plugin --features host --example overhead -- [RUNS]`
#![expect(clippy::print_stdout, reason = "prints its figures")]

use epithet_plugin::{Guard, Invocation, PluginCommand, ProgressSink, Runner};
use std::error::Error;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const PROGRAM: [&str; 3] = ["/usr/bin/printf", "%s", "token"];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("guard") {
        return Ok(epithet_plugin::guard_main());
    }
    let runs: usize = argument.as_deref().unwrap_or("500").parse()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let runner = Runner::new(PluginCommand::Argv(PROGRAM.map(str::to_owned).to_vec()))
            .with_guard(Arc::new(Guard::reexec(&["guard"])?));
        let (mut plain, mut plugin) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            plain.push(tokio::task::spawn_blocking(spawn).await??);
            let begun = Instant::now();
            runner
                .run(
                    &Default::default(),
                    &Invocation::default(),
                    ProgressSink::discard(),
                    CancellationToken::new(),
                )
                .await?;
            plugin.push(begun.elapsed());
        }
        let plain = figures("posix_spawn and read", &mut plain);
        let plugin = figures("run as a plugin", &mut plugin);
        println!("overhead: {:?} in the median", plugin.saturating_sub(plain));
        Ok(ExitCode::SUCCESS)
    })
}

fn spawn() -> std::io::Result<Duration> {
    let begun = Instant::now();
    Command::new(PROGRAM[0])
        .args(&PROGRAM[1..])
        .stdin(Stdio::null())
        .output()?;
    Ok(begun.elapsed())
}

fn figures(what: &str, times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "{what:<22} p50 {:?}, p90 {:?}, p99 {:?}, of {} runs",
        at(50),
        at(90),
        at(99),
        times.len()
    );
    at(50)
}
