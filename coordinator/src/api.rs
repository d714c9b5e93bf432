//! HTTP in, questions to the cores, answers out. What is asked for here is what an operator would
//! say over the broker, and durable before the answer.

mod health;
mod history;
mod models;
mod openapi;
mod rounds;
mod sessions;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::StatusCode,
    routing::{MethodRouter, get, post},
};
use http_api::{ANSWER_MAX, ApiError, Counted, body, dressed, read_object, turn};
use protocol::message::SESSION_START_LEN_MAX;
use serde_json::{Map, Value};
use service::Standing;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time,
};

use crate::{callers::Callers, gallery::Gallery, status::Status};

/// Longest body: the longest start of a session or of a round.
const BODY_LEN_MAX: usize = SESSION_START_LEN_MAX;

pub(crate) type RoundAnswer = Result<Box<round::Answer>, round::Refusal>;
pub(crate) type SessionAnswer = Result<Box<session::Answer>, session::Refusal>;

/// What every handler gets.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) counted: Counted,
    pub(crate) gallery: Gallery,
    pub(crate) rounds: mpsc::Sender<round::Report>,
    pub(crate) round_callers: Callers<RoundAnswer>,
    pub(crate) sessions: mpsc::Sender<session::Report>,
    pub(crate) session_callers: Callers<SessionAnswer>,
    pub(crate) instance_id: uuid::Uuid,
    pub(crate) large_bodies: Arc<Semaphore>,
}

type Route = (&'static str, fn() -> MethodRouter<Api>);

/// Every path there is.
const ROUTES: &[Route] = &[
    ("/health", || get(health::health)),
    ("/ready", || get(health::ready)),
    ("/metrics", || get(health::metrics)),
    ("/openapi.json", || get(openapi::openapi)),
    ("/fl/sessions", || get(sessions::list).post(sessions::start)),
    ("/fl/sessions/{id}", || get(sessions::show)),
    ("/fl/sessions/{id}/stop", || post(sessions::stop)),
    ("/fl/sessions/{id}/resume", || post(sessions::resume)),
    ("/fl/sessions/{id}/history", || get(history::page)),
    ("/fl/sessions/{id}/history.csv", || get(history::csv)),
    ("/fl/rounds", || get(rounds::list).post(rounds::start)),
    ("/fl/rounds/{id}", || get(rounds::show)),
    ("/fl/models", || get(models::list)),
];

/// The whole API.
pub(crate) fn router(api: Api) -> Router {
    let routes = ROUTES.iter().fold(Router::new(), |all, (path, at)| all.route(path, at()));
    let counted = api.counted.clone();
    dressed(routes.layer(DefaultBodyLimit::max(BODY_LEN_MAX)), &counted).with_state(api)
}

impl Api {
    /// Asks the rounds' core.
    async fn ask_rounds(&self, ask: round::Ask) -> Result<round::Answer, ApiError> {
        let (ticket, answer) = self.round_callers.enter();
        let report = round::Report::Asked { ticket, ask };
        let answer = answered(&self.rounds, report, answer).await?;
        answer.map(|answer| *answer).map_err(|refusal| match refusal {
            round::Refusal::Bad(what) => ApiError::BadInput(what),
            round::Refusal::Unknown(what) => no(StatusCode::NOT_FOUND, what),
            round::Refusal::Conflict(what) => no(StatusCode::CONFLICT, what),
        })
    }

    /// Gives the sessions' core an order.
    async fn order(&self, order: session::Order) -> Result<session::Answer, ApiError> {
        self.takes_orders(|status| &status.sessions)?;
        let (ticket, answer) = self.session_callers.enter();
        let report = session::Report { ticket, order };
        let answer = answered(&self.sessions, report, answer).await?;
        answer.map(|answer| *answer).map_err(|refusal| match refusal {
            session::Refusal::Bad(what) => ApiError::BadInput(what),
            session::Refusal::Unknown(what) => no(StatusCode::NOT_FOUND, what),
            session::Refusal::Conflict(what) => no(StatusCode::CONFLICT, what),
        })
    }

    /// Refuses what only makes sense with a broker at hand, and a disk that takes it.
    fn takes_orders(&self, part: impl FnOnce(&Status) -> &Standing) -> Result<(), ApiError> {
        match part(&self.status.borrow()).failing() {
            None => Ok(()),
            Some(why) => Err(ApiError::Unavailable(why)),
        }
    }

    /// The fields of an order.
    async fn fields(&self, request: Request) -> Result<Map<String, Value>, ApiError> {
        let _turn = turn(request.headers(), &self.large_bodies).await;
        read_object(&body(request, self, BODY_LEN_MAX).await?)
    }

    /// Refuses to say of sessions what is not known yet.
    fn knows_sessions(&self) -> Result<(), ApiError> {
        if self.status.borrow().sessions.has_begun() {
            return Ok(());
        }
        Err(ApiError::Unavailable("has not met the broker since its start".to_owned()))
    }
}

async fn answered<Report, Answer>(
    to: &mpsc::Sender<Report>,
    report: Report,
    answer: oneshot::Receiver<Answer>,
) -> Result<Answer, ApiError> {
    let asked = async {
        to.send(report).await.ok()?;
        answer.await.ok()
    };
    match time::timeout(ANSWER_MAX, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(ApiError::Unavailable("the coordinator is stopping".to_owned())),
        Err(_) => Err(ApiError::Unavailable(format!("no answer within {ANSWER_MAX:?}"))),
    }
}

fn no(status: StatusCode, what: String) -> ApiError {
    ApiError::Refused { status, what }
}

/// Every path there is, for those who check the description.
#[cfg(test)]
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().map(|(path, _)| *path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::paths;

    #[tokio::test]
    async fn every_path_is_described_and_every_reference_leads_somewhere() {
        let description = super::openapi::openapi().await.0;
        let description = serde_json::to_value(description).expect("a description serializes");
        let described = description["paths"].as_object().expect("paths are an object");
        let described: BTreeSet<&str> = described.keys().map(String::as_str).collect();
        assert_eq!(described, paths().collect());
        let text = description.to_string();
        let references: BTreeSet<&str> =
            text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(!references.is_empty());
        for reference in references {
            assert!(description.pointer(reference).is_some(), "{reference} leads nowhere");
        }
    }
}
