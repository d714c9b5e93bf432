//! The coordinator service: runs rounds of federated training, and sessions of them. Its cores are
//! `round` and `session`; this shell gives them brokers, disks, a clock, arithmetic and a port.

mod api;
mod callers;
mod config;
mod effects;
mod error;
mod gallery;
mod sessions;
mod signatures;
mod state;
mod status;
mod storage;
mod streaming;
mod tally;
mod timings;
mod traces;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http_api::{Counted, LARGE_BODIES_MAX, Listening, asked};
use round::{Rounds, Rules, TABLES};
use service::{
    Driver, Figures, Inspected, Reports, Store, SystemClock, Traces, Transport, drive,
    files::raise_file_limit, settings::Settings, transport::mqtt::Mqtt,
};
use session::Sessions;
use tokio::{
    sync::{Semaphore, oneshot, watch},
    task::JoinHandle,
    time,
};
use tokio_util::sync::CancellationToken;

pub use config::CoordinatorSettings;
pub use error::CoordinatorError;
pub use signatures::Demand;

use api::Api;
use callers::Callers;
use effects::{Averaging, Outward};
use gallery::Gallery;
use sessions::Desk;
use status::Status;
use storage::Storage;
use timings::Timings;
use traces::RoundTraces;

/// Where updates and models lie that are too large for one message, in the state directory.
const BLOBS: &str = "blobs";
/// How long a stopping coordinator goes on handing over what is queued.
const GRACE: Duration = Duration::from_secs(5);

/// Runs rounds until `stop` is cancelled. What is under way goes on at the next start.
pub async fn run(
    settings: CoordinatorSettings,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let (ready, _) = oneshot::channel();
    run_with(settings, stop, ready).await
}

/// As [`run`]; says on `ready` where the HTTP API listens, once it does.
pub async fn run_with(
    settings: CoordinatorSettings,
    stop: CancellationToken,
    ready: oneshot::Sender<SocketAddr>,
) -> Result<(), CoordinatorError> {
    match raise_file_limit() {
        Ok(files) => tracing::debug!(files, "files may be open at the same time"),
        Err(why) => tracing::warn!(%why, "cannot raise how many files may be open"),
    }
    let transports = (settings.transport()?, settings.sessions_transport()?);
    let listening = Listening::bind(settings.http_address()).await?;
    let listening = listening.with_tls(settings.guard.tls()?);
    settings.guard.say_who_may_call(listening.address());
    let (transport, meeting) = (Mqtt::connect(transports.0), Mqtt::connect(transports.1));
    let (reports, orders) = (Reports::<Rounds>::new(), Reports::<Sessions>::new());
    let (board, status) = watch::channel(Status::default());
    let mut figures = Figures::of_process();
    figures.watch(vec![("rounds", transport.traffic()), ("sessions", meeting.traffic())]);
    let timings = Timings::new(&mut figures);
    let commits = timings.commits("sessions");
    let api = Api {
        status,
        counted: Counted::new(figures),
        gallery: Gallery::default(),
        rounds: reports.sender(),
        round_callers: Callers::default(),
        sessions: orders.sender(),
        session_callers: Callers::default(),
        instance_id: uuid::Uuid::new_v4(),
        large_bodies: Arc::new(Semaphore::new(LARGE_BODIES_MAX)),
    };
    let desk = Desk {
        board: board.clone(),
        gallery: api.gallery.clone(),
        callers: api.session_callers.clone(),
        commits,
    };
    let client = settings.mqtt.client_id_or(<CoordinatorSettings as Settings>::SERVICE);
    let traces = RoundTraces::new(Traces::of(<CoordinatorSettings as Settings>::SERVICE, &client));
    let outward = Outward { board, callers: api.round_callers.clone(), timings, traces };
    let (address, closing) = (listening.address(), CancellationToken::new());
    let router = asked(api::router(api), settings.guard.callers()?);
    let http = tokio::spawn(listening.serve(router, closing.clone()));
    tracing::info!(%address, "the HTTP API listens");
    // Nobody may be waiting for it.
    let _ = ready.send(address);
    // Where the one gives up, the other stops, too.
    let stop = stop.child_token();
    let rounds = serve_with(&settings, transport, (outward, reports), stop.clone());
    let rounds = until_end(rounds, &stop);
    let sessions = sessions::serve(&settings, meeting, (desk, orders), stop.clone());
    let sessions = until_end(sessions, &stop);
    let (rounds, sessions) = tokio::join!(rounds, sessions);
    closing.cancel();
    finish(http).await;
    rounds.and(sessions)
}

/// Lets answers that are on their way go out.
async fn finish(mut http: JoinHandle<()>) {
    if time::timeout(GRACE, &mut http).await.is_err() {
        http.abort();
        tracing::warn!("gave up on HTTP connections that did not end");
    }
}

async fn until_end(
    serving: impl Future<Output = Result<(), CoordinatorError>>,
    stop: &CancellationToken,
) -> Result<(), CoordinatorError> {
    let result = serving.await;
    stop.cancel();
    result
}

/// As [`run`], over any transport, without sessions and HTTP.
pub async fn serve<T: Transport>(
    settings: &CoordinatorSettings,
    transport: T,
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let (board, _) = watch::channel(Status::default());
    let (timings, traces) = (Timings::unseen(), RoundTraces::default());
    let outward = Outward { board, callers: Callers::default(), timings, traces };
    serve_with(settings, transport, (outward, Reports::new()), stop).await
}

async fn serve_with<T: Transport>(
    settings: &CoordinatorSettings,
    transport: T,
    (outward, reports): (Outward, Reports<Rounds>),
    stop: CancellationToken,
) -> Result<(), CoordinatorError> {
    let store = Store::open(&settings.state.state_dir, "coordinator", TABLES)?;
    let store = store.observed(outward.timings.commits("rounds"));
    let limits = settings.mqtt.limits(<CoordinatorSettings as Settings>::SERVICE).await?;
    let transport = Inspected::new(transport, settings.signatures()?);
    let tracing = outward.traces.inspector(limits.message_bytes_max);
    let (transport, traces) = (Inspected::new(transport, tracing), outward.traces.traces());
    let blobs = settings.state.state_dir.join(BLOBS);
    let storage = Storage::open(&blobs, settings.blob_bytes_max, limits)?;
    let driver = Driver {
        machine: Rounds::new(Rules {
            variate_len_max: limits.message_bytes_max,
            ..settings.rules()
        }),
        effects: Averaging::new(storage, transport.gate(), outward)?,
        transport,
        store,
        clock: SystemClock,
        reports,
    };
    tracing::info!(strategy = settings.strategy.name, "coordinator started");
    let driver = drive(driver, stop).await?;
    driver.transport.close(GRACE).await;
    traces.close().await;
    tracing::info!(tally = %driver.effects.tally(), "coordinator stopped");
    Ok(())
}
