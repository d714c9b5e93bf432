//! Whether a service can do its work, and which one it is.

use axum::{Json, http::StatusCode};
use protocol::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// How a service is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
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

/// The answer of a service; `error` is what is wrong with it.
pub fn health(
    description: &'static str,
    instance_id: uuid::Uuid,
    error: Option<String>,
) -> (StatusCode, Json<Health>) {
    let (code, status) = match &error {
        None => (StatusCode::OK, "pass"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "fail"),
    };
    let health = Health {
        status,
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("AILERON_COMMIT").unwrap_or("unknown"),
        description,
        build_time: built_at().to_string(),
        instance_id: instance_id.to_string(),
        error,
    };
    (code, Json(health))
}

fn built_at() -> Timestamp {
    let seconds = env!("AILERON_BUILT_AT_S").parse::<u64>().unwrap_or(0);
    Timestamp::from_micros(seconds.saturating_mul(1_000_000))
}
