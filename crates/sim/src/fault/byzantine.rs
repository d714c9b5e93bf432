//! Proplets that lie in their updates: what they send is changed on its way out.

use bytes::Bytes;
use protocol::{
    Letter as _, ModelUri, ModelVersion, Tensor, Tensors,
    message::{Update, read_update},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Blow, Fault, Scope};
use crate::{Dice, Span};

/// Liars from some time on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Byzantine {
    /// A name, or the start of names and a `*`.
    pub nodes: String,
    /// The share of those nodes that lie, drawn by the seed; all by default.
    #[serde(default = "all")]
    pub share: f64,
    #[serde(default)]
    pub from: Span,
    #[serde(default)]
    pub to: Option<Span>,
    pub behaviour: Behaviour,
}

/// How a proplet lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Five times the opposite.
    SignFlip,
    /// Random numbers of a thousand times the usual size.
    Noise,
    /// A number that is none.
    Nan,
    /// Based on a model of long ago.
    Stale,
    /// A second, different update after the first.
    Duplicate,
}

const fn all() -> f64 {
    1.0
}

impl Byzantine {
    pub(super) fn blows(&self) -> Vec<(Span, Blow)> {
        let turn =
            |behaviour| Blow::Turn { nodes: self.nodes.clone(), behaviour, share: self.share };
        let end = self.to.map(|to| (to, turn(None)));
        [(self.from, turn(Some(self.behaviour)))].into_iter().chain(end).collect()
    }
}

/// Only lies that are found out: what is taken for the truth cannot be told from it.
pub(super) fn draw(dice: &mut Dice, scope: &Scope<'_>) -> Fault {
    let behaviour = if dice.chance(0.5) { Behaviour::Nan } else { Behaviour::Stale };
    let from = scope.moment(dice);
    Fault::Byzantine(Byzantine {
        nodes: scope.proplet(dice),
        share: 1.0,
        from,
        to: None,
        behaviour,
    })
}

impl Behaviour {
    /// What is sent in place of an honest update.
    pub(crate) fn lie(self, honest: &Bytes, dice: &mut Dice) -> Vec<Bytes> {
        let Ok(update) = read_update(honest, None) else { return vec![honest.clone()] };
        match self {
            Self::SignFlip => vec![changed(update, |value| -5.0 * value)],
            Self::Noise => vec![changed(update, |_| 2_000.0 * dice.unit() - 1_000.0)],
            Self::Nan => vec![not_a_number(honest)],
            Self::Stale => {
                let ModelVersion(base) = update.base_model_uri.version;
                // Version 0 has nothing before it: a base that does not exist is as stale.
                let base = base.checked_sub(1).unwrap_or(u64::from(u32::MAX));
                let base_model_uri = ModelUri::global(ModelVersion(base));
                vec![Update { base_model_uri, ..update }.seal().payload]
            }
            Self::Duplicate => vec![honest.clone(), changed(update, |value| value + 1.0)],
        }
    }
}

fn changed(update: Update, mut change: impl FnMut(f64) -> f64) -> Bytes {
    let tensors = update.update.iter().map(|(name, tensor)| {
        let values = tensor.to_f64().into_iter().map(&mut change).collect();
        let tensor = Tensor::new(tensor.shape().to_vec(), values);
        (name.to_owned(), tensor.expect("as many values as before"))
    });
    let update = Update { update: tensors.collect::<Tensors>(), ..update };
    update.seal().payload
}

/// Python's way of writing a number that is none, which JSON has no word for.
fn not_a_number(honest: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(honest).into_owned();
    let Some(at) = text.rfind("\"update\":{") else { return honest.clone() };
    let Some(colon) = text[at + 10..].find(':') else { return honest.clone() };
    let (before, rest) = text.split_at(at + 10 + colon + 1);
    let start = rest.find(|c: char| c != '[').unwrap_or_default();
    let end = rest[start..].find([',', ']', '}']).map_or(rest.len(), |len| start + len);
    format!("{before}{}NaN{}", &rest[..start], &rest[end..]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lie_is_another_update_and_is_read_as_what_it_is() {
        let tensor = |values: &[f64]| Tensor::new(vec![values.len()], values.to_vec()).unwrap();
        let tensors = [("b", Tensor::scalar(0.5)), ("w", tensor(&[1.0, 2.0]))];
        let honest = Update {
            round_id: "r".parse().unwrap(),
            proplet_id: "p".parse().unwrap(),
            base_model_uri: ModelUri::global(ModelVersion(3)),
            num_samples: 5,
            metrics: std::collections::BTreeMap::new(),
            update: tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into_iter().collect(),
            form: protocol::Form::Json,
        };
        let honest = honest.seal().payload;
        let mut dice = Dice::of(1, "p", "lies");
        let mut lie = |behaviour: Behaviour| behaviour.lie(&honest, &mut dice);
        let flipped = read_update(&lie(Behaviour::SignFlip)[0], None).unwrap();
        assert_eq!(flipped.update.flatten(), [-2.5, -5.0, -10.0]);
        let noise = read_update(&lie(Behaviour::Noise)[0], None).unwrap();
        assert_ne!(noise.update.flatten(), [0.5, 1.0, 2.0]);
        let stale = read_update(&lie(Behaviour::Stale)[0], None).unwrap();
        assert_eq!(stale.base_model_uri, ModelUri::global(ModelVersion(2)));
        let why = read_update(&lie(Behaviour::Nan)[0], None).unwrap_err();
        assert_eq!(why.reason, protocol::Rejection::NotFinite);
        let twice = lie(Behaviour::Duplicate);
        assert_eq!(twice.len(), 2);
        assert_eq!(twice[0], honest);
    }
}
