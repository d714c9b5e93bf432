//! Traces on disk: one JSON object an event, the form that Perfetto and Chrome show, or a packet
//! capture.

mod pcap;
mod perfetto;

use std::io::{self, BufRead, Write};

use serde_json::{Value, json};
use sim::{TraceEvent, TraceSink, Wants};

pub use pcap::Pcap;
pub use perfetto::Perfetto;

/// Writes one JSON object a line. A write that fails is remembered, and told at the end.
#[derive(Debug)]
pub struct Ndjson<W: Write> {
    out: W,
    failed: Option<io::Error>,
}

impl<W: Write> Ndjson<W> {
    /// Writes to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, failed: None }
    }

    /// Ends the trace.
    pub fn finish(mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(why) => Err(why),
            None => self.out.flush(),
        }
    }
}

impl<W: Write> TraceSink for Ndjson<W> {
    fn wants(&self) -> Wants {
        Wants::Notes
    }

    fn event(&mut self, event: TraceEvent) {
        if self.failed.is_none() {
            self.failed = writeln!(self.out, "{}", as_json(&event)).err();
        }
    }
}

/// An event as an object; a packet's payload as its length.
fn as_json(event: &TraceEvent) -> Value {
    let mut object = json!({
        "time_us": event.time_us, "class": event.class, "source": event.source,
        "seq": event.seq, "kind": event.kind,
    });
    if !event.detail.is_null() {
        object["detail"] = event.detail.clone();
    }
    if let Some(packet) = &event.packet {
        object["packet"] = json!({
            "client": packet.client, "direction": format!("{:?}", packet.direction),
            "topic": packet.topic, "bytes": packet.payload.len(), "retain": packet.retain,
        });
    }
    object
}

/// Where two traces part: the number of the first line that differs, and both lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// From 1.
    pub line: u64,
    /// Nothing where a trace had ended.
    pub left: Option<String>,
    pub right: Option<String>,
}

/// Compares two traces line by line; nothing if they are the same.
pub fn diff(left: impl BufRead, right: impl BufRead) -> io::Result<Option<Parting>> {
    let (mut left, mut right) = (left.lines(), right.lines());
    let mut line = 0;
    loop {
        line += 1;
        let (a, b) = (left.next().transpose()?, right.next().transpose()?);
        if a.is_none() && b.is_none() {
            return Ok(None);
        }
        if a != b {
            return Ok(Some(Parting { line, left: a, right: b }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_part_where_they_first_differ() {
        let part = |a: &str, b: &str| diff(a.as_bytes(), b.as_bytes()).unwrap();
        assert_eq!(part("a\nb\n", "a\nb\n"), None);
        let parting = part("a\nb\nc\n", "a\nx\nc\n").unwrap();
        assert_eq!((parting.line, parting.left.as_deref()), (2, Some("b")));
        let parting = part("a\n", "a\nb\n").unwrap();
        assert_eq!((parting.line, parting.left, parting.right.as_deref()), (2, None, Some("b")));
    }

    #[test]
    fn an_event_is_one_line() {
        let mut out = vec![];
        let mut sink = Ndjson::new(&mut out);
        sink.event(event());
        sink.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["time_us"], &value["kind"]), (&json!(5), &json!("publish")));
    }

    pub(super) fn event() -> TraceEvent {
        TraceEvent {
            time_us: 5,
            class: 1,
            source: "proplet-1".into(),
            seq: 2,
            kind: "publish",
            detail: json!({"a": "x\ny"}),
            packet: None,
        }
    }
}
