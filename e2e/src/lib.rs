//! The harness of the end-to-end stories: real processes, real brokers, and an independent MQTT
//! client that watches, asks and judges. It knows the outside of the platform only.
//!
//! Everything here panics when the platform does not do what a story expects: what went wrong, what
//! was heard, and the ends of the processes' logs.

mod bridge;
mod broker;
mod clock;
mod collector;
mod dice;
mod fleet;
mod http;
mod invariants;
mod operator;
mod peer;
mod process;
mod program;
mod registry;
mod stack;
mod tap;
mod tools;
mod turn;

pub use bridge::{Bridge, Habits, Route, Side};
pub use broker::{Broker, BrokerKind};
pub use clock::{Deadline, PATIENCE, eventually};
pub use collector::{CollectedSpan, Collector, Manners};
pub use dice::Dice;
pub use fleet::OneHotFleet;
pub use http::{Answer, Http};
pub use invariants::{judge, versions_are_whole};
pub use operator::{Ended, Operator, RoundPlan};
pub use peer::{Cursor, Heard, Peer, PeerPlan};
pub use process::{Command, Process};
pub use program::{aileron, one_hot_base64};
pub use registry::{ImageRegistry, Visitors};
pub use stack::{Stack, StackPlan, Victim};
pub use tap::{Exchange, Tap, Way};
pub use tools::{free_port, say, tool};
pub use turn::Turn;
