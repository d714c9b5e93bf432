//! What several stories need: where the examples are, a janitor, peers in a few words.

use std::{collections::BTreeSet, env, path::PathBuf, process::Command, sync::Arc, time::Duration};

use cosim::{
    channel::Channel,
    launch::{Launched, Run},
    peer::{Contact, Limits, NodePeer},
    wire::Dialect,
};
use serde_json::{Value, json};
use sim::{Done, Peer, PeerError, PeerEvent};

/// An example program, which cargo builds with the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let own = env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built: cargo build -p cosim --examples", path.display());
    path
}

pub(crate) fn start_run() -> Run {
    let mut janitor = Command::new(example("standalone"));
    janitor.arg("janitor");
    Run::start(janitor).unwrap()
}

/// The node `n` among `n`, `other` and `broker`.
pub(crate) fn contact(dialect: Dialect, silence: Duration) -> Contact {
    let known: BTreeSet<String> = ["n", "other", "broker"].map(str::to_owned).into();
    let limits = Limits { ready: silence, silence, farewell: Duration::from_secs(5) };
    Contact { node: "n".to_owned(), dialect, limits, known: Arc::new(known) }
}

/// Patience that no test comes to the end of, unless something is broken.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn meet(
    dialect: Dialect,
    launched: Launched,
    config: Value,
) -> Result<NodePeer, PeerError> {
    NodePeer::meet(contact(dialect, LONG), launched.channel, launched.keeper, 7, config)
}

pub(crate) fn meet_channel(dialect: Dialect, channel: Channel) -> Result<NodePeer, PeerError> {
    NodePeer::meet(contact(dialect, LONG), channel, None, 7, json!({}))
}

pub(crate) fn step(
    peer: &mut NodePeer,
    to_us: u64,
    events: Vec<PeerEvent>,
) -> Result<Done, PeerError> {
    peer.begin(to_us, events)?;
    peer.finish()
}

/// An event from `other` to `n`.
pub(crate) fn event(time_us: u64, kind: &str, payload: Value) -> PeerEvent {
    let (kind, src, dst) = (kind.to_owned(), "other".to_owned(), "n".to_owned());
    PeerEvent { time_us, kind, src, dst, payload, size_bytes: 10 }
}
