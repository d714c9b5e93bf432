//! A process dies in an instant, and is started again later.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Blow, Fault, Memory, Scope, Silence};
use crate::{Dice, Span};

/// The death of a node's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    /// A name, or the start of names and a `*`.
    pub node: String,
    pub at: Span,
    /// Until it is started again; never, if nothing is said.
    #[serde(default)]
    pub down: Option<Span>,
    /// What is on its disk.
    #[serde(default)]
    pub state: Memory,
    /// The whole device loses power, so that nobody closes its connections.
    #[serde(default)]
    pub power: bool,
}

impl Kill {
    pub(super) fn blows(&self) -> Vec<(Span, Blow)> {
        let silence = if self.power { Silence::Silent } else { Silence::Told };
        let nodes = self.node.clone();
        let mut blows = vec![(self.at, Blow::Down { nodes, memory: self.state, silence })];
        if let Some(down) = self.down {
            let back = Span(self.at.0.saturating_add(down.0));
            blows.push((back, Blow::Up { nodes: self.node.clone() }));
        }
        blows
    }

    /// The manager's memory can be made up for. What the coordinator had counted, or the model
    /// server had stored, is nowhere else: a round that lost it can only be asked to end.
    pub(super) fn excuses(&self) -> &'static [&'static str] {
        let fits = |service: &str| crate::scenario::fits(&self.node, service);
        match self.state {
            Memory::Kept => &[],
            Memory::Lost if fits("model-server") => &["gapless", "ledger", "kept", "rounds_end"],
            Memory::Lost if fits("coordinator") => &["gapless", "ledger", "kept"],
            Memory::Lost => &[],
        }
    }
}

pub(super) fn draw(dice: &mut Dice, scope: &Scope<'_>) -> Fault {
    let node = scope.anybody(dice);
    let at = scope.moment(dice);
    let down = Some(Span(dice.between(1_000, 8_000_000)));
    Fault::Crash(Kill { node, at, down, state: Memory::Kept, power: dice.chance(0.3) })
}

pub(super) fn draw_wipe(dice: &mut Dice, scope: &Scope<'_>) -> Fault {
    let node = scope.proplet(dice);
    let at = scope.moment(dice);
    let down = Some(Span(dice.between(1_000, 8_000_000)));
    Fault::Crash(Kill { node, at, down, state: Memory::Lost, power: false })
}

pub(super) fn draw_amnesia(dice: &mut Dice, scope: &Scope<'_>) -> Fault {
    let node = scope.service(dice);
    let at = scope.moment(dice);
    let down = Some(Span(dice.between(1_000, 8_000_000)));
    Fault::Crash(Kill { node, at, down, state: Memory::Lost, power: dice.chance(0.3) })
}
