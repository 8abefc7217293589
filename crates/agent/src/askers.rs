//! Who may log in through an agent without binding its connection to a session.
//!
//! OpenSSH before 8.9 and most libraries do not send `session-bind@openssh.com`. Such a client cannot say that a
//! connection comes from a remote host to which it forwards the agent, so that host could have logins signed. What
//! tells the two apart is the time: the process that logs in asked for this connection first (ssh's `Match exec`, whose
//! parent is that ssh), connects once to log in, and forwards only afterwards. So each question is worth one
//! connection of the process that asked; and once a client that does not bind has used an agent, every other connection
//! to it is suspect, bound or not: the remote host's own ssh may be a newer one, which binds.

use epithet_wire::limits::AGENT_ASKERS_MAX;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// The processes that asked for a connection and have not connected to its agent yet.
#[derive(Debug, Clone, Default)]
pub struct Askers(Arc<Mutex<VecDeque<u32>>>);

impl Askers {
    /// A process has asked. 0 is one whose id is not known, and stands for any.
    ///
    /// Asking twice before connecting is worth no more than asking once: ssh may read its configuration twice.
    pub fn asked(&self, process: u32) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.contains(&process) {
            return;
        }
        // Those who ask and never come are forgotten, the oldest first.
        if waiting.len() >= AGENT_ASKERS_MAX {
            waiting.pop_front();
        }
        waiting.push_back(process);
    }

    /// A process connects. Whether this is the connection that it asked for; the next one is not.
    pub(crate) fn connects(&self, process: Option<u32>) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = process.and_then(|process| waiting.iter().position(|asked| *asked == process));
        let place = own.or_else(|| waiting.iter().position(|asked| *asked == 0));
        place.and_then(|place| waiting.remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_worth_one_connection_of_the_process_that_asked() {
        let askers = Askers::default();
        assert!(!askers.connects(Some(7)));
        askers.asked(7);
        askers.asked(7);
        assert!(!askers.connects(Some(8)));
        assert!(!askers.connects(None));
        assert!(askers.connects(Some(7)));
        assert!(
            !askers.connects(Some(7)),
            "asked twice, it was still one question"
        );
        askers.asked(7);
        assert!(askers.connects(Some(7)), "it asked again");
    }

    #[test]
    fn an_unknown_process_stands_for_one_connection_of_anybody() {
        let askers = Askers::default();
        askers.asked(0);
        askers.asked(9);
        assert!(askers.connects(Some(9)), "with its own question");
        assert!(askers.connects(None));
        assert!(!askers.connects(Some(8)));
    }

    #[test]
    fn of_too_many_that_never_come_the_oldest_is_forgotten() {
        let askers = Askers::default();
        for process in 1..=u32::try_from(AGENT_ASKERS_MAX).unwrap() {
            askers.asked(process);
        }
        assert!(askers.connects(Some(1)), "the limit itself is kept");
        for process in 0..2 {
            askers.asked(1_000_000 + process);
        }
        assert!(!askers.connects(Some(2)), "one more is not");
        assert!(askers.connects(Some(3)));
    }
}
