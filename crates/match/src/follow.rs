//! A conversation with the broker to its end: what it says is shown, and what a person pastes meanwhile is delivered.
//!
//! No thread and no runtime: one `poll` waits for the broker, for the terminal and for the answer to a delivery.

use crate::client::{BrokerClient, ClientError};
use crate::paste::{Delivery, query_of};
use crate::terminal::{Terminal, Typed};
use epithet_wire::LoopbackAddress;
use epithet_wire::broker::Reply;
use epithet_wire::display::sanitize_text;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use std::time::Instant;

/// Shows what the broker says by `say` until its last reply, which is a result, an inspection or a list of traces.
///
/// When the plugin can take a pasted address and there is a terminal, lines typed there are read meanwhile.
///
/// # Errors
/// See [`ClientError`].
pub fn follow(broker: &mut BrokerClient, say: &mut dyn FnMut(&str)) -> Result<Reply, ClientError> {
    let mut pasting = None;
    loop {
        if let Some(pasting) = &mut pasting {
            attend(broker, pasting, say)?;
        }
        let reply = broker.next_reply()?;
        if let Some(text) = &reply.output {
            say(&sanitize_text(text.as_bytes()));
        }
        // The broker has looked at the address; so do we, who connect to it.
        if let Some(deliver_to) = reply.paste.as_deref().and_then(|text| text.parse().ok()) {
            pasting = Pasting::begin(deliver_to, pasting.take());
        }
        if reply.result.is_some() || reply.inspect.is_some() || reply.traces.is_some() {
            return Ok(reply);
        }
    }
}

/// A terminal at which an address may be pasted.
struct Pasting {
    deliver_to: LoopbackAddress,
    terminal: Option<Terminal>,
    delivery: Option<Delivery>,
}

impl Pasting {
    fn begin(deliver_to: LoopbackAddress, before: Option<Self>) -> Option<Self> {
        let terminal = match before {
            Some(before) => before.terminal,
            None => Terminal::open(),
        };
        Some(Self {
            deliver_to,
            terminal: Some(terminal?),
            delivery: None,
        })
    }

    fn take_lines(&mut self, say: &mut dyn FnMut(&str)) {
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        let lines = match terminal.read() {
            Typed::Lines(lines) => lines,
            Typed::End => return self.terminal = None,
        };
        for line in lines.iter().filter(|line| !line.is_empty()) {
            match query_of(line) {
                Ok(query) => match Delivery::send(&self.deliver_to, query) {
                    Ok(delivery) => self.delivery = Some(delivery),
                    Err(_) => say("epithet: that login is over; start again\n"),
                },
                Err(problem) => say(&format!("epithet: {problem}\n")),
            }
        }
    }

    fn take_answer(&mut self, say: &mut dyn FnMut(&str)) {
        if let Some(said) = self.delivery.as_mut().and_then(Delivery::answer) {
            self.delivery = None;
            if let Some(problem) = said {
                say(&format!("epithet: {problem}\n"));
            }
        }
    }
}

/// Serves the terminal until the broker has something to say.
fn attend(
    broker: &BrokerClient,
    pasting: &mut Pasting,
    say: &mut dyn FnMut(&str),
) -> Result<(), ClientError> {
    let end = Instant::now() + broker.patience();
    while !broker.has_read_ahead() {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let terminal = (pasting.terminal.as_ref()).filter(|terminal| terminal.is_ours_to_read());
        let delivery = pasting.delivery.as_ref();
        let mut descriptors = vec![readable(broker.as_fd())];
        descriptors.extend(terminal.map(|terminal| readable(terminal.as_fd())));
        let watches_terminal = terminal.is_some();
        descriptors.extend(delivery.map(|delivery| readable(delivery.as_fd())));
        let watches_delivery = delivery.is_some();

        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| ClientError::Silent)?;
        match poll(&mut descriptors, Some(&left)) {
            Ok(0) => return Err(ClientError::Silent),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(ClientError::Io(error.into())),
        }
        let mut ready = descriptors
            .iter()
            .map(|descriptor| !descriptor.revents().is_empty());
        let mut next_is_ready = || ready.next().unwrap_or(false);
        let broker_speaks = next_is_ready();
        let typed = watches_terminal && next_is_ready();
        let answered = watches_delivery && next_is_ready();
        drop(descriptors);
        if typed {
            pasting.take_lines(say);
        } else if answered {
            pasting.take_answer(say);
        }
        if broker_speaks {
            break;
        }
    }
    Ok(())
}
