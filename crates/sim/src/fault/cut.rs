//! A partition: nothing passes between some nodes and the rest for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Blow, Fault, Scope};
use crate::{Dice, Span};

/// A partition with a start and an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// Names, or starts of names and a `*`.
    pub nodes: Vec<String>,
    pub from: Span,
    pub to: Span,
}

impl Cut {
    pub(super) fn blows(&self) -> Vec<(Span, Blow)> {
        vec![(self.from, Blow::Cut { nodes: self.nodes.clone(), until_us: self.to.micros() })]
    }
}

pub(super) fn draw(dice: &mut Dice, scope: &Scope<'_>) -> Fault {
    let from = scope.moment(dice);
    let to = Span(from.0 + dice.between(100_000, 60_000_000));
    let mut nodes = vec![scope.anybody(dice)];
    if dice.chance(0.5) {
        nodes.push(scope.proplet(dice));
    }
    Fault::Partition(Cut { nodes, from, to })
}
