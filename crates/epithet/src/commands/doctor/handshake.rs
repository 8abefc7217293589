//! What `ssh -v` said about a login: the one line that tells, and what to do. Pure, so that each way to fail is a row of a
//! table. The words are OpenSSH's (sshconnect.c, sshconnect2.c, packet.c).

use super::check::Check;
use super::ssh::Trial;
use epithet_wire::display::sanitize_line;

/// What was shown to whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offered<'a> {
    /// As it was typed.
    pub(super) target: &'a str,
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) user: &'a str,
    /// The fingerprint of the CA that signed the certificate.
    pub(super) ca: &'a str,
    /// Where that CA is asked.
    pub(super) ca_url: &'a str,
    pub(super) key_id: &'a str,
}

/// Judges a trial.
pub(super) fn judge(trial: &Trial, offered: &Offered<'_>) -> Check {
    let said = Said::of(&trial.said);
    let authenticated = said.debug("Authenticated to ").is_some();
    match trial.code {
        Some(code) if code != 255 || authenticated => logged_in(&said, offered),
        None => {
            let words = format!(
                "{} does not come to an end of the handshake in time",
                offered.host
            );
            Check::broken("login", words, format!("ssh -vvv {}", offered.target))
        }
        Some(_) => refused(&said, offered),
    }
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

/// The words by which a line is known, and what it means.
type Row<'a> = (&'a [&'a str], &'a dyn Fn(&str) -> Check);

fn refused(said: &Said<'_>, offered: &Offered<'_>) -> Check {
    let Offered {
        host, port, target, ..
    } = *offered;
    let rows: [Row<'_>; 9] = [
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
            let name = known_hosts_name(host, port);
            Check::broken(
                "host key",
                format!(
                    "{host} has another host key than the one you know: it was set up anew, or it is not {host}"
                ),
                said.plain("ssh-keygen -f").map_or_else(
                    || format!("ssh-keygen -R '{name}'"),
                    |line| line.trim().to_owned(),
                ) + "    (only after asking whoever runs it)",
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
        (&["Too many authentication failures"], &|_| {
            Check::broken(
                "login",
                format!("{host} was shown too many other keys before the certificate"),
                format!("remove `IdentityFile` lines for {target}, or set `IdentityFile none`"),
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
    let last = said.last_plain().unwrap_or("it said nothing");
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

/// sshd refused whatever was shown to it. Was the certificate among that?
fn permission_denied(said: &Said<'_>, offered: &Offered<'_>) -> Check {
    let Offered { host, user, .. } = *offered;
    let shown = said
        .all_debug("Offering public key:")
        .any(|line| line.contains("-CERT"));
    if shown {
        return Check::broken(
            "login",
            format!(
                "sshd on {host} does not accept the certificate for {user} (key id {})",
                offered.key_id
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
        ca = offered.ca,
        ca_url = match offered.ca_url {
            "" => String::new(),
            url => format!(" --ca-url {url}"),
        },
        user = offered.user,
    )
}

/// How `known_hosts` names a host.
fn known_hosts_name(host: &str, port: u16) -> String {
    match port {
        22 => host.to_owned(),
        port => format!("[{host}]:{port}"),
    }
}

/// The reason at the end of `connect to address 10.0.0.1 port 22: Connection timed out`.
fn last_part(line: &str) -> String {
    sanitize_line(line.rsplit(": ").next().unwrap_or(line), 200)
}

/// ssh's lines, those for people and those for debugging apart.
struct Said<'a> {
    plain: Vec<&'a str>,
    debug: Vec<&'a str>,
}

impl<'a> Said<'a> {
    fn of(text: &'a str) -> Self {
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let (debug, plain) = lines.partition(|line| line.starts_with("debug"));
        Self { plain, debug }
    }

    fn plain(&self, word: &str) -> Option<&'a str> {
        self.plain.iter().copied().find(|line| line.contains(word))
    }

    fn last_plain(&self) -> Option<&'a str> {
        self.plain.last().copied()
    }

    fn all_debug(&self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.debug.iter().copied().filter(move |line| line.contains(word))
    }

    /// The last one counts: what came before did not do. Older versions say some of it to people.
    fn debug(&self, word: &'a str) -> Option<&'a str> {
        let plain = self.plain.iter().copied().filter(|line| line.contains(word));
        self.all_debug(word).chain(plain).last()
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    const OFFERED: Offered<'static> = Offered {
        target: "web",
        host: "web.example.com",
        port: 2222,
        user: "root",
        ca: "SHA256:ca",
        ca_url: "https://ca.example.com/",
        key_id: "alice req=1",
    };

    fn judged(code: Option<i32>, said: &str) -> Check {
        let trial = Trial {
            code,
            said: said.to_owned(),
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
                "ssh-keygen -f \"/h/known_hosts\" -R \"[web]:2222\"",
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
        // The remote command's own failure is none of the login's.
        assert_eq!(judged(Some(1), with).verdict, Verdict::Ok);
        let other = "debug1: Server accepts key: /h/id ED25519 SHA256:b\ndebug1: Authenticated to web using \"publickey\".";
        let check = judged(Some(0), other);
        assert_eq!(check.verdict, Verdict::Warning);
        assert!(check.said.contains("another key"), "{}", check.said);
    }
}
