//! When a certificate ends: just enough of X.509 (RFC 5280 section 4.1) to find `notAfter`.

/// A DER value, and what follows it.
struct Value<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

fn value(bytes: &[u8]) -> Option<Value<'_>> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if digits.is_empty() || digits.len() > 4 {
                return None;
            }
            let length = digits
                .iter()
                .fold(0_usize, |length, digit| length << 8 | usize::from(*digit));
            (length, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Value {
        tag: *tag,
        content,
        rest,
    })
}

/// The end of a certificate's validity, in seconds since 1970. `None` for what is no certificate.
pub(crate) fn not_after(der: &[u8]) -> Option<i64> {
    let certificate = value(der).filter(|found| found.tag == 0x30)?;
    let mut fields = value(certificate.content)?.content;
    // The version, which is tagged [0] and may be left out, then serial number, algorithm and issuer.
    let first = value(fields)?;
    if first.tag == 0xa0 {
        fields = first.rest;
    }
    for _ in 0..3 {
        fields = value(fields)?.rest;
    }
    let validity = value(fields)?;
    let not_before = value(validity.content)?;
    time(&value(not_before.rest)?)
}

/// `UTCTime` or `GeneralizedTime`, in Greenwich as RFC 5280 wants them.
fn time(value: &Value<'_>) -> Option<i64> {
    let text = std::str::from_utf8(value.content).ok()?.strip_suffix('Z')?;
    let (year, rest) = match value.tag {
        0x17 => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        0x18 => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

/// Days of the Gregorian calendar; years begin with March, so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn days_are_counted_as_everybody_counts_them() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 26), 20_783),
            ((2100, 3, 1), 47_541),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn the_end_is_the_one_that_openssl_sees() {
        for name in ["certificate.pem", "second-certificate.pem"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/tls")
                .join(name);
            let run = |arguments: &[&str]| {
                let output = Command::new("openssl")
                    .arg("x509")
                    .arg("-in")
                    .arg(&path)
                    .args(arguments)
                    .output();
                let output = output.expect("openssl runs");
                assert!(output.status.success(), "{output:?}");
                output.stdout
            };
            let end = not_after(&run(&["-outform", "DER"])).expect("a certificate");
            let told = String::from_utf8(run(&["-noout", "-enddate"])).expect("text");
            let date = told.trim().strip_prefix("notAfter=").expect("a date");
            let seconds = Command::new("date")
                .args(["-u", "-d", date, "+%s"])
                .output()
                .expect("date runs");
            assert_eq!(String::from_utf8_lossy(&seconds.stdout).trim(), end.to_string());
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x80],
            b"garbage",
            &[0x30, 2, 0x30, 0],
        ] {
            assert_eq!(not_after(bytes), None);
        }
    }
}
