//! Where devices are let in: one at a time, so that of two with one token the second finds it used.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use access::{Authority, JoinError, JoinRequest, Roster, Welcome};
use service::{Clock as _, SystemClock, settings::SettingsError};
use tokio::sync::Mutex as Turnstile;

use crate::RegistrarSettings;

/// What has come of devices that wanted to join; one that did counts as this.
const JOINED: &str = "joined";

/// What every handler gets.
#[derive(Clone, Debug)]
pub(crate) struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    authority: Authority,
    roster: PathBuf,
    days: u32,
    welcome: Welcome,
    instance_id: uuid::Uuid,
    turnstile: Turnstile<()>,
    // Counted after an answer, read for the figures; held for a look-up.
    tally: Mutex<BTreeMap<&'static str, u64>>,
}

impl Desk {
    pub(crate) fn new(
        settings: RegistrarSettings,
        authority: Authority,
    ) -> Result<Self, SettingsError> {
        Ok(Self(Arc::new(Inner {
            welcome: settings.welcome(&authority)?,
            authority,
            roster: settings.roster_file,
            days: settings.days,
            instance_id: uuid::Uuid::new_v4(),
            turnstile: Turnstile::default(),
            tally: Mutex::default(),
        })))
    }

    /// The authority's certificate: no secret, and to be held against the token by whoever asks.
    pub(crate) fn ca(&self) -> String {
        self.0.authority.pem().to_owned()
    }

    pub(crate) fn instance_id(&self) -> uuid::Uuid {
        self.0.instance_id
    }

    /// Lets a device in, or says why not.
    pub(crate) async fn join(&self, request: JoinRequest) -> Result<Welcome, JoinError> {
        let _turn = self.0.turnstile.lock().await;
        let name = request.name().map_or_else(|| "?".to_owned(), |name| name.to_string());
        let desk = Arc::clone(&self.0);
        // It waits for files, and for whoever else changes the roster.
        let joined = tokio::task::spawn_blocking(move || desk.admit(&request)).await;
        let joined = joined.expect("nothing in there panics, and nobody aborts it");
        match &joined {
            Ok(_) => tracing::info!(%name, "a device has joined"),
            Err(why) => tracing::warn!(%name, code = why.code(), "a device was refused: {why}"),
        }
        self.count(joined.as_ref().map_or_else(JoinError::code, |_| JOINED));
        joined
    }

    pub(crate) fn count(&self, outcome: &'static str) {
        *self.tally().entry(outcome).or_default() += 1;
    }

    /// By outcome.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.tally().clone()
    }

    fn tally(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        // Each change is one addition.
        self.0.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn admit(&self, request: &JoinRequest) -> Result<Welcome, JoinError> {
        let now = SystemClock.now();
        let (name, certified) = Roster::edit(&self.roster, |roster| {
            request.admit(&self.authority, roster, now, self.days)
        })?;
        Ok(Welcome {
            name: name.to_string(),
            certificate: certified.certificate_pem,
            ..self.welcome.clone()
        })
    }
}
