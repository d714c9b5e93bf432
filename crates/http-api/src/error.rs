//! Errors as callers get them: a status, and `{"error": what is wrong, with the value}`.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request is not answered as it was meant.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
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
    /// What a core does not do, and the status that says which kind of no it is.
    #[error("{what}")]
    Refused { status: StatusCode, what: String },
    #[error("{0}")]
    Unavailable(String),
    #[error("internal error; the log says more")]
    Panic,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
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
            Self::Refused { status, .. } => *status,
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
