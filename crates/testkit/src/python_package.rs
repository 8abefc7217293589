//! The Python packages in `tests/` of this repository, each with its requirements pinned and a `venv` of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program in Python with everything that it needs.
#[derive(Debug, Clone)]
pub struct PythonPackage {
    folder: PathBuf,
}

impl PythonPackage {
    /// The package `name`, with everything installed that its `requirements.txt` names. One test process installs, the
    /// others wait.
    ///
    /// # Panics
    /// When Python's `venv` or `pip` is missing or fails.
    pub fn installed(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests")
            .join(name);
        let uid = rustix::process::getuid().as_raw();
        let lock = File::create(std::env::temp_dir().join(format!("epithet-{name}-{uid}.lock")))
            .expect("the temporary folder can be written");
        lock.lock().expect("a lock on a file of ours");
        let wanted = fs::read(folder.join("requirements.txt")).expect("it is in the repository");
        let stamp = folder.join("venv/requirements.txt");
        if fs::read(&stamp).ok().as_ref() != Some(&wanted) {
            install(&folder);
            fs::write(stamp, wanted).expect("the venv is ours");
        }
        Self { folder }
    }

    /// Its Python, and where its program `script` is.
    pub fn program(&self, script: &str) -> (PathBuf, PathBuf) {
        (self.folder.join("venv/bin/python3"), self.folder.join(script))
    }
}

fn install(folder: &Path) {
    let run = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(folder).output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => panic!(
                "{} failed: {}",
                program.display(),
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => panic!(
                "cannot run {} ({error}): apt-get install python3-venv",
                program.display()
            ),
        }
    };
    run(Path::new("python3"), &["-m", "venv", "--clear", "venv"]);
    let pip = folder.join("venv/bin/pip");
    run(
        &pip,
        &[
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "-r",
            "requirements.txt",
        ],
    );
}
