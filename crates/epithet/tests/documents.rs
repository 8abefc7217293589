//! The documents keep step with the program: what they name is there, and what is there is in them.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const EPITHET: &str = env!("CARGO_BIN_EXE_epithet");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository")
}

/// Every page, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut folders = vec![root.join("docs"), root.join("examples")];
    let mut pages: Vec<PathBuf> = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .map(|name| root.join(name))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of pages") {
            let path = entry.expect("an entry").path();
            match path.extension() {
                Some(extension) if extension == "md" => pages.push(path),
                None if path.is_dir() => folders.push(path),
                _ => {}
            }
        }
    }
    pages.sort();
    let read = |page: PathBuf| {
        let text = std::fs::read_to_string(&page).expect("a page");
        (page, text)
    };
    pages.into_iter().map(read).collect()
}

/// The fenced blocks of a page, with the word after the fence.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(kind), None) => open = Some((kind.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The text outside of fenced blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        inside ^= is_fence;
        !inside && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What stands between single backticks.
fn code_words(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).collect()
}

/// A heading's anchor, as the forges make it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let text: String = heading.to_lowercase().chars().filter(kept).collect();
    text.trim().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for (page, text) in pages() {
        let folder = page.parent().expect("a folder");
        let prose = prose(&text);
        for link in prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.starts_with("http") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                folder.join(file)
            };
            let leads = match std::fs::read_to_string(&target) {
                Ok(text) => heading.is_empty() || anchors(&text).contains(heading),
                Err(_) => heading.is_empty() && target.exists(),
            };
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The help of commands, asked for once each.
#[derive(Default)]
struct Helps(BTreeMap<Vec<String>, Option<String>>);

impl Helps {
    fn of(&mut self, command: &[String]) -> Option<&str> {
        let help = self.0.entry(command.to_vec()).or_insert_with(|| {
            let output = Command::new(EPITHET)
                .args(command)
                .arg("--help")
                .env("EPITHET_CONFIG_ONLY", "1")
                .output()
                .expect("epithet runs");
            output
                .status
                .success()
                .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        });
        help.as_deref()
    }

    /// The longest beginning of `words` that is a command.
    fn command(&mut self, words: &[String]) -> Vec<String> {
        let mut command = Vec::new();
        for word in words {
            let is_a_word = word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            let has_subcommands = self.of(&command).is_some_and(|help| help.contains("Commands:"));
            if !is_a_word || word.starts_with('-') || !has_subcommands {
                break;
            }
            command.push(word.clone());
            if self.of(&command).is_none() {
                break;
            }
        }
        command
    }
}

/// Every `epithet ...` in a text, as words up to where it ends; quoted commands (`--auth "epithet ..."`) are their own.
fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default();
        let parts: Vec<&str> = line
            .split(['"', '\'', '|', ';', '(', ')'])
            .flat_map(|part| part.split("&& "))
            .collect();
        for part in parts {
            let words: Vec<&str> = part.split_whitespace().collect();
            let starts = words
                .iter()
                .position(|word| *word == "epithet" || word.ends_with("/epithet"));
            if let Some(start) = starts.filter(|start| *start == 0 || words[start - 1] == "$") {
                found.push(words[start + 1..].iter().map(|word| (*word).to_owned()).collect());
            }
        }
    }
    found
}

#[test]
fn every_command_in_the_documents_is_understood() {
    let mut helps = Helps::default();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (page, text) in pages() {
        if page.ends_with("differences-from-0.19.md") || page.ends_with("CHANGELOG.md") {
            continue;
        }
        let prose = prose(&text);
        let blocks = blocks(&text);
        let shown = blocks
            .iter()
            .filter(|(kind, _)| matches!(kind.as_str(), "" | "sh" | "console" | "yaml"));
        let texts = shown.map(|(_, block)| block.as_str()).chain(code_words(&prose));
        for words in texts.flat_map(commands) {
            seen += 1;
            let command = helps.command(&words);
            let said = format!("{}: epithet {}", page.display(), words.join(" "));
            let Some(help) = helps.of(&command).map(str::to_owned) else {
                wrong.push(said);
                continue;
            };
            let ours = words.iter().take_while(|word| *word != "--");
            for flag in ours.filter(|word| word.starts_with("--")) {
                let name = flag.split(['=', '.', ',', '`']).next().unwrap_or_default();
                if !help.contains(&format!("{name} ")) && !help.contains(&format!("{name}\n")) {
                    wrong.push(format!("{said}\n    has no {name}"));
                }
            }
        }
    }
    assert!(seen > 30, "only {seen} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The flags that a help lists, with the environment variable of each.
fn flags(help: &str) -> Vec<(String, Option<String>)> {
    let mut flags: Vec<(String, Option<String>)> = Vec::new();
    for line in help.lines() {
        let line = line.trim();
        if let Some(variable) = line
            .strip_prefix("[env: ")
            .and_then(|rest| rest.split([']', '=']).next())
        {
            if let Some(last) = flags.last_mut() {
                last.1 = Some(variable.to_owned());
            }
        } else if line.starts_with('-')
            && let Some(name) = line
                .split([' ', ',', '.', '['])
                .find(|word| word.starts_with("--"))
        {
            flags.push((name.to_owned(), None));
        }
    }
    flags
}

#[test]
fn every_setting_is_on_the_page_about_configuration() {
    let page = std::fs::read_to_string(root().join("docs/configuration.md")).expect("the page");
    let mut helps = Helps::default();
    let mut missing = BTreeSet::new();
    for command in ["agent", "auth oidc", "ca", "policy", "server"] {
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let help = helps.of(&words).expect("help").to_owned();
        let options = help.split("Examples:").next().unwrap_or_default();
        for (flag, variable) in flags(options) {
            if matches!(flag.as_str(), "--help" | "--version") {
                continue;
            }
            let is_named = |name: &str| page.contains(&format!("`{name}`"));
            if !is_named(&flag) {
                missing.insert(format!("epithet {command}: {flag}"));
            }
            if let Some(variable) = variable.filter(|variable| !is_named(variable)) {
                missing.insert(format!("epithet {command}: {variable}"));
            }
        }
    }
    let missing: Vec<String> = missing.into_iter().collect();
    assert!(
        missing.is_empty(),
        "not in docs/configuration.md:\n{}",
        missing.join("\n")
    );
}

#[test]
fn every_configuration_in_the_documents_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut texts: Vec<(PathBuf, String)> = Vec::new();
    for (page, text) in pages() {
        let yaml = blocks(&text).into_iter().filter(|(kind, _)| kind == "yaml");
        texts.extend(yaml.map(|(_, block)| (page.clone(), block)));
    }
    for entry in std::fs::read_dir(root().join("examples")).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).expect("a configuration");
            texts.push((path, text));
        }
    }
    for (page, text) in texts {
        seen += 1;
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, &text).expect("a file");
        // The configuration is read before anything else; there is no such key, so nothing is started.
        let output = Command::new(EPITHET)
            .args(["ca", "--key", "/nonexistent/ca.key", "--config"])
            .arg(&file)
            .env("EPITHET_CONFIG_ONLY", "1")
            .output()
            .expect("epithet runs");
        let said = String::from_utf8_lossy(&output.stderr);
        if !said.contains("/nonexistent/ca.key") {
            wrong.push(format!("{}:\n{text}\n{said}", page.display()));
        }
    }
    assert!(seen > 5, "only {seen} configurations were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
