//! The file of `TrustedUserCAKeys`, as sshd reads it, and our lines in it.
//!
//! sshd looks for the CA's key from the top and stops at the first line that is no key (`sshkey_in_file` in
//! OpenSSH's `authfile.c`): whatever stands below is not trusted, and nobody is told.

use epithet_ssh::{CaPublicKey, fingerprint};
use epithet_wire::display::sanitize_line;

/// What the comment of a line of ours begins with; the CA's address follows.
const MARK: &str = "epithet ";

/// The keys that sshd finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trusted {
    /// Their fingerprints, in order.
    pub(super) fingerprints: Vec<String>,
    /// The line at which sshd stops because it is no key: its number, from 1.
    pub(super) stops_at: Option<usize>,
}

impl Trusted {
    /// Reads a file as sshd does.
    pub(super) fn read(text: &str) -> Self {
        let mut trusted = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start_matches([' ', '\t']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match blob(line) {
                Some(blob) => trusted.fingerprints.push(fingerprint(&blob)),
                None => {
                    trusted.stops_at = Some(number);
                    break;
                }
            }
        }
        trusted
    }

    /// Whether a key is among those that sshd finds.
    pub(super) fn has(&self, key: &CaPublicKey) -> bool {
        self.fingerprints.contains(&key.fingerprint())
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

/// The file with exactly these keys of this CA: other lines stay, also those of other CAs.
pub(super) fn with_keys(text: &str, source: &str, keys: &[CaPublicKey]) -> String {
    let mark = format!("{MARK}{}", sanitize_line(source, 200));
    let is_kept = |line: &&str| !line.trim_end().ends_with(&mark);
    let mut file: String = text
        .lines()
        .filter(is_kept)
        .map(|line| format!("{line}\n"))
        .collect();
    for key in keys {
        // Somebody wrote it there by hand, and it stays theirs.
        if !file.lines().any(|line| line.contains(body(&key.line()))) {
            file.push_str(&format!("{} {mark}\n", key.line()));
        }
    }
    file
}

/// The file without any line of ours.
pub(super) fn without_keys(text: &str) -> String {
    let is_ours = |line: &str| {
        let comment = line.trim_end().splitn(3, ' ').nth(2).unwrap_or_default();
        comment.starts_with(MARK)
    };
    let kept = text.lines().filter(|line| !is_ours(line));
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

    #[test]
    fn the_keys_of_a_ca_are_replaced_and_those_of_others_stay() {
        let other = format!("{TWO} somebody else's\n");
        let once = with_keys(&other, "https://ca/", &[key(ONE)]);
        assert_eq!(once, format!("{other}{ONE} epithet https://ca/\n"));
        assert_eq!(
            with_keys(&once, "https://ca/", &[key(ONE)]),
            once,
            "a second run changes nothing"
        );
        assert_eq!(
            with_keys(&once, "https://ca/", &[key(TWO)]),
            other,
            "a key that is there stays as it is"
        );
        let both = with_keys(
            &with_keys("", "https://ca/", &[key(ONE)]),
            "https://ca2/",
            &[key(TWO)],
        );
        assert_eq!(both.lines().count(), 2);
        assert_eq!(without_keys(&both), "");
        assert_eq!(without_keys(&once), other);
    }
}
