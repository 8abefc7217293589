//! What sshd wants of a certificate's login, one rule a function, in the order in which they are worth mending.

use super::account::{Account, Dates, Shadow};
use super::principals::{self, Problem};
use super::published::{Published, algorithm};
use super::settings::Settings;
use super::trusted::{self, Trusted};
use crate::wildcard::wild;
use epithet_ssh::CaPublicKey;
use epithet_wire::display::sanitize_line;
use epithet_wire::limits::{CERTIFICATE_BACKDATE, CERTIFICATE_TTL};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The algorithm of the certificates that the broker asks for.
const CERTIFICATE_ALGORITHM: &str = "ssh-ed25519-cert-v01@openssh.com";
/// Clocks that are further apart than this deserve a word.
const CLOCK_WORTH_A_WORD: i64 = 30;
/// Shells that let nobody in.
const SHELLS_THAT_REFUSE: [&str; 4] = [
    "/usr/sbin/nologin",
    "/sbin/nologin",
    "/bin/false",
    "/usr/bin/false",
];
/// While one of these is there, only root logs in: sshd looks for the first, PAM for both (`pam_nologin`).
const NO_LOGIN: [&str; 2] = ["/etc/nologin", "/run/nologin"];

/// Why no certificate would be accepted, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    /// The rule's name: the setting, where it is about one.
    pub(super) rule: &'static str,
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Reason {
    pub(super) fn new(rule: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            rule,
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// What the rules say: nothing, or the reason.
pub(super) type Verdict = Result<(), Reason>;

/// Keys have to be a way to log in, and enough of one.
pub(super) fn authentication(settings: &Settings, notes: &mut Vec<String>) -> Verdict {
    if settings.is("pubkeyauthentication", "no") {
        let remedy = "set `PubkeyAuthentication yes` in sshd_config";
        return Err(Reason::new(
            "PubkeyAuthentication",
            "PubkeyAuthentication is no",
            remedy,
        ));
    }
    let methods = settings.words("authenticationmethods");
    let begins_with_a_key = |list: &&str| list.split(',').next() == Some("publickey");
    if methods.is_empty() || methods.contains(&"any") || methods.contains(&"publickey") {
        return Ok(());
    }
    if methods.iter().any(begins_with_a_key) {
        notes.push(format!(
            "AuthenticationMethods {} asks for more than the certificate",
            methods.join(" ")
        ));
        return Ok(());
    }
    Err(Reason::new(
        "AuthenticationMethods",
        format!(
            "AuthenticationMethods {} does not begin with publickey",
            methods.join(" ")
        ),
        "add a list with publickey alone to AuthenticationMethods",
    ))
}

/// There is a file of trusted CAs, and sshd finds the CA's key in it. Returns what sshd finds.
pub(super) fn trusted(
    settings: &Settings,
    ca: Option<&Published>,
    notes: &mut Vec<String>,
) -> Result<Trusted, Reason> {
    const RULE: &str = "TrustedUserCAKeys";
    let setup = ca.map_or(
        "epithet host setup --ca-url URL --apply".to_owned(),
        setup_command,
    );
    let Some(file) = settings.path("trustedusercakeys") else {
        let message = "sshd_config has no TrustedUserCAKeys";
        return Err(Reason::new(
            RULE,
            message,
            format!("{setup}; if that was done, look for a `Match` or an earlier line that says otherwise"),
        ));
    };
    let shown = file.display();
    let text = std::fs::read(&file).map_err(|error| {
        Reason::new(
            RULE,
            format!("TrustedUserCAKeys names {shown}, which cannot be read: {error}"),
            setup.clone(),
        )
    })?;
    let text = String::from_utf8_lossy(&text);
    let trusted = Trusted::read(&text);
    if let Ok(metadata) = std::fs::metadata(&file)
        && (metadata.mode() & 0o022 != 0 || metadata.uid() != 0)
    {
        notes.push(format!("{shown} can be changed by others than root, who can so log in as anybody: chown root {shown}; chmod 644 {shown}"));
    }
    let garbage = |line: usize| {
        Reason::new(
            RULE,
            format!("line {line} of {shown} is not a public key, and sshd reads no further"),
            format!("take line {line} out; a line is a key as in a .pub file, without options in front"),
        )
    };
    match ca {
        None if trusted.keys.is_empty() => Err(trusted.stops_at.map_or_else(
            || Reason::new(RULE, format!("{shown} has no key in it"), setup),
            garbage,
        )),
        None => Ok(trusted),
        // During a change of keys all of them are published, and any may be the one that signs.
        Some(ca) => match ca.keys.iter().find(|key| !trusted.has(key)) {
            None => Ok(trusted),
            Some(key) => match trusted.stops_at {
                Some(line) if trusted::mentions(&text, key) => Err(garbage(line)),
                _ => Err(Reason::new(
                    RULE,
                    format!(
                        "{shown} does not have the CA's key {}; it has {}",
                        key.fingerprint(),
                        or_none(&trusted.fingerprints().join(", "))
                    ),
                    setup,
                )),
            },
        },
    }
}

fn setup_command(ca: &Published) -> String {
    if ca.source.contains("://") {
        format!("epithet host setup --ca-url {} --apply", ca.source)
    } else {
        format!("epithet host setup --ca-pubkey {} --apply", ca.source)
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// Nobody revoked the CA's key, and the file of revoked keys can be read: otherwise sshd refuses every key.
pub(super) fn revoked(settings: &Settings, keys: &[CaPublicKey]) -> Verdict {
    const RULE: &str = "RevokedKeys";
    let Some(file) = settings.path("revokedkeys") else {
        return Ok(());
    };
    let shown = file.display();
    let content = std::fs::read(&file).map_err(|error| {
        Reason::new(
            RULE,
            format!("RevokedKeys names {shown}, which cannot be read ({error}): sshd refuses every key"),
            format!("make {shown} (it may be empty), or take RevokedKeys out"),
        )
    })?;
    for key in keys {
        let is_revoked = if content.starts_with(b"SSHKRL\n\0") {
            is_in_revocation_list(&file, key)
        } else {
            let listed = Trusted::read(&String::from_utf8_lossy(&content));
            if let Some(line) = listed.stops_at {
                return Err(Reason::new(
                    RULE,
                    format!("line {line} of {shown} is not a public key: sshd refuses every key"),
                    format!("take line {line} of {shown} out"),
                ));
            }
            listed.has(key)
        };
        if is_revoked {
            return Err(Reason::new(
                RULE,
                format!("{shown} revokes the CA's key {}", key.fingerprint()),
                "if that was meant, the CA needs another key; otherwise take it out",
            ));
        }
    }
    Ok(())
}

/// Asks ssh-keygen about a binary list.
fn is_in_revocation_list(file: &Path, key: &CaPublicKey) -> bool {
    let Ok(public) = tempfile::NamedTempFile::new() else {
        return false;
    };
    if std::fs::write(public.path(), key.line()).is_err() {
        return false;
    }
    let output = Command::new("ssh-keygen")
        .args(["-Q", "-f"])
        .arg(file)
        .arg(public.path())
        .stdin(Stdio::null())
        .output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(": REVOKED"))
}

/// The CA may sign the way it does, and certificates of the broker's kind may be used.
pub(super) fn algorithms(settings: &Settings, keys: &[CaPublicKey]) -> Verdict {
    if let Some(allowed) = settings.list("casignaturealgorithms") {
        for key in keys {
            let signs_with = match algorithm(key).as_str() {
                // SHA-1 is not used.
                "ssh-rsa" => "rsa-sha2-512".to_owned(),
                other => other.to_owned(),
            };
            if !allowed.contains(&signs_with.as_str()) {
                return Err(Reason::new(
                    "CASignatureAlgorithms",
                    format!("the CA signs with {signs_with}, which CASignatureAlgorithms does not have"),
                    format!("`CASignatureAlgorithms +{signs_with}` in sshd_config"),
                ));
            }
        }
    }
    // Its name before OpenSSH 8.5 was another.
    let accepted = settings
        .list("pubkeyacceptedalgorithms")
        .or_else(|| settings.list("pubkeyacceptedkeytypes"));
    if accepted.is_some_and(|accepted| !accepted.contains(&CERTIFICATE_ALGORITHM)) {
        return Err(Reason::new(
            "PubkeyAcceptedAlgorithms",
            format!("PubkeyAcceptedAlgorithms does not have {CERTIFICATE_ALGORITHM}"),
            format!("`PubkeyAcceptedAlgorithms +{CERTIFICATE_ALGORITHM}` in sshd_config"),
        ));
    }
    Ok(())
}

/// Certificates that live for minutes need clocks that agree. `ahead` is how far this host's is ahead of the CA's, in seconds.
pub(super) fn clock(ahead: i64, notes: &mut Vec<String>) -> Verdict {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let remedy = "set this host's clock (chrony or systemd-timesyncd keep it right)";
    if ahead < -seconds(CERTIFICATE_BACKDATE) {
        let message = format!(
            "this host's clock is {} s behind the CA's: certificates are not yet valid here",
            -ahead
        );
        return Err(Reason::new("clock", message, remedy));
    }
    if ahead >= seconds(CERTIFICATE_TTL) {
        let message =
            format!("this host's clock is {ahead} s ahead of the CA's: certificates have expired here");
        return Err(Reason::new("clock", message, remedy));
    }
    if ahead.abs() > CLOCK_WORTH_A_WORD {
        notes.push(format!(
            "this host's clock and the CA's differ by {} s: {remedy}",
            ahead.abs()
        ));
    }
    Ok(())
}

/// sshd lets this account in at all.
pub(super) fn account(
    settings: &Settings,
    account: &Account,
    from: IpAddr,
    today: i64,
    notes: &mut Vec<String>,
) -> Verdict {
    listed(settings, account, from)?;
    let is_pam = settings.is("usepam", "yes");
    if account.uid == 0 {
        root(settings)?;
    } else {
        no_login(&NO_LOGIN[..if is_pam { 2 } else { 1 }])?;
    }
    match &account.shadow {
        Some(shadow) => open(shadow, &account.name, is_pam, today)?,
        None if !rustix::process::geteuid().is_root() => notes.push(format!(
            "whether the account {} is locked or has ended only root can see",
            account.name
        )),
        None => {}
    }
    shell(settings, account)
}

/// No file keeps everybody out.
fn no_login(files: &[&str]) -> Verdict {
    let Some(file) = files.iter().find(|file| Path::new(file).exists()) else {
        return Ok(());
    };
    Err(Reason::new(
        "nologin",
        format!("{file} is there: until it is gone, only root logs in"),
        format!("rm {file}, unless this host is about to stop or is being worked on"),
    ))
}

/// The account is not locked and has not ended.
fn open(shadow: &Shadow, name: &str, is_pam: bool, today: i64) -> Verdict {
    let refused = |message: String, remedy: String| Err(Reason::new("account", message, remedy));
    // PAM does not ask whether the password is locked when a key is shown.
    if shadow.is_locked && !is_pam {
        return refused(
            format!("the account {name} is locked (UsePAM is no, so sshd looks for `!` in its password)"),
            format!(
                "usermod -p '*' {name}, which leaves it without a password; or `UsePAM yes` in sshd_config"
            ),
        );
    }
    match shadow.dates(today, is_pam) {
        Dates::Good => Ok(()),
        Dates::Ended => refused(
            format!("the account {name} has ended"),
            format!("chage -E -1 {name}"),
        ),
        Dates::PasswordEnded => refused(
            format!("the password of {name} has ended, and PAM wants another before it lets anybody in"),
            format!("chage -d $(date +%F) -M -1 {name}"),
        ),
        Dates::Inactive => refused(
            format!("the account {name} has ended, since its password was not changed in time"),
            format!("chage -d $(date +%F) -M -1 -I -1 {name}"),
        ),
    }
}

/// The account's shell lets somebody in.
fn shell(settings: &Settings, account: &Account) -> Verdict {
    let name = &account.name;
    let shell = if account.shell.is_empty() {
        "/bin/sh"
    } else {
        &account.shell
    };
    let refused = |message: String| Err(Reason::new("account", message, format!("chsh -s /bin/sh {name}")));
    // The one command that sshd runs without the shell.
    let is_sftp_only = settings
        .get("forcecommand")
        .is_some_and(|command| command.split(' ').next() == Some("internal-sftp"));
    if SHELLS_THAT_REFUSE.contains(&shell) && !is_sftp_only {
        return refused(format!("the shell of {name} is {shell}, which lets nobody in"));
    }
    let is_program =
        std::fs::metadata(shell).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0);
    if !is_program && settings.get("chrootdirectory").is_none() {
        return refused(format!("the shell of {name}, {shell}, is not a program"));
    }
    Ok(())
}

fn root(settings: &Settings) -> Verdict {
    let message = match settings.get("permitrootlogin") {
        Some("no") => "PermitRootLogin is no",
        Some("forced-commands-only") => {
            "PermitRootLogin is forced-commands-only, and certificates have a forced command only where a rule orders one"
        }
        _ => return Ok(()),
    };
    Err(Reason::new(
        "PermitRootLogin",
        message,
        "`PermitRootLogin prohibit-password`, the default, lets certificates in and no passwords",
    ))
}

/// `DenyUsers`, `AllowUsers`, `DenyGroups` and `AllowGroups`, in sshd's order.
fn listed(settings: &Settings, account: &Account, from: IpAddr) -> Verdict {
    let is_user = |pattern: &&str| matches_user(pattern, &account.name, from);
    let is_group = |pattern: &&str| account.groups.iter().any(|group| matches_list(pattern, group));
    let list = |keyword: &'static str, has_to_match: bool, covers: &dyn Fn(&&str) -> bool| {
        let patterns = settings.words(&keyword.to_ascii_lowercase());
        let is_covered = patterns.iter().any(covers);
        if patterns.is_empty() || is_covered == has_to_match {
            return Ok(());
        }
        let verb = if is_covered { "covers" } else { "does not cover" };
        let patterns = sanitize_line(&patterns.join(" "), 200);
        let message = format!("{keyword} {patterns} {verb} {}", account.name);
        Err(Reason::new(
            keyword,
            message,
            format!("change {keyword} in sshd_config"),
        ))
    };
    list("DenyUsers", false, &is_user)?;
    list("AllowUsers", true, &is_user)?;
    list("DenyGroups", false, &is_group)?;
    list("AllowGroups", true, &is_group)
}

/// `user` or `user@address`, as `match_user` of OpenSSH.
fn matches_user(pattern: &str, user: &str, from: IpAddr) -> bool {
    match pattern.rsplit_once('@') {
        Some((name, address)) => wild(name.as_bytes(), user.as_bytes()) && matches_address(address, from),
        None => wild(pattern.as_bytes(), user.as_bytes()),
    }
}

/// A list with commas, in which `!` refuses.
fn matches_list(list: &str, text: &str) -> bool {
    any_but(list, |pattern| wild(pattern.as_bytes(), text.as_bytes()))
}

fn matches_address(list: &str, from: IpAddr) -> bool {
    let text = from.to_string();
    any_but(list, |pattern| match pattern.split_once('/') {
        Some((network, bits)) => match (network.parse(), bits.parse()) {
            (Ok(network), Ok(bits)) => is_within(from, network, bits),
            _ => false,
        },
        None => wild(pattern.as_bytes(), text.as_bytes()),
    })
}

fn any_but(list: &str, covers: impl Fn(&str) -> bool) -> bool {
    let mut found = false;
    for pattern in list.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if covers(pattern) => return false,
            Some(_) => {}
            None => found |= covers(pattern),
        }
    }
    found
}

fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (one, other, width) = match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u128::from(one.to_bits()), u128::from(other.to_bits()), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
        _ => return false,
    };
    bits <= width && (one ^ other).checked_shr(width - bits).unwrap_or(0) == 0
}

/// The certificate's principal, which is the user's name, is enough for sshd.
pub(super) fn principals(settings: &Settings, account: &Account, notes: &mut Vec<String>) -> Verdict {
    const RULE: &str = "AuthorizedPrincipalsFile";
    if let Some(command) = settings.get("authorizedprincipalscommand") {
        notes.push(format!(
            "AuthorizedPrincipalsCommand {} decides about principals; it was not run",
            sanitize_line(command, 200)
        ));
        return Ok(());
    }
    let Some(pattern) = settings.get("authorizedprincipalsfile") else {
        return Ok(());
    };
    let path = principals::path_for(pattern, account);
    let (shown, name) = (path.display(), &account.name);
    let is_strict = !settings.is("strictmodes", "no");
    let add = format!("echo {name} >> {shown}");
    principals::lets_in(&path, account, is_strict).map_err(|problem| match problem {
        Problem::Missing => Reason::new(
            RULE,
            format!("AuthorizedPrincipalsFile is {pattern}, and {shown} is not there"),
            add,
        ),
        Problem::NotListed(listed) => Reason::new(
            RULE,
            format!(
                "{shown} does not list {name}; it lists {}",
                or_none(&sanitize_line(&listed.join(", "), 200))
            ),
            add,
        ),
        Problem::Unsafe(part, why) => Reason::new(
            "StrictModes",
            format!(
                "sshd does not read {shown}: {} {why} (StrictModes)",
                part.display()
            ),
            format!("chown root {0}; chmod go-w {0}", part.display()),
        ),
        Problem::Unreadable(part) => Reason::new(
            RULE,
            format!(
                "sshd reads {shown} as {name}, who has no right to {}",
                part.display()
            ),
            format!("chmod a+rX {}", part.display()),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_by_what_a_certificate_allows_and_no_more() {
        let mut notes = Vec::new();
        for (ahead, is_fine) in [(-61, false), (-60, true), (0, true), (299, true), (300, false)] {
            assert_eq!(clock(ahead, &mut notes).is_ok(), is_fine, "{ahead}");
        }
        assert_eq!(notes.len(), 2, "{notes:?}");
    }

    #[test]
    fn a_file_can_keep_everybody_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nologin");
        let names = ["/nonexistent/nologin", file.to_str().unwrap()];
        assert_eq!(no_login(&names), Ok(()));
        std::fs::write(&file, "").unwrap();
        assert_eq!(no_login(&names[..1]), Ok(()));
        assert_eq!(no_login(&names).unwrap_err().rule, "nologin");
    }

    #[test]
    fn users_are_matched_as_sshd_matches_them() {
        let from: IpAddr = "192.0.2.7".parse().unwrap();
        for (pattern, is_match) in [
            ("bob", true),
            ("b*", true),
            ("?ob", true),
            ("*o*b*", true),
            ("alice", false),
            ("bo", false),
            ("bob@192.0.2.*", true),
            ("bob@192.0.2.0/24", true),
            ("bob@10.0.0.0/8,192.0.2.7", true),
            ("bob@*,!192.0.2.7", false),
            ("bob@2001:db8::/32", false),
            ("bob@0.0.0.0/0", true),
            ("bob@192.0.2.0/33", false),
        ] {
            assert_eq!(matches_user(pattern, "bob", from), is_match, "{pattern}");
        }
    }

    #[test]
    fn the_lists_of_users_and_groups_are_asked_in_order() {
        let account = Account {
            name: "bob".into(),
            groups: vec!["staff".into(), "ops".into()],
            ..Account::default()
        };
        let from = "192.0.2.7".parse().unwrap();
        let rule = |text: &str| listed(&Settings::parse(text), &account, from).map_err(|reason| reason.rule);
        assert_eq!(rule(""), Ok(()));
        assert_eq!(rule("denyusers bob\nallowusers bob"), Err("DenyUsers"));
        assert_eq!(rule("allowusers alice\nallowusers bob"), Ok(()));
        assert_eq!(rule("allowusers alice"), Err("AllowUsers"));
        assert_eq!(rule("denygroups o*"), Err("DenyGroups"));
        assert_eq!(rule("allowgroups wheel"), Err("AllowGroups"));
        assert_eq!(rule("allowgroups staff"), Ok(()));
    }

    #[test]
    fn methods_have_to_begin_with_a_key() {
        let mut notes = Vec::new();
        let mut rule =
            |text: &str| authentication(&Settings::parse(text), &mut notes).map_err(|reason| reason.rule);
        assert_eq!(rule("authenticationmethods any"), Ok(()));
        assert_eq!(rule("authenticationmethods password publickey"), Ok(()));
        assert_eq!(
            rule("authenticationmethods publickey,keyboard-interactive"),
            Ok(())
        );
        assert_eq!(
            rule("authenticationmethods password"),
            Err("AuthenticationMethods")
        );
        assert_eq!(rule("pubkeyauthentication no"), Err("PubkeyAuthentication"));
        assert_eq!(notes.len(), 1);
    }
}
