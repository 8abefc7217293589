//! Times as other programs write them.

use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;

/// Reads an RFC 3339 time; `None` for anything else. One later than [`Timestamp::MAX`], in the last hours of the year 9999, is
/// that: programs write `9999-12-31T23:59:59Z` for never.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let beyond = || is_in_the_last_year(text).then_some(Timestamp::MAX);
    text.parse().ok().or_else(beyond)
}

fn is_in_the_last_year(text: &str) -> bool {
    Pieces::parse(text).is_ok_and(|pieces| {
        pieces.date().year() == 9999 && pieces.time().is_some() && pieces.to_numeric_offset().is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_beyond_the_last_is_the_last_and_what_is_none_is_refused() {
        for never in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999Z",
            "9999-12-31T23:59:59-08:00",
            "9999-12-30T22:00:01+00:00",
        ] {
            assert_eq!(parse_time(never), Some(Timestamp::MAX), "{never}");
        }
        let second = |text| parse_time(text).map(Timestamp::as_second);
        assert_eq!(second("2026-08-13T18:30:00Z"), Some(1_786_645_800));
        assert_eq!(second("9999-12-30T22:00:00Z"), Some(Timestamp::MAX.as_second()));
        for none in [
            "",
            "never",
            "9999-12-31",
            "9999-12-31T23:59:59",
            "9999-13-31T23:59:59Z",
            "9999-12-31T25:59:59Z",
            "10000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_time(none), None, "{none}");
        }
    }
}
