//! Who may call an HTTP API: anybody, or who shows a token of the roster with the scope that the
//! call needs.

use std::sync::Arc;

use access::{LiveRoster, Scope, Token};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};

use crate::ApiError;

/// Paths that tell nothing of what is done: whether the service lives, and what it takes.
const OPEN: [&str; 3] = ["/health", "/ready", "/openapi.json"];

/// Who may call.
#[derive(Clone, Debug)]
pub enum Callers {
    Anybody,
    Listed(Arc<LiveRoster>),
}

impl Callers {
    /// Whoever stands on the roster.
    pub fn of(roster: LiveRoster) -> Self {
        Self::Listed(Arc::new(roster))
    }
}

/// The router, behind the question who calls.
pub fn asked(router: Router, callers: Callers) -> Router {
    match callers {
        Callers::Anybody => router,
        Callers::Listed(roster) => router.layer(middleware::from_fn_with_state(roster, ask)),
    }
}

async fn ask(
    State(roster): State<Arc<LiveRoster>>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if OPEN.contains(&path) && request.method().is_safe() {
        return next.run(request).await;
    }
    match admit(&roster, &headers, needed(request.method(), path)) {
        Ok(()) => next.run(request).await,
        Err(why) => why.into_response(),
    }
}

/// Looking needs the least, and what only an operator should do the most.
fn needed(method: &Method, path: &str) -> Scope {
    match path.split('/').nth(1) {
        _ if method.is_safe() => Scope::Read,
        Some("tasks" | "fl") => Scope::Tasks,
        Some(_) | None => Scope::Admin,
    }
}

fn admit(roster: &LiveRoster, headers: &HeaderMap, needed: Scope) -> Result<(), ApiError> {
    let given = headers.get(header::AUTHORIZATION).ok_or(ApiError::NoToken)?;
    let token: Token = given
        .to_str()
        .ok()
        .and_then(|given| given.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .and_then(|(_, token)| token.trim().parse().ok())
        .ok_or(ApiError::BadToken)?;
    let roster = roster.now();
    let holder = roster.holder(&token).ok_or(ApiError::BadToken)?;
    if !holder.may(needed) {
        let name = token.name().to_string();
        return Err(ApiError::Scope { name, needed: needed.name() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_needs_more_than_looking() {
        for (method, path, scope) in [
            (Method::GET, "/tasks", Scope::Read),
            (Method::GET, "/proplets/p1", Scope::Read),
            (Method::GET, "/metrics", Scope::Read),
            (Method::POST, "/tasks", Scope::Tasks),
            (Method::POST, "/tasks/x/start", Scope::Tasks),
            (Method::POST, "/fl/sessions", Scope::Tasks),
            (Method::DELETE, "/tasks/x", Scope::Tasks),
            (Method::DELETE, "/proplets/p1", Scope::Admin),
            (Method::POST, "/whatever/comes", Scope::Admin),
            (Method::POST, "/health", Scope::Admin),
        ] {
            assert_eq!(needed(&method, path), scope, "{method} {path}");
        }
    }
}
