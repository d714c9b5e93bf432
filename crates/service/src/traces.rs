//! Spans of what a service does, for a collector of OpenTelemetry. Nobody waits for one: what the
//! collector does not take in time is lost, and counted.
//!
//! Without the feature `otel`, or without an address in the environment, there is no collector, and
//! a service keeps nothing about traces in mind.

#[cfg(feature = "otel")]
mod collector;

use std::{borrow::Cow, sync::Arc};

use protocol::{SpanId, Timestamp, Traceparent};

#[cfg(feature = "otel")]
use collector::Collector;

use crate::{Clock as _, SystemClock};

/// How long a service that stops goes on sending spans.
#[cfg(feature = "otel")]
const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// What was done, from when to when.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub name: &'static str,
    /// Which one it is.
    pub id: Traceparent,
    /// Below which other one it hangs, if any.
    pub parent: Option<SpanId>,
    pub began: Timestamp,
    pub ended: Timestamp,
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What there is to say of a span.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    Text(Cow<'static, str>),
    Number(i64),
}

/// A span that has not ended.
#[derive(Clone, Debug)]
pub struct Begun {
    traces: Traces,
    span: Span,
}

/// Where the spans of one service go. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Collector>>);

/// There is none.
#[cfg(not(feature = "otel"))]
#[derive(Debug)]
enum Collector {}

impl Traces {
    /// Of the service called `service`, of which `instance` is one, as the environment has it:
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` and what else OpenTelemetry specifies.
    pub fn of(service: &'static str, instance: &str) -> Self {
        if !is_wanted(|name| std::env::var(name).ok()) {
            return Self::default();
        }
        Self::open(service, instance)
    }

    #[cfg(feature = "otel")]
    fn open(service: &'static str, instance: &str) -> Self {
        match Collector::of(service, instance) {
            Ok(collector) => {
                tracing::info!(service, instance, "traces are sent to a collector");
                Self(Some(Arc::new(collector)))
            }
            Err(why) => {
                tracing::error!("there are no traces: {why}");
                Self::default()
            }
        }
    }

    #[cfg(not(feature = "otel"))]
    fn open(service: &'static str, _instance: &str) -> Self {
        tracing::warn!(service, "there are no traces: this program is built without them");
        Self::default()
    }

    /// Whether spans go anywhere.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span now.
    pub fn begin(&self, name: &'static str, id: Traceparent, parent: Option<SpanId>) -> Begun {
        let now = SystemClock.now();
        let (attributes, error) = (vec![], None);
        let span = Span { name, id, parent, began: now, ended: now, attributes, error };
        Begun { traces: self.clone(), span }
    }

    /// Begins a span below another one; `sets_apart` tells it from others of its name there.
    pub fn begin_below(&self, parent: Traceparent, name: &'static str, sets_apart: &str) -> Begun {
        let above = parent.span.to_string();
        let id = parent.with_span(SpanId::of(name, [above.as_str(), sets_apart]));
        self.begin(name, id, Some(parent.span))
    }

    /// Hands a span over, and does not wait.
    pub fn tell(&self, span: Span) {
        #[cfg(feature = "otel")]
        if let Some(collector) = self.0.as_ref().filter(|_| span.id.is_sampled()) {
            collector.tell(span);
        }
        #[cfg(not(feature = "otel"))]
        drop(span);
    }

    /// Sends what is left, and gives up soon.
    #[cfg(feature = "otel")]
    pub async fn close(self) {
        let Some(collector) = self.0 else { return };
        let closing = tokio::task::spawn_blocking(move || collector.close(GRACE));
        if let Err(why) = closing.await {
            tracing::error!(%why, "the last spans were not sent");
        }
    }

    /// There is nothing to send.
    #[cfg(not(feature = "otel"))]
    pub fn close(self) -> std::future::Ready<()> {
        std::future::ready(())
    }
}

impl Begun {
    /// Which one it is; below it hangs what is said to belong to it.
    pub const fn id(&self) -> Traceparent {
        self.span.id
    }

    pub const fn began(&self) -> Timestamp {
        self.span.began
    }

    /// As one that began at another time.
    #[must_use]
    pub fn since(mut self, began: Timestamp) -> Self {
        self.span.began = began;
        self
    }

    /// Says more of it.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Attribute>) -> Self {
        self.span.attributes.push((key, value.into()));
        self
    }

    /// Ends it now; `error` says why it failed, if it did.
    pub fn end(self, error: Option<String>) {
        self.end_at(SystemClock.now(), error);
    }

    /// As [`Begun::end`], of one that ended at another time.
    pub fn end_at(mut self, ended: Timestamp, error: Option<String>) {
        (self.span.ended, self.span.error) = (ended, error);
        self.traces.tell(self.span);
    }
}

/// Whether an address is set, and nothing else speaks against it.
fn is_wanted(get: impl Fn(&str) -> Option<String>) -> bool {
    let get = |name: &str| get(name).filter(|value| !value.is_empty());
    let says = |name: &str, word: &str| get(name).is_some_and(|it| it.eq_ignore_ascii_case(word));
    let has_address = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
        .into_iter()
        .any(|name| get(name).is_some());
    has_address && !says("OTEL_SDK_DISABLED", "true") && !says("OTEL_TRACES_EXPORTER", "none")
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&'static str> for Attribute {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Attribute {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(variables: &[(&str, &str)]) -> bool {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        is_wanted(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn there_are_none_unless_an_address_is_set() {
        const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        assert!(!wanted(&[]));
        assert!(!wanted(&[(ENDPOINT, "")]));
        assert!(wanted(&[(ENDPOINT, "http://x:4318")]));
        assert!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://x:4318/v1/traces")]));
        assert!(!wanted(&[(ENDPOINT, "http://x:4318"), ("OTEL_SDK_DISABLED", "true")]));
        assert!(!wanted(&[(ENDPOINT, "http://x:4318"), ("OTEL_TRACES_EXPORTER", "none")]));
        assert!(!Traces::default().is_on());
    }
}
