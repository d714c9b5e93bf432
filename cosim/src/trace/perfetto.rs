//! The JSON that Perfetto and Chrome's tracing page show: one track a node.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde_json::{Value, json};
use sim::{TraceEvent, TraceSink, Wants};

/// Writes a JSON array of instant events, and the names of the tracks.
#[derive(Debug)]
pub struct Perfetto<W: Write> {
    out: W,
    tracks: BTreeMap<String, usize>,
    written: u64,
    failed: Option<io::Error>,
}

impl<W: Write> Perfetto<W> {
    /// Writes to `out`.
    pub const fn new(out: W) -> Self {
        Self { out, tracks: BTreeMap::new(), written: 0, failed: None }
    }

    /// Ends the trace.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(why) = self.failed.take() {
            return Err(why);
        }
        writeln!(self.out, "{}", if self.written == 0 { "[]" } else { "\n]" })?;
        self.out.flush()
    }

    fn write(&mut self, value: &Value) {
        let glue = if self.written == 0 { "[\n" } else { ",\n" };
        self.written += 1;
        if self.failed.is_none() {
            self.failed = write!(self.out, "{glue}{value}").err();
        }
    }

    fn track(&mut self, source: &str) -> usize {
        if let Some(track) = self.tracks.get(source) {
            return *track;
        }
        let track = self.tracks.len() + 1;
        self.tracks.insert(source.to_owned(), track);
        self.write(&json!({
            "ph": "M", "pid": 1, "tid": track, "name": "thread_name", "args": { "name": source },
        }));
        track
    }
}

impl<W: Write> TraceSink for Perfetto<W> {
    fn wants(&self) -> Wants {
        Wants::Events
    }

    fn event(&mut self, event: TraceEvent) {
        let track = self.track(&event.source);
        let mut args = json!({ "detail": event.detail });
        if let Some(packet) = &event.packet {
            args["topic"] = packet.topic.as_str().into();
            args["bytes"] = packet.payload.len().into();
        }
        self.write(&json!({
            "ph": "i", "s": "t", "pid": 1, "tid": track, "ts": event.time_us, "name": event.kind,
            "args": args,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_one_json_array() {
        let mut out = vec![];
        let mut sink = Perfetto::new(&mut out);
        sink.event(crate::trace::tests::event());
        sink.event(crate::trace::tests::event());
        sink.finish().unwrap();
        let events: Vec<Value> = serde_json::from_slice(&out).unwrap();
        assert_eq!(events.len(), 3);
        assert_eq!(events[2]["ts"], 5);
        let mut none = vec![];
        Perfetto::new(&mut none).finish().unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Value>>(&none).unwrap(), Vec::<Value>::new());
    }
}
