//! GET /health, /ready and /metrics: whether the coordinator can do its work, and what it has done.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use http_api::Health;
use protocol::message::SessionState;
use service::{
    Figures, Standing,
    figures::{Labels, labels},
};

use super::Api;
use crate::{gallery::Shown, status::Status};

/// Whether the coordinator can do its work.
#[utoipa::path(get, path = "/health", tag = "coordinator", responses(
    (status = 200, description = "All is well", body = Health),
    (status = 503, description = "Not connected to the broker, or the disk refuses", body = Health),
))]
pub(super) async fn health(State(api): State<Api>) -> (StatusCode, Json<Health>) {
    http_api::health("coordinator service", api.instance_id, api.status.borrow().failing())
}

/// The same as /health, for whoever asks whether it takes work.
#[utoipa::path(get, path = "/ready", tag = "coordinator", responses(
    (status = 200, description = "It takes work", body = Health),
    (status = 503, description = "Not connected to the broker, or the disk refuses", body = Health),
))]
pub(super) async fn ready(api: State<Api>) -> (StatusCode, Json<Health>) {
    health(api).await
}

/// Counts and gauges, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", tag = "coordinator", responses(
    (status = 200, description = "Prometheus text", body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let (sessions, _) = api.gallery.page(0, usize::MAX, Progress::of);
    let mut now = Figures::default();
    show(&api.status.borrow(), &sessions, &mut now);
    api.counted.exposition(&now)
}

/// What is told of one session.
struct Progress {
    state: SessionState,
    rounds_done: (Labels, f64),
    /// Of the newest model of a session that runs.
    metrics: Vec<(Labels, f64)>,
}

impl Progress {
    #[expect(clippy::cast_precision_loss, reason = "there are at most a million rounds")]
    fn of(shown: &Shown) -> Self {
        let status = &shown.status;
        let session = status.session_id.as_str();
        let metrics = status
            .metrics
            .iter()
            .map(|(metric, value)| (labels([("session", session), ("metric", metric)]), *value));
        Self {
            state: status.state,
            rounds_done: (labels([("session", session)]), status.rounds_done as f64),
            metrics: metrics.collect(),
        }
    }
}

/// Sessions that have ended are counted, not listed: there may be many.
fn show(status: &Status, sessions: &[Progress], now: &mut Figures) {
    use SessionState::{Complete, Failed, Refused, Running, Stopped};
    Standing::show([&status.rounds, &status.sessions], now);
    let by_state = [Running, Stopped, Complete, Failed, Refused].map(|state| {
        let count = sessions.iter().filter(|one| one.state == state).count();
        (
            labels([("state", &state.to_string())]),
            f64::from(u32::try_from(count).unwrap_or(u32::MAX)),
        )
    });
    now.gauges("aileron_sessions", "Sessions remembered, by state", by_state);
    let running = || sessions.iter().filter(|one| one.state == Running);
    now.gauges(
        "aileron_session_rounds_done",
        "Rounds of a running session that have made a model",
        running().map(|one| one.rounds_done.clone()),
    );
    now.gauges(
        "aileron_session_metric",
        "What the participants of a running session's last round said of their training, and \
         evaluations found: weighted means",
        running().flat_map(|one| one.metrics.iter().cloned()),
    );
    now.counted(
        "aileron_evaluations_total",
        "Evaluations that found something",
        status.evaluations,
    );
    now.counted(
        "aileron_session_rounds_failed_total",
        "Rounds and evaluations of sessions that failed",
        status.session_rounds_failed,
    );
    status.tally.show(now);
}
