//! A small machine that adds up what it hears, and a shell that writes down what happens.

use std::time::Duration;

use protocol::{
    Entry, EntryError, Envelope, Filter, Input, Machine, OpenError, Output, Timestamp, Topic,
};
use service::{
    Driver, Effects, Reports, Store, StoreError, SystemClock,
    transport::memory::{Broker, Memory},
};
use tokio::sync::mpsc;

pub(crate) const NAME: &str = "counter";
pub(crate) const TABLES: &[&str] = &["sum", "ballast"];
/// Enough that a commit needs new pages.
const BALLAST_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Counter {
    pub(crate) sum: u64,
    /// How long after each step it wants a tick.
    pub(crate) tick_after: Option<Duration>,
    pub(crate) deadline: Option<Timestamp>,
    /// How often it was told that the broker is gone.
    pub(crate) disconnected: u32,
}

#[derive(Debug)]
pub(crate) struct Number(u64);

impl TryFrom<Envelope> for Number {
    type Error = OpenError;

    fn try_from(envelope: Envelope) -> Result<Self, OpenError> {
        envelope.open().map(Number)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Reached(u64),
    Connected { resumed: bool },
    Ticked,
}

impl Machine for Counter {
    type News = Number;
    type Effect = Effect;
    type Report = u64;

    fn filters(&self) -> Vec<Filter> {
        vec![Filter::Exactly(Topic::TaskResults)]
    }

    fn restore(&mut self, entries: Vec<Entry>) -> Result<(), EntryError> {
        for entry in entries.iter().filter(|entry| entry.table == "sum") {
            self.sum = entry.read()?.unwrap_or_default();
        }
        Ok(())
    }

    fn step(&mut self, input: Input<Number, u64>, now: Timestamp) -> Vec<Output<Effect>> {
        let number = match input {
            Input::News(Number(number)) | Input::Report(number) => number,
            Input::Connected { resumed } => {
                return vec![Output::Effect(Effect::Connected { resumed })];
            }
            Input::Tick => {
                self.deadline = None;
                return vec![Output::Effect(Effect::Ticked)];
            }
        };
        self.sum += number;
        self.deadline = self.deadline.or(self.tick_after.map(|after| now + after));
        let ballast = vec![0; BALLAST_BYTES * usize::from(number == 1000)];
        vec![
            Output::Keep(Entry::put("sum", "sum", &self.sum)),
            Output::Keep(Entry::put_bytes("ballast", "it", ballast)),
            Output::Promise(sum_is(self.sum)),
            Output::Effect(Effect::Reached(self.sum)),
        ]
    }

    fn disconnected(&mut self) {
        self.disconnected += 1;
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }
}

/// What the counter promises when it has reached `sum`.
pub(crate) fn sum_is(sum: u64) -> Envelope {
    Envelope { topic: Topic::TaskMetrics, payload: sum.to_string().into() }
}

/// What the shell has seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Did(Effect),
    Unreadable,
    Connection(bool),
    StorageRefuses,
    StorageTakesAgain,
}

#[derive(Debug)]
pub(crate) struct Diary(mpsc::UnboundedSender<Event>);

impl Diary {
    fn note(&self, event: Event) {
        // Nobody may be reading any more.
        let _ = self.0.send(event);
    }
}

impl Effects<Counter> for Diary {
    fn perform(&mut self, effect: Effect, _report: &mpsc::Sender<u64>) {
        self.note(Event::Did(effect));
    }

    fn unreadable(&mut self, _why: &OpenError) {
        self.note(Event::Unreadable);
    }

    fn connection(&mut self, connected: bool) {
        self.note(Event::Connection(connected));
    }

    fn storage(&mut self, why: Option<&StoreError>) {
        self.note(match why {
            Some(_) => Event::StorageRefuses,
            None => Event::StorageTakesAgain,
        });
    }
}

pub(crate) type CounterDriver = Driver<Counter, Diary, Memory, SystemClock>;

pub(crate) fn driver(
    broker: &Broker,
    store: Store,
    machine: Counter,
) -> (CounterDriver, mpsc::UnboundedReceiver<Event>) {
    let (events, read) = mpsc::unbounded_channel();
    let driver = Driver {
        machine,
        effects: Diary(events),
        transport: broker.connect(NAME, None),
        store,
        clock: SystemClock,
        reports: Reports::new(),
    };
    (driver, read)
}
