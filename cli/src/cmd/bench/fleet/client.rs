//! One proplet of the fleet: the agent that ships, on a connection of its own.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use agent::{
    Agent, BaseModel, Config as AgentConfig, ENV_MODEL_URI, ENV_ROUND_ID, Effect, Failure,
    Finished, GuestOutput, News, Note, Outcome, Report, RunMetrics,
};
use protocol::{
    Filter, Form, Input, Letter as _, Machine as _, Namespace, Output, PropletId, Records,
    message::{AliveStatus, FailureCode, Model, PropletAlive, TaskStart, Update},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use service::{
    Clock as _, Inbound, SystemClock, Transport as _,
    settings::MqttAddress,
    transport::mqtt::{Config, Mqtt},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time,
};
use tokio_util::sync::CancellationToken;

/// What the whole fleet has seen.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Proplets that have been connected at least once.
    pub(super) met: AtomicU64,
    pub(super) connections: AtomicU64,
    /// Connections that were dropped on purpose.
    pub(super) dropped_out: AtomicU64,
    pub(super) tasks: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) rejected: AtomicU64,
    /// Messages that could not be read, and tasks that failed.
    pub(super) broken: AtomicU64,
}

/// One that drops its connection again and again, and comes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restless {
    pub(super) there_mean_s: f64,
    pub(super) away_mean_s: f64,
    pub(super) seed: u64,
}

#[derive(Debug)]
pub(super) struct Client {
    place: usize,
    id: PropletId,
    way: (MqttAddress, Namespace),
    restless: Option<(Restless, ChaCha8Rng)>,
    counters: Arc<Counters>,
    agent: Agent,
    listened: BTreeSet<Filter>,
    connections: u64,
}

/// The samples that the proplet at this place claims.
pub(super) const fn samples(place: usize) -> u64 {
    place as u64 + 1
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Client {
    pub(super) fn new(
        (place, id): (usize, PropletId),
        way: (MqttAddress, Namespace),
        restless: Option<Restless>,
        counters: Arc<Counters>,
    ) -> Self {
        let mut config = AgentConfig::new(id.clone());
        config.metrics_every = None;
        config.records = Records::NeverRead;
        config.seed = place as u64;
        let agent = Agent::new(config);
        let listened = agent.filters().into_iter().collect();
        let restless = restless.map(|restless| {
            let seed = restless.seed.wrapping_mul(1 << 32).wrapping_add(place as u64);
            (restless, ChaCha8Rng::seed_from_u64(seed))
        });
        Self { place, id, way, restless, counters, agent, listened, connections: 0 }
    }

    /// Lives until `stop` is cancelled; `doors` bounds how many connect at once.
    pub(super) async fn live(mut self, doors: Arc<Semaphore>, stop: CancellationToken) {
        loop {
            let door = doors.acquire().await;
            let mut transport = Mqtt::connect(self.config());
            for filter in &self.listened {
                transport.listen(filter.clone());
            }
            let there = self.restless.as_mut().map(|(how, dice)| span(how.there_mean_s, dice));
            let cut = async {
                match there {
                    Some(there) => time::sleep(there).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = cut => add(&self.counters.dropped_out),
                () = self.converse(&mut transport, door.ok()) => return,
            }
            // Without a word: the broker says the last will.
            drop(transport);
            self.lost();
            let away = self.restless.as_mut().map(|(how, dice)| span(how.away_mean_s, dice));
            time::sleep(away.unwrap_or_default()).await;
        }
    }

    fn config(&self) -> Config {
        let (address, namespace) = &self.way;
        let mut config = Config::new(address.clone(), self.id.as_str(), namespace.clone());
        let goodbye = PropletAlive {
            proplet_id: self.id.clone(),
            status: AliveStatus::Offline,
            namespace: String::new(),
            tasks: None,
        };
        config.last_will = Some(goodbye.seal());
        config
    }

    /// Hears and answers for as long as there is a transport.
    async fn converse(&mut self, transport: &mut Mqtt, door: Option<SemaphorePermit<'_>>) {
        let mut door = door;
        loop {
            let deadline = self.agent.deadline();
            let due = async {
                match deadline {
                    Some(deadline) => time::sleep(SystemClock.until(deadline)).await,
                    None => std::future::pending().await,
                }
            };
            let inbound = tokio::select! {
                inbound = transport.next() => inbound,
                () = due => {
                    self.step(Input::Tick, transport);
                    continue;
                }
            };
            match inbound {
                Err(_) => return,
                Ok(Inbound::Connected { resumed }) => {
                    drop(door.take());
                    add(&self.counters.connections);
                    if self.connections == 0 {
                        add(&self.counters.met);
                    }
                    self.connections += 1;
                    self.step(Input::Connected { resumed }, transport);
                }
                Ok(Inbound::Lost { .. }) => self.lost(),
                Ok(Inbound::Delivered(_)) => {}
                Ok(Inbound::Message { envelope, receipt }) => {
                    match News::try_from(envelope) {
                        Ok(news) => self.step(Input::News(news), transport),
                        Err(_) => add(&self.counters.broken),
                    }
                    transport.ack(receipt);
                }
            }
        }
    }

    /// The agent concludes from it what it has to say again.
    fn lost(&mut self) {
        self.agent.disconnected();
        let report = Input::Report(Report::Lost { connection: self.connections });
        let outputs = self.agent.step(report, SystemClock.now());
        debug_assert!(
            outputs.iter().all(|output| !matches!(output, Output::Effect(Effect::Run { .. }))),
            "a loss begins no task"
        );
    }

    fn step(&mut self, input: Input<News, Report>, transport: &mut Mqtt) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.agent.step(input, SystemClock.now()) {
                match output {
                    Output::Keep(_) => {}
                    Output::Promise(envelope) | Output::Publish(envelope) => {
                        transport.publish(envelope, None);
                    }
                    Output::Listen(filter) => {
                        self.listened.insert(filter.clone());
                        transport.listen(filter);
                    }
                    Output::Unlisten(filter) => {
                        self.listened.remove(&filter);
                        transport.unlisten(&filter);
                    }
                    Output::Effect(effect) => inputs.extend(self.perform(effect)),
                }
            }
        }
    }

    fn perform(&self, effect: Effect) -> Option<Input<News, Report>> {
        match effect {
            Effect::Run { start, model, variates: _ } => {
                add(&self.counters.tasks);
                Some(Input::Report(Report::Finished(Box::new(self.run(&start, model)))))
            }
            Effect::Note(note) => {
                self.count(&note);
                None
            }
            // Models here fit a message, so there are no pieces; and there is no process to measure.
            Effect::Cancel { .. }
            | Effect::Measure
            | Effect::Pack { .. }
            | Effect::Encode(_)
            | Effect::Begin(_)
            | Effect::Store { .. }
            | Effect::Finish(_)
            | Effect::Abandon(_)
            | Effect::Hold(_)
            | Effect::Release(_)
            | Effect::Drop(_)
            | Effect::ReadChunk { .. }
            | Effect::Stopped => None,
        }
    }

    fn count(&self, note: &Note) {
        match note {
            Note::Accepted { .. } => add(&self.counters.accepted),
            Note::Rejected { .. } => add(&self.counters.rejected),
            Note::Failed { .. } => add(&self.counters.broken),
            Note::Started { .. }
            | Note::Completed { .. }
            | Note::Superseded { .. }
            | Note::Fetching { .. }
            | Note::Fetched { .. }
            | Note::Offered { .. }
            | Note::Sending { .. }
            | Note::Unreadable { .. } => {}
        }
    }

    fn run(&self, start: &TaskStart, base: Option<BaseModel>) -> Finished {
        let outcome = match self.update(start, base) {
            Ok(update) => Outcome::Ok(GuestOutput {
                stdout: update.seal().payload,
                update_file: None,
                state: None,
            }),
            Err(message) => {
                Outcome::Failed(Failure { code: FailureCode("bench".to_owned()), message })
            }
        };
        let (task, attempt) = (start.id.clone(), start.attempt);
        Finished { task, attempt, outcome, metrics: RunMetrics::default() }
    }

    /// A one in its own place, if the model has one.
    fn update(&self, start: &TaskStart, base: Option<BaseModel>) -> Result<Update, String> {
        let env = |name: &str| start.env.get(name).ok_or_else(|| format!("{name} is missing"));
        let Some(BaseModel::Here(base)) = base else { return Err("there is no base model".into()) };
        let model = Model::read(&base).map_err(|why| why.to_string())?;
        let schema = model.tensors.schema();
        let place = self.place % schema.parameters().max(1);
        let update = protocol::ledger::one_hot(&schema, place).ok_or("the model is empty")?;
        Ok(Update {
            round_id: env(ENV_ROUND_ID)?.parse().map_err(|why| format!("{why}"))?,
            base_model_uri: env(ENV_MODEL_URI)?.parse().map_err(|why| format!("{why}"))?,
            proplet_id: self.id.clone(),
            num_samples: samples(self.place),
            metrics: [("loss".to_owned(), 1.0)].into(),
            update,
            form: Form::Json,
        })
    }
}

/// A time that is exponentially distributed around its mean.
fn span(mean_s: f64, dice: &mut ChaCha8Rng) -> Duration {
    let chance: f64 = dice.random();
    Duration::from_secs_f64((-(1.0 - chance).ln() * mean_s).clamp(0.01, 3600.0))
}
