//! HTTP in, questions to the core, answers out. Every error is `{"error": what is wrong}`.

pub(crate) mod error;
mod extract;
mod health;
mod metrics;
mod openapi;
mod proplets;
mod task_body;
mod tasks;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderMap, Method, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, get, post, put},
};
use fleet::{Answer, Ask, Report};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time,
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{effects::Caller, status::Status};
use error::ApiError;

/// How long a request may take, its body included.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// How long the core may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Large bodies that are read at the same time.
const LARGE_BODIES_MAX: usize = 4;

/// What every handler gets.
#[derive(Clone, Debug)]
struct Api {
    reports: mpsc::Sender<Report<Caller>>,
    status: watch::Receiver<Status>,
    upload_len_max: usize,
    large_bodies: Arc<Semaphore>,
    instance_id: uuid::Uuid,
}

type Route = (&'static str, fn() -> MethodRouter<Api>);

/// Every path there is.
const ROUTES: &[Route] = &[
    ("/health", || get(health::health)),
    ("/metrics", || get(metrics::metrics)),
    ("/openapi.json", || get(openapi::openapi)),
    ("/proplets", || get(proplets::list)),
    ("/proplets/{id}", || get(proplets::show).delete(proplets::forget)),
    ("/tasks", || get(tasks::list).post(tasks::create)),
    ("/tasks/{id}", || get(tasks::show).put(tasks::edit).delete(tasks::delete)),
    ("/tasks/{id}/upload", || put(tasks::upload)),
    ("/tasks/{id}/start", || post(tasks::start)),
    ("/tasks/{id}/stop", || post(tasks::stop)),
    ("/tasks/{id}/results", || get(tasks::results)),
    ("/tasks/{id}/metrics", || get(tasks::metrics)),
];

/// Every path there is, for those who check the description.
#[cfg(test)]
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|(path, _)| *path)
}

/// The whole API, in front of a core that takes `reports`.
pub(crate) fn router(
    reports: mpsc::Sender<Report<Caller>>,
    status: watch::Receiver<Status>,
    upload_len_max: usize,
) -> Router {
    let api = Api {
        reports,
        status,
        upload_len_max,
        large_bodies: Arc::new(Semaphore::new(LARGE_BODIES_MAX)),
        instance_id: uuid::Uuid::new_v4(),
    };
    let routes = ROUTES.iter().fold(Router::new(), |all, (path, at)| all.route(path, at()));
    routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(extract::body_len_max(upload_len_max)))
        .layer(middleware::from_fn(within_time))
        .layer(middleware::from_fn(same_origin))
        .layer(CatchPanicLayer::custom(|_| ApiError::Panic.into_response()))
        .with_state(api)
}

impl Api {
    /// Asks the core.
    async fn ask(&self, ask: Ask) -> Result<Answer, ApiError> {
        if let Some(why) = &self.status.borrow().storage {
            return Err(ApiError::Unavailable(format!("cannot write: {why}")));
        }
        let (reply, answered) = oneshot::channel();
        let asked = async {
            self.reports.send(Report { reply, ask }).await.ok()?;
            answered.await.ok()
        };
        match time::timeout(ANSWER_MAX, asked).await {
            Ok(Some(answer)) => Ok(answer?),
            Ok(None) => Err(ApiError::Unavailable("the manager is stopping".to_owned())),
            Err(_) => Err(ApiError::Unavailable(format!("no answer within {ANSWER_MAX:?}"))),
        }
    }

    /// Refuses what only makes sense with a broker at hand.
    fn needs_broker(&self) -> Result<(), ApiError> {
        if self.status.borrow().connected {
            return Ok(());
        }
        Err(ApiError::Unavailable("not connected to the broker".to_owned()))
    }
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::NoPath(uri.path().chars().take(200).collect())
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::NoMethod { method, path: uri.path().chars().take(200).collect() }
}

async fn within_time(request: Request, next: Next) -> Response {
    match time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TooSlow(REQUEST_MAX).into_response(),
    }
}

/// A page from elsewhere, open in the operator's browser, must not give orders.
async fn same_origin(headers: HeaderMap, request: Request, next: Next) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let foreign = headers.contains_key(header::ORIGIN)
        && text(header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host)
            != text(header::HOST);
    if foreign && !request.method().is_safe() {
        let origin = text(header::ORIGIN).unwrap_or("?").chars().take(200).collect();
        return ApiError::ForeignOrigin(origin).into_response();
    }
    next.run(request).await
}

/// The core answered something else than what it was asked.
fn out_of_turn() -> ApiError {
    tracing::error!("the core answered another question than was asked");
    ApiError::Panic
}
