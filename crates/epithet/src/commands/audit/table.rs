//! Lines of the log as a table: one row each, as wide as the terminal; wherever else it goes, nothing is cut off.

use super::line::Entry;
use crate::terminal::{Screen, Tone};
use epithet_wire::display::sanitize_line;
use epithet_wire::format_duration;
use epithet_wire::limits::CERTIFICATE_BACKDATE;
use std::time::Duration;

const HEADINGS: [&str; 5] = ["TIME (UTC)", "DECISION", "IDENTITY", "LOGIN", "DETAILS"];
/// The columns' widths; what is longer pushes the rest to the right. The last takes what is left.
const WIDTHS: [usize; 4] = [19, 11, 24, 28];
/// No field is longer than this.
const FIELD_MAX: usize = 400;

/// How a table is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    screen: Screen,
    /// The terminal's width; `None` when rows may be of any length.
    width: Option<usize>,
}

impl Table {
    /// One for stdout as it is.
    pub(super) fn for_stdout() -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stdout());
        let width = size
            .ok()
            .map(|size| usize::from(size.ws_col))
            .filter(|width| *width > 0);
        Self {
            screen: Screen::of_stdout(),
            width,
        }
    }

    /// The line with the columns' names.
    pub(super) fn heading(&self) -> String {
        let cells = HEADINGS.map(str::to_owned);
        self.fit(&joined(&cells)) + "\n"
    }

    /// One decision.
    pub(super) fn row(&self, entry: &Entry) -> String {
        let cells = cells(entry);
        let row = self.fit(&joined(&cells));
        let tone = match entry.decision.as_str() {
            "issued" | "repeated" => Tone::Good,
            _ if entry.status >= 500 => Tone::Bad,
            _ => Tone::Warning,
        };
        let painted = match row.find(&cells[1]) {
            Some(at) => format!(
                "{}{}{}",
                &row[..at],
                self.screen.paint(tone, &cells[1]),
                &row[at + cells[1].len()..]
            ),
            None => row,
        };
        painted + "\n"
    }

    fn fit(&self, row: &str) -> String {
        match self.width {
            Some(width) if row.chars().count() > width => {
                let kept: String = row.chars().take(width.saturating_sub(1)).collect();
                kept + "\u{2026}"
            }
            _ => row.to_owned(),
        }
    }
}

fn cells(entry: &Entry) -> [String; 5] {
    let shown = |text: &str| sanitize_line(text, FIELD_MAX);
    let time = entry
        .time
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S").to_string());
    // One that was given again is a certificate as well.
    let is_issued = ["issued", "repeated"].contains(&entry.decision.as_str());
    let decision = if is_issued {
        entry.decision.clone()
    } else {
        format!("{} {}", shown(&entry.decision), entry.status)
    };
    [
        time.unwrap_or_default(),
        decision,
        or_dash(shown(&entry.identity)),
        format!("{}@{}", shown(&entry.user), shown(&entry.host)),
        shown(&if is_issued { issued(entry) } else { refused(entry) }),
    ]
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn issued(entry: &Entry) -> String {
    // From the certificate's own times: the line may have been written a second later.
    let life = match (entry.valid_after, entry.valid_before) {
        (Some(start), Some(end)) => u64::try_from(end.as_second() - start.as_second()).ok(),
        _ => None,
    };
    let life = life.and_then(|life| life.checked_sub(CERTIFICATE_BACKDATE.as_secs()));
    let life = life.map_or(String::new(), |life| {
        format!("for {} ", format_duration(Duration::from_secs(life)))
    });
    let rule = if entry.rule.is_empty() {
        String::new()
    } else {
        format!(" rule={}", entry.rule)
    };
    format!(
        "{life}serial={} req={} from={}{rule}",
        entry.serial, entry.request_id, entry.client
    )
}

fn refused(entry: &Entry) -> String {
    format!("{} req={} from={}", entry.reason, entry.request_id, entry.client)
}

fn joined(cells: &[String; 5]) -> String {
    let mut row = String::new();
    for (cell, width) in cells.iter().zip(WIDTHS) {
        row.push_str(&format!("{cell:width$}  "));
    }
    row.push_str(&cells[4]);
    row.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: Option<usize>) -> Table {
        Table {
            screen: Screen::plain(80),
            width,
        }
    }

    fn entry() -> Entry {
        Entry {
            time: Some("2026-11-26T09:11:28Z".parse().unwrap()),
            valid_after: Some("2026-11-26T09:10:28Z".parse().unwrap()),
            valid_before: Some("2026-11-26T09:16:28Z".parse().unwrap()),
            decision: "issued".into(),
            status: 200,
            identity: "alice@example.com".into(),
            user: "root".into(),
            host: "web.example.com".into(),
            serial: "17".into(),
            request_id: "64bb52ce6fcc641b".into(),
            client: "192.0.2.7".into(),
            rule: "*.example.com".into(),
            ..Entry::default()
        }
    }

    #[test]
    fn a_row_has_what_people_ask_for() {
        assert_eq!(
            table(None).row(&entry()),
            "2026-11-26 09:11:28  issued       alice@example.com         root@web.example.com          \
             for 5m serial=17 req=64bb52ce6fcc641b from=192.0.2.7 rule=*.example.com\n"
        );
        let repeated = Entry {
            decision: "repeated".into(),
            ..entry()
        };
        assert_eq!(
            table(None).row(&repeated),
            table(None).row(&entry()).replace("issued  ", "repeated")
        );
        let refused = Entry {
            decision: "refused".into(),
            status: 403,
            identity: String::new(),
            reason: "no\u{1b}[2J rule".into(),
            ..entry()
        };
        let row = table(None).row(&refused);
        assert!(row.contains("refused 403  -  "), "{row}");
        assert!(row.contains("no [2J rule req="), "{row}");
    }

    #[test]
    fn a_terminal_s_width_is_kept() {
        for width in [1, 20, 80, 100] {
            for line in [table(Some(width)).row(&entry()), table(Some(width)).heading()] {
                assert!(
                    line.trim_end_matches('\n').chars().count() <= width,
                    "{width}: {line}"
                );
            }
        }
        assert!(table(Some(80)).row(&entry()).ends_with("\u{2026}\n"));
    }
}
