//! `aileron bench fleet`: thousands of proplets at one broker, and rounds with all of them.
//!
//! Broker, manager, coordinator and model server are processes. The proplets are in this one: each
//! is the core that ships (`agent`) on an MQTT connection of its own by the transport that ships;
//! what it does without is a disk, and a guest: it answers a task with a one-hot update. Where the
//! model has a place for each proplet, every published model is held against what was submitted.

mod client;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use protocol::{
    Filter, ModelUri, ModelVersion, PropletId,
    ledger::{self, Claim, Member, Standing},
    message::{RoundComplete, RoundStart},
};
use serde_json::{Map, Value, json};
use service::files::raise_file_limit_to;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    figures::{self, Times, rounded},
    round::{address, model, namespace},
    stage::{Stage, StageArgs},
};
use crate::{
    http::Api,
    operator::{LinkArgs, Operator, RoundEnd},
    view::{self, Format},
};

use client::{Client, Counters, Restless};

/// Files that this process needs beside one for each connection.
const FILES_BESIDE: u64 = 256;
/// How long all of them may take to be there.
const GATHER_MAX: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(200);
/// How long one that has dropped out stays away, on average.
const AWAY_MEAN_S: f64 = 2.0;

#[derive(Debug, Args)]
pub(crate) struct Fleet {
    /// Proplets, each on a connection of its own
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    proplets: u32,
    /// Numbers in the model; with as many as proplets, every model is checked exactly
    #[arg(long, default_value_t = 10)]
    params: usize,
    /// Rounds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Share of the proplets that are away at any moment, 0 to 0.5: each drops its connection without a word, again and again, and comes back
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    away: f64,
    /// Connections that are being made at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    connecting: u16,
    /// Seconds that a round may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout_s: u64,
    /// Seed of who drops out, and when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    stage: StageArgs,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// The services, the operator, and what the fleet counts.
struct Platform {
    stage: Stage,
    operator: Operator,
    api: Api,
    members: Vec<PropletId>,
    counters: Arc<Counters>,
    version: ModelVersion,
}

impl Fleet {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(self.params >= 2, "params takes at least 2, not {}", self.params);
        let files = have_files(u64::from(self.proplets))?;
        super::super::on_runtime(async |stop| {
            let mut report = figures::about("fleet");
            report.insert("broker".to_owned(), json!(format!("{:?}", self.stage.broker)));
            report.insert("proplets".to_owned(), json!(self.proplets));
            report.insert("away".to_owned(), json!(self.away));
            report.insert("open_files_max".to_owned(), json!(files));
            tokio::select! {
                end = self.measure(&stop, &mut report) => end?,
                () = stop.cancelled() => return Ok(ExitCode::from(130)),
            }
            figures::show(report, self.format);
            Ok(ExitCode::SUCCESS)
        })
    }

    async fn measure(
        &self,
        stop: &CancellationToken,
        report: &mut Map<String, Value>,
    ) -> anyhow::Result<()> {
        let mut platform = Platform::start(self).await?;
        report.insert("memory_before".to_owned(), platform.stage.memory());
        let began = Instant::now();
        let over = stop.child_token();
        let _end = over.clone().drop_guard();
        platform.send_out(self, &over)?;
        let gathered = platform.gather(began).await?;
        report.insert("gathering".to_owned(), gathered);
        report.insert("memory_idle".to_owned(), platform.stage.memory());
        let mut times = vec![];
        let mut counted = vec![];
        for round in 1..=self.rounds {
            let (took, complete) = platform.round(self, round, stop).await?;
            times.push(took);
            counted.push(complete.num_updates);
            view::aside(format!(
                "round {round}: {} updates in {:.2} s",
                complete.num_updates,
                took.as_secs_f64()
            ));
        }
        let times: Times = times.into_iter().collect();
        report.insert("round_ms".to_owned(), times.json());
        counted.sort_unstable();
        report.insert(
            "updates_a_round".to_owned(),
            json!({ "min": counted[0], "median": counted[counted.len() / 2], "max": counted[counted.len() - 1] }),
        );
        let is_exact = self.params >= self.proplets as usize;
        report.insert("models_checked_exactly".to_owned(), json!(is_exact));
        report.insert("fleet".to_owned(), platform.counters.json());
        report.insert("memory".to_owned(), platform.stage.memory());
        platform.operator.close().await;
        platform.stage.done();
        Ok(())
    }

    /// How many answers close a round: whoever is away is not waited for.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of u32")]
    fn quorum(&self) -> u32 {
        let share = (1.0 - 2.0 * self.away).max(0.1);
        ((f64::from(self.proplets) * share).ceil() as u32).clamp(1, self.proplets)
    }
}

impl Platform {
    async fn start(bench: &Fleet) -> anyhow::Result<Self> {
        let mut stage = Stage::open(&bench.stage).await?;
        let broker = address(stage.broker);
        let http = stage.services(&model(bench.params))?;
        let filters = [Filter::AnyComplete, Filter::AnyFailed];
        let mut operator = LinkArgs::to(broker.parse()?).connect(&filters).await?;
        operator.latest(&protocol::ModelLine::default()).await?;
        let members = (1..=bench.proplets).map(|n| format!("p{n:05}").parse());
        Ok(Self {
            stage,
            operator,
            api: Api::new(&http),
            members: members.collect::<Result<_, _>>()?,
            counters: Arc::default(),
            version: ModelVersion(0),
        })
    }

    /// Starts every proplet; they are there when they are there.
    fn send_out(&self, bench: &Fleet, stop: &CancellationToken) -> anyhow::Result<()> {
        let doors = Arc::new(Semaphore::new(bench.connecting.into()));
        let broker = address(self.stage.broker);
        for (place, id) in self.members.iter().enumerate() {
            let restless = (bench.away > 0.0).then(|| Restless {
                away_mean_s: AWAY_MEAN_S,
                there_mean_s: AWAY_MEAN_S * (1.0 - bench.away) / bench.away,
                seed: bench.seed,
            });
            let client = Client::new(
                (place, id.clone()),
                (broker.parse()?, namespace()?),
                restless,
                Arc::clone(&self.counters),
            );
            tokio::spawn(client.live(Arc::clone(&doors), stop.clone()));
        }
        Ok(())
    }

    /// Waits until all have been connected, and the manager believes that they are alive.
    async fn gather(&mut self, began: Instant) -> anyhow::Result<Value> {
        let all = self.members.len() as u64;
        let mut connected = None;
        loop {
            self.stage.check()?;
            let met = self.counters.met.load(Ordering::Relaxed);
            if met >= all && connected.is_none() {
                connected = Some(began.elapsed());
            }
            let alive = figure(&self.api.text("/metrics")?, "aileron_proplets");
            if let Some(connected) = connected
                && alive >= all
            {
                let seconds = connected.as_secs_f64();
                return Ok(json!({
                    "connected_s": rounded(seconds), "connects_per_s": rounded(all as f64 / seconds),
                    "known_to_the_manager_s": rounded(began.elapsed().as_secs_f64()),
                }));
            }
            if began.elapsed() > GATHER_MAX {
                bail!(
                    "{met} of {all} connected, {alive} known to the manager after {GATHER_MAX:?}"
                );
            }
            sleep(POLL).await;
        }
    }

    /// From the moment the start is said to the moment the end is heard.
    async fn round(
        &mut self,
        bench: &Fleet,
        round: u32,
        stop: &CancellationToken,
    ) -> anyhow::Result<(Duration, RoundComplete)> {
        let start = json!({
            "round_id": format!("fleet-{round}"), "model_uri": ModelUri::global(self.version),
            "participants": self.members, "k_of_n": bench.quorum(), "timeout_s": bench.timeout_s,
            "hyperparams": {},
        });
        let start: RoundStart = serde_json::from_str(&start.to_string())?;
        let began = Instant::now();
        let end = self.operator.run_round(&start, stop, |_| {}).await?;
        let took = began.elapsed();
        self.stage.check()?;
        let complete = match end {
            RoundEnd::Complete(complete) => complete,
            RoundEnd::Failed(failed) => {
                bail!("{} failed: {}, {:?}", failed.round_id, failed.reason, failed.error)
            }
            RoundEnd::Stopped => bail!("stopped"),
        };
        ensure!(
            complete.model_version.0 == self.version.0 + 1,
            "round {round} made version {} after {}",
            complete.model_version.0,
            self.version.0
        );
        self.version = complete.model_version;
        if bench.params >= self.members.len() {
            self.check_model(&complete).await?;
        }
        Ok((took, complete))
    }

    /// Everybody who counts, counts once, and nobody else does.
    async fn check_model(&mut self, complete: &RoundComplete) -> anyhow::Result<()> {
        let (_, model) = self.operator.model(&complete.model_topic).await?;
        let counted: BTreeMap<_, ()> =
            complete.participants.iter().map(|id| (id.as_str(), ())).collect();
        let members: Vec<Member> = (0..self.members.len())
            .map(|index| Member {
                index,
                num_samples: client::samples(index),
                standing: if counted.contains_key(self.members[index].as_str()) {
                    Standing::Accepted
                } else {
                    Standing::Refused
                },
            })
            .collect();
        let claim =
            Claim { num_updates: complete.num_updates, total_samples: complete.total_samples };
        match ledger::check(&members, &model.tensors, claim) {
            Ok(_) => Ok(()),
            Err(wrong) => {
                let wrong: Vec<String> = wrong.iter().take(5).map(ToString::to_string).collect();
                bail!("{} is not exact: {}", complete.model_topic, wrong.join("; "))
            }
        }
    }
}

impl Counters {
    fn json(&self) -> Value {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        json!({
            "connections": read(&self.connections), "dropped_out": read(&self.dropped_out),
            "tasks": read(&self.tasks), "accepted": read(&self.accepted),
            "rejected": read(&self.rejected), "broken": read(&self.broken),
        })
    }
}

/// The value of a figure without labels.
fn figure(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// One connection is one file, here and at the broker, which is started with this limit.
fn have_files(connections: u64) -> anyhow::Result<u64> {
    let needed = connections + FILES_BESIDE;
    raise_file_limit_to(needed).with_context(|| {
        format!("{connections} connections need {needed} open files; see ulimit -n")
    })
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=0.5).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err(format!("it takes 0 to 0.5, not {text:?}")),
    }
}
