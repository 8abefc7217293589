//! What became of the last connections, phase by phase: for whoever asks why a login took so long, or failed.
//!
//! Only in memory, only the newest, and nothing secret in it.

use epithet_agent::Watcher;
use epithet_wire::limits::{TRACE_PHASES_MAX, TRACES_MAX};
use epithet_wire::trace::{Phase, Trace};
use epithet_wire::{Connection, RequestId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What a connection ended with before it has.
const UNDER_WAY: &str = "under way";

/// The newest connections, at most [`TRACES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Traces {
    newest: Mutex<VecDeque<Arc<Recorder>>>,
}

/// Writes down one connection's phases as they end. Clones of the `Arc` write into the same trace.
#[derive(Debug)]
pub(crate) struct Recorder {
    began: Instant,
    /// The phase that has begun and not ended.
    open: Mutex<Option<(&'static str, Instant)>>,
    /// In a box of its own, which goes with the last recorder, while agents keep the recorder's place.
    trace: Mutex<Box<Trace>>,
}

impl Traces {
    /// Begins a trace, and forgets the oldest when there are too many. `asked` is when ssh's question came.
    pub(crate) fn begin(
        &self,
        connection: &Connection,
        request_id: &RequestId,
        asked: Instant,
    ) -> Arc<Recorder> {
        let recorder = Arc::new(Recorder {
            began: asked,
            open: Mutex::default(),
            trace: Mutex::new(Box::new(Trace {
                request_id: request_id.to_string(),
                host: connection.remote_host.to_string(),
                user: connection.remote_user.to_string(),
                port: connection.port,
                outcome: UNDER_WAY.to_owned(),
                started_at: jiff::Timestamp::now().checked_sub(asked.elapsed()).ok(),
                phases: Vec::new(),
            })),
        });
        let mut newest = self.newest();
        while newest.len() >= TRACES_MAX {
            newest.pop_front();
        }
        newest.push_back(Arc::clone(&recorder));
        recorder
    }

    /// All of them, the newest last.
    pub(crate) fn all(&self) -> Vec<Trace> {
        let recorders: Vec<_> = self.newest().iter().cloned().collect();
        recorders.iter().map(|recorder| recorder.so_far()).collect()
    }

    fn newest(&self) -> MutexGuard<'_, VecDeque<Arc<Recorder>>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// Writes down a phase that began then and ends now.
    pub(crate) fn phase(&self, name: &str, began: Instant, note: impl Into<String>) {
        self.phase_of(name, began, began.elapsed(), note);
    }

    /// Writes down a phase whose length is known from elsewhere. An empty note is none.
    pub(crate) fn phase_of(&self, name: &str, began: Instant, took: Duration, note: impl Into<String>) {
        let mut trace = self.trace();
        if trace.phases.len() < TRACE_PHASES_MAX {
            trace.phases.push(Phase {
                name: name.to_owned(),
                start_ms: milliseconds(began.saturating_duration_since(self.began)),
                duration_ms: milliseconds(took),
                note: Some(note.into()).filter(|note| !note.is_empty()),
            });
        }
    }

    /// Begins a phase that may take long: it is seen while it lasts.
    pub(crate) fn open(&self, name: &'static str) -> OpenPhase<'_> {
        let began = Instant::now();
        *self.opened() = Some((name, began));
        OpenPhase {
            recorder: self,
            name,
            began,
            note: None,
        }
    }

    fn opened(&self) -> MutexGuard<'_, Option<(&'static str, Instant)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how the connection ended; the last word holds.
    pub(crate) fn conclude(&self, outcome: &str) {
        outcome.clone_into(&mut self.trace().outcome);
    }

    /// This connection found the agent of another request.
    pub(crate) fn belongs_to(&self, request_id: &RequestId) {
        self.trace().request_id = request_id.to_string();
    }

    fn so_far(&self) -> Trace {
        let mut trace = Trace::clone(&self.trace());
        if let Some((name, began)) = *self.opened() {
            trace.phases.push(Phase {
                name: name.to_owned(),
                start_ms: milliseconds(began.saturating_duration_since(self.began)),
                duration_ms: milliseconds(began.elapsed()),
                note: Some("so far".to_owned()),
            });
        }
        trace.phases.sort_by(|a, b| a.start_ms.total_cmp(&b.start_ms));
        trace
    }

    fn trace(&self) -> MutexGuard<'_, Box<Trace>> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A phase that has begun. Dropped before [`end`](Self::end), it says that its ssh is gone, and so does the trace.
#[derive(Debug)]
#[must_use]
pub(crate) struct OpenPhase<'a> {
    recorder: &'a Recorder,
    name: &'static str,
    began: Instant,
    note: Option<&'static str>,
}

impl OpenPhase<'_> {
    /// Writes it down.
    pub(crate) fn end(mut self, note: &'static str) {
        self.note = Some(note);
    }
}

impl Drop for OpenPhase<'_> {
    fn drop(&mut self) {
        *self.recorder.opened() = None;
        let note = self.note.unwrap_or("ssh went away");
        self.recorder.phase(self.name, self.began, note);
        if self.note.is_none() {
            self.recorder.conclude("ssh was ended while it waited");
        }
    }
}

/// To the microsecond: more would be noise.
fn milliseconds(duration: Duration) -> f64 {
    let microseconds = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(microseconds) / 1000.0
}

/// What an agent tells goes into the trace of the connection that ssh asked about last, for as long as that is kept: an
/// agent lives longer than most traces, and there may be thousands.
#[derive(Debug)]
pub(crate) struct AgentWatch {
    recorder: Mutex<Weak<Recorder>>,
}

impl AgentWatch {
    pub(crate) fn new(recorder: &Arc<Recorder>) -> Self {
        Self {
            recorder: Mutex::new(Arc::downgrade(recorder)),
        }
    }

    /// The agent serves a newer connection from now on.
    pub(crate) fn follow(&self, recorder: &Arc<Recorder>) {
        *self.recorder.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(recorder);
    }

    fn write(&self, name: &str, began: Instant, note: impl Into<String>) {
        let recorder = self
            .recorder
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .upgrade();
        if let Some(recorder) = recorder {
            recorder.phase(name, began, note);
        }
    }
}

impl Watcher for AgentWatch {
    fn listed(&self, began: Instant, keys: usize) {
        let note = match keys {
            0 => "no key".to_owned(),
            1 => String::new(),
            keys => format!("{keys} keys"),
        };
        self.write("list", began, note);
    }

    fn signed(&self, began: Instant) {
        self.write("sign", began, "");
    }

    fn refused(&self, began: Instant, reason: &str) {
        self.write("sign", began, format!("refused {reason}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epithet_wire::ConnectionFields;

    fn begin(traces: &Traces, host: &str) -> Arc<Recorder> {
        let connection = ConnectionFields {
            remote_host: host.into(),
            remote_user: "root".into(),
            port: 22,
            hash: "a".repeat(40),
            ..ConnectionFields::default()
        };
        let request_id = RequestId::from_random([1; 8]);
        traces.begin(&connection.check().unwrap(), &request_id, Instant::now())
    }

    #[test]
    fn the_newest_are_kept_and_the_newest_is_last() {
        let traces = Traces::default();
        for number in 0..=TRACES_MAX {
            begin(&traces, &format!("host{number}"));
        }
        let all = traces.all();
        assert_eq!(all.len(), TRACES_MAX);
        assert_eq!(all[0].host, "host1");
        assert_eq!(all[TRACES_MAX - 1].host, format!("host{TRACES_MAX}"));
        assert_eq!(all[0].outcome, UNDER_WAY);
    }

    #[test]
    fn a_phase_is_seen_while_it_lasts_and_when_its_ssh_goes_away() {
        let traces = Traces::default();
        let recorder = begin(&traces, "web");
        let shown = || {
            let trace = traces.all().remove(0);
            let phase = &trace.phases[trace.phases.len() - 1];
            (phase.name.clone(), phase.note.clone().unwrap(), trace.outcome)
        };
        let expect = |note: &str, outcome: &str| {
            assert_eq!(shown(), ("login".to_owned(), note.to_owned(), outcome.to_owned()));
        };
        let phase = recorder.open("login");
        expect("so far", UNDER_WAY);
        phase.end("new token");
        expect("new token", UNDER_WAY);
        drop(recorder.open("login"));
        expect("ssh went away", "ssh was ended while it waited");
        assert_eq!(traces.all()[0].phases.len(), 2);
    }

    #[test]
    fn an_agent_keeps_no_trace_alive_that_is_forgotten() {
        let traces = Traces::default();
        let watch = AgentWatch::new(&begin(&traces, "web"));
        watch.signed(Instant::now());
        assert_eq!(traces.all()[0].phases.len(), 1);
        for _ in 0..TRACES_MAX {
            begin(&traces, "other");
        }
        assert_eq!(watch.recorder.lock().unwrap().strong_count(), 0);
        watch.signed(Instant::now());
    }

    #[test]
    fn phases_stand_in_the_order_in_which_they_began_and_are_bounded() {
        let traces = Traces::default();
        let recorder = begin(&traces, "web");
        let second = Duration::from_secs(1);
        let began = recorder.began;
        recorder.phase_of("ca", began + second, 2 * second, "https://ca");
        recorder.phase_of("login", began, second, "");
        recorder.conclude("certificate");
        let trace = &traces.all()[0];
        let shown: Vec<_> = trace
            .phases
            .iter()
            .map(|phase| {
                (
                    phase.name.as_str(),
                    phase.start_ms,
                    phase.duration_ms,
                    phase.note.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("login", 0.0, 1000.0, None),
                ("ca", 1000.0, 2000.0, Some("https://ca"))
            ]
        );
        assert_eq!(trace.outcome, "certificate");
        for _ in 0..2 * TRACE_PHASES_MAX {
            recorder.phase("sign", began, "");
        }
        assert_eq!(traces.all()[0].phases.len(), TRACE_PHASES_MAX);
    }
}
