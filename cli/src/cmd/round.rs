//! `aileron round`: rounds through the broker, as any MQTT client could start them.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use protocol::{
    ModelLine, ModelUri, ModelVersion, PropletId, RoundId, TRACEPARENT_ENV, TraceField,
    message::{Hyperparams, RoundStart},
};
use serde_json::{Value, json};

use super::task::encoded;
use crate::{
    http::ApiArgs,
    operator::{LinkArgs, RoundEnd, RoundNews, round_filters},
    view::{self, Format},
};

#[expect(clippy::large_enum_variant, reason = "there is one of it")]
#[derive(Debug, Subcommand)]
pub(crate) enum Round {
    /// Start a round; with --watch, follow it to its end
    Start(Box<Start>),
    /// Follow the rounds of the platform until Ctrl-C
    Watch {
        /// Only this round; ends when it ends
        round: Option<RoundId>,
        #[command(flatten)]
        link: LinkArgs,
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Id of the round; made up if left out
    #[arg(long)]
    id: Option<RoundId>,
    /// Proplets that take part; every proplet that is alive if left out
    #[arg(long, value_delimiter = ',')]
    participants: Vec<PropletId>,
    /// The line of models that the round is on
    #[arg(long, value_name = "NAME", default_value_t)]
    line: ModelLine,
    /// Version of the base model; the newest if left out
    #[arg(long)]
    base: Option<u64>,
    /// Updates that close the round; all participants if left out
    #[arg(long)]
    k: Option<usize>,
    /// Seconds after which the round closes with what it has
    #[arg(long, default_value_t = 60)]
    timeout_s: u64,
    /// Handed to the workload as it stands
    #[arg(long, value_name = "JSON", default_value = "{}")]
    hyperparams: String,
    /// WebAssembly module or component; the built-in FL client if neither this nor --image is given
    #[arg(long, value_name = "WASM", conflicts_with = "image")]
    file: Option<PathBuf>,
    /// Where proplets fetch the workload
    #[arg(long, value_name = "URL")]
    image: Option<String>,
    /// How updates are made smaller on the wire, like delta+int8+deflate
    #[arg(long)]
    encoding: Option<String>,
    /// Follow the round to its end
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    link: LinkArgs,
    #[command(flatten)]
    api: ApiArgs,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Round {
    pub(super) const fn format(&self) -> Format {
        match self {
            Self::Start(start) => start.format,
            Self::Watch { format, .. } => *format,
        }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Start(start) => start.run(),
            Self::Watch { round, link, format } => watch(round, &link, format),
        }
    }
}

impl Start {
    fn run(self) -> anyhow::Result<ExitCode> {
        let participants = self.who()?;
        super::on_runtime(async |stop| {
            let mut operator = self.link.connect(&round_filters()).await?;
            let base = match self.base {
                Some(version) => {
                    ModelUri { line: self.line.clone(), version: ModelVersion(version) }
                }
                None => operator.latest(&self.line).await?.topic,
            };
            let start = self.message(participants, base)?;
            if !self.watch {
                let news = operator.open_round(&start).await?;
                operator.close().await;
                show(&news, self.format);
                return Ok(ExitCode::SUCCESS);
            }
            let end = operator.run_round(&start, &stop, |news| show(news, self.format)).await?;
            operator.close().await;
            Ok(match end {
                RoundEnd::Complete(_) => ExitCode::SUCCESS,
                RoundEnd::Failed(_) => ExitCode::FAILURE,
                RoundEnd::Stopped => ExitCode::from(130),
            })
        })
    }

    fn who(&self) -> anyhow::Result<BTreeSet<PropletId>> {
        if !self.participants.is_empty() {
            return Ok(self.participants.iter().cloned().collect());
        }
        let proplets = self.api.api()?.all("/proplets", "proplets")?;
        let alive: BTreeSet<PropletId> = proplets
            .iter()
            .filter(|proplet| proplet["alive"] == true)
            .filter_map(|proplet| proplet["id"].as_str()?.parse().ok())
            .collect();
        ensure!(!alive.is_empty(), "no proplet is alive; name --participants to start anyway");
        Ok(alive)
    }

    fn message(
        &self,
        participants: BTreeSet<PropletId>,
        base: ModelUri,
    ) -> anyhow::Result<RoundStart> {
        let made_up = || format!("r-{}", uuid::Uuid::new_v4().simple()).parse();
        Ok(RoundStart {
            round_id: self.id.clone().map_or_else(made_up, Ok)?,
            model_uri: base,
            task_wasm_image: self.image.clone(),
            file: self.file.as_ref().map(encoded).transpose()?,
            k_of_n: self.k.unwrap_or(participants.len()),
            participants,
            hyperparams: Hyperparams::parse(&self.hyperparams)
                .with_context(|| format!("hyperparams {:?}", self.hyperparams))?,
            timeout_s: self.timeout_s,
            min_updates: None,
            strategy: None,
            clip: None,
            share_max: None,
            env: std::collections::BTreeMap::new(),
            session: None,
            encoding: self.encoding.clone(),
            purpose: protocol::message::Purpose::Train,
            staleness_max: None,
            traceparent: given_trace(),
        })
    }
}

/// The convention of OpenTelemetry's tools: whoever starts a program says so in its environment.
pub(super) fn given_trace() -> Option<TraceField> {
    let given = std::env::var(TRACEPARENT_ENV).ok().filter(|text| !text.is_empty());
    given.as_deref().map(TraceField::read)
}

fn watch(round: Option<RoundId>, link: &LinkArgs, format: Format) -> anyhow::Result<ExitCode> {
    super::on_runtime(async |stop| {
        let mut operator = link.connect(&round_filters()).await?;
        loop {
            let news = tokio::select! {
                () = stop.cancelled() => break,
                news = operator.round_news() => news?,
            };
            if round.as_ref().is_some_and(|round| round != news.round()) {
                continue;
            }
            show(&news, format);
            let ended = matches!(news, RoundNews::Complete(_) | RoundNews::Failed(_));
            if ended && round.is_some() {
                break;
            }
        }
        operator.close().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn show(news: &RoundNews, format: Format) {
    match format {
        Format::Json => view::line(as_json(news).to_string()),
        Format::Text => view::line(in_words(news)),
    }
}

fn as_json(news: &RoundNews) -> Value {
    match news {
        RoundNews::Opened(opened) => json!({ "event": "opened", "round": opened }),
        RoundNews::Update { round, proplet, bytes } => {
            let round = json!({ "round_id": round, "proplet_id": proplet });
            json!({ "event": "update", "round": round, "bytes": bytes })
        }
        RoundNews::Absent(absent) => json!({ "event": "absent", "round": absent }),
        RoundNews::Complete(complete) => json!({ "event": "complete", "round": complete }),
        RoundNews::Failed(failed) => json!({ "event": "failed", "round": failed }),
    }
}

/// One line of what happened.
pub(crate) fn in_words(news: &RoundNews) -> String {
    match news {
        RoundNews::Opened(opened) => format!(
            "{}  opened on model {}: {} participants, {} updates close it",
            opened.round_id, opened.model_uri, opened.participants, opened.k_of_n
        ),
        RoundNews::Update { round, proplet, bytes } => {
            format!("{round}  update of {proplet}, {bytes} bytes")
        }
        RoundNews::Absent(absent) => format!(
            "{}  {} is absent: {}{}",
            absent.round_id,
            absent.proplet_id,
            absent.reason,
            absent.error.as_ref().map(|why| format!(", {why}")).unwrap_or_default()
        ),
        RoundNews::Complete(done) => format!(
            "{}  complete: model {} from {} updates and {} samples in {:.2} s{}",
            done.round_id,
            done.model_version,
            done.num_updates,
            done.total_samples,
            done.duration_ms as f64 / 1000.0,
            done.metrics.get("loss").map(|loss| format!(", loss {loss:.4}")).unwrap_or_default()
        ),
        RoundNews::Failed(failed) => format!(
            "{}  failed: {}, {} of {} updates{}",
            failed.round_id,
            failed.reason,
            failed.num_updates,
            failed.k_of_n,
            failed.error.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
        ),
    }
}
