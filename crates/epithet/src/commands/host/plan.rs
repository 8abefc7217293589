//! What has to change on a host so that it accepts a CA's certificates, or no more.
//!
//! A plan is made by reading, and changes nothing. It has only what is not as it should be: on a host that is set up
//! already it is empty.

use super::published::Published;
use super::settings::Settings;
use super::sshd_config::{drop_in, in_match_blocks, is_ours, our_file, with_block, without_block};
use super::trusted::{notes, with_keys, without_keys};
use anyhow::{Context, bail};
use epithet_wire::Principal;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The file for the keys, where the host trusts nobody yet.
const KEYS_FILE: &str = "epithet-ca.pub";
const TRUSTED: &str = "TrustedUserCAKeys";
const PRINCIPALS: &str = "AuthorizedPrincipalsFile";

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Make a folder (0755).
    Folder(PathBuf),
    /// Write a file: a new one (0644), or another content of one that is there.
    Write(PathBuf, String),
    /// Remove a file that is ours.
    Remove(PathBuf),
    /// Remove a folder, if nothing is in it.
    RemoveFolder(PathBuf),
}

/// Changes in the order in which they are made, and what has to be true of them together.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    /// A whole configuration with the same meaning, for `sshd -t` to try before anything is changed.
    pub(super) candidate: Option<String>,
    /// The file that `TrustedUserCAKeys` has to name afterwards.
    pub(super) trusts: Option<PathBuf>,
    /// What stands against it for some logins.
    pub(super) notes: Vec<String>,
}

/// What a host should have.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The folder of `sshd_config`.
    pub(super) folder: &'a Path,
    pub(super) published: &'a Published,
    pub(super) principals_folder: Option<&'a Path>,
    pub(super) principals_users: &'a [Principal],
}

/// The configuration as it is.
struct Existing {
    config: PathBuf,
    text: String,
    drop_in: Option<PathBuf>,
    /// The settings of ours that are in force: from the drop-in, the block, or none.
    ours: String,
    has_block: bool,
}

impl Existing {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let named = folder.join("sshd_config");
        // Where it is a link, the file behind it is changed.
        let config = named.canonicalize().with_context(|| {
            format!(
                "cannot read {}; is an OpenSSH server installed? --sshd-config-dir names another folder",
                named.display()
            )
        })?;
        let text =
            std::fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
        let drop_in = drop_in(&text, folder);
        let kept = without_block(&text);
        let has_block = kept != text;
        let included = match &drop_in {
            Some(path) => read_optional(path)?.filter(|text| is_ours(text)),
            None => None,
        };
        let ours = included.unwrap_or_else(|| text.strip_suffix(&kept).unwrap_or_default().to_owned());
        Ok(Self {
            config,
            text,
            drop_in,
            ours,
            has_block,
        })
    }

    /// The value that our lines give a setting.
    fn our_value(&self, keyword: &str) -> Option<&str> {
        self.ours
            .lines()
            .find_map(|line| line.strip_prefix(keyword)?.strip_prefix(' '))
    }
}

/// The plan for a host that is to accept the CA's certificates. `now` are the settings in force.
pub(super) fn setup(wanted: &Wanted<'_>, now: &Settings) -> anyhow::Result<Plan> {
    let existing = Existing::read(wanted.folder)?;
    let mut plan = Plan::default();
    let foreign = |keyword: &str| {
        now.path(&keyword.to_ascii_lowercase())
            .filter(|path| existing.our_value(keyword).map(Path::new) != Some(path))
    };
    let keys_file = now
        .path("trustedusercakeys")
        .unwrap_or_else(|| wanted.folder.join(KEYS_FILE));
    check_path(&keys_file)?;
    write_keys(&mut plan, &keys_file, wanted.published)?;
    let mut settings = String::new();
    if foreign(TRUSTED).is_none() {
        settings.push_str(&format!("{TRUSTED} {}\n", keys_file.display()));
    }
    let principals = match wanted.principals_folder {
        Some(folder) => Some(principals(
            &mut plan,
            folder,
            wanted.principals_users,
            foreign(PRINCIPALS),
        )?),
        None => existing.our_value(PRINCIPALS).map(str::to_owned),
    };
    if let Some(pattern) = principals {
        settings.push_str(&format!("{PRINCIPALS} {pattern}\n"));
    }
    write_settings(&mut plan, &existing, &settings)?;
    for keyword in [TRUSTED, PRINCIPALS] {
        for value in in_match_blocks(&existing.text, keyword) {
            let is_another = match keyword {
                TRUSTED => Path::new(&value) != keys_file,
                _ => wanted.principals_folder.is_some(),
            };
            if is_another {
                plan.notes.push(format!(
                    "a Match block of {} has {keyword} {value}, which wins for the logins that it is about: ask epithet host check --user NAME for those",
                    existing.config.display()
                ));
            }
        }
    }
    plan.trusts = Some(keys_file);
    Ok(plan)
}

fn write_keys(plan: &mut Plan, file: &Path, published: &Published) -> anyhow::Result<()> {
    let text = read_optional(file)?.unwrap_or_default();
    let wanted = with_keys(&text, published);
    plan.notes.extend(notes(file, &text, &wanted, published));
    if wanted != text {
        if let Some(folder) = file.parent().filter(|folder| !folder.exists()) {
            plan.changes.push(Change::Folder(folder.to_owned()));
        }
        plan.changes.push(Change::Write(file.to_owned(), wanted));
    }
    Ok(())
}

/// The folder and the users' files in it; returns the pattern for sshd.
fn principals(
    plan: &mut Plan,
    folder: &Path,
    users: &[Principal],
    foreign: Option<PathBuf>,
) -> anyhow::Result<String> {
    check_path(folder)?;
    let pattern = format!("{}/%u", folder.display());
    if let Some(other) = foreign.filter(|other| *other != Path::new(&pattern)) {
        bail!(
            "this host has {PRINCIPALS} {} already; put the principals into those files, and leave --principals-dir out",
            other.display()
        );
    }
    if !folder.is_dir() {
        plan.changes.push(Change::Folder(folder.to_owned()));
    }
    for user in users {
        if user.as_str().contains('/') || user.as_str().starts_with('.') {
            bail!("--principals-user {user}: no account has such a name");
        }
        let file = folder.join(user.as_str());
        // Whoever made the file knows who may be this user.
        if read_optional(&file)?.is_none() {
            plan.changes
                .push(Change::Write(file, our_file(&format!("{user}\n"))));
        }
    }
    Ok(pattern)
}

fn write_settings(plan: &mut Plan, existing: &Existing, settings: &str) -> anyhow::Result<()> {
    let rest = without_block(&existing.text);
    if let Some(file) = existing.drop_in.as_ref().filter(|_| !settings.is_empty()) {
        if let Some(folder) = file.parent().filter(|folder| !folder.is_dir()) {
            plan.changes.push(Change::Folder(folder.to_owned()));
        }
        let wanted = our_file(settings);
        let text = read_optional(file)?;
        if text.as_ref().is_some_and(|text| !is_ours(text)) {
            bail!(
                "{} is there and was not written by this command; rename it",
                file.display()
            );
        }
        if text.as_deref() != Some(&wanted) {
            plan.changes.push(Change::Write(file.clone(), wanted));
        }
        if existing.has_block {
            plan.changes
                .push(Change::Write(existing.config.clone(), rest.clone()));
        }
    } else {
        let wanted = if settings.is_empty() {
            rest.clone()
        } else {
            with_block(&existing.text, settings)
        };
        if wanted != existing.text {
            plan.changes.push(Change::Write(existing.config.clone(), wanted));
        }
    }
    plan.candidate = Some(format!("{settings}{rest}"));
    Ok(())
}

/// The plan that takes back everything that `setup` wrote.
pub(super) fn undo(folder: &Path, now: &Settings) -> anyhow::Result<Plan> {
    let existing = Existing::read(folder)?;
    let mut plan = Plan::default();
    let trusted = now.path("trustedusercakeys");
    let is_trusted_by_us = trusted.as_deref() == existing.our_value(TRUSTED).map(Path::new);
    if let Some(file) = existing.drop_in.as_ref()
        && read_optional(file)?.is_some_and(|text| is_ours(&text))
    {
        plan.changes.push(Change::Remove(file.clone()));
    }
    if existing.has_block {
        plan.changes.push(Change::Write(
            existing.config.clone(),
            without_block(&existing.text),
        ));
    }
    let own = folder.join(KEYS_FILE);
    for file in [Some(own.clone()), trusted.filter(|file| *file != own)]
        .into_iter()
        .flatten()
    {
        let Some(text) = read_optional(&file)? else {
            continue;
        };
        let rest = without_keys(&text);
        if rest.trim().is_empty()
            && file == own
            && (is_trusted_by_us || now.path("trustedusercakeys").is_none())
        {
            plan.changes.push(Change::Remove(file));
        } else if rest != text {
            plan.changes.push(Change::Write(file, rest));
        }
    }
    if let Some(folder) = existing
        .our_value(PRINCIPALS)
        .and_then(|pattern| pattern.strip_suffix("/%u"))
    {
        undo_principals(&mut plan, Path::new(folder))?;
    }
    Ok(plan)
}

fn undo_principals(plan: &mut Plan, folder: &Path) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries {
        files.push(
            entry
                .with_context(|| format!("cannot read {}", folder.display()))?
                .path(),
        );
    }
    files.sort();
    for file in files {
        if read_optional(&file)?.is_some_and(|text| is_ours(&text)) {
            plan.changes.push(Change::Remove(file));
        }
    }
    plan.changes.push(Change::RemoveFolder(folder.to_owned()));
    Ok(())
}

/// Paths stand in sshd_config as they are, so they have to be plain there.
fn check_path(path: &Path) -> anyhow::Result<()> {
    let text = path.to_str().unwrap_or_default();
    if !path.is_absolute()
        || text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "\"'#%\\".contains(c))
    {
        bail!(
            "{} cannot stand in sshd_config: name an absolute path without blanks, quotes, # and %",
            path.display()
        );
    }
    Ok(())
}

/// A file's text; `None` when it is not there.
fn read_optional(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_ssh::CaPublicKey;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";

    fn published() -> Published {
        Published {
            source: "https://ca/".into(),
            names_one_ca: true,
            keys: vec![CaPublicKey::parse(KEY).unwrap()],
            ahead: None,
        }
    }

    fn plan(folder: &Path, now: &str, principals: Option<&Path>) -> anyhow::Result<Plan> {
        let published = published();
        let wanted = Wanted {
            folder,
            published: &published,
            principals_folder: principals,
            principals_users: &["root".parse().unwrap()],
        };
        setup(&wanted, &Settings::parse(now))
    }

    #[test]
    fn a_host_that_trusts_others_keeps_its_file_and_gets_one_more_line() {
        let folder = tempfile::tempdir().unwrap();
        let others = folder.path().join("others.pub");
        std::fs::write(
            folder.path().join("sshd_config"),
            format!("TrustedUserCAKeys {}\n", others.display()),
        )
        .unwrap();
        std::fs::write(&others, "# theirs\n").unwrap();
        let now = format!("trustedusercakeys {}", others.display());
        let made = plan(folder.path(), &now, None).unwrap();
        let text = format!("# theirs\n{KEY} epithet https://ca/\n");
        assert_eq!(made.changes, [Change::Write(others.clone(), text.clone())]);
        std::fs::write(&others, text).unwrap();
        assert!(plan(folder.path(), &now, None).unwrap().changes.is_empty());
        let back = undo(folder.path(), &Settings::parse(&now)).unwrap();
        assert_eq!(back.changes, [Change::Write(others, "# theirs\n".into())]);
    }

    #[test]
    fn what_others_wrote_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("sshd_config");
        let included = folder.path().join("sshd_config.d");
        std::fs::create_dir(&included).unwrap();
        std::fs::write(&config, format!("Include {}/*.conf\n", included.display())).unwrap();
        std::fs::write(included.join("10-epithet.conf"), "Port 23\n").unwrap();
        let error = plan(folder.path(), "", None).unwrap_err().to_string();
        assert!(error.contains("was not written by this command"), "{error}");
        assert!(
            undo(folder.path(), &Settings::default())
                .unwrap()
                .changes
                .is_empty()
        );
        let error = plan(
            folder.path(),
            "authorizedprincipalsfile /p/%u",
            Some(Path::new("/q")),
        )
        .unwrap_err();
        assert!(error.to_string().contains("/p/%u already"), "{error}");
        let error = plan(folder.path(), "", Some(Path::new("q r")))
            .unwrap_err()
            .to_string();
        assert!(error.contains("without blanks"), "{error}");
    }
}
