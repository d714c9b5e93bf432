//! GET /health and /metrics: whether the coordinator can do its work, and what it has done.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use http_api::{Family, Health, exposition};

use super::Api;
use crate::status::Status;

/// Whether the coordinator can do its work.
#[utoipa::path(get, path = "/health", tag = "coordinator", responses(
    (status = 200, description = "All is well", body = Health),
    (status = 503, description = "Not connected to the broker, or the disk refuses", body = Health),
))]
pub(super) async fn health(State(api): State<Api>) -> (StatusCode, Json<Health>) {
    http_api::health("coordinator service", api.instance_id, api.status.borrow().failing())
}

/// Counts and gauges, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", tag = "coordinator", responses(
    (status = 200, description = "Prometheus text", body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let (states, _) = api.gallery.page(0, usize::MAX, |shown| shown.status.state);
    let families = families(&api.status.borrow(), &states);
    exposition(families)
}

fn families(status: &Status, sessions: &[protocol::message::SessionState]) -> Vec<Family> {
    use protocol::message::SessionState::{Complete, Failed, Refused, Running, Stopped};
    let connected = status.rounds.is_connected() && status.sessions.is_connected();
    let by_state = [Running, Stopped, Complete, Failed, Refused].map(|state| {
        let count = sessions.iter().filter(|one| **one == state).count();
        (format!("{{state=\"{state}\"}}"), count as u64)
    });
    let own = [
        Family::gauge("aileron_broker_connected", "Whether the broker is there", connected.into()),
        Family {
            name: "aileron_sessions",
            kind: "gauge",
            help: "Sessions remembered, by state",
            samples: by_state.into(),
        },
        Family::counter(
            "aileron_evaluations_total",
            "Evaluations that found something",
            status.evaluations,
        ),
        Family::counter(
            "aileron_session_rounds_failed_total",
            "Rounds and evaluations of sessions that failed",
            status.session_rounds_failed,
        ),
    ];
    own.into_iter().chain(status.tally.families()).collect()
}
