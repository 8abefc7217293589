//! The property list of launchd, which starts the broker at login on macOS. There the broker opens its own socket.

use super::Service;
use super::written::{MARK, Written};
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::process::{Command, ExitCode, Stdio};

/// The agent's property list.
pub(super) fn property_list(service: &Service) -> anyhow::Result<Written> {
    let label = label(service);
    let program = service
        .program
        .to_str()
        .context("the program's path is not UTF-8")?;
    let words = [program, "agent", "start", "--name", service.profile.as_str()];
    let words = words
        .into_iter()
        .chain(service.arguments.iter().map(String::as_str));
    let mut arguments = String::new();
    for word in words {
        let _ = writeln!(arguments, "    <string>{}</string>", escaped(word)?);
    }
    let log = service.log.to_str().context("the log file's path is not UTF-8")?;
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!-- {MARK}, which changes it when it is run again. -->\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n\
         <dict>\n  \
         <key>Label</key>\n  <string>{label}</string>\n  \
         <key>ProgramArguments</key>\n  <array>\n{arguments}  </array>\n  \
         <key>EnvironmentVariables</key>\n  <dict>\n    <key>PATH</key>\n    <string>{path}</string>\n  </dict>\n  \
         <key>RunAtLoad</key>\n  <true/>\n  \
         <key>KeepAlive</key>\n  <dict>\n    <key>SuccessfulExit</key>\n    <false/>\n  </dict>\n  \
         <key>ThrottleInterval</key>\n  <integer>10</integer>\n  \
         <key>AbandonProcessGroup</key>\n  <true/>\n  \
         <key>ProcessType</key>\n  <string>Interactive</string>\n  \
         <key>StandardErrorPath</key>\n  <string>{log}</string>\n\
         </dict>\n\
         </plist>\n",
        path = escaped(&service.path)?,
        log = escaped(log)?,
    );
    Ok(Written {
        path: service
            .home
            .join("Library/LaunchAgents")
            .join(format!("{label}.plist")),
        text,
    })
}

/// Loads the list, or says how.
pub(super) fn load(service: &Service, enable: bool) -> anyhow::Result<ExitCode> {
    let path = property_list(service)?.path;
    let domain = domain();
    if !enable {
        super::say(&format!(
            "to start it, now and at each login:\n  launchctl bootstrap {domain} {}",
            path.display()
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    super::give_way(&service.profile)?;
    // One that is loaded already has to be taken out to be read again.
    let _ = launchctl(&["bootout", &format!("{domain}/{}", label(service))]);
    let path = path.to_str().context("the property list's path is not UTF-8")?;
    launchctl(&["bootstrap", &domain, path])?;
    super::say("loaded: the broker serves, now and after each login")?;
    Ok(ExitCode::SUCCESS)
}

/// Ends the broker and forgets the list, if it is loaded.
pub(super) fn unload(service: &Service) -> anyhow::Result<()> {
    let _ = launchctl(&["bootout", &format!("{}/{}", domain(), label(service))]);
    Ok(())
}

fn label(service: &Service) -> String {
    format!("dev.epithet.{}", service.unit())
}

/// The domain of the person's own session.
fn domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

fn launchctl(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("launchctl")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .context("cannot run launchctl")?;
    if !output.status.success() {
        let said = epithet_wire::display::sanitize_text(&output.stderr);
        bail!("launchctl {} failed\n{}", words.join(" "), said.trim_end());
    }
    Ok(())
}

/// Text in XML.
fn escaped(text: &str) -> anyhow::Result<String> {
    if text.chars().any(char::is_control) {
        bail!("{text:?} has a control character, which a property list cannot say");
    }
    Ok(text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_to_run_and_nothing_breaks_out_of_it() {
        let service = Service {
            profile: "work".parse().unwrap(),
            program: "/opt/a&b/epithet".into(),
            arguments: vec!["--config=/x/<y>.yaml".into()],
            socket: "/h/.epithet/run/work/broker.sock".into(),
            home: "/Users/alice".into(),
            path: "/opt/homebrew/bin:/usr/bin".into(),
            log: "/Users/alice/Library/Logs/epithet/work.log".into(),
        };
        let list = property_list(&service).unwrap();
        let path = "/Users/alice/Library/LaunchAgents/dev.epithet.epithet-agent-work.plist";
        assert_eq!(list.path.to_str(), Some(path));
        for part in [
            "<string>/opt/a&amp;b/epithet</string>\n    <string>agent</string>\n    <string>start</string>",
            "<string>--config=/x/&lt;y&gt;.yaml</string>",
            "<key>SuccessfulExit</key>\n    <false/>",
            "<string>/opt/homebrew/bin:/usr/bin</string>",
        ] {
            assert!(list.text.contains(part), "{part} is not in {}", list.text);
        }
        let count = |text: &str| list.text.matches(text).count();
        assert_eq!(count("<dict>"), count("</dict>"));
        assert!(escaped("a\u{1b}b").is_err());
    }

    /// The reader of property lists that comes with Python.
    #[test]
    fn a_reader_of_property_lists_reads_back_what_was_meant() {
        use std::io::Write as _;
        let service = Service {
            profile: "work".parse().unwrap(),
            program: "/opt/a&b <c> \"d\" 'e'/epithet".into(),
            arguments: vec!["--config=/x/<y>.yaml".into(), "--tls-ca-cert=/\u{e4}.pem".into()],
            socket: "/h/.epithet/run/work/broker.sock".into(),
            home: "/Users/alice".into(),
            path: "/opt/homebrew/bin:/usr/bin".into(),
            log: "/Users/alice/Library/Logs/epithet/work.log".into(),
        };
        let script = "import json, plistlib, sys; print(json.dumps(plistlib.loads(sys.stdin.buffer.read())))";
        let python = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut python) = python else {
            eprintln!("python3 is not here, so nothing was read back");
            return;
        };
        let list = property_list(&service).unwrap().text;
        python.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let words: Vec<String> = serde_json::from_value(read["ProgramArguments"].clone()).unwrap();
        assert_eq!(words[..3], [service.program.to_str().unwrap(), "agent", "start"]);
        for argument in &service.arguments {
            assert!(words.contains(argument), "{argument} is not in {words:?}");
        }
        assert_eq!(read["Label"], "dev.epithet.epithet-agent-work");
        assert_eq!(read["RunAtLoad"], true);
        assert_eq!(read["EnvironmentVariables"]["PATH"], service.path);
    }
}
