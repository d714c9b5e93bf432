//! Sessions beside the rounds: their core is `session`, which speaks to the rounds over the broker
//! alone. This shell gives it a connection and a disk of its own.

use service::{
    Driver, Effects, Reports, Store, StoreError, SystemClock, Transport, drive, figures::Seconds,
};
use session::{Effect, Note, Report, Sessions, TABLES};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    CoordinatorError, CoordinatorSettings, GRACE, api::SessionAnswer, callers::Callers,
    gallery::Gallery, status::Board,
};

/// Logs what happens to sessions, shows how they stand, and answers callers.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) board: Board,
    pub(crate) gallery: Gallery,
    pub(crate) callers: Callers<SessionAnswer>,
    /// Where commits to the state file are counted.
    pub(crate) commits: Seconds,
}

/// Runs sessions until `stop` is cancelled. What is under way goes on at the next start.
pub(crate) async fn serve<T: Transport>(
    settings: &CoordinatorSettings,
    transport: T,
    (desk, reports): (Desk, Reports<Sessions>),
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let store = Store::open(&settings.state.state_dir, "sessions", TABLES)?;
    let store = store.observed(desk.commits.clone());
    let driver = Driver {
        machine: Sessions::default(),
        effects: desk,
        transport,
        store,
        clock: SystemClock,
        reports,
    };
    let driver = drive(driver, stop).await?;
    driver.transport.close(GRACE).await;
    Ok(())
}

impl Effects<Sessions> for Desk {
    fn perform(&mut self, effect: Effect, _report: &mpsc::Sender<Report>) {
        match effect {
            Effect::Note(note) => {
                self.count(&note);
                log(&note);
            }
            Effect::Show(view) => self.gallery.show(*view),
            Effect::Trim { session, first_row } => self.gallery.trim(&session, first_row),
            Effect::Forget(session) => self.gallery.forget(&session),
            Effect::Answer { ticket, answer } => self.callers.answer(ticket, answer),
        }
    }

    fn connection(&mut self, connected: bool) {
        self.board.send_modify(|status| status.sessions.connection(connected));
    }

    fn storage(&mut self, why: Option<&StoreError>) {
        self.board.send_modify(|status| status.sessions.storage(why));
    }
}

impl Desk {
    fn count(&self, note: &Note) {
        match note {
            Note::Evaluated { .. } => self.board.send_modify(|status| status.evaluations += 1),
            Note::RoundFailed { .. } => {
                self.board.send_modify(|status| status.session_rounds_failed += 1);
            }
            Note::Started { .. }
            | Note::Refused { .. }
            | Note::Asked { .. }
            | Note::Waits { .. }
            | Note::RoundDone { .. }
            | Note::Ended { .. }
            | Note::UnknownCommand { .. } => {}
        }
    }
}

fn log(note: &Note) {
    match note {
        Note::Started { session, rounds } => tracing::info!(%session, rounds, "session started"),
        Note::Refused { session, what } => {
            tracing::warn!(%session, what, "start of a session not taken");
        }
        Note::Asked { session, round, participants, k } => {
            tracing::info!(%session, %round, participants, k, "session asks for a round");
        }
        Note::Waits { session, what } => tracing::info!(%session, what, "session waits"),
        Note::RoundDone { session, round, of, model } => {
            tracing::info!(%session, round, of, %model, "session has a new model");
        }
        Note::Evaluated { session, round, updates } => {
            tracing::info!(%session, %round, updates, "session has evaluated its model");
        }
        Note::RoundFailed { session, what } => {
            tracing::warn!(%session, what, "a round of the session failed");
        }
        Note::Ended { session, state, detail } => {
            tracing::info!(%session, %state, detail, "session ended");
        }
        Note::UnknownCommand { session } => {
            tracing::warn!(%session, "command to a session that does not exist");
        }
    }
}
