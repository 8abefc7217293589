//! Whether ssh would ask the broker for a host, and then use the agent that it is given.

use super::check::Check;
use super::ssh::{Destination, Intent, Ssh};
use crate::ssh_config_file::{Obstacle, Standing, obstacle, standing};
use crate::terminal::short_path;
use epithet_wire::HostPattern;
use epithet_wire::broker::Inspection;
use epithet_wire::display::sanitize_line;
use std::path::{Path, PathBuf};

/// The look's name.
const NAME: &str = "ssh -G";

/// A host that the broker handles, to try with; `None` where none can be made up.
fn example(inspection: &Inspection) -> Option<String> {
    let texts = inspection.hosts.patterns.iter();
    let patterns: Vec<_> = texts.filter_map(|text| HostPattern::parse(text).ok()).collect();
    let exact = patterns.iter().find_map(HostPattern::exact_name);
    let example = || patterns.iter().find_map(|pattern| pattern.examples().pop());
    match inspection.hosts.source.as_str() {
        "everything" => Some("host.example.com".to_owned()),
        // A tag is given by the person's configuration, to hosts that are not known here.
        source if source.starts_with("tag ") => None,
        _ => exact.map(str::to_owned).or_else(example),
    }
}

/// Looks at what ssh would do for one of the broker's hosts; nothing to say where there is none to try with.
pub(super) async fn any_host(ssh: &Ssh, inspection: &Inspection) -> Option<Check> {
    let host = example(inspection)?;
    // What ssh does not accept is said where a host is named; this one is made up.
    let intent = ssh.intent(&Destination::typed(&host)).await.ok()?;
    let is_changed = !intent.get("hostname").eq_ignore_ascii_case(&host);
    let is_ours = !is_changed && !is_another_profiles(Path::new(intent.get("identityagent")), inspection);
    is_ours.then(|| judge(ssh, inspection, &host, &intent))
}

/// Whether an agent is one of another profile's, which handles the host, too; that is said of the hosts.
fn is_another_profiles(agent: &Path, inspection: &Inspection) -> bool {
    another_profiles(agent, inspection).is_some()
}

/// The run directory of the other profile that an agent belongs to.
fn another_profiles<'a>(agent: &'a Path, inspection: &Inspection) -> Option<&'a Path> {
    let theirs = agent.parent()?;
    let ours = Path::new(&inspection.agent_socket_dir).parent()?;
    let is_another = theirs.ends_with("agent")
        && theirs.parent() != Some(ours)
        && theirs.with_file_name("broker.sock").exists();
    theirs.parent().filter(|_| is_another)
}

/// What keeps ssh from using the broker's agent, if something does: what is so, and what to do.
pub(crate) async fn problem(file: PathBuf, named: bool, inspection: &Inspection) -> Option<(String, String)> {
    let check = any_host(&Ssh { file, named }, inspection).await?;
    Some((check.said, check.remedy?))
}

/// Whether ssh would ask the broker for this host, and then use the agent that it is given.
pub(super) fn judge(ssh: &Ssh, inspection: &Inspection, target: &str, intent: &Intent) -> Check {
    let file = short_path(&ssh.file);
    let agent = Path::new(intent.get("identityagent"));
    if let Some(theirs) = another_profiles(agent, inspection) {
        let theirs = theirs.file_name().map(|name| name.display().to_string());
        let theirs = sanitize_line(&theirs.unwrap_or_default(), 60);
        return Check::broken(
            NAME,
            format!(
                "the profile \"{theirs}\" is asked about {target} first, so ssh uses its agent, not that of \"{}\"",
                inspection.profile
            ),
            "give each profile hosts of its own: `match:` in ~/.epithet/config.yaml, or --match",
        );
    }
    if !agent.starts_with(&inspection.agent_socket_dir) {
        let said = match agent.as_os_str().is_empty() {
            true => format!("ssh does not ask the broker about {target}"),
            false => format!(
                "for {target}, ssh uses the agent {} of your configuration, not the broker's",
                agent.display()
            ),
        };
        return Check::broken(NAME, said, way_to_reach(ssh, &file, "identityagent"));
    }
    if intent.get("identitiesonly") == "yes" {
        return Check::broken(
            NAME,
            format!("`IdentitiesOnly yes` holds for {target}, so ssh does not use keys of an agent"),
            way_to_reach(ssh, &file, "identitiesonly"),
        );
    }
    // Since 8.9 it is no longer printed as yes or no.
    if matches!(intent.get("pubkeyauthentication"), "no" | "false") {
        return Check::broken(
            NAME,
            format!("`PubkeyAuthentication no` holds for {target}, so ssh shows no certificate"),
            way_to_remove(ssh, &file, "pubkeyauthentication"),
        );
    }
    let preferred = intent.get("preferredauthentications");
    if !preferred.is_empty() && !preferred.split(',').any(|way| way.trim() == "publickey") {
        return Check::broken(
            NAME,
            format!(
                "`PreferredAuthentications` leaves out publickey for {target}, so ssh shows no certificate"
            ),
            way_to_remove(ssh, &file, "preferredauthentications"),
        );
    }
    // Before 8.5 it has its older name.
    let accepted = ["pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes"];
    if !accepted
        .iter()
        .any(|name| intent.get(name).contains("ed25519-cert-v01"))
    {
        return Check::broken(
            NAME,
            format!("`PubkeyAcceptedAlgorithms` leaves out certificates for {target}"),
            format!("add ssh-ed25519-cert-v01@openssh.com to it in {file}"),
        );
    }
    Check::ok(
        NAME,
        format!("ssh asks the broker about {target}, and uses its agent"),
    )
}

/// What keeps the generated line from counting, and the way around it.
///
/// The generated line is a `Match final`: ssh reads it when it knows the final names. What a person sets outside of such a
/// block counts before, wherever it stands; so it has to move into one, below the `Include`.
fn way_to_reach(ssh: &Ssh, file: &str, keyword: &str) -> String {
    let text = std::fs::read_to_string(&ssh.file).unwrap_or_default();
    if standing(&text) != Standing::Counts {
        return "epithet setup".to_owned();
    }
    match obstacle(&text, keyword) {
        Some(Obstacle::Set { line, setting, block }) => format!(
            "in {file}, move line {line} (`{}`) to the end, below a line `{block}`: there it leaves the broker's hosts alone",
            sanitize_line(&setting, 80)
        ),
        Some(Obstacle::Included { line, setting }) => format!(
            "look for {keyword} in what line {line} of {file} includes (`{}`), and put it below a line `Match final all` there",
            sanitize_line(&setting, 80)
        ),
        None => format!("ssh -G HOST | grep -i {keyword}    (a file in /etc/ssh may set it)"),
    }
}

/// Where something is set that no host of the broker's may have.
fn way_to_remove(ssh: &Ssh, file: &str, keyword: &str) -> String {
    let text = std::fs::read_to_string(&ssh.file).unwrap_or_default();
    match obstacle(&text, keyword) {
        Some(Obstacle::Set { line, setting, .. }) => {
            format!(
                "in {file}, take out line {line} (`{}`)",
                sanitize_line(&setting, 80)
            )
        }
        Some(Obstacle::Included { line, setting }) => format!(
            "look for {keyword} in what line {line} of {file} includes (`{}`), and take it out",
            sanitize_line(&setting, 80)
        ),
        None => format!("ssh -G HOST | grep -i {keyword}    (a file in /etc/ssh may set it)"),
    }
}
