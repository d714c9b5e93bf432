//! `aileron bench transfer`: one large model to many proplets through a broker, beside as many bytes
//! that are merely published.
//!
//! Two baselines, said and heard by the platform's own MQTT client: the payload as one retained
//! message, and as retained pieces that everybody has subscribed to before. Then the platform:
//! model server and proplets as processes, the model fetched, checked and on every disk.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Args;
use protocol::{Envelope, Filter, ModelLine, ModelUri, ModelVersion, Topic};
use serde_json::{Value, json};
use service::{
    Inbound, Transport as _,
    settings::MqttAddress,
    transport::mqtt::{Config, Mqtt, SessionKind},
};
use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    fetch::{Fetch, Fetched},
    figures::{self, Times, rounded},
    round::namespace,
    stage::{Stage, StageArgs},
};
use crate::view::Format;

pub(super) const WAIT: Duration = Duration::from_secs(120);
pub(super) const CLOSE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// Length of the payload
    #[arg(long, default_value_t = 40_000_000)]
    bytes: usize,
    /// Length of one piece of the baseline; the platform chooses its own
    #[arg(long, default_value_t = 256 << 10)]
    chunk_bytes: usize,
    /// Who takes it
    #[arg(long, default_value_t = 20)]
    subscribers: usize,
    /// Runs that are timed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    #[command(flatten)]
    stage: StageArgs,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

impl Transfer {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(self.bytes >= 1, "bytes takes at least 1, not {}", self.bytes);
        ensure!(self.chunk_bytes >= 1, "chunk-bytes takes at least 1, not {}", self.chunk_bytes);
        ensure!(self.subscribers >= 1, "subscribers takes at least 1, not {}", self.subscribers);
        super::super::on_runtime(async |stop| {
            let mut report = figures::about("transfer");
            report.insert("broker".to_owned(), json!(format!("{:?}", self.stage.broker)));
            report.insert("bytes".to_owned(), json!(self.bytes));
            report.insert("subscribers".to_owned(), json!(self.subscribers));
            let mut whole_ms = 0.0;
            for (what, piece_bytes) in [("whole", self.bytes), ("pieces", self.chunk_bytes)] {
                // A broker of its own, so that the memory it shows is for this.
                let mut stage = Stage::open(&self.stage).await?;
                let measured = async {
                    let mut times = vec![];
                    for run in 0..self.runs.max(1) {
                        times.push(self.send(&mut stage, run as u64, piece_bytes).await?);
                    }
                    anyhow::Ok(times)
                };
                let times: Times = tokio::select! {
                    times = measured => times?.into_iter().collect(),
                    () = stop.cancelled() => return Ok(ExitCode::from(130)),
                };
                if what == "whole" {
                    whole_ms = times.median_ms();
                }
                let shown = json!({ "ms": times.json(), "memory": stage.memory() });
                report.insert(what.to_owned(), shown);
                stage.done();
            }
            let platform = tokio::select! {
                platform = self.platform(whole_ms) => platform?,
                () = stop.cancelled() => return Ok(ExitCode::from(130)),
            };
            report.insert("platform".to_owned(), platform);
            figures::show(report, self.format);
            Ok(ExitCode::SUCCESS)
        })
    }

    /// The same bytes as a model, from the model server to proplets.
    async fn platform(&self, whole_ms: f64) -> anyhow::Result<Value> {
        let fetch = Fetch { bytes: self.bytes, proplets: self.subscribers };
        let (mut shown, mut fetched, mut last) = (vec![], vec![], Value::Null);
        for _ in 0..self.runs.max(1) {
            let one: Fetched = fetch.run(&self.stage).await?;
            shown.push(one.shown);
            fetched.push(one.fetched);
            last = one.memory;
        }
        let shown: Times = shown.into_iter().collect();
        let fetched: Times = fetched.into_iter().collect();
        Ok(json!({
            "shown_ms": shown.json(), "fetched_ms": fetched.json(), "memory": last,
            "fetched_to_whole": rounded(fetched.median_ms() / whole_ms.max(1e-3)),
        }))
    }

    /// From the first piece said to the last heard by the last.
    async fn send(
        &self,
        stage: &mut Stage,
        run: u64,
        piece_bytes: usize,
    ) -> anyhow::Result<Duration> {
        let address: MqttAddress = format!("tcp://{}", stage.broker).parse()?;
        let payload = Bytes::from(vec![b'x'; self.bytes]);
        let topics = topics(ModelVersion(run), self.bytes.div_ceil(piece_bytes))?;
        let mut hearing = JoinSet::new();
        for _ in 0..self.subscribers {
            let mut transport = connect(&address).await?;
            // Subscribed before anything is said, as all are when a round ends.
            for topic in &topics {
                transport.listen(Filter::Exactly(topic.clone()));
            }
            hearing.spawn(hear(transport, self.bytes));
        }
        let mut publisher = connect(&address).await?;
        settled(&mut publisher, &topics).await?;
        let began = Instant::now();
        for (index, topic) in topics.iter().enumerate() {
            let from = index * piece_bytes;
            let payload = payload.slice(from..(from + piece_bytes).min(self.bytes));
            publisher.publish(Envelope { topic: topic.clone(), payload }, None);
        }
        let all = async {
            while let Some(heard) = hearing.join_next().await {
                heard??;
            }
            anyhow::Ok(began.elapsed())
        };
        let took = time::timeout(WAIT, all)
            .await
            .with_context(|| format!("not all was heard within {} s", WAIT.as_secs()))??;
        stage.check()?;
        for topic in topics {
            publisher.publish(Envelope { topic, payload: Bytes::new() }, None);
        }
        publisher.close(CLOSE).await;
        Ok(took)
    }
}

/// One topic for a whole, as many as there are pieces otherwise.
fn topics(version: ModelVersion, pieces: usize) -> anyhow::Result<Vec<Topic>> {
    if pieces == 1 {
        return Ok(vec![Topic::Model { uri: ModelUri::global(version) }]);
    }
    let uri = ModelUri::global(version);
    let piece = |index| Ok(Topic::ModelChunk { uri: uri.clone(), index: u32::try_from(index)? });
    (0..pieces).map(piece).collect()
}

pub(super) async fn connect(address: &MqttAddress) -> anyhow::Result<Mqtt> {
    let client = format!("aileron-bench-{}", uuid::Uuid::new_v4().simple());
    let mut config = Config::new(address.clone(), client, namespace()?);
    config.session = SessionKind::Transient;
    config.payload_bytes_max = usize::MAX;
    let mut transport = Mqtt::connect(config);
    loop {
        if matches!(transport.next().await?, Inbound::Connected { .. }) {
            return Ok(transport);
        }
    }
}

/// Waits until the broker has taken what was asked of it before: it serves those who subscribe
/// first, first.
async fn settled(publisher: &mut Mqtt, topics: &[Topic]) -> anyhow::Result<()> {
    let probe = Topic::ModelLatest { line: ModelLine::default() };
    assert!(!topics.contains(&probe), "the probe is not what is measured");
    publisher.listen(Filter::Exactly(probe.clone()));
    publisher.publish(Envelope { topic: probe, payload: Bytes::from_static(b"{}") }, None);
    let heard = async {
        loop {
            if let Inbound::Message { receipt, .. } = publisher.next().await? {
                publisher.ack(receipt);
                return anyhow::Ok(());
            }
        }
    };
    time::timeout(WAIT, heard).await.context("the broker does not answer")??;
    time::sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// Takes messages until so many bytes have come.
async fn hear(mut transport: Mqtt, bytes: usize) -> anyhow::Result<()> {
    let mut heard = 0;
    while heard < bytes {
        if let Inbound::Message { envelope, receipt } = transport.next().await? {
            heard += envelope.payload.len();
            transport.ack(receipt);
        }
    }
    Ok(())
}
