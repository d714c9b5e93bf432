//! What it means to take part: be told the time and the news, answer with what should be done.
//!
//! ```text
//!               Input                          Output
//! News    ---+                          +---> Keep, Promise   one transaction, first
//! Report  ---+--> Machine::step(now) ---+---> acknowledge the news to the broker
//! Tick    ---+                          +---> Publish, Listen, Unlisten, Effect
//! Connected -+
//! ```
//!
//! Wall-clock services, the simulator and the co-simulation bridge all drive this one trait. A
//! machine's memory is its entries: after a crash it is rebuilt from them by
//! [`Machine::restore`], and whatever it did not keep, it has to be able to lose.

use std::fmt::Debug;

use crate::{Entry, EntryError, Envelope, Filter, OpenError, Timestamp};

/// A role, without its sockets, files and clocks.
pub trait Machine: Sized {
    /// What this role understands; a role that must not look inside keeps the payload sealed.
    type News: TryFrom<Envelope, Error = OpenError> + Debug;
    /// Something only a shell can do: train, aggregate, write a file, answer a caller.
    type Effect: Debug;
    /// What came of an effect, or what a caller of the shell asks for.
    type Report: Debug;

    /// What this role listens to from the start.
    fn filters(&self) -> Vec<Filter>;

    /// Takes back what was kept before a restart, all tables, keys in order. Called once, before
    /// the first step; the next input is [`Input::Connected`].
    fn restore(&mut self, entries: Vec<Entry>) -> Result<(), EntryError>;

    /// Is told one thing, answers with everything that follows from it.
    fn step(
        &mut self,
        input: Input<Self::News, Self::Report>,
        now: Timestamp,
    ) -> Vec<Output<Self::Effect>>;

    /// The broker is gone: silence says nothing until the next [`Input::Connected`]. For those who
    /// conclude anything from silence; nothing follows from it at once.
    fn disconnected(&mut self) {}

    /// When to step with [`Input::Tick`]; an early tick changes nothing.
    fn deadline(&self) -> Option<Timestamp>;
}

/// Whether what a machine keeps will ever be read back. Where it will not, as in a simulation
/// without crashes, the machine need not put it into words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Records {
    #[default]
    Kept,
    NeverRead,
}

impl Records {
    /// Keeps what `entry` says, if anybody will read it.
    pub fn keep<Effect>(self, out: &mut Vec<Output<Effect>>, entry: impl FnOnce() -> Entry) {
        match self {
            Self::Kept => out.push(Output::Keep(entry())),
            Self::NeverRead => {}
        }
    }
}

/// What a machine is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<News, Report> {
    News(News),
    Report(Report),
    /// The broker is there (again). Without a resumed session it may have forgotten everything.
    Connected {
        resumed: bool,
    },
    Tick,
}

/// What a machine wants done. Everything kept or promised in a step is durable before the rest of
/// the step happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Output<Effect> {
    /// Remember this.
    Keep(Entry),
    /// Say this at least once, whatever happens to this process from now on.
    Promise(Envelope),
    /// Say this now; the machine itself knows when to say it again.
    Publish(Envelope),
    /// Hear this, too, from now on.
    Listen(Filter),
    /// No longer hear this.
    Unlisten(Filter),
    /// Let the shell do this.
    Effect(Effect),
}
