//! What goes with a new model: the strategy's state, and the members that it is not made of.

use protocol::{FailReason, ModelUri, Output};

use crate::{
    Beside, Effect, Note, Rounds,
    memory::{Owner, Remembered},
    record,
    round::Round,
    turn::Turn,
};

/// Where it is until the model has its version.
#[derive(Clone, Debug)]
pub(crate) enum Leaving {
    /// It has just been made.
    New(Beside),
    /// It is kept under a version that somebody else took.
    Under(ModelUri),
}

impl Leaving {
    /// Writes down which of the members the model is not made of.
    pub(crate) fn tell(&self, round: &mut Round, turn: &mut Turn) {
        let Self::New(Beside { left_out, .. }) = self else { return };
        let id = round.spec.id.clone();
        for (proplet, reason) in left_out {
            let Some(counted) = round.counted.get_mut(proplet) else { continue };
            counted.left_out = Some(*reason);
            *round.rejected.entry(*reason).or_default() += 1;
            turn.keep_with(|| record::keep_counted(&id, proplet, counted));
            let (round, proplet, reason) = (id.clone(), proplet.clone(), *reason);
            turn.note(Note::LeftOut { round, proplet, reason });
        }
    }

    /// The model that it goes with will never have a version.
    pub(crate) fn drop_blob(&self, turn: &mut Turn) {
        let Self::New(Beside { state: Some(state), .. }) = self else { return };
        turn.out.extend(state.blob().map(|blob| Output::Effect(Effect::Drop(blob))));
    }
}

impl Round {
    /// Whether what is left of the members is enough for a model.
    pub(crate) fn enough(&self, beside: &Beside) -> Result<(), (FailReason, String)> {
        let (all, least) = (self.counted.len(), self.spec.updates_min);
        let left = all.saturating_sub(beside.left_out.len());
        if left >= least {
            return Ok(());
        }
        let error = format!("{left} of {all} updates can be used, {least} are needed");
        Err((FailReason::TooFewUpdates, error))
    }
}

impl Rounds {
    /// Keeps the state beside the version that it belongs to.
    pub(crate) fn remember(
        &mut self,
        model: &ModelUri,
        leaving: Leaving,
        owner: Owner,
        turn: &mut Turn,
    ) {
        match leaving {
            Leaving::New(Beside { state: Some(state), .. }) => {
                self.memory.keep(model, Remembered { owner, state }, turn);
            }
            Leaving::New(Beside { state: None, .. }) => return,
            Leaving::Under(taken) => self.memory.move_to(&taken, model, turn),
        }
        let needed = self.open.values().map(|round| round.spec.base.clone());
        let needed = needed.chain([model.clone()]).collect();
        self.memory.trim(&needed, turn);
    }
}
