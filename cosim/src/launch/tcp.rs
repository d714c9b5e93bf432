//! Nodes that listen on TCP: started here, or by somebody else.

use std::{thread, time::Duration};

use sim::TcpSpec;

use super::{Keeper as _, LaunchError, Launched, ProcessNode, Run};
use crate::channel::{Channel, ChannelError, Tail};

/// What a node says on stderr, or stdout, before the address that it listens on.
const LISTENING: &str = "listening on ";
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Connects to a node, trying again until it listens or the limit is over.
pub fn connect(node: &str, address: &str, limit: Duration) -> Result<Launched, LaunchError> {
    let channel = Channel::to_tcp(address, limit).map_err(failed(node))?;
    Ok(Launched { channel, keeper: None })
}

impl ProcessNode {
    /// The program that listens at a spec's address.
    pub fn listening(node: &str, spec: &TcpSpec) -> Result<Self, LaunchError> {
        let Some((program, args)) = spec.command.split_first() else {
            return Err(LaunchError::NoCommand { node: node.to_owned() });
        };
        Ok(Self { args: args.to_vec(), ..Self::new(node, program, &[]) })
    }

    /// Starts it, and connects as soon as it listens.
    pub fn start_and_connect(&self, address: &str, run: &Run) -> Result<Launched, LaunchError> {
        let (mut kept, tail) = self.spawn(run, &format!("listen:{address}"))?;
        kept.drain(&tail).map_err(failed(&self.node))?;
        let mut left = self.connect;
        loop {
            match self.knock(address, &tail) {
                Ok(channel) => {
                    let channel = channel.with_tail(tail);
                    return Ok(Launched { channel, keeper: Some(Box::new(kept)) });
                }
                Err(error) if left.is_zero() || kept.ended().is_some() => {
                    let fate = kept.fate().unwrap_or_else(|| error.to_string());
                    let said = format!("; {fate} {}", tail.last_words());
                    let (node, limit) = (self.node.clone(), self.connect);
                    return Err(LaunchError::NoConnection { node, limit, said });
                }
                Err(_) => {
                    let pause = LOOK_EVERY.min(left);
                    thread::sleep(pause);
                    left -= pause;
                }
            }
        }
    }

    /// One attempt, at the address that is known or has been said by now.
    fn knock(&self, address: &str, tail: &Tail) -> Result<Channel, ChannelError> {
        if !address.ends_with(":0") {
            return Channel::to_tcp(address, Duration::ZERO);
        }
        let said = tail.text();
        let told = said.lines().find_map(|line| line.trim().strip_prefix(LISTENING));
        match told {
            Some(told) => Channel::to_tcp(told, Duration::ZERO),
            None => {
                let source = std::io::Error::other("it has not said where it listens");
                Err(ChannelError::Connect { address: address.to_owned(), source })
            }
        }
    }
}

fn failed(node: &str) -> impl FnOnce(ChannelError) -> LaunchError {
    let node = node.to_owned();
    |source| LaunchError::Channel { node, source }
}
