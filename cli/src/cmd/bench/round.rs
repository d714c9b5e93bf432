//! `aileron bench round`: what a round costs beside its training.
//!
//! Twice the same platform: once with nothing between, for times and memory, and once with every
//! service behind a tap, for bytes. The built-in client learns from one row, once.

use std::{collections::BTreeMap, fs, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use protocol::{
    Filter, ModelLine, ModelUri, ModelVersion, Namespace, PropletId,
    message::{Hyperparams, RoundStart},
};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    figures::{self, Times, rounded},
    stage::{Stage, StageArgs},
    tap::{Tally, Tap},
};
use crate::{
    http::Api,
    operator::{LinkArgs, Operator, RoundEnd},
    view::{self, Format},
};

/// Rounds before those that are counted: guests are compiled, connections settle.
const WARM_UP: usize = 3;
const TIMEOUT_S: u64 = 60;
const HYPERPARAMS: &str = r#"{"model":"linear","epochs":1,"lr":0.001,"batch_size":1,"holdout":0}"#;

#[derive(Debug, Args)]
pub(crate) struct Round {
    /// Proplets that take part, each a process
    #[arg(long, default_value_t = 5)]
    proplets: usize,
    /// Numbers in the model
    #[arg(long, default_value_t = 1000)]
    params: usize,
    /// Rounds that are timed
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Rounds whose bytes are counted; 0 for none
    #[arg(long, default_value_t = 10)]
    wire_rounds: usize,
    /// Seconds for which an idle platform's bytes are counted; 0 for not at all
    #[arg(long, default_value_t = 60)]
    idle_s: u64,
    #[command(flatten)]
    stage: StageArgs,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// A platform of processes, and somebody to ask for rounds.
struct Platform {
    stage: Stage,
    operator: Operator,
    proplets: Vec<PropletId>,
    version: ModelVersion,
    rounds: usize,
    /// Of the proplets, if bytes are counted.
    taps: Vec<Tap>,
}

impl Round {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(self.proplets >= 1, "proplets takes at least 1, not {}", self.proplets);
        ensure!(self.params >= 2, "params takes at least 2, not {}", self.params);
        ensure!(self.rounds >= 1, "rounds takes at least 1, not {}", self.rounds);
        super::super::on_runtime(async |stop| {
            let mut report = figures::about("round");
            report.insert("broker".to_owned(), json!(format!("{:?}", self.stage.broker)));
            report.insert("proplets".to_owned(), json!(self.proplets));
            report.insert("params".to_owned(), json!(self.params));
            let whole = async {
                self.times(&stop, &mut report).await?;
                if self.wire_rounds > 0 || self.idle_s > 0 {
                    self.bytes(&stop, &mut report).await?;
                }
                anyhow::Ok(())
            };
            tokio::select! {
                end = whole => end?,
                () = stop.cancelled() => return Ok(ExitCode::from(130)),
            }
            figures::show(report, self.format);
            Ok(ExitCode::SUCCESS)
        })
    }

    async fn times(
        &self,
        stop: &CancellationToken,
        report: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let mut platform = Platform::start(self, Between::Nothing).await?;
        report.insert("memory_idle".to_owned(), platform.stage.memory());
        let first = platform.round(stop).await?;
        report.insert("first_round_ms".to_owned(), json!(rounded(first.as_secs_f64() * 1e3)));
        for _ in 1..WARM_UP {
            platform.round(stop).await?;
        }
        let mut times = vec![];
        for _ in 0..self.rounds {
            times.push(platform.round(stop).await?);
        }
        let times: Times = times.into_iter().collect();
        report.insert("round_ms".to_owned(), times.json());
        report.insert("memory".to_owned(), platform.stage.memory());
        platform.end().await;
        Ok(())
    }

    async fn bytes(
        &self,
        stop: &CancellationToken,
        report: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let mut platform = Platform::start(self, Between::Taps).await?;
        for _ in 0..WARM_UP {
            platform.round(stop).await?;
        }
        if self.wire_rounds > 0 {
            platform.settle().await;
            let before = platform.tally();
            for _ in 0..self.wire_rounds {
                platform.round(stop).await?;
            }
            platform.settle().await;
            let counted = platform.tally().since(&before);
            let shares = (self.wire_rounds * self.proplets) as f64;
            report.insert("bytes_a_proplet_and_round".to_owned(), each(&counted, shares));
        }
        if self.idle_s > 0 {
            view::aside(format!("counting what an idle platform says for {} s", self.idle_s));
            let before = platform.tally();
            sleep(Duration::from_secs(self.idle_s)).await;
            let counted = platform.tally().since(&before);
            let shares = (self.idle_s as f64 / 3600.0) * self.proplets as f64;
            report.insert("bytes_an_idle_proplet_and_hour".to_owned(), each(&counted, shares));
            report.insert("idle_counted_s".to_owned(), json!(self.idle_s));
        }
        platform.end().await;
        Ok(())
    }
}

/// What is between the services and the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Nothing,
    Taps,
}

impl Platform {
    async fn start(bench: &Round, between: Between) -> anyhow::Result<Self> {
        let mut stage = Stage::open(&bench.stage).await?;
        let broker = address(stage.broker);
        let http = stage.services(&model(bench.params))?;
        let (mut taps, mut proplets) = (vec![], vec![]);
        for index in 1..=bench.proplets {
            let id: PropletId = format!("proplet-{index}").parse()?;
            let way = match between {
                Between::Nothing => broker.clone(),
                Between::Taps => {
                    taps.push(Tap::open(stage.broker, namespace()?).await?);
                    address(taps[taps.len() - 1].address)
                }
            };
            proplet(&mut stage, &id, &way, bench.params)?;
            proplets.push(id);
        }
        let operator = connect(&broker).await?;
        let mut platform =
            Self { stage, operator, proplets, version: ModelVersion(0), rounds: 0, taps };
        platform.until_alive(&http).await?;
        Ok(platform)
    }

    async fn until_alive(&mut self, http: &str) -> anyhow::Result<()> {
        let api = Api::new(http);
        let wanted = self.proplets.len();
        let alive = || {
            let proplets = api.all("/proplets", "proplets").unwrap_or_default();
            proplets.iter().filter(|proplet| proplet["alive"] == true).count() == wanted
        };
        self.stage.until("all proplets are alive", alive).await?;
        self.operator.latest(&ModelLine::default()).await?;
        Ok(())
    }

    /// From the moment the start is said to the moment the end is heard.
    async fn round(&mut self, stop: &CancellationToken) -> anyhow::Result<Duration> {
        self.rounds += 1;
        let start = RoundStart {
            round_id: format!("bench-{}", self.rounds).parse()?,
            model_uri: ModelUri::global(self.version),
            task_wasm_image: None,
            file: None,
            k_of_n: self.proplets.len(),
            participants: self.proplets.iter().cloned().collect(),
            hyperparams: Hyperparams::parse(HYPERPARAMS).context("the bench's hyperparameters")?,
            timeout_s: TIMEOUT_S,
            min_updates: None,
            clip: None,
            share_max: None,
            env: BTreeMap::new(),
            strategy: None,
            session: None,
            encoding: None,
            purpose: protocol::message::Purpose::Train,
            staleness_max: None,
            traceparent: None,
        };
        let began = Instant::now();
        let end = self.operator.run_round(&start, stop, |_| {}).await?;
        let took = began.elapsed();
        match end {
            RoundEnd::Complete(complete) => self.version = complete.model_version,
            RoundEnd::Failed(failed) => {
                bail!("{} failed: {}, {:?}", failed.round_id, failed.reason, failed.error)
            }
            RoundEnd::Stopped => bail!("stopped"),
        }
        self.stage.check()?;
        Ok(took)
    }

    /// The last words about a round come after its end.
    async fn settle(&self) {
        sleep(Duration::from_millis(500)).await;
    }

    /// What all proplets have said and heard.
    fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        self.taps.iter().for_each(|tap| sum.add(&tap.tally()));
        sum
    }

    async fn end(self) {
        self.operator.close().await;
        self.stage.done();
    }
}

fn proplet(stage: &mut Stage, id: &PropletId, way: &str, params: usize) -> anyhow::Result<()> {
    let data = stage.path(&format!("{id}-data"));
    fs::create_dir(&data)?;
    let row: Vec<String> = (1..params).map(|place| format!("0.{:03}", place % 1000)).collect();
    fs::write(format!("{data}/row.csv"), format!("{},1\n", row.join(",")))?;
    let state = stage.path(&format!("{id}-state"));
    let compiled = stage.path("compiled");
    let words = ["proplet", "--mqtt-address", way, "--state-dir", &state, "--id", id.as_str()];
    let own = ["--data-dir", &data, "--cache-dir", &compiled];
    stage.aileron(id.as_str(), &[&words[..], &own].concat())
}

async fn connect(broker: &str) -> anyhow::Result<Operator> {
    let filters = [Filter::AnyComplete, Filter::AnyFailed];
    LinkArgs::to(broker.parse()?).connect(&filters).await
}

pub(super) fn address(socket: SocketAddr) -> String {
    format!("tcp://{socket}")
}

/// Where services are that were told nothing else.
pub(super) fn namespace() -> anyhow::Result<Namespace> {
    Ok(Namespace::new("", &"demo".parse()?, &"fl".parse()?)?)
}

/// A linear model with numbers as training makes them, none of them short.
pub(super) fn model(params: usize) -> Value {
    let weights: Vec<f64> = (1..params).map(|place| (place as f64).sin() / 7.0).collect();
    json!({ "w": weights, "b": 0.1 })
}

fn each(counted: &Tally, shares: f64) -> Value {
    let part = |sums: &BTreeMap<String, u64>| {
        let kinds: Map<String, Value> = sums
            .iter()
            .map(|(kind, bytes)| (kind.clone(), json!(rounded(*bytes as f64 / shares))))
            .collect();
        let bytes = |counts: &dyn Fn(&str) -> bool| {
            let sum: u64 = sums.iter().filter(|(kind, _)| counts(kind)).map(|(_, n)| n).sum();
            rounded(sum as f64 / shares)
        };
        json!({
            "all": bytes(&|_| true), "beside_pings": bytes(&|kind| !kind.starts_with("PING")),
            "of_which": kinds,
        })
    };
    json!({ "up": part(&counted.up), "down": part(&counted.down) })
}
