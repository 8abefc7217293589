//! The two text formats that collectors read, and which of them is asked for.

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Text,
}

impl Format {
    /// OpenMetrics when `Accept` has it by name, and nothing that is text before it (RFC 9110 section 12.5.1).
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        let (mut metrics, mut plain) = (0.0_f32, 0.0_f32);
        for value in headers.get_all(ACCEPT) {
            for range in value.to_str().unwrap_or_default().split(',') {
                let (kind, weight) = weighed(range);
                match kind.as_str() {
                    "application/openmetrics-text" => metrics = metrics.max(weight),
                    "text/plain" => plain = plain.max(weight),
                    _ => {}
                }
            }
        }
        if metrics > 0.0 && metrics >= plain {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        })
    }

    /// A page of OpenMetrics in this format.
    pub(super) fn written(self, page: String) -> String {
        match self {
            Self::OpenMetrics => page,
            Self::Text => as_text(&page),
        }
    }
}

/// A media range without its parameters, and its weight.
fn weighed(range: &str) -> (String, f32) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (kind, weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
}

/// The older format differs in this: a counter's own name, in HELP and TYPE too, ends in `_total`; there is no UNIT and no EOF.
fn as_text(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + 1024);
    let mut help = None;
    for line in page.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|typed| typed.split_once(' '))
        {
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take().filter(|(named, _)| *named == name) {
                text.push_str(&format!("# HELP {name}{total} {words}\n"));
            }
            text.push_str(&format!("# TYPE {name}{total} {kind}\n"));
        } else if !line.starts_with("# ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it_first() {
        let cases = [
            (&[][..], Format::Text),
            (&[""], Format::Text),
            (&["*/*"], Format::Text),
            (&["text/plain;version=0.0.4"], Format::Text),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (
                &["Application/OpenMetrics-Text; version=1.0.0 ; Q=0.1, */*"],
                Format::OpenMetrics,
            ),
            (
                &["text/plain", "application/openmetrics-text"],
                Format::OpenMetrics,
            ),
            (
                &["text/plain;q=0.4, application/openmetrics-text;q=0.3"],
                Format::Text,
            ),
            (&["application/openmetrics-text;q=0"], Format::Text),
            (&["application/openmetrics-text;q=much"], Format::Text),
        ];
        for (accept, format) in cases {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(Format::asked_for(&headers), format, "{accept:?}");
        }
    }

    #[test]
    fn a_counter_has_its_samples_name_in_the_older_format() {
        let page = "# HELP a_requests Requests.\n# TYPE a_requests counter\na_requests_total{x=\"y\"} 1\n# HELP b B.\n\
            # TYPE b gauge\n# UNIT b seconds\nb 2.5\n# EOF\n";
        let text = "# HELP a_requests_total Requests.\n# TYPE a_requests_total counter\na_requests_total{x=\"y\"} 1\n\
            # HELP b B.\n# TYPE b gauge\nb 2.5\n";
        assert_eq!(as_text(page), text);
        assert_eq!(Format::Text.written(page.to_owned()), text);
        assert_eq!(Format::OpenMetrics.written(page.to_owned()), page);
    }
}
