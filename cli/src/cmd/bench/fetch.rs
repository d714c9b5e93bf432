//! The platform's own way with a large model: from a model server to many proplets, each service a
//! process of its own.
//!
//! Two times: until the model server has shown a model, and from a task's start to the last
//! proplet that has run it, which it can when it has the model as a whole, checked, on its disk.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::{
    Filter, Form, Letter as _, ModelLine, ModelUri, ModelVersion, PropletId, Tensor, Tensors,
    Topic,
    message::{Model, PropletCreate, TaskResults, TaskStart},
};
use serde_json::{Value, json};
use service::{Inbound, Transport as _, settings::MqttAddress, transport::mqtt::Mqtt};
use tokio::time::{self, Instant};

use super::{
    stage::{Stage, StageArgs},
    transfer::{CLOSE, WAIT, connect},
};

/// A program that ends at once: what runs when the model is there.
const PROGRAM: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

/// One model on its way to so many proplets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    pub(super) bytes: usize,
    pub(super) proplets: usize,
}

/// What it took.
#[derive(Debug)]
pub(super) struct Fetched {
    /// From the start of the model server to its word that the model is there.
    pub(super) shown: Duration,
    /// From the task's start to the last result.
    pub(super) fetched: Duration,
    /// Of broker, model server and proplets.
    pub(super) memory: Value,
}

impl Fetch {
    /// On a stage of its own: a proplet that has a model does not fetch it again.
    pub(super) async fn run(self, args: &StageArgs) -> anyhow::Result<Fetched> {
        let mut stage = Stage::open(args).await?;
        let broker = format!("tcp://{}", stage.broker);
        fs::write(stage.path("model.safetensors"), self.model()?)?;
        let address: MqttAddress = broker.parse()?;
        let mut peer = connect(&address).await?;
        let latest = Topic::ModelLatest { line: ModelLine::default() };
        for topic in [Topic::PropletCreate, latest.clone(), Topic::TaskResults] {
            peer.listen(Filter::Exactly(topic));
        }
        for index in 1..=self.proplets {
            let (id, state) = (format!("proplet-{index}"), stage.path(&format!("state-{index}")));
            let words = ["proplet", "--mqtt-address", &broker, "--state-dir", &state, "--id", &id];
            stage.aileron(&id, &words)?;
        }
        self.hear(&mut peer, |create: PropletCreate| Ok(create.proplet_id), &Topic::PropletCreate)
            .await?;
        let began = Instant::now();
        let (state, model) = (stage.path("models"), stage.path("model.safetensors"));
        let words = ["model-server", "--mqtt-address", &broker, "--state-dir", &state];
        stage.aileron("model-server", &[&words[..], &["--model-file", &model]].concat())?;
        let one = Self { proplets: 1, ..self };
        one.hear(&mut peer, |_: Value| "model-server".parse().context("an id"), &latest).await?;
        let shown = began.elapsed();
        let began = Instant::now();
        peer.publish(start()?.seal(), None);
        self.hear(&mut peer, succeeded, &Topic::TaskResults).await?;
        let fetched = began.elapsed();
        stage.check()?;
        let memory = stage.memory();
        peer.close(CLOSE).await;
        stage.done();
        Ok(Fetched { shown, fetched, memory })
    }

    /// Of one tensor, so that the file has about as many bytes as were asked for.
    fn model(self) -> anyhow::Result<Vec<u8>> {
        let count = (self.bytes / 4).max(1);
        let numbers: Vec<f32> = (0..count).map(|n| f32::from(n.to_le_bytes()[0])).collect();
        let tensor = Tensor::from_f32(vec![count], &numbers)?;
        let tensors: Tensors = [("w".to_owned(), tensor)].into_iter().collect();
        let model = Model { version: ModelVersion(0), tensors, form: Form::Safetensors };
        Ok(model.write().to_vec())
    }

    /// Waits until everybody has said something on a topic.
    async fn hear<M: serde::de::DeserializeOwned>(
        self,
        peer: &mut Mqtt,
        who: impl Fn(M) -> anyhow::Result<PropletId>,
        on: &Topic,
    ) -> anyhow::Result<()> {
        let mut heard = BTreeSet::new();
        let all = async {
            while heard.len() < self.proplets {
                let Inbound::Message { envelope, receipt } = peer.next().await? else { continue };
                peer.ack(receipt);
                if envelope.topic == *on {
                    heard.insert(who(envelope.open()?)?);
                }
            }
            anyhow::Ok(())
        };
        let heard = time::timeout(WAIT, all).await;
        heard.with_context(|| format!("not all spoke on {on} within {} s", WAIT.as_secs()))?
    }
}

fn succeeded(results: TaskResults) -> anyhow::Result<PropletId> {
    match results.error {
        None => Ok(results.proplet_id),
        Some(why) => bail!("{}: {why}", results.proplet_id),
    }
}

/// For every proplet.
fn start() -> anyhow::Result<TaskStart> {
    let start = json!({
        "id": "bench", "name": "bench", "file": STANDARD.encode(PROGRAM),
        "env": {"MODEL_URI": ModelUri::global(ModelVersion(0)).to_string()},
    });
    Ok(serde_json::from_value(start)?)
}
