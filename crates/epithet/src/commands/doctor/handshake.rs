//! What ssh's own log said about a login: the one line that tells, and what to do. Pure, so that each way to fail is a row
//! of a table. The words are OpenSSH's (sshconnect.c, sshconnect2.c, packet.c, channels.c).
//!
//! Nothing that a host said is ever part of what to do.

use super::check::Check;
use super::offered::Offered;
use super::said::Said;
use super::trial::Trial;
use epithet_wire::display::sanitize_line;

/// Judges a trial.
pub(super) fn judge(trial: &Trial, offered: &Offered<'_>) -> Check {
    let said = Said::of(&trial.log);
    let authenticated = said.debug("Authenticated to ").is_some();
    match trial.code {
        Some(255) if authenticated => ended_at_once(&said, offered),
        Some(255) => refused(&said, &trial.err, offered),
        Some(_) => logged_in(&said, offered),
        None => {
            let words = format!(
                "{} does not come to an end of the handshake in time",
                offered.host
            );
            Check::broken("login", words, format!("ssh -vvv {}", offered.target))
        }
    }
}

/// Judges a trial to go through a host to `next`; nothing to say when that can be done.
pub(super) fn judge_jump(trial: &Trial, offered: &Offered<'_>, next: &str) -> Option<Check> {
    let said = Said::of(&trial.log);
    let host = offered.target;
    if !trial.out.is_empty() {
        return None;
    }
    if said.debug("Authenticated to ").is_none() {
        return Some(match trial.code {
            None => judge(trial, offered),
            Some(_) => refused(&said, &trial.err, offered),
        });
    }
    if said.plain("administratively prohibited").is_some() {
        let told = format!("{host} lets you in, but not through it to {next}");
        return Some(match offered.certificate {
            Some(certificate) if !certificate.forwards => Check::broken(
                "policy",
                format!("{told}: the certificate has no permit-port-forwarding"),
                format!("ask whoever runs the policy server for permit-port-forwarding on {host}"),
            ),
            _ => Check::broken(
                "login",
                format!("{told}: its sshd does not allow it"),
                format!(
                    "on {host}, as root: sshd -T | grep -i -e allowtcpforwarding -e disableforwarding -e permitopen"
                ),
            ),
        });
    }
    if let Some(line) = said.plain("open failed: connect failed") {
        return Some(match line.contains("Connection refused") {
            true => Check::broken(
                "network",
                format!("nothing listens on {next}, as {host} sees it"),
                "start sshd there, or correct `Port` and `HostName` for it",
            ),
            false => Check::broken(
                "network",
                format!("{host} does not reach {next}: {}", last_part(line)),
                format!("check the name, the address and the firewall from {host}"),
            ),
        });
    }
    (trial.code != Some(0)).then(|| {
        Check::broken(
            "network",
            format!("{host} does not reach {next} in time"),
            format!("check the name, the address and the firewall from {host}"),
        )
    })
}

/// Whether it was the target itself that answered, whatever it said.
pub(super) fn was_reached(trial: &Trial) -> bool {
    Said::of(&trial.log).debug("Remote protocol version").is_some()
}

/// Whether somebody could still be let in who answers questions (a password, a code), which a trial does not do.
pub(super) fn asks_somebody(trial: &Trial) -> bool {
    let said = Said::of(&trial.log);
    said.plain("Permission denied (").is_some_and(|line| {
        ["password", "keyboard-interactive"]
            .iter()
            .any(|way| line.contains(way))
    })
}

/// ssh got in: with our certificate, or with something else?
fn logged_in(said: &Said<'_>, offered: &Offered<'_>) -> Check {
    let accepted = said.debug("Server accepts key:").unwrap_or_default();
    if accepted.contains("-CERT") {
        return Check::ok(
            "login",
            format!(
                "{} let you in as {} with the certificate",
                offered.host, offered.user
            ),
        );
    }
    Check::warning(
        "login",
        format!(
            "{} let you in as {}, but not with the certificate ({})",
            offered.host,
            offered.user,
            if accepted.is_empty() {
                "another way of logging in"
            } else {
                "another key"
            }
        ),
        on_the_host(offered),
    )
}

/// ssh got in, and nothing came of it.
fn ended_at_once(said: &Said<'_>, offered: &Offered<'_>) -> Check {
    let Offered {
        host, user, target, ..
    } = *offered;
    let why = said
        .disconnect
        .or_else(|| said.last_plain())
        .unwrap_or("it does not say why");
    Check::broken(
        "session",
        format!(
            "{host} lets you in as {user}, and then the session fails (status 255): {}",
            sanitize_line(why, 200)
        ),
        format!(
            "ssh -vvv {target} true    (and look at sshd's log on {host}: the shell, PAM, `ForceCommand`, `MaxSessions`)"
        ),
    )
}

/// The words by which a line is known, and what it means.
type Row<'a> = (&'a [&'a str], &'a dyn Fn(&str) -> Check);

fn refused(said: &Said<'_>, err: &str, offered: &Offered<'_>) -> Check {
    let Offered {
        host, port, target, ..
    } = *offered;
    let rows: [Row<'_>; 8] = [
        (&["Could not resolve hostname"], &|_| {
            Check::broken(
                "network",
                format!("the name {host} has no address"),
                format!(
                    "getent hosts {host}    (check the spelling, DNS, the VPN, or `HostName` in your ssh configuration)"
                ),
            )
        }),
        (&["Connection refused"], &|_| {
            Check::broken(
                "network",
                format!("nothing listens on port {port} of {host}"),
                format!("start sshd there, or correct `Port` for {target}"),
            )
        }),
        (
            &[
                "timed out",
                "No route to host",
                "Network is unreachable",
                "Host is down",
            ],
            &|line| {
                Check::broken(
                    "network",
                    format!("{host} port {port} cannot be reached: {}", last_part(line)),
                    "check the network, the VPN and the firewall",
                )
            },
        ),
        (&["REMOTE HOST IDENTIFICATION HAS CHANGED"], &|_| {
            Check::broken(
                "host key",
                format!(
                    "{host} has another host key than the one you know: it was set up anew, or it is not {host}"
                ),
                offered.known.forget(host, port) + "    (only after asking whoever runs it)",
            )
        }),
        (
            &["Host key verification failed", "host key is known for"],
            &|_| {
                Check::broken(
                    "host key",
                    format!("the host key of {host} is not known here yet"),
                    format!("ssh {target}    (compare the fingerprint that it shows, and accept it)"),
                )
            },
        ),
        (&["Unable to negotiate", "no matching"], &|line| {
            Check::broken(
                "handshake",
                sanitize_line(line, 300),
                format!("update sshd on {host}, or allow for {target} what it offers"),
            )
        }),
        (&["agent refused operation", "signing failed"], &|line| {
            Check::broken(
                "agent",
                format!("the broker's agent did not sign: {}", sanitize_line(line, 200)),
                "epithet trace last    (says why)",
            )
        }),
        (&["Permission denied"], &|_| permission_denied(said, offered)),
    ];
    for (words, check) in rows {
        if let Some(line) = words.iter().find_map(|word| said.plain(word)) {
            return check(line);
        }
    }
    if let Some(line) = said.disconnect {
        return disconnected(line, offered);
    }
    let last = said.last_plain().unwrap_or("it said nothing");
    if let Some(command) = offered.proxy_command
        && said.debug("Remote protocol version").is_none()
    {
        return proxy_failed(command, err, offered);
    }
    if last.contains("Connection closed by") || last.contains("Connection reset") {
        return Check::broken(
            "handshake",
            format!("{host} port {port} ends the connection before anybody can log in"),
            "wait a minute (sshd's MaxStartups and PerSourcePenalties, fail2ban), and check that it is sshd that listens there",
        );
    }
    Check::broken(
        "login",
        format!("ssh said: {}", sanitize_line(last, 300)),
        format!("ssh -vvv {target}"),
    )
}

/// The host said why it ends this, in its own words.
fn disconnected(line: &str, offered: &Offered<'_>) -> Check {
    let Offered { host, target, .. } = *offered;
    match line.contains("Too many authentication failures") {
        true => Check::broken(
            "login",
            format!("{host} was shown too many other keys before the certificate"),
            format!("remove `IdentityFile` lines for {target}, or set `IdentityFile none`"),
        ),
        false => Check::broken(
            "login",
            format!("{host} ends the connection: {}", sanitize_line(line, 300)),
            format!("ssh -vvv {target}"),
        ),
    }
}

/// The program between ssh and the host ended before a host said anything, so that what stands on stderr is its own.
fn proxy_failed(command: &str, err: &str, offered: &Offered<'_>) -> Check {
    let Offered { host, target, .. } = *offered;
    let last = err.lines().rev().find(|line| !line.trim().is_empty());
    let why = last.map_or_else(String::new, |line| format!(": {}", sanitize_line(line, 200)));
    Check::broken(
        "proxy",
        format!(
            "`ProxyCommand {}` ended before {host} said anything{why}",
            sanitize_line(command, 200)
        ),
        format!("run that command by itself, and correct `ProxyCommand` for {target}"),
    )
}

/// sshd refused whatever was shown to it. Was the certificate among that?
fn permission_denied(said: &Said<'_>, offered: &Offered<'_>) -> Check {
    let Offered { host, user, .. } = *offered;
    let Some(certificate) = offered.certificate else {
        return Check::broken(
            "login",
            format!("{host} does not let you in as {user}, and is none of the hosts that the broker handles"),
            format!("ssh -v {}", offered.target),
        );
    };
    let shown = said
        .all_debug("Offering public key:")
        .any(|line| line.contains("-CERT"));
    if shown {
        return Check::broken(
            "login",
            format!(
                "sshd on {host} does not accept the certificate for {user} (key id {})",
                certificate.key_id
            ),
            on_the_host(offered),
        );
    }
    Check::broken(
        "login",
        format!("ssh did not show the certificate to {host}"),
        format!(
            "ssh -v {} 2>&1 | grep -i -e offering -e skipping -e agent",
            offered.target
        ),
    )
}

/// What has to be so on a host for it to accept a certificate of ours.
fn on_the_host(offered: &Offered<'_>) -> String {
    format!(
        "on {host}, as root: epithet host check{ca_url} --user {user}    (says which of these is not so)\n\
         or look yourself, and at its log: journalctl -u ssh\n\
         ssh-keygen -lf \"$(sshd -T | awk '/^trustedusercakeys/ {{print $2}}')\"    shows {ca}\n\
         getent passwd {user}    shows the account, with a shell and not locked\n\
         sshd -T | grep authorizedprincipals    shows none, or files that list {user}",
        host = offered.host,
        ca = offered
            .certificate
            .map_or("the CA's fingerprint", |certificate| certificate.ca),
        ca_url = match offered.ca_url {
            "" => String::new(),
            url => format!(" --ca-url {url}"),
        },
        user = offered.user,
    )
}

/// The reason at the end of `connect to address 10.0.0.1 port 22: Connection timed out`.
fn last_part(line: &str) -> String {
    sanitize_line(line.rsplit(": ").next().unwrap_or(line), 200)
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::super::offered::{Known, Shown};
    use super::*;

    const OFFERED: Offered<'static> = Offered {
        target: "web",
        host: "web.example.com",
        port: 2222,
        user: "root",
        certificate: Some(Shown {
            ca: "SHA256:ca",
            key_id: "alice req=1",
            forwards: false,
        }),
        ca_url: "https://ca.example.com/",
        known: Known { files: "", alias: "" },
        proxy_command: None,
    };

    fn judged(code: Option<i32>, said: &str) -> Check {
        let trial = Trial {
            code,
            log: said.to_owned(),
            ..Trial::default()
        };
        judge(&trial, &OFFERED)
    }

    #[test]
    fn each_way_to_fail_is_one_reason_with_a_remedy() {
        let offering = "debug1: Offering public key: x ED25519-CERT SHA256:a agent\n";
        let denied = "root@web.example.com: Permission denied (publickey).";
        let with_offer = format!("{offering}{denied}");
        let cases = [
            (
                "ssh: Could not resolve hostname web: Name or service not known",
                "network",
                "getent hosts web.example.com",
            ),
            (
                "ssh: connect to host web port 2222: Connection refused",
                "network",
                "start sshd there",
            ),
            (
                "ssh: connect to host web port 2222: Connection timed out",
                "network",
                "VPN",
            ),
            (
                "ssh: connect to host web port 2222: No route to host",
                "network",
                "firewall",
            ),
            (
                "@  WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n  ssh-keygen -f \"/h/known_hosts\" -R \"[web]:2222\"\nHost key verification failed.",
                "host key",
                "ssh-keygen -R '[web.example.com]:2222'",
            ),
            (
                "@ REMOTE HOST IDENTIFICATION HAS CHANGED! @",
                "host key",
                "ssh-keygen -R '[web.example.com]:2222'",
            ),
            (
                "No ED25519 host key is known for web and you have requested strict checking.\nHost key verification failed.",
                "host key",
                "ssh web ",
            ),
            (
                "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found. Their offer: ssh-dss",
                "handshake",
                "update sshd",
            ),
            (
                "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
                "login",
                "IdentityFile",
            ),
            (
                "sign_and_send_pubkey: signing failed for ED25519-CERT \"x\" from agent: agent refused operation\nroot@web: Permission denied (publickey).",
                "agent",
                "epithet trace last",
            ),
            (&with_offer, "login", "SHA256:ca"),
            (
                &with_offer,
                "login",
                "epithet host check --ca-url https://ca.example.com/ --user root",
            ),
            (denied, "login", "grep -i"),
            (
                "kex_exchange_identification: Connection closed by remote host\nConnection closed by 10.0.0.1 port 2222",
                "handshake",
                "MaxStartups",
            ),
            ("something new", "login", "ssh -vvv web"),
            ("", "login", "ssh -vvv web"),
        ];
        for (said, name, remedy) in cases {
            let check = judged(Some(255), said);
            assert_eq!((check.name, check.verdict), (name, Verdict::Broken), "{said}");
            let found = check.remedy.unwrap_or_default();
            assert!(found.contains(remedy), "{said}: {found}");
        }
        assert_eq!(judged(None, "").verdict, Verdict::Broken);
    }

    #[test]
    fn what_is_only_debugging_is_no_reason() {
        let check = judged(
            Some(255),
            "debug1: connect to address ::1 port 22: Connection refused\nPermission denied (publickey).",
        );
        assert!(
            check.said.contains("did not show the certificate"),
            "{}",
            check.said
        );
    }

    #[test]
    fn getting_in_counts_whole_only_with_the_certificate() {
        let with = "debug1: Server accepts key: x ED25519 SHA256:b\ndebug1: Server accepts key: x ED25519-CERT SHA256:a agent\nAuthenticated to web ([10.0.0.1]:2222) using \"publickey\".";
        assert_eq!(judged(Some(0), with).verdict, Verdict::Ok);
        // What ssh itself ends with is no login.
        let check = judged(Some(255), with);
        assert_eq!((check.name, check.verdict), ("session", Verdict::Broken));
        // The remote command's own failure is none of the login's.
        assert_eq!(judged(Some(1), with).verdict, Verdict::Ok);
        let other = "debug1: Server accepts key: /h/id ED25519 SHA256:b\ndebug1: Authenticated to web using \"publickey\".";
        let check = judged(Some(0), other);
        assert_eq!(check.verdict, Verdict::Warning);
        assert!(check.said.contains("another key"), "{}", check.said);
    }

    #[test]
    fn what_a_host_says_at_its_end_is_only_that() {
        let check = judged(
            Some(255),
            "Received disconnect from 10.0.0.1 port 22:11: Connection refused\r\n@ REMOTE HOST IDENTIFICATION HAS CHANGED! @\r\n",
        );
        assert_eq!(check.name, "login");
        assert!(check.said.contains("ends the connection"), "{}", check.said);
        assert_eq!(check.remedy.as_deref(), Some("ssh -vvv web"));
    }

    #[test]
    fn a_host_key_is_forgotten_by_a_command_of_our_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it's known");
        std::fs::write(&file, "").unwrap();
        let files = file.display().to_string();
        let known = Known {
            files: &files,
            alias: "",
        };
        let quoted = files.replace('\'', r"'\''");
        assert_eq!(
            known.forget("web", 22),
            format!("ssh-keygen -f '{quoted}' -R 'web'")
        );
        let known = Known {
            files: "/nowhere/a /nowhere/b",
            alias: "$(x)",
        };
        assert_eq!(known.forget("web", 2222), "ssh-keygen -R '$(x)'");
    }

    #[test]
    fn a_jump_host_is_judged_by_whether_it_leads_on() {
        let jump = |out: &str, code, log: &str| {
            let trial = Trial {
                code,
                log: format!("Authenticated to web ([10.0.0.1]:22).\r\n{log}"),
                out: out.to_owned(),
                ..Trial::default()
            };
            judge_jump(&trial, &OFFERED, "[db]:22").map(|check| (check.name, check.said))
        };
        assert_eq!(jump("SSH-2.0-x", None, ""), None);
        assert_eq!(jump("", Some(0), ""), None);
        for (log, name, word) in [
            (
                "channel 0: open failed: administratively prohibited: open failed",
                "policy",
                "permit-port-forwarding",
            ),
            (
                "channel 0: open failed: connect failed: Connection refused",
                "network",
                "nothing listens on [db]:22",
            ),
            (
                "channel 0: open failed: connect failed: No route to host",
                "network",
                "No route to host",
            ),
            ("", "network", "in time"),
        ] {
            let (found, said) = jump("", Some(255), log).unwrap();
            assert_eq!(found, name, "{log}");
            assert!(said.contains(word), "{said}");
        }
    }
}
