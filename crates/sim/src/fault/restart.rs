//! The broker dies, and is started again later, with or without what it knew.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Blow, Fault, Memory, Scope};
use crate::{Dice, Span};

/// A restart of the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    pub at: Span,
    #[serde(default = "down")]
    pub down: Span,
    /// Sessions, queues and retained messages.
    #[serde(default)]
    pub state: Memory,
}

fn down() -> Span {
    Span::secs(1)
}

impl Restart {
    pub(super) fn blows(&self) -> Vec<(Span, Blow)> {
        let back = Span(self.at.0.saturating_add(self.down.0));
        vec![(self.at, Blow::BrokerDown { memory: self.state }), (back, Blow::BrokerUp)]
    }
}

pub(super) fn draw(dice: &mut Dice, scope: &Scope<'_>) -> Fault {
    let at = scope.moment(dice);
    let down = Span(dice.between(1_000, 5_000_000));
    let state = if dice.chance(0.5) { Memory::Lost } else { Memory::Kept };
    Fault::BrokerRestart(Restart { at, down, state })
}
