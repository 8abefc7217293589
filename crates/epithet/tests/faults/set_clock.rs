//! The clocks of one process, set while it runs. The machine's own stay as they are.

use epithet_testkit::Home;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/clock.c");

/// Where `struct shift` of `clock.c` has its fields.
const CALENDAR: u64 = 0;
const SLEPT: u64 = 8;
const STANDS: u64 = 16;

/// The clocks of whatever a command becomes. They are right until they are moved.
#[derive(Debug)]
pub(crate) struct SetClock {
    library: PathBuf,
    path: PathBuf,
    shift: File,
    slept: i64,
}

impl SetClock {
    /// Builds what is preloaded, in `home`.
    pub(crate) fn new(home: &Home) -> Self {
        let library = home.join("clock.so");
        let built = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(SOURCE)
            .output()
            .expect("a C compiler is installed (scripts/test does that)");
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        let path = home.write("clock", [0; 24]);
        let shift = OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("a file of ours");
        Self {
            library,
            path,
            shift,
            slept: 0,
        }
    }

    /// Lets the command have these clocks.
    pub(crate) fn rule(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("EPITHET_TEST_CLOCK", &self.path);
    }

    /// Sets the calendar so many seconds ahead, or back.
    pub(crate) fn set_calendar(&self, ahead: i64) {
        self.put(STANDS, 0);
        self.put(CALENDAR, ahead);
    }

    /// Lets the calendar stand still, now.
    pub(crate) fn stop_calendar(&self) {
        self.put(STANDS, i64::try_from(unix_now()).expect("a time of this century"));
    }

    /// The calendar is right again.
    pub(crate) fn set_right(&self) {
        self.set_calendar(0);
    }

    /// Lets the machine sleep so many seconds, of which the calendar says nothing.
    pub(crate) fn sleep(&mut self, seconds: i64) {
        self.slept += seconds;
        self.put(SLEPT, self.slept);
    }

    fn put(&self, field: u64, value: i64) {
        self.shift
            .write_all_at(&value.to_ne_bytes(), field)
            .expect("a file of ours");
    }
}

/// The right time.
pub(crate) fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}
