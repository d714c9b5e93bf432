//! /fl/models: the versions that the rounds made.

use axum::{Json, extract::State};
use http_api::{ApiError, ErrorBody, Words, out_of_turn};
use protocol::message::ModelLatest;
use round::{Answer, Ask, ModelView};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;

/// A model that a round made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Model")]
pub(super) struct ModelBody {
    version: u64,
    /// Where it is retained.
    topic: String,
    /// Of its payload, or of the file that it is.
    sha256: Option<String>,
    round_id: String,
    /// RFC 3339.
    made_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelPage {
    offset: usize,
    limit: usize,
    total: usize,
    /// What the model server shows as the newest of the default line, if it has been heard.
    #[schema(value_type = Option<Object>)]
    latest: Option<ModelLatest>,
    models: Vec<ModelBody>,
}

impl From<ModelView> for ModelBody {
    fn from(view: ModelView) -> Self {
        Self {
            version: view.uri.version.0,
            topic: view.uri.to_string(),
            sha256: view.sha256.map(|digest| digest.to_string()),
            round_id: view.round_id.to_string(),
            made_at: view.made_at.to_string(),
        }
    }
}

/// The models that rounds have made, the newest first; as far back as rounds are remembered.
#[utoipa::path(get, path = "/fl/models", tag = "models",
    params(
        ("offset" = Option<usize>, Query, description = "How many to leave out"),
        ("limit" = Option<usize>, Query, description = "1 to 1000, 100 by default"),
    ),
    responses(
        (status = 200, body = ModelPage),
        (status = 400, description = "Bad page", body = ErrorBody),
        (status = 503, description = "The coordinator cannot answer", body = ErrorBody),
    ),
)]
pub(super) async fn list(
    State(api): State<Api>,
    words: Words,
) -> Result<Json<ModelPage>, ApiError> {
    let page = words.page()?;
    let ask = Ask::Models { offset: page.offset, limit: page.limit };
    let Answer::Models { models, total, latest } = api.ask_rounds(ask).await? else {
        return Err(out_of_turn());
    };
    let models = models.into_iter().map(ModelBody::from).collect();
    Ok(Json(ModelPage { offset: page.offset, limit: page.limit, total, latest, models }))
}
