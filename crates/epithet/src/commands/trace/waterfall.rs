//! One connection's phases as bars under each other, as wide as the terminal.

use crate::terminal::{Screen, Tone, wrapped};
use epithet_wire::display::sanitize_line;
use epithet_wire::format_duration;
use epithet_wire::trace::{Phase, Trace};
use jiff::Timestamp;
use std::fmt::Write as _;
use std::time::Duration;

/// Columns of a phase's name and of its duration.
const NAME: usize = 7;
const TIME: usize = 9;
/// A bar is at least this wide, whatever the terminal.
const BAR_MIN: usize = 12;
/// The least room for a note.
const NOTE_MIN: usize = 4;

/// What stands behind the sum.
const IN_ALL: &str = "  in all";

/// The whole picture of a trace.
pub(super) fn draw(trace: &Trace, screen: Screen, now: Timestamp) -> String {
    let total = trace.phases.iter().map(end_of).fold(0.0, f64::max);
    let bar = bar_width(trace, screen.width);
    let mut picture = heading(trace, screen, now);
    for phase in &trace.phases {
        let name = sanitize_line(&phase.name, NAME);
        let _ = write!(
            picture,
            "  {name:<NAME$} {} {:>TIME$}",
            painted(phase, screen, &bar_of(phase, total, bar, screen)),
            milliseconds(phase.duration_ms)
        );
        let room = screen.width.saturating_sub(2 + NAME + 1 + bar + 1 + TIME + 2);
        if let Some(note) = phase.note.as_deref().filter(|_| room >= NOTE_MIN) {
            let _ = write!(
                picture,
                "  {}",
                screen.paint(Tone::Faint, &screen.line(without_scheme(note), room))
            );
        }
        picture.push('\n');
    }
    if !trace.phases.is_empty() {
        let indent = 2 + NAME + 1 + bar + 1;
        let _ = writeln!(picture, "{:indent$}{:>TIME$}{IN_ALL}", "", milliseconds(total));
    }
    picture
}

/// A CA's URL begins with what all of them begin with, and the room is little.
fn without_scheme(note: &str) -> &str {
    note.split_once("://").map_or(note, |(_, rest)| rest)
}

fn heading(trace: &Trace, screen: Screen, now: Timestamp) -> String {
    let shown = |text: &str| screen.line(text, 200);
    let whom = format!("{}@{}:{}", shown(&trace.user), shown(&trace.host), trace.port);
    let tone = match trace.outcome.as_str() {
        "certificate" | "agent was there" => Tone::Good,
        "under way" => Tone::Warning,
        _ => Tone::Bad,
    };
    let outcome = shown(&trace.outcome);
    // What does not fit behind the name begins a line of its own.
    let between = match whom.chars().count() + 2 + outcome.chars().count() > screen.width {
        true => "\n",
        false => "  ",
    };
    let outcome = wrapped(&outcome, screen.width, 0);
    let mut heading = format!(
        "{}{between}{}\n",
        screen.paint(Tone::Strong, &whom),
        screen.paint(tone, &outcome)
    );
    let ago = trace.started_at.map_or_else(String::new, |started| {
        let seconds = now.as_second().saturating_sub(started.as_second());
        let ago = match u64::try_from(seconds).unwrap_or(0) {
            0 => "just now".to_owned(),
            seconds => format!("{} ago", format_duration(Duration::from_secs(seconds))),
        };
        format!(", {started:.0} ({ago})")
    });
    let line = format!("request {}{ago}", shown(&trace.request_id));
    let _ = writeln!(heading, "{}", screen.paint(Tone::Faint, &line));
    heading
}

/// What is left of the line, of which notes get their share when there are some.
fn bar_width(trace: &Trace, width: usize) -> usize {
    let left = width.saturating_sub(2 + NAME + 1 + 1 + TIME);
    let longest = trace.phases.iter().filter_map(|phase| phase.note.as_deref());
    let longest = longest.map(|note| note.chars().count()).max().unwrap_or(0);
    // The last line has a note always.
    let notes = (longest + 3).min(left / 2).max(IN_ALL.len());
    left.saturating_sub(notes).max(BAR_MIN)
}

/// Blanks, then the phase, at the scale of the whole; never nothing, and never over the edge.
fn bar_of(phase: &Phase, total: f64, width: usize, screen: Screen) -> String {
    let at = |milliseconds: f64| position(milliseconds, total, width);
    let start = at(phase.start_ms).min(width - 1);
    let length = at(end_of(phase)).saturating_sub(start).max(1);
    let full = screen.either("\u{2588}", "#").repeat(length);
    let rest = width - start - length;
    format!("{:start$}{full}{:rest$}", "", "")
}

fn painted(phase: &Phase, screen: Screen, bar: &str) -> String {
    let tone = match phase.name.as_str() {
        "login" => Tone::Warning,
        "ca" | "policy" => Tone::Good,
        _ => Tone::Strong,
    };
    screen.paint(tone, bar)
}

fn end_of(phase: &Phase) -> f64 {
    phase.start_ms + phase.duration_ms
}

/// A time's place among `width` columns.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "columns of a terminal; the value is kept within them"
)]
fn position(milliseconds: f64, total: f64, width: usize) -> usize {
    if total <= 0.0 || !milliseconds.is_finite() {
        return 0;
    }
    let share = (milliseconds / total).clamp(0.0, 1.0);
    ((share * width as f64).round() as usize).min(width)
}

fn milliseconds(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.1} s", value / 1000.0),
        value if value >= 100.0 => format!("{value:.0} ms"),
        value if value >= 1.0 => format!("{value:.1} ms"),
        value => format!("{value:.2} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn phase(name: &str, start_ms: f64, duration_ms: f64, note: &str) -> Phase {
        Phase {
            name: name.into(),
            start_ms,
            duration_ms,
            note: Some(note.to_owned()).filter(|note| !note.is_empty()),
        }
    }

    fn trace(phases: Vec<Phase>) -> Trace {
        Trace {
            request_id: "00ff".into(),
            host: "web.example.com".into(),
            user: "root".into(),
            port: 22,
            outcome: "certificate".into(),
            started_at: Some(Timestamp::from_second(1_800_000_000).unwrap()),
            phases,
        }
    }

    #[test]
    fn bars_stand_where_and_as_long_as_their_time_was() {
        let trace = trace(vec![
            phase("gate", 0.0, 0.1, ""),
            phase("login", 0.0, 100.0, "a run"),
            phase("ca", 100.0, 100.0, ""),
        ]);
        let now = Timestamp::from_second(1_800_000_065).unwrap();
        let picture = draw(&trace, Screen::plain(60), now);
        let expected = "\
root@web.example.com:22  certificate
request 00ff, 2027-01-15T08:00:00Z (1m5s ago)
  gate    #                                  0.10 ms
  login   ################                    100 ms  a run
  ca                      ################    100 ms
                                              200 ms  in all
";
        assert_eq!(picture, expected);
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(
            phases in proptest::collection::vec((0.0..1e7, 0.0..1e7, ".{0,60}"), 0..8),
            width in 40_usize..120,
        ) {
            let phases = phases.iter().map(|(start, length, note)| phase("policy", *start, *length, note));
            let picture = draw(&trace(phases.collect()), Screen::plain(width), Timestamp::UNIX_EPOCH);
            for line in picture.lines().skip(2) {
                prop_assert!(line.chars().count() <= width, "{line:?}");
            }
        }

        #[test]
        fn no_number_is_a_panic(start in any::<f64>(), length in any::<f64>(), width in 0_usize..200) {
            draw(&trace(vec![phase("ca", start, length, "x")]), Screen::plain(width), Timestamp::UNIX_EPOCH);
        }
    }
}
