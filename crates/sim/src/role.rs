//! What a node is: one of the platform's cores with what its shell does beside, the operator of
//! the scenario, or a node outside.

mod coordinator;
mod library;
mod operator;
mod proplet;

use std::sync::Arc;

use agent::Variates;
use bytes::Bytes;
use fleet::Fleet;
use lineage::{Lines, OfLine};
use protocol::{
    Envelope, Filter, Input, OpenError, Records, TaskId, Timestamp, message::TaskStart,
};
use round::Rounds;
use session::Sessions;

use crate::{broker::Message, host::Host};

pub(crate) use self::{
    coordinator::Averaging,
    library::Library,
    operator::{End as OperatorEnd, Operator, Script, ScriptRound, ScriptSession},
    proplet::{Bench, last_will},
};

/// What follows from a step, in order.
pub(crate) type Acts = Vec<Act>;

/// One thing that a node does.
#[derive(Debug)]
pub(crate) enum Act {
    Promise(Envelope),
    Publish(Envelope),
    Listen(Filter),
    Unlisten(Filter),
    /// Run a task.
    Run {
        start: Box<TaskStart>,
        model: Option<Bytes>,
        variates: Option<Box<Variates>>,
    },
    Cancel {
        task: TaskId,
        attempt: u32,
    },
    /// Tell this node later.
    Tell {
        after_us: u64,
        mail: Box<Mail>,
    },
    Note(String),
}

/// What a node is told of its own effects.
#[derive(Debug)]
pub(crate) enum Mail {
    Agent(agent::Report),
    Round(Box<round::Report>),
    Lineage(OfLine<lineage::Report>),
}

/// What a node is told.
#[derive(Debug)]
pub(crate) enum Feed {
    Message(Arc<Message>),
    Mail(Box<Mail>),
    Connected { resumed: bool },
    Lost,
    Tick,
}

/// Whether notes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notes {
    Taken,
    Ignored,
}

/// What a node is; small itself, since nearly all of a hundred thousand are of one kind.
#[derive(Debug)]
pub(crate) enum Role {
    Broker,
    Manager {
        host: Box<Host<Fleet<()>>>,
        limits: Box<fleet::Limits>,
    },
    Coordinator {
        host: Box<Host<Rounds>>,
        rules: Box<round::Rules>,
        averaging: Averaging,
    },
    ModelServer {
        host: Box<Host<Lines>>,
        initial: Box<lineage::Offer>,
        library: Box<Library>,
    },
    Proplet(Box<Worker>),
    Operator(Box<Host<Operator>>),
    /// The coordinator's other half, a client of its own as in the service.
    Sessions(Box<Host<Sessions>>),
    Peer,
}

/// A proplet with what its shell does beside.
#[derive(Debug)]
pub(crate) struct Worker {
    host: Host<agent::Agent>,
    bench: Bench,
}

/// The longest model that the model server takes.
const LINEAGE: lineage::Rules =
    lineage::Rules { model_len_max: 256 << 20, message_len_max: 256 << 20, shown_max: 1 };

impl Role {
    pub(crate) fn manager(limits: fleet::Limits) -> Self {
        let host = Box::new(Host::new(Fleet::new(limits), limits.records));
        Self::Manager { host, limits: Box::new(limits) }
    }

    pub(crate) fn coordinator(rules: round::Rules, averaging: Averaging) -> Self {
        let host = Box::new(Host::new(Rounds::new(rules), rules.records));
        Self::Coordinator { host, rules: Box::new(rules), averaging }
    }

    pub(crate) fn model_server(
        initial: lineage::Offer,
        library: Library,
        records: Records,
    ) -> Self {
        let host = Box::new(Host::new(lineage(initial.clone()), records));
        Self::ModelServer { host, initial: Box::new(initial), library: Box::new(library) }
    }

    pub(crate) fn proplet(bench: Bench) -> Self {
        let host = Host::new(bench.agent(), bench.records());
        Self::Proplet(Box::new(Worker { host, bench }))
    }

    pub(crate) fn sessions(records: Records) -> Self {
        Self::Sessions(Box::new(Host::new(Sessions::default(), records)))
    }

    pub(crate) fn filters(&self) -> Vec<Filter> {
        match self {
            Self::Broker | Self::Peer => vec![],
            Self::Manager { host, .. } => host.filters(),
            Self::Coordinator { host, .. } => host.filters(),
            Self::ModelServer { host, .. } => host.filters(),
            Self::Proplet(worker) => worker.host.filters(),
            Self::Operator(host) => host.filters(),
            Self::Sessions(host) => host.filters(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Broker | Self::Peer => None,
            Self::Manager { host, .. } => host.deadline(),
            Self::Coordinator { host, .. } => host.deadline(),
            Self::ModelServer { host, .. } => host.deadline(),
            Self::Proplet(worker) => worker.host.deadline(),
            Self::Operator(host) => host.deadline(),
            Self::Sessions(host) => host.deadline(),
        }
    }

    /// The connection is gone: silence says nothing until the next one.
    fn disconnected(&mut self) {
        match self {
            Self::Broker | Self::Peer => {}
            Self::Manager { host, .. } => host.disconnected(),
            Self::Coordinator { host, .. } => host.disconnected(),
            Self::ModelServer { host, .. } => host.disconnected(),
            Self::Proplet(worker) => worker.host.disconnected(),
            Self::Operator(host) => host.disconnected(),
            Self::Sessions(host) => host.disconnected(),
        }
    }

    /// The process dies.
    pub(crate) fn die(&mut self) {
        match self {
            Self::Broker | Self::Peer => {}
            Self::Manager { host, .. } => host.die(),
            Self::Coordinator { host, .. } => host.die(),
            Self::ModelServer { host, .. } => host.die(),
            Self::Proplet(worker) => worker.host.die(),
            Self::Operator(host) => host.die(),
            Self::Sessions(host) => host.die(),
        }
    }

    /// What is on the disk is gone.
    pub(crate) fn wipe(&mut self) {
        match self {
            Self::Broker | Self::Peer | Self::Operator(_) => {}
            Self::Manager { host, .. } => host.wipe(),
            Self::Coordinator { host, .. } => host.wipe(),
            Self::ModelServer { host, library, .. } => {
                host.wipe();
                library.wipe();
            }
            Self::Proplet(worker) => worker.host.wipe(),
            Self::Sessions(host) => host.wipe(),
        }
    }

    /// The process is started again.
    pub(crate) fn revive(&mut self) {
        match self {
            Self::Broker | Self::Peer => {}
            Self::Manager { host, limits } => host.revive(Fleet::new(**limits)),
            Self::Coordinator { host, rules, .. } => host.revive(Rounds::new(**rules)),
            Self::ModelServer { host, initial, .. } => host.revive(lineage((**initial).clone())),
            Self::Proplet(worker) => {
                let Worker { host, bench } = &mut **worker;
                host.revive(bench.agent());
            }
            Self::Sessions(host) => host.revive(Sessions::default()),
            // The operator is a person: nobody crashes it.
            Self::Operator(_) => {}
        }
    }

    /// What the broker says in this node's name when it is gone.
    pub(crate) fn will(&self) -> Option<Envelope> {
        match self {
            Self::Proplet(worker) => Some(worker.bench.last_will()),
            Self::Broker
            | Self::Manager { .. }
            | Self::Coordinator { .. }
            | Self::ModelServer { .. }
            | Self::Operator(_)
            | Self::Sessions(_)
            | Self::Peer => None,
        }
    }

    /// Tells the node something; an error if it cannot read what it was sent.
    pub(crate) fn feed(
        &mut self,
        feed: Feed,
        now: Timestamp,
        notes: Notes,
        acts: &mut Acts,
    ) -> Result<(), OpenError> {
        if matches!(feed, Feed::Lost) {
            self.disconnected();
        }
        match self {
            Self::Broker | Self::Peer => {}
            Self::Manager { host, .. } => {
                let (feed, read) = read_ahead(feed);
                let read = read.map(|news| Input::News(*news));
                let Some(input) = read.map_or_else(|| input(feed, |_| None), |it| Ok(Some(it)))?
                else {
                    return Ok(());
                };
                host.step(input, now, acts, |effect, acts| match effect {
                    fleet::Effect::Tell(notice) => note(notes, acts, || notice.to_string()),
                    // Modules go whole here: nothing goes in pieces.
                    // Nor is there a registry, or a scenario that names one.
                    fleet::Effect::Reply { .. }
                    | fleet::Effect::Pass(_)
                    | fleet::Effect::Find { .. } => {}
                });
            }
            Self::Coordinator { host, averaging, .. } => {
                let mail = |mail| match mail {
                    Mail::Round(report) => Some(*report),
                    Mail::Agent(_) | Mail::Lineage(_) => None,
                };
                let Some(input) = input(feed, mail)? else { return Ok(()) };
                host.step(input, now, acts, |effect, acts| averaging.perform(effect, notes, acts));
            }
            Self::ModelServer { host, library, .. } => {
                let mail = |mail| match mail {
                    Mail::Lineage(report) => Some(report),
                    Mail::Agent(_) | Mail::Round(_) => None,
                };
                let Some(input) = input(feed, mail)? else { return Ok(()) };
                host.step(input, now, acts, |effect, acts| library.perform(effect, notes, acts));
            }
            Self::Proplet(worker) => {
                let Worker { host, bench } = &mut **worker;
                let agent = host.machine().filter(|_| matches!(feed, Feed::Lost));
                let lost =
                    agent.map(|agent| agent::Report::Lost { connection: agent.connections() });
                let mail = |mail| match mail {
                    Mail::Agent(report) => Some(report),
                    Mail::Round(_) | Mail::Lineage(_) => None,
                };
                let input = match lost {
                    Some(report) => Some(Input::Report(report)),
                    None => input(feed, mail)?,
                };
                let Some(input) = input else { return Ok(()) };
                host.step(input, now, acts, |effect, acts| bench.perform(effect, notes, acts));
            }
            Self::Operator(host) => {
                let Some(input) = input(feed, |_| None)? else { return Ok(()) };
                host.step(input, now, acts, |(), _| {});
            }
            Self::Sessions(host) => {
                let Some(input) = input(feed, |_| None)? else { return Ok(()) };
                host.step(input, now, acts, |effect, acts| match effect {
                    session::Effect::Note(said) => note(notes, acts, || format!("{said:?}")),
                    session::Effect::Show(_)
                    | session::Effect::Forget(_)
                    | session::Effect::Trim { .. }
                    | session::Effect::Answer { .. } => {}
                });
            }
        }
        Ok(())
    }
}

fn lineage(initial: lineage::Offer) -> Lines {
    Lines::new(LINEAGE, initial)
}

fn note(notes: Notes, acts: &mut Acts, text: impl FnOnce() -> String) {
    match notes {
        Notes::Taken => acts.push(Act::Note(text())),
        Notes::Ignored => {}
    }
}

/// What was read of a message before it came.
fn read_ahead(mut feed: Feed) -> (Feed, Option<Box<fleet::News>>) {
    let read = match &mut feed {
        Feed::Message(message) => Message::take_read(message),
        Feed::Mail(_) | Feed::Connected { .. } | Feed::Lost | Feed::Tick => None,
    };
    (feed, read)
}

/// The feed as a machine's input; `None` if it does not concern the machine.
fn input<N, R>(
    feed: Feed,
    read: impl FnOnce(Mail) -> Option<R>,
) -> Result<Option<Input<N, R>>, OpenError>
where
    N: TryFrom<Envelope, Error = OpenError>,
{
    Ok(match feed {
        Feed::Message(message) => match Message::envelope(message) {
            Some(envelope) => Some(Input::News(N::try_from(envelope)?)),
            None => None,
        },
        Feed::Mail(mail) => read(*mail).map(Input::Report),
        Feed::Connected { resumed } => Some(Input::Connected { resumed }),
        Feed::Lost => None,
        Feed::Tick => Some(Input::Tick),
    })
}
