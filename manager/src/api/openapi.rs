//! GET /openapi.json: the description of every call.

use axum::Json;
use utoipa::OpenApi;

use super::{health, metrics, proplets, tasks};

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Aileron manager",
        description = "Runs tasks on proplets. Every error is {\"error\": what is wrong}.",
        license(name = "Apache-2.0 OR MIT")
    ),
    paths(
        health::health,
        health::ready,
        metrics::metrics,
        openapi,
        proplets::list,
        proplets::show,
        proplets::forget,
        tasks::create,
        tasks::list,
        tasks::show,
        tasks::edit,
        tasks::delete,
        tasks::upload,
        tasks::start,
        tasks::stop,
        tasks::results,
        tasks::metrics,
    )
)]
struct Description;

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "manager", responses(
    (status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object),
))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}
