//! Errors as callers get them: a status, and `{"error": what is wrong, with the value}`.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use fleet::{Refusal, RefusalKind};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{0}")]
    BadInput(String),
    #[error("the body has more than {len_max} bytes, which is the limit of this call")]
    TooLarge { len_max: usize },
    #[error("no such path: {0}")]
    NoPath(String),
    #[error("{path} does not take {method}")]
    NoMethod { method: Method, path: String },
    #[error("this call needs a token: send the header Authorization: Bearer NAME.SECRET")]
    NoToken,
    #[error("the token is unknown, wrong or revoked")]
    BadToken,
    #[error("the token of {name} does not have the scope {needed}, which this call needs")]
    Scope { name: String, needed: &'static str },
    #[error("orders are not taken from pages of {0}")]
    ForeignOrigin(String),
    #[error("the request took longer than {0:?}")]
    TooSlow(Duration),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Unavailable(String),
    #[error("internal error; the log says more")]
    Panic,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// In words, with the value.
    error: String,
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadInput(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoPath(_) => StatusCode::NOT_FOUND,
            Self::NoMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoToken | Self::BadToken => StatusCode::UNAUTHORIZED,
            Self::ForeignOrigin(_) | Self::Scope { .. } => StatusCode::FORBIDDEN,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Refused(refusal) => match refusal.kind() {
                RefusalKind::BadInput => StatusCode::BAD_REQUEST,
                RefusalKind::NotFound => StatusCode::NOT_FOUND,
                RefusalKind::Conflict => StatusCode::CONFLICT,
                RefusalKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            },
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(ErrorBody { error: self.to_string() })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
