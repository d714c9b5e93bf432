//! The way to a collector: OTLP over HTTP, in batches, on a thread of its own behind a bounded
//! queue. It speaks TLS as the rest of the program does.

use std::{
    env,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, Key, KeyValue, Value,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks,
        SpanProcessor as _,
    },
};
use protocol::Timestamp;

use super::{Attribute, Span};

/// Spans that wait to be sent, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise.
const WAITING_MAX: usize = 2048;
/// How long one request may take, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
const TIMEOUT_MS: u64 = 10_000;
/// More of an answer is not read.
const ANSWER_LEN_MAX: u64 = 1 << 20;

/// One service's queue, and the thread that empties it.
#[derive(Debug)]
pub(super) struct Collector {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    losses: Arc<Losses>,
    waiting_max: usize,
}

/// What did not arrive.
#[derive(Debug, Default)]
struct Losses {
    waiting: AtomicUsize,
    lost: AtomicU64,
    /// Said once, until it is better.
    failing: AtomicBool,
    full: AtomicBool,
}

impl Collector {
    pub(super) fn of(service: &'static str, instance: &str) -> Result<Self, ExporterBuildError> {
        let losses = Arc::new(Losses::default());
        let inner =
            opentelemetry_otlp::SpanExporter::builder().with_http().with_http_client(Ureq::new());
        let mut exporter = Counted { inner: inner.build()?, losses: Arc::clone(&losses) };
        exporter.set_resource(&resource(service, instance));
        let waiting_max = number("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(WAITING_MAX);
        let config = BatchConfigBuilder::default().with_max_queue_size(waiting_max).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let scope = InstrumentationScope::builder("aileron")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Ok(Self { processor, scope, losses, waiting_max })
    }

    pub(super) fn tell(&self, span: Span) {
        let waiting = self.losses.waiting.fetch_add(1, Ordering::Relaxed);
        if waiting >= self.waiting_max {
            self.losses.waiting.fetch_sub(1, Ordering::Relaxed);
            self.losses.lost.fetch_add(1, Ordering::Relaxed);
            if !self.losses.full.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    waiting,
                    "spans come faster than the collector takes them; some are lost"
                );
            }
            return;
        }
        self.processor.on_end(data(span, self.scope.clone()));
    }

    /// Blocks for as long as `grace`.
    pub(super) fn close(&self, grace: Duration) {
        let closed = self.processor.shutdown_with_timeout(grace);
        let waiting = self.losses.waiting.load(Ordering::Relaxed) as u64;
        let lost = self.losses.lost.load(Ordering::Relaxed) + waiting;
        if lost > 0 {
            let why = closed.err().map(|why| why.to_string());
            tracing::warn!(lost, why, "the collector has not taken all spans");
        }
    }
}

/// Named by the environment, or else by us.
fn resource(service: &'static str, instance: &str) -> Resource {
    let said = Resource::builder().build();
    let named = |key: &'static str| said.get(&Key::new(key)).map(|value| value.to_string());
    let unknown = |name: Option<String>| name.is_none_or(|it| it.starts_with("unknown_service"));
    let mut more = vec![];
    if unknown(named("service.name")) {
        more.push(KeyValue::new("service.name", service));
    }
    for (key, value) in
        [("service.instance.id", instance), ("service.version", env!("CARGO_PKG_VERSION"))]
    {
        if named(key).is_none() {
            more.push(KeyValue::new(key, value.to_owned()));
        }
    }
    Resource::builder().with_attributes(more).build()
}

fn data(span: Span, scope: InstrumentationScope) -> SpanData {
    let Span { name, id, parent, began, ended, attributes, error } = span;
    let trace = TraceId::from_bytes(id.trace.to_bytes());
    let own = SpanId::from_bytes(id.span.to_bytes());
    let parent = parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.to_bytes()));
    let attributes = attributes.into_iter().map(|(key, value)| {
        let value = match value {
            Attribute::Text(text) => Value::String(text.into()),
            Attribute::Number(number) => Value::I64(number),
        };
        KeyValue::new(key, value)
    });
    SpanData {
        span_context: SpanContext::new(
            trace,
            own,
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time: time(began),
        end_time: time(ended.max(began)),
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope,
    }
}

fn time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(at.as_micros())
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.trim().parse().ok()
}

/// Counts what the collector refuses, and says once that it does.
#[derive(Debug)]
struct Counted {
    inner: opentelemetry_otlp::SpanExporter,
    losses: Arc<Losses>,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.inner.export(batch).await;
        self.losses.sent(count, sent);
        Ok(())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl Losses {
    fn sent(&self, count: usize, result: OTelSdkResult) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        match result {
            Ok(()) => {
                self.full.store(false, Ordering::Relaxed);
                if self.failing.swap(false, Ordering::Relaxed) {
                    let lost = self.lost.load(Ordering::Relaxed);
                    tracing::info!(lost, "the collector takes spans again");
                }
            }
            Err(why) => {
                self.lost.fetch_add(count as u64, Ordering::Relaxed);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%why, "the collector does not take spans; they are lost");
                }
            }
        }
    }
}

/// Blocks the thread of the queue, which does nothing else.
#[derive(Debug)]
struct Ureq(ureq::Agent);

impl Ureq {
    fn new() -> Self {
        let timeout = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]
            .into_iter()
            .find_map(number);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_millis(timeout.unwrap_or(TIMEOUT_MS))))
            .http_status_as_error(false)
            .build();
        Self(config.new_agent())
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let (parts, body) = self.0.run(Request::from_parts(parts, body.to_vec()))?.into_parts();
        let body = body.into_with_config().limit(ANSWER_LEN_MAX).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

impl HttpClient for Ureq {
    /// As `async_trait` would have it.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(self.send(request)))
    }
}
