//! `epithet inspect`: what the broker is doing, for people or as JSON.

use super::ask_broker::converse;
use crate::cli::InspectOptions;
use anyhow::Context;
use epithet_ssh::UserCertificate;
use epithet_wire::broker::{AgentInspection, Empty, Inspection, MemoryInspection, Request};
use epithet_wire::display::sanitize_line;
use epithet_wire::format_duration;
use jiff::Timestamp;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// Asks the broker and prints its answer.
pub(crate) fn run(options: &InspectOptions) -> anyhow::Result<ExitCode> {
    let request = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    let reply = converse(&options.broker, &request)?;
    let inspection = reply
        .inspect
        .context("the broker answered something else; restart `epithet agent`")?;
    let text = match options.json {
        true => serde_json::to_string_pretty(&inspection)? + "\n",
        false => render(&inspection, Timestamp::now()),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

/// The whole page.
fn render(inspection: &Inspection, now: Timestamp) -> String {
    let mut page = String::new();
    let mut line = |text: String| {
        page.push_str(&text);
        page.push('\n');
    };
    line("Broker State".into());
    line("============".into());
    line(format!(
        "Profile: {} (version {}, process {})",
        inspection.profile, inspection.version, inspection.pid
    ));
    line(format!("Socket: {}", inspection.socket_path));
    line(format!("Agent Dir: {}", inspection.agent_socket_dir));
    line(format!("Hosts: {}", hosts(inspection)));
    line(String::new());
    line("Login".into());
    let login = &inspection.login;
    line(format!("    Plugin: {}", shown(&login.command)));
    let token = match login.token_since {
        Some(since) => format!("held since {} ({} ago)", since, span(since, now)),
        None => "none".to_owned(),
    };
    line(format!("    Token: {token}"));
    line(format!("    State: {} bytes", login.state_bytes));
    line(format!("    Memory: {}", memory(&inspection.memory)));
    line(format!(
        "    Runs: {} succeeded, {} failed{}",
        login.logins,
        login.failures,
        if login.running { ", one under way" } else { "" }
    ));
    if let Some(error) = &login.last_error {
        line(format!("    Last error: {}", shown(error)));
    }
    line(String::new());
    line(format!("CA Endpoints ({})", inspection.ca_endpoints.len()));
    for ca in &inspection.ca_endpoints {
        line(format!("  {}", shown(&ca.url)));
        line(format!("    Priority: {}", ca.priority));
        let status = match ca.state.as_str() {
            "closed" | "resting" => "healthy",
            _ => "broken",
        };
        line(format!("    Status: {status}"));
        if let Some(error) = &ca.last_error {
            line(format!("    Last error: {}", shown(error)));
        }
    }
    line(String::new());
    line(format!("Agents ({})", inspection.agents.len()));
    if inspection.agents.is_empty() {
        line("  (none)".into());
    }
    for agent in &inspection.agents {
        line(agent_lines(agent, now));
    }
    page
}

fn hosts(inspection: &Inspection) -> String {
    match inspection.hosts.source.as_str() {
        "everything" => "every host (name yours with --match)".to_owned(),
        "unknown" => "not known yet: the CA has not answered".to_owned(),
        source if source.starts_with("tag ") => format!("those with the {source}"),
        source => format!("{} (from the {source})", inspection.hosts.patterns.join(", ")),
    }
}

/// Whether what is secret is kept out of swap.
fn memory(memory: &MemoryInspection) -> String {
    let (held, locked) = (memory.held_bytes, memory.locked_bytes);
    match locked {
        _ if held == 0 => "nothing secret is held".to_owned(),
        _ if locked >= held => format!("locked ({held} bytes are kept out of swap)"),
        0 => format!("not locked ({held} bytes may be swapped out; raise `ulimit -l`)"),
        _ => format!("partly locked ({locked} of {held} bytes are kept out of swap; raise `ulimit -l`)"),
    }
}

fn agent_lines(agent: &AgentInspection, now: Timestamp) -> String {
    let mut text = format!(
        "  {}@{}:{}  {}\n",
        agent.remote_user, agent.remote_host, agent.port, agent.hash
    );
    let _ = writeln!(text, "    Socket: {}", agent.socket_path);
    let _ = writeln!(text, "    Request: {}", agent.request_id);
    let _ = write!(text, "    State: {}", agent.state);
    if let Some(expires_at) = agent.expires_at {
        let left = if expires_at > now {
            format!("valid, {} left", span(now, expires_at))
        } else {
            "expired".to_owned()
        };
        let _ = write!(text, "\n    Expires: {expires_at} ({left})");
    }
    if let Ok(certificate) = UserCertificate::parse(&agent.certificate) {
        let extensions: Vec<_> = certificate.extensions().keys().copied().collect();
        let _ = write!(text, "\n    Certificate: {}", certificate.fingerprint());
        let _ = write!(text, "\n    Serial: {}", certificate.serial());
        let _ = write!(text, "\n    Key ID: {}", shown(certificate.key_id()));
        let _ = write!(
            text,
            "\n    Principals: {}",
            shown(&certificate.principals().join(", "))
        );
        let _ = write!(text, "\n    CA: {}", certificate.ca_fingerprint());
        let _ = write!(text, "\n    Extensions: {}", shown(&extensions.join(", ")));
        for (name, value) in certificate.critical_options() {
            let _ = write!(text, "\n    Critical Option: {} {}", shown(name), shown(value));
        }
    }
    text
}

fn shown(text: &str) -> String {
    sanitize_line(text, 400)
}

fn span(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.as_second().saturating_sub(from.as_second());
    format_duration(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_wire::broker::{CaInspection, HostsInspection};

    #[test]
    fn memory_is_locked_partly_locked_or_not() {
        for (held_bytes, locked_bytes, said) in [
            (0, 0, "nothing secret"),
            (10, 10, "locked (10 bytes"),
            (10, 0, "not locked (10 bytes"),
            (10, 4, "partly locked (4 of 10"),
        ] {
            let text = memory(&MemoryInspection {
                held_bytes,
                locked_bytes,
            });
            assert!(text.starts_with(said), "{text}");
        }
    }

    #[test]
    fn the_page_says_what_is_there_and_what_is_not() {
        let inspection = Inspection {
            profile: "work".into(),
            hosts: HostsInspection {
                patterns: vec!["*.example.com".into()],
                source: "configuration".into(),
                problem: None,
            },
            ca_endpoints: vec![CaInspection {
                url: "https://ca/".into(),
                priority: 100,
                state: "open".into(),
                last_error: Some("refused\x1b[2J".into()),
            }],
            ..Inspection::default()
        };
        let page = render(&inspection, Timestamp::from_second(0).unwrap());
        for words in [
            "Profile: work",
            "*.example.com (from the configuration)",
            "Status: broken",
            "(none)",
            "Token: none",
        ] {
            assert!(page.contains(words), "{words} in {page}");
        }
        assert!(!page.contains('\x1b'));
    }
}
