//! The operator's place on the broker: starts rounds, watches them, reads models.
//!
//! A start is repeated until the coordinator says that it has it, and then now and again until the
//! round ends, so that neither a restarted broker nor a restarted coordinator leaves the operator
//! waiting for ever.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use protocol::{
    Envelope, Filter, Letter as _, ModelLine, ModelUri, Namespace, PropletId, RoundId, Topic,
    message::{
        Model, ModelLatest, RoundAbsent, RoundComplete, RoundFailed, RoundOpened, RoundStart,
        SessionStatus,
    },
};
use service::{
    Inbound, Transport as _,
    settings::{MqttAddress, Secret},
    transport::mqtt::{Config, Credentials, Mqtt, SessionKind, Tls, TlsFiles},
};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

const REPEAT: Duration = Duration::from_secs(3);
const CLOSE: Duration = Duration::from_secs(2);

/// Where the broker is, and which topics are meant.
#[derive(Clone, Debug, Args)]
pub(crate) struct LinkArgs {
    /// Address of the MQTT broker: tcp://, ssl://, ws:// or wss://
    #[arg(
        long,
        env = "AILERON_MQTT_ADDRESS",
        default_value = "tcp://127.0.0.1:1883",
        global = true
    )]
    mqtt_address: MqttAddress,
    /// Levels that stand before every topic
    #[arg(long, env = "AILERON_TOPIC_PREFIX", default_value = "", global = true)]
    topic_prefix: String,
    /// User name at the broker
    #[arg(long, env = "AILERON_MQTT_USERNAME", value_name = "NAME", global = true)]
    mqtt_username: Option<String>,
    /// Password at the broker: a token from `aileron token`
    #[arg(
        long,
        env = "AILERON_CLIENT_KEY",
        hide_env_values = true,
        value_name = "KEY",
        global = true
    )]
    client_key: Option<Secret>,
    /// Certificates (PEM) to trust for ssl and wss, in place of the system's
    #[arg(long, env = "AILERON_MQTT_CA_FILE", value_name = "FILE", global = true)]
    mqtt_ca_file: Option<PathBuf>,
    /// Our certificate (PEM) for a broker that asks for one
    #[arg(long, env = "AILERON_MQTT_CERT_FILE", value_name = "FILE", global = true)]
    mqtt_cert_file: Option<PathBuf>,
    /// The key (PEM) of the certificate
    #[arg(long, env = "AILERON_MQTT_KEY_FILE", value_name = "FILE", global = true)]
    mqtt_key_file: Option<PathBuf>,
    /// Seconds to wait for the broker, or for something that should be there
    #[arg(long, default_value_t = 10, global = true)]
    wait_s: u64,
}

/// What is heard of a round.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RoundNews {
    Opened(RoundOpened),
    Update { round: RoundId, proplet: PropletId, bytes: usize },
    Absent(RoundAbsent),
    Complete(RoundComplete),
    Failed(RoundFailed),
}

/// How a round ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RoundEnd {
    Complete(RoundComplete),
    Failed(RoundFailed),
    /// The operator stopped watching.
    Stopped,
}

/// A connection of the operator's own.
pub(crate) struct Operator {
    transport: Mqtt,
    wait: Duration,
}

impl LinkArgs {
    /// Arguments for a broker whose address is known.
    pub(crate) fn to(mqtt_address: MqttAddress) -> Self {
        Self {
            mqtt_address,
            topic_prefix: String::new(),
            mqtt_username: None,
            client_key: None,
            mqtt_ca_file: None,
            mqtt_cert_file: None,
            mqtt_key_file: None,
            wait_s: 10,
        }
    }

    /// Connects and listens.
    pub(crate) async fn connect(&self, filters: &[Filter]) -> anyhow::Result<Operator> {
        // The operator's topics stand outside of domain and channel.
        let (domain, channel) = ("demo".parse()?, "fl".parse()?);
        let namespace = Namespace::new(&self.topic_prefix, &domain, &channel)
            .with_context(|| format!("topic-prefix {:?}", self.topic_prefix))?;
        let client = format!("aileron-operator-{}", uuid::Uuid::new_v4().simple());
        let mut config = Config::new(self.mqtt_address.clone(), client, namespace);
        config.session = SessionKind::Transient;
        config.tls = Tls::load(&self.mqtt_address, &self.tls_files())?;
        config.credentials = self.mqtt_username.as_ref().map(|username| Credentials {
            username: username.clone(),
            password: self.client_key.clone(),
        });
        let mut transport = Mqtt::connect(config);
        for filter in filters {
            transport.listen(filter.clone());
        }
        let mut operator = Operator { transport, wait: Duration::from_secs(self.wait_s) };
        let connected = time::timeout(operator.wait, operator.connected()).await;
        match connected {
            Ok(result) => result?,
            Err(_) => {
                let why = operator.transport.trouble().map(|why| format!(": {why}"));
                let (address, wait_s) = (&self.mqtt_address, self.wait_s);
                bail!("no MQTT broker at {address} within {wait_s} s{}", why.unwrap_or_default())
            }
        }
        Ok(operator)
    }

    fn tls_files(&self) -> TlsFiles {
        TlsFiles {
            ca: self.mqtt_ca_file.clone(),
            certificate: self.mqtt_cert_file.clone(),
            key: self.mqtt_key_file.clone(),
            ..TlsFiles::default()
        }
    }
}

impl Operator {
    async fn connected(&mut self) -> anyhow::Result<()> {
        loop {
            if matches!(self.transport.next().await?, Inbound::Connected { .. }) {
                return Ok(());
            }
        }
    }

    /// The next message.
    async fn next(&mut self) -> anyhow::Result<Envelope> {
        loop {
            if let Inbound::Message { envelope, receipt } = self.transport.next().await? {
                self.transport.ack(receipt);
                return Ok(envelope);
            }
        }
    }

    /// Says something about sessions.
    pub(crate) fn say(&mut self, envelope: Envelope) {
        self.transport.publish(envelope, None);
    }

    /// How a session stands, whichever speaks next; a status that cannot be read is passed over.
    pub(crate) async fn session_news(&mut self) -> anyhow::Result<SessionStatus> {
        loop {
            let envelope = self.next().await?;
            if matches!(envelope.topic, Topic::SessionStatus { .. })
                && let Ok(status) = envelope.open()
            {
                return Ok(status);
            }
        }
    }

    /// Starts a round and follows it to its end.
    pub(crate) async fn run_round(
        &mut self,
        start: &RoundStart,
        stop: &CancellationToken,
        mut told: impl FnMut(&RoundNews),
    ) -> anyhow::Result<RoundEnd> {
        let mut again = time::interval(REPEAT);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let news = tokio::select! {
                () = stop.cancelled() => return Ok(RoundEnd::Stopped),
                _ = again.tick() => {
                    self.transport.publish(start.seal(), None);
                    continue;
                }
                envelope = self.next() => read(&envelope?),
            };
            let Some(news) = news.filter(|news| *news.round() == start.round_id) else { continue };
            told(&news);
            match news {
                RoundNews::Complete(complete) => return Ok(RoundEnd::Complete(complete)),
                RoundNews::Failed(failed) => return Ok(RoundEnd::Failed(failed)),
                RoundNews::Opened(_) | RoundNews::Update { .. } | RoundNews::Absent(_) => {}
            }
        }
    }

    /// Starts a round and waits only until the coordinator has it; returns what it said.
    pub(crate) async fn open_round(&mut self, start: &RoundStart) -> anyhow::Result<RoundNews> {
        let mut again = time::interval(REPEAT);
        let round = start.round_id.clone();
        let opened = async {
            loop {
                let news = tokio::select! {
                    _ = again.tick() => {
                        self.transport.publish(start.seal(), None);
                        continue;
                    }
                    envelope = self.next() => read(&envelope?),
                };
                if let Some(news) = news.filter(|news| *news.round() == round)
                    && !matches!(news, RoundNews::Update { .. } | RoundNews::Absent(_))
                {
                    return anyhow::Ok(news);
                }
            }
        };
        let wait = Duration::from_secs(10);
        time::timeout(wait, opened).await.unwrap_or_else(|_| {
            bail!("no coordinator took round {} on within {} s", start.round_id, wait.as_secs())
        })
    }

    /// Hears what happens to any round.
    pub(crate) async fn round_news(&mut self) -> anyhow::Result<RoundNews> {
        loop {
            if let Some(news) = read(&self.next().await?) {
                return Ok(news);
            }
        }
    }

    /// The announcement of a line's newest model.
    pub(crate) async fn latest(&mut self, line: &ModelLine) -> anyhow::Result<ModelLatest> {
        let topic = Topic::ModelLatest { line: line.clone() };
        self.transport.listen(Filter::Exactly(topic.clone()));
        let wait = self.wait;
        let found = async {
            loop {
                let envelope = self.next().await?;
                if envelope.topic == topic {
                    return anyhow::Ok(envelope.open::<ModelLatest>()?);
                }
            }
        };
        time::timeout(wait, found)
            .await
            .unwrap_or_else(|_| bail!("no model server has announced a model of {line}"))
    }

    /// One version of the model, as its bytes and read.
    pub(crate) async fn model(&mut self, uri: &ModelUri) -> anyhow::Result<(bytes::Bytes, Model)> {
        let topic = Topic::Model { uri: uri.clone() };
        self.transport.listen(Filter::Exactly(topic.clone()));
        let wait = self.wait;
        let found = async {
            loop {
                let envelope = self.next().await?;
                if envelope.topic == topic {
                    return anyhow::Ok(envelope);
                }
            }
        };
        let envelope = time::timeout(wait, found)
            .await
            .unwrap_or_else(|_| bail!("there is no model {uri}"))?;
        self.transport.unlisten(&Filter::Exactly(topic));
        let model = Model::read(&envelope.payload)?;
        Ok((envelope.payload, model))
    }

    /// Begins a line with this model, or finds out that it has begun.
    pub(crate) async fn begin_line(
        &mut self,
        line: &ModelLine,
        model: &Model,
    ) -> anyhow::Result<ModelLatest> {
        let topic = Topic::ModelPublish { line: line.clone() };
        self.transport.publish(Envelope { topic, payload: model.write() }, None);
        self.latest(line).await
    }

    pub(crate) async fn close(self) {
        self.transport.close(CLOSE).await;
    }
}

/// What an operator of rounds listens to.
pub(crate) fn round_filters() -> Vec<Filter> {
    vec![
        Filter::AnyOpened,
        Filter::AnyUpdate,
        Filter::AnyAbsent,
        Filter::AnyComplete,
        Filter::AnyFailed,
    ]
}

impl RoundNews {
    pub(crate) const fn round(&self) -> &RoundId {
        match self {
            Self::Opened(opened) => &opened.round_id,
            Self::Update { round, .. } => round,
            Self::Absent(absent) => &absent.round_id,
            Self::Complete(complete) => &complete.round_id,
            Self::Failed(failed) => &failed.round_id,
        }
    }
}

/// What a message says of a round; what cannot be read says nothing.
fn read(envelope: &Envelope) -> Option<RoundNews> {
    match &envelope.topic {
        Topic::RoundOpened { .. } => envelope.open().ok().map(RoundNews::Opened),
        Topic::RoundUpdate { round, proplet } => {
            let bytes = envelope.payload.len();
            Some(RoundNews::Update { round: round.clone(), proplet: proplet.clone(), bytes })
        }
        Topic::RoundAbsent { .. } => envelope.open().ok().map(RoundNews::Absent),
        Topic::RoundComplete { .. } => envelope.open().ok().map(RoundNews::Complete),
        Topic::RoundFailed { .. } => envelope.open().ok().map(RoundNews::Failed),
        Topic::RoundStart
        | Topic::RoundAck { .. }
        | Topic::RoundVariate { .. }
        | Topic::ForwardedUpdate
        | Topic::ModelPublish { .. }
        | Topic::Model { .. }
        | Topic::ModelLatest { .. }
        | Topic::PropletCreate
        | Topic::PropletAlive
        | Topic::PropletMetrics
        | Topic::TaskMetrics
        | Topic::TaskResults
        | Topic::TaskStart
        | Topic::TaskStop
        | Topic::DirectStart { .. }
        | Topic::DirectStop { .. }
        | Topic::UpdateWants { .. }
        | Topic::UpdateChunk { .. }
        | Topic::ModelPublishWants { .. }
        | Topic::ModelPublishChunk { .. }
        | Topic::ModelWants { .. }
        | Topic::ModelChunk { .. }
        | Topic::ModuleWants
        | Topic::ModuleChunk { .. }
        | Topic::SessionStart
        | Topic::SessionCommand { .. }
        | Topic::SessionStatus { .. } => None,
    }
}
