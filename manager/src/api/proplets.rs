//! /proplets: who is there.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode};
use fleet::{Answer, Ask, PropletView};
use http_api::{ErrorBody, Id, Words};
use protocol::PropletId;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{Api, ApiError, extract::page, out_of_turn};

#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Proplet")]
pub(super) struct PropletBody {
    id: String,
    name: String,
    namespace: String,
    /// Tasks that were sent to it and have not ended.
    task_count: usize,
    alive: bool,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_alive_at: Option<String>,
    metadata: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<PropletMetricsBody>,
}

/// What it last said of itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "PropletMetrics")]
pub(super) struct PropletMetricsBody {
    /// Share of one CPU, in percent.
    cpu_percent: f64,
    memory_bytes: u64,
    uptime_s: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PropletPage {
    offset: usize,
    limit: usize,
    total: usize,
    proplets: Vec<PropletBody>,
}

impl From<PropletView> for PropletBody {
    fn from(view: PropletView) -> Self {
        Self {
            id: view.id.to_string(),
            name: view.name,
            namespace: view.namespace,
            task_count: view.task_count,
            alive: view.alive,
            last_alive_at: view.last_alive_at.map(String::from),
            metadata: view.metadata,
            metrics: view.metrics.map(|metrics| PropletMetricsBody {
                cpu_percent: metrics.cpu_percent,
                memory_bytes: metrics.memory_bytes,
                uptime_s: metrics.uptime_s,
            }),
        }
    }
}

/// The proplets that have ever introduced themselves, by id.
#[utoipa::path(get, path = "/proplets", tag = "proplets",
    params(
        ("offset" = Option<usize>, Query, description = "How many to leave out"),
        ("limit" = Option<usize>, Query, description = "1 to 1000, 100 by default"),
    ),
    responses(
        (status = 200, body = PropletPage),
        (status = 400, description = "Bad page", body = ErrorBody),
        (status = 503, description = "The manager cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn list(
    State(api): State<Api>,
    words: Words,
) -> Result<Json<PropletPage>, ApiError> {
    let Answer::Proplets(page) = api.ask(Ask::Proplets(page(&words)?)).await? else {
        return Err(out_of_turn());
    };
    Ok(Json(PropletPage {
        offset: page.page.offset,
        limit: page.page.limit,
        total: page.total,
        proplets: page.items.into_iter().map(PropletBody::from).collect(),
    }))
}

/// One proplet.
#[utoipa::path(get, path = "/proplets/{id}", tag = "proplets",
    params(("id" = String, Path, description = "Proplet id")),
    responses(
        (status = 200, body = PropletBody),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such proplet", body = ErrorBody),
        (status = 503, description = "The manager cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Id(id): Id<PropletId>,
) -> Result<Json<PropletBody>, ApiError> {
    let Answer::Proplet(view) = api.ask(Ask::Proplet(id)).await? else {
        return Err(out_of_turn());
    };
    Ok(Json(view.into()))
}

/// Forgets a proplet that is not alive; tasks that wait for it wait no longer.
#[utoipa::path(delete, path = "/proplets/{id}", tag = "proplets",
    params(("id" = String, Path, description = "Proplet id")),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such proplet", body = ErrorBody),
        (status = 409, description = "It is alive", body = ErrorBody),
        (status = 503, description = "The manager cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn forget(
    State(api): State<Api>,
    Id(id): Id<PropletId>,
) -> Result<StatusCode, ApiError> {
    let Answer::Done = api.ask(Ask::ForgetProplet(id)).await? else {
        return Err(out_of_turn());
    };
    Ok(StatusCode::NO_CONTENT)
}
