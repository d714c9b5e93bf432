//! What a session is asked to do: the flags of `aileron session start`, over a file.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use protocol::{ModelLine, PropletId, SessionId, message::SessionStart};
use serde_json::{Map, Value, json};

use crate::{
    cmd::{round::given_trace, task::encoded},
    operator::LinkArgs,
    view::Format,
};

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// JSON file with the start of a session; what is given beside it goes before it
    #[arg(long, value_name = "FILE")]
    pub(super) spec: Option<PathBuf>,
    /// Id of the session; made up if left out
    #[arg(long)]
    pub(super) id: Option<SessionId>,
    /// Rounds, 1 to a million
    #[arg(long, value_name = "COUNT")]
    rounds: Option<u64>,
    /// Ends the session once a metric is reached, like accuracy>=0.95
    #[arg(long, value_name = "METRIC(>=|<=)VALUE")]
    target: Option<String>,
    /// Ends the session after so many rounds in which the metric of --target was not better
    #[arg(long, value_name = "ROUNDS", requires = "target")]
    patience: Option<u64>,
    /// Proplets that take part in every round; those that are alive if left out
    #[arg(long, value_delimiter = ',')]
    participants: Vec<PropletId>,
    /// The line of models that the session is on; it begins with the newest
    #[arg(long, value_name = "NAME")]
    line: Option<ModelLine>,
    /// How participants are chosen: all, random, weighted or oort
    #[arg(long, value_name = "METHOD")]
    select: Option<String>,
    /// How many are needed in a round; everybody if left out
    #[arg(long, value_name = "COUNT")]
    count: Option<usize>,
    /// How many times as many are asked, 1 to 10
    #[arg(long, value_name = "FACTOR")]
    over: Option<f64>,
    /// A round waits until so many proplets are there
    #[arg(long, value_name = "COUNT")]
    available: Option<usize>,
    /// Updates that close a round
    #[arg(long, value_name = "COUNT")]
    k: Option<usize>,
    /// Make a model of each so many updates, whoever sends them first; who is slower goes on, and
    /// its update counts later, for less
    #[arg(long, value_name = "COUNT", requires = "concurrency",
          conflicts_with_all = ["k", "count", "over"])]
    asynchronous: Option<usize>,
    /// How many proplets are kept at work then
    #[arg(long, value_name = "COUNT", requires = "asynchronous")]
    concurrency: Option<usize>,
    /// How many models an update may be behind then; 20 if left out
    #[arg(long, value_name = "COUNT", requires = "asynchronous")]
    staleness_max: Option<u64>,
    /// Seconds after which a round closes with what it has
    #[arg(long)]
    timeout_s: Option<u64>,
    /// How updates become a model; the coordinator's setting if left out
    #[arg(long, value_name = "NAME")]
    strategy: Option<String>,
    /// What the strategy is told, like beta=0.9
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', requires = "strategy")]
    strategy_params: Vec<String>,
    /// Evaluate after each so many new models, on the proplets' held-out rows
    #[arg(long, value_name = "ROUNDS")]
    evaluate: Option<u64>,
    /// Proplet that evaluates too, on a held-out set of its own
    #[arg(long, value_name = "PROPLET", requires = "evaluate")]
    evaluate_central: Option<PropletId>,
    /// How updates are made smaller on the wire, like delta+int8+deflate
    #[arg(long)]
    encoding: Option<String>,
    /// Handed to the workload as it stands
    #[arg(long, value_name = "JSON")]
    hyperparams: Option<String>,
    /// WebAssembly module or component; the built-in FL client if neither this nor --image is given
    #[arg(long, value_name = "WASM", conflicts_with = "image")]
    file: Option<PathBuf>,
    /// Where proplets fetch the workload
    #[arg(long, value_name = "URL")]
    image: Option<String>,
    /// What the choice of participants follows from
    #[arg(long)]
    seed: Option<u64>,
    /// Follow the session to its end
    #[arg(long)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) link: LinkArgs,
    /// text or json
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

impl Start {
    /// The spec file with the flags over it, read as the coordinator will read it.
    pub(super) fn message(&self) -> anyhow::Result<SessionStart> {
        let mut fields = self.written()?;
        let mut set = |key: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (key.to_owned(), value)));
        };
        set("rounds", self.rounds.map(Into::into));
        set("k_of_n", self.k.map(Into::into));
        set("timeout_s", self.timeout_s.map(Into::into));
        set("seed", self.seed.map(Into::into));
        set("traceparent", given_trace().map(|given| given.to_string().into()));
        set("task_wasm_image", self.image.clone().map(Into::into));
        set("model_line", self.line.as_ref().map(|line| line.as_str().into()));
        set("encoding", self.encoding.clone().map(Into::into));
        set("file", self.file.as_ref().map(encoded).transpose()?.map(Into::into));
        let hyperparams = self.hyperparams.as_deref().map(serde_json::from_str).transpose();
        set(
            "hyperparams",
            hyperparams.with_context(|| format!("hyperparams {:?}", self.hyperparams))?,
        );
        let goal = self.target.as_deref().map(goal).transpose()?;
        let patience = self.patience.zip(goal.as_ref());
        set(
            "patience",
            patience.map(
                |(rounds, (metric, op, _))| json!({ "metric": metric, "op": op, "rounds": rounds }),
            ),
        );
        set(
            "target",
            goal.map(|(metric, op, value)| json!({ "metric": metric, "op": op, "value": value })),
        );
        let strategy = self.strategy.as_ref().map(|name| {
            anyhow::Ok(json!({ "name": name, "params": params(&self.strategy_params)? }))
        });
        set("strategy", strategy.transpose()?);
        set(
            "evaluate",
            self.evaluate.map(|every| match &self.evaluate_central {
                None => json!({ "every": every }),
                Some(central) => json!({ "every": every, "central": central }),
            }),
        );
        let asynchronous = self.asynchronous.zip(self.concurrency);
        set(
            "asynchronous",
            asynchronous.map(|(buffer, concurrency)| match self.staleness_max {
                None => json!({ "buffer": buffer, "concurrency": concurrency }),
                Some(staleness_max) => json!({
                    "buffer": buffer, "concurrency": concurrency, "staleness_max": staleness_max,
                }),
            }),
        );
        let selection = self.selection();
        if !selection.is_empty() {
            let given = fields.entry("selection").or_insert_with(|| json!({}));
            let Some(given) = given.as_object_mut() else { bail!("selection takes an object") };
            given.extend(selection);
        }
        let id = self.id.as_ref().map(ToString::to_string);
        let made_up = || format!("s-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]).into();
        match id {
            Some(id) => drop(fields.insert("session_id".to_owned(), id.into())),
            None => drop(fields.entry("session_id").or_insert_with(made_up)),
        }
        serde_json::from_value(Value::Object(fields)).context("start of the session")
    }

    /// What the spec file says.
    fn written(&self) -> anyhow::Result<Map<String, Value>> {
        let Some(path) = &self.spec else { return Ok(Map::new()) };
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    fn selection(&self) -> Map<String, Value> {
        let participants = (!self.participants.is_empty()).then(|| json!(self.participants));
        let given = [
            ("participants", participants),
            ("method", self.select.clone().map(Into::into)),
            ("count", self.count.map(Into::into)),
            ("over", self.over.map(Into::into)),
            ("available_min", self.available.map(Into::into)),
        ];
        let given = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        given.collect()
    }
}

/// `metric>=value` or `metric<=value`.
fn goal(text: &str) -> anyhow::Result<(String, String, f64)> {
    let split = [">=", "<="].into_iter().find_map(|op| Some((op, text.split_once(op)?)));
    let Some((op, (metric, value))) = split else {
        bail!("target {text:?}: it takes a metric, >= or <=, and a number, like accuracy>=0.95");
    };
    let number = value.trim().parse().with_context(|| format!("target {text:?}: {value:?}"))?;
    Ok((metric.trim().to_owned(), op.to_owned(), number))
}

fn params(given: &[String]) -> anyhow::Result<BTreeMap<String, f64>> {
    let pair = |text: &String| {
        let (key, value) = text
            .split_once('=')
            .with_context(|| format!("strategy-params {text:?}: it takes KEY=VALUE"))?;
        let number = value.parse().with_context(|| format!("strategy-params {text:?}"))?;
        Ok((key.to_owned(), number))
    };
    given.iter().map(pair).collect()
}
