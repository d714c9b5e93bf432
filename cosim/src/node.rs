//! The node's side: what a program needs in order to live in virtual time.
//!
//! ```no_run
//! use cosim::node::{Service, Step, Window};
//!
//! struct Still;
//!
//! impl Service for Still {
//!     fn advance(&mut self, window: Window) -> Result<Step, String> {
//!         Ok(Step { events: window.events, next_us: None })
//!     }
//! }
//!
//! cosim::node::run(Still).expect("the run has ended as it should");
//! ```

mod agenda;

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
};

use serde_json::Value;

pub use agenda::Agenda;

use crate::{
    launch::ENDPOINT_VARIABLE,
    wire::{
        Answer, Completed, Dialect, Event, Init, LINE_BYTES_MAX, Order, OrderReader, WireError,
    },
};

/// What a node does with its time.
pub trait Service {
    /// Takes its settings, once, before anything else.
    fn init(&mut self, start: Start) -> Result<(), String> {
        let Start { .. } = start;
        Ok(())
    }

    /// Lives through one window of time; what it sends must lie in that window.
    fn advance(&mut self, window: Window) -> Result<Step, String>;
}

/// Who the node is in this run.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Empty where the harness does not say.
    pub node: String,
    pub seed: u64,
    pub config: Value,
}

/// The time a node is given, and what reaches it then.
#[derive(Clone, Debug, Default)]
pub struct Window {
    pub from_us: u64,
    pub to_us: u64,
    pub events: Vec<Event>,
}

/// What a node did in its window.
#[derive(Clone, Debug, Default)]
pub struct Step {
    pub events: Vec<Event>,
    /// When it next acts by itself. `None` where it does not know; `u64::MAX` where it only answers.
    pub next_us: Option<u64>,
}

/// Why a node has ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("{ENDPOINT_VARIABLE}={endpoint:?}: {source}")]
    Endpoint { endpoint: String, source: io::Error },
    #[error("the stream of orders failed: {0}")]
    Io(#[from] io::Error),
    #[error("order {line} is malformed: {source}")]
    Malformed { line: u64, source: WireError },
    #[error("order {line} is longer than {bytes_max} bytes")]
    Oversize { line: u64, bytes_max: usize },
    #[error("order {line}: ADVANCE before INIT")]
    NotInitialised { line: u64 },
    #[error("order {line}: a second INIT")]
    SecondInit { line: u64 },
    #[error("order {line}: time cannot go back from {now_us} us to {to_us} us")]
    Backwards { line: u64, now_us: u64, to_us: u64 },
    #[error(
        "order {line}: event {kind:?} at {time_us:?} us is outside of its window, {from_us} to {to_us} us"
    )]
    OutsideWindow { line: u64, kind: String, time_us: Option<u64>, from_us: u64, to_us: u64 },
    #[error(
        "order {line}: the service would send {kind:?} at {time_us} us, outside of its window, {from_us} to {to_us} us"
    )]
    SentOutsideWindow { line: u64, kind: String, time_us: u64, from_us: u64, to_us: u64 },
    #[error("order {line}: the service failed: {message}")]
    Service { line: u64, message: String },
}

/// Serves on the stream that the environment names, or on stdin and stdout.
pub fn run(service: impl Service) -> Result<(), NodeError> {
    let endpoint = env::var(ENDPOINT_VARIABLE).unwrap_or_else(|_| "stdio".to_owned());
    let failed = |source| NodeError::Endpoint { endpoint: endpoint.clone(), source };
    match endpoint.split_once(':').unwrap_or((&endpoint, "")) {
        ("stdio", "") => serve(io::stdin(), io::stdout().lock(), service),
        ("unix", path) => {
            let stream = UnixStream::connect(path).map_err(failed)?;
            serve(stream.try_clone()?, stream, service)
        }
        ("tcp", address) => {
            let stream = TcpStream::connect(address).map_err(failed)?;
            serve_tcp(stream, service)
        }
        ("listen", address) => {
            let listener = TcpListener::bind(address).map_err(failed)?;
            // Whoever started it with port 0 wants to know which one it is.
            writeln!(io::stderr(), "listening on {}", listener.local_addr()?)?;
            serve_tcp(listener.accept()?.0, service)
        }
        _ => {
            let expected = "expected stdio, unix:<path>, tcp:<address> or listen:<address>";
            Err(failed(io::Error::new(io::ErrorKind::InvalidInput, expected)))
        }
    }
}

fn serve_tcp(stream: TcpStream, service: impl Service) -> Result<(), NodeError> {
    stream.set_nodelay(true)?;
    serve(stream.try_clone()?, stream, service)
}

/// Serves until SHUTDOWN or the end of the orders; what is wrong is answered with ERROR, too.
pub fn serve(reads: impl Read, writes: impl Write, service: impl Service) -> Result<(), NodeError> {
    let mut node = Node { writes, service, dialect: None, now_us: None, line: 0 };
    let result = node.live(&mut BufReader::with_capacity(64 << 10, reads));
    if let Err(error) = &result {
        let dialect = node.dialect.unwrap_or(Dialect::PlainStdio);
        let answer = dialect.write_answer(&Answer::Error(error.to_string()));
        // A harness that has gone cannot be told.
        drop(node.writes.write_all(&answer).and_then(|()| node.writes.flush()));
    }
    result
}

struct Node<W, S> {
    writes: W,
    service: S,
    dialect: Option<Dialect>,
    /// `None` until INIT.
    now_us: Option<u64>,
    line: u64,
}

impl<W: Write, S: Service> Node<W, S> {
    fn live(&mut self, reads: &mut impl BufRead) -> Result<(), NodeError> {
        let mut orders: Option<OrderReader> = None;
        while let Some(bytes) = self.read_line(reads)? {
            let line = self.line;
            let malformed = |source| NodeError::Malformed { line, source };
            let orders = match &mut orders {
                Some(orders) => orders,
                None => {
                    let dialect = Dialect::detect(&bytes).map_err(malformed)?;
                    self.dialect = Some(dialect);
                    orders.insert(OrderReader::new(dialect))
                }
            };
            match orders.take(&bytes).map_err(malformed)? {
                None => {}
                Some(Order::Init(init)) => self.init(init)?,
                Some(Order::Advance(advance)) => self.advance(advance.to_us, advance.events)?,
                Some(Order::Shutdown) => return Ok(()),
            }
        }
        Ok(())
    }

    /// One line without its end; `None` at the end of the orders.
    fn read_line(&mut self, reads: &mut impl BufRead) -> Result<Option<Vec<u8>>, NodeError> {
        self.line += 1;
        let mut line = vec![];
        let limit = LINE_BYTES_MAX as u64 + 1;
        reads.take(limit).read_until(b'\n', &mut line)?;
        if line.last() == Some(&b'\n') {
            line.pop();
            return Ok(Some(line));
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(NodeError::Oversize { line: self.line, bytes_max: LINE_BYTES_MAX });
        }
        // Half a line is what is left of a harness that was killed.
        Ok(None)
    }

    fn init(&mut self, init: Init) -> Result<(), NodeError> {
        if self.now_us.is_some() {
            return Err(NodeError::SecondInit { line: self.line });
        }
        let Init { node, seed, config } = init;
        let started = self.service.init(Start { node, seed, config });
        started.map_err(|message| NodeError::Service { line: self.line, message })?;
        self.now_us = Some(0);
        self.say(&Answer::Ready)
    }

    fn advance(&mut self, to_us: u64, events: Vec<Event>) -> Result<(), NodeError> {
        let line = self.line;
        let from_us = self.now_us.ok_or(NodeError::NotInitialised { line })?;
        if to_us < from_us {
            return Err(NodeError::Backwards { line, now_us: from_us, to_us });
        }
        let inside = |time_us: u64| (from_us..=to_us).contains(&time_us);
        for event in &events {
            if !event.time_us.is_some_and(inside) {
                let (kind, time_us) = (event.kind.clone(), event.time_us);
                return Err(NodeError::OutsideWindow { line, kind, time_us, from_us, to_us });
            }
        }
        let step = self.service.advance(Window { from_us, to_us, events });
        let step = step.map_err(|message| NodeError::Service { line, message })?;
        for event in &step.events {
            if let Some(time_us) = event.time_us
                && !inside(time_us)
            {
                let kind = event.kind.clone();
                return Err(NodeError::SentOutsideWindow { line, kind, time_us, from_us, to_us });
            }
        }
        self.now_us = Some(to_us);
        let (events, next_us) = (step.events, step.next_us);
        self.say(&Answer::Done(Completed { time_us: Some(to_us), events, next_us }))
    }

    fn say(&mut self, answer: &Answer) -> Result<(), NodeError> {
        let dialect = self.dialect.unwrap_or(Dialect::Json);
        self.writes.write_all(&dialect.write_answer(answer))?;
        Ok(self.writes.flush()?)
    }
}
