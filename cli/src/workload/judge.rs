//! A coordinator for one proplet, in memory: the very machine that runs rounds decides whether an
//! update would count, and averages it into the next model.

use std::collections::{BTreeMap, BTreeSet};

use aggregate::Work;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use protocol::{
    Digest, Envelope, Input, Letter as _, Machine as _, ModelUri, ModelVersion, Output, PropletId,
    RoundId, Timestamp, Topic,
    message::{Hyperparams, Model, ModelLatest, Origin, Purpose, RoundStart, Update, forward},
};
use round::{Effect, Job, News, Note, Report, Rounds, Rules, average};

const TIMEOUT_S: u64 = 3600;

/// What became of an update.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Judgement {
    /// It was counted; the model that follows.
    Accepted(Box<Model>),
    /// The word of the wire, and the reason in words.
    Rejected { reason: String, what: String },
}

/// A coordinator that knows one proplet.
#[derive(Debug)]
pub(crate) struct Coordinator {
    rounds: Rounds,
    proplet: PropletId,
}

/// What the machine wants and says, as far as it matters here.
#[derive(Debug, Default)]
struct Said {
    job: Option<Job>,
    published: Option<Bytes>,
    /// Why something was not taken.
    refused: Option<Judgement>,
    failed: Option<String>,
}

impl Coordinator {
    pub(crate) fn new(proplet: PropletId) -> Self {
        Self { rounds: Rounds::new(Rules::default()), proplet }
    }

    /// Opens a round on `base`; the update to it is judged next.
    pub(crate) fn open(&mut self, round: &RoundId, base: &Model) -> anyhow::Result<()> {
        let payload = base.write();
        let start = RoundStart {
            round_id: round.clone(),
            model_uri: ModelUri::global(base.version),
            task_wasm_image: None,
            file: None,
            participants: BTreeSet::from([self.proplet.clone()]),
            hyperparams: Hyperparams::default(),
            k_of_n: 1,
            timeout_s: TIMEOUT_S,
            min_updates: None,
            strategy: None,
            clip: None,
            share_max: None,
            env: BTreeMap::new(),
            session: None,
            encoding: None,
            purpose: Purpose::Train,
            staleness_max: None,
            traceparent: None,
        };
        self.tell(Input::Connected { resumed: false });
        self.hear(latest(base.version, &payload))?;
        self.hear(start.seal())?;
        let topic = Topic::Model { uri: ModelUri::global(base.version) };
        let said = self.hear(Envelope { topic, payload })?;
        match said.failed {
            None => Ok(()),
            Some(why) => bail!("the coordinator takes no round on this model: {why}"),
        }
    }

    /// Judges the update to the open round, and averages it if it counts.
    pub(crate) fn judge(&mut self, update: &Update) -> anyhow::Result<Judgement> {
        let origin =
            Origin { round_id: update.round_id.clone(), proplet_id: update.proplet_id.clone() };
        let payload = forward(&update.write(), &origin, Timestamp::ZERO);
        let said = self.hear(Envelope { topic: Topic::ForwardedUpdate, payload })?;
        if let Some(refused) = said.refused {
            return Ok(refused);
        }
        let job = said.job.context("the round did not close with its only update")?;
        let said = self.tell(Input::Report(average(&job, &Work::default())));
        if let Some(what) = said.failed {
            return Ok(Judgement::Rejected { reason: "aggregation".to_owned(), what });
        }
        let published = said.published.context("the round made no model")?;
        let model = Model::read(&published)?;
        self.hear(latest(model.version, &published))?;
        Ok(Judgement::Accepted(Box::new(model)))
    }

    fn hear(&mut self, envelope: Envelope) -> anyhow::Result<Said> {
        let news = News::try_from(envelope)?;
        Ok(self.tell(Input::News(news)))
    }

    fn tell(&mut self, input: Input<News, Report>) -> Said {
        let mut said = Said::default();
        for output in self.rounds.step(input, Timestamp::ZERO) {
            match output {
                Output::Publish(envelope) | Output::Promise(envelope)
                    if matches!(envelope.topic, Topic::ModelPublish { .. }) =>
                {
                    said.published = Some(envelope.payload);
                }
                Output::Effect(Effect::Aggregate(job)) => said.job = Some(job),
                Output::Effect(Effect::Note(note)) => said.note(note),
                Output::Publish(_)
                | Output::Promise(_)
                | Output::Keep(_)
                | Output::Listen(_)
                | Output::Unlisten(_)
                | Output::Effect(_) => {}
            }
        }
        said
    }
}

impl Said {
    fn note(&mut self, note: Note) {
        if let Note::Rejected { reason, what, .. } = note {
            self.refused = Some(Judgement::Rejected { reason: reason.to_string(), what });
        } else if let Note::StartRefused { what, .. } | Note::BadBase { what, .. } = note {
            self.failed = Some(what);
        } else if let Note::Failed { reason, error, .. } = note {
            self.failed = Some(error.unwrap_or_else(|| reason.to_string()));
        }
    }
}

fn latest(version: ModelVersion, payload: &Bytes) -> Envelope {
    let format = String::new();
    let (sha256, bytes) = (Digest::of(payload), payload.len() as u64);
    ModelLatest { version, topic: ModelUri::global(version), sha256, bytes, format }.seal()
}
