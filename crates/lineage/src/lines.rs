//! All lines of models of one model server: each is a [`Lineage`] of its own, and none knows of the
//! others.

use std::collections::BTreeMap;

use protocol::{
    Entry, EntryError, Envelope, Filter, Input, Machine, ModelLine, ModelVersion, OpenError,
    Output, Timestamp, Topic,
};

use crate::{Effect, Lineage, News, Note, Offer, Refusal, Report, Rules};

/// Most lines; a further one is refused.
pub const LINES_MAX: usize = 1000;

/// News, an effect or a report, and the line that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfLine<T> {
    pub line: ModelLine,
    pub it: T,
}

/// The model server's core.
#[derive(Clone, Debug)]
pub struct Lines {
    rules: Rules,
    lines: BTreeMap<ModelLine, Lineage>,
    link: Link,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down,
    Up,
}

type Outputs = Vec<Output<OfLine<Effect>>>;

impl Lines {
    /// The default line begins with `initial`; others with what is published as their version 0.
    pub fn new(rules: Rules, initial: Offer) -> Self {
        let line = ModelLine::default();
        let lineage = Lineage::new(line.clone(), rules, Some(initial));
        Self { rules, lines: BTreeMap::from([(line, lineage)]), link: Link::Down }
    }

    fn hear(&mut self, news: OfLine<News>, now: Timestamp, out: &mut Outputs) {
        let OfLine { line, it } = news;
        if !self.lines.contains_key(&line) {
            let version = match &it {
                News::Publish(offer) => offer.version(),
                News::PublishBlob(blob) => blob.version,
                // Of a line that is not there, nothing is lacking, and no piece was asked for.
                News::Piece(_) | News::Wants(_) | News::Latest(_) => return,
            };
            let why = match version {
                ModelVersion(0) if self.lines.len() < LINES_MAX => None,
                ModelVersion(0) => Some(Refusal::TooManyLines),
                ModelVersion(_) => Some(Refusal::Gap { expected: ModelVersion(0) }),
            };
            if let Some(why) = why {
                let it = Effect::Note(Note::Refused { version, why });
                return out.push(Output::Effect(OfLine { line, it }));
            }
            self.open(line.clone());
            if self.link == Link::Up {
                self.step_one(&line, Input::Connected { resumed: false }, now, out);
            }
        }
        self.step_one(&line, Input::News(it), now, out);
    }

    fn open(&mut self, line: ModelLine) {
        let lineage = Lineage::new(line.clone(), self.rules, None);
        self.lines.insert(line, lineage);
    }

    fn step_one(
        &mut self,
        line: &ModelLine,
        input: Input<News, Report>,
        now: Timestamp,
        out: &mut Outputs,
    ) {
        if let Some(lineage) = self.lines.get_mut(line) {
            out.extend(lineage.step(input, now).into_iter().map(|output| of_line(line, output)));
        }
    }
}

impl Machine for Lines {
    type News = OfLine<News>;
    type Effect = OfLine<Effect>;
    type Report = OfLine<Report>;

    fn filters(&self) -> Vec<Filter> {
        vec![
            Filter::Exactly(Topic::ModelPublish { line: ModelLine::default() }),
            Filter::Exactly(Topic::ModelLatest { line: ModelLine::default() }),
            Filter::Exactly(Topic::ModelWants { line: ModelLine::default() }),
            Filter::AnyModelPublishChunk,
            Filter::AnyModelPublish,
            Filter::AnyModelLatest,
            Filter::AnyModelWants,
            Filter::AnyLinePublishChunk,
        ]
    }

    fn restore(&mut self, entries: Vec<Entry>) -> Result<(), EntryError> {
        let mut by_line: BTreeMap<ModelLine, Vec<Entry>> = BTreeMap::new();
        for mut entry in entries {
            let split = entry.key.split_once('/').map(|(line, key)| (line.parse(), key.to_owned()));
            match split {
                Some((Ok(line), key)) => {
                    entry.key = key;
                    by_line.entry(line).or_default().push(entry);
                }
                Some((Err(_), _)) | None => {
                    by_line.entry(ModelLine::default()).or_default().push(entry);
                }
            }
        }
        for (line, entries) in by_line {
            if !self.lines.contains_key(&line) {
                self.open(line.clone());
            }
            if let Some(lineage) = self.lines.get_mut(&line) {
                lineage.restore(entries)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, input: Input<Self::News, Self::Report>, now: Timestamp) -> Outputs {
        let mut out = vec![];
        match input {
            Input::News(news) => self.hear(news, now, &mut out),
            Input::Report(OfLine { line, it }) => {
                self.step_one(&line, Input::Report(it), now, &mut out);
            }
            Input::Connected { resumed } => {
                self.link = Link::Up;
                for line in self.lines.keys().cloned().collect::<Vec<_>>() {
                    self.step_one(&line, Input::Connected { resumed }, now, &mut out);
                }
            }
            Input::Tick => {
                let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
                let due = self.lines.iter().filter(|(_, lineage)| is_due(lineage.deadline()));
                for line in due.map(|(line, _)| line.clone()).collect::<Vec<_>>() {
                    self.step_one(&line, Input::Tick, now, &mut out);
                }
            }
        }
        out
    }

    fn disconnected(&mut self) {
        self.link = Link::Down;
        self.lines.values_mut().for_each(Lineage::disconnected);
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.lines.values().filter_map(Lineage::deadline).min()
    }
}

/// Lines keep their records apart; those of the default line have bare keys.
fn of_line(line: &ModelLine, output: Output<Effect>) -> Output<OfLine<Effect>> {
    match output {
        Output::Keep(entry) if line.is_default() => Output::Keep(entry),
        Output::Keep(Entry { table, key, value }) => {
            Output::Keep(Entry { table, key: format!("{line}/{key}"), value })
        }
        Output::Promise(envelope) => Output::Promise(envelope),
        Output::Publish(envelope) => Output::Publish(envelope),
        Output::Listen(filter) => Output::Listen(filter),
        Output::Unlisten(filter) => Output::Unlisten(filter),
        Output::Effect(it) => Output::Effect(OfLine { line: line.clone(), it }),
    }
}

impl TryFrom<Envelope> for OfLine<News> {
    type Error = OpenError;

    fn try_from(envelope: Envelope) -> Result<Self, OpenError> {
        let line = envelope.topic.line().cloned().unwrap_or_default();
        Ok(Self { line, it: News::try_from(envelope)? })
    }
}
