//! The numbers of `epithet auth oidc`: `cargo bench -p epithet --bench oidc`.
//!
//! The plugin of the release build, run as the broker runs it, and the development provider of this process on
//! loopback. Each figure stands beside what the same requests cost without any plugin. Prints; judges nothing.

#![expect(clippy::print_stdout, reason = "prints its figures")]

use epithet_plugin::{Invocation, PluginCommand, ProgressSink, Runner};
use epithet_testkit::devidp::{DevProvider, Person, Settings};
use epithet_testkit::{DEADLINE, FakeBrowser, Home};
use epithet_wire::PluginState;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");
const RUNS: usize = 100;

fn main() {
    // `cargo test --benches` runs benches too, as a test that they start; the numbers would mean nothing there.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let provider = DevProvider::start(Settings::default()).expect("a loopback port is free");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    refresh(&provider, &runtime);
    browser(&provider, &runtime);
}

/// The plugin's command with this browser.
fn plugin(provider: &DevProvider, browser: &FakeBrowser) -> Runner {
    let words = [
        EPITHET,
        "auth",
        "oidc",
        "--issuer",
        provider.issuer(),
        "--client-id",
        &provider.settings().client_id,
        "--flow",
        "browser",
        "--browser",
    ];
    let browser = browser.program().display().to_string();
    let words = words.into_iter().map(str::to_owned).chain([browser]);
    Runner::new(PluginCommand::Argv(words.collect())).with_variable("EPITHET_CONFIG_ONLY", "1")
}

fn run(runtime: &Runtime, runner: &Runner, state: &PluginState) -> PluginState {
    let (invocation, cancel) = (Invocation::default(), CancellationToken::new());
    let running = runner.run(state, &invocation, ProgressSink::discard(), cancel);
    let reply = runtime.block_on(running);
    reply.unwrap_or_else(|error| panic!("{}", error.explain())).state
}

/// A run with a state whose discovery document and keys are fresh, beside the requests that cannot be avoided.
fn refresh(provider: &DevProvider, runtime: &Runtime) {
    let home = Home::new();
    let browser = FakeBrowser::with_person(home.path(), Person::named("alice"));
    let runner = plugin(provider, &browser);
    let mut state = run(runtime, &runner, &PluginState::default());
    let second_login = run(runtime, &runner, &PluginState::default());
    let mut refresh_token = refresh_token(second_login.expose());
    let (mut plugins, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begun = Instant::now();
        state = run(runtime, &runner, &state);
        plugins.push(begun.elapsed());

        let begun = Instant::now();
        get(provider, "/.well-known/openid-configuration");
        refresh_token = renew(provider, &refresh_token);
        bare.push(begun.elapsed());
    }
    let (plugin, bare) = (median(&mut plugins), median(&mut bare));
    println!("refresh on loopback, discovery and keys in the state, median of {RUNS}:");
    println!("  two bare HTTP requests   {}", ms(bare));
    println!(
        "  the plugin, whole run    {}   (+{}; goal: +15 ms)",
        ms(plugin),
        ms(plugin.saturating_sub(bare))
    );
}

/// From the start of the plugin without any state to the start of the browser's program.
fn browser(provider: &DevProvider, runtime: &Runtime) {
    let home = Home::new();
    let browser = FakeBrowser::with_nobody(home.path());
    let runner = plugin(provider, &browser);
    let (mut launches, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begun = Instant::now();
        let cancel = CancellationToken::new();
        let running = {
            let (runner, cancel) = (runner.clone(), cancel.clone());
            runtime.spawn(async move {
                let (state, invocation) = (PluginState::default(), Invocation::default());
                let _ = runner
                    .run(&state, &invocation, ProgressSink::discard(), cancel)
                    .await;
            })
        };
        browser.next_url(DEADLINE).expect("the browser is started");
        launches.push(begun.elapsed());
        cancel.cancel();
        runtime.block_on(running).expect("the run ends");

        let begun = Instant::now();
        get(provider, "/.well-known/openid-configuration");
        bare.push(begun.elapsed());
    }
    let (launch, bare) = (median(&mut launches), median(&mut bare));
    println!("\nfrom start to browser launched (a shell script that says so), median of {RUNS}:");
    println!("  one discovery request    {}", ms(bare));
    println!(
        "  the plugin               {}   (+{}; goal: +50 ms)",
        ms(launch),
        ms(launch.saturating_sub(bare))
    );
}

fn refresh_token(json: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(json).expect("JSON");
    let token = value["refresh_token"].as_str();
    token.expect("a refresh token").to_owned()
}

/// The bare token request of a refresh; the next refresh token.
fn renew(provider: &DevProvider, token: &str) -> String {
    let body = format!(
        "grant_type=refresh_token&client_id={}&refresh_token={token}",
        provider.settings().client_id
    );
    let head = format!(
        "POST /token HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}",
        body.len()
    );
    refresh_token(request(provider, &head, &body).as_bytes())
}

fn get(provider: &DevProvider, path: &str) -> String {
    request(provider, &format!("GET {path} HTTP/1.1"), "")
}

/// One request on a connection of its own; the body of the answer, which must be a 200.
fn request(provider: &DevProvider, head: &str, body: &str) -> String {
    let authority = provider.issuer().trim_start_matches("http://");
    let mut stream = TcpStream::connect(authority).expect("the provider listens");
    let text = format!("{head}\r\nHost: {authority}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).expect("the provider reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the provider answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    body.to_owned()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}
