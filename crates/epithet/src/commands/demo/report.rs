//! What the demo prints: one line a step with its time, and what it found, set off. Colours only on a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The demo's voice.
pub(super) struct Report {
    begun: Instant,
    colours: bool,
}

impl Report {
    pub(super) fn begin() -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            begun: Instant::now(),
            colours,
        }
    }

    /// A step, with the time since the beginning.
    pub(super) fn step(&self, name: &str, text: &str) {
        let time = format!("{:6.2}s", self.begun.elapsed().as_secs_f64());
        self.print(&format!(
            "{}  {:<20} {text}\n",
            self.painted("2", &time),
            self.painted("1", &format!("{name:<20}"))
        ));
    }

    /// Something found, below a heading.
    pub(super) fn finding(&self, heading: &str, lines: &[String]) {
        self.print(&format!("\n{}\n", self.painted("1;36", heading)));
        for line in lines {
            self.print(&format!("    {line}\n"));
        }
    }

    /// A line of its own.
    pub(super) fn line(&self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// The last line.
    pub(super) fn done(&self, text: &str) {
        self.print(&format!("\n{}\n", self.painted("1;32", text)));
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn print(&self, text: &str) {
        // A reader that closed the pipe has seen enough; the demo still cleans up.
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
}

/// A duration in milliseconds, as the report shows it.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}
