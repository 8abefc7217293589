//! What a run of the plugin has said so far, and to whom: those who join late are told all of it, in order.

use crate::voice::Voice;
use epithet_wire::LoopbackAddress;
use epithet_wire::limits::PROGRESS_MAX;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug)]
pub(crate) struct Transcript {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Said before the first words of the plugin; gone once it was said.
    introduction: Option<String>,
    text: String,
    /// Where a pasted address may be delivered, as the plugin said last.
    paste: Option<LoopbackAddress>,
    voices: Vec<(u64, Voice)>,
    joined: u64,
}

impl Transcript {
    pub(crate) fn new(introduction: String) -> Self {
        Self {
            inner: Mutex::new(Inner {
                introduction: Some(introduction),
                text: String::new(),
                paste: None,
                voices: Vec::new(),
                joined: 0,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a listener, who first hears everything that was said. Speaking never blocks, so the lock is short.
    ///
    /// The number is for [`Self::leave`].
    pub(crate) fn join(&self, voice: &Voice) -> u64 {
        let mut inner = self.inner();
        if !inner.text.is_empty() {
            voice.say(&inner.text);
        }
        if let Some(deliver_to) = &inner.paste {
            voice.offer_paste(deliver_to);
        }
        inner.joined += 1;
        let number = inner.joined;
        inner.voices.push((number, voice.clone()));
        number
    }

    /// Lets go of a listener who has gone, and of the stderr they passed along.
    pub(crate) fn leave(&self, number: u64) {
        self.inner().voices.retain(|(other, _)| *other != number);
    }

    /// Says something to everybody and remembers it, up to [`PROGRESS_MAX`] bytes of the newest.
    pub(crate) fn say(&self, text: &str) {
        let mut inner = self.inner();
        let mut words = inner.introduction.take().unwrap_or_default();
        words.push_str(text);
        inner.text.push_str(&words);
        if inner.text.len() > PROGRESS_MAX {
            let excess = inner.text.len() - PROGRESS_MAX;
            let cut = (excess..=inner.text.len()).find(|at| inner.text.is_char_boundary(*at));
            inner.text.drain(..cut.unwrap_or(0));
        }
        for (_, voice) in &inner.voices {
            voice.say(&words);
        }
    }

    /// Tells everybody who could paste an address, now or later, where to deliver it.
    pub(crate) fn offer_paste(&self, deliver_to: LoopbackAddress) {
        let mut inner = self.inner();
        for (_, voice) in &inner.voices {
            voice.offer_paste(&deliver_to);
        }
        inner.paste = Some(deliver_to);
    }

    /// Says something only if nothing was said yet, without remembering it as the plugin's words.
    pub(crate) fn say_if_silent(&self, text: &str) {
        let inner = self.inner();
        if inner.text.is_empty() {
            for (_, voice) in &inner.voices {
                voice.say(text);
            }
        }
    }

    /// Lets go of the listeners.
    pub(crate) fn close(&self) {
        self.inner().voices.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(receiver: &mut tokio::sync::mpsc::Receiver<epithet_wire::broker::Reply>) -> String {
        let mut text = String::new();
        while let Ok(reply) = receiver.try_recv() {
            text.push_str(&reply.output.unwrap_or_default());
        }
        text
    }

    #[test]
    fn a_late_joiner_hears_all_of_it_in_order() {
        let transcript = Transcript::new("intro\n".to_owned());
        let (first, mut first_ear) = Voice::new(None, true);
        let (late, mut late_ear) = Voice::new(None, true);
        transcript.join(&first);
        transcript.say("one\n");
        transcript.say("two\x1b[2J\n");
        transcript.join(&late);
        transcript.say("three\n");
        for ear in [&mut first_ear, &mut late_ear] {
            assert_eq!(heard(ear), "intro\none\ntwo[2J\nthree\n");
        }
    }

    #[test]
    fn those_at_a_terminal_are_told_where_to_paste_and_late_joiners_the_last_place_only() {
        let transcript = Transcript::new(String::new());
        let (first, mut first_ear) = Voice::new(None, true);
        let (editor, mut editor_ear) = Voice::new(None, false);
        let (late, mut late_ear) = Voice::new(None, true);
        transcript.join(&first);
        transcript.join(&editor);
        transcript.offer_paste("http://127.0.0.1:1/cb".parse().unwrap());
        transcript.offer_paste("http://127.0.0.1:2/cb".parse().unwrap());
        transcript.join(&late);
        let offers = |ear: &mut tokio::sync::mpsc::Receiver<_>| {
            let mut offers: Vec<String> = Vec::new();
            while let Ok(epithet_wire::broker::Reply { paste, .. }) = ear.try_recv() {
                offers.extend(paste);
            }
            offers
        };
        assert_eq!(
            offers(&mut first_ear),
            ["http://127.0.0.1:1/cb", "http://127.0.0.1:2/cb"]
        );
        assert_eq!(offers(&mut late_ear), ["http://127.0.0.1:2/cb"]);
        assert!(offers(&mut editor_ear).is_empty());
    }

    #[test]
    fn a_flood_is_remembered_only_at_its_end() {
        let transcript = Transcript::new(String::new());
        for _ in 0..100 {
            transcript.say(&"\u{e4}".repeat(2000));
        }
        assert!(transcript.inner().text.len() <= PROGRESS_MAX);
    }
}
