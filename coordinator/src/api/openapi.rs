//! GET /openapi.json: the description of every call.

use axum::Json;
use utoipa::OpenApi;

use super::{health, history, models, rounds, sessions};

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Aileron coordinator",
        description = "Runs rounds and sessions. Every error is {\"error\": what is wrong}.",
        license(name = "Apache-2.0 OR MIT")
    ),
    paths(
        health::health,
        health::ready,
        health::metrics,
        openapi,
        sessions::list,
        sessions::start,
        sessions::show,
        sessions::stop,
        sessions::resume,
        history::page,
        history::csv,
        rounds::list,
        rounds::start,
        rounds::show,
        models::list,
    )
)]
struct Description;

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "coordinator", responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object),
))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}
