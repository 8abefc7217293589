//! The file of `TrustedUserCAKeys`, as sshd reads it, and our lines in it.
//!
//! sshd looks for the CA's key from the top and stops at the first line that is no key (`sshkey_in_file` in
//! OpenSSH's `authfile.c`): whatever stands below is not trusted, and nobody is told.

use super::published::Published;
use epithet_ssh::{CaPublicKey, fingerprint};
use epithet_wire::display::sanitize_line;
use std::path::Path;

/// What the comment of a line of ours begins with; the CA's address follows.
const MARK: &str = "epithet ";
/// How much of a line's comment is shown to a person.
const COMMENT_SHOWN: usize = 200;

/// A key that sshd finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TrustedKey {
    pub(crate) fingerprint: String,
    /// What stands behind the key in its line.
    comment: String,
}

impl TrustedKey {
    /// The CA's address or the file, when `epithet host setup` wrote this line.
    pub(crate) fn source(&self) -> Option<&str> {
        self.comment.strip_prefix(MARK)
    }

    /// For a person: the fingerprint, and what its line says of it.
    pub(crate) fn shown(&self) -> String {
        match sanitize_line(&self.comment, COMMENT_SHOWN) {
            comment if comment.is_empty() => self.fingerprint.clone(),
            comment => format!("{} ({comment})", self.fingerprint),
        }
    }
}

/// The keys that sshd finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Trusted {
    /// In order.
    pub(crate) keys: Vec<TrustedKey>,
    /// The line at which sshd stops because it is no key: its number, from 1.
    pub(crate) stops_at: Option<usize>,
}

impl Trusted {
    /// Reads a file as sshd does.
    pub(crate) fn read(text: &str) -> Self {
        let mut trusted = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start_matches([' ', '\t']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match blob(line) {
                Some(blob) => trusted.keys.push(TrustedKey {
                    fingerprint: fingerprint(&blob),
                    comment: comment(line).to_owned(),
                }),
                None => {
                    trusted.stops_at = Some(number);
                    break;
                }
            }
        }
        trusted
    }

    /// Whether a key is among those that sshd finds.
    pub(crate) fn has(&self, key: &CaPublicKey) -> bool {
        let fingerprint = key.fingerprint();
        self.keys.iter().any(|trusted| trusted.fingerprint == fingerprint)
    }

    /// Their fingerprints, in order.
    pub(super) fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(|key| key.fingerprint.clone()).collect()
    }
}

/// Whether any line is this key, also one below the line at which sshd stops.
pub(super) fn mentions(text: &str, key: &CaPublicKey) -> bool {
    text.lines().any(|line| line.contains(body(&key.line())))
}

/// The base64 of a key's line.
fn body(line: &str) -> &str {
    line.split(' ').nth(1).unwrap_or_default()
}

/// The key's bytes, whatever its type, when a line is `algorithm base64 [comment]` and both name the same algorithm.
fn blob(line: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let (algorithm, text) = (words.next()?, words.next()?);
    let blob = STANDARD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text))
        .ok()?;
    let inside = epithet_ssh::encoding::Reader::new(&blob).text().ok()?;
    (inside == algorithm).then_some(blob)
}

/// What stands behind a key in its line.
fn comment(line: &str) -> &str {
    let mut rest = line.trim();
    for _ in 0..2 {
        rest = rest
            .split_once([' ', '\t'])
            .map_or("", |(_, rest)| rest.trim_start());
    }
    rest
}

/// Whether a line that is no comment has this key, also one below the line at which sshd stops.
fn is_of(line: &str, key: &CaPublicKey) -> bool {
    !line.trim_start().starts_with('#') && line.contains(body(&key.line()))
}

/// The file with exactly these keys of this CA: other lines stay, also those of other CAs. A line of ours with one of these
/// keys becomes this CA's, from wherever it came, so that it goes when this CA publishes the key no more. Of a source that
/// does not tell one CA from another nothing is taken out.
pub(super) fn with_keys(text: &str, ca: &Published) -> String {
    let mark = format!("{MARK}{}", sanitize_line(&ca.source, usize::MAX));
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let key = ca.keys.iter().find(|key| is_of(line, key));
        match key {
            _ if !ca.names_one_ca => lines.push(line.to_owned()),
            Some(key) if comment(line).starts_with(MARK) => {
                let marked = format!("{} {mark}", key.line());
                if !lines.contains(&marked) {
                    lines.push(marked);
                }
            }
            None if comment(line) == mark => {}
            // Somebody wrote it there by hand, and it stays theirs.
            _ => lines.push(line.to_owned()),
        }
    }
    for key in &ca.keys {
        if !lines.iter().any(|line| is_of(line, key)) {
            lines.push(format!("{} {mark}", key.line()));
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What a person should know about a file that is about to become `after`: which keys it no longer has, and which it has that
/// this CA does not publish.
pub(super) fn notes(file: &Path, before: &str, after: &str, ca: &Published) -> Vec<String> {
    let (before, after) = (Trusted::read(before), Trusted::read(after));
    let (file, source) = (file.display(), sanitize_line(&ca.source, COMMENT_SHOWN));
    let is_there = |key: &TrustedKey| after.keys.iter().any(|left| left.fingerprint == key.fingerprint);
    let is_published = |key: &TrustedKey| ca.keys.iter().any(|known| known.fingerprint() == key.fingerprint);
    let gone = before.keys.iter().filter(|key| !is_there(key)).map(|key| {
        format!(
            "{} comes out of {file}: {source} does not publish it any more",
            key.fingerprint
        )
    });
    let others = after.keys.iter().filter(|key| !is_published(key)).map(|key| {
        format!(
            "{file} also trusts {}, which {source} does not publish; if it was this CA's, take it out",
            key.shown()
        )
    });
    gone.chain(others).collect()
}

/// The file without any line of ours.
pub(super) fn without_keys(text: &str) -> String {
    let kept = text.lines().filter(|line| !comment(line).starts_with(MARK));
    kept.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF4hNlLBwoQfA6x0nIfhWyqdmwTXgIEzOeVY+BK4SYQn";

    fn key(line: &str) -> CaPublicKey {
        CaPublicKey::parse(line).unwrap()
    }

    #[test]
    fn reading_stops_where_sshd_stops() {
        let trusted = Trusted::read(&format!("# ours\n\n  {ONE} comment\n"));
        assert!(trusted.has(&key(ONE)));
        assert_eq!(trusted.stops_at, None);
        for bad in [
            "hello world",
            &format!("cert-authority {ONE}"),
            "ssh-ed25519 AAAA",
            "ssh-ed25519",
        ] {
            let text = format!("{TWO}\n{bad}\n{ONE}\n");
            let trusted = Trusted::read(&text);
            assert_eq!(trusted.stops_at, Some(2), "{bad}");
            assert!(trusted.has(&key(TWO)) && !trusted.has(&key(ONE)), "{bad}");
            assert!(mentions(&text, &key(ONE)));
        }
    }

    fn ca(source: &str, keys: &[&str]) -> Published {
        Published {
            source: source.into(),
            names_one_ca: source != "standard input",
            keys: keys.iter().map(|line| key(line)).collect(),
            ahead: None,
        }
    }

    #[test]
    fn the_keys_of_a_ca_are_replaced_and_those_of_others_stay() {
        let other = format!("{TWO} somebody else's\n");
        let once = with_keys(&other, &ca("https://ca/", &[ONE]));
        assert_eq!(once, format!("{other}{ONE} epithet https://ca/\n"));
        assert_eq!(
            with_keys(&once, &ca("https://ca/", &[ONE])),
            once,
            "a second run changes nothing"
        );
        assert_eq!(
            with_keys(&once, &ca("https://ca/", &[TWO])),
            other,
            "a key that is there stays as it is"
        );
        let both = with_keys(
            &with_keys("", &ca("https://ca/", &[ONE])),
            &ca("https://ca2/", &[TWO]),
        );
        assert_eq!(both.lines().count(), 2);
        assert_eq!(without_keys(&both), "");
        assert_eq!(without_keys(&once), other);
        let commented = format!("# {ONE}\n");
        assert_eq!(
            with_keys(&commented, &ca("https://ca/", &[ONE])),
            format!("{commented}{ONE} epithet https://ca/\n"),
            "a comment is no key"
        );
    }

    #[test]
    fn a_line_of_ours_becomes_the_source_s_that_publishes_its_key() {
        let by_file = with_keys("", &ca("/root/ca.pub", &[ONE]));
        let by_url = with_keys(&by_file, &ca("https://ca/", &[ONE]));
        assert_eq!(by_url, format!("{ONE} epithet https://ca/\n"));
        assert_eq!(
            with_keys(&by_url, &ca("https://ca/", &[TWO])),
            format!("{TWO} epithet https://ca/\n")
        );
    }

    #[test]
    fn what_came_by_standard_input_takes_nothing_away() {
        let one = with_keys("", &ca("standard input", &[ONE]));
        let both = with_keys(&one, &ca("standard input", &[TWO]));
        assert_eq!(
            both,
            format!("{ONE} epithet standard input\n{TWO} epithet standard input\n")
        );
        assert_eq!(with_keys(&both, &ca("standard input", &[ONE])), both);
    }

    #[test]
    fn whatever_else_is_trusted_is_noted() {
        let file = Path::new("/etc/ssh/ca.pub");
        let by_hand = format!("{TWO} somebody's\n");
        let publishes = ca("https://ca/", &[ONE]);
        let said = notes(file, &by_hand, &with_keys(&by_hand, &publishes), &publishes);
        let (one, two) = (key(ONE).fingerprint(), key(TWO).fingerprint());
        assert_eq!(
            said,
            [format!(
                "/etc/ssh/ca.pub also trusts {two} (somebody's), which https://ca/ does not publish; if it was this CA's, take it out"
            )]
        );
        let before = with_keys("", &publishes);
        let publishes = ca("https://ca/", &[TWO]);
        let said = notes(file, &before, &with_keys(&before, &publishes), &publishes);
        assert_eq!(
            said,
            [format!(
                "{one} comes out of /etc/ssh/ca.pub: https://ca/ does not publish it any more"
            )]
        );
    }
}
