//! What is reached over the network: the CAs, the provider, their clocks, and what is pinned of them.

use super::Patient;
use super::check::{Check, Report};
use epithet_broker::{CaAddress, CaHttp, CaView, Pin, PinError, Pins, clock_ahead, look_at_ca};
use epithet_oidc::probe::probe;
use epithet_oidc::{Http, Issuer};
use epithet_wire::broker::Inspection;
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::{CERTIFICATE_BACKDATE, OIDC_CONNECT_DEADLINE, OIDC_LEEWAY};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use std::time::{Duration, Instant};

/// The name of a look at a CA.
pub(super) const CA: &str = "CA";

/// A CA that answered.
pub(super) type Seen = (CaAddress, CaView);

/// Looks at every CA and its clock. None that answers is broken, some that do not are a warning.
pub(super) async fn cas(
    patient: &Patient,
    inspection: Option<&Inspection>,
    http: &CaHttp,
    report: &mut Report,
) -> anyhow::Result<Vec<Seen>> {
    let name = CA;
    let mut seen = Vec::new();
    let mut problems = Vec::new();
    for ca in addresses(patient, inspection) {
        match look_at_ca(http, &ca).await {
            Ok(view) => {
                let took = view.answered_in.as_millis();
                let said = format!("{ca} answers after {took} ms, {}", view.public_key.fingerprint());
                report.add(Check::ok(name, said))?;
                seen.push((ca, view));
            }
            Err(problem) => problems.push((ca, problem)),
        }
    }
    for (ca, problem) in problems {
        let said = format!("the CA {ca} cannot be used: {problem}");
        let remedy = format!("curl -sS {ca}    (check the URL, the network, a proxy, `tls-ca-cert`)");
        report.add(match seen.is_empty() {
            true => Check::broken(name, said, remedy),
            false => Check::warning(name, said, remedy),
        })?;
    }
    for (ca, view) in &seen {
        if let Some(ahead) = view.clock_ahead {
            report.add(clock(&format!("the CA {ca}"), ahead, CERTIFICATE_BACKDATE))?;
            break;
        }
    }
    Ok(seen)
}

/// The CAs that the broker was told of, or that the files name.
fn addresses(patient: &Patient, inspection: Option<&Inspection>) -> Vec<CaAddress> {
    if let Some(inspection) = inspection {
        let urls = inspection.ca_endpoints.iter();
        return urls.filter_map(|ca| CaAddress::parse(&ca.url).ok()).collect();
    }
    let configured = patient.agent.ca_url.as_ref();
    configured.map(|cas| cas.0.clone()).unwrap_or_default()
}

/// A difference of clocks: nothing, something to look at, or more than certificates and tokens put up with.
fn clock(whose: &str, ahead: i64, bearable: Duration) -> Check {
    let name = "clock";
    let apart = Duration::from_secs(ahead.unsigned_abs());
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let said = format!(
        "this machine's clock is {} {direction} that of {whose}",
        epithet_wire::format_duration(apart)
    );
    let remedy = match cfg!(target_os = "macos") {
        true => "sudo sntp -sS time.apple.com",
        false => "sudo timedatectl set-ntp true    (or set the other clock, if that one is wrong)",
    };
    match apart {
        apart if apart >= bearable => Check::broken(name, said, remedy),
        apart if apart >= bearable / 2 => Check::warning(name, said, remedy),
        _ => Check::ok(name, format!("agrees with that of {whose}")),
    }
}

/// Whether each CA still names the provider that it named first.
pub(super) fn pins(patient: &Patient, seen: &[Seen], report: &mut Report) -> anyhow::Result<()> {
    let name = "pin";
    if patient.agent.auth.is_some() {
        return Ok(());
    }
    let pins = Pins::at(patient.home.join(".epithet/pins"));
    for (ca, view) in seen {
        let Some(auth) = view
            .discovery
            .as_ref()
            .and_then(|discovery| discovery.auth.as_ref())
        else {
            continue;
        };
        let (ca, named) = (ca.to_string(), Pin::from(auth));
        match pins.get(&ca) {
            Ok(None) => report.add(Check::ok(
                name,
                format!("{ca} has not been used yet; its provider is pinned then"),
            ))?,
            Ok(Some(pinned)) if pinned == named => {
                report.add(Check::ok(
                    name,
                    format!("{ca} names the same provider as at first"),
                ))?;
            }
            Ok(Some(pinned)) => {
                let changed = PinError::Changed {
                    ca: ca.clone(),
                    pinned: Box::new(pinned),
                    named: Box::new(named),
                };
                let said = changed.to_string();
                let said = said
                    .split("; nothing was sent")
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let remedy = format!("ask whoever runs the CA; if the change is right: epithet trust {ca}");
                report.add(Check::broken(name, said, remedy))?;
            }
            Err(error) => report.add(Check::broken(
                name,
                error.to_string(),
                "rm ~/.epithet/pins    (and trust the CAs anew)",
            ))?,
        }
    }
    Ok(())
}

/// Whether the provider answers as one, and agrees on the time. Another plugin's provider is not known here.
pub(super) async fn provider(
    patient: &Patient,
    inspection: Option<&Inspection>,
    seen: &[Seen],
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = "provider";
    let Some(issuer) = issuer(patient, inspection, seen) else {
        return Ok(());
    };
    let shown = sanitize_line(&issuer, 200);
    let look = format!("epithet auth oidc probe {shown}");
    let parsed = match Issuer::parse(&issuer) {
        Ok(issuer) => issuer,
        Err(error) => return report.add(Check::broken(name, error.to_string(), "correct the issuer")),
    };
    let http = match patient.roots.as_ref().map(std::fs::read) {
        Some(Ok(pem)) => Http::with_roots(&pem),
        _ => Ok(Http::default()),
    };
    let began = Instant::now();
    let sheet = match http {
        Ok(http) => probe(&http, &parsed).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match sheet {
        Err(problem) => return report.add(Check::broken(name, problem, look)),
        Ok(_) => report.add(Check::ok(
            name,
            format!("{shown} answers after {} ms", began.elapsed().as_millis()),
        ))?,
    }
    match date(patient, parsed.discovery_url()).await {
        Some(ahead) => report.add(clock(&format!("the provider {shown}"), ahead, OIDC_LEEWAY)),
        None => Ok(()),
    }
}

/// Where the person logs in, as far as that is Epithet's own plugin.
fn issuer(patient: &Patient, inspection: Option<&Inspection>, seen: &[Seen]) -> Option<String> {
    let configured = patient.agent.auth.as_ref().map(ToString::to_string);
    let command = configured.or_else(|| inspection.map(|inspection| inspection.login.command.clone()));
    let command = command.unwrap_or_default();
    if command.contains("auth oidc") && !command.starts_with("auth oidc as ") {
        return issuer_flag(&command).or_else(|| patient.issuer.clone());
    }
    if patient.agent.auth.is_some() || !(command.is_empty() || command.starts_with("auth oidc as ")) {
        return None;
    }
    let discovered = seen
        .iter()
        .filter_map(|(_, view)| view.discovery.as_ref()?.auth.as_ref());
    discovered.map(|auth| auth.issuer.clone()).next()
}

/// The value of `--issuer` in a command line.
fn issuer_flag(command: &str) -> Option<String> {
    let (_, after) = command.split_once("--issuer")?;
    let value = after.trim_start_matches('=').split_whitespace().next()?;
    Some(value.trim_matches(['\'', '"']).to_owned())
}

/// How far this machine's clock is ahead of a server's, to the second.
async fn date(patient: &Patient, url: &url::Url) -> Option<i64> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(OIDC_CONNECT_DEADLINE);
    if let Some(pem) = patient.roots.as_ref().and_then(|path| std::fs::read(path).ok()) {
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&pem).ok()?);
    }
    let began = Instant::now();
    let response = builder.build().ok()?.get(url.clone()).send().await.ok()?;
    let date = response.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    let date = DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(clock_ahead(Timestamp::now(), date, began.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn clocks_are_judged_by_what_certificates_put_up_with() {
        let minute = Duration::from_secs(60);
        for (ahead, verdict, word) in [
            (0, Verdict::Ok, "agrees"),
            (-29, Verdict::Ok, "agrees"),
            (30, Verdict::Warning, "30s ahead of"),
            (-59, Verdict::Warning, "59s behind"),
            (60, Verdict::Broken, "1m ahead of"),
            (-7200, Verdict::Broken, "2h behind"),
        ] {
            let check = clock("the CA", ahead, minute);
            assert_eq!(check.verdict, verdict, "{ahead}");
            assert!(check.said.contains(word), "{}", check.said);
        }
    }

    #[test]
    fn the_issuer_is_found_in_a_command_however_it_is_written() {
        for command in [
            "epithet auth oidc --issuer https://i --client-id x",
            "'/opt/e' auth oidc --issuer='https://i'",
            "epithet auth oidc --client-id x --issuer \"https://i\"",
        ] {
            assert_eq!(issuer_flag(command).as_deref(), Some("https://i"), "{command}");
        }
        assert_eq!(issuer_flag("./login.sh"), None);
    }
}
