//! The text of an `sshd_config`: where our lines can go, and how they come out again.
//!
//! sshd takes the first value of each setting, and everything after a `Match` line is conditional up to the end of the
//! file. So our lines stand at the very top, or in a file that is included before any `Match`.

use crate::wildcard::wild;
use std::path::{Path, PathBuf};

/// The lines around our block in a file that is not ours.
const BEGIN: &str = "# BEGIN epithet host setup (remove with: epithet host setup --undo --apply)";
const END: &str = "# END epithet host setup";
/// The first line of a file that is ours.
const OURS: &str = "# Written by epithet host setup; remove with: epithet host setup --undo --apply";
/// Early, so that it comes before other files of the folder.
const DROP_IN: &str = "10-epithet.conf";
/// Where relative includes start.
const SYSTEM_FOLDER: &str = "/etc/ssh";

/// The drop-in file's path, when this configuration includes such a file for every connection.
pub(super) fn drop_in(text: &str, folder: &Path) -> Option<PathBuf> {
    let path = folder.join("sshd_config.d").join(DROP_IN);
    let settings = text.lines().map(words).filter(|words| !words.is_empty());
    let before_any_match = settings.take_while(|words| !words[0].eq_ignore_ascii_case("match"));
    let mut patterns = before_any_match
        .filter(|words| words[0].eq_ignore_ascii_case("include"))
        .flat_map(|words| words.into_iter().skip(1));
    patterns.any(|pattern| covers(&pattern, &path)).then_some(path)
}

/// The values that `Match` blocks of this file give a keyword: they win over ours for the logins that they are about.
pub(super) fn in_match_blocks(text: &str, keyword: &str) -> Vec<String> {
    let lines = text.lines().map(words).filter(|words| words.len() > 1);
    let conditional = lines.skip_while(|words| !words[0].eq_ignore_ascii_case("match"));
    let values = conditional.filter(|words| words[0].eq_ignore_ascii_case(keyword));
    values.map(|words| words[1].clone()).collect()
}

/// The words of a line, without quotes; comments are none.
fn words(line: &str) -> Vec<String> {
    let line = line.trim();
    if line.starts_with('#') {
        return Vec::new();
    }
    line.split([' ', '\t', '='])
        .filter(|word| !word.is_empty())
        .take_while(|word| !word.starts_with('#'))
        .map(|word| word.trim_matches('"').to_owned())
        .collect()
}

/// Whether an `Include` pattern covers a file. Wildcards count in the last part only, where everybody has them.
fn covers(pattern: &str, path: &Path) -> bool {
    let pattern = Path::new(SYSTEM_FOLDER).join(pattern);
    let name = |path: &Path| path.file_name().map(|name| name.as_encoded_bytes().to_vec());
    match (name(&pattern), name(path)) {
        (Some(last), Some(name)) => pattern.parent() == path.parent() && wild(&last, &name),
        _ => false,
    }
}

/// A file of ours with these settings.
pub(super) fn our_file(settings: &str) -> String {
    format!("{OURS}\n{settings}")
}

/// Whether a file is one of ours.
pub(super) fn is_ours(text: &str) -> bool {
    text.lines().next() == Some(OURS)
}

/// The file with these settings in our block at its top, instead of the block that was there.
pub(super) fn with_block(text: &str, settings: &str) -> String {
    format!("{BEGIN}\n{settings}{END}\n{}", without_block(text))
}

/// The file without our block.
pub(super) fn without_block(text: &str) -> String {
    let mut inside = false;
    let lines = text.split_inclusive('\n').filter(|line| {
        let line = line.trim_end();
        if line == BEGIN {
            inside = true;
        }
        let is_kept = !inside;
        if line == END {
            inside = false;
        }
        is_kept
    });
    let kept: String = lines.collect();
    // A block that never ends is not one we wrote: better to leave it all than to lose what follows.
    if inside { text.to_owned() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_in_is_used_where_it_is_included_for_every_connection() {
        let folder = Path::new("/etc/ssh");
        for good in [
            "Include /etc/ssh/sshd_config.d/*.conf\n",
            "# comment\n\n  include \"/etc/ssh/sshd_config.d/*.conf\"\nMatch all\n",
            "Include sshd_config.d/*\n",
            "Include=/etc/other/*.conf /etc/ssh/sshd_config.d/10-*.conf # ours\n",
            "UsePAM yes\nInclude /etc/ssh/sshd_config.d/??-epithet.conf\n",
        ] {
            let path = drop_in(good, folder);
            assert_eq!(
                path.as_deref(),
                Some(Path::new("/etc/ssh/sshd_config.d/10-epithet.conf")),
                "{good}"
            );
        }
        for bad in [
            "",
            "#Include /etc/ssh/sshd_config.d/*.conf\n",
            "Match user x\nInclude /etc/ssh/sshd_config.d/*.conf\n",
            "Include /etc/ssh/sshd_config.d/*.cfg\n",
            "Include /etc/ssh/sshd_config.d/20-*.conf\n",
            "Include /usr/etc/ssh/sshd_config.d/*.conf\n",
        ] {
            assert_eq!(drop_in(bad, folder), None, "{bad}");
        }
        assert_eq!(drop_in("Include sshd_config.d/*\n", Path::new("/tmp/x")), None);
    }

    #[test]
    fn values_of_match_blocks_are_found() {
        let text = "TrustedUserCAKeys /a\nMatch User x\n  trustedusercakeys \"/b\" # theirs\nMatch all\nTrustedUserCAKeys=none\n";
        assert_eq!(in_match_blocks(text, "TrustedUserCAKeys"), ["/b", "none"]);
        assert!(in_match_blocks("TrustedUserCAKeys /a\n", "TrustedUserCAKeys").is_empty());
    }

    #[test]
    fn a_block_goes_in_once_at_the_top_and_out_without_a_trace() {
        let text = "Port 22\nMatch user x\n  PermitTTY no";
        let once = with_block(text, "TrustedUserCAKeys /a\n");
        assert!(once.starts_with(BEGIN));
        let twice = with_block(&once, "TrustedUserCAKeys /b\n");
        assert_eq!(twice.matches("TrustedUserCAKeys").count(), 1);
        assert!(twice.contains("/b"));
        assert_eq!(without_block(&twice), text);
        assert_eq!(without_block(text), text);
        let unended = format!("{BEGIN}\nPort 22\n");
        assert_eq!(without_block(&unended), unended);
    }
}
