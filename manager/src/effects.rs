//! What the manager does about the core's effects: it answers callers, paces pieces, asks
//! registries, and logs.

use fleet::{Answer, Effect, Fleet, Found, Refusal, Report, Seeker, Wanted};
use protocol::OpenError;
use service::{Effects, Gate, StoreError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task,
};

use crate::{images::Images, status::Status, timings::Timings, traces::TaskTraces};

/// Whoever waits for an answer.
pub(crate) type Caller = oneshot::Sender<Result<Answer, Refusal>>;

/// Answers callers, and says how it goes.
#[derive(Debug)]
pub(crate) struct Desk {
    status: watch::Sender<Status>,
    /// Where pieces of modules wait until the broker takes them.
    gate: Gate,
    images: Images,
    timings: Timings,
    traces: TaskTraces,
}

impl Desk {
    pub(crate) fn new(
        gate: Gate,
        images: Images,
        (timings, traces): (Timings, TaskTraces),
    ) -> (Self, watch::Receiver<Status>) {
        let (status, seen) = watch::channel(Status::default());
        (Self { status, gate, images, timings, traces }, seen)
    }
}

impl Effects<Fleet<Caller>> for Desk {
    fn perform(&mut self, effect: Effect<Caller>, report: &mpsc::Sender<Report<Caller>>) {
        match effect {
            // A caller that has gone away does not want its answer any more.
            Effect::Reply { to, answer } => drop(to.send(*answer)),
            Effect::Pass(piece) => {
                let (gate, report) = (self.gate.clone(), report.clone());
                task::spawn(async move {
                    gate.pass().await;
                    // Nobody listens any more only when the manager is gone.
                    let _ = report.send(Report::Passed(piece)).await;
                });
            }
            Effect::Find { wanted, seeker } => {
                let (images, report) = (self.images.clone(), report.clone());
                task::spawn(async move {
                    let patience = match &seeker {
                        Seeker::Round(_) => Patience::Long,
                        Seeker::Start { .. } => Patience::Short,
                    };
                    let found = find(images, wanted.clone(), patience).await;
                    // Nobody listens any more only when the manager is gone.
                    let _ = report.send(Report::Found { wanted, seeker, found }).await;
                });
            }
            Effect::Tell(notice) => {
                self.timings.note(&notice);
                self.traces.note(&notice);
                if notice.is_warning() {
                    tracing::warn!("{notice}");
                } else {
                    tracing::info!("{notice}");
                }
            }
        }
    }

    fn unreadable(&mut self, _why: &OpenError) {
        self.status.send_modify(|status| status.unreadable += 1);
    }

    fn connection(&mut self, connected: bool) {
        self.status.send_modify(|status| status.standing.connection(connected));
    }

    fn storage(&mut self, why: Option<&StoreError>) {
        self.status.send_modify(|status| status.standing.storage(why));
    }
}

/// Whether somebody waits for the answer meanwhile.
enum Patience {
    Long,
    Short,
}

/// What was found, or why not. Whatever a registry says, and whatever its client makes of that, there
/// is an answer: a round waits for it.
async fn find(images: Images, wanted: Wanted, patience: Patience) -> Result<Found, String> {
    let asking = task::spawn(async move {
        match patience {
            Patience::Long => images.find(&wanted).await,
            Patience::Short => images.find_soon(&wanted).await,
        }
    });
    asking.await.unwrap_or_else(|why| Err(format!("asking the registry broke: {why}")))
}
