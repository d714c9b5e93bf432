//! How many steps a second nodes make in lockstep over pipes: `lockstep [nodes] [steps] [node program ...]`.
//!
//! In each step all nodes are advanced by one millisecond, and each of them sends one event to the next. It is its own
//! janitor, and by default its own node.

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
            let own = [program.clone(), "node".to_owned()];
            let command = arguments.get(2..).filter(|c| !c.is_empty()).unwrap_or(&own);
            let mut own_janitor = Command::new(&program);
            own_janitor.arg("janitor");
            measure(nodes, steps, command, &Run::start(own_janitor)?)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is wall time")]
fn measure(nodes: u64, steps: u64, command: &[String], run: &Run) -> Result<(), Box<dyn Error>> {
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
            let next = names[(index + 1) % names.len()].clone();
            peer.begin(step * 1000, vec![event(step * 1000, next, names[index].clone())])?;
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
