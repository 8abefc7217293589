//! What the person wants: from flags, from what is configured already, from the CA, and from answers; in this order.

use super::questions::Questions;
use super::{explain, say};
use crate::cli::{Global, SetupOptions, patterns};
use crate::commands::profile_flag;
use crate::config::{AgentSection, Config};
use crate::terminal::{Screen, Tone};
use anyhow::{Context, bail};
use epithet_broker::{CaAddress, CaHttp, CaView, look_at_ca};
use epithet_plugin::PluginCommand;
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::CA_DEADLINE;
use epithet_wire::{HostPattern, ProfileName};
use std::path::PathBuf;

/// Everything that has to be in the configuration.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) profile: ProfileName,
    pub(super) cas: Vec<CaAddress>,
    pub(super) auth: Option<PluginCommand>,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) tls_ca_cert: Option<PathBuf>,
    /// Whether the profile's section is below `profiles:`, or will be.
    pub(super) is_below_profiles: bool,
    /// What is configured now for this profile.
    pub(super) there: AgentSection,
    /// What the files say beside that.
    pub(super) existing: Config,
    /// The patterns that the CA names.
    advertised: Vec<String>,
}

impl Wishes {
    pub(super) fn gather(
        global: &Global,
        options: &SetupOptions,
        mut existing: Config,
        questions: &Questions,
    ) -> anyhow::Result<Self> {
        let profile = options.name.clone().or_else(|| existing.agent.name.clone());
        let profile = profile.unwrap_or_default();
        let (there, is_below_profiles) = existing.take_own_agent(&profile);
        let tls_ca_cert = match &global.tls_ca_cert {
            Some(path) => Some(std::path::absolute(crate::logging::home_expanded(path)?)?),
            None => None,
        };
        let roots = tls_ca_cert.clone().or_else(|| existing.tls_ca_cert.clone());
        let roots = crate::tls_roots::read_if_named(roots.as_deref())?;
        let http = CaHttp::new(roots.as_deref(), CA_DEADLINE)?;
        let configured = there.ca_url.as_ref().map(|cas| cas.0.clone());
        let (cas, views) = match (options.ca_url.is_empty(), configured) {
            (false, _) => look_at_all(&http, options.ca_url.clone(), questions)?,
            (true, Some(cas)) if !cas.is_empty() => look_at_all(&http, cas, questions)?,
            _ => ask_for_ca(&http, &profile, questions)?,
        };
        let discovered = views.iter().find_map(|view| view.discovery.clone());
        let mut wishes = Self {
            profile,
            cas,
            auth: options.auth.clone().map(PluginCommand::Shell),
            hosts: patterns("--match", &options.match_)?,
            tls_ca_cert,
            is_below_profiles,
            there,
            existing,
            advertised: discovered
                .as_ref()
                .map(|found| found.match_patterns.clone())
                .unwrap_or_default(),
        };
        let ca_says_how = discovered.is_some_and(|found| found.auth.is_some());
        if !ca_says_how && wishes.auth.is_none() && wishes.there.auth.is_none() && !views.is_empty() {
            wishes.auth = Some(ask_for_plugin(questions)?);
        }
        if let Some(auth) = &wishes.auth {
            auth.validate().context("--auth")?;
        }
        if wishes.patterns().is_empty() && !views.is_empty() {
            wishes.hosts = ask_for_hosts(questions)?;
        }
        wishes.warn_of_crossings()?;
        Ok(wishes)
    }

    /// The plugin, unless it is the one that comes with Epithet or the CA says how to log in.
    pub(super) fn own_plugin(&self) -> Option<&PluginCommand> {
        let auth = self.auth.as_ref().or(self.there.auth.as_ref());
        auth.filter(|command| !command.to_string().contains("auth oidc"))
    }

    /// Says which of the hosts another profile of the files names too: ssh would ask one of the two brokers only.
    fn warn_of_crossings(&self) -> anyhow::Result<()> {
        for text in self.patterns() {
            let Ok(pattern) = text.parse::<HostPattern>() else {
                continue;
            };
            let crossing = self
                .existing
                .hosts_of_others()
                .find_map(|(name, other)| pattern.common_host(other).map(|host| (name, other, host)));
            if let Some((name, other, host)) = crossing {
                explain(&format!(
                    "note: {pattern} and {other} of profile \"{name}\" both cover {host}; ssh asks the profile that is first by name"
                ))?;
            }
        }
        Ok(())
    }

    /// The hosts that will be handled, as far as anybody says; empty when nobody does.
    pub(super) fn patterns(&self) -> Vec<String> {
        let configured = self.there.match_.as_ref().map(|patterns| &patterns.0);
        let words = |patterns: &[HostPattern]| patterns.iter().map(ToString::to_string).collect();
        match (self.hosts.as_slice(), configured) {
            ([], Some(configured)) if !configured.is_empty() => words(configured),
            ([], _) => self.advertised.clone(),
            (hosts, _) => words(hosts),
        }
    }

    /// A host that can be typed, when a pattern is one.
    pub(super) fn example_host(&self) -> Option<String> {
        let patterns = self.patterns();
        let plain = |pattern: &&String| !pattern.contains(['*', '?', '[', '{', '\\', '!']);
        patterns.iter().find(plain).map(|host| sanitize_line(host, 100))
    }
}

/// Looks at CAs that are named already. One that does not answer is no reason to stop when another does.
fn look_at_all(
    http: &CaHttp,
    cas: Vec<CaAddress>,
    questions: &Questions,
) -> anyhow::Result<(Vec<CaAddress>, Vec<CaView>)> {
    let mut views = Vec::new();
    let mut problems = Vec::new();
    for ca in &cas {
        match look(http, ca) {
            Ok(view) => {
                show(ca, &view)?;
                views.push(view);
            }
            Err(problem) => problems.push(format!("the CA {ca} does not answer as one: {problem}")),
        }
    }
    if views.is_empty() {
        let problems = problems.join("\n");
        if !questions.asks() {
            bail!(
                "{problems}\ntry: check the URL and the network; --tls-ca-cert FILE trusts a private authority"
            );
        }
        explain(&problems)?;
        if !questions.confirm("Go on all the same?")? {
            bail!("nothing was changed");
        }
    } else {
        for problem in problems {
            explain(&format!("note: {problem}"))?;
        }
    }
    Ok((cas, views))
}

/// Asks until a CA answers.
fn ask_for_ca(
    http: &CaHttp,
    profile: &ProfileName,
    questions: &Questions,
) -> anyhow::Result<(Vec<CaAddress>, Vec<CaView>)> {
    if !questions.asks() {
        bail!(
            "--ca-url is required\ntry: epithet setup{} --ca-url https://ca.example.com --yes",
            profile_flag(profile)
        );
    }
    loop {
        let Some(answer) = questions.ask("The CA's URL (whoever runs it knows):")? else {
            continue;
        };
        // People copy the name without what stands before it.
        let text = if answer.contains("://") {
            answer
        } else {
            format!("https://{answer}")
        };
        match text.parse::<CaAddress>() {
            Err(error) => say(&format!("  {error}"))?,
            Ok(ca) => match look(http, &ca) {
                Ok(view) => {
                    show(&ca, &view)?;
                    return Ok((vec![ca], vec![view]));
                }
                Err(problem) => explain(&format!("  {ca} does not answer as a CA: {problem}"))?,
            },
        }
    }
}

fn ask_for_plugin(questions: &Questions) -> anyhow::Result<PluginCommand> {
    if !questions.asks() {
        bail!(
            "the CA does not say how to log in: --auth is required\ntry: --auth 'epithet auth oidc --issuer https://login.example.com --client-id ssh'"
        );
    }
    say("The CA does not say how to log in.")?;
    loop {
        if let Some(command) = questions.ask("The auth plugin's command:")? {
            return Ok(PluginCommand::Shell(command));
        }
    }
}

fn ask_for_hosts(questions: &Questions) -> anyhow::Result<Vec<HostPattern>> {
    if !questions.asks() {
        explain(
            "note: the CA does not say which hosts are its own, so it will be asked about every host; name yours with --match",
        )?;
        return Ok(Vec::new());
    }
    say("The CA does not say which hosts are its own.")?;
    loop {
        let Some(answer) = questions.ask("Your hosts (like *.example.com; Enter for every host):")? else {
            return Ok(Vec::new());
        };
        match patterns("a host", &[answer]) {
            Ok(hosts) => return Ok(hosts),
            Err(error) => say(&format!("  {error}"))?,
        }
    }
}

fn look(http: &CaHttp, ca: &CaAddress) -> Result<CaView, String> {
    crate::runtime::briefly(look_at_ca(http, ca)).unwrap_or_else(|error| Err(error.to_string()))
}

fn show(ca: &CaAddress, view: &CaView) -> anyhow::Result<()> {
    let screen = Screen::of_stdout();
    let shown = |text: &str| sanitize_line(text, 200);
    say(&format!(
        "{} {ca}  {}",
        screen.paint(Tone::Good, screen.either("\u{2713}", "ok")),
        view.public_key.fingerprint()
    ))?;
    let discovery = view.discovery.as_ref();
    if let Some(auth) = discovery.and_then(|discovery| discovery.auth.as_ref()) {
        say(&format!(
            "  logs in at  {} (client id {})",
            shown(&auth.issuer),
            shown(&auth.client_id)
        ))?;
    }
    let hosts = discovery
        .map(|discovery| discovery.match_patterns.join(", "))
        .unwrap_or_default();
    if !hosts.is_empty() {
        say(&format!("  its hosts   {}", shown(&hosts)))?;
    }
    Ok(())
}
