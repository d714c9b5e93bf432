//! Counts and gauges, as Prometheus reads them.

use std::fmt::Write as _;

use axum::{
    http::header,
    response::{IntoResponse as _, Response},
};

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One figure, by its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    /// `gauge` or `counter`.
    pub kind: &'static str,
    pub help: &'static str,
    /// Labels, with their braces, and values.
    pub samples: Vec<(String, u64)>,
}

impl Family {
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, kind: "gauge", help, samples: vec![(String::new(), value)] }
    }

    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, kind: "counter", help, samples: vec![(String::new(), value)] }
    }
}

/// The text of them all.
pub fn exposition(families: impl IntoIterator<Item = Family>) -> Response {
    let mut text = String::new();
    for Family { name, kind, help, samples } in families {
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}
