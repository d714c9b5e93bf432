//! Rounds with control variates: what their tasks are given beside the base model, and the state of
//! a guest, which is taken over when the update that it belongs to has counted.
//!
//! Until then the state of before stays, so that it does not matter what is killed when: an update
//! that is rejected, or never judged, changes nothing, and a verdict that is said again nothing
//! more.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use protocol::{Digest, RoundId, Topic, message::TaskStart};

use super::{Agent, Run};
use crate::{
    Effect, Failure, Need, Outcome, Residual, ResidualValues, Variates, purpose::Purpose,
    turn::Turn,
};

/// Words for a program that comes with the device.
const BUILTIN: &str = "builtin";

/// The server's control variate, as it was said.
#[derive(Debug)]
pub(super) struct Variate {
    /// The rounds to which it belongs: states of guests from others do not fit it.
    series: RoundId,
    payload: Bytes,
}

/// The state of a guest that runs.
#[derive(Debug)]
pub(super) struct Own {
    /// To whom it goes: the same workload on the same line of models.
    kind: String,
    /// The digest of the name of the series to which it belongs.
    series: Digest,
    /// What it has left.
    made: Option<Bytes>,
}

impl Agent {
    /// Whether the owner of the device lets guests leave anything.
    pub(super) fn grants_state(&self) -> Result<(), Failure> {
        if self.config.state_bytes_max > 0 {
            return Ok(());
        }
        let what = "the round needs a state of the guest, and this device lets guests keep none";
        Err(Failure::new("no_state", what))
    }

    /// Has the control variate of a round come, unless it is on its way.
    pub(super) fn seek_variate(&self, round: RoundId, turn: &mut Turn) -> Need {
        let need = Need::Variate(round.clone());
        if !self.awaits(&need) {
            turn.listen(Topic::RoundVariate { round });
        }
        need
    }

    /// Hands a control variate to whoever waits for it.
    pub(super) fn variate_heard(
        &mut self,
        round: RoundId,
        series: RoundId,
        payload: Bytes,
        turn: &mut Turn,
    ) {
        let need = Need::Variate(round.clone());
        if !self.listens_to(&need) {
            return;
        }
        turn.unlisten(Topic::RoundVariate { round });
        let variate = || Variate { series: series.clone(), payload: payload.clone() };
        self.supply(&need, |kit| kit.variate = Some(Box::new(variate())), turn);
    }

    /// What a guest is given, and where its state goes.
    pub(super) fn own(
        &self,
        start: &TaskStart,
        purpose: &Purpose,
        variate: Variate,
    ) -> (Box<Variates>, Box<Own>) {
        let line = purpose.model().map(|model| model.line.to_string()).unwrap_or_default();
        let kind = format!("{line}/{}", workload(start));
        let series = Digest::of(variate.series.as_str().as_bytes());
        let kept = self.states.of(&kind).filter(|kept| kept.schema == series);
        let state = kept.and_then(|kept| match kept.values {
            ResidualValues::Here(bytes) => Some(bytes),
            ResidualValues::Stored(_) => None,
        });
        let variates = Box::new(Variates { control: variate.payload, state });
        (variates, Box::new(Own { kind, series, made: None }))
    }

    /// Takes out of an outcome what the guest has left; one that should have and did not has failed.
    pub(super) fn take_state(&self, run: &mut Run, outcome: Outcome, turn: &mut Turn) -> Outcome {
        let Some(own) = &mut run.own else { return outcome };
        let (state, outcome) = match outcome {
            Outcome::Failed(failure) => return Outcome::Failed(failure),
            Outcome::Ok(mut output) => (output.state.take(), Outcome::Ok(output)),
            Outcome::Packed(mut packed) => (packed.state.take(), Outcome::Packed(packed)),
        };
        let max = self.config.state_bytes_max;
        let failure = match state {
            Some(state) if state.len() <= max => {
                own.made = Some(state);
                return outcome;
            }
            Some(state) => {
                let what = format!("a state of {} bytes, at most {max} are kept", state.len());
                Failure::new("state_too_large", what)
            }
            None => {
                let what = "the guest wrote no state, which a round with control variates needs";
                Failure::new("no_state", what)
            }
        };
        if let Outcome::Packed(packed) = &outcome {
            turn.effect(Effect::Drop(packed.blob.sha256()));
        }
        Outcome::Failed(failure)
    }

    /// Keeps a state beside its update; beside an earlier one to the same round the earlier stays.
    pub(super) fn await_verdict(&mut self, round: &RoundId, own: Own, turn: &mut Turn) {
        let Own { kind, series, made } = own;
        let Some(made) = made.filter(|_| !self.states.awaits(round)) else { return };
        let residual = Residual { schema: series, values: ResidualValues::Here(made) };
        for entry in self.states.wait(round.clone(), kind, residual) {
            turn.keep(|| entry);
        }
    }
}

/// Of the bytes that this text stands for, as where they come in pieces; what is no base64 does not
/// run.
fn digest_of(file: &str) -> Digest {
    let text = file.trim_ascii();
    STANDARD.decode(text).map_or_else(|_| Digest::of(text.as_bytes()), |bytes| Digest::of(&bytes))
}

/// What tells one program from another: its bytes, or where they come from.
fn workload(start: &TaskStart) -> String {
    let file = start.file.as_deref().filter(|file| !file.is_empty());
    let url = start.image_url.as_deref().filter(|url| !url.is_empty());
    match (file, &start.file_blob, url) {
        (Some(file), _, _) => digest_of(file).to_string(),
        (None, Some(blob), _) => blob.sha256().to_string(),
        (None, None, Some(url)) => Digest::of(url.as_bytes()).to_string(),
        (None, None, None) => BUILTIN.to_owned(),
    }
}
