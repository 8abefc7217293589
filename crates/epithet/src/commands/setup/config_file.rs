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
        let (text, lines) = added(before.as_deref().unwrap_or(""), &missing, &section(wishes))
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
        let agent = &wishes.there;
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

/// The keys that lead to a profile's section.
fn section(wishes: &Wishes) -> Vec<String> {
    match wishes.is_below_profiles {
        true => vec!["profiles".to_owned(), wishes.profile.to_string()],
        false => vec!["agent".to_owned()],
    }
}

/// The text with the missing lines in it, those of the section below `keys`, and the new lines.
fn added(text: &str, missing: &Missing, keys: &[String]) -> anyhow::Result<(String, Vec<String>)> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut new = Vec::new();
    if !missing.agent.is_empty() {
        if lines.is_empty() {
            new.push("# Every setting is in docs/configuration.md, or `epithet agent --help`.".to_owned());
        }
        let place = Place::find(&lines, keys, missing)?;
        let mut indent = place.indent;
        for key in &keys[place.found..] {
            new.push(format!("{indent}{key}:"));
            indent.push_str("  ");
        }
        new.extend(missing.agent.iter().map(|line| format!("{indent}{line}")));
        lines.splice(place.at..place.at, new.clone());
    }
    new.extend(missing.top.iter().cloned());
    lines.extend(missing.top.iter().cloned());
    Ok((lines.join("\n") + "\n", new))
}

/// Where lines of a section go.
struct Place {
    /// Before this line.
    at: usize,
    /// The blanks before them.
    indent: String,
    /// How many of the keys are there already.
    found: usize,
}

impl Place {
    /// Follows the keys as far as they are there.
    fn find(lines: &[String], keys: &[String], missing: &Missing) -> anyhow::Result<Self> {
        let mut place = Self {
            at: lines.len(),
            indent: String::new(),
            found: 0,
        };
        let mut within = 0..lines.len();
        for key in keys {
            let head = format!("{}{key}:", place.indent);
            let Some(at) = within.clone().find(|line| lines[*line].starts_with(&head)) else {
                break;
            };
            let rest = lines[at][head.len()..].trim();
            if !rest.is_empty() && !rest.starts_with('#') {
                bail!("{}", on_one_line(&lines[at], key, rest, missing));
            }
            let is_of_it = |line: &String| is_empty(line) || indent_of(line) > place.indent.len();
            let end = lines[at + 1..].iter().take_while(|line| is_of_it(line)).count() + at + 1;
            let child = lines[at + 1..end].iter().find(|line| !is_empty(line));
            let indent = child.map_or(place.indent.len() + 2, |line| indent_of(line));
            place = Self {
                at: at + 1,
                indent: " ".repeat(indent),
                found: place.found + 1,
            };
            within = at + 1..end;
        }
        Ok(place)
    }
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Whether a line says nothing.
fn is_empty(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with('#')
}

/// What a person can write in the place of a section that is written as `key: {...}`.
fn on_one_line(line: &str, key: &str, rest: &str, missing: &Missing) -> String {
    let inner = rest
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .map(str::trim);
    let whole = inner.map(|inner| {
        let own = (!inner.is_empty()).then(|| inner.to_owned());
        let all: Vec<String> = own.into_iter().chain(missing.agent.iter().cloned()).collect();
        format!("{}{key}: {{{}}}", " ".repeat(indent_of(line)), all.join(", "))
    });
    let (verb, lines) = match whole {
        Some(whole) => ("write it like this", vec![whole]),
        None => ("add to it yourself", missing.agent.clone()),
    };
    let lines: Vec<_> = lines
        .iter()
        .chain(&missing.top)
        .map(|line| format!("\n  {line}"))
        .collect();
    format!(
        "its `{key}:` is written on one line\ntry: {verb}{}",
        lines.concat()
    )
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
            let (text, _) = added(before, &missing(), &["agent".to_owned()]).unwrap();
            assert_eq!(text, after);
            serde_saphyr::from_str::<Config>(&text).unwrap();
        }
    }

    #[test]
    fn a_profile_is_written_below_profiles_and_nothing_else_changes() {
        let keys = ["profiles".to_owned(), "work".to_owned()];
        let cases = [
            (
                "agent:\n  match: a\n",
                "agent:\n  match: a\nprofiles:\n  work:\n    ca-url: \"https://ca/\"\ntls-ca-cert: \"/x\"\n",
            ),
            (
                "profiles:\n  # others\n    home:\n      match: a\nverbose: 1\n",
                "profiles:\n    work:\n      ca-url: \"https://ca/\"\n  # others\n    home:\n      match: a\nverbose: 1\ntls-ca-cert: \"/x\"\n",
            ),
            (
                "profiles:\n  work:\n    match: a\n  z: {}\n",
                "profiles:\n  work:\n    ca-url: \"https://ca/\"\n    match: a\n  z: {}\ntls-ca-cert: \"/x\"\n",
            ),
            (
                "profiles:\n  z:\n    match: a\nserver:\n  work: 1\n",
                "profiles:\n  work:\n    ca-url: \"https://ca/\"\n  z:\n    match: a\nserver:\n  work: 1\ntls-ca-cert: \"/x\"\n",
            ),
        ];
        for (before, after) in cases {
            assert_eq!(added(before, &missing(), &keys).unwrap().0, after);
        }
    }

    #[test]
    fn a_section_on_one_line_is_shown_as_it_has_to_be() {
        let lines = |text: &str, keys: &[&str]| {
            let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
            added(text, &missing(), &keys).unwrap_err().to_string()
        };
        for (text, keys, line) in [
            (
                "agent: {match: a}\n",
                &["agent"][..],
                "\n  agent: {match: a, ca-url: \"https://ca/\"}\n  tls-ca-cert: \"/x\"",
            ),
            (
                "agent: {}\n",
                &["agent"],
                "\n  agent: {ca-url: \"https://ca/\"}\n",
            ),
            (
                "profiles:\n  work: {match: a}\n",
                &["profiles", "work"],
                "\n    work: {match: a, ca-url: \"https://ca/\"}\n",
            ),
            (
                "agent: &x\n  match: a\n",
                &["agent"],
                "\n  ca-url: \"https://ca/\"\n",
            ),
        ] {
            let said = lines(text, keys);
            assert!(
                said.contains("on one line\ntry: ") && said.contains(line),
                "{said}"
            );
        }
    }

    #[test]
    fn whatever_is_in_a_word_it_is_read_back() {
        let word = "a 'b' \"c\" # d: {e}, \\ %";
        let text = format!("agent: {{auth: {}}}", scalar(word).unwrap());
        let config: Config = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(config.agent.auth, Some(PluginCommand::Shell(word.into())));
    }
}
