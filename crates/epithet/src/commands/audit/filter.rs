//! Which lines are wanted. Every condition that was given has to hold.

use super::line::Entry;
use crate::cli::{Decided, FilterOptions};
use crate::wildcard::wild;
use epithet_wire::{HostName, parse_duration};
use jiff::Timestamp;

/// A moment: so long ago, a time, or a day.
pub(crate) fn since(text: &str) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "`{text}` is neither a duration like 2h, nor a time like 2026-11-26T09:00:00Z, nor a day like 2026-11-26"
        )
    };
    if let Ok(ago) = parse_duration(text) {
        let ago = jiff::SignedDuration::try_from(ago).map_err(|_| wrong())?;
        return Timestamp::now().checked_sub(ago).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let day: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    jiff::tz::TimeZone::UTC
        .to_timestamp(day.at(0, 0, 0, 0))
        .map_err(|_| wrong())
}

/// Whether a line is wanted.
pub(super) fn wants(filter: &FilterOptions, entry: &Entry) -> bool {
    let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
    let is_like = |wanted: &Option<String>, value: &str| {
        wanted
            .as_ref()
            .is_none_or(|wanted| wild(wanted.to_lowercase().as_bytes(), value.to_lowercase().as_bytes()))
    };
    let decision = match filter.decision {
        None => true,
        Some(Decided::Issued) => entry.decision == "issued",
        Some(Decided::Repeated) => entry.decision == "repeated",
        Some(Decided::Refused) => entry.decision == "refused",
    };
    let host = filter.host.as_ref().is_none_or(|pattern| {
        HostName::parse(&entry.host).is_ok_and(|host| pattern.matches(&host.canonical()))
    });
    decision
        && host
        && filter
            .since
            .is_none_or(|since| entry.time.is_some_and(|time| time >= since))
        && is(&filter.user, &entry.user)
        && is_like(&filter.identity, &entry.identity)
        && is(&filter.serial, &entry.serial)
        && is(&filter.request_id, &entry.request_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            time: Some("2026-11-26T09:11:28Z".parse().unwrap()),
            decision: "issued".into(),
            host: "Web.example.com".into(),
            user: "root".into(),
            identity: "alice@example.com".into(),
            serial: "17".into(),
            request_id: "64bb52ce6fcc641b".into(),
            ..Entry::default()
        }
    }

    #[test]
    fn every_condition_has_to_hold() {
        let none = FilterOptions::default;
        let text = |text: &str| Some(text.to_owned());
        let wanted = [
            none(),
            FilterOptions {
                host: Some("*.example.com".parse().unwrap()),
                ..none()
            },
            FilterOptions {
                user: text("root"),
                serial: text("17"),
                ..none()
            },
            FilterOptions {
                identity: text("ALICE@*"),
                ..none()
            },
            FilterOptions {
                decision: Some(Decided::Issued),
                request_id: text("64bb52ce6fcc641b"),
                ..none()
            },
            FilterOptions {
                since: Some("2026-11-26T09:11:28Z".parse().unwrap()),
                ..none()
            },
        ];
        for filter in wanted {
            assert!(wants(&filter, &entry()), "{filter:?}");
        }
        let unwanted = [
            FilterOptions {
                host: Some("*.example.org".parse().unwrap()),
                ..none()
            },
            FilterOptions {
                user: text("roo"),
                ..none()
            },
            FilterOptions {
                user: text("root"),
                serial: text("1"),
                ..none()
            },
            FilterOptions {
                identity: text("alice"),
                ..none()
            },
            FilterOptions {
                decision: Some(Decided::Refused),
                ..none()
            },
            FilterOptions {
                since: Some("2026-11-26T09:11:29Z".parse().unwrap()),
                ..none()
            },
            FilterOptions {
                request_id: text("0"),
                ..none()
            },
        ];
        for filter in unwanted {
            assert!(!wants(&filter, &entry()), "{filter:?}");
        }
    }

    #[test]
    fn a_moment_is_a_duration_a_time_or_a_day() {
        let ago = Timestamp::now().as_second() - since("2h").unwrap().as_second();
        assert!((7190..=7210).contains(&ago), "{ago}");
        assert_eq!(
            since("2026-11-26T09:00:00Z").unwrap().to_string(),
            "2026-11-26T09:00:00Z"
        );
        assert_eq!(since("2026-11-26").unwrap().to_string(), "2026-11-26T00:00:00Z");
        for wrong in ["", "yesterday", "2026-13-01", "999999999999h"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
