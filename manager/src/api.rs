//! HTTP in, questions to the core, answers out. Every error is `{"error": what is wrong}`.

mod extract;
mod health;
mod metrics;
mod openapi;
mod proplets;
mod task_body;
mod tasks;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::StatusCode,
    routing::{MethodRouter, get, post, put},
};
use fleet::{Answer, Ask, Refusal, RefusalKind, Report};
use http_api::{ANSWER_MAX, ApiError, Counted, LARGE_BODIES_MAX, dressed, out_of_turn};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time,
};

use crate::{effects::Caller, status::Status};

/// What every handler gets.
#[derive(Clone, Debug)]
struct Api {
    reports: mpsc::Sender<Report<Caller>>,
    status: watch::Receiver<Status>,
    counted: Counted,
    upload_len_max: usize,
    large_bodies: Arc<Semaphore>,
    instance_id: uuid::Uuid,
}

type Route = (&'static str, fn() -> MethodRouter<Api>);

/// Every path there is.
const ROUTES: &[Route] = &[
    ("/health", || get(health::health)),
    ("/ready", || get(health::ready)),
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
    (status, counted): (watch::Receiver<Status>, Counted),
    upload_len_max: usize,
) -> Router {
    let api = Api {
        reports,
        status,
        counted: counted.clone(),
        upload_len_max,
        large_bodies: Arc::new(Semaphore::new(LARGE_BODIES_MAX)),
        instance_id: uuid::Uuid::new_v4(),
    };
    let routes = ROUTES.iter().fold(Router::new(), |all, (path, at)| all.route(path, at()));
    let len_max = extract::body_len_max(upload_len_max);
    dressed(routes.layer(DefaultBodyLimit::max(len_max)), &counted).with_state(api)
}

impl Api {
    /// Asks the core.
    async fn ask(&self, ask: Ask) -> Result<Answer, ApiError> {
        if let Some(why) = self.status.borrow().standing.refused() {
            return Err(ApiError::Unavailable(format!("cannot write: {why}")));
        }
        let (reply, answered) = oneshot::channel();
        let asked = async {
            self.reports.send(Report::Asked { reply, ask }).await.ok()?;
            answered.await.ok()
        };
        match time::timeout(ANSWER_MAX, asked).await {
            Ok(Some(answer)) => answer.map_err(|why| refused(&why)),
            Ok(None) => Err(ApiError::Unavailable("the manager is stopping".to_owned())),
            Err(_) => Err(ApiError::Unavailable(format!("no answer within {ANSWER_MAX:?}"))),
        }
    }

    /// Refuses what only makes sense with a broker at hand.
    fn needs_broker(&self) -> Result<(), ApiError> {
        if self.status.borrow().standing.is_connected() {
            return Ok(());
        }
        Err(ApiError::Unavailable("not connected to the broker".to_owned()))
    }
}

/// Which kind of no the core has said.
fn refused(refusal: &Refusal) -> ApiError {
    let status = match refusal.kind() {
        RefusalKind::BadInput => StatusCode::BAD_REQUEST,
        RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalKind::Upstream => StatusCode::BAD_GATEWAY,
    };
    ApiError::Refused { status, what: refusal.to_string() }
}
