//! HTTP in, one question to the desk, an answer out.

use access::{JoinError, JoinRequest, RequestError, Welcome};
use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http_api::{ApiError, Counted, Health, body, dressed, read_object};
use service::{Figures, figures::labels};

use crate::desk::Desk;

/// Longest request: a few keys in PEM.
const BODY_LEN_MAX: usize = 16 << 10;

/// The whole API.
pub(crate) fn router(desk: Desk) -> Router {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/ca.pem", get(ca))
        .route("/join", post(join))
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX));
    let counted = Counted::new(Figures::of_process());
    dressed(routes.layer(Extension(counted.clone())), &counted).with_state(desk)
}

async fn health(State(desk): State<Desk>) -> (StatusCode, Json<Health>) {
    http_api::health("registrar service", desk.instance_id(), None)
}

async fn metrics(State(desk): State<Desk>, Extension(counted): Extension<Counted>) -> Response {
    let mut now = Figures::default();
    let joins = desk.counts().into_iter();
    let joins = joins.map(|(outcome, count)| (labels([("outcome", outcome)]), count));
    let help = "Devices that wanted to join, by what came of it";
    now.counted_by("aileron_joins_total", help, joins);
    counted.exposition(&now)
}

async fn ca(State(desk): State<Desk>) -> Response {
    ([(header::CONTENT_TYPE, "application/x-pem-file")], desk.ca()).into_response()
}

async fn join(
    State(desk): State<Desk>,
    request: Request,
) -> Result<(StatusCode, Json<Welcome>), ApiError> {
    let read = body(request, &desk, BODY_LEN_MAX).await;
    // Whatever does not parse may hold a token, so it is not repeated.
    let malformed = |_| ApiError::BadInput("the body is not a request to join".to_owned());
    let read = read.and_then(|bytes| read_object::<JoinRequest>(&bytes).map_err(malformed));
    let request = read.inspect_err(|_| desk.count("malformed"))?;
    match desk.join(request).await {
        Ok(welcome) => Ok((StatusCode::CREATED, Json(welcome))),
        Err(why) => Err(refused(&why)),
    }
}

fn refused(why: &JoinError) -> ApiError {
    let status = match why {
        JoinError::Token(_) | JoinError::SigningKey => StatusCode::BAD_REQUEST,
        JoinError::Unknown => StatusCode::UNAUTHORIZED,
        JoinError::Used(_) | JoinError::Expired(_) => StatusCode::GONE,
        JoinError::Request(RequestError::Sign(_)) | JoinError::Roster(_) => {
            return ApiError::Unavailable(
                "the registrar cannot do it now; its log says why".into(),
            );
        }
        JoinError::Request(
            RequestError::Unreadable(_)
            | RequestError::Name { .. }
            | RequestError::Authority
            | RequestError::Hosts
            | RequestError::Usage,
        ) => StatusCode::BAD_REQUEST,
    };
    ApiError::Refused { status, what: why.to_string() }
}
