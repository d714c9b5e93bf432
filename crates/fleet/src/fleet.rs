//! The manager as a machine: told the news and what callers ask, it answers with what is to be
//! done.

use std::{fmt::Debug, marker::PhantomData};

use protocol::{Entry, EntryError, Filter, Input, Machine, Output, Timestamp};

use crate::{Answer, Ask, Effect, Limits, News, Refusal, Report, Seeker, act::Acts, state::State};

pub use crate::record::TABLES;

/// The manager's core. `R` is how a caller is answered: the shell's business, handed through.
#[derive(Debug)]
pub struct Fleet<R> {
    state: State,
    replies: PhantomData<fn(R)>,
}

impl<R> Fleet<R> {
    /// A manager that knows nobody yet.
    pub fn new(limits: Limits) -> Self {
        Self { state: State::new(limits), replies: PhantomData }
    }

    /// Answers a caller, at once or when it is known which image to start.
    fn asked(&mut self, reply: R, ask: Ask, now: Timestamp, acts: &mut Acts) -> Effect<R> {
        match self.state.wanted_to_start(&ask) {
            Some((id, wanted)) => Effect::Find { wanted, seeker: Seeker::Start { id, reply } },
            None => {
                let answer = Box::new(self.state.answer(ask, now, acts));
                Effect::Reply { to: reply, answer }
            }
        }
    }

    /// Answers a question at once; what it changes is not done. For those who drive the machine
    /// themselves.
    pub fn look(&self, ask: &Ask) -> Option<Result<Answer, Refusal>> {
        self.state.look(ask)
    }
}

impl<R: Debug> Machine for Fleet<R> {
    type News = News;
    type Effect = Effect<R>;
    type Report = Report<R>;

    fn filters(&self) -> Vec<Filter> {
        News::filters()
    }

    fn restore(&mut self, entries: Vec<Entry>) -> Result<(), EntryError> {
        self.state.restore(entries)
    }

    fn step(&mut self, input: Input<News, Report<R>>, now: Timestamp) -> Vec<Output<Effect<R>>> {
        let mut acts = Acts::new();
        let mut reply = None;
        self.state.wake(now);
        match input {
            Input::News(news) => self.state.hear(news, now, &mut acts),
            Input::Report(Report::Asked { reply: to, ask }) => {
                reply = Some(Output::Effect(self.asked(to, ask, now, &mut acts)));
            }
            Input::Report(Report::Found { wanted, seeker, found }) => match seeker {
                Seeker::Round(round) => self.state.image_found(&round, found, now, &mut acts),
                Seeker::Start { id, reply: to } => {
                    let answer = self.state.start_found((&id, &wanted), found, now, &mut acts);
                    let answer = Box::new(answer);
                    reply = Some(Output::Effect(Effect::Reply { to, answer }));
                }
            },
            Input::Report(Report::Passed(piece)) => self.state.passed(piece, now, &mut acts),
            Input::Connected { resumed: true } => self.state.connected(now, &mut acts),
            Input::Connected { resumed: false } => self.state.connected_anew(now, &mut acts),
            Input::Tick => {}
        }
        self.state.catch_up(now, &mut acts);
        // In place: both have the same size.
        let mut outputs: Vec<_> = acts.into_iter().map(tell).collect();
        let passing = std::mem::take(&mut self.state.showing.passing);
        outputs.extend(passing.into_iter().map(|piece| Output::Effect(Effect::Pass(piece))));
        let asked = std::mem::take(&mut self.state.images.asked).into_iter();
        outputs.extend(asked.map(|(wanted, round)| {
            Output::Effect(Effect::Find { wanted, seeker: Seeker::Round(round) })
        }));
        outputs.extend(reply);
        outputs
    }

    fn disconnected(&mut self) {
        self.state.disconnected();
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.state.deadline()
    }
}

fn tell<R>(output: Output<crate::Notice>) -> Output<Effect<R>> {
    match output {
        Output::Keep(entry) => Output::Keep(entry),
        Output::Promise(envelope) => Output::Promise(envelope),
        Output::Publish(envelope) => Output::Publish(envelope),
        Output::Listen(filter) => Output::Listen(filter),
        Output::Unlisten(filter) => Output::Unlisten(filter),
        Output::Effect(notice) => Output::Effect(Effect::Tell(notice)),
    }
}
