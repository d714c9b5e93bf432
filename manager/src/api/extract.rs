//! What is taken from a request beside what every API takes: modules, a few at a time.

use axum::extract::{FromRequest, Request};
use http_api::{SMALL_BODY_LEN_MAX, Words, body, read_object, turn};
use serde::de::DeserializeOwned;

use super::{Api, ApiError};

/// Longest body: the longest module as base64, and what stands around it.
pub(super) const fn body_len_max(upload_len_max: usize) -> usize {
    upload_len_max.saturating_mul(4) / 3 + SMALL_BODY_LEN_MAX
}

/// `offset` and `limit`.
pub(super) fn page(words: &Words) -> Result<fleet::Page, ApiError> {
    let http_api::Page { offset, limit } = words.page()?;
    Ok(fleet::Page { offset, limit })
}

/// A JSON body, whatever its content type says: a module in base64 fits in.
#[derive(Debug)]
pub(super) struct Body64<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Body64<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let _turn = turn(request.headers(), &api.large_bodies).await;
        let bytes = body(request, api, body_len_max(api.upload_len_max)).await?;
        read_object(&bytes).map(Self)
    }
}
