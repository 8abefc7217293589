//! `epithet host setup`: shows or does what a host needs.

use super::account::Account;
use super::apply::apply;
use super::check::{Question, check};
use super::plan::{self, Change, Plan, Wanted};
use super::published::{Published, algorithm, published};
use super::script::script;
use super::sshd::{Reload, Sshd, Told, remedy};
use crate::cli::{Global, HostSetupOptions};
use anyhow::{Context, bail};
use std::io::{BufRead, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

/// Makes the plan, and shows it or carries it out.
pub(super) fn run(global: &Global, options: &HostSetupOptions) -> anyhow::Result<ExitCode> {
    let folder = &options.sshd_config_dir;
    let sshd = Sshd::find(options.sshd.as_deref(), &folder.join("sshd_config"))?;
    let broken = |said: String| {
        let help = remedy(sshd.config(), &said);
        if rustix::process::geteuid().is_root() {
            anyhow::anyhow!(
                "sshd's configuration is broken already, and nothing was changed: {said}\n  try: {help}"
            )
        } else {
            anyhow::anyhow!(
                "sshd does not say its settings to {}, and nothing was changed: {said}\n  try: {help}",
                whoami()
            )
        }
    };
    let ca = published(global, &options.ca)?;
    let existing = folder.join("sshd_config");
    if !existing.exists() {
        bail!(
            "there is no {}; --sshd-config-dir names another folder",
            existing.display()
        );
    }
    sshd.test()?.map_err(broken)?;
    let now = sshd.settings(None)?.map_err(broken)?;
    let plan = match &ca {
        None if options.undo => plan::undo(folder, &now)?,
        None => bail!("name the CA: --ca-url https://ca.example.com, or its key's file with --ca-pubkey"),
        Some(ca) => {
            let wanted = Wanted {
                folder,
                published: ca,
                principals_folder: options.principals_dir.as_deref(),
                principals_users: &options.principals_user,
            };
            plan::setup(&wanted, &now)?
        }
    };
    if let Some(ca) = &ca {
        introduce(ca)?;
    }
    for note in &plan.notes {
        say(&format!("note: {note}"))?;
    }
    let reload = sshd.reload_by(&now);
    if !options.apply {
        return show(&plan, &sshd, reload.as_ref());
    }
    if plan.changes.is_empty() {
        say(nothing_to_do(&plan))?;
    } else {
        if let Some(ca) = ca.as_ref().filter(|_| options.ca.fingerprint.is_empty()) {
            agree(ca)?;
        }
        apply(&plan, &sshd)?;
        for change in &plan.changes {
            say(&done(change))?;
        }
    }
    reload_or_say(options.reload, &plan, reload.as_ref())?;
    if let Some(ca) = &ca {
        say_whether_it_is_enough(&sshd, ca)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The account that runs this, by number where it has no name.
fn whoami() -> String {
    let uid = rustix::process::geteuid().as_raw();
    Account::look_up(&uid.to_string()).map_or_else(|| format!("user {uid}"), |account| account.name)
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stderr(), "{text}").context("cannot print")
}

fn nothing_to_do(plan: &Plan) -> &'static str {
    if plan.notes.is_empty() {
        "nothing to do: everything is as it should be"
    } else {
        "nothing to do, but for what the notes say"
    }
}

/// Whose keys these are.
fn introduce(ca: &Published) -> anyhow::Result<()> {
    say(&format!("The CA's keys, from {}:", ca.source))?;
    for key in &ca.keys {
        say(&format!("  {}  {}", key.fingerprint(), algorithm(key)))?;
    }
    Ok(())
}

/// Prints the plan on stdout, as a script.
fn show(plan: &Plan, sshd: &Sshd, reload: Option<&Reload>) -> anyhow::Result<ExitCode> {
    if plan.changes.is_empty() {
        say(nothing_to_do(plan))?;
        return Ok(ExitCode::SUCCESS);
    }
    say(
        "Whoever holds one of these keys can log in here as anybody: compare the fingerprints with the CA's own.\nNothing was changed; to do it, add --apply.\n",
    )?;
    let test = format!("sshd -t -f '{}'", sshd.config().display());
    let text = script(plan, &test, reload.map(Reload::command).as_deref());
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

/// A person compares what came over the network with what they know. A file is one they brought themselves.
fn agree(ca: &Published) -> anyhow::Result<()> {
    if !ca.source.contains("://") {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!(
            "nobody is at a terminal to compare the fingerprints; to agree without being asked, add {}",
            ca.keys
                .iter()
                .map(|key| format!("--fingerprint {}", key.fingerprint()))
                .collect::<Vec<_>>()
                .join(" ")
        );
    }
    write!(
        std::io::stderr(),
        "Whoever holds one of these keys can log in here as anybody. Are they the fingerprints that the CA's own machine shows \
         (ssh-keygen -l -f ca.key.pub)? [y/N] "
    )?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("cannot read your answer")?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(())
}

fn done(change: &Change) -> String {
    match change {
        Change::Folder(path) => format!("made {}", path.display()),
        Change::Write(path, _) => format!("wrote {}", path.display()),
        Change::RemoveFolder(path) if path.exists() => {
            format!("left {}, which has other files in it", path.display())
        }
        Change::Remove(path) | Change::RemoveFolder(path) => format!("removed {}", path.display()),
    }
}

fn reload_or_say(is_wanted: bool, plan: &Plan, reload: Option<&Reload>) -> anyhow::Result<()> {
    const FOR_GOOD: &str = "The files are as they should be, and sshd takes them (sshd -t); the sshd that runs goes on with its old \
         configuration until it is reloaded or started again.\n  try: see why, then run this command again; \
         or take everything back: epithet host setup --undo --apply";
    match reload {
        Some(reload) if is_wanted => {
            let told = reload
                .perform()
                .map_err(|error| anyhow::anyhow!("sshd was not reloaded: {error:#}\n{FOR_GOOD}"))?;
            match told {
                Told::Reloaded => say(&format!("reloaded sshd: {}", reload.command())),
                Told::NotRunning => say("sshd does not run now; it reads its configuration when it starts"),
            }
        }
        None if is_wanted => bail!(
            "sshd was not reloaded: no systemd runs it, and its configuration has no PidFile that names it\n{FOR_GOOD}"
        ),
        _ if plan.changes.is_empty() => Ok(()),
        Some(reload) => say(&format!(
            "now tell sshd (open sessions stay open): {}",
            reload.command()
        )),
        None => say("now tell sshd to read its configuration again (SIGHUP); open sessions stay open"),
    }
}

/// A host may have other reasons to refuse; better to hear them now than from whoever cannot log in.
fn say_whether_it_is_enough(sshd: &Sshd, ca: &Published) -> anyhow::Result<()> {
    let question = Question {
        ca: Some(ca),
        user: None,
        from: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    say(check(sshd, question)?.text(question).trim_end())
}
