//! Nodes that are programs on this machine.

use std::{
    collections::BTreeMap,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use sim::ProcessSpec;

use super::{ENDPOINT_VARIABLE, Keeper, LaunchError, Launched, RUN_VARIABLE, Run};
use crate::channel::{Channel, ChannelError, Listener, Tail};

const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long a process whose pipes have ended may take to end itself.
const LAST_STEPS: Duration = Duration::from_millis(500);

/// The stream that orders take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Stdio,
    /// A Unix socket in the run's directory, named in the node's environment.
    Unix,
}

/// A program to start.
#[derive(Clone, Debug)]
pub struct ProcessNode {
    pub node: String,
    pub program: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub dir: Option<PathBuf>,
    pub via: Via,
    /// How long a socket is waited for.
    pub connect: Duration,
}

impl ProcessNode {
    /// A program that speaks on its pipes, without settings of its own.
    #[must_use]
    pub fn new(node: &str, program: &str, args: &[&str]) -> Self {
        Self {
            node: node.to_owned(),
            program: program.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: BTreeMap::new(),
            dir: None,
            via: Via::Stdio,
            connect: Duration::from_secs(10),
        }
    }

    /// The program that a scenario asks for.
    pub fn of(node: &str, spec: &ProcessSpec) -> Result<Self, LaunchError> {
        let node = node.to_owned();
        let Some((program, args)) = spec.command.split_first() else {
            return Err(LaunchError::NoCommand { node });
        };
        let via = match spec.channel.as_deref() {
            None | Some("stdio") => Via::Stdio,
            Some("unix") => Via::Unix,
            Some(found) => {
                return Err(LaunchError::UnknownChannel { node, found: found.to_owned() });
            }
        };
        Ok(Self {
            args: args.to_vec(),
            env: spec.environment.clone(),
            dir: spec.directory.as_ref().map(PathBuf::from),
            via,
            ..Self::new(&node, program, &[])
        })
    }

    /// Starts it in a process group of its own, with the mark of the run.
    pub fn start(&self, run: &Run) -> Result<Launched, LaunchError> {
        match self.via {
            Via::Stdio => {
                let (mut kept, _) = self.spawn(run, "stdio")?;
                let channel = Channel::of_child(&mut kept.child).map_err(|e| self.channel(e))?;
                Ok(Launched { channel, keeper: Some(Box::new(kept)) })
            }
            Via::Unix => self.start_with_socket(run),
        }
    }

    fn start_with_socket(&self, run: &Run) -> Result<Launched, LaunchError> {
        let path = run.dir().join(run.name());
        let listener = Listener::at(&path).map_err(|e| self.channel(e))?;
        let (mut kept, tail) = self.spawn(run, &format!("unix:{}", path.display()))?;
        kept.drain(&tail).map_err(|e| self.channel(e))?;
        match self.accept(&listener, &mut kept)? {
            Some(channel) => {
                Ok(Launched { channel: channel.with_tail(tail), keeper: Some(Box::new(kept)) })
            }
            None => {
                let fate = kept.fate().unwrap_or_default();
                let said = format!("; {fate} {}", tail.last_words());
                Err(LaunchError::NoConnection {
                    node: self.node.clone(),
                    limit: self.connect,
                    said,
                })
            }
        }
    }

    /// Waits for the node, but not longer than it lives.
    fn accept(&self, listener: &Listener, kept: &mut Kept) -> Result<Option<Channel>, LaunchError> {
        let turn = Duration::from_millis(50).min(self.connect);
        let mut left = self.connect;
        loop {
            if let Some(channel) = listener.accept(turn).map_err(|e| self.channel(e))? {
                return Ok(Some(channel));
            }
            left = left.saturating_sub(turn);
            if left.is_zero() || kept.ended().is_some() {
                return Ok(None);
            }
        }
    }

    pub(super) fn spawn(&self, run: &Run, endpoint: &str) -> Result<(Kept, Tail), LaunchError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            // What is hashed in Python must not differ from run to run.
            .env("PYTHONHASHSEED", "0")
            .envs(&self.env)
            .env(ENDPOINT_VARIABLE, endpoint)
            .env(RUN_VARIABLE, run.id())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let child = command.spawn().map_err(|source| LaunchError::Start {
            node: self.node.clone(),
            program: self.program.clone(),
            source,
        })?;
        Ok((Kept { child, status: None }, Tail::default()))
    }

    fn channel(&self, source: ChannelError) -> LaunchError {
        LaunchError::Channel { node: self.node.clone(), source }
    }
}

/// A child and its group; both end with it.
pub(super) struct Kept {
    child: Child,
    status: Option<ExitStatus>,
}

impl Kept {
    /// Takes what it says on its pipes as its last words.
    pub(super) fn drain(&mut self, tail: &Tail) -> Result<(), ChannelError> {
        if let Some(out) = self.child.stdout.take() {
            tail.drain(out)?;
        }
        if let Some(err) = self.child.stderr.take() {
            tail.drain(err)?;
        }
        Ok(())
    }

    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut left = limit;
        loop {
            let ended = self.ended();
            if ended.is_some() || left.is_zero() {
                return ended;
            }
            let pause = LOOK_EVERY.min(left);
            thread::sleep(pause);
            left -= pause;
        }
    }

    /// Ends the whole group. Its id stays taken as long as it has members, or its leader is not waited for.
    fn kill_group(&self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // A group without members is what we want.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Keeper for Kept {
    fn fate(&mut self) -> Option<String> {
        let status = self.wait(LAST_STEPS)?;
        Some(format!("its process has ended ({status})"))
    }

    fn stop(&mut self, grace: Duration) {
        if self.status.is_none() {
            // Some programs end at the end of their input, whatever the protocol says.
            drop(self.child.stdin.take());
            self.wait(grace);
        }
        self.kill_group();
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}
