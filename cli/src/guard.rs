//! The roster as the embedded broker asks it.

use std::{path::Path, sync::Arc};

use access::{Credentials, LiveRoster, Porter, Refusal, RosterError};
use broker::{Certificate, Denial, Guard, Guarded, Knock};
use protocol::Namespace;

struct RosterGuard(Porter);

/// Guards a broker by the roster in a file.
pub(crate) fn guard(roster: &Path, namespace: Namespace) -> Result<Guarded, RosterError> {
    let porter = Porter::new(LiveRoster::open(roster)?, namespace);
    Ok(Guarded(Arc::new(RosterGuard(porter))))
}

impl Guard for RosterGuard {
    fn admit(&self, knock: &Knock<'_>) -> Result<String, Denial> {
        let certificate = knock.certificate;
        let shown = Credentials {
            client_id: knock.client_id,
            username: knock.username,
            password: knock.password,
            certificate: certificate.map(|shown| (shown.name.as_str(), shown.der.as_slice())),
        };
        let (name, role) = self.0.admit(&shown).map_err(denial)?;
        tracing::info!(%name, %role, client_id = knock.client_id, peer = %knock.peer, "client let in");
        Ok(name.to_string())
    }

    fn may_publish(&self, name: &str, topic: &str) -> bool {
        self.0.may_publish(name, topic)
    }

    fn may_subscribe(&self, name: &str, filter: &str) -> bool {
        let may = self.0.may_subscribe(name, filter);
        if !may {
            tracing::warn!(%name, %filter, "subscription refused");
        }
        may
    }

    fn is_welcome(&self, name: &str, certificate: Option<&Certificate>) -> bool {
        self.0.is_welcome(name, certificate.map(|shown| shown.der.as_slice()))
    }
}

fn denial(why: Refusal) -> Denial {
    match &why {
        Refusal::Stranger => Denial::Stranger,
        Refusal::Password => Denial::Password,
        Refusal::Unknown(name) => Denial::Unwelcome { name: name.clone(), why: why.to_string() },
        Refusal::Revoked(name)
        | Refusal::Certificate(name)
        | Refusal::Mixed(name)
        | Refusal::NoRole(name)
        | Refusal::ClientId { name, .. } => {
            Denial::Unwelcome { name: name.to_string(), why: why.to_string() }
        }
    }
}
