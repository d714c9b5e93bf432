//! /fl/sessions: started, looked at, stopped, resumed.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderName, StatusCode, header},
};
use http_api::{ApiError, ErrorBody, Id, Words};
use protocol::{
    SessionId,
    message::{Command, SessionCommand, SessionStart, SessionStatus},
};
use serde::Serialize;
use serde_json::{Map, Value};
use session::{Order, Taken};
use utoipa::ToSchema;

use super::{Api, no};
use crate::gallery::Shown;

/// A session: what its status topic says of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Session")]
pub(super) struct SessionBody {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    status: SessionStatus,
    /// The round that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    round_id: Option<String>,
    /// What was asked for; a workload that came with it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    start: Option<SessionStart>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionPage {
    offset: usize,
    limit: usize,
    total: usize,
    sessions: Vec<SessionBody>,
}

/// What a session is asked to do; the fields of its start on the broker.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only described; the core's own words say what is wrong")]
pub(super) struct SessionWording {
    /// Made up if left out.
    session_id: Option<String>,
    /// 1 to a million.
    rounds: u64,
    hyperparams: Option<Object>,
    selection: Option<Object>,
    /// `buffer`, `concurrency` and `staleness_max`: rounds that do not wait for the slow.
    asynchronous: Option<Object>,
    evaluate: Option<Object>,
    target: Option<Object>,
    patience: Option<Object>,
    /// The span below which those of its rounds hang (W3C Trace Context).
    traceparent: Option<String>,
}

type Object = Map<String, Value>;

impl From<SessionStatus> for SessionBody {
    fn from(status: SessionStatus) -> Self {
        Self { status, round_id: None, start: None }
    }
}

impl From<&Shown> for SessionBody {
    fn from(shown: &Shown) -> Self {
        let round_id = shown.round.as_ref().map(ToString::to_string);
        Self { status: shown.status.clone(), round_id, start: None }
    }
}

/// The sessions that are remembered, by id.
#[utoipa::path(get, path = "/fl/sessions", tag = "sessions",
    params(
        ("offset" = Option<usize>, Query, description = "How many to leave out"),
        ("limit" = Option<usize>, Query, description = "1 to 1000, 100 by default"),
    ),
    responses(
        (status = 200, body = SessionPage),
        (status = 400, description = "Bad page", body = ErrorBody),
        (status = 503, description = "Not known yet", body = ErrorBody),
    ),
)]
pub(super) async fn list(
    State(api): State<Api>,
    words: Words,
) -> Result<Json<SessionPage>, ApiError> {
    let page = words.page()?;
    api.knows_sessions()?;
    let (sessions, total) = api.gallery.page(page.offset, page.limit, |shown| shown.into());
    Ok(Json(SessionPage { offset: page.offset, limit: page.limit, total, sessions }))
}

/// One session, and what it was asked to do.
#[utoipa::path(get, path = "/fl/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "Session id")),
    responses(
        (status = 200, body = SessionBody),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such session", body = ErrorBody),
        (status = 503, description = "Not known yet", body = ErrorBody),
    ),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Id(id): Id<SessionId>,
) -> Result<Json<SessionBody>, ApiError> {
    api.knows_sessions()?;
    let body = |shown: &Shown| {
        let start = SessionStart { file: None, ..SessionStart::clone(&shown.start) };
        SessionBody { start: Some(start), ..shown.into() }
    };
    api.gallery.read(&id, body).map(Json).ok_or_else(|| unknown(&id))
}

/// Starts a session, durably; the same start again changes nothing.
#[utoipa::path(post, path = "/fl/sessions", tag = "sessions", request_body = SessionWording, responses(
    (status = 200, description = "It had been started before", body = SessionBody),
    (status = 201, body = SessionBody, headers(("Location" = String, description = "Its path"))),
    (status = 400, description = "Not a start", body = ErrorBody),
    (status = 409, description = "Another session has this id, or too many run", body = ErrorBody),
    (status = 413, description = "The body is too large", body = ErrorBody),
    (status = 503, description = "Not connected to the broker, or the disk refuses", body = ErrorBody),
))]
pub(super) async fn start(
    State(api): State<Api>,
    request: Request,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<SessionBody>), ApiError> {
    let mut fields = api.fields(request).await?;
    let made_up = || format!("s-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    fields.entry("session_id").or_insert_with(|| made_up().into());
    let start: SessionStart = serde_json::from_value(fields.into())
        .map_err(|why| ApiError::BadInput(format!("not a session's start: {why}")))?;
    let location = [(header::LOCATION, format!("/fl/sessions/{}", start.session_id))];
    let answer = api.order(Order::Start(Box::new(start))).await?;
    let code = match answer.taken {
        Taken::Now => StatusCode::CREATED,
        Taken::Before => StatusCode::OK,
    };
    Ok((code, location, Json(answer.status.into())))
}

/// Lets a session begin no further round; one that is under way still ends.
#[utoipa::path(post, path = "/fl/sessions/{id}/stop", tag = "sessions",
    params(("id" = String, Path, description = "Session id")),
    responses(
        (status = 200, body = SessionBody),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such session", body = ErrorBody),
        (status = 409, description = "It has ended", body = ErrorBody),
        (status = 503, description = "Not connected to the broker, or the disk refuses", body = ErrorBody),
    ),
)]
pub(super) async fn stop(
    State(api): State<Api>,
    Id(id): Id<SessionId>,
) -> Result<Json<SessionBody>, ApiError> {
    command(&api, id, Command::Stop).await
}

/// Lets a session that was stopped, or has failed, go on.
#[utoipa::path(post, path = "/fl/sessions/{id}/resume", tag = "sessions",
    params(("id" = String, Path, description = "Session id")),
    responses(
        (status = 200, body = SessionBody),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such session", body = ErrorBody),
        (status = 409, description = "It is complete", body = ErrorBody),
        (status = 503, description = "Not connected to the broker, or the disk refuses", body = ErrorBody),
    ),
)]
pub(super) async fn resume(
    State(api): State<Api>,
    Id(id): Id<SessionId>,
) -> Result<Json<SessionBody>, ApiError> {
    command(&api, id, Command::Resume).await
}

async fn command(
    api: &Api,
    session: SessionId,
    command: Command,
) -> Result<Json<SessionBody>, ApiError> {
    let command = SessionCommand { command };
    let answer = api.order(Order::Command { session, command }).await?;
    Ok(Json(answer.status.into()))
}

pub(super) fn unknown(id: &SessionId) -> ApiError {
    no(StatusCode::NOT_FOUND, format!("there is no session {id}"))
}
