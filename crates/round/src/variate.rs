//! The server's control variate of SCAFFOLD: what it is beside a base model, said to those who take
//! part as long as their round is open, and what keeps it in step with theirs.
//!
//! Those of the participants belong to it by their series: the rounds since it was zero last. Where
//! it begins anew, theirs do, too; and where they do, as with another workload, it does.

use protocol::{
    Digest, FailReason, Form, Letter as _, RoundId, Schema, Tensors,
    message::{RoundStart, RoundVariate, variate_withdrawn},
};

use crate::{
    Base, Job, Kept, Rounds, State,
    memory::Memory,
    round::{Round, Spec},
    turn::Turn,
};

/// The one vector of its state.
const VECTOR: &str = "control";

impl Spec {
    /// Whether updates bring the change of a control variate.
    pub(crate) fn has_control(&self) -> bool {
        self.purpose.is_train() && self.strategy.has_control()
    }

    /// Whose control variates its participants keep: they do for each workload by itself.
    pub(crate) fn workload_of(start: &RoundStart) -> Option<Digest> {
        let program = start.task_wasm_image.as_ref().or(start.file.as_ref());
        program.filter(|_| start.has_control()).map(|program| Digest::of(program.as_bytes()))
    }

    /// What an update to a model of this schema holds.
    pub(crate) fn update_schema(&self, base: &Schema) -> Schema {
        update_schema(self.has_control(), base)
    }

    /// Why rounds like this cannot begin from `base`, if they have control variates.
    pub(crate) fn check_control(&self, base: &Base, len_max: usize) -> Result<(), String> {
        if !self.has_control() {
            return Ok(());
        }
        let refused = |why: String| format!("strategy {}: {why}", self.strategy.name);
        base.schema.with_control().map_err(refused)?;
        let schema = base.schema.control();
        // A number of JSON takes as many characters as it needs.
        let numbers = match base.form {
            Form::Json => schema.parameters() * JSON_NUMBER_LEN_MAX,
            Form::Safetensors => schema.byte_len(),
        };
        let mut len = numbers;
        if numbers <= len_max {
            let of = self.variate(zeros(&schema), self.id.clone(), base.form);
            len = match (base.form, of.write().map_err(refused)?.len()) {
                (Form::Json, others) => numbers + others,
                (Form::Safetensors, all) => all,
            };
        }
        if len <= len_max {
            return Ok(());
        }
        let what = format!("the control variate takes {len} bytes, one message at most {len_max}");
        Err(refused(what))
    }

    fn variate(&self, tensors: Tensors, series: RoundId, form: Form) -> RoundVariate {
        let (round_id, version) = (self.id.clone(), self.base.version);
        RoundVariate { round_id, series, version, tensors, form }
    }
}

/// Characters of the longest number that is written in JSON.
const JSON_NUMBER_LEN_MAX: usize = 24;

impl Job {
    /// What the values of each member fill: the schema of the model, and where the strategy has
    /// control variates, the change of each member's.
    pub fn member_schema(&self) -> Schema {
        update_schema(self.strategy.has_control(), &self.schema)
    }
}

impl Memory {
    /// The series to which what such a round left beside its base model belongs.
    fn series(&self, spec: &Spec) -> Option<&RoundId> {
        self.remembered(spec).and_then(|found| found.owner.series.as_ref())
    }
}

impl Round {
    /// The series that the round goes on with, or begins.
    pub(crate) fn series(&self, memory: &Memory) -> Option<RoundId> {
        let own = self.spec.has_control().then(|| self.spec.id.clone())?;
        Some(memory.series(&self.spec).cloned().unwrap_or(own))
    }

    /// What its participants are to be given; nothing before its base model is known.
    fn variate(&self, memory: &Memory) -> Option<Result<RoundVariate, String>> {
        let (base, series) = (self.base.as_ref()?, self.series(memory)?);
        let schema = base.schema.control();
        let state = memory.find(&self.spec);
        let tensors = match state.filter(|state| fits(state, &schema)).map(|state| &state.values) {
            None => Ok(zeros(&schema)),
            Some(Kept::Here(bytes)) => {
                Tensors::from_canonical(&schema, bytes).map_err(|why| why.to_string())
            }
            Some(Kept::Stored(blob)) => {
                Err(format!("the control variate of {} bytes does not fit one message", blob.bytes))
            }
        };
        Some(tensors.map(|tensors| self.spec.variate(tensors, series, base.form)))
    }
}

impl Rounds {
    /// Says the control variate of rounds that have just come to know their base model.
    pub(crate) fn attend_variates(&mut self, turn: &mut Turn) {
        let mut failed = vec![];
        for (id, round) in &self.open {
            if !round.spec.has_control() || !round.is_collecting() || self.told.contains(id) {
                continue;
            }
            match round.variate(&self.memory) {
                None => {}
                Some(Ok(variate)) => {
                    turn.publish(variate.seal());
                    self.told.insert(id.clone());
                }
                Some(Err(why)) => failed.push((id.clone(), why)),
            }
        }
        for (id, why) in failed {
            self.fail(&id, FailReason::BadStart, Some(why), turn);
        }
    }

    /// The round is over: nobody needs its control variate.
    pub(crate) fn withdraw_variate(&mut self, round: &Round, turn: &mut Turn) {
        self.told.remove(&round.spec.id);
        if round.spec.has_control() {
            turn.promise(variate_withdrawn(&round.spec.id));
        }
    }

    /// A round has failed whose participants have changed their control variates already: what it
    /// began from is no longer their sum, so the next one begins a series of its own. Not while
    /// another round goes on from the same.
    pub(crate) fn end_series(&mut self, failed: &RoundId, turn: &mut Turn) {
        let Some(round) = self.open.get(failed) else { return };
        if !round.spec.has_control() || round.counted.is_empty() {
            return;
        }
        let (base, id) = (round.spec.base.clone(), &round.spec.id);
        let mut others = self.open.values().filter(|other| other.spec.id != *id);
        if !others.any(|other| other.spec.base == base) {
            self.memory.forget(&base, turn);
        }
    }
}

fn update_schema(has_control: bool, base: &Schema) -> Schema {
    // A model that can have none was refused when it became known.
    let both = has_control.then(|| base.with_control().ok()).flatten();
    both.unwrap_or_else(|| base.clone())
}

fn fits(state: &State, schema: &Schema) -> bool {
    let len = match &state.values {
        Kept::Here(bytes) => bytes.len() == schema.byte_len(),
        Kept::Stored(_) => true,
    };
    len && state.vectors == [VECTOR]
}

fn zeros(schema: &Schema) -> Tensors {
    let bytes = vec![0; schema.byte_len()].into();
    Tensors::from_canonical(schema, &bytes).expect("as many bytes as it takes")
}
