//! The `Include` at the top of the person's ssh configuration, and the copy of the file as it was.

use super::replace::{is_writable, replace};
use super::{named, say};
use crate::ssh_config_file::{Standing, include_line, is_ours_alone, standing};
use anyhow::{Context, bail};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the copy's name ends with.
const COPY: &str = "before-epithet";

/// The file as it is and as it will be.
#[derive(Debug)]
pub(super) struct IncludeFile {
    path: PathBuf,
    include: String,
    before: Option<String>,
    after: Option<Edit>,
}

/// A change of the file.
#[derive(Debug, PartialEq, Eq)]
struct Edit {
    text: String,
    /// The line that moves to the top: its number, itself, and the line that took its effect.
    moved: Option<(usize, String, String)>,
}

impl IncludeFile {
    /// Looks at the file and refuses what cannot be changed safely.
    pub(super) fn plan(path: &Path) -> anyhow::Result<Self> {
        let include = include_line()?;
        // A pipe would keep whoever reads it waiting.
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            bail!(by_hand(path, "is not a file", &include));
        }
        let before = match std::fs::read(path) {
            Ok(bytes) => Some(
                String::from_utf8(bytes)
                    .ok()
                    .with_context(|| by_hand(path, "is not UTF-8", &include))?,
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => None,
            Err(error) => bail!(by_hand(path, &format!("cannot be read ({error})"), &include)),
        };
        let after = with_include(before.as_deref().unwrap_or(""), &include);
        if after.is_some() && !is_writable(path)? {
            bail!(by_hand(path, "is read-only", &include));
        }
        Ok(Self {
            path: path.to_owned(),
            include,
            before,
            after,
        })
    }

    /// Whether nothing is to be written.
    pub(super) fn is_there(&self) -> bool {
        self.after.is_none()
    }

    /// The change, for a person.
    pub(super) fn shown(&self) -> String {
        let name = named(&self.path);
        let Some(edit) = &self.after else {
            return format!("{name}  includes it already");
        };
        let new = if self.before.is_some() { "" } else { " (new)" };
        let mut shown = format!("{name}{new}\n  + {}", self.include);
        // One line below it, to see that it is the top.
        let first = self
            .before
            .as_deref()
            .and_then(|text| text.lines().find(|line| !line.trim().is_empty()));
        if let Some(first) = first {
            shown.push_str(&format!(
                "\n    {}",
                epithet_wire::display::sanitize_line(first, 60)
            ));
        }
        if let Some((line, text, other)) = &edit.moved {
            shown.push_str(&format!(
                "\n    ...\n  - {}    (line {line}, below `{}`, where it does not count)",
                text.trim(),
                epithet_wire::display::sanitize_line(other, 60)
            ));
        }
        shown
    }

    /// Writes it, after a copy.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let Some(edit) = &self.after else { return Ok(()) };
        if let Some(before) = &self.before {
            let copy = keep_copy(&self.path, before)?;
            say(&format!("kept {} as it was", named(&copy)))?;
        }
        replace(&self.path, self.before.as_deref(), &edit.text)?;
        say(&format!("wrote {}", named(&self.path)))
    }
}

fn by_hand(path: &Path, problem: &str, include: &str) -> String {
    format!(
        "{} {problem}\ntry: put this line at its top yourself, then run this again\n  {include}",
        named(path)
    )
}

/// The text with the `Include` at its top; `None` when it counts where it stands.
fn with_include(text: &str, include: &str) -> Option<Edit> {
    let (rest, moved) = match standing(text) {
        Standing::Counts => return None,
        Standing::Missing => (text.to_owned(), None),
        Standing::Below { line, keyword, .. } => {
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            let own = lines[line - 1].to_owned();
            // One that includes other files as well stays for their sake.
            let moved = is_ours_alone(&own).then(|| {
                lines.remove(line - 1);
                (line, own, keyword)
            });
            (lines.concat(), moved)
        }
    };
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let gap = if rest.is_empty() { "" } else { end };
    Some(Edit {
        text: format!("{include}{end}{gap}{rest}"),
        moved,
    })
}

/// Writes a copy beside the file, unless there is one with this very text. An older copy is never overwritten.
fn keep_copy(path: &Path, text: &str) -> anyhow::Result<PathBuf> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for number in 1.. {
        let suffix = if number == 1 {
            String::new()
        } else {
            format!(".{number}")
        };
        let copy = path.with_file_name(format!("{name}.{COPY}{suffix}"));
        if std::fs::read(&copy).is_ok_and(|kept| kept == text.as_bytes()) {
            return Ok(copy);
        }
        let made = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&copy);
        match made {
            Ok(mut file) => {
                std::io::Write::write_all(&mut file, text.as_bytes())
                    .with_context(|| format!("cannot write {}", copy.display()))?;
                return Ok(copy);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot keep a copy as {}", copy.display()));
            }
        }
    }
    unreachable!("the numbers do not end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INCLUDE: &str = "Include ~/.epithet/run/*/ssh-config.conf";

    #[test]
    fn the_line_goes_to_the_top_once_and_the_rest_stays_byte_for_byte() {
        let cases = [
            ("", format!("{INCLUDE}\n")),
            ("Host a\n  User b", format!("{INCLUDE}\n\nHost a\n  User b")),
            ("Host a\r\n", format!("{INCLUDE}\r\n\r\nHost a\r\n")),
            (
                "Host a\n  User b\nInclude ~/.epithet/run/*/ssh-config.conf\nHost c\n",
                format!("{INCLUDE}\n\nHost a\n  User b\nHost c\n"),
            ),
            (
                "Match web\nInclude x ~/.epithet/run/*/ssh-config.conf\n",
                format!("{INCLUDE}\n\nMatch web\nInclude x ~/.epithet/run/*/ssh-config.conf\n"),
            ),
        ];
        for (before, after) in cases {
            let edit = with_include(before, INCLUDE).unwrap();
            assert_eq!(edit.text, after);
            assert_eq!(with_include(&edit.text, INCLUDE), None, "twice is once");
        }
    }

    proptest! {
        #[test]
        fn whatever_was_there_is_there_afterwards(text in "((Host|Match|#|IdentityAgent|User|=) ?[a-z*!]*\r?\n){0,6}[a-z ]{0,9}") {
            let edit = with_include(&text, INCLUDE).unwrap();
            prop_assert!(edit.text.ends_with(&text));
            prop_assert_eq!(with_include(&edit.text, INCLUDE), None);
        }
    }

    #[test]
    fn an_older_copy_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let first = keep_copy(&path, "one").unwrap();
        assert_eq!(keep_copy(&path, "one").unwrap(), first);
        let second = keep_copy(&path, "two").unwrap();
        assert_eq!(second.file_name().unwrap(), "config.before-epithet.2");
        assert_eq!(std::fs::read_to_string(first).unwrap(), "one");
    }
}
