//! A node computes more slowly than its device should.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Blow, Fault, Scope};
use crate::{Dice, Span};

/// A slow time of some nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// A name, or the start of names and a `*`.
    pub node: String,
    #[serde(default)]
    pub from: Span,
    /// For ever, if nothing is said.
    #[serde(default)]
    pub to: Option<Span>,
    /// How many times longer a task takes that begins in this time.
    pub factor: f64,
}

impl Slow {
    pub(super) fn blows(&self) -> Vec<(Span, Blow)> {
        let pace = |factor| Blow::Pace { nodes: self.node.clone(), factor };
        let end = self.to.map(|to| (to, pace(1.0)));
        [(self.from, pace(self.factor))].into_iter().chain(end).collect()
    }
}

pub(super) fn draw(dice: &mut Dice, scope: &Scope<'_>) -> Fault {
    let node = scope.proplet(dice);
    let from = scope.moment(dice);
    let to = Some(Span(from.0 + dice.between(1_000_000, 20_000_000)));
    Fault::Slow(Slow { node, from, to, factor: dice.between(2, 200) as f64 })
}
