//! `~/.epithet/config.yaml`: what is missing in it is added, line by line, and nothing that stands there is changed.

use super::replace::replace;
use super::wishes::Wishes;
use super::{named, say};
use crate::config::{self, Config};
use anyhow::{Context, bail};
use epithet_plugin::PluginCommand;
use std::path::PathBuf;

/// The file as it is and as it will be.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    before: Option<String>,
    /// The new text and the lines that are new in it.
    after: Option<(String, Vec<String>)>,
}

impl ConfigFile {
    /// Compares what is wanted with what the files say together.
    pub(super) fn plan(wishes: &Wishes) -> anyhow::Result<Self> {
        let path = config::home()?.join(".epithet/config.yaml");
        let before = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let missing = Missing::of(wishes)?;
        if missing.is_nothing() {
            return Ok(Self {
                path,
                before,
                after: None,
            });
        }
        let (text, lines) = added(before.as_deref().unwrap_or(""), &missing)
            .with_context(|| format!("{} cannot be completed by itself", named(&path)))?;
        serde_saphyr::from_str::<Option<Config>>(&text)
            .ok()
            .with_context(|| {
                format!(
                    "{} has a form that cannot be completed by itself\ntry: add to it\n{}",
                    named(&path),
                    lines.join("\n")
                )
            })?;
        Ok(Self {
            path,
            before,
            after: Some((text, lines)),
        })
    }

    /// Whether nothing is to be written.
    pub(super) fn is_there(&self) -> bool {
        self.after.is_none()
    }

    /// The change, for a person.
    pub(super) fn shown(&self) -> String {
        let name = named(&self.path);
        match &self.after {
            None => format!("{name}  says it already"),
            Some((_, lines)) => {
                let verb = if self.before.is_some() { "" } else { " (new)" };
                let lines: Vec<_> = lines.iter().map(|line| format!("  + {line}")).collect();
                format!("{name}{verb}\n{}", lines.join("\n"))
            }
        }
    }

    /// Writes it, for its owner only when it is new.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let Some((text, _)) = &self.after else {
            return Ok(());
        };
        replace(&self.path, self.before.as_deref(), text)?;
        say(&format!("wrote {}", named(&self.path)))
    }
}

/// The lines that the files do not have, each with its key.
#[derive(Debug, Default)]
struct Missing {
    top: Vec<String>,
    agent: Vec<String>,
}

impl Missing {
    /// Refuses when the files say something else: an answer of somebody's is not replaced behind their back.
    fn of(wishes: &Wishes) -> anyhow::Result<Self> {
        let agent = &wishes.existing.agent;
        let mut missing = Self::default();
        let cas: Vec<String> = wishes.cas.iter().map(with_priority).collect();
        match &agent.ca_url {
            Some(there) if !there.0.is_empty() => {
                let there: Vec<String> = there.0.iter().map(with_priority).collect();
                if there != cas {
                    return otherwise("ca-url", &there.join(", "), &cas.join(", "));
                }
            }
            _ => missing.agent.push(format!("ca-url: {}", list(&cas)?)),
        }
        if let Some(auth) = &wishes.auth {
            match &agent.auth {
                Some(there) if there != auth => {
                    return otherwise("auth", &there.to_string(), &auth.to_string());
                }
                Some(_) => {}
                None => missing.agent.push(format!("auth: {}", command(auth)?)),
            }
        }
        let hosts: Vec<String> = wishes.hosts.iter().map(ToString::to_string).collect();
        match &agent.match_ {
            _ if hosts.is_empty() => {}
            Some(there) if !there.0.is_empty() => {
                let there: Vec<String> = there.0.iter().map(ToString::to_string).collect();
                if there != hosts {
                    return otherwise("match", &there.join(", "), &hosts.join(", "));
                }
            }
            _ => missing.agent.push(format!("match: {}", list(&hosts)?)),
        }
        if let Some(roots) = &wishes.tls_ca_cert {
            let text = roots.to_str().context("--tls-ca-cert is not UTF-8")?;
            match &wishes.existing.tls_ca_cert {
                Some(there) if there != roots => {
                    return otherwise("tls-ca-cert", &there.display().to_string(), text);
                }
                Some(_) => {}
                None => missing.top.push(format!("tls-ca-cert: {}", scalar(text)?)),
            }
        }
        Ok(missing)
    }

    fn is_nothing(&self) -> bool {
        self.top.is_empty() && self.agent.is_empty()
    }
}

fn otherwise<T>(key: &str, there: &str, wanted: &str) -> anyhow::Result<T> {
    bail!(
        "your configuration has another `{key}`: {there}, not {wanted}; nothing was changed\ntry: change it there (~/.epithet/*.yaml or /etc/epithet/*.yaml), or leave the flag out"
    )
}

/// The text with the missing lines in it, and the new lines.
fn added(text: &str, missing: &Missing) -> anyhow::Result<(String, Vec<String>)> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut new = Vec::new();
    if !missing.agent.is_empty() {
        let section = lines.iter().position(|line| line.starts_with("agent:"));
        match section {
            None => {
                if lines.is_empty() {
                    new.push(
                        "# Every setting is in docs/configuration.md, or `epithet agent --help`.".to_owned(),
                    );
                }
                new.push("agent:".to_owned());
                new.extend(missing.agent.iter().map(|line| format!("  {line}")));
                lines.extend(new.clone());
            }
            Some(at) => {
                let rest = lines[at]["agent:".len()..].trim();
                if !rest.is_empty() && !rest.starts_with('#') {
                    bail!(
                        "its `agent:` is written on one line\ntry: add to it yourself\n  {}",
                        missing.agent.join("\n  ")
                    );
                }
                let child = lines[at + 1..]
                    .iter()
                    .find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
                let indent = child.map_or(0, |line| line.len() - line.trim_start().len());
                let indent = " ".repeat(if indent == 0 { 2 } else { indent });
                new.extend(missing.agent.iter().map(|line| format!("{indent}{line}")));
                lines.splice(at + 1..at + 1, new.clone());
            }
        }
    }
    new.extend(missing.top.iter().cloned());
    lines.extend(missing.top.iter().cloned());
    Ok((lines.join("\n") + "\n", new))
}

fn with_priority(ca: &epithet_broker::CaAddress) -> String {
    match ca.priority {
        100 => ca.to_string(),
        priority => format!("priority={priority}:{ca}"),
    }
}

/// JSON's strings are YAML's, whatever is in them.
fn scalar(text: &str) -> anyhow::Result<String> {
    Ok(serde_json::to_string(text)?)
}

fn list(words: &[String]) -> anyhow::Result<String> {
    match words {
        [one] => scalar(one),
        several => Ok(serde_json::to_string(several)?),
    }
}

fn command(command: &PluginCommand) -> anyhow::Result<String> {
    Ok(serde_json::to_string(command)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Missing {
        Missing {
            top: vec!["tls-ca-cert: \"/x\"".into()],
            agent: vec!["ca-url: \"https://ca/\"".into()],
        }
    }

    #[test]
    fn lines_are_added_where_they_belong_and_nothing_else_changes() {
        let cases = [
            (
                "",
                "# Every setting is in docs/configuration.md, or `epithet agent --help`.\nagent:\n  ca-url: \"https://ca/\"\ntls-ca-cert: \"/x\"\n",
            ),
            (
                "verbose: 1",
                "verbose: 1\nagent:\n  ca-url: \"https://ca/\"\ntls-ca-cert: \"/x\"\n",
            ),
            (
                "agent:  # mine\n    # no\n    match: a\npolicy: {}\n",
                "agent:  # mine\n    ca-url: \"https://ca/\"\n    # no\n    match: a\npolicy: {}\ntls-ca-cert: \"/x\"\n",
            ),
        ];
        for (before, after) in cases {
            let (text, _) = added(before, &missing()).unwrap();
            assert_eq!(text, after);
            serde_saphyr::from_str::<Config>(&text).unwrap();
        }
        let error = added("agent: {match: a}\n", &missing()).unwrap_err().to_string();
        assert!(error.contains("ca-url: \"https://ca/\""), "{error}");
    }

    #[test]
    fn whatever_is_in_a_word_it_is_read_back() {
        let word = "a 'b' \"c\" # d: {e}, \\ %";
        let text = format!("agent: {{auth: {}}}", scalar(word).unwrap());
        let config: Config = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(config.agent.auth, Some(PluginCommand::Shell(word.into())));
    }
}
