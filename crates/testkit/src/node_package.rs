//! The Node packages in `tests/` of this repository: a provider and a browser, each with its own lock file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the package `name`, with everything installed that its lock file names. One test process installs,
/// the others wait.
///
/// # Panics
/// When `npm` is missing or fails.
pub(crate) fn installed(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests")
        .join(name);
    let uid = rustix::process::getuid().as_raw();
    let lock = File::create(std::env::temp_dir().join(format!("epithet-{name}-{uid}.lock")))
        .expect("the temporary folder can be written");
    lock.lock().expect("a lock on a file of ours");
    let changed = |path: &str| {
        fs::metadata(folder.join(path))
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    let (wanted, installed) = (
        changed("package-lock.json"),
        changed("node_modules/.package-lock.json"),
    );
    if installed.is_none() || installed < wanted {
        install(&folder);
    }
    folder
}

fn install(folder: &Path) {
    let mut command = Command::new("npm");
    command
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(folder);
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("npm ci failed: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("cannot run npm ({error}): apt-get install nodejs npm"),
    }
}
