//! Auth plugins as people write them: a script in a file.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Writes an executable script `folder/name` and returns its path. `text` begins with its `#!` line.
///
/// # Panics
/// When it cannot be written.
pub fn plugin_script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    // Another process writes it. Were the file open for writing here while some other test starts a process, that
    // process would hold it for a moment too, and running the script would fail with "Text file busy".
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "umask 022 && cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    writer
        .stdin
        .take()
        .expect("stdin is a pipe")
        .write_all(text.as_bytes())
        .expect("the shell reads");
    let status = writer.wait().expect("the shell ends");
    assert!(status.success(), "cannot write {}", path.display());
    path
}
