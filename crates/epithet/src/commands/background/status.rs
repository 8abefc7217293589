//! `epithet agent status`: is the broker running, and how is it.

use crate::cli::StatusOptions;
use crate::commands::ask_broker::{converse, runtime_dir, why_not};
use crate::terminal::{Screen, Tone};
use anyhow::Context;
use epithet_broker::RunDir;
use epithet_wire::broker::{Empty, Inspection, Request};
use epithet_wire::display::sanitize_line;
use epithet_wire::format_duration;
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// What `--json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    running: bool,
    /// None lives, and a service manager starts one when ssh asks.
    starts_on_demand: bool,
    profile: String,
    /// Why a broker that lives cannot be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    broker: Option<Living>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Living {
    pid: u32,
    version: String,
    since: Option<Timestamp>,
    hosts: Vec<String>,
    hosts_from: String,
    /// Why a CA could not be asked for the hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts_problem: Option<String>,
    token: TokenAge,
    login_error: Option<String>,
    agents: usize,
    cas: Vec<Ca>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ca {
    url: String,
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// What a token is still good for, without saying more about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum TokenAge {
    /// Nobody has logged in.
    None,
    /// It serves the next connections.
    Fresh,
    /// The next certificate asks the plugin again.
    Spent,
}

/// Prints the status of a profile's broker.
pub(crate) fn status(options: &StatusOptions) -> anyhow::Result<ExitCode> {
    let status = look(options)?;
    let text = match options.json {
        true => serde_json::to_string_pretty(&status)? + "\n",
        false => page(&status, Screen::of_stdout(), Timestamp::now()),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print")?;
    Ok(match status.running && status.problem.is_none() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The lock says whether a broker lives: asking the socket of a service manager would start one.
fn look(options: &StatusOptions) -> anyhow::Result<Status> {
    let profile = options.name.clone().unwrap_or_default();
    let home = crate::config::home()?;
    let running = RunDir::is_claimed(&home, &profile);
    let mut status = Status {
        running,
        starts_on_demand: !running && RunDir::is_waited_for(&home, runtime_dir().as_deref(), &profile),
        profile: profile.to_string(),
        problem: None,
        broker: None,
    };
    if !status.running {
        return Ok(status);
    }
    let request = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    match converse(&options.broker(), &request) {
        Ok(reply) => status.broker = reply.inspect.map(|inspection| living(&inspection)),
        Err(error) => status.problem = Some(why_not(&error)),
    }
    Ok(status)
}

/// What is said of one CA in `URL: what is wrong; URL: what is wrong`. What is wrong may have a `; ` of its own.
fn problem_of(url: &str, problems: &str, urls: &[&str]) -> Option<String> {
    let place = |text: &str, url: &str| {
        let head = format!("{url}: ");
        let after = text.match_indices("; ").map(|(at, _)| at + 2);
        std::iter::once(0)
            .chain(after)
            .find(|at| text[*at..].starts_with(&head))
    };
    let said = &problems[place(problems, url)? + url.len() + 2..];
    let next = urls.iter().filter_map(|other| place(said, other)).min();
    let end = next.map_or(said.len(), |at| at.saturating_sub(2));
    Some(said[..end].to_owned())
}

fn living(inspection: &Inspection) -> Living {
    let login = &inspection.login;
    // Until a CA has said something about itself, that it was not tried for a certificate says nothing.
    let problems = inspection.hosts.problem.as_deref().unwrap_or_default();
    let urls: Vec<&str> = inspection.ca_endpoints.iter().map(|ca| ca.url.as_str()).collect();
    let cas = inspection.ca_endpoints.iter().map(|ca| {
        let silent = problem_of(&ca.url, problems, &urls);
        Ca {
            url: ca.url.clone(),
            healthy: silent.is_none() && matches!(ca.state.as_str(), "closed" | "resting"),
            last_error: ca.last_error.clone().or(silent),
        }
    });
    Living {
        pid: inspection.pid,
        version: inspection.version.clone(),
        since: inspection.started_at,
        hosts: inspection.hosts.patterns.clone(),
        hosts_from: inspection.hosts.source.clone(),
        hosts_problem: inspection.hosts.problem.clone(),
        token: match (login.token, login.token_serves) {
            (false, _) => TokenAge::None,
            (true, true) => TokenAge::Fresh,
            (true, false) => TokenAge::Spent,
        },
        login_error: login.last_error.clone(),
        agents: inspection.agents.len(),
        cas: cas.collect(),
    }
}

fn page(status: &Status, screen: Screen, now: Timestamp) -> String {
    let profile = &status.profile;
    let Some(broker) = &status.broker else {
        let flag = match profile == "default" {
            true => String::new(),
            false => format!(" --name {profile}"),
        };
        let said = match &status.problem {
            Some(problem) => {
                format!(
                    "does not answer: {problem}\n  try: epithet agent stop{flag} && epithet agent --background{flag}"
                )
            }
            None if status.running => {
                format!(
                    "answers something else\n  try: epithet agent stop{flag} && epithet agent --background{flag}"
                )
            }
            None if status.starts_on_demand => {
                "is not running yet: a service manager listens for it, and starts it with the next ssh"
                    .to_owned()
            }
            None => format!("is not running\n  try: epithet agent --background{flag}"),
        };
        return format!("The broker of profile \"{profile}\" {said}\n");
    };
    let running = screen.paint(Tone::Good, "running");
    let mut page = format!(
        "The broker of profile \"{profile}\" is {running} (process {}, version {})\n",
        broker.pid, broker.version
    );
    let mut line = |name: &str, said: &str| {
        let _ = writeln!(page, "  {name:<7}{said}");
    };
    if let Some(since) = broker.since {
        line("since", &format!("{since:.0} ({})", ago(elapsed(since, now))));
    }
    line("hosts", &hosts(broker));
    line(
        "login",
        match broker.token {
            TokenAge::None => "nobody is logged in; the first ssh asks",
            TokenAge::Fresh => "a fresh token",
            TokenAge::Spent => "logged in; the next certificate renews the token",
        },
    );
    if let Some(error) = &broker.login_error {
        line(
            "",
            &screen.paint(Tone::Warning, &format!("last failure: {}", shown(error))),
        );
    }
    for (index, ca) in broker.cas.iter().enumerate() {
        let health = match (ca.healthy, &ca.last_error) {
            (true, _) => screen.paint(Tone::Good, "healthy"),
            (false, Some(error)) => screen.paint(Tone::Bad, &format!("failing: {}", shown(error))),
            (false, None) => screen.paint(Tone::Bad, "failing"),
        };
        line(
            if index == 0 { "CA" } else { "" },
            &format!("{} {health}", shown(&ca.url)),
        );
    }
    line("agents", &broker.agents.to_string());
    page
}

fn hosts(broker: &Living) -> String {
    match broker.hosts_from.as_str() {
        "everything" => "every host; name yours with --match".to_owned(),
        "unknown" => match &broker.hosts_problem {
            Some(problem) => format!("not known yet: {}", shown(problem)),
            None => "not known yet: the CA has not answered".to_owned(),
        },
        tag if tag.starts_with("tag ") => format!("those with the {tag}"),
        from => format!("{} (from the {from})", broker.hosts.join(", ")),
    }
}

fn shown(text: &str) -> String {
    sanitize_line(text, 200)
}

fn ago(elapsed: Duration) -> String {
    match elapsed.is_zero() {
        true => "just now".to_owned(),
        false => format!("{} ago", format_duration(elapsed)),
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    let seconds = to.as_second().saturating_sub(from.as_second());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_each_ca_is_told_apart() {
        let urls = ["https://ca/", "https://ca/b", "https://c"];
        let problems = "https://ca/b: not accepted; if it is yours, name it; https://c: refused";
        for (url, expected) in [
            ("https://ca/", None),
            ("https://ca/b", Some("not accepted; if it is yours, name it")),
            ("https://c", Some("refused")),
        ] {
            assert_eq!(problem_of(url, problems, &urls).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn the_page_says_how_to_start_what_is_not_running() {
        let mut status = Status {
            running: false,
            starts_on_demand: false,
            profile: "work".into(),
            problem: None,
            broker: None,
        };
        let said = page(&status, Screen::plain(80), Timestamp::UNIX_EPOCH);
        assert!(
            said.contains("is not running\n  try: epithet agent --background --name work\n"),
            "{said}"
        );
        status.starts_on_demand = true;
        let said = page(&status, Screen::plain(80), Timestamp::UNIX_EPOCH);
        assert!(
            said.contains("with the next ssh") && !said.contains("try:"),
            "{said}"
        );
        status.running = true;
        status.problem = Some("the broker does not answer".into());
        let said = page(&status, Screen::plain(80), Timestamp::UNIX_EPOCH);
        assert!(said.contains("epithet agent stop --name work"), "{said}");
    }
}
