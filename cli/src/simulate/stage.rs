//! What a scenario's nodes have before it begins: their data, model 0, and who judges models.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use client_wasm::{Hyperparams, initial_model};
use proplet::executor::{Program, virtual_time::DataSet};
use protocol::{Letter as _, message::Model};
use serde_json::{Map, Value};
use sim::{Judge, NodeKind, NodeSpec, Scenario};

use crate::demo::{Judge as Scorer, Rows, dirichlet};

/// Share of the digits that nobody trains on.
const TEST_SHARE: f64 = 0.2;
const ALPHA_DEFAULT: f64 = 0.5;
const TRAIN: &str = "train.csv";
/// The note's model 0, for scenarios that train nothing.
const PLAIN: &[u8] = br#"{"w":[0.0,0.0,0.0],"b":0.0,"version":0}"#;

/// A scenario's stage.
pub(super) struct Stage {
    pub(super) data: BTreeMap<String, Data>,
    /// What rounds name as their image, where that is a file.
    pub(super) images: BTreeMap<String, Program>,
    pub(super) model0: Bytes,
    pub(super) judge: Option<Box<dyn Judge>>,
}

/// What a node has.
#[derive(Clone)]
pub(super) struct Data {
    pub(super) set: DataSet,
    pub(super) source: Source,
}

/// Where it is from, for those who need it on a disk.
#[derive(Clone)]
pub(super) enum Source {
    Dir(PathBuf),
    /// One file, by its name.
    File(&'static str, Bytes),
}

/// `digits` or `digits:ALPHA` is a part of the digits, split unevenly between all nodes that say
/// the same; anything else is a directory, beside the scenario's file.
pub(super) fn set(scenario: &Scenario, dir: &Path) -> anyhow::Result<Stage> {
    let mut parts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut data = BTreeMap::new();
    for spec in scenario.nodes.iter().filter(|node| node.kind == NodeKind::Proplet) {
        match spec.data.as_deref() {
            Some(digits) if digits.starts_with("digits") => {
                parts.entry(digits).or_default().extend(spec.names());
            }
            Some(path) => directories(spec, path, dir, &mut data)?,
            None => {}
        }
    }
    let images = images(scenario, dir)?;
    if parts.is_empty() {
        return Ok(Stage { data, images, model0: Bytes::from_static(PLAIN), judge: None });
    }
    let hyperparams = Hyperparams::from_json(&hyperparams(scenario))?;
    let seed = scenario.simulation.seed;
    let (train, test) = Rows::digits()?.hold_out(TEST_SHARE, seed);
    for (digits, nodes) in parts {
        let split = dirichlet(&train, nodes.len(), alpha(digits)?, seed)?;
        for (node, rows) in nodes.into_iter().zip(split) {
            let csv = Bytes::from(rows.to_csv());
            let set = DataSet::new([(TRAIN.to_owned(), csv.clone())].into())?;
            data.insert(node, Data { set, source: Source::File(TRAIN, csv) });
        }
    }
    let model = initial_model(hyperparams.kind, train.features(), train.classes()?, seed)?;
    let judge = Box::new(OnDigits(Scorer::new(&test, &hyperparams)?));
    Ok(Stage { data, images, model0: model.to_json(0)?.into(), judge: Some(judge) })
}

/// What the first round, or else the first session, tells its guests; it says what model 0 is.
fn hyperparams(scenario: &Scenario) -> String {
    let round = scenario.rounds.first().map(|round| Value::Object(round.hyperparams.clone()));
    let session = scenario.sessions.first();
    let session = session.and_then(|session| session.start.get("hyperparams").cloned());
    round.or(session).unwrap_or_else(|| Value::Object(Map::new())).to_string()
}

/// What rounds and sessions name as their image, with who does.
fn named_images(scenario: &Scenario) -> impl Iterator<Item = (String, &str)> {
    let rounds = scenario.rounds.iter();
    let rounds = rounds.filter_map(|it| Some((format!("round {}", it.id), it.image.as_deref()?)));
    let sessions = scenario.sessions.iter().enumerate().filter_map(|(number, it)| {
        Some((format!("session {number}"), it.start.get("task_wasm_image")?.as_str()?))
    });
    rounds.chain(sessions)
}

/// The files that rounds and sessions name as their image, beside the scenario's file.
pub(super) fn missing_images(scenario: &Scenario, dir: &Path) -> Vec<String> {
    let missing = named_images(scenario).filter(|(_, image)| !dir.join(image).is_file());
    missing.map(|(who, image)| format!("{who}: {image} is not there")).collect()
}

fn images(scenario: &Scenario, dir: &Path) -> anyhow::Result<BTreeMap<String, Program>> {
    named_images(scenario)
        .map(|(_, image)| {
            let bytes = fs::read(dir.join(image)).with_context(|| format!("image {image}"))?;
            Ok((image.to_owned(), Program::new(bytes)))
        })
        .collect()
}

fn alpha(digits: &str) -> anyhow::Result<f64> {
    match digits.split_once(':') {
        None if digits == "digits" => Ok(ALPHA_DEFAULT),
        Some(("digits", alpha)) => alpha.parse().with_context(|| format!("data {digits:?}")),
        Some(_) | None => bail!("data takes digits, digits:ALPHA or a directory, not {digits:?}"),
    }
}

fn directories(
    spec: &NodeSpec,
    path: &str,
    dir: &Path,
    data: &mut BTreeMap<String, Data>,
) -> anyhow::Result<()> {
    for (number, node) in spec.names().into_iter().enumerate() {
        let own: PathBuf = dir.join(path.replace("{i}", &number.to_string()));
        fs::read_dir(&own).with_context(|| format!("data of {node}: {}", own.display()))?;
        let set = DataSet::read(&own)?;
        data.insert(node, Data { set, source: Source::Dir(own) });
    }
    Ok(())
}

/// Scores each model on the digits that were held out.
struct OnDigits(Scorer);

impl Judge for OnDigits {
    fn judge(&mut self, model: &Model) -> BTreeMap<String, f64> {
        let Ok(score) = self.0.score(&model.seal().payload) else { return BTreeMap::new() };
        let mut metrics = BTreeMap::from([("test_loss".to_owned(), score.loss)]);
        metrics.extend(score.accuracy.map(|accuracy| ("accuracy".to_owned(), accuracy)));
        metrics
    }
}
