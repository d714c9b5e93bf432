//! What lasts from one connection to the next: who is listened to, what is still to be said.
//!
//! ```text
//!  Mqtt --Command--> Session --hands over--> Link's client --> poller <--> broker
//!       <--Delivery--        <-----------------Wire-----------/
//! ```
//!
//! The session is one task; nothing else touches its state, and it never waits for the broker
//! while it could be told something.

mod elapsed;
mod intake;

use std::{
    mem,
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use protocol::{Envelope, Filter};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Sleep, interval, sleep, timeout},
};

use self::elapsed::elapsed;
use super::{
    Config,
    counts::{Counters, bump},
    link::{INTAKE_BYTES_MAX, Link, PACKET_BYTES_MAX, Wire},
    outbox::{Outbox, Suspect},
    patience::{Patience, Say},
    subscriptions::Subscriptions,
};
use crate::{
    Clock as _, Inbound, PromiseId, SystemClock,
    transport::{Gate, Unacknowledged},
};

/// How long the broker may take to answer a SUBSCRIBE after a connect.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the broker may take to acknowledge a message; sending alone may take two minutes.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(300);
const CHECK_EVERY: Duration = Duration::from_secs(30);
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PARKED_FOR: Duration = Duration::from_secs(60);
/// Fixed header, topic length and packet id.
const PACKET_OVERHEAD: usize = 16;

#[derive(Debug)]
pub(super) enum Command {
    Publish(Envelope, Option<PromiseId>),
    Listen(Filter),
    Unlisten(Filter),
    Acknowledge(Unacknowledged),
    Close { grace: Duration, done: oneshot::Sender<()> },
}

/// News for the service; `room` in the intake is given back when it is taken out.
#[derive(Debug)]
pub(super) struct Delivery {
    pub inbound: Inbound,
    pub room: Option<OwnedSemaphorePermit>,
}

/// What a session shares with its handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    pub backlog: Arc<AtomicUsize>,
    pub gate: Gate,
    pub counters: Arc<Counters>,
    /// Why there is no connection.
    pub trouble: watch::Sender<Option<String>>,
}

pub(super) struct Session {
    config: Config,
    commands: mpsc::UnboundedReceiver<Command>,
    deliveries: mpsc::UnboundedSender<Delivery>,
    shared: Shared,
    intake: Arc<Semaphore>,
    outbox: Outbox,
    subscriptions: Subscriptions,
    patience: Patience,
    /// Counts links, so that no acknowledgement reaches a later connection.
    epoch: u64,
    phase: Phase,
    parked: Option<Pin<Box<Sleep>>>,
    closing: Option<Closing>,
}

/// How far the present link is.
enum Phase {
    Connecting,
    /// Connected, but the broker has not answered the subscriptions; what comes in waits, so that
    /// the service hears of the connection first.
    Subscribing {
        resumed: bool,
        held: Vec<Delivery>,
        held_bytes: usize,
        timeout: Pin<Box<Sleep>>,
    },
    Up,
}

struct Closing {
    deadline: Pin<Box<Sleep>>,
    /// Dropped when all is said.
    _done: oneshot::Sender<()>,
}

/// Why a link was left.
enum End {
    Lost {
        why: String,
    },
    /// The service has closed, and all that could be said is said.
    Finished,
    /// The service has dropped its handle; the broker shall notice.
    Abandoned,
}

impl Session {
    pub(super) fn new(
        config: Config,
        shared: Shared,
        commands: mpsc::UnboundedReceiver<Command>,
        deliveries: mpsc::UnboundedSender<Delivery>,
    ) -> Self {
        Self {
            config,
            commands,
            deliveries,
            outbox: Outbox::new(shared.gate.clone()),
            shared,
            intake: Arc::new(Semaphore::new(INTAKE_BYTES_MAX)),
            subscriptions: Subscriptions::default(),
            patience: Patience::default(),
            epoch: 0,
            phase: Phase::Connecting,
            parked: None,
            closing: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.epoch += 1;
            let mut link = Link::open(&self.config, Arc::clone(&self.intake));
            let why = match self.serve(&mut link).await {
                End::Lost { why } => why,
                End::Finished => return self.say_goodbye(link).await,
                End::Abandoned => return,
            };
            drop(link);
            let pause = self.lost(why);
            match self.pause(pause).await {
                End::Lost { .. } => {}
                End::Finished | End::Abandoned => return,
            }
        }
    }

    /// Lives with one link until it ends.
    async fn serve(&mut self, link: &mut Link) -> End {
        let mut checks = interval(CHECK_EVERY);
        loop {
            self.hand_over(link).await;
            if self.is_finished() {
                return End::Finished;
            }
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command, Some(link)).await,
                    None => return End::Abandoned,
                },
                wire = link.next() => {
                    if let Some(end) = self.hear(wire, link).await {
                        return end;
                    }
                }
                end = overdue(&mut self.phase, &mut self.closing) => return end,
                () = elapsed(&mut self.parked) => {
                    self.parked = None;
                    self.outbox.unpark();
                }
                _ = checks.tick() => {
                    if self.outbox.is_unanswered(SystemClock.now(), ACKNOWLEDGE_TIMEOUT) {
                        let why = "it does not acknowledge what it was sent".to_owned();
                        return End::Lost { why };
                    }
                }
            }
        }
    }

    /// Waits before the next attempt, still taking commands.
    async fn pause(&mut self, pause: Duration) -> End {
        let mut pause = Box::pin(sleep(pause));
        loop {
            if self.is_finished() {
                return End::Finished;
            }
            tokio::select! {
                () = &mut pause => return End::Lost { why: String::new() },
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command, None).await,
                    None => return End::Abandoned,
                },
                end = overdue(&mut self.phase, &mut self.closing) => return end,
            }
        }
    }

    /// Whether the service is closing, and all that could be said has been said.
    fn is_finished(&self) -> bool {
        self.closing.is_some() && self.outbox.is_done()
    }

    async fn obey(&mut self, command: Command, link: Option<&Link>) {
        match command {
            Command::Publish(envelope, promise) => self.queue(envelope, promise),
            Command::Listen(filter) => self.subscriptions.listen(filter),
            Command::Unlisten(filter) => self.subscriptions.unlisten(&filter),
            Command::Acknowledge(receipt) => {
                if let (Some(link), true) = (link, receipt.epoch == self.epoch) {
                    link.acknowledge(receipt.pkid).await;
                }
            }
            Command::Close { grace, done } => {
                self.closing = Some(Closing { deadline: Box::pin(sleep(grace)), _done: done });
            }
        }
    }

    fn queue(&mut self, envelope: Envelope, promise: Option<PromiseId>) {
        let topic = self.config.namespace.render(&envelope.topic);
        let len = envelope.payload.len();
        if len + topic.len() + PACKET_OVERHEAD > PACKET_BYTES_MAX {
            tracing::error!(%topic, len, "dropped a message that is too large for MQTT");
            bump(&self.shared.counters.unsendable);
            self.shared.gate.leave(&envelope);
            self.settle(promise);
        } else if !self.outbox.push(envelope, promise) {
            self.settle(promise);
        }
    }

    /// One message less to wait for.
    fn settle(&self, promise: Option<PromiseId>) {
        self.shared.backlog.fetch_sub(1, Ordering::Relaxed);
        if let Some(promise) = promise {
            self.deliver(Inbound::Delivered(promise));
        }
    }

    /// Gives the client what there is room for.
    async fn hand_over(&mut self, link: &Link) {
        if let Phase::Connecting = self.phase {
            return;
        }
        let namespace = &self.config.namespace;
        while let Some(filter) = self.subscriptions.retract() {
            link.unsubscribe(namespace.render_filter(&filter)).await;
        }
        while let Some(filters) = self.subscriptions.ask() {
            link.subscribe(filters.iter().map(|f| namespace.render_filter(f)).collect()).await;
        }
        if let Phase::Up = self.phase {
            while let Some((topic, payload)) = self.outbox.hand_over() {
                let name = namespace.render(&topic);
                self.shared.counters.sending(&name, &payload);
                link.publish(name, topic.is_retained(), payload).await;
            }
        }
    }

    async fn hear(&mut self, wire: Wire, link: &Link) -> Option<End> {
        match wire {
            Wire::Connected { resumed } => self.connected(resumed, link).await,
            Wire::Message { message, room } => self.take_in(message, room, link).await,
            Wire::Sent(pkid) => self.outbox.sent(pkid, SystemClock.now()),
            Wire::Acknowledged(pkid) => {
                if let Some(promise) = self.outbox.acknowledged(pkid) {
                    self.settle(promise);
                }
            }
            Wire::SubscribeSent(pkid) => self.subscriptions.sent(pkid),
            Wire::Subscribed { pkid, refused } => {
                for filter in self.subscriptions.answered(pkid, &refused) {
                    let filter = self.config.namespace.render_filter(&filter);
                    tracing::error!(%filter, "the broker refuses this subscription (its access rules?)");
                }
                self.rise();
            }
            Wire::Lost { why } => return Some(End::Lost { why }),
        }
        None
    }

    async fn connected(&mut self, resumed: bool, link: &Link) {
        bump(&self.shared.counters.connections);
        self.shared.trouble.send_replace(None);
        self.patience.connected(SystemClock.now());
        self.subscriptions.connected(resumed);
        tracing::info!(address = %self.config.address, resumed, "connected to the broker");
        self.phase = Phase::Subscribing {
            resumed,
            held: vec![],
            held_bytes: 0,
            timeout: Box::pin(sleep(SUBSCRIBE_TIMEOUT)),
        };
        self.hand_over(link).await;
        self.rise();
    }

    /// Tells the service of the connection, once the broker has answered everything.
    fn rise(&mut self) {
        if let Phase::Subscribing { resumed, held, .. } = &mut self.phase
            && self.subscriptions.is_settled()
        {
            let (resumed, held) = (*resumed, mem::take(held));
            self.phase = Phase::Up;
            self.deliver(Inbound::Connected { resumed });
            for delivery in held {
                let _ = self.deliveries.send(delivery);
            }
        }
    }

    /// The service may have gone; then the commands end, too, and this session with them.
    fn deliver(&self, inbound: Inbound) {
        let _ = self.deliveries.send(Delivery { inbound, room: None });
    }

    fn lost(&mut self, why: String) -> Duration {
        let (pause, say) = self.patience.lost(SystemClock.now());
        self.shared.trouble.send_replace(Some(why.clone()));
        let (address, client_id) = (&self.config.address, &self.config.client_id);
        match say {
            Say::Nothing => {}
            Say::Waiting => tracing::warn!("waiting for broker at {address}: {why}"),
            Say::Flapping => tracing::warn!(
                "broker at {address} ends every connection at once ({why}): \
                 does another process use client id {client_id:?}?"
            ),
        }
        self.subscriptions.lost();
        if let Some(Suspect { topic, len }) = self.outbox.lost() {
            tracing::error!(
                %topic, len, again_in_s = PARKED_FOR.as_secs(),
                "the broker ends the connection whenever it gets this message; its limit may be lower"
            );
            bump(&self.shared.counters.unsendable);
            self.patience.renew();
            self.parked = Some(Box::pin(sleep(PARKED_FOR)));
        }
        match mem::replace(&mut self.phase, Phase::Connecting) {
            Phase::Connecting => drop(bump(&self.shared.counters.failures)),
            Phase::Subscribing { .. } => drop(bump(&self.shared.counters.losses)),
            Phase::Up => {
                bump(&self.shared.counters.losses);
                self.deliver(Inbound::Lost { why });
            }
        }
        pause
    }

    async fn say_goodbye(self, mut link: Link) {
        if let Phase::Connecting = self.phase {
            return;
        }
        link.disconnect().await;
        let _ = timeout(DISCONNECT_TIMEOUT, link.ended()).await;
    }
}

/// Something took too long: the answer to the subscriptions, or closing.
async fn overdue(phase: &mut Phase, closing: &mut Option<Closing>) -> End {
    let subscribing = async {
        match phase {
            Phase::Subscribing { timeout, .. } => timeout.await,
            Phase::Connecting | Phase::Up => std::future::pending().await,
        }
    };
    let closing = async {
        match closing {
            Some(closing) => closing.deadline.as_mut().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = subscribing => End::Lost { why: "it does not answer the subscriptions".to_owned() },
        () = closing => End::Finished,
    }
}
