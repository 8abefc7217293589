//! Requests that the CA refuses before policy is asked: no token, a key that is none, too many of them.
//!
//! They are in the audit log too, but anybody can send them, and no request may cost more disk than it costs its sender. So
//! a few a second have lines of their own; the others, and all that came too often, are counted, and a second later there
//! is a line with the number.

use crate::audit::{AuditLog, Entry, timestamp};
use epithet_wire::limits::AUDIT_TURNED_AWAY;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long requests are counted together.
const TOGETHER: Duration = Duration::from_secs(1);
/// Kinds of requests that are told apart while they are counted; more are one kind.
const KINDS_MAX: usize = 16;
/// In place of an address, once there are too many.
const SEVERAL: &str = "several";

/// Writes them down. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct TurnedAway {
    audit: Arc<AuditLog>,
    ca: String,
    tally: Arc<Mutex<Tally>>,
}

/// What was turned away within this second.
#[derive(Debug, Default)]
struct Tally {
    since: Option<Instant>,
    lines: usize,
    more: BTreeMap<Kind, u64>,
}

/// Requests that one line stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    status: u16,
    client: String,
}

/// What becomes of one.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Line,
    /// It is counted; the first of its second has to see to it that the number is written.
    Counted {
        first: bool,
    },
}

impl Tally {
    fn place(&mut self, kind: Kind, has_line: bool, now: Instant) -> Place {
        if self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= TOGETHER)
        {
            (self.since, self.lines) = (Some(now), 0);
        }
        if has_line && self.lines < AUDIT_TURNED_AWAY {
            self.lines += 1;
            return Place::Line;
        }
        let first = self.more.is_empty();
        let kind = if self.more.len() < KINDS_MAX || self.more.contains_key(&kind) {
            kind
        } else {
            let client = SEVERAL.to_owned();
            Kind { client, ..kind }
        };
        *self.more.entry(kind).or_default() += 1;
        Place::Counted { first }
    }
}

impl TurnedAway {
    /// `ca` is the fingerprint of the CA's key.
    pub(crate) fn new(audit: Arc<AuditLog>, ca: &str) -> Self {
        Self {
            audit,
            ca: ca.to_owned(),
            tally: Arc::default(),
        }
    }

    /// Writes down, or counts, a request that was turned away. That it cannot be written changes nothing for whoever sent it.
    pub(crate) async fn note(&self, entry: &Entry<'_>) {
        self.add(entry, true).await;
    }

    /// Counts one that is one of very many.
    pub(crate) async fn count(&self, entry: &Entry<'_>) {
        self.add(entry, false).await;
    }

    async fn add(&self, entry: &Entry<'_>, has_line: bool) {
        let kind = Kind {
            status: entry.status,
            client: entry.client.clone(),
        };
        let place = self.tally().place(kind, has_line, Instant::now());
        match place {
            Place::Line => self.write(entry).await,
            Place::Counted { first: true } => {
                let all = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(TOGETHER).await;
                    all.sum_up().await;
                });
            }
            Place::Counted { first: false } => {}
        }
    }

    /// A line for each kind that was counted.
    async fn sum_up(&self) {
        let more = std::mem::take(&mut self.tally().more);
        for (Kind { status, client }, count) in more {
            let reason = format!("{count} more requests were answered {status} within a second");
            let entry = Entry {
                time: timestamp(),
                decision: "refused",
                status,
                reason: Some(&reason),
                client,
                count: Some(count),
                ca: &self.ca,
                ..Entry::default()
            };
            self.write(&entry).await;
        }
    }

    async fn write(&self, entry: &Entry<'_>) {
        if let Err(error) = self.audit.record(entry).await {
            tracing::error!(%error, status = entry.status, "a request that was turned away is not in the audit log");
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_has_a_few_lines_a_second_and_a_number() {
        let mut tally = Tally::default();
        let (begin, kind) = (Instant::now(), |status, client: &str| Kind {
            status,
            client: client.to_owned(),
        });
        let counted = |first| Place::Counted { first };
        assert_eq!(tally.place(kind(429, "a"), false, begin), counted(true));
        for _ in 0..AUDIT_TURNED_AWAY {
            assert_eq!(tally.place(kind(400, "a"), true, begin), Place::Line);
        }
        for _ in 0..3 {
            assert_eq!(tally.place(kind(400, "a"), true, begin), counted(false));
        }
        for number in 0..1000 {
            tally.place(kind(429, &number.to_string()), false, begin);
        }
        assert!(tally.more.len() <= KINDS_MAX + 1, "{:?}", tally.more);
        assert_eq!(tally.more[&kind(400, "a")], 3);
        assert_eq!(tally.more.values().sum::<u64>(), 1004);
        // The next second has lines again.
        assert_eq!(tally.place(kind(400, "a"), true, begin + TOGETHER), Place::Line);
    }
}
