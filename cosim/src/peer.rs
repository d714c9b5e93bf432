//! A node outside of this process, as the world sees it: strict about all that it says, and when.

mod fault;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use sim::{Done, Peer, PeerError, PeerEvent};

pub use fault::Fault;

use crate::{
    channel::{Channel, ChannelError},
    launch::Keeper,
    wire::{Advance, Answer, AnswerReader, Completed, Dialect, Event, Init, Order, excerpt},
};

/// How long a node is waited for, in wall time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From INIT to READY: a node may load a model meanwhile.
    pub ready: Duration,
    /// From ADVANCE to DONE.
    pub silence: Duration,
    /// From SHUTDOWN to its end, before it is killed.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ready: Duration::from_secs(30),
            silence: Duration::from_secs(30),
            farewell: Duration::from_secs(5),
        }
    }
}

/// Who a node is, and what it is held to.
#[derive(Clone, Debug)]
pub struct Contact {
    pub node: String,
    pub dialect: Dialect,
    pub limits: Limits,
    /// Everybody that an event may be sent to.
    pub known: Arc<BTreeSet<String>>,
}

/// A node that has answered READY. After its first fault it is ended, and every further call is refused.
pub struct NodePeer {
    contact: Contact,
    channel: Channel,
    keeper: Option<Box<dyn Keeper>>,
    answers: AnswerReader,
    now_us: u64,
    /// The time of the ADVANCE that is not answered yet.
    asked_us: Option<u64>,
    /// The line that is being judged.
    line: Option<Vec<u8>>,
    over: bool,
}

impl fmt::Debug for NodePeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePeer").field("contact", &self.contact).finish_non_exhaustive()
    }
}

impl NodePeer {
    /// Sends INIT, and waits for READY.
    pub fn meet(
        contact: Contact,
        channel: Channel,
        keeper: Option<Box<dyn Keeper>>,
        seed: u64,
        config: serde_json::Value,
    ) -> Result<Self, PeerError> {
        let answers = AnswerReader::new(contact.dialect);
        let init = Order::Init(Init { node: contact.node.clone(), seed, config });
        let (now_us, asked_us, line, over) = (0, None, None, false);
        let mut peer = Self { contact, channel, keeper, answers, now_us, asked_us, line, over };
        match peer.greet(&init) {
            Ok(()) => Ok(peer),
            Err(fault) => Err(peer.fail(&fault)),
        }
    }

    fn greet(&mut self, init: &Order) -> Result<(), Fault> {
        let limit = self.contact.limits.ready;
        self.channel.send(&self.contact.dialect.write_order(init), limit)?;
        match self.answer(limit)? {
            Answer::Ready => Ok(()),
            Answer::Done(_) => Err(Fault::Unexpected { expected: "READY", found: "DONE" }),
            Answer::Error(message) => Err(Fault::Told { message: excerpt(&message) }),
        }
    }

    fn ask(&mut self, to_us: u64, events: Vec<PeerEvent>) -> Result<(), Fault> {
        if self.over {
            return Err(Fault::Over);
        }
        if let Some(asked_us) = self.asked_us {
            return Err(Fault::Busy { asked_us });
        }
        if to_us < self.now_us {
            return Err(Fault::Backwards { now_us: self.now_us, to_us });
        }
        if let Some(line) = self.channel.unasked()? {
            self.line = Some(line);
            return Err(Fault::OutOfTurn);
        }
        let from_us = self.now_us;
        let given = events.into_iter().map(|event| given(event, from_us, to_us));
        let events = given.collect::<Result<_, _>>()?;
        let order = Order::Advance(Advance { to_us, events });
        self.asked_us = Some(to_us);
        self.channel
            .send(&self.contact.dialect.write_order(&order), self.contact.limits.silence)?;
        Ok(())
    }

    fn hear(&mut self) -> Result<Done, Fault> {
        if self.over {
            return Err(Fault::Over);
        }
        let to_us = self.asked_us.ok_or(Fault::NotAsked)?;
        let done = match self.answer(self.contact.limits.silence)? {
            Answer::Done(done) => self.judge(done, to_us)?,
            Answer::Ready => return Err(Fault::Unexpected { expected: "DONE", found: "READY" }),
            Answer::Error(message) => return Err(Fault::Told { message: excerpt(&message) }),
        };
        self.asked_us = None;
        self.now_us = to_us;
        self.line = None;
        Ok(done)
    }

    /// Reads lines until an answer is whole.
    fn answer(&mut self, limit: Duration) -> Result<Answer, Fault> {
        loop {
            let line = self.channel.receive(limit)?;
            let taken = self.answers.take(&line);
            self.line = Some(line);
            if let Some(answer) = taken? {
                return Ok(answer);
            }
        }
    }

    fn judge(&self, done: Completed, to_us: u64) -> Result<Done, Fault> {
        let Completed { time_us, events, next_us } = done;
        if let Some(echoed_us) = time_us
            && echoed_us != to_us
        {
            return Err(Fault::WrongTime { asked_us: to_us, echoed_us });
        }
        if let Some(next_us) = next_us
            && next_us <= to_us
        {
            return Err(Fault::NextInThePast { now_us: to_us, next_us });
        }
        let taken = events.into_iter().map(|event| self.taken(event, to_us));
        Ok(Done { next_us, events: taken.collect::<Result<_, _>>()? })
    }

    /// One event from the node, held to its window, its sender and its destination.
    fn taken(&self, event: Event, to_us: u64) -> Result<PeerEvent, Fault> {
        let Event { time_us, kind, src, dst, payload, size_bytes } = event;
        // An event without a time happens when its window begins: so the original's services mean it.
        let time_us = time_us.unwrap_or(self.now_us);
        if time_us < self.now_us || time_us > to_us {
            return Err(Fault::OutsideWindow { kind, time_us, from_us: self.now_us, to_us });
        }
        let src = match self.contact.dialect {
            Dialect::Json => src.unwrap_or_else(|| self.contact.node.clone()),
            // A node of the plain dialects may not know its id in the scenario.
            Dialect::PlainTcp | Dialect::PlainStdio => self.contact.node.clone(),
        };
        if src != self.contact.node {
            return Err(Fault::ForeignSource { kind, src: excerpt(&src) });
        }
        let dst = match dst {
            // The original's services leave it out for what only an observer wants to know.
            None => String::new(),
            Some(dst) if self.contact.known.contains(&dst) => dst,
            Some(dst) => return Err(Fault::UnknownDestination { kind, dst: excerpt(&dst) }),
        };
        Ok(PeerEvent { time_us, kind, src, dst, payload, size_bytes })
    }

    /// Ends the node, and says what went wrong with it, where and when.
    fn fail(&mut self, fault: &Fault) -> PeerError {
        let mut what = fault.to_string();
        let is_closed = matches!(fault, Fault::Channel(ChannelError::Closed));
        let fate = self.keeper.as_mut().filter(|_| is_closed).and_then(|keeper| keeper.fate());
        let tail = self.channel.tail();
        let last_words = if fate.is_some() { tail.last_words() } else { tail.text() };
        if let Some(fate) = fate {
            what = format!("{what}: {fate}");
        }
        if !last_words.is_empty() && !self.over {
            what = format!("{what}; its last words: {last_words}");
        }
        self.over = true;
        if let Some(keeper) = &mut self.keeper {
            keeper.stop(Duration::ZERO);
        }
        PeerError {
            node: self.contact.node.clone(),
            time_us: self.asked_us.unwrap_or(self.now_us),
            line: self.line.take().filter(|_| fault.is_about_a_line()).map(|line| shown(&line)),
            what,
        }
    }
}

impl Peer for NodePeer {
    fn begin(&mut self, to_us: u64, events: Vec<PeerEvent>) -> Result<(), PeerError> {
        self.ask(to_us, events).map_err(|fault| self.fail(&fault))
    }

    fn finish(&mut self) -> Result<Done, PeerError> {
        self.hear().map_err(|fault| self.fail(&fault))
    }

    fn shutdown(&mut self) {
        if !self.over {
            let order = self.contact.dialect.write_order(&Order::Shutdown);
            // Whoever does not take it in is stopped all the same.
            drop(self.channel.send(&order, self.contact.limits.farewell));
        }
        self.over = true;
        if let Some(keeper) = &mut self.keeper {
            keeper.stop(self.contact.limits.farewell);
        }
    }
}

/// One event for the node; that it lies in its window is our own promise.
fn given(event: PeerEvent, from_us: u64, to_us: u64) -> Result<Event, Fault> {
    let PeerEvent { time_us, kind, src, dst, payload, size_bytes } = event;
    if time_us < from_us || time_us > to_us {
        return Err(Fault::GivenOutsideWindow { kind, time_us, from_us, to_us });
    }
    Ok(Event { time_us: Some(time_us), kind, src: Some(src), dst: Some(dst), payload, size_bytes })
}

/// A line as an error shows it.
fn shown(line: &[u8]) -> String {
    // More than the longest excerpt takes need not be looked at.
    let head = &line[..line.len().min(4 * 200)];
    excerpt(&String::from_utf8_lossy(head))
}
