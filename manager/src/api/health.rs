//! GET /health and /ready: whether the manager can do its work, and which one it is.

use axum::{Json, extract::State, http::StatusCode};
use http_api::Health;

use super::Api;

/// Whether the manager can do its work.
#[utoipa::path(get, path = "/health", tag = "manager", responses(
    (status = 200, description = "All is well", body = Health),
    (status = 503, description = "Not connected to the broker, or the disk refuses", body = Health),
))]
pub(super) async fn health(State(api): State<Api>) -> (StatusCode, Json<Health>) {
    http_api::health("manager service", api.instance_id, api.status.borrow().standing.failing())
}

/// The same as /health, for whoever asks whether it takes work.
#[utoipa::path(get, path = "/ready", tag = "manager", responses(
    (status = 200, description = "It takes work", body = Health),
    (status = 503, description = "Not connected to the broker, or the disk refuses", body = Health),
))]
pub(super) async fn ready(api: State<Api>) -> (StatusCode, Json<Health>) {
    health(api).await
}
