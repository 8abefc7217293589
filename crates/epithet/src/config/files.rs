//! Finding, checking, reading and merging the files.

use super::changes::Files;
use super::sections::Config;
use anyhow::{Context, bail};
use epithet_wire::limits::RULES_FILE_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use serde_json::Value;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a pipe may take to give a whole configuration: a program may have to decrypt it first.
const PIPE_DEADLINE: Duration = Duration::from_secs(30);
/// The extensions, in the order in which a directory's files are read.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// The person's home directory.
pub(crate) fn home() -> anyhow::Result<PathBuf> {
    match std::env::var_os("HOME").map(PathBuf::from) {
        Some(home) if home.is_absolute() => Ok(home),
        _ => bail!("HOME is not set to an absolute path; set it to your home directory"),
    }
}

/// Reads and merges the system's, the person's and the named file. Missing ones are no error, but for the named one.
///
/// With `EPITHET_CONFIG_ONLY=1` only the named file is read: for containers, tests and the demo.
pub(crate) fn load(named: Option<&Path>) -> anyhow::Result<Config> {
    let paths = list(named)?;
    // Before they are read, so that what changes meanwhile is a change.
    let files = Files::of(&paths);
    let mut merged = Value::Object(serde_json::Map::new());
    let mut policy = epithet_policy::Document::default();
    let mut sources = Vec::new();
    for path in &paths {
        let text = read(path)?;
        let (data, rules) = parse(path, &text)?;
        merge(&mut merged, data.clone());
        policy = policy.merge(rules);
        sources.push(Source { path, text, data });
    }
    let config = whole(merged, &sources)?;
    Ok(Config {
        policy,
        files,
        ..config
    })
}

/// The files that [`load`] reads, in that order.
pub(super) fn list(named: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if std::env::var_os("EPITHET_CONFIG_ONLY").is_none_or(|value| value != "1") {
        files.extend(files_in(Path::new("/etc/epithet"))?);
        if let Ok(home) = home() {
            files.extend(files_in(&home.join(".epithet"))?);
        }
    }
    files.extend(named.map(Path::to_owned));
    Ok(files)
}

/// Whether one file's text is a configuration. For the fuzzers.
#[doc(hidden)]
pub fn understand(text: &str) -> anyhow::Result<()> {
    let mut merged = Value::Object(serde_json::Map::new());
    merge(&mut merged, parse(Path::new("fuzzed.yaml"), text)?.0);
    whole(merged, &[]).map(|_| ())
}

/// A file that was read.
struct Source<'a> {
    path: &'a Path,
    text: String,
    data: Value,
}

/// Makes the configuration of what was merged. A value that is of the wrong kind is said with its key, and where it stands.
///
/// Each file is right by itself as it was written; as plain data, though, `'true'` is a text and no truth.
fn whole(merged: Value, sources: &[Source<'_>]) -> anyhow::Result<Config> {
    serde_path_to_error::deserialize(merged).map_err(|error| {
        let key = error.path().to_string();
        let words = with_suggestion(&error.inner().to_string());
        let place = sources.iter().rev().find_map(|source| source.place(&key));
        let place = place.unwrap_or_else(|| "the merged configuration".to_owned());
        anyhow::anyhow!(
            "{place}: `{key}`: {words}\ntry: write the value without quotes, as docs/configuration.md has it"
        )
    })
}

impl Source<'_> {
    /// The file and the line of a key like `agent.renew`, if the file has it.
    fn place(&self, key: &str) -> Option<String> {
        let mut value = &self.data;
        // Of a list, the list.
        let key = key.split('[').next()?;
        for part in key.split('.') {
            value = value.get(part)?;
        }
        let last = key.rsplit('.').next()?;
        let is_the_line = |line: &str| {
            let name = line.trim_start().trim_start_matches(['{', '-', ' ', '"', '\'']);
            name.strip_prefix(last)
                .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
        };
        let line = self.text.lines().position(is_the_line);
        let line = line.map_or_else(String::new, |index| format!(":{}", index + 1));
        Some(format!("configuration file {}{line}", self.path.display()))
    }
}

fn files_in(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the directory {}", dir.display()));
        }
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    let with = |extension: &str| {
        paths
            .iter()
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .cloned()
            .collect::<Vec<_>>()
    };
    Ok(EXTENSIONS.iter().flat_map(|extension| with(extension)).collect())
}

/// Reads a file that only its owner (this user or root) can write.
fn read(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    // Without waiting for somebody to open the other end of a named pipe.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .with_context(|| format!("configuration file {shown}"))?;
    let metadata = file
        .metadata()
        .with_context(|| format!("configuration file {shown}"))?;
    if metadata.is_dir() {
        bail!(
            "configuration file {shown} is a directory; move it away, or its files up beside it; run: ls -la {shown}"
        );
    }
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me && metadata.uid() != 0 {
        bail!(
            "configuration file {shown} belongs to user id {}, not to you or root; it is not read",
            metadata.uid()
        );
    }
    if metadata.mode() & 0o022 != 0 {
        bail!(
            "configuration file {shown} can be written by others (mode {:04o}); run: chmod go-w {shown}",
            metadata.mode() & 0o777
        );
    }
    let bytes = read_to_the_end(&file).with_context(|| format!("configuration file {shown}"))?;
    let too_large = u64::try_from(bytes.len()).is_ok_and(|size| size > RULES_FILE_MAX);
    if too_large {
        bail!("configuration file {shown} is larger than {RULES_FILE_MAX} bytes");
    }
    if bytes.is_empty() && !metadata.is_file() {
        bail!("configuration file {shown} is a pipe into which nobody writes");
    }
    String::from_utf8(bytes).with_context(|| format!("configuration file {shown}"))
}

/// Reads a file, or what comes out of a pipe (`--config <(...)`) in time; at most one byte more than is allowed.
fn read_to_the_end(file: &std::fs::File) -> anyhow::Result<Vec<u8>> {
    let (mut bytes, deadline) = (Vec::new(), Instant::now() + PIPE_DEADLINE);
    let mut rest = file.take(RULES_FILE_MAX + 1);
    loop {
        match rest.read_to_end(&mut bytes) {
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
        let ready = poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&left));
        if ready == Ok(0) {
            bail!(
                "it is a pipe whose end did not come within {}",
                epithet_wire::format_duration(PIPE_DEADLINE)
            );
        }
    }
}

/// Reads one file's text. It is read twice: once into the sections, for errors with line and column, and once as plain
/// data, for merging. Rules are merged as what they are: as plain data, a tag `yes` would be a truth, and a user `0123`
/// a number.
fn parse(path: &Path, text: &str) -> anyhow::Result<(Value, epithet_policy::Document)> {
    if text.trim().is_empty() {
        return Ok((Value::Null, epithet_policy::Document::default()));
    }
    let wrong = |error: &serde_saphyr::Error| {
        let place = error
            .location()
            .map(|place| format!(":{}:{}", place.line(), place.column()));
        let mut problem = error.without_snippet().to_string();
        // The place stands in front already, and the parser's own options are no advice for whoever wrote the file.
        for superfluous in [" at line ", ", set DuplicateKeyPolicy"] {
            problem.truncate(problem.rfind(superfluous).unwrap_or(problem.len()));
        }
        anyhow::anyhow!(
            "configuration file {}{}: {}",
            path.display(),
            place.unwrap_or_default(),
            with_suggestion(&problem)
        )
    };
    let config = serde_saphyr::from_str::<Option<Config>>(text).map_err(|error| wrong(&error))?;
    let mut data = serde_saphyr::from_str::<Value>(text).map_err(|error| wrong(&error))?;
    if let Value::Object(sections) = &mut data {
        sections.remove("policy");
    }
    Ok((data, config.unwrap_or_default().policy))
}

/// Merges `later` into `earlier`: maps key by key, everything else replaced.
fn merge(earlier: &mut Value, later: Value) {
    match (earlier, later) {
        (Value::Object(earlier), Value::Object(later)) => {
            for (key, value) in later {
                merge(earlier.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (earlier, later) => *earlier = later,
    }
}

/// Adds the nearest known key to a message about an unknown one. JSON's messages have each key in backticks, YAML's
/// have only the unknown one so.
pub(crate) fn with_suggestion(message: &str) -> String {
    let suggestion = message.split_once("unknown field `").and_then(|(_, rest)| {
        let (unknown, rest) = rest.split_once('`')?;
        let (_, known) = rest.lines().next()?.split_once("expected ")?;
        let words = known.split([',', ' ', '`']).filter(|word| !word.is_empty());
        let keys = words.filter(|word| !["one", "of", "or"].contains(word));
        let near = keys
            .map(|key| (strsim::damerau_levenshtein(unknown, key), key))
            .min()?;
        (near.0 <= 3.max(unknown.len() / 3)).then(|| near.1.to_owned())
    });
    match suggestion {
        Some(known) => format!("{}\ndid you mean `{known}`?", message.trim_end()),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    #[test]
    fn maps_are_merged_key_by_key_and_the_last_file_wins() {
        let mut merged = serde_json::json!({});
        merge(
            &mut merged,
            serde_json::json!({"policy": {"users": {"a": ["x"]}, "oidc": {"issuer": "i"}}}),
        );
        merge(
            &mut merged,
            serde_json::json!({"policy": {"users": {"b": ["y"]}}, "verbose": null}),
        );
        merge(
            &mut merged,
            serde_json::json!({"policy": {"oidc": {"issuer": "j"}}}),
        );
        assert_eq!(
            merged,
            serde_json::json!({"policy": {"users": {"a": ["x"], "b": ["y"]}, "oidc": {"issuer": "j"}}, "verbose": null})
        );
    }

    /// As plain data these would be a truth, two numbers and nothing.
    #[test]
    fn names_that_look_like_something_else_are_names_in_rules() {
        let dir = tempfile::tempdir().unwrap();
        let rules = "policy:\n  users: {0123: [yes], 1e3: [on], no: [~x, 7]}\n  hosts: {12: {allow: {root: [yes, 7]}}}\n";
        let first = write(dir.path(), "a.yaml", rules);
        let second = write(dir.path(), "b.yaml", "policy:\n  hosts: {12: {ttl: 1m}}\n");
        let mut policy = epithet_policy::Document::default();
        for path in [first, second] {
            policy = policy.merge(parse(&path, &read(&path).unwrap()).unwrap().1);
        }
        let users: Vec<_> = policy
            .users
            .iter()
            .map(|(name, tags)| format!("{name}:{}", tags.join(",")))
            .collect();
        assert_eq!(users, ["0123:yes", "1e3:on", "no:~x,7"]);
        let rule = policy.hosts.values().next().unwrap();
        assert_eq!(rule.allow.values().next().unwrap(), &["yes", "7"]);
        assert_eq!(
            rule.expiration.map(|life| life.get().as_secs()),
            Some(60),
            "rules are merged key by key"
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_said_with_its_file_line_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let texts = [
            "agent:\n  renew: true\n",
            "# mine\nagent:\n  name: work\n  renew: 'true'\n",
            "verbose: 1\n",
        ];
        let paths = ["a.yaml", "b.yaml", "c.yaml"].map(|name| dir.path().join(name));
        let mut merged = serde_json::json!({});
        let sources: Vec<_> = (paths.iter().zip(texts))
            .map(|(path, text)| {
                let data = parse(path, text).unwrap().0;
                merge(&mut merged, data.clone());
                Source {
                    path,
                    text: text.to_owned(),
                    data,
                }
            })
            .collect();
        let error = whole(merged, &sources).unwrap_err().to_string();
        for part in [
            "b.yaml:4: `agent.renew`: ",
            "expected a boolean",
            "without quotes",
        ] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }

    #[test]
    fn files_are_read_by_extension_and_then_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.json", "z.yaml", "a.yaml", "c.yml", "notes.txt"] {
            write(dir.path(), name, "{}");
        }
        let names: Vec<_> = files_in(dir.path())
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a.yaml", "z.yaml", "c.yml", "b.json"]);
        assert!(files_in(&dir.path().join("missing")).unwrap().is_empty());
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one_and_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(
            dir.path(),
            "a.yaml",
            "agent:\n  ca-urls: https://ca.example.com\n",
        );
        let error = parse(&path, &read(&path).unwrap()).unwrap_err().to_string();
        assert!(
            error.ends_with("\ndid you mean `ca-url`?") && error.contains("a.yaml:2:3: "),
            "{error}"
        );
    }

    #[test]
    fn the_nearest_key_is_found_however_the_known_ones_are_listed() {
        let cases = [
            (
                "unknown field `ca-urls`, expected one of auth, ca-url, name",
                Some("ca-url"),
            ),
            (
                "unknown field `isuer`, expected one of `issuer`, `client-id`",
                Some("issuer"),
            ),
            (
                "unknown field `listn`, expected `listen` or `key`",
                Some("listen"),
            ),
            ("unknown field `kye`, expected `key`", Some("key")),
            (
                "unknown field `something-else`, expected one of key, listen",
                None,
            ),
            ("unknown field `x`, there are no fields", None),
            ("not about a field, expected one of key", None),
        ];
        for (message, key) in cases {
            let told = with_suggestion(message);
            let suggestion = told
                .split_once("\ndid you mean `")
                .map(|(_, rest)| rest.trim_end_matches("`?"));
            assert_eq!(suggestion, key, "{told}");
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "a.yaml", "{}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod go-w"), "{error}");
    }

    #[test]
    fn a_pipe_is_read_when_somebody_writes_and_never_waited_for_when_nobody_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe.yaml");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("nobody writes"), "{error}");

        // Larger than a pipe holds, so that the reader meets an empty pipe whose writer is at work.
        let text = "# ".to_owned() + &"x".repeat(200_000) + "\n";
        let both_ends = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let written = text.clone();
        let writing = std::thread::spawn(move || {
            std::io::Write::write_all(&mut &writer, written.as_bytes()).unwrap();
            drop((writer, both_ends));
        });
        assert_eq!(read(&path).unwrap(), text);
        writing.join().unwrap();
    }

    #[test]
    fn a_file_is_read_up_to_its_limit_and_not_a_byte_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "a.yaml", "");
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(RULES_FILE_MAX).unwrap();
        assert!(read(&path).is_ok());
        file.set_len(RULES_FILE_MAX + 1).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("larger than"), "{error}");
    }

    #[test]
    fn an_empty_file_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "a.yaml", "# nothing yet\n");
        let (data, policy) = parse(&path, &read(&path).unwrap()).unwrap();
        assert_eq!((data, policy), (Value::Null, epithet_policy::Document::default()));
    }
}
