//! The demo from beginning to end.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use client_wasm::Hyperparams;
use indicatif::{ProgressBar, ProgressStyle};
use protocol::{
    Form, ModelLine, ModelUri, ModelVersion, PropletId,
    message::{RoundComplete, RoundStart},
};
use service::{Clock as _, SystemClock};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{
    Cast,
    central::Judge,
    stage::{self, Stage},
};
use crate::{
    http::Api,
    operator::{LinkArgs, Operator, RoundEnd, RoundNews, round_filters},
    platform::{Plan, fleet},
    view,
};

const READY: Duration = Duration::from_secs(30);
const ROUND_TIMEOUT_S: u64 = 120;

/// How the demo ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    Stopped,
}

/// Plays the whole demo; leaves nothing running whichever way it ends.
pub(crate) async fn play(cast: &Cast, stop: &CancellationToken) -> anyhow::Result<End> {
    let began = SystemClock.now();
    let hyperparams = Hyperparams::from_json(&cast.hyperparams)?;
    if cast.dir.exists() {
        fs::remove_dir_all(&cast.dir)
            .with_context(|| format!("clear directory {}", cast.dir.display()))?;
    }
    let stage = stage::set(cast, &hyperparams)?;
    introduce(cast, &stage);
    let plan = Plan {
        dir: cast.dir.clone(),
        config: None,
        mqtt_address: None,
        broker_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        http_port: 0,
        coordinator_http_port: 0,
        model_file: Some(stage.model_file.clone()),
        proplets: fleet(cast.proplets, Some(&stage.data_dir)),
    };
    let mut platform = plan.start().await?;
    let judge = Judge::new(&stage.test, &hyperparams)?;
    let show = Show { cast, stage: &stage, judge: &judge, began, stop };
    let (mqtt_address, http) = (platform.mqtt_address.clone(), platform.http);
    let played = tokio::select! {
        played = show.rounds(&mqtt_address, http) => played,
        why = platform.ended() => Err(why),
    };
    platform.stop().await;
    if played? == End::Stopped {
        view::aside("Stopped; nothing is left running.");
        return Ok(End::Stopped);
    }
    show.finale(&hyperparams)?;
    Ok(End::Done)
}

struct Show<'a> {
    cast: &'a Cast,
    stage: &'a Stage,
    judge: &'a Judge,
    began: protocol::Timestamp,
    stop: &'a CancellationToken,
}

impl Show<'_> {
    async fn rounds(&self, mqtt_address: &str, http: SocketAddr) -> anyhow::Result<End> {
        let link = LinkArgs::to(mqtt_address.parse()?);
        let filters = round_filters();
        let mut operator = link.connect(&filters).await?;
        let ready = time::timeout(READY, everybody(http, self.cast.proplets));
        tokio::select! {
            () = self.stop.cancelled() => return Ok(End::Stopped),
            ready = ready => ready.unwrap_or_else(|_| {
                bail!("not every proplet was there within {} s", READY.as_secs())
            })?,
        }
        let first = operator.latest(&ModelLine::default()).await?.version;
        header();
        let bar = bar(self.cast.rounds);
        let mut base = first;
        for number in 1..=self.cast.rounds {
            match self.round(&mut operator, base, number, &bar).await? {
                Some(version) => base = version,
                None => {
                    bar.finish_and_clear();
                    operator.close().await;
                    return Ok(End::Stopped);
                }
            }
            bar.set_position(number);
        }
        bar.finish_and_clear();
        operator.close().await;
        Ok(End::Done)
    }

    /// One round; the version it made, or nothing if the operator stopped it.
    async fn round(
        &self,
        operator: &mut Operator,
        base: ModelVersion,
        number: u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<Option<ModelVersion>> {
        let start = self.start(base, number)?;
        let (mut heard, mut heard_bytes) = (0, 0);
        bar.set_message(format!("round {number}: training"));
        let end = operator
            .run_round(&start, self.stop, |news| {
                if let RoundNews::Update { bytes, .. } = news {
                    heard += 1;
                    heard_bytes += bytes;
                    bar.set_message(format!("round {number}: {heard} of {} updates", start.k_of_n));
                }
            })
            .await?;
        match end {
            RoundEnd::Stopped => Ok(None),
            RoundEnd::Failed(failed) => bail!(
                "round {number} failed: {}{}",
                failed.reason,
                failed.error.map(|why| format!(", {why}")).unwrap_or_default()
            ),
            RoundEnd::Complete(complete) => {
                let (payload, _) = operator.model(&complete.model_topic).await?;
                let accuracy = self.judge.score(&payload)?.accuracy;
                let each = heard_bytes / heard.max(1);
                bar.suspend(|| self.row(number, &complete, (accuracy, each)));
                Ok(Some(complete.model_version))
            }
        }
    }

    fn start(&self, base: ModelVersion, number: u64) -> anyhow::Result<RoundStart> {
        let participants: Result<_, _> =
            (1..=self.cast.proplets).map(|i| format!("proplet-{i}").parse::<PropletId>()).collect();
        Ok(RoundStart {
            round_id: format!("demo-{number}").parse()?,
            model_uri: ModelUri::global(base),
            task_wasm_image: None,
            file: None,
            participants: participants?,
            hyperparams: protocol::message::Hyperparams::parse(&self.cast.hyperparams)?,
            k_of_n: self.cast.k,
            timeout_s: ROUND_TIMEOUT_S,
            min_updates: None,
            strategy: None,
            clip: None,
            share_max: None,
            env: std::collections::BTreeMap::new(),
            session: None,
            encoding: self.cast.encoding.clone(),
            purpose: protocol::message::Purpose::Train,
            staleness_max: None,
            traceparent: None,
        })
    }

    fn row(&self, number: u64, complete: &RoundComplete, (accuracy, bytes): (Option<f64>, usize)) {
        let loss = complete.metrics.get("loss").map_or_else(|| "-".into(), |l| format!("{l:.4}"));
        let seconds = SystemClock.now().since(self.began).as_secs_f64();
        view::line(format!(
            "{number:>5}  {:>7}  {:>7}  {:>13}  {:>8}  {bytes:>12}  {:>7.2} s  {:>6.2} s",
            format!("{} of {}", complete.num_updates, self.cast.proplets),
            complete.total_samples,
            loss,
            view::percent(accuracy),
            complete.duration_ms as f64 / 1000.0,
            seconds
        ));
    }

    fn finale(&self, hyperparams: &Hyperparams) -> anyhow::Result<()> {
        let models = self.cast.dir.join("model-server");
        let file = newest(&models)?;
        let payload = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let federated = self.judge.score(&payload)?;
        let central = self.judge.central(&self.stage.train, self.cast.rounds)?;
        let dir = self.cast.dir.display();
        view::line(format!(
            "\nAccuracy on {} rows that nobody trained on\n  \
             federated, {} proplets, data never moved  {:>9}\n  \
             the same model, all data in one place    {:>9}   ({} epochs)\n\n\
             The model  {}\n\n\
             Go on from here, on the same data and model:\n  \
             aileron up --dir {dir} --proplets {} --data-dir {dir}/data\n  \
             aileron round start --watch --hyperparams '{}'\n  \
             aileron model list\n  \
             aileron task list\n\
             (aileron is target/release/aileron after `cargo build --release`.)",
            self.stage.test.len(),
            self.cast.proplets,
            view::percent(federated.accuracy),
            view::percent(central.accuracy),
            hyperparams.epochs.saturating_mul(self.cast.rounds),
            file.display(),
            self.cast.proplets,
            self.cast.hyperparams,
        ));
        Ok(())
    }
}

fn introduce(cast: &Cast, stage: &Stage) {
    let what = match &cast.data_dir {
        Some(dir) => format!("rows of {}", dir.display()),
        None => cast.network.rows_called().to_owned(),
    };
    view::line(format!(
        "Aileron demo: {} {what}, {} of them held out, the rest split unevenly\n\
         (Dirichlet, alpha {}, seed {}). Each part is a file that one proplet sees.\n",
        stage.train.len() + stage.test.len(),
        stage.test.len(),
        cast.alpha,
        cast.seed
    ));
    for (number, (rows, labels)) in stage.shares.iter().zip(&stage.labels).enumerate() {
        view::line(format!("  proplet-{:<3} {rows:>6} rows of {labels} labels", number + 1));
    }
    view::line(format!("\n{} rounds with {}\n", cast.rounds, cast.hyperparams));
}

fn header() {
    view::line(
        "round  updates  samples  training loss  accuracy  update bytes      took  since start",
    );
}

fn bar(rounds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(rounds).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Waits until the manager knows every proplet.
async fn everybody(http: SocketAddr, proplets: usize) -> anyhow::Result<()> {
    let api = Api::new(&format!("http://{http}"));
    loop {
        let api = api.clone();
        let known = tokio::task::spawn_blocking(move || api.all("/proplets", "proplets")).await??;
        if known.iter().filter(|proplet| proplet["alive"] == true).count() >= proplets {
            return Ok(());
        }
        time::sleep(Duration::from_millis(50)).await;
    }
}

/// The file of the newest version.
fn newest(models: &Path) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(models).with_context(|| format!("read {}", models.display()))?;
    let versions = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let (version, ending) =
            path.file_name()?.to_str()?.strip_prefix("global_model_v")?.split_once('.')?;
        Form::ALL.into_iter().find(|form| form.as_str() == ending)?;
        Some((version.parse::<u64>().ok()?, path.clone()))
    });
    let newest = versions.max_by_key(|(version, _)| *version);
    let (_, file) = newest.with_context(|| format!("{} holds no model", models.display()))?;
    Ok(file)
}
