//! The event loop that all services run; a service only builds its arguments.
//!
//! Inputs are taken in batches. What a batch keeps and promises is written in one transaction;
//! only then are its messages acknowledged, its envelopes sent and its effects begun. When the
//! disk refuses, the batch is held and written again: nothing is acknowledged, nothing is lost,
//! and no further input is taken.

use std::{collections::VecDeque, pin::pin, time::Duration};

use protocol::{Entry, EntryError, Envelope, Input, Machine, Output, Timestamp};
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, Inbound, PromiseId, Receipt, Store, StoreError, Transport, TransportError, health::Pulse,
};

/// Most inputs in one transaction.
const BATCH_MAX: usize = 64;
/// Most payload bytes that one transaction may answer, a single larger message aside.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Most messages under way to the broker before no further report is taken. News are still heard,
/// since what ends the jam is among them.
const BACKLOG_MAX: usize = 4096;
const REPORTS_MAX: usize = 256;
const RETRY: Duration = Duration::from_millis(500);
/// The wall clock is looked at so often, since it may have been set or the machine suspended.
const GLANCE: Duration = Duration::from_secs(1);

/// What a service does about its machine's effects. Slow work goes to a task, which reports back.
pub trait Effects<M: Machine> {
    /// Begins one effect; must not wait.
    fn perform(&mut self, effect: M::Effect, report: &mpsc::Sender<M::Report>);

    /// Is told what the driver could not read, beside the log.
    fn unreadable(&mut self, _why: &protocol::OpenError) {}

    /// Is told whether the broker is there.
    fn connection(&mut self, _connected: bool) {}

    /// Is told whether the store takes what it is given; `why` is set while it does not.
    fn storage(&mut self, _why: Option<&StoreError>) {}
}

/// Why a driver gave up.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// A machine with everything around it.
#[derive(Debug)]
pub struct Driver<M: Machine, E, T, C> {
    pub machine: M,
    pub effects: E,
    pub transport: T,
    pub store: Store,
    pub clock: C,
    /// Reports from outside of effects (an HTTP API) come in here.
    pub reports: Reports<M>,
}

/// Both ends of the queue of reports.
#[derive(Debug)]
pub struct Reports<M: Machine> {
    sender: mpsc::Sender<M::Report>,
    receiver: mpsc::Receiver<M::Report>,
}

impl<M: Machine> Reports<M> {
    /// An empty queue.
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(REPORTS_MAX);
        Self { sender, receiver }
    }

    /// A way in.
    pub fn sender(&self) -> mpsc::Sender<M::Report> {
        self.sender.clone()
    }
}

impl<M: Machine> Default for Reports<M> {
    fn default() -> Self {
        Self::new()
    }
}

enum Heard<R> {
    Stop,
    Report(R),
    Inbound(Inbound),
    Tick,
}

struct Batch<Effect> {
    inputs: usize,
    bytes: usize,
    entries: Vec<Entry>,
    promises: Vec<Envelope>,
    receipts: Vec<Receipt>,
    kept: Vec<PromiseId>,
    /// In the order in which they were asked for.
    actions: VecDeque<Action<Effect>>,
}

enum Action<Effect> {
    Promise,
    Publish(Envelope),
    Listen(protocol::Filter),
    Unlisten(protocol::Filter),
    Effect(Effect),
}

/// Runs until `stop` is cancelled, then hands back what is left of the service, so that it can
/// say goodbye.
pub async fn drive<M, E, T, C>(
    mut driver: Driver<M, E, T, C>,
    stop: CancellationToken,
) -> Result<Driver<M, E, T, C>, DriveError>
where
    M: Machine,
    E: Effects<M>,
    T: Transport,
    C: Clock,
{
    driver.machine.restore(driver.store.entries()?)?;
    for filter in driver.machine.filters() {
        driver.transport.listen(filter);
    }
    for (id, envelope) in driver.store.promises()? {
        driver.transport.publish(envelope, Some(id));
    }
    let mut pulse = Pulse::start(driver.store.health_socket());
    loop {
        let mut batch = Batch::new();
        let heard = driver.wait(&stop).await?;
        if let Heard::Stop = heard {
            return Ok(driver);
        }
        driver.hear(heard, &mut batch, &mut pulse);
        while batch.has_room() {
            match driver.ready().await? {
                Some(heard) => driver.hear(heard, &mut batch, &mut pulse),
                None => break,
            }
        }
        // However much there is to hear, time does not stand still.
        if driver.is_due() {
            driver.hear(Heard::Tick, &mut batch, &mut pulse);
        }
        let Some(promised) = driver.commit(&batch, &stop, &mut pulse).await else {
            return Ok(driver);
        };
        driver.act(batch, promised);
    }
}

impl<M, E, T, C> Driver<M, E, T, C>
where
    M: Machine,
    E: Effects<M>,
    T: Transport,
    C: Clock,
{
    async fn wait(&mut self, stop: &CancellationToken) -> Result<Heard<M::Report>, TransportError> {
        let deadline = self.machine.deadline();
        let clogged = self.is_clogged();
        let mut stopped = pin!(stop.cancelled());
        tokio::select! {
            biased;
            () = &mut stopped => Ok(Heard::Stop),
            inbound = self.transport.next() => Ok(Heard::Inbound(inbound?)),
            Some(report) = self.reports.receiver.recv(), if !clogged => Ok(Heard::Report(report)),
            () = until(&self.clock, deadline) => Ok(Heard::Tick),
        }
    }

    /// What is there already, without waiting.
    async fn ready(&mut self) -> Result<Option<Heard<M::Report>>, TransportError> {
        if !self.is_clogged()
            && let Ok(report) = self.reports.receiver.try_recv()
        {
            return Ok(Some(Heard::Report(report)));
        }
        tokio::select! {
            biased;
            inbound = self.transport.next() => Ok(Some(Heard::Inbound(inbound?))),
            () = std::future::ready(()) => Ok(None),
        }
    }

    fn is_clogged(&self) -> bool {
        self.transport.backlog() > BACKLOG_MAX
    }

    fn is_due(&self) -> bool {
        self.machine.deadline().is_some_and(|deadline| deadline <= self.clock.now())
    }

    fn hear(&mut self, heard: Heard<M::Report>, batch: &mut Batch<M::Effect>, pulse: &mut Pulse) {
        batch.inputs += 1;
        let input = match heard {
            Heard::Stop => return,
            Heard::Tick => Input::Tick,
            Heard::Report(report) => Input::Report(report),
            Heard::Inbound(Inbound::Connected { resumed }) => {
                self.effects.connection(true);
                pulse.connection(true);
                Input::Connected { resumed }
            }
            Heard::Inbound(Inbound::Lost { why }) => {
                tracing::warn!(%why, "lost the broker");
                self.effects.connection(false);
                pulse.connection(false);
                self.machine.disconnected();
                return;
            }
            Heard::Inbound(Inbound::Delivered(id)) => {
                batch.kept.push(id);
                return;
            }
            Heard::Inbound(Inbound::Message { envelope, receipt }) => {
                batch.receipts.push(receipt);
                batch.bytes += envelope.payload.len();
                match M::News::try_from(envelope) {
                    Ok(news) => Input::News(news),
                    Err(why) => {
                        tracing::warn!(%why, "ignored a message");
                        self.effects.unreadable(&why);
                        return;
                    }
                }
            }
        };
        batch.extend(self.machine.step(input, self.clock.now()));
    }

    /// Writes the batch, however often it takes; `None` if the service is to stop before it could.
    async fn commit(
        &mut self,
        batch: &Batch<M::Effect>,
        stop: &CancellationToken,
        pulse: &mut Pulse,
    ) -> Option<Vec<PromiseId>> {
        if batch.entries.is_empty() && batch.promises.is_empty() && batch.kept.is_empty() {
            return Some(vec![]);
        }
        let mut refused = false;
        loop {
            match self.store.commit(&batch.entries, &batch.promises, &batch.kept) {
                Ok(promised) => {
                    if refused {
                        tracing::info!("the state file takes writes again");
                        self.effects.storage(None);
                        pulse.storage(None);
                    }
                    return Some(promised);
                }
                Err(why) => {
                    if !refused {
                        let cause = std::error::Error::source(&why).map(ToString::to_string);
                        tracing::error!(%why, ?cause, "cannot write; holding everything back");
                    }
                    refused = true;
                    self.effects.storage(Some(&why));
                    pulse.storage(Some(&why));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = time::sleep(RETRY) => {}
            }
        }
    }

    fn act(&mut self, batch: Batch<M::Effect>, promised: Vec<PromiseId>) {
        for receipt in batch.receipts {
            self.transport.ack(receipt);
        }
        let mut promised = batch.promises.into_iter().zip(promised);
        for action in batch.actions {
            match action {
                Action::Promise => {
                    let (envelope, id) = promised.next().expect("one place a promise");
                    self.transport.publish(envelope, Some(id));
                }
                Action::Publish(envelope) => self.transport.publish(envelope, None),
                Action::Listen(filter) => self.transport.listen(filter),
                Action::Unlisten(filter) => self.transport.unlisten(&filter),
                Action::Effect(effect) => self.effects.perform(effect, &self.reports.sender),
            }
        }
    }
}

impl<Effect> Batch<Effect> {
    const fn new() -> Self {
        Self {
            inputs: 0,
            bytes: 0,
            entries: vec![],
            promises: vec![],
            receipts: vec![],
            kept: vec![],
            actions: VecDeque::new(),
        }
    }

    const fn has_room(&self) -> bool {
        self.inputs < BATCH_MAX && self.bytes < BATCH_BYTES_MAX
    }

    fn extend(&mut self, outputs: Vec<Output<Effect>>) {
        for output in outputs {
            match output {
                Output::Keep(entry) => self.entries.push(entry),
                Output::Promise(envelope) => {
                    self.promises.push(envelope);
                    self.actions.push_back(Action::Promise);
                }
                Output::Publish(envelope) => self.actions.push_back(Action::Publish(envelope)),
                Output::Listen(filter) => self.actions.push_back(Action::Listen(filter)),
                Output::Unlisten(filter) => self.actions.push_back(Action::Unlisten(filter)),
                Output::Effect(effect) => self.actions.push_back(Action::Effect(effect)),
            }
        }
    }
}

async fn until(clock: &impl Clock, deadline: Option<Timestamp>) {
    let Some(deadline) = deadline else { return std::future::pending().await };
    loop {
        let remaining = clock.until(deadline);
        if remaining.is_zero() {
            return;
        }
        time::sleep(remaining.min(GLANCE)).await;
    }
}
