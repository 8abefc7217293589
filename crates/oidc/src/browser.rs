//! Starts a browser without a sound: no output of it anywhere, none of our descriptors in it, no waiting for it.
//!
//! The address comes from a provider, so it goes out as one argument of a program that is started directly,
//! never through a shell (CVE-2025-6514), after it has been parsed and found to be http or https. A browser that
//! writes to our stdout would corrupt the token, and one that keeps fds 3 and 4 open would hold the login:
//! it gets `/dev/null` three times, its own process group, and nothing else (the caller marks its own
//! descriptors close-on-exec).

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use url::Url;

/// Programs that show pages as text: they would take the terminal, or sit unseen on `/dev/null`.
const TEXT_BROWSERS: [&str; 8] = [
    "www-browser",
    "lynx",
    "links",
    "links2",
    "elinks",
    "w3m",
    "cha",
    "browsh",
];

/// Why no browser was started. The address is shown in any case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrowserError {
    /// Only http and https addresses are opened.
    #[error("the address begins with {0:?}, not https; it is not opened")]
    Scheme(String),
    /// The person does not want one (`--no-browser`).
    #[error("no browser is wanted")]
    NotWanted,
    /// None of the programs that open browsers is here.
    #[error("no program to open a browser was found; set --browser or $BROWSER")]
    NoneFound,
    /// What was configured cannot be read as a command.
    #[error("the browser command {0:?} has an unmatched quote")]
    Command(String),
    /// The program did not start.
    #[error("{program} did not start: {reason}")]
    Start {
        /// Which.
        program: String,
        /// What the system said.
        reason: String,
    },
}

/// Which browser.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BrowserChoice {
    /// `$BROWSER`, else what the system opens addresses with.
    #[default]
    System,
    /// This command (`--browser`); `%s` in it stands for the address, which otherwise comes last.
    Command(String),
    /// None (`--no-browser`).
    None,
}

/// Whether this is a command that somebody named and that can be started to show pages.
pub fn is_there(choice: &BrowserChoice) -> bool {
    let BrowserChoice::Command(command) = choice else {
        return false;
    };
    let program = split(command).ok().and_then(|words| words.into_iter().next());
    let path = std::env::var("PATH").ok();
    let program = program.and_then(|program| find(&program, path.as_deref()));
    program.is_some_and(|program| !is_text_browser(&program))
}

/// Starts a browser with this address and returns at once.
///
/// # Errors
/// See [`BrowserError`]; nothing was started then.
pub fn open(choice: &BrowserChoice, url: &Url) -> Result<(), BrowserError> {
    open_with(choice, url, |name| std::env::var(name).ok())
}

fn open_with(
    choice: &BrowserChoice,
    url: &Url,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), BrowserError> {
    if !matches!(url.scheme(), "https" | "http") {
        return Err(BrowserError::Scheme(url.scheme().chars().take(16).collect()));
    }
    let mut failure = BrowserError::NoneFound;
    for command in candidates(choice, &variable)? {
        let Some(program) = command
            .first()
            .and_then(|program| find(program, variable("PATH").as_deref()))
        else {
            continue;
        };
        if is_text_browser(&program) {
            continue;
        }
        match start(&program, &arguments(&command[1..], url)) {
            Ok(()) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The commands to try, in this order. Each is split into arguments before the address is put in.
fn candidates(
    choice: &BrowserChoice,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Vec<String>>, BrowserError> {
    match choice {
        BrowserChoice::None => return Err(BrowserError::NotWanted),
        BrowserChoice::Command(command) => return Ok(vec![split(command)?]),
        BrowserChoice::System => {}
    }
    // $BROWSER is a list with colons between (the convention of xdg-open and of Python's webbrowser).
    let own = variable("BROWSER").unwrap_or_default();
    let mut commands = Vec::new();
    for command in own.split(':').filter(|command| !command.trim().is_empty()) {
        commands.push(split(command)?);
    }
    let is_wsl = variable("WSL_DISTRO_NAME").is_some_and(|name| !name.is_empty());
    let usual: &[&str] = if cfg!(target_os = "macos") {
        &["/usr/bin/open"]
    } else if is_wsl {
        &["wslview", "explorer.exe", "xdg-open"]
    } else {
        &["xdg-open", "gio open", "kde-open", "x-www-browser"]
    };
    commands.extend(
        usual
            .iter()
            .map(|command| command.split(' ').map(str::to_owned).collect()),
    );
    Ok(commands)
}

/// Words as a shell would see them, with quotes and backslashes but nothing that expands.
fn split(command: &str) -> Result<Vec<String>, BrowserError> {
    let unmatched = || BrowserError::Command(command.to_owned());
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next().ok_or_else(unmatched)? {
                        end if end == character => break,
                        '\\' if character == '"' => word.push(characters.next().ok_or_else(unmatched)?),
                        other => word.push(other),
                    }
                }
            }
            '\\' => word
                .get_or_insert_default()
                .push(characters.next().ok_or_else(unmatched)?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn arguments(template: &[String], url: &Url) -> Vec<String> {
    let mut arguments: Vec<String> = template
        .iter()
        .map(|argument| argument.replace("%s", url.as_str()))
        .collect();
    if !template.iter().any(|argument| argument.contains("%s")) {
        arguments.push(url.as_str().to_owned());
    }
    arguments
}

/// The program's file: as given when it has a slash, else the first of that name on the path.
fn find(program: &str, path: Option<&str>) -> Option<PathBuf> {
    let is_program =
        |file: &Path| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|file| is_program(file));
    }
    // An empty or relative entry means the current directory, where anybody may have put an `xdg-open`.
    path?
        .split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| Path::new(directory).join(program))
        .find(|file| is_program(file))
}

/// Whether it is a text browser, also when a link of another name leads to one (`x-www-browser`).
fn is_text_browser(program: &Path) -> bool {
    let names = [Some(program.to_owned()), std::fs::canonicalize(program).ok()];
    names
        .iter()
        .flatten()
        .filter_map(|file| file.file_name()?.to_str())
        .any(|name| TEXT_BROWSERS.contains(&name))
}

fn start(program: &Path, arguments: &[String]) -> Result<(), BrowserError> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        // A signal to our group, which ends a login, is not for the browser.
        .process_group(0)
        .spawn();
    let failed = |error: std::io::Error| BrowserError::Start {
        program: program.display().to_string(),
        reason: error.to_string(),
    };
    let mut child = child.map_err(failed)?;
    // Openers end at once, browsers never: someone has to collect it, nobody has to wait.
    let collected = std::thread::Builder::new()
        .name("browser".into())
        .spawn(move || child.wait());
    collected.map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, Instant};

    fn script(directory: &Path, name: &str, body: &str) -> PathBuf {
        let file = directory.join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    /// What a fake browser left behind, once it has.
    fn wait_for(file: &Path) -> String {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if let Ok(text) = std::fs::read_to_string(file)
                && text.ends_with("end\n")
            {
                return text;
            }
            std::thread::yield_now();
        }
        panic!("{} was not written", file.display());
    }

    #[test]
    fn a_browser_gets_the_address_as_one_argument_and_no_descriptor_of_ours() {
        let home = tempfile::tempdir().unwrap();
        let report = home.path().join("report");
        let body = format!(
            "{{ printf '%s\\n' \"$#\" \"$1\"; readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2; \
             ps -o pgid= -p $$; echo $$; echo end; }} >{0}.tmp 2>&1; mv {0}.tmp {0}; sleep 60",
            report.display()
        );
        let pid = std::process::id();
        script(home.path(), "xdg-open", &body);
        let path = format!("{}:/usr/bin:/bin", home.path().display());
        let url = Url::parse("https://idp.example/a?x=$(id)`id`;id&y='\"\\").unwrap();
        let start = Instant::now();
        open_with(&BrowserChoice::System, &url, |name| {
            (name == "PATH").then(|| path.clone())
        })
        .unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "nobody waits for a browser that stays"
        );
        let text = wait_for(&report);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[..2], ["1", url.as_str()]);
        if cfg!(target_os = "linux") {
            // fds 1 and 2 lead to the report while it is written; stdin is the browser's own.
            assert_eq!(lines[2], "/dev/null");
            assert_ne!(lines[5], pid.to_string());
            assert_eq!(lines[5], lines[6], "it leads its own process group");
        }
        let browser = rustix::process::Pid::from_raw(lines[6].parse().unwrap()).unwrap();
        rustix::process::kill_process_group(browser, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn only_web_addresses_are_opened() {
        for bad in [
            "file:///etc/passwd",
            "javascript:alert(1)",
            "smb://host/x",
            "ssh://host",
        ] {
            let refused = open_with(&BrowserChoice::System, &Url::parse(bad).unwrap(), |_| None);
            assert!(matches!(refused, Err(BrowserError::Scheme(_))), "{bad}");
        }
        let url = Url::parse("https://idp.example/").unwrap();
        assert_eq!(
            open_with(&BrowserChoice::None, &url, |_| None),
            Err(BrowserError::NotWanted)
        );
        assert_eq!(
            open_with(&BrowserChoice::System, &url, |_| None),
            Err(BrowserError::NoneFound)
        );
    }

    #[test]
    fn text_browsers_are_passed_over_also_under_another_name() {
        let home = tempfile::tempdir().unwrap();
        let lynx = script(home.path(), "lynx", "exit 0");
        symlink(&lynx, home.path().join("x-www-browser")).unwrap();
        let variable = |name: &str| match name {
            "PATH" => Some(home.path().display().to_string()),
            "BROWSER" => Some("lynx".to_owned()),
            _ => None,
        };
        let url = Url::parse("https://idp.example/").unwrap();
        assert_eq!(
            open_with(&BrowserChoice::System, &url, variable),
            Err(BrowserError::NoneFound)
        );
    }

    #[test]
    fn a_named_browser_is_there_when_it_can_be_started_and_shows_windows() {
        let home = tempfile::tempdir().unwrap();
        let mine = script(home.path(), "my browser", "exit 0");
        let text = script(home.path(), "w3m", "exit 0");
        let named = |command: String| is_there(&BrowserChoice::Command(command));
        assert!(named(format!("'{}' --new-window %s", mine.display())));
        for command in [
            text.display().to_string(),
            "/no/such/browser".into(),
            "'".into(),
            String::new(),
        ] {
            assert!(!named(command.clone()), "{command}");
        }
        assert!(!is_there(&BrowserChoice::System) && !is_there(&BrowserChoice::None));
    }

    #[test]
    fn the_browser_command_is_split_before_the_address_is_put_in() {
        let url = Url::parse("https://idp.example/a b'c\"").unwrap();
        for (command, expected) in [
            ("firefox", vec!["firefox", "U"]),
            ("firefox --new-window %s", vec!["firefox", "--new-window", "U"]),
            (
                "'/opt/my browser/run' --app=%s",
                vec!["/opt/my browser/run", "--app=U"],
            ),
            ("a \"b \\\" c\" d\\ e", vec!["a", "b \" c", "d e", "U"]),
            ("a ''", vec!["a", "", "U"]),
        ] {
            let words = split(command).unwrap();
            let mut all = vec![words[0].clone()];
            all.extend(arguments(&words[1..], &url));
            let expected: Vec<String> = expected
                .iter()
                .map(|word| word.replace('U', url.as_str()))
                .collect();
            assert_eq!(all, expected, "{command}");
        }
        for bad in ["'a", "a \"b", "a \\"] {
            assert!(matches!(split(bad), Err(BrowserError::Command(_))), "{bad}");
        }
    }

    #[test]
    fn the_persons_own_choice_comes_first_and_wsl_is_known() {
        let pairs = |pairs: &'static [(&'static str, &'static str)]| {
            move |name: &str| {
                pairs
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| (*value).to_owned())
            }
        };
        let first = |variable: &dyn Fn(&str) -> Option<String>, choice| {
            candidates(&choice, variable).unwrap()[0].clone()
        };
        assert_eq!(
            first(&pairs(&[("BROWSER", "firefox:chromium")]), BrowserChoice::System),
            ["firefox"]
        );
        assert_eq!(
            first(
                &pairs(&[("BROWSER", "firefox")]),
                BrowserChoice::Command("chromium --incognito".into())
            ),
            ["chromium", "--incognito"]
        );
        if cfg!(target_os = "linux") {
            assert_eq!(
                first(&pairs(&[("WSL_DISTRO_NAME", "Debian")]), BrowserChoice::System),
                ["wslview"]
            );
            assert_eq!(first(&pairs(&[]), BrowserChoice::System), ["xdg-open"]);
        }
    }
}
