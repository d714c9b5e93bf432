//! The co-simulation protocol as lines: orders to a node, its answers, and the dialects they are written in.
//!
//! ```text
//! harness                                node
//!   INIT     node, seed, config   ----->
//!                                 <-----  READY
//!   ADVANCE  to_us, events        ----->
//!                                 <-----  DONE  to_us, events, next_us
//!   SHUTDOWN                      ----->  (ends)
//! ```
//! At any time a node may answer `ERROR` with a text, and end. Nothing here reads or writes: lines come in, values
//! come out.

mod error;
mod event;
mod json;
mod plain;

pub use error::WireError;
pub use event::Event;

use serde_json::Value;

pub(crate) use error::excerpt;

/// The longest line that either side accepts, without its end.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// What the harness tells a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    Init(Init),
    Advance(Advance),
    Shutdown,
}

/// The first order: who the node is, and what it is to use.
#[derive(Clone, Debug, PartialEq)]
pub struct Init {
    /// The node's id in the scenario; empty where the dialect does not carry it.
    pub node: String,
    pub seed: u64,
    /// The node's own settings: an object, as the scenario has them.
    pub config: Value,
}

/// Leave to live up to a time, with what reaches the node until then.
#[derive(Clone, Debug, PartialEq)]
pub struct Advance {
    pub to_us: u64,
    pub events: Vec<Event>,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Ready,
    Done(Completed),
    /// The node cannot go on, and says why.
    Error(String),
}

/// A node has lived up to the time that it was given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completed {
    /// The time it was given, echoed; the plain dialects do not.
    pub time_us: Option<u64>,
    pub events: Vec<Event>,
    /// When the node next acts by itself, if nothing reaches it before.
    pub next_us: Option<u64>,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// One JSON object on each line.
    Json,
    /// `INIT <node> <config>`, `ADVANCE <time>` and its events on the next line: xEdgeSim over TCP.
    PlainTcp,
    /// `INIT <config>`, `ADVANCE <time>` and its events on the same or the next line: xEdgeSim over pipes.
    PlainStdio,
}

/// Every dialect, for suites that try each of them.
pub const DIALECTS: &[Dialect] = &[Dialect::Json, Dialect::PlainTcp, Dialect::PlainStdio];

impl Dialect {
    /// What the harness speaks, by its first line.
    pub fn detect(line: &[u8]) -> Result<Self, WireError> {
        let text = text(line)?;
        if text.starts_with('{') {
            return Ok(Self::Json);
        }
        match plain::keyword(text) {
            ("INIT", rest) if rest.is_empty() || rest.starts_with('{') => Ok(Self::PlainStdio),
            ("INIT", _) => Ok(Self::PlainTcp),
            // Whoever begins with another order is told so in the dialect that has the fewest demands.
            ("ADVANCE" | "SHUTDOWN", _) => Ok(Self::PlainStdio),
            _ => Err(WireError::UnknownDialect { line: excerpt(text) }),
        }
    }

    /// One order, as its lines with their ends.
    #[must_use]
    pub fn write_order(self, order: &Order) -> Vec<u8> {
        match self {
            Self::Json => json::write_order(order),
            Self::PlainTcp | Self::PlainStdio => plain::write_order(self, order),
        }
    }

    /// One answer, as its lines with their ends.
    #[must_use]
    pub fn write_answer(self, answer: &Answer) -> Vec<u8> {
        match self {
            Self::Json => json::write_answer(answer),
            Self::PlainTcp | Self::PlainStdio => plain::write_answer(self, answer),
        }
    }
}

/// Puts orders together from lines: the plain dialects spread one order over two.
#[derive(Debug)]
pub struct OrderReader {
    dialect: Dialect,
    /// The time of an ADVANCE whose events come with the next line.
    begun_us: Option<u64>,
}

impl OrderReader {
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, begun_us: None }
    }

    /// Takes one line without its end; `None` means that the order goes on.
    pub fn take(&mut self, line: &[u8]) -> Result<Option<Order>, WireError> {
        let text = text(line)?;
        match self.dialect {
            Dialect::Json => json::read_order(text).map(Some),
            Dialect::PlainTcp | Dialect::PlainStdio => {
                plain::read_order(self.dialect, &mut self.begun_us, text)
            }
        }
    }
}

/// Puts answers together from lines.
#[derive(Debug)]
pub struct AnswerReader {
    dialect: Dialect,
    /// A DONE whose events come with the next line.
    begun: bool,
}

impl AnswerReader {
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, begun: false }
    }

    /// Takes one line without its end; `None` means that the answer goes on.
    pub fn take(&mut self, line: &[u8]) -> Result<Option<Answer>, WireError> {
        let text = text(line)?;
        match self.dialect {
            Dialect::Json => json::read_answer(text).map(Some),
            Dialect::PlainTcp | Dialect::PlainStdio => plain::read_answer(&mut self.begun, text),
        }
    }
}

/// A line as text, without the carriage return that some nodes add.
fn text(line: &[u8]) -> Result<&str, WireError> {
    let text = std::str::from_utf8(line)
        .map_err(|error| WireError::NotText { at: error.valid_up_to() })?;
    Ok(text.trim_matches([' ', '\t', '\r']))
}
