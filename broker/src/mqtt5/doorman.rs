//! The guard as `mqtt5` asks it.

use crate::gate::{VisitorError, Visitors};
use crate::{Denial, Guarded, Knock};
use ::mqtt5::broker::auth::{AuthProvider, AuthResult};
use ::mqtt5::error::Result;
use ::mqtt5::packet::connect::ConnectPacket;
use ::mqtt5::protocol::v5::reason_codes::ReasonCode;
use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Lets in whom the guard lets in, of those who came through the gate.
pub(super) struct Doorman {
    guard: Option<Guarded>,
    visitors: Visitors,
}

impl Doorman {
    pub(super) fn new(guard: Option<Guarded>, visitors: Visitors) -> Self {
        Self { guard, visitors }
    }

    fn decide(&self, connect: &ConnectPacket, from: SocketAddr) -> AuthResult {
        let asked = self.visitors.admit(from, |peer, certificate| {
            let Some(Guarded(guard)) = &self.guard else { return Ok(None) };
            let knock = Knock {
                client_id: &connect.client_id,
                username: connect.username.as_deref(),
                password: connect.password.as_deref(),
                certificate,
                peer,
            };
            guard.admit(&knock).map(Some)
        });
        match asked {
            Ok(Some(name)) => AuthResult::success_with_user(name),
            Ok(None) => AuthResult::success(),
            Err(VisitorError::Denied { peer, denial }) => {
                tracing::warn!(%peer, client_id = %connect.client_id, why = %denial, "client refused");
                AuthResult::fail(match denial {
                    Denial::Stranger | Denial::Password => ReasonCode::BadUsernameOrPassword,
                    Denial::Unwelcome { .. } => ReasonCode::NotAuthorized,
                })
            }
            Err(VisitorError::Burglar) => {
                tracing::warn!(%from, "a client came around the gate: refused");
                AuthResult::fail(ReasonCode::NotAuthorized)
            }
        }
    }

    fn ask(&self, name: Option<&str>, question: impl FnOnce(&Guarded, &str) -> bool) -> bool {
        match (&self.guard, name) {
            (None, _) => true,
            (Some(guard), Some(name)) => question(guard, name),
            (Some(_), None) => false,
        }
    }
}

impl AuthProvider for Doorman {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        client_addr: SocketAddr,
    ) -> Answer<'a, Result<AuthResult>> {
        Box::pin(ready(Ok(self.decide(connect, client_addr))))
    }

    fn authorize_publish<'a>(
        &'a self,
        _client_id: &str,
        user_id: Option<&'a str>,
        topic: &'a str,
    ) -> Answer<'a, bool> {
        let may = self.ask(user_id, |guard, name| guard.0.may_publish(name, topic));
        Box::pin(ready(may))
    }

    fn authorize_subscribe<'a>(
        &'a self,
        _client_id: &str,
        user_id: Option<&'a str>,
        topic_filter: &'a str,
    ) -> Answer<'a, bool> {
        let may = self.ask(user_id, |guard, name| guard.0.may_subscribe(name, topic_filter));
        Box::pin(ready(may))
    }
}
