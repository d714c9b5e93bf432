//! GET /health: whether the manager can do its work, and which one it is.

use axum::{Json, extract::State, http::StatusCode};
use protocol::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `pass` or `fail`.
    #[schema(example = "pass")]
    status: &'static str,
    version: &'static str,
    /// What it was built from; `unknown` if not from a repository.
    commit: &'static str,
    #[schema(example = "manager service")]
    description: &'static str,
    /// RFC 3339.
    build_time: String,
    /// Another one at every start.
    instance_id: String,
    /// Why it fails, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Whether the manager can do its work.
#[utoipa::path(get, path = "/health", tag = "manager", responses(
    (status = 200, description = "All is well", body = Health),
    (status = 503, description = "Not connected to the broker, or the disk refuses", body = Health),
))]
pub(super) async fn health(State(api): State<Api>) -> (StatusCode, Json<Health>) {
    let error = api.status.borrow().failing();
    let (code, status) = match &error {
        None => (StatusCode::OK, "pass"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "fail"),
    };
    let health = Health {
        status,
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("MANAGER_COMMIT").unwrap_or("unknown"),
        description: "manager service",
        build_time: built_at().to_string(),
        instance_id: api.instance_id.to_string(),
        error,
    };
    (code, Json(health))
}

fn built_at() -> Timestamp {
    let seconds = env!("MANAGER_BUILT_AT_S").parse::<u64>().unwrap_or(0);
    Timestamp::from_micros(seconds.saturating_mul(1_000_000))
}
