//! The list of faults. One file each, one line in [`FAULTS`].
//!
//! A fault is data in a scenario; before the run begins it becomes a few [`Blow`]s at given times.

mod byzantine;
mod crash;
mod cut;
mod restart;
mod slow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Dice, Span};

pub use byzantine::{Behaviour, Byzantine};
pub use crash::Kill;
pub use cut::Cut;
pub use restart::Restart;
pub use slow::Slow;

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// A node's process dies, and comes back.
    Crash(Kill),
    /// The broker dies, and comes back.
    BrokerRestart(Restart),
    /// Some nodes cannot reach the rest.
    Partition(Cut),
    /// A node computes more slowly.
    Slow(Slow),
    /// Proplets lie.
    Byzantine(Byzantine),
}

/// What survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Memory {
    #[default]
    Kept,
    Lost,
}

/// One line of the list.
#[derive(Clone, Copy)]
pub struct FaultKind {
    pub name: &'static str,
    pub summary: &'static str,
    /// One that the platform has to survive, somewhere in the scope.
    pub draw: fn(&mut Dice, &Scope<'_>) -> Fault,
}

/// Every kind of fault that a swarm draws from.
pub const FAULTS: &[FaultKind] = &[
    FaultKind {
        name: "crash",
        summary: "a process dies and comes back with its state",
        draw: crash::draw,
    },
    FaultKind {
        name: "wipe",
        summary: "a proplet dies and comes back without its state",
        draw: crash::draw_wipe,
    },
    FaultKind {
        name: "amnesia",
        summary: "a service dies and comes back without its state",
        draw: crash::draw_amnesia,
    },
    FaultKind {
        name: "broker_restart",
        summary: "the broker dies and comes back",
        draw: restart::draw,
    },
    FaultKind { name: "partition", summary: "some nodes are cut off", draw: cut::draw },
    FaultKind { name: "slow", summary: "a proplet computes more slowly", draw: slow::draw },
    FaultKind { name: "byzantine", summary: "a proplet lies", draw: byzantine::draw },
];

/// What a fault may be drawn for.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub proplets: &'a [String],
    pub services: &'a [&'a str],
    /// When rounds are under way.
    pub until: Span,
}

impl Scope<'_> {
    fn moment(&self, dice: &mut Dice) -> Span {
        Span(dice.below(self.until.micros().max(1)))
    }

    fn proplet(&self, dice: &mut Dice) -> String {
        let at = usize::try_from(dice.below(self.proplets.len() as u64)).unwrap_or_default();
        self.proplets.get(at).cloned().unwrap_or_default()
    }

    fn service(&self, dice: &mut Dice) -> String {
        let at = usize::try_from(dice.below(self.services.len() as u64)).unwrap_or_default();
        self.services.get(at).map_or_else(|| self.proplet(dice), |service| (*service).to_owned())
    }

    fn anybody(&self, dice: &mut Dice) -> String {
        let at = usize::try_from(dice.below(self.services.len() as u64 + 1)).unwrap_or_default();
        match self.services.get(at) {
            Some(service) => (*service).to_owned(),
            None => self.proplet(dice),
        }
    }
}

/// What happens to the world at one time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Blow {
    /// The process of these nodes dies; whether the other end notices at once.
    Down {
        nodes: String,
        memory: Memory,
        silence: Silence,
    },
    Up {
        nodes: String,
    },
    BrokerDown {
        memory: Memory,
    },
    BrokerUp,
    /// Nothing passes between these nodes and the rest until then.
    Cut {
        nodes: Vec<String>,
        until_us: u64,
    },
    Pace {
        nodes: String,
        factor: f64,
    },
    Turn {
        nodes: String,
        behaviour: Option<Behaviour>,
        share: f64,
    },
}

/// Whether a connection's other end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// The operating system closes the connection.
    Told,
    /// The power is off: only the keep-alive will tell.
    Silent,
}

impl Fault {
    /// When what happens.
    pub(crate) fn blows(&self) -> Vec<(Span, Blow)> {
        match self {
            Self::Crash(kill) => kill.blows(),
            Self::BrokerRestart(restart) => restart.blows(),
            Self::Partition(cut) => cut.blows(),
            Self::Slow(slow) => slow.blows(),
            Self::Byzantine(byzantine) => byzantine.blows(),
        }
    }

    /// Properties that cannot be asked for once this has happened.
    pub fn excuses(&self) -> &'static [&'static str] {
        match self {
            Self::Crash(kill) => kill.excuses(),
            Self::BrokerRestart(_) | Self::Partition(_) | Self::Slow(_) | Self::Byzantine(_) => &[],
        }
    }

    /// Whether it can happen to a node whose behaviour is outside: its process is not the world's
    /// to end, only its links are.
    pub const fn reaches_outside(&self) -> bool {
        match self {
            Self::BrokerRestart(_) | Self::Partition(_) => true,
            Self::Crash(_) | Self::Slow(_) | Self::Byzantine(_) => false,
        }
    }

    /// The nodes that it names, as patterns.
    pub fn nodes(&self) -> Vec<&str> {
        match self {
            Self::Crash(kill) => vec![&kill.node],
            Self::BrokerRestart(_) => vec![],
            Self::Partition(cut) => cut.nodes.iter().map(String::as_str).collect(),
            Self::Slow(slow) => vec![&slow.node],
            Self::Byzantine(byzantine) => vec![&byzantine.nodes],
        }
    }
}

impl std::fmt::Debug for FaultKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
