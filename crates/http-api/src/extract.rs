//! What is taken from a request: ids, pages, bodies; refused in our own words.

use std::str::FromStr;

use axum::{
    Json,
    extract::{FromRequest as _, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use bytes::Bytes;
use protocol::IdError;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::ApiError;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// Up to here a body is small: as many as there are connections.
pub const SMALL_BODY_LEN_MAX: usize = 1 << 20;

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub offset: usize,
    pub limit: usize,
}

/// The id in the path.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<T, S> FromRequestParts<S> for Id<T>
where
    T: FromStr<Err = IdError>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|why| ApiError::BadInput(why.body_text()))?;
        let shown = |why: IdError| {
            let text: String = text.chars().take(140).collect();
            ApiError::BadInput(format!("{text:?} in the path: {why}"))
        };
        text.parse().map(Self).map_err(shown)
    }
}

/// The words behind the `?`; of a word that stands twice, the last counts.
#[derive(Debug)]
pub struct Words(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Words {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
            Ok(Query(words)) => Ok(Self(words)),
            Err(why) => Err(ApiError::BadInput(why.body_text())),
        }
    }
}

impl Words {
    /// `read` says what is taken if it does not take the text.
    pub fn get<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ApiError> {
        let Some((_, text)) = self.0.iter().rfind(|(word, _)| word == name) else {
            return Ok(None);
        };
        let shown = |takes: String| {
            let text: String = text.chars().take(140).collect();
            ApiError::BadInput(format!("{name} takes {takes}, not {text:?}"))
        };
        read(text).map(Some).map_err(shown)
    }

    /// `offset` and `limit`.
    pub fn page(&self) -> Result<Page, ApiError> {
        let number = |text: &str| text.parse::<usize>().ok();
        let offset = self
            .get("offset", |text| number(text).ok_or_else(|| "a whole number from 0".to_owned()))?;
        let limit = self.get("limit", |text| {
            number(text)
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| format!("1 to {LIMIT_MAX}"))
        })?;
        Ok(Page { offset: offset.unwrap_or(0), limit: limit.unwrap_or(LIMIT_DEFAULT) })
    }
}

/// The bytes of a body; `len_max` is the limit that the route sets, for the words.
pub async fn body<S: Send + Sync>(
    request: Request,
    state: &S,
    len_max: usize,
) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|why| match why.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge { len_max },
        _ => ApiError::BadInput(why.body_text()),
    })
}

/// The JSON object in a body, whatever its content type says.
pub fn read_object<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        let begins = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        return Err(ApiError::BadInput(format!("the body takes a JSON object, not {begins:?}")));
    }
    match Json::<T>::from_bytes(bytes) {
        Ok(Json(body)) => Ok(body),
        Err(why) => Err(ApiError::BadInput(why.body_text())),
    }
}

/// Large bodies are read a few at a time, so that memory stays bounded.
pub async fn turn<'a>(headers: &HeaderMap, large: &'a Semaphore) -> Option<SemaphorePermit<'a>> {
    let len = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok());
    match len.and_then(|len| len.parse::<usize>().ok()) {
        Some(len) if len <= SMALL_BODY_LEN_MAX => None,
        Some(_) | None => large.acquire().await.ok(),
    }
}
