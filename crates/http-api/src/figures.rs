//! GET /metrics: figures as Prometheus reads them, those of HTTP among them.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use service::figures::{Figures, SecondsBy, labels};
use tokio::time::Instant;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// What stands for the path of a call that matches none.
const NO_PATH: &str = "none";

/// The figures that a service goes on counting, and those of its HTTP API. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Counted {
    figures: Arc<Figures>,
    calls: SecondsBy,
}

impl Counted {
    pub fn new(mut figures: Figures) -> Self {
        let calls = figures.seconds_by(
            "aileron_http_request_seconds",
            "From a request's head to its answer's head, by path, method and status",
        );
        Self { figures: Arc::new(figures), calls }
    }

    /// The text of them, and of `now`, which were read for whoever asks.
    pub fn exposition(&self, now: &Figures) -> Response {
        let mut text = String::new();
        now.write(&mut text);
        self.figures.write(&mut text);
        ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
    }
}

/// Counts a call, and how long its answer took. Only paths that there are become labels.
pub(crate) async fn count(
    State(counted): State<Counted>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let method = match request.method().as_str() {
        method @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS") => {
            method.to_owned()
        }
        _ => "other".to_owned(),
    };
    let begun = Instant::now();
    let response = next.run(request).await;
    let path = path.as_ref().map_or(NO_PATH, MatchedPath::as_str);
    let status = response.status();
    let labels = labels([("path", path), ("method", &method), ("status", status.as_str())]);
    counted.calls.get_or_create(&labels).observe(begun.elapsed().as_secs_f64());
    response
}
