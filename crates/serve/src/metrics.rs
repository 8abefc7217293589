//! Numbers for Prometheus, on a listener of their own: they concern operators only. In the OpenMetrics text format for those who
//! ask for it, otherwise in the older text format of Prometheus, which every collector reads.

mod format;

use crate::answer::{method_not_allowed, text};
use crate::tls::Tls;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use format::Format;
use http::header::{CONTENT_TYPE, VARY};
use http::{HeaderValue, Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text::encode};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// From a quarter of a millisecond to eight seconds: a signature takes less than the first, a deadline more than the last.
const BUCKETS: (f64, f64, u16) = (0.000_25, 2.0, 16);

/// A histogram of how long requests take, in seconds.
pub fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(BUCKETS.0, BUCKETS.1, BUCKETS.2))
}

/// `GET /metrics` of these numbers, and nothing else.
pub fn metrics_router(registry: Registry) -> Router {
    Router::new().fallback(handle).with_state(Arc::new(registry))
}

async fn handle(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    if request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "the numbers are at /metrics\n");
    }
    if request.method() != Method::GET {
        return method_not_allowed("GET");
    }
    let format = Format::asked_for(request.headers());
    let mut page = String::new();
    if let Err(error) = encode(&mut page, &registry) {
        return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    }
    let mut response = text(StatusCode::OK, format.written(page));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, format.content_type());
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// A number that is looked up when it is asked for; left out while there is none.
pub struct Looked<F> {
    name: &'static str,
    help: &'static str,
    only_grows: bool,
    look: F,
}

impl<F: Fn() -> Option<f64> + Send + Sync + 'static> Looked<F> {
    /// A gauge of this name.
    pub fn new(name: &'static str, help: &'static str, look: F) -> Box<Self> {
        Box::new(Self {
            name,
            help,
            only_grows: false,
            look,
        })
    }

    /// A counter of this name; the page adds `_total`.
    pub fn counter(name: &'static str, help: &'static str, look: F) -> Box<Self> {
        Box::new(Self {
            only_grows: true,
            ..*Self::new(name, help, look)
        })
    }
}

impl<F> fmt::Debug for Looked<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Looked({})", self.name)
    }
}

impl<F: Fn() -> Option<f64> + Send + Sync + 'static> Collector for Looked<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(value) = (self.look)() else {
            return Ok(());
        };
        let (counter, gauge) = (ConstCounter::new(value), ConstGauge::new(value));
        let metric: &dyn EncodeMetric = if self.only_grows { &counter } else { &gauge };
        let encoder = encoder.encode_descriptor(self.name, self.help, None, metric.metric_type())?;
        metric.encode(encoder)
    }
}

/// When the TLS certificate that is served ends, in seconds since 1970.
pub fn tls_expiry(tls: Tls) -> Box<impl Collector> {
    Looked::new(
        "tls_certificate_not_after_seconds",
        "When the TLS certificate that is served ends, in seconds since 1970",
        // Whole seconds of our century are exact in 64 bits of floating point.
        move || tls.not_after().map(|end| end as f64),
    )
}
