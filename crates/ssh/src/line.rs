//! The one-line form of keys and certificates: `algorithm base64 comment`, as in `authorized_keys` and `*.pub`.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::encoding::Reader;

/// The longest line that is looked at: a certificate of the largest size, in base64, with a comment.
pub(crate) const LINE_MAX: usize = 64 * 1024;
/// The longest comment.
const COMMENT_MAX: usize = 256;

/// Why a line is not a key or certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Larger than any key or certificate.
    #[error("is longer than {LINE_MAX} bytes")]
    TooLong,
    /// More than one line, or control characters.
    #[error("must be one line without control characters")]
    NotOneLine,
    /// The comment at the end is too long.
    #[error("has a comment of more than {COMMENT_MAX} bytes")]
    CommentTooLong,
    /// No base64 after the algorithm.
    #[error("must be `algorithm base64 [comment]`, as in a `.pub` file; options are not allowed")]
    Form,
    /// The algorithm outside and the one inside the base64 differ.
    #[error("says {outside:?} in front, but its base64 holds something else")]
    AlgorithmDiffers {
        /// What the line begins with.
        outside: String,
    },
}

/// Splits a line and decodes its base64. The blob begins with the same algorithm as the line.
pub(crate) fn parse(line: &str) -> Result<(&str, Vec<u8>), LineError> {
    if line.len() > LINE_MAX {
        return Err(LineError::TooLong);
    }
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(LineError::NotOneLine);
    }
    let line = line.trim_matches([' ', '\t']);
    if line.is_empty() {
        return Err(LineError::Empty);
    }
    let (algorithm, rest) = line.split_once([' ', '\t']).ok_or(LineError::Form)?;
    let rest = rest.trim_start_matches([' ', '\t']);
    let (text, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    if comment.len() > COMMENT_MAX {
        return Err(LineError::CommentTooLong);
    }
    let blob = STANDARD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text))
        .map_err(|_| LineError::Form)?;
    match Reader::new(&blob).text() {
        Ok(inside) if inside == algorithm => Ok((algorithm, blob)),
        _ => Err(LineError::AlgorithmDiffers {
            outside: algorithm.chars().take(64).collect(),
        }),
    }
}

/// `algorithm base64`, without comment or line end.
pub(crate) fn format(algorithm: &str, blob: &[u8]) -> String {
    let mut line = String::with_capacity(algorithm.len() + 1 + blob.len().div_ceil(3) * 4);
    line.push_str(algorithm);
    line.push(' ');
    STANDARD.encode_string(blob, &mut line);
    line
}

/// `SHA256:` and the unpadded base64 of the hash of a key or certificate, as `ssh-keygen -l` prints it.
pub fn fingerprint(blob: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, blob);
    format!("SHA256:{}", STANDARD_NO_PAD.encode(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4";

    #[test]
    fn a_line_may_have_a_comment_and_a_line_end_and_nothing_more() {
        for good in [
            KEY.to_string(),
            format!("{KEY}\n"),
            format!("{KEY} alice@laptop with blanks\r\n"),
        ] {
            let (algorithm, blob) = parse(&good).unwrap();
            assert_eq!(format(algorithm, &blob), KEY);
        }
        let options = format!("command=\"x\" {KEY}");
        let long_comment = format!("{KEY} {}", "c".repeat(257));
        let two = format!("{KEY}\n{KEY}");
        let other = KEY.replacen("ssh-ed25519", "ssh-rsa", 1);
        for (bad, error) in [
            ("", LineError::Empty),
            (" \n", LineError::Empty),
            ("ssh-ed25519", LineError::Form),
            ("ssh-ed25519 !!!", LineError::Form),
            (&options, LineError::Form),
            (&long_comment, LineError::CommentTooLong),
            (&two, LineError::NotOneLine),
            (
                &other,
                LineError::AlgorithmDiffers {
                    outside: "ssh-rsa".into(),
                },
            ),
            (&"x".repeat(LINE_MAX + 1), LineError::TooLong),
        ] {
            assert_eq!(parse(bad), Err(error), "{bad:.80}");
        }
    }

    #[test]
    fn the_fingerprint_is_the_one_that_ssh_keygen_prints() {
        let (_, blob) = parse(KEY).unwrap();
        assert_eq!(
            fingerprint(&blob),
            "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg"
        );
    }
}
