//! /fl/rounds: started, and looked at.

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderName, StatusCode, header},
};
use http_api::{ApiError, ErrorBody, Id, Words, out_of_turn};
use protocol::{
    RoundId,
    message::{Purpose, RoundComplete, RoundFailed, RoundStart},
};
use round::{Answer, Ask, OpenRound, RoundView, Stage, Taken};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;

/// A round that is under way, or what came of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "state")]
#[schema(title = "Round")]
pub(super) enum RoundBody {
    Open(OpenBody),
    #[schema(value_type = Object)]
    Complete(RoundComplete),
    #[schema(value_type = Object)]
    Failed(RoundFailed),
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OpenBody {
    round_id: String,
    /// `train` or `evaluate`.
    #[schema(value_type = String)]
    purpose: Purpose,
    base_model_uri: String,
    /// `collecting`, `aggregating` or `publishing`.
    stage: &'static str,
    participants: Option<usize>,
    k_of_n: usize,
    num_updates: usize,
    absent: usize,
    /// RFC 3339.
    opened_at: String,
    deadline: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RoundPage {
    offset: usize,
    limit: usize,
    total: usize,
    #[schema(value_type = Vec<Object>)]
    rounds: Vec<RoundBody>,
}

/// What a round is asked to do; the fields of its start on the broker.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only described; the core's own words say what is wrong")]
pub(super) struct RoundWording {
    /// Made up if left out.
    round_id: Option<String>,
    model_uri: String,
    participants: Vec<String>,
    hyperparams: Option<Map<String, Value>>,
    k_of_n: Option<usize>,
    timeout_s: Option<u64>,
    /// `train` or `evaluate`.
    purpose: Option<String>,
    session: Option<String>,
    /// Versions that an update of an earlier round of the session may be behind.
    staleness_max: Option<u64>,
    /// The span below which those of the round hang (W3C Trace Context).
    traceparent: Option<String>,
}

impl From<RoundView> for RoundBody {
    fn from(view: RoundView) -> Self {
        match view {
            RoundView::Open(open) => Self::Open(open.into()),
            RoundView::Complete(complete) => Self::Complete(complete),
            RoundView::Failed(failed) => Self::Failed(failed),
        }
    }
}

impl From<OpenRound> for OpenBody {
    fn from(open: OpenRound) -> Self {
        Self {
            round_id: open.round_id.to_string(),
            purpose: open.purpose,
            base_model_uri: open.base.to_string(),
            stage: match open.stage {
                Stage::Collecting => "collecting",
                Stage::Aggregating => "aggregating",
                Stage::Publishing => "publishing",
            },
            participants: open.participants,
            k_of_n: open.k_of_n,
            num_updates: open.num_updates,
            absent: open.absent,
            opened_at: open.opened_at.to_string(),
            deadline: open.deadline.to_string(),
        }
    }
}

/// Rounds that are open, then those that have ended, the last one first.
#[utoipa::path(get, path = "/fl/rounds", tag = "rounds",
    params(
        ("offset" = Option<usize>, Query, description = "How many to leave out"),
        ("limit" = Option<usize>, Query, description = "1 to 1000, 100 by default"),
    ),
    responses(
        (status = 200, body = RoundPage),
        (status = 400, description = "Bad page", body = ErrorBody),
        (status = 503, description = "The coordinator cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn list(
    State(api): State<Api>,
    words: Words,
) -> Result<Json<RoundPage>, ApiError> {
    let page = words.page()?;
    let ask = Ask::Rounds { offset: page.offset, limit: page.limit };
    let Answer::Rounds { rounds, total } = api.ask_rounds(ask).await? else {
        return Err(out_of_turn());
    };
    let rounds = rounds.into_iter().map(RoundBody::from).collect();
    Ok(Json(RoundPage { offset: page.offset, limit: page.limit, total, rounds }))
}

/// One round.
#[utoipa::path(get, path = "/fl/rounds/{id}", tag = "rounds",
    params(("id" = String, Path, description = "Round id")),
    responses(
        (status = 200, description = "The round", body = Object),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such round, or long forgotten", body = ErrorBody),
        (status = 503, description = "The coordinator cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Id(id): Id<RoundId>,
) -> Result<Json<RoundBody>, ApiError> {
    let Answer::Round(view) = api.ask_rounds(Ask::Round(id)).await? else {
        return Err(out_of_turn());
    };
    Ok(Json(view.into()))
}

/// Starts a round, durably, and tells the manager; the same start again changes nothing.
#[utoipa::path(post, path = "/fl/rounds", tag = "rounds", request_body = RoundWording, responses(
    (status = 200, description = "It had been started before", body = Object),
    (status = 201, description = "It is open", body = Object,
        headers(("Location" = String, description = "Its path"))),
    (status = 400, description = "Not a start", body = ErrorBody),
    (status = 409, description = "Another start has this id, or too many are open", body = ErrorBody),
    (status = 413, description = "The body is too large", body = ErrorBody),
    (status = 503, description = "Not connected to the broker, or the disk refuses", body = ErrorBody),
))]
pub(super) async fn start(
    State(api): State<Api>,
    request: Request,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<RoundBody>), ApiError> {
    let mut fields = api.fields(request).await?;
    let made_up = || format!("r-{}", uuid::Uuid::new_v4().simple());
    fields.entry("round_id").or_insert_with(|| made_up().into());
    let start: RoundStart = serde_json::from_value(fields.into())
        .map_err(|why| ApiError::BadInput(format!("not a round's start: {why}")))?;
    api.takes_orders(|status| &status.rounds)?;
    let location = [(header::LOCATION, format!("/fl/rounds/{}", start.round_id))];
    let answer = api.ask_rounds(Ask::Start(Box::new(start))).await?;
    let Answer::Started { round, taken } = answer else { return Err(out_of_turn()) };
    let code = match taken {
        Taken::Now => StatusCode::CREATED,
        Taken::Before => StatusCode::OK,
    };
    Ok((code, location, Json(round.into())))
}
