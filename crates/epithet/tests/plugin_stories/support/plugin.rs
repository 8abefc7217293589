//! A plugin as people write it, with a few lines in front that keep a record of each run.

use epithet_testkit::{DEADLINE, Home, plugin_script, wait_until};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A shell script that was given to `--auth`. In it `$run` counts the runs and `$folder` is a place for files.
#[derive(Debug)]
pub(crate) struct Plugin {
    folder: PathBuf,
    path: PathBuf,
}

impl Plugin {
    /// Writes the script: the record, then `body`.
    pub(crate) fn write(home: &Home, body: &str) -> Self {
        // Made by writing a file into it, so that it is the home's user's.
        let mark = home.write("plugin/kept-here", "what the plugin was given, by run\n");
        let folder = mark.parent().expect("a file is in a folder").to_owned();
        let text = format!(
            "#!/bin/sh\n\
             folder='{}'\n\
             run=$(($(cat \"$folder/count\" 2>/dev/null || echo 0) + 1))\n\
             cat > \"$folder/stdin.$run\"\n\
             env > \"$folder/environment.$run\"\n\
             read -r _ _ _ _ group _ < /proc/$$/stat\n\
             echo \"$group\" > \"$folder/group.$run\"\n\
             echo \"$run\" > \"$folder/count.new\" && mv \"$folder/count.new\" \"$folder/count\"\n\
             {body}\n",
            folder.display()
        );
        let path = plugin_script(home.path(), "plugin.sh", &text);
        Self { folder, path }
    }

    /// A plugin that succeeds every time: `token-1` and `state-1`, then `token-2` and `state-2`, and so on.
    pub(crate) fn counting(home: &Home) -> Self {
        Self::write(home, r#"printf 'token-%s' "$run"; printf 'state-%s' "$run" >&3"#)
    }

    /// For `--auth`.
    pub(crate) fn command(&self) -> &str {
        self.path.to_str().expect("a path of a test is text")
    }

    /// Where it keeps its files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How often it has run, the run under way included.
    pub(crate) fn runs(&self) -> usize {
        let count = std::fs::read_to_string(self.folder.join("count"));
        count.map_or(0, |count| count.trim().parse().expect("the script counts"))
    }

    /// Waits until it has been started this often.
    pub(crate) fn wait_for_run(&self, run: usize) {
        wait_until(DEADLINE, || (self.runs() >= run).then_some(()))
            .unwrap_or_else(|| panic!("the plugin was not started for the {run}. time"));
    }

    /// What a run found on stdin.
    pub(crate) fn stdin_of(&self, run: usize) -> Vec<u8> {
        self.read("stdin", run)
    }

    /// A variable that a run found in its environment.
    pub(crate) fn variable_of(&self, run: usize, name: &str) -> Option<String> {
        let environment = String::from_utf8(self.read("environment", run)).expect("text");
        let prefix = format!("{name}=");
        let mut values = environment.lines().filter_map(|line| line.strip_prefix(&prefix));
        values.next().map(str::to_owned)
    }

    /// The process group of a run.
    pub(crate) fn group_of(&self, run: usize) -> i32 {
        let text = String::from_utf8(self.read("group", run)).expect("text");
        text.trim().parse().expect("a number")
    }

    fn read(&self, what: &str, run: usize) -> Vec<u8> {
        let path = self.folder.join(format!("{what}.{run}"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Where a plugin waits, until a story lets it go on: `read -r _ < "$folder/gate"`.
#[derive(Debug)]
pub(crate) struct Gate(File);

impl Gate {
    /// A closed gate in the plugin's folder.
    pub(crate) fn of(plugin: &Plugin) -> Self {
        let path = plugin.folder().join("gate");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe in a folder of ours");
        // Whoever reads it may be another user than the one who runs the tests.
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("a pipe of ours");
        let both_ends = OpenOptions::new().read(true).write(true).open(&path);
        Self(both_ends.expect("the pipe that was just made"))
    }

    /// Lets one run through.
    pub(crate) fn open(&mut self) {
        self.0.write_all(b"\n").expect("a pipe has room for a line");
    }
}
