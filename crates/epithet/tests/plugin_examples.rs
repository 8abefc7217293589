//! Every example plugin, run against a fake of its tool, conforms to the protocol.

#![cfg(test)]

use epithet_testkit::devidp::{DevProvider, Person, Settings, sign_in_blocking};
use epithet_testkit::{DEADLINE, Finished, plugin_script};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/plugins")
        .join(name)
}

/// `epithet plugin check` for an example, with fakes of other programs first on the path.
fn check(name: &str, arguments: &[&str], fakes: &Path, variables: &[(&str, &str)]) -> Finished {
    let path = format!(
        "{}:{}",
        fakes.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = Command::new(EPITHET);
    command
        .args(["plugin", "check", "--timeout", "20s", "--"])
        .arg(example(name))
        .args(arguments);
    command
        .env("PATH", path)
        .env("EPITHET_CONFIG_ONLY", "1")
        .envs(variables.iter().copied());
    Finished::of(command, 4 * DEADLINE)
}

#[track_caller]
fn conforms(finished: &Finished) {
    assert!(
        finished.status.success() && finished.stdout.contains("conforms: 0 failed"),
        "{}\n{}",
        finished.stdout,
        finished.stderr
    );
}

/// A token endpoint that gives a new token to whoever asks: for JSON replies by `reply(number, body)`.
fn endpoint(reply: impl Fn(u64, &str) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let count = AtomicU64::new(0);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let number = count.fetch_add(1, Ordering::Relaxed);
            // One after another is enough: each connection is closed after its answer.
            let _ = answer(&stream, |request| reply(number, request));
        }
    });
    url
}

/// Reads one request, headers and body, and answers it with JSON; an empty reply is a 400.
fn answer(stream: &TcpStream, reply: impl Fn(&str) -> String) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        request.push_str(&line);
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    request.push_str(&String::from_utf8_lossy(&body));
    let reply = reply(&request);
    let status = if reply.is_empty() {
        "400 Bad Request"
    } else {
        "200 OK"
    };
    let mut writer = stream;
    write!(
        writer,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reply}",
        reply.len()
    )
}

fn tokens() -> String {
    endpoint(|number, request| {
        let refreshes = request.contains("grant_type=refresh_token");
        if refreshes && !request.contains("refresh_token=r") {
            return String::new();
        }
        format!(r#"{{"access_token":"token-{number}","refresh_token":"r{number}"}}"#)
    })
}

#[test]
fn a_static_command_conforms() {
    let fakes = tempfile::tempdir().unwrap();
    plugin_script(fakes.path(), "my-auth-command", "#!/bin/sh\ndate +token-%N\n");
    conforms(&check(
        "static-command.sh",
        &["my-auth-command"],
        fakes.path(),
        &[],
    ));
}

#[test]
fn state_in_a_shell_conforms() {
    let (fakes, url) = (tempfile::tempdir().unwrap(), tokens());
    conforms(&check("state.sh", &[], fakes.path(), &[("AUTH_URL", &url)]));
}

#[test]
fn a_refresh_token_in_python_conforms() {
    let (fakes, url) = (tempfile::tempdir().unwrap(), tokens());
    conforms(&check(
        "refresh-token.py",
        &[],
        fakes.path(),
        &[("AUTH_URL", &url), ("CLIENT_ID", "ssh")],
    ));
}

#[test]
fn javascript_conforms() {
    let (fakes, url) = (tempfile::tempdir().unwrap(), tokens());
    conforms(&check(
        "node.mjs",
        &[],
        fakes.path(),
        &[("AUTH_URL", &url), ("CLIENT_ID", "ssh")],
    ));
}

#[test]
fn the_token_of_gcloud_conforms() {
    let fakes = tempfile::tempdir().unwrap();
    let gcloud = "#!/bin/sh\n[ \"$1 $2\" = 'auth print-identity-token' ] && date +e30.e30.%N\n";
    plugin_script(fakes.path(), "gcloud", gcloud);
    conforms(&check("gcloud.sh", &[], fakes.path(), &[]));
}

#[test]
fn the_token_of_azure_conforms() {
    let fakes = tempfile::tempdir().unwrap();
    let az = "#!/bin/sh\n[ \"$1 $2 $3 $4\" = 'account get-access-token --resource api://epithet' ] && date +e30.e30.%N\n";
    plugin_script(fakes.path(), "az", az);
    conforms(&check("azure.sh", &["api://epithet"], fakes.path(), &[]));
}

#[test]
fn the_token_of_a_github_actions_job_conforms() {
    let fakes = tempfile::tempdir().unwrap();
    let url = endpoint(|number, request| {
        let asked = request.starts_with("GET /token?api-version=2&audience=epithet ");
        let known = request.contains("Authorization: Bearer the-job's-token");
        if asked && known {
            format!(r#"{{"value":"e30.e30.{number}"}}"#)
        } else {
            String::new()
        }
    });
    let url = format!("{url}?api-version=2");
    let variables = [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", &*url),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "the-job's-token"),
    ];
    conforms(&check(
        "github-actions.sh",
        &["epithet"],
        fakes.path(),
        &variables,
    ));
}

#[test]
fn the_token_of_a_kubernetes_service_account_conforms() {
    let fakes = tempfile::tempdir().unwrap();
    let file = fakes.path().join("token");
    std::fs::write(&file, "e30.e30.c2ln").unwrap();
    conforms(&check(
        "kubernetes.sh",
        &[file.to_str().unwrap()],
        fakes.path(),
        &[],
    ));
}

#[test]
fn a_tool_that_is_not_logged_in_is_a_failure_with_its_own_words() {
    let fakes = tempfile::tempdir().unwrap();
    plugin_script(
        fakes.path(),
        "gcloud",
        "#!/bin/sh\necho 'ERROR: please run gcloud auth login' >&2\nexit 1\n",
    );
    let checked = check("gcloud.sh", &[], fakes.path(), &[]);
    assert!(!checked.status.success());
    let path = format!(
        "{}:{}",
        fakes.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut command = Command::new(EPITHET);
    command
        .args(["plugin", "run", "--"])
        .arg(example("gcloud.sh"))
        .env("PATH", path);
    let run = Finished::of(command, DEADLINE);
    assert!(
        !run.status.success() && run.stdout.contains("fd 2  ERROR: please run gcloud auth login"),
        "{run:?}"
    );
}

#[test]
fn the_device_flow_in_python_logs_in_and_then_refreshes() {
    let settings = Settings {
        device_interval: Duration::from_secs(1),
        ..Settings::default()
    };
    let provider = DevProvider::start(settings).expect("the provider starts");
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let command = |extra: &[&str]| {
        let mut command = Command::new(EPITHET);
        command
            .args(["plugin", "run", "--interactive", "--save-state"])
            .arg(&state)
            .args(extra)
            .arg("--")
            .arg(example("device-code.py"));
        command
            .env("ISSUER", provider.issuer())
            .env("CLIENT_ID", "epithet");
        command
    };
    let mut first = command(&[])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    for line in BufReader::new(first.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
    {
        if let Some((_, rest)) = line.split_once("Open ") {
            let (uri, code) = rest
                .split_once(" and enter the code ")
                .expect("a page and a code");
            sign_in_blocking(&format!("{uri}?user_code={code}"), &Person::default())
                .expect("the person agrees");
        }
        said.push_str(&line);
        said.push('\n');
    }
    assert!(first.wait().unwrap().success(), "{said}");
    assert!(said.contains("fd 1  a token of"), "{said}");

    let state = state.display().to_string();
    let second = Finished::of(command(&["--state", &state]), DEADLINE).success();
    assert!(!second.stdout.contains("enter the code"), "{}", second.stdout);
    assert_eq!(provider.requests().refreshes, 1);
    // With a login to begin with, nobody has to be there to judge it.
    let mut check = Command::new(EPITHET);
    check
        .args(["plugin", "check", "--state", &state, "--"])
        .arg(example("device-code.py"))
        .env("ISSUER", provider.issuer())
        .env("CLIENT_ID", "epithet");
    Finished::of(check, DEADLINE * 2).success();
}

#[test]
fn no_example_is_left_out() {
    let here = include_str!("plugin_examples.rs");
    for entry in std::fs::read_dir(example("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name == "README.md" || here.contains(&format!("\"{name}\"")),
            "{name} is not checked"
        );
    }
}
