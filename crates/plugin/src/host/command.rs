//! How a plugin is configured, and what can be known about a program that did not start.

use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A plugin as it is configured: one string for `/bin/sh -c`, or a list that is executed as it stands.
///
/// The string form is for people and their configuration only. What came over a network or from ssh's command line goes
/// into a list, or into the environment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "expected a command: one string for the shell, or a list of program and arguments"
)]
pub enum PluginCommand {
    /// Run by `/bin/sh -c`.
    Shell(String),
    /// Program and arguments, no shell; a program without a slash is looked for in `PATH`.
    Argv(Vec<String>),
}

/// Why a configured command cannot be run at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nothing to run.
    #[error(
        "the auth command is empty; name the plugin to run, for example `epithet auth oidc --issuer ...`"
    )]
    Empty,
    /// A NUL byte, which no program can be given.
    #[error("the auth command contains a NUL byte")]
    Nul,
}

impl PluginCommand {
    /// Whether there is something to run; to be asked when configuration is read.
    ///
    /// # Errors
    /// [`CommandError`] when the command is blank or holds a NUL byte.
    pub fn validate(&self) -> Result<(), CommandError> {
        let (empty, nul) = match self {
            Self::Shell(text) => (text.trim().is_empty(), text.contains('\0')),
            Self::Argv(words) => (
                words.first().is_none_or(|program| program.trim().is_empty()),
                words.iter().any(|word| word.contains('\0')),
            ),
        };
        match (empty, nul) {
            (true, _) => Err(CommandError::Empty),
            (_, true) => Err(CommandError::Nul),
            _ => Ok(()),
        }
    }

    /// The command as arguments after `--`, ready to be pasted into a shell.
    pub fn as_arguments(&self) -> String {
        match self {
            Self::Shell(text) if is_plain(text) => text.clone(),
            // One word is a command for the shell, there as in --auth.
            Self::Shell(text) => quoted(text),
            Self::Argv(_) => self.to_string(),
        }
    }

    /// Why the program cannot be started, as far as the file system tells without starting it.
    pub fn problem(&self) -> Option<String> {
        let own = std::env::current_exe().ok();
        let path = search_path(own.as_deref().and_then(Path::parent), std::env::var_os("PATH"));
        match self.diagnose(&path, None) {
            Diagnosis::Missing(program) => {
                Some(format!("the auth plugin's program `{program}` was not found"))
            }
            Diagnosis::NotExecutable(file) => {
                Some(format!("the auth plugin {} cannot be executed", file.display()))
            }
            Diagnosis::BadInterpreter { file, interpreter } => Some(format!(
                "the auth plugin {} names an interpreter that is not there: {interpreter}",
                file.display()
            )),
            Diagnosis::Unknown => None,
        }
    }

    pub(crate) fn to_command(&self) -> Command {
        match self {
            Self::Shell(text) => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c").arg(text);
                command
            }
            Self::Argv(words) => {
                let mut command = Command::new(words.first().map_or("", String::as_str));
                command.args(words.iter().skip(1));
                command
            }
        }
    }

    /// The program's name, where it is plain to see: a shell string may begin with anything.
    fn program(&self) -> Option<&str> {
        match self {
            Self::Argv(words) => words.first().map(String::as_str),
            Self::Shell(text) => {
                let mut words = text.split_ascii_whitespace().skip_while(|word| *word == "exec");
                let first = words.next().filter(|word| is_plain(word))?;
                let is_the_shells = first.contains('=') || SHELL_WORDS.contains(&first);
                (!is_the_shells).then_some(first)
            }
        }
    }

    /// Why the program did not start, as far as the file system tells.
    pub(crate) fn diagnose(&self, path: &OsStr, directory: Option<&Path>) -> Diagnosis {
        let Some(program) = self.program() else {
            return Diagnosis::Unknown;
        };
        let Some(file) = find(program, path, directory) else {
            return Diagnosis::Missing(program.to_owned());
        };
        if !is_executable(&file) {
            return Diagnosis::NotExecutable(file);
        }
        match interpreter(&file) {
            Some(words) if words.iter().any(|word| find(word, path, directory).is_none()) => {
                Diagnosis::BadInterpreter {
                    file,
                    interpreter: words.join(" "),
                }
            }
            _ => Diagnosis::Unknown,
        }
    }
}

impl fmt::Display for PluginCommand {
    /// As it was configured; a list as a shell would have to be given it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(text) => f.write_str(text),
            Self::Argv(words) => {
                for (index, word) in words.iter().enumerate() {
                    let space = if index == 0 { "" } else { " " };
                    if is_plain(word) && !word.contains(' ') && !word.is_empty() {
                        write!(f, "{space}{word}")?;
                    } else {
                        write!(f, "{space}{}", quoted(word))?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// First words that a shell does not look for in `PATH`.
const SHELL_WORDS: &[&str] = &[
    "!", ".", ":", "case", "cd", "command", "eval", "exit", "export", "for", "if", "read", "set", "source",
    "trap", "ulimit", "umask", "unset", "until", "while",
];

/// What the file system says about a program that could not be started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Diagnosis {
    /// No such program.
    Missing(String),
    /// The file is there and may not be executed.
    NotExecutable(PathBuf),
    /// The file's first line names an interpreter that is not there.
    BadInterpreter { file: PathBuf, interpreter: String },
    /// Nothing is wrong with the program itself, or it cannot be told.
    Unknown,
}

/// The `PATH` of a plugin: this program's own folder first, so that `epithet auth oidc` works before it is installed.
pub(crate) fn search_path(own_folder: Option<&Path>, inherited: Option<OsString>) -> OsString {
    let inherited = inherited
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let folders = own_folder
        .map(Path::to_path_buf)
        .into_iter()
        .chain(std::env::split_paths(&inherited));
    // A folder with a colon in its name cannot be in a PATH.
    std::env::join_paths(folders).unwrap_or(inherited)
}

/// Whether a shell takes the text as words and nothing else.
fn is_plain(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_alphanumeric() || " /.,:=@%+_-".contains(c))
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn find(program: &str, path: &OsStr, directory: Option<&Path>) -> Option<PathBuf> {
    let below = |file: &Path| directory.map_or_else(|| file.to_path_buf(), |folder| folder.join(file));
    if program.contains('/') {
        return Some(below(Path::new(program))).filter(|file| file.exists());
    }
    let candidates: Vec<PathBuf> = std::env::split_paths(path)
        .map(|folder| below(&folder.join(program)))
        .filter(|file| file.is_file())
        .collect();
    let executable = candidates.iter().find(|file| is_executable(file));
    executable.or(candidates.first()).cloned()
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The programs that a script's `#!` line needs: the interpreter, and what `env` is told to look for.
fn interpreter(file: &Path) -> Option<Vec<String>> {
    let mut line = Vec::new();
    let script = File::open(file).ok()?;
    BufReader::new(script.take(256))
        .read_until(b'\n', &mut line)
        .ok()?;
    let line = String::from_utf8_lossy(line.strip_prefix(b"#!")?).into_owned();
    // A line that ends in a carriage return names an interpreter that ends in one.
    let mut words = line
        .trim_end_matches('\n')
        .split([' ', '\t'])
        .filter(|word| !word.is_empty());
    let program = words.next()?.to_owned();
    let looked_for = words
        .find(|word| !word.starts_with('-') && !word.contains('='))
        .filter(|_| program.ends_with("/env"));
    Some(
        std::iter::once(program.clone())
            .chain(looked_for.map(str::to_owned))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn shell(text: &str) -> PluginCommand {
        PluginCommand::Shell(text.to_owned())
    }

    fn argv(words: &[&str]) -> PluginCommand {
        PluginCommand::Argv(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn a_command_shows_as_it_was_configured_and_can_be_pasted() {
        for (command, shown, pasted) in [
            (shell("./login.sh"), "./login.sh", "./login.sh"),
            (
                shell("get | tr -d '\n'"),
                "get | tr -d '\n'",
                r"'get | tr -d '\''",
            ),
            (argv(&["login", "a b", ""]), "login 'a b' ''", "login 'a b' ''"),
            (argv(&["login", "it's"]), r"login 'it'\''s'", r"login 'it'\''s'"),
        ] {
            assert_eq!(command.to_string(), shown);
            assert!(
                command.as_arguments().starts_with(pasted),
                "{}",
                command.as_arguments()
            );
        }
    }

    #[test]
    fn an_empty_command_is_refused_when_configuration_is_read() {
        for command in [shell(""), shell(" \n"), argv(&[]), argv(&["", "x"])] {
            assert_eq!(command.validate(), Err(CommandError::Empty), "{command:?}");
        }
        assert_eq!(shell("a\0b").validate(), Err(CommandError::Nul));
        assert_eq!(argv(&["a", ""]).validate(), Ok(()));
    }

    #[test]
    fn configuration_gives_a_string_or_a_list() {
        let read = |text| serde_json::from_str::<PluginCommand>(text);
        assert_eq!(read(r#""a b""#).unwrap(), shell("a b"));
        assert_eq!(read(r#"["a", "b"]"#).unwrap(), argv(&["a", "b"]));
        let error = read(r#"{"command": 1}"#).unwrap_err().to_string();
        assert!(error.contains("one string for the shell, or a list"), "{error}");
    }

    #[test]
    fn the_first_word_of_a_shell_string_is_the_program_when_it_is_plain() {
        for (command, program) in [
            (shell("login --now"), Some("login")),
            (shell("exec ./login"), Some("./login")),
            (shell("$HOME/login"), None),
            (shell("'my login'"), None),
            (shell("(login)"), None),
            (shell("cd /opt && ./login"), None),
            (shell("A=b login"), None),
            (argv(&["my login"]), Some("my login")),
        ] {
            assert_eq!(command.program(), program, "{command}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_program_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str, mode: u32| {
            let file = folder.path().join(name);
            std::fs::write(&file, content).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        let plain = write("plain", "#!/bin/sh\n", 0o644);
        let windows = write("windows", "#!/bin/sh\r\n", 0o755);
        let absent = write("absent", "#!/no/such/python -u\n", 0o755);
        let by_env = write("by-env", "#!/usr/bin/env -S no-such-node\n", 0o755);
        write("fine", "#!/usr/bin/env sh\n", 0o755);
        let path = std::env::join_paths([folder.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
        let bad = |file: &Path, interpreter: &str| Diagnosis::BadInterpreter {
            file: file.to_owned(),
            interpreter: interpreter.to_owned(),
        };
        for (command, diagnosis) in [
            (
                argv(&["no-such-login"]),
                Diagnosis::Missing("no-such-login".to_owned()),
            ),
            (
                shell("./no-such-login --x"),
                Diagnosis::Missing("./no-such-login".to_owned()),
            ),
            (argv(&["plain"]), Diagnosis::NotExecutable(plain)),
            (argv(&["/etc"]), Diagnosis::NotExecutable("/etc".into())),
            (argv(&["windows"]), bad(&windows, "/bin/sh\r")),
            (shell("absent --now"), bad(&absent, "/no/such/python")),
            (argv(&["by-env"]), bad(&by_env, "/usr/bin/env no-such-node")),
            (argv(&["fine"]), Diagnosis::Unknown),
            (shell("fine; no-such"), Diagnosis::Unknown),
        ] {
            assert_eq!(command.diagnose(&path, None), diagnosis, "{command}");
        }
        assert_eq!(
            argv(&["./fine"]).diagnose(&path, Some(folder.path())),
            Diagnosis::Unknown
        );
    }

    #[test]
    fn the_own_folder_comes_first_in_the_path() {
        let own = Some(Path::new("/opt/epithet"));
        assert_eq!(search_path(own, Some("/bin".into())), "/opt/epithet:/bin");
        assert_eq!(
            search_path(own, None),
            "/opt/epithet:/usr/local/bin:/usr/bin:/bin"
        );
        assert_eq!(search_path(Some(Path::new("/a:b")), Some("/bin".into())), "/bin");
        assert_eq!(search_path(None, Some("/bin".into())), "/bin");
    }
}
