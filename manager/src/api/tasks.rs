//! /tasks: made, changed, started, stopped, looked at.

use axum::{
    Json,
    extract::{FromRequest as _, Multipart, Request, State},
    http::{HeaderName, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use fleet::{Answer, Ask, TaskFilter};
use http_api::{ErrorBody, Id, Words, turn};
use protocol::{PropletId, TaskId, message::TaskState};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Api, ApiError,
    extract::{Body64, page},
    out_of_turn,
    task_body::{TaskBody, TaskMetricsBody, TaskWording, checked, raw},
};

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TaskPage {
    offset: usize,
    limit: usize,
    total: usize,
    tasks: Vec<TaskBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TaskMetricsPage {
    offset: usize,
    limit: usize,
    total: usize,
    metrics: Vec<TaskMetricsBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Started {
    started: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stopped {
    stopped: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResultsBody {
    /// Whatever the task said; `null` as long as it has not ended.
    #[schema(value_type = Option<Object>)]
    results: Option<Box<RawValue>>,
}

/// The module, as a form.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only described; the form is read piece by piece")]
pub(super) struct UploadForm {
    #[schema(format = Binary, value_type = String)]
    file: Vec<u8>,
}

/// Makes a task; it does not run before it is started.
#[utoipa::path(post, path = "/tasks", tag = "tasks", request_body = TaskWording, responses(
    (status = 201, body = TaskBody, headers(("Location" = String, description = "Its path"))),
    (status = 400, description = "Not a task", body = ErrorBody),
    (status = 409, description = "No room for more tasks", body = ErrorBody),
    (status = 413, description = "The module is too large", body = ErrorBody),
    (status = 503, description = "The manager cannot answer", body = ErrorBody),
))]
pub(super) async fn create(
    State(api): State<Api>,
    Body64(wording): Body64<TaskWording>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<TaskBody>), ApiError> {
    let edit = Box::new(wording.read(api.upload_len_max)?);
    let id = uuid::Uuid::new_v4().to_string();
    let id: TaskId = id.parse().map_err(|why| ApiError::BadInput(format!("{id}: {why}")))?;
    let location = [(header::LOCATION, format!("/tasks/{id}"))];
    let task = shown(api.ask(Ask::CreateTask { id, edit }).await?)?;
    Ok((StatusCode::CREATED, location, task))
}

/// Tasks in the order of their creation.
#[utoipa::path(get, path = "/tasks", tag = "tasks",
    params(
        ("offset" = Option<usize>, Query, description = "How many to leave out"),
        ("limit" = Option<usize>, Query, description = "1 to 1000, 100 by default"),
        ("state" = Option<String>, Query, description = "Only in this state; a word or 0..6"),
        ("proplet_id" = Option<String>, Query, description = "Only pinned or sent to it"),
        ("name" = Option<String>, Query, description = "Only of exactly this name"),
    ),
    responses(
        (status = 200, body = TaskPage),
        (status = 400, description = "Bad page or filter", body = ErrorBody),
        (status = 503, description = "The manager cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn list(State(api): State<Api>, words: Words) -> Result<Json<TaskPage>, ApiError> {
    let ask = Ask::Tasks { page: page(&words)?, filter: filter(&words)? };
    let Answer::Tasks(page) = api.ask(ask).await? else {
        return Err(out_of_turn());
    };
    Ok(Json(TaskPage {
        offset: page.page.offset,
        limit: page.page.limit,
        total: page.total,
        tasks: page.items.into_iter().map(TaskBody::from).collect(),
    }))
}

/// One task.
#[utoipa::path(get, path = "/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Task id")),
    responses(
        (status = 200, body = TaskBody),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such task", body = ErrorBody),
        (status = 503, description = "The manager cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Id(id): Id<TaskId>,
) -> Result<Json<TaskBody>, ApiError> {
    shown(api.ask(Ask::Task(id)).await?)
}

/// Changes a task that does not run: what is left out stays as it is.
#[utoipa::path(put, path = "/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Task id")),
    request_body = TaskWording,
    responses(
        (status = 200, body = TaskBody),
        (status = 400, description = "Not a task", body = ErrorBody),
        (status = 404, description = "No such task", body = ErrorBody),
        (status = 409, description = "It runs", body = ErrorBody),
        (status = 413, description = "The module is too large", body = ErrorBody),
        (status = 503, description = "The manager cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn edit(
    State(api): State<Api>,
    Id(id): Id<TaskId>,
    Body64(wording): Body64<TaskWording>,
) -> Result<Json<TaskBody>, ApiError> {
    let edit = Box::new(wording.read(api.upload_len_max)?);
    shown(api.ask(Ask::EditTask { id, edit }).await?)
}

/// Removes a task that does not run.
#[utoipa::path(delete, path = "/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Task id")),
    responses(
        (status = 204, description = "Removed"),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such task", body = ErrorBody),
        (status = 409, description = "It runs: stop it first", body = ErrorBody),
        (status = 503, description = "The manager cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Id(id): Id<TaskId>,
) -> Result<StatusCode, ApiError> {
    done(&api.ask(Ask::DeleteTask(id)).await?)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a task its module.
#[utoipa::path(put, path = "/tasks/{id}/upload", tag = "tasks",
    params(("id" = String, Path, description = "Task id")),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, body = TaskBody),
        (status = 400, description = "Not WebAssembly, or no form", body = ErrorBody),
        (status = 404, description = "No such task", body = ErrorBody),
        (status = 409, description = "It runs", body = ErrorBody),
        (status = 413, description = "The module is too large", body = ErrorBody),
        (status = 503, description = "The manager cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn upload(
    State(api): State<Api>,
    Id(id): Id<TaskId>,
    request: Request,
) -> Result<Json<TaskBody>, ApiError> {
    let _turn = turn(request.headers(), &api.large_bodies).await;
    let form = Multipart::from_request(request, &api)
        .await
        .map_err(|why| ApiError::BadInput(why.body_text()))?;
    let file = module(form, api.upload_len_max).await?;
    shown(api.ask(Ask::Upload { id, file }).await?)
}

/// Starts a task that does not run; a finished one runs once more.
#[utoipa::path(post, path = "/tasks/{id}/start", tag = "tasks",
    params(("id" = String, Path, description = "Task id")),
    responses(
        (status = 200, body = Started),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such task", body = ErrorBody),
        (status = 409, description = "It runs, or nobody is alive to run it", body = ErrorBody),
        (status = 502, description = "Its image cannot be had", body = ErrorBody),
        (status = 503, description = "Not connected to the broker", body = ErrorBody),
    ),
)]
pub(super) async fn start(
    State(api): State<Api>,
    Id(id): Id<TaskId>,
) -> Result<Json<Started>, ApiError> {
    api.needs_broker()?;
    done(&api.ask(Ask::StartTask(id)).await?)?;
    Ok(Json(Started { started: true }))
}

/// Stops a task that runs, or that waits to run again.
#[utoipa::path(post, path = "/tasks/{id}/stop", tag = "tasks",
    params(("id" = String, Path, description = "Task id")),
    responses(
        (status = 200, body = Stopped),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such task", body = ErrorBody),
        (status = 409, description = "It does not run", body = ErrorBody),
        (status = 503, description = "Not connected to the broker", body = ErrorBody),
    ),
)]
pub(super) async fn stop(
    State(api): State<Api>,
    Id(id): Id<TaskId>,
) -> Result<Json<Stopped>, ApiError> {
    api.needs_broker()?;
    done(&api.ask(Ask::StopTask(id)).await?)?;
    Ok(Json(Stopped { stopped: true }))
}

/// What came of a task.
#[utoipa::path(get, path = "/tasks/{id}/results", tag = "tasks",
    params(("id" = String, Path, description = "Task id")),
    responses(
        (status = 200, body = ResultsBody),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such task", body = ErrorBody),
        (status = 503, description = "The manager cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn results(
    State(api): State<Api>,
    Id(id): Id<TaskId>,
) -> Result<Json<ResultsBody>, ApiError> {
    let Answer::Results(results) = api.ask(Ask::Results(id)).await? else {
        return Err(out_of_turn());
    };
    Ok(Json(ResultsBody { results: results.as_ref().map(raw) }))
}

/// What a task took: its last hundred measurements, the oldest first.
#[utoipa::path(get, path = "/tasks/{id}/metrics", tag = "tasks",
    params(
        ("id" = String, Path, description = "Task id"),
        ("offset" = Option<usize>, Query, description = "How many to leave out"),
        ("limit" = Option<usize>, Query, description = "1 to 1000, 100 by default"),
    ),
    responses(
        (status = 200, body = TaskMetricsPage),
        (status = 400, description = "Not an id, or a bad page", body = ErrorBody),
        (status = 404, description = "No such task", body = ErrorBody),
        (status = 503, description = "The manager cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn metrics(
    State(api): State<Api>,
    Id(id): Id<TaskId>,
    words: Words,
) -> Result<Json<TaskMetricsPage>, ApiError> {
    let Answer::Metrics(page) = api.ask(Ask::Metrics { id, page: page(&words)? }).await? else {
        return Err(out_of_turn());
    };
    Ok(Json(TaskMetricsPage {
        offset: page.page.offset,
        limit: page.page.limit,
        total: page.total,
        metrics: page.items.into_iter().map(TaskMetricsBody::from).collect(),
    }))
}

fn shown(answer: Answer) -> Result<Json<TaskBody>, ApiError> {
    let Answer::Task(view) = answer else {
        return Err(out_of_turn());
    };
    Ok(Json((*view).into()))
}

fn done(answer: &Answer) -> Result<(), ApiError> {
    let Answer::Done = answer else {
        return Err(out_of_turn());
    };
    Ok(())
}

fn filter(words: &Words) -> Result<TaskFilter, ApiError> {
    let state = words.get("state", |text| {
        TaskState::parse(text).ok_or_else(|| {
            let all: Vec<_> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
            format!("{} or 0..6", all.join(", "))
        })
    })?;
    let proplet = words.get("proplet_id", |text| {
        text.parse::<PropletId>().map_err(|why| format!("an id ({why})"))
    })?;
    let name = words.get("name", |text| Ok(text.to_owned()))?;
    Ok(TaskFilter { state, proplet, name })
}

/// The one field that counts, read up to the limit.
async fn module(mut form: Multipart, len_max: usize) -> Result<Bytes, ApiError> {
    let bad = |why: axum::extract::multipart::MultipartError| match why.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge { len_max },
        _ => ApiError::BadInput(format!("form: {}", why.body_text())),
    };
    while let Some(mut field) = form.next_field().await.map_err(bad)? {
        if field.name() != Some("file") {
            continue;
        }
        let mut bytes = BytesMut::new();
        while let Some(piece) = field.chunk().await.map_err(bad)? {
            if bytes.len() + piece.len() > len_max {
                return Err(ApiError::TooLarge { len_max });
            }
            bytes.extend_from_slice(&piece);
        }
        return checked(bytes.freeze(), len_max);
    }
    Err(ApiError::BadInput("the form has no field named file".to_owned()))
}
