//! What strategies remember from round to round: vectors as long as the model, each set of them
//! kept beside the version that it belongs to, in the step in which that version is made.
//!
//! A round goes on from what its own strategy, told the same, left beside its base model; where
//! there is none, from nothing. Bounded: the oldest are forgotten, except those that an open round
//! may still go on from.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Digest, Entry, ModelLine, ModelUri, Output, RoundId, message::StrategySpec};
use serde::{Deserialize, Serialize};

use crate::{Effect, Kept, StoredBlob, round::Spec, turn::Turn};

/// Versions of a line whose state is kept, for each strategy.
const VERSIONS_MAX: usize = 3;
/// States of a line that are kept in all.
const STATES_MAX: usize = 64;

pub(crate) const STATE: &str = "state";
/// The numbers of a state, by version.
pub(crate) const STATE_VALUES: &str = "state_values";

/// What a strategy left for the next round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The names of its vectors, in the order of the values.
    pub vectors: Vec<String>,
    /// One vector after the other, little-endian: 32-bit floats where all of the model are such,
    /// else 64-bit ones. In a file they are one tensor, a row for each vector.
    pub values: Kept,
}

/// The states that are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    states: BTreeMap<ModelUri, Remembered>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remembered {
    pub(crate) owner: Owner,
    pub(crate) state: State,
}

/// Who goes on from a state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owner {
    pub(crate) strategy: StrategySpec,
    /// The workload whose participants keep a part of the state, where they do.
    pub(crate) workload: Option<Digest>,
    /// The round in which a control variate was zero last.
    pub(crate) series: Option<RoundId>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StateRecord {
    pub(crate) model: ModelUri,
    strategy: StrategySpec,
    /// [`aggregate::STATE_VERSION`] when it was made.
    meaning: u32,
    vectors: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<StoredBlob>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    series: Option<RoundId>,
}

impl StateRecord {
    /// It, with its numbers; nothing if its vectors meant something else when it was made.
    pub(crate) fn read(self, here: Option<Vec<u8>>) -> Option<(ModelUri, Remembered)> {
        if self.meaning != aggregate::STATE_VERSION {
            return None;
        }
        let values = here.map(|bytes| Kept::Here(bytes.into())).or(self.blob.map(Kept::Stored))?;
        let state = State { vectors: self.vectors, values };
        let (strategy, workload, series) = (self.strategy, self.workload, self.series);
        let owner = Owner { strategy, workload, series };
        Some((self.model, Remembered { owner, state }))
    }
}

impl Memory {
    pub(crate) fn restore(&mut self, states: Vec<(ModelUri, Remembered)>) {
        self.states = states.into_iter().collect();
    }

    /// What a round of this kind left beside its base model.
    pub(crate) fn find(&self, spec: &Spec) -> Option<&State> {
        self.remembered(spec).map(|found| &found.state)
    }

    pub(crate) fn remembered(&self, spec: &Spec) -> Option<&Remembered> {
        let is_theirs =
            |owner: &Owner| owner.strategy == spec.strategy && owner.workload == spec.workload;
        self.states.get(&spec.base).filter(|found| is_theirs(&found.owner))
    }

    /// What was left beside this model is worth nothing any more.
    pub(crate) fn forget(&mut self, model: &ModelUri, turn: &mut Turn) {
        let Some(Remembered { state, .. }) = self.states.remove(model) else { return };
        forget(model, &state, turn);
        turn.out.extend(state.blob().map(|blob| Output::Effect(Effect::Drop(blob))));
    }

    pub(crate) fn keep(&mut self, model: &ModelUri, remembered: Remembered, turn: &mut Turn) {
        turn.out.extend(keep(model, &remembered).into_iter().map(Output::Keep));
        self.states.insert(model.clone(), remembered);
    }

    /// The model that it belongs to has got another version.
    pub(crate) fn move_to(&mut self, from: &ModelUri, to: &ModelUri, turn: &mut Turn) {
        if let Some(remembered) = self.states.remove(from) {
            forget(from, &remembered.state, turn);
            self.keep(to, remembered, turn);
        }
    }

    /// Forgets what is too old, but nothing that belongs to one of the models `needed`.
    pub(crate) fn trim(&mut self, needed: &BTreeSet<ModelUri>, turn: &mut Turn) {
        let mut of_line: BTreeMap<&ModelLine, usize> = BTreeMap::new();
        let mut of_strategy: BTreeMap<(&ModelLine, String), usize> = BTreeMap::new();
        let mut old = vec![];
        for (model, remembered) in self.states.iter().rev() {
            let label = label(&remembered.owner.strategy);
            let counts = [
                (of_line.entry(&model.line).or_default(), STATES_MAX),
                (of_strategy.entry((&model.line, label)).or_default(), VERSIONS_MAX),
            ];
            let is_old = counts.map(|(count, max)| {
                *count += 1;
                *count > max
            });
            if is_old.contains(&true) && !needed.contains(model) {
                old.push(model.clone());
            }
        }
        for model in old {
            self.forget(&model, turn);
        }
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = Digest> {
        self.states.values().filter_map(|remembered| remembered.state.blob())
    }
}

impl State {
    /// The file that it is in, if it is in one.
    pub(crate) fn blob(&self) -> Option<Digest> {
        self.values.stored().map(|blob| blob.sha256)
    }
}

/// The strategy and what it is told, as one word.
fn label(strategy: &StrategySpec) -> String {
    format!("{} {:?}", strategy.name, strategy.params)
}

/// Neither a line nor a number holds a slash.
pub(crate) fn key(model: &ModelUri) -> String {
    format!("{}/{}", model.line, model.version)
}

fn keep(model: &ModelUri, remembered: &Remembered) -> Vec<Entry> {
    let Remembered { owner: Owner { strategy, workload, series }, state } = remembered;
    let record = StateRecord {
        model: model.clone(),
        strategy: strategy.clone(),
        meaning: aggregate::STATE_VERSION,
        vectors: state.vectors.clone(),
        blob: state.values.stored(),
        workload: *workload,
        series: series.clone(),
    };
    let facts = Entry::put(STATE, key(model), &record);
    match &state.values {
        Kept::Here(bytes) => {
            vec![facts, Entry::put_bytes(STATE_VALUES, key(model), bytes.to_vec())]
        }
        Kept::Stored(_) => vec![facts],
    }
}

fn forget(model: &ModelUri, state: &State, turn: &mut Turn) {
    turn.keep(Entry::forget(STATE, key(model)));
    if matches!(state.values, Kept::Here(_)) {
        turn.keep(Entry::forget(STATE_VALUES, key(model)));
    }
}
