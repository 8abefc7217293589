//! The whole way into one host: what ssh would do, whether the host is ours, a certificate, and a try.

use super::Patient;
use super::check::{Check, Report, Verdict};
use super::handshake;
use super::jump::{self, Lost, Station};
use super::offered::{Known, Offered, Shown};
use super::reach;
use super::ssh::{Destination, Intent};
use crate::cli::BrokerChoice;
use crate::commands::ask_broker::{asker, converse};
use crate::terminal::short_path;
use anyhow::Context;
use epithet_ssh::UserCertificate;
use epithet_wire::HostPattern;
use epithet_wire::broker::{AgentInspection, Empty, Inspection, MatchRequest, Request};
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::DOCTOR_JUMPS_MAX;
use std::path::Path;

/// Follows it as far as it leads.
pub(super) async fn follow(
    patient: &Patient,
    inspection: &Inspection,
    target: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let destination = Destination::typed(target);
    let intent = match patient.ssh.intent(&destination).await {
        Ok(intent) => intent,
        Err(error) => {
            return report.add(match Lost::by(target, error) {
                Lost::Refused(_, error) => not_accepted(target, &error),
                lost => no_way(target, &lost),
            });
        }
    };
    report.add(gate(patient, inspection, target, &intent))?;
    if !report.is_sound() {
        return Ok(());
    }
    report.add(reach::judge(&patient.ssh, inspection, target, &intent))?;
    if !report.is_sound() {
        return Ok(());
    }
    let (certificate, check) = certificate(patient, inspection, &intent);
    report.add(check)?;
    let Some(certificate) = certificate.filter(|_| report.is_sound()) else {
        return Ok(());
    };
    // Before anything is started: ssh goes round in a circle without end.
    let stations = match jump::stations(&patient.ssh, &intent).await {
        Ok(stations) => stations,
        Err(lost) => return report.add(no_way(target, &lost)),
    };
    let trial = patient.ssh.trial(&destination).await?;
    let ca = certificate.ca_fingerprint();
    let login = handshake::judge(
        &trial,
        &offered(inspection, target, &intent, Some(Shown::of(&certificate, &ca))),
    );
    if login.verdict == Verdict::Broken && !handshake::was_reached(&trial) {
        pass(patient, inspection, &stations, &intent, report).await?;
        // What lies behind a jump host that leads nowhere says nothing.
        if !stations.is_empty() && !report.is_untroubled() {
            return Ok(());
        }
    }
    report.add(login)
}

/// Looks at each jump host on the way to the one that ssh would do this for, up to the first that does not lead on.
async fn pass(
    patient: &Patient,
    inspection: &Inspection,
    stations: &[Station],
    last: &Intent,
    report: &mut Report,
) -> anyhow::Result<()> {
    let next = stations.iter().skip(1).map(|station| &station.intent);
    for (station, next) in stations.iter().zip(next.chain([last])) {
        let check = jump(patient, inspection, station, next).await?;
        let leads_on = check.verdict == Verdict::Ok;
        report.add(check)?;
        if !leads_on {
            break;
        }
    }
    Ok(())
}

/// Looks at one jump host, as at a host of its own.
async fn jump(
    patient: &Patient,
    inspection: &Inspection,
    station: &Station,
    next: &Intent,
) -> anyhow::Result<Check> {
    let Station {
        destination, intent, ..
    } = station;
    let shown = destination.shown.as_str();
    let of_jump = |check: Check| Check {
        said: format!("the jump host {}: {}", sanitize_line(shown, 100), check.said),
        ..check
    };
    let is_ours = Path::new(intent.get("identityagent")).starts_with(&inspection.agent_socket_dir);
    let mut own = None;
    if is_ours {
        let (certificate, check) = certificate(patient, inspection, intent);
        if check.verdict == Verdict::Broken {
            return Ok(of_jump(check));
        }
        own = certificate.map(|certificate| {
            let ca = certificate.ca_fingerprint();
            (certificate, ca)
        });
    }
    let next = address(next);
    let trial = patient.ssh.forward(destination, &next).await?;
    let certificate = own.as_ref().map(|(certificate, ca)| Shown::of(certificate, ca));
    let offered = offered(inspection, shown, intent, certificate);
    Ok(match handshake::judge_jump(&trial, &offered, &next) {
        None => Check::ok("jump", format!("{} leads to {next}", sanitize_line(shown, 100))),
        Some(_) if !is_ours && handshake::asks_somebody(&trial) => Check::warning(
            "jump",
            format!(
                "the jump host {} is none of the broker's, and lets nobody in who is not asked for a password or a code; what lies behind it was not tried",
                sanitize_line(shown, 100)
            ),
            format!("ssh {shown}"),
        ),
        Some(check) => of_jump(check),
    })
}

fn offered<'a>(
    inspection: &'a Inspection,
    target: &'a str,
    intent: &'a Intent,
    certificate: Option<Shown<'a>>,
) -> Offered<'a> {
    Offered {
        target,
        ca_url: inspection.ca_endpoints.first().map_or("", |ca| ca.url.as_str()),
        host: intent.get("hostname"),
        port: intent.port(),
        user: intent.get("user"),
        certificate,
        known: Known::of(intent),
        proxy_command: intent.proxy_command(),
    }
}

/// Where ssh would connect to, as `ssh -W` takes it.
fn address(intent: &Intent) -> String {
    format!("[{}]:{}", intent.get("hostname"), intent.port())
}

fn not_accepted(target: &str, error: &anyhow::Error) -> Check {
    let said = format!(
        "ssh does not accept this: {}",
        sanitize_line(&format!("{error:#}"), 300)
    );
    Check::broken("ssh -G", said, format!("ssh -G {target}"))
}

/// The jump hosts lead nowhere.
fn no_way(target: &str, lost: &Lost) -> Check {
    match lost {
        Lost::Loop(host) => {
            let host = sanitize_line(host, 100);
            Check::broken(
                "jump",
                format!("the jump hosts before {target} lead back to {host}, and ssh comes to no end"),
                format!("add `Host {host}` with `ProxyJump none` above the line that sets `ProxyJump`"),
            )
        }
        Lost::TooMany => Check::broken(
            "jump",
            format!(
                "there are more than {DOCTOR_JUMPS_MAX} jump hosts before {target}, or they lead in a circle"
            ),
            format!("ssh -G {target}    (look at `proxyjump`, and at that of the hosts which it names)"),
        ),
        Lost::Refused(jump, error) => not_accepted(&sanitize_line(jump, 100), error),
    }
}

/// Whether the host, as ssh dials it, is one of the broker's.
fn gate(patient: &Patient, inspection: &Inspection, target: &str, intent: &Intent) -> Check {
    let name = "host";
    let dialled = intent.get("hostname");
    if let Some(tag) = inspection.hosts.source.strip_prefix("tag ") {
        // ssh itself looks at tags: where it has one, it uses our agent.
        let has_tag = Path::new(intent.get("identityagent")).starts_with(&inspection.agent_socket_dir)
            || intent.get("tag") == tag;
        return match has_tag {
            true => Check::ok(name, format!("{dialled} is handled: it has the tag {tag}")),
            false => Check::broken(
                name,
                format!("{target} does not have the tag {tag}, and the broker handles no others"),
                format!(
                    "add `Tag {tag}` under the `Host` of {target} in {}, or: ssh -P {tag} {target}",
                    short_path(&patient.ssh.file)
                ),
            ),
        };
    }
    let patterns = &inspection.hosts.patterns;
    let parsed = patterns.iter().filter_map(|text| HostPattern::parse(text).ok());
    let canonical = dialled.trim_end_matches('.').to_ascii_lowercase();
    let mut covering = parsed.filter(|pattern| pattern.matches(&canonical));
    if inspection.hosts.source == "everything" {
        return Check::ok(name, format!("{dialled} is handled, as every host is"));
    }
    if let Some(pattern) = covering.next() {
        return Check::ok(name, format!("{dialled} is handled ({pattern})"));
    }
    let typed = target.rsplit_once('@').map_or(target, |(_, host)| host);
    let why = match typed.eq_ignore_ascii_case(dialled) {
        true => String::new(),
        false => format!(", which is what `HostName` in your ssh configuration makes of {typed},"),
    };
    Check::broken(
        name,
        format!(
            "{dialled}{why} is none of the hosts that the broker handles: {}",
            patterns.join(", ")
        ),
        match inspection.hosts.source.as_str() {
            "configuration" => format!(
                "add {dialled} to `match:` under `agent:` in ~/.epithet/config.yaml, and restart the broker"
            ),
            _ => format!("ask whoever runs the CA to add {dialled} to its hosts, or name yours with --match"),
        },
    )
}

/// Gets a certificate for this connection as ssh would, and looks at it.
fn certificate(
    patient: &Patient,
    inspection: &Inspection,
    intent: &Intent,
) -> (Option<UserCertificate>, Check) {
    match ask(patient, inspection, intent) {
        Ok(agent) => match UserCertificate::parse(&agent.certificate) {
            Ok(certificate) => {
                let said = format!(
                    "for {} as {}, key id {}",
                    agent.remote_host,
                    certificate.principals().join(", "),
                    certificate.key_id()
                );
                (
                    Some(certificate),
                    Check::ok("certificate", sanitize_line(&said, 300)),
                )
            }
            Err(error) => (
                None,
                Check::broken("certificate", error.to_string(), "tell whoever runs the CA"),
            ),
        },
        Err(error) => (None, refused(&format!("{error:#}"))),
    }
}

/// Asks the broker ssh's question, and then for the agent that came of it.
fn ask(patient: &Patient, inspection: &Inspection, intent: &Intent) -> anyhow::Result<AgentInspection> {
    let agent = Path::new(intent.get("identityagent"));
    let named = agent
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    // An ssh before 8.3 finds its agent as USER@HOST, and prints even that as it stands in the file.
    let by_name = named.contains('@');
    let hash = if by_name { "" } else { named };
    let choice = BrokerChoice {
        broker: Some(inspection.socket_path.clone().into()),
        name: Some(patient.profile.clone()),
    };
    let question = MatchRequest {
        remote_host: intent.get("hostname").to_owned(),
        remote_user: intent.get("user").to_owned(),
        port: intent.port().into(),
        proxy_jump: String::new(),
        hash: hash.to_owned(),
        by_name,
        asker: Some(asker("epithet doctor")),
    };
    converse(
        &choice,
        &Request {
            match_: Some(question),
            ..Request::default()
        },
    )?;
    let look = Request {
        inspect: Some(Empty {}),
        ..Request::default()
    };
    let agents = converse(&choice, &look)?.inspect.unwrap_or_default().agents;
    let is_this = |agent: &AgentInspection| match by_name {
        true => {
            agent.remote_host == intent.get("hostname")
                && agent.remote_user == intent.get("user")
                && agent.port == intent.port()
        }
        false => agent.hash == hash,
    };
    agents
        .into_iter()
        .find(|agent| is_this(agent) && !agent.certificate.is_empty())
        .context("the broker said yes and has no certificate for this connection")
}

/// Why there is no certificate, in the broker's own words: the last line that begins with `try:` is its advice.
fn refused(said: &str) -> Check {
    let name = match said {
        said if said.starts_with("authentication failed") => "login",
        said if said.starts_with("access denied") => "policy",
        said if said.starts_with("no CA is available") => "CA",
        said if said.contains("CA did not accept") => "token",
        _ => "certificate",
    };
    let (lines, advice): (Vec<&str>, Vec<&str>) = said
        .lines()
        .partition(|line| !line.trim_start().starts_with("try: "));
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.trim().is_empty()).collect();
    let advice = advice
        .last()
        .and_then(|line| line.trim_start().strip_prefix("try: "));
    let advice = match (name, advice) {
        (_, Some(advice)) => advice,
        ("login", None) => "epithet login",
        (_, None) => "epithet trace last",
    };
    let said = match lines.is_empty() {
        true => {
            "the broker says no, without a reason; the CA may have said that this host is none of its own"
                .to_owned()
        }
        false => lines.join("\n"),
    };
    Check::broken(name, said, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_s_words_become_a_reason_and_its_advice() {
        let cases = [
            (
                "authentication failed: the auth plugin exited with status 3\n  it said: no\n  try: ./x",
                "login",
                "./x",
            ),
            (
                "access denied by policy: no rule\n  try: ask whoever runs the policy server for access",
                "policy",
                "ask whoever runs the policy server for access",
            ),
            ("no CA is available: refused\n  try: check", "CA", "check"),
            (
                "the CA did not accept the token of 3 logins",
                "token",
                "epithet trace last",
            ),
            ("", "certificate", "epithet trace last"),
        ];
        for (said, name, advice) in cases {
            let check = refused(said);
            assert_eq!(
                (check.name, check.remedy.as_deref()),
                (name, Some(advice)),
                "{said}"
            );
            assert!(
                !check.said.is_empty() && !check.said.contains("try:"),
                "{}",
                check.said
            );
        }
    }
}
