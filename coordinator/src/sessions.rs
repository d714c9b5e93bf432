//! Sessions beside the rounds: their core is `session`, which speaks to the rounds over the broker
//! alone. This shell gives it a connection and a disk of its own.

use service::{Driver, Effects, Reports, Store, SystemClock, Transport, drive};
use session::{Effect, News, Note, Sessions, TABLES};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{CoordinatorError, CoordinatorSettings, GRACE};

/// Logs what happens to sessions.
#[derive(Debug)]
struct Log;

/// Runs sessions until `stop` is cancelled. What is under way goes on at the next start.
pub(crate) async fn serve<T: Transport>(
    settings: &CoordinatorSettings,
    transport: T,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let store = Store::open(&settings.state.state_dir, "sessions", TABLES)?;
    let driver = Driver {
        machine: Sessions::default(),
        effects: Log,
        transport,
        store,
        clock: SystemClock,
        reports: Reports::new(),
    };
    let driver = drive(driver, stop).await?;
    driver.transport.close(GRACE).await;
    Ok(())
}

impl Effects<Sessions> for Log {
    fn perform(&mut self, effect: Effect, _report: &mpsc::Sender<News>) {
        match effect {
            Effect::Note(note) => log(&note),
            Effect::Show(_) | Effect::Forget(_) => {}
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
