//! What the connections to the broker have carried.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};

use crate::transport::mqtt::{Counters, Counts};

/// The counters of one connection, which goes on counting. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Traffic(pub(crate) Arc<Counters>);

/// The connections of a service, each with its name.
#[derive(Debug)]
pub(super) struct Connections(pub(super) Vec<(&'static str, Traffic)>);

type Reading = fn(&Counts) -> u64;

/// Figures of one name: the name, what it says, and a value for each of its labels.
struct Row {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    values: &'static [(&'static str, Reading)],
}

const ROWS: &[Row] = &[
    Row {
        name: "aileron_mqtt_messages",
        help: "Messages from and to the broker",
        label: "direction",
        values: &[("in", |counts| counts.received), ("out", |counts| counts.sent)],
    },
    Row {
        name: "aileron_mqtt_bytes",
        help: "Bytes of their topics and payloads",
        label: "direction",
        values: &[("in", |counts| counts.received_bytes), ("out", |counts| counts.sent_bytes)],
    },
    Row {
        name: "aileron_mqtt_dropped",
        help: "Messages that went no further",
        label: "reason",
        values: &[
            ("foreign", |counts| counts.foreign),
            ("oversize", |counts| counts.oversize),
            ("unsendable", |counts| counts.unsendable),
        ],
    },
    Row {
        name: "aileron_mqtt_connections",
        help: "Connections to the broker, by what came of them",
        label: "event",
        values: &[
            ("made", |counts| counts.connections),
            ("lost", |counts| counts.losses),
            ("failed", |counts| counts.failures),
        ],
    },
];

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Row { name, help, label, values } in ROWS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (connection, Traffic(counters)) in &self.0 {
                let counts = counters.read();
                for (value, read) in *values {
                    let labels = [("connection", *connection), (*label, *value)];
                    ConstCounter::new(read(&counts)).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}
