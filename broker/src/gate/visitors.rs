//! Who is passing through the gate: by the address under which the broker inside sees them.

use crate::{Certificate, Denial};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Everyone who is passing through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visitors {
    // Shared by the gate's and the broker's tasks; held for a look-up, and while the guard is
    // asked about one who connects.
    present: Arc<Mutex<BTreeMap<SocketAddr, Visitor>>>,
}

#[derive(Clone, Debug)]
struct Visitor {
    peer: SocketAddr,
    certificate: Option<Certificate>,
    /// From when the guard has let it in.
    name: Option<String>,
    cut: CancellationToken,
}

/// Why one who connects is sent away.
#[derive(Debug)]
pub(crate) enum VisitorError {
    Denied {
        peer: SocketAddr,
        denial: Denial,
    },
    /// Did not come through the gate.
    Burglar,
}

/// Ends the visit when it is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    visitors: Visitors,
    inside: SocketAddr,
    /// Cancelled when the guard wants it to end.
    pub(super) cut: CancellationToken,
}

impl Visitors {
    /// Begins a visit: the broker will see `peer` as `inside`.
    pub(super) fn enter(
        &self,
        inside: SocketAddr,
        peer: SocketAddr,
        certificate: Option<Certificate>,
    ) -> Visit {
        let cut = CancellationToken::new();
        let visitor = Visitor { peer, certificate, name: None, cut: cut.clone() };
        self.lock().insert(inside, visitor);
        Visit { visitors: self.clone(), inside, cut }
    }

    /// Asks the guard about the one whom the broker sees as `inside`, and remembers its name.
    pub(crate) fn admit(
        &self,
        inside: SocketAddr,
        ask: impl FnOnce(SocketAddr, Option<&Certificate>) -> Result<Option<String>, Denial>,
    ) -> Result<Option<String>, VisitorError> {
        // The guard may take its time, so it is asked with nothing held.
        let visitor = self.lock().get(&inside).cloned();
        let Some(Visitor { peer, certificate, .. }) = visitor else {
            return Err(VisitorError::Burglar);
        };
        let name = ask(peer, certificate.as_ref())
            .map_err(|denial| VisitorError::Denied { peer, denial })?;
        if let Some(visitor) = self.lock().get_mut(&inside) {
            visitor.name.clone_from(&name);
        }
        Ok(name)
    }

    /// Cuts off all those who were let in and are no longer welcome.
    pub(super) fn review(&self, is_welcome: impl Fn(&str, Option<&Certificate>) -> bool) {
        let present: Vec<Visitor> = self.lock().values().cloned().collect();
        for Visitor { peer, certificate, name, cut } in present {
            let Some(name) = name else { continue };
            if !cut.is_cancelled() && !is_welcome(&name, certificate.as_ref()) {
                tracing::warn!(%peer, %name, "client is no longer welcome: cut off");
                cut.cancel();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Visitor>> {
        // Nothing is left half done by a panic: each change is one insert or remove.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visitors.lock().remove(&self.inside);
    }
}
