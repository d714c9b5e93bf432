//! What the HTTP APIs of the services have in common: the port, the words of errors, pages, health
//! and figures. It refuses to know what any of them offers.

mod callers;
mod error;
mod extract;
mod figures;
mod guard;
mod health;
mod listen;
mod vitals;

use std::time::Duration;

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, Method, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use tokio::time;
use tower_http::catch_panic::CatchPanicLayer;

pub use callers::{Callers, asked};
pub use error::{ApiError, ErrorBody};
pub use extract::{Id, Page, SMALL_BODY_LEN_MAX, Words, body, read_object, turn};
pub use figures::Counted;
pub use guard::GuardArgs;
pub use health::{Health, health};
pub use listen::{HttpTls, Line, ListenError, Listening};
pub use vitals::{OpenError, Vitals, VitalsArgs, VitalsPort};

/// How long a request may take, its body included.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Large bodies that are read at the same time.
pub const LARGE_BODIES_MAX: usize = 4;
/// How long a core may take to answer.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Routes with what stands around those of every API; calls are counted in `counted`.
pub fn dressed<S: Clone + Send + Sync + 'static>(
    routes: Router<S>,
    counted: &Counted,
) -> Router<S> {
    routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(within_time))
        .layer(middleware::from_fn(same_origin))
        .layer(CatchPanicLayer::custom(|_| ApiError::Panic.into_response()))
        .layer(middleware::from_fn_with_state(counted.clone(), figures::count))
}

/// The core answered something else than what it was asked.
pub fn out_of_turn() -> ApiError {
    tracing::error!("the core answered another question than was asked");
    ApiError::Panic
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::NoPath(uri.path().chars().take(200).collect())
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ApiError::NoMethod { method, path: uri.path().chars().take(200).collect() }
}

async fn within_time(request: Request, next: Next) -> Response {
    match time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TooSlow(REQUEST_MAX).into_response(),
    }
}

/// A page from elsewhere, open in the operator's browser, must not give orders.
async fn same_origin(headers: HeaderMap, request: Request, next: Next) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let foreign = headers.contains_key(header::ORIGIN)
        && text(header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host)
            != text(header::HOST);
    if foreign && !request.method().is_safe() {
        let origin = text(header::ORIGIN).unwrap_or("?").chars().take(200).collect();
        return ApiError::ForeignOrigin(origin).into_response();
    }
    next.run(request).await
}
