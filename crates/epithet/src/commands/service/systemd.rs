//! The two units of systemd's user manager: a socket, on which ssh's question starts the broker, and the service.
//!
//! What hardens a service in a user manager (system call filters, `ProtectSystem`, `RestrictAddressFamilies` and their like)
//! needs `NoNewPrivileges` there, or a namespace of its own. An auth plugin is the person's own program, which may call
//! sudo, open a browser or read a smart card, and inherits all of that; so the unit has only what no plugin can notice,
//! and the broker hardens itself (no core dump, no ptrace, private files) as it does everywhere.

use super::Service;
use super::written::{MARK, Written};
use anyhow::bail;
use std::path::Path;

/// The unit that listens where `epithet match` asks.
pub(super) fn socket(service: &Service, folder: &Path) -> anyhow::Result<Written> {
    let unit = service.unit();
    let text = format!(
        "# {MARK}, which changes it when it is run again.\n\
         [Unit]\n\
         Description=The socket on which ssh asks Epithet (profile {profile})\n\
         Documentation=man:epithet-agent(1)\n\
         \n\
         [Socket]\n\
         ListenStream={socket}\n\
         SocketMode=0600\n\
         DirectoryMode=0700\n\
         # Without a socket, ssh does not wait for a broker that will not come.\n\
         RemoveOnStop=yes\n\
         \n\
         [Install]\n\
         WantedBy=sockets.target\n",
        profile = service.profile,
        socket = specifiers_doubled(text_of(&service.socket)?)?,
    );
    Ok(Written {
        path: folder.join(format!("{unit}.socket")),
        text,
    })
}

/// The unit that runs the broker.
pub(super) fn service(service: &Service, folder: &Path) -> anyhow::Result<Written> {
    let unit = service.unit();
    let mut start = word(text_of(&service.program)?)?;
    start.push_str(" agent start --name ");
    start.push_str(service.profile.as_str());
    for argument in &service.arguments {
        start.push(' ');
        start.push_str(&word(argument)?);
    }
    let text = format!(
        "# {MARK}, which changes it when it is run again.\n\
         [Unit]\n\
         Description=Epithet's broker: SSH certificates that live for minutes (profile {profile})\n\
         Documentation=man:epithet-agent(1)\n\
         Requires={unit}.socket\n\
         After={unit}.socket\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={start}\n\
         ExecReload=/bin/kill -HUP $MAINPID\n\
         # Auth plugins are found as in the shell from which this was installed.\n\
         Environment={path}\n\
         # The broker ends its plugins; a browser that one of them opened is the person's.\n\
         KillMode=process\n\
         TimeoutStopSec=10\n\
         Restart=on-failure\n\
         RestartSec=2\n\
         UMask=0077\n\
         LimitCORE=0\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n\
         Also={unit}.socket\n",
        profile = service.profile,
        path = quoted(&format!("PATH={}", service.path))?,
    );
    Ok(Written {
        path: folder.join(format!("{unit}.service")),
        text,
    })
}

fn text_of(path: &Path) -> anyhow::Result<&str> {
    match path.to_str() {
        Some(text) => Ok(text),
        None => bail!(
            "the path {} is not UTF-8, which a unit cannot say",
            path.display()
        ),
    }
}

/// `%` begins a specifier in every value.
fn specifiers_doubled(text: &str) -> anyhow::Result<String> {
    if text.chars().any(char::is_control) {
        bail!("{text:?} has a control character, which a unit cannot say");
    }
    Ok(text.replace('%', "%%"))
}

/// One word in quotes (systemd.syntax(7)).
fn quoted(text: &str) -> anyhow::Result<String> {
    let text = specifiers_doubled(text)?
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    Ok(format!("\"{text}\""))
}

/// One word of a command line, where `$` begins a variable (systemd.service(5), "Command lines").
fn word(text: &str) -> anyhow::Result<String> {
    Ok(quoted(text)?.replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_systemd_is_taken_literally() {
        assert_eq!(quoted("/opt/my apps/100%").unwrap(), r#""/opt/my apps/100%%""#);
        assert_eq!(word(r#"a"b\c$d"#).unwrap(), r#""a\"b\\c$$d""#);
        assert_eq!(quoted("PATH=/a$b").unwrap(), r#""PATH=/a$b""#);
        assert!(quoted("a\nExecStartPre=/bin/evil").is_err());
    }
}
