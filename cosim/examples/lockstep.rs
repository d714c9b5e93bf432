//! How many steps a second nodes make in lockstep over pipes: `lockstep [nodes] [steps] [ring|star] [node program ...]`.
//!
//! In each step all nodes are advanced by one millisecond, and each of them sends one event to the next; in a star all
//! send to the first, which answers all. It is its own janitor, and by default its own node.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    io::{Write, stdout},
    process::Command,
    sync::Arc,
    time::Instant,
};

use cosim::{
    launch::{ProcessNode, Run, janitor},
    node::{self, Service, Step, Window},
    peer::{Contact, Limits, NodePeer},
    wire::{Dialect, Event},
};
use serde_json::json;
use sim::{Peer, PeerEvent};

struct Ring;

impl Service for Ring {
    fn advance(&mut self, window: Window) -> Result<Step, String> {
        let back = |event: Event| Event { time_us: None, src: None, dst: event.src, ..event };
        Ok(Step { events: window.events.into_iter().map(back).collect(), next_us: None })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let program = env::current_exe()?.display().to_string();
    match arguments.first().map(String::as_str) {
        Some("janitor") => Ok(janitor(&arguments[1..])?),
        Some("node") => Ok(node::run(Ring)?),
        _ => {
            let nodes = arguments.first().map_or(Ok(10), |nodes| nodes.parse())?;
            let steps = arguments.get(1).map_or(Ok(20_000), |steps| steps.parse())?;
            let shape = arguments.get(2).map(String::as_str);
            let (shape, rest) = match shape {
                Some("star") => (Shape::Star, 3),
                Some("ring") => (Shape::Ring, 3),
                Some(_) | None => (Shape::Ring, 2),
            };
            let own = [program.clone(), "node".to_owned()];
            let command = arguments.get(rest..).filter(|c| !c.is_empty()).unwrap_or(&own);
            let mut own_janitor = Command::new(&program);
            own_janitor.arg("janitor");
            measure((nodes, steps, shape), command, &Run::start(own_janitor)?)
        }
    }
}

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Ring,
    Star,
}

impl Shape {
    /// Who sends to a node in each step.
    fn sources(self, index: usize, nodes: usize) -> Vec<usize> {
        match (self, index) {
            (Self::Ring, _) => vec![(index + 1) % nodes],
            (Self::Star, 0) => (1..nodes).collect(),
            (Self::Star, _) => vec![0],
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is wall time")]
fn measure(
    (nodes, steps, shape): (u64, u64, Shape),
    command: &[String],
    run: &Run,
) -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = (0..nodes).map(|index| format!("node-{index}")).collect();
    let known = Arc::new(names.iter().cloned().collect::<BTreeSet<_>>());
    let mut peers = vec![];
    for name in &names {
        let args: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        let launched = ProcessNode::new(name, &command[0], &args).start(run)?;
        let (node, dialect, limits) = (name.clone(), Dialect::Json, Limits::default());
        let contact = Contact { node, dialect, limits, known: known.clone() };
        peers.push(NodePeer::meet(contact, launched.channel, launched.keeper, 0, json!({}))?);
    }
    let begin = Instant::now();
    for step in 1..=steps {
        for (index, peer) in peers.iter_mut().enumerate() {
            let sources = shape.sources(index, names.len()).into_iter();
            let events = sources
                .map(|src| event(step * 1000, names[src].clone(), names[index].clone()))
                .collect();
            peer.begin(step * 1000, events)?;
        }
        for peer in &mut peers {
            peer.finish()?;
        }
    }
    let secs = begin.elapsed().as_secs_f64();
    for peer in &mut peers {
        peer.shutdown();
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
    let rate = steps as f64 / secs;
    Ok(writeln!(stdout(), "{nodes} nodes, {steps} steps: {rate:.0} steps/s")?)
}

fn event(time_us: u64, src: String, dst: String) -> PeerEvent {
    let kind = "ping".to_owned();
    PeerEvent { time_us, kind, src, dst, payload: json!({"n": time_us}), size_bytes: 8 }
}
