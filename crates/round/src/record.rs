//! The durable form of everything that a coordinator must not forget.

use std::collections::BTreeMap;

use protocol::{
    Digest, Entry, EntryError, Form, ModelLine, ModelUri, ModelVersion, PropletId, Rejection,
    RoundId, Schema, SessionId, Timestamp,
    message::{ClipSpec, Purpose, RoundComplete, RoundFailed, StrategySpec},
};
use serde::{Deserialize, Serialize};

use crate::{
    Base, Kept, StoredBlob,
    memory::{self, STATE, STATE_VALUES, StateRecord},
    opening::by_name,
    outcome::{Ending, Outcome},
    round::{Counted, MadeFor, Members, Phase, Publication, Round, Spec, Stream},
};

/// The tables of the coordinator's entries.
pub const TABLES: &[&str] =
    &[ROUND, BASE, COUNTED, UPDATE, ABSENT, MODEL, MADE, OUTCOME, STATE, STATE_VALUES];

pub(crate) const ROUND: &str = "round";
/// The numbers of the model that a round starts from, where it needs them.
pub(crate) const BASE: &str = "base";
/// Facts about a counted update, by round and proplet.
pub(crate) const COUNTED: &str = "counted";
/// The numbers of a counted update, by round and proplet.
pub(crate) const UPDATE: &str = "update";
pub(crate) const ABSENT: &str = "absent";
/// A model on its way to the model server, by round.
pub(crate) const MODEL: &str = "model";
pub(crate) const MADE: &str = "made";
pub(crate) const OUTCOME: &str = "outcome";
/// The key of the default line in [`MADE`]; others go by their names, which cannot hold a slash.
const MADE_KEY: &str = "version";

#[derive(Serialize, Deserialize)]
struct RoundRecord {
    id: RoundId,
    base: ModelUri,
    /// Nothing where members are taken as they come.
    members: Option<std::collections::BTreeSet<PropletId>>,
    k: usize,
    updates_min: usize,
    start: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strategy: Option<StrategySpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clip: Option<ClipSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share_max: Option<f64>,
    #[serde(default, skip_serializing_if = "Purpose::is_train")]
    purpose: Purpose,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoding: Option<String>,
    /// The session that asked for it, where the next field does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    /// The session whose late updates it takes, and how late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<(SessionId, u64)>,
    schema: Option<Schema>,
    #[serde(default)]
    form: Form,
    /// Where the numbers of the base model are a file of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_blob: Option<StoredBlob>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_sha256: Option<Digest>,
    opened_at: Timestamp,
    deadline: Timestamp,
    closed_at: Option<Timestamp>,
    rejected: BTreeMap<Rejection, u64>,
    phase: PhaseRecord,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum PhaseRecord {
    Collecting,
    Aggregating,
    Publishing(ModelVersion),
    Lingering,
}

#[derive(Serialize, Deserialize)]
struct CountedRecord {
    round: RoundId,
    proplet: PropletId,
    num_samples: u64,
    fingerprint: Digest,
    metrics: BTreeMap<String, f64>,
    /// Where the numbers are a file of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<StoredBlob>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_out: Option<Rejection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_for: Option<MadeFor>,
}

#[derive(Serialize, Deserialize)]
struct AbsentRecord {
    round: RoundId,
    proplet: PropletId,
}

#[derive(Serialize, Deserialize)]
struct OutcomeRecord {
    ordinal: u64,
    start: Option<Digest>,
    ending: EndingRecord,
    counted: BTreeMap<PropletId, Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
enum EndingRecord {
    Complete(RoundComplete),
    Failed(RoundFailed),
}

/// Everything read back.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) rounds: Vec<Round>,
    pub(crate) outcomes: Vec<(u64, Outcome)>,
    pub(crate) made: Vec<(ModelLine, ModelVersion)>,
    pub(crate) states: Vec<(ModelUri, memory::Remembered)>,
}

/// Neither id can hold a slash, so no two pairs share a key.
pub(crate) fn member_key(round: &RoundId, proplet: &PropletId) -> String {
    format!("{round}/{proplet}")
}

pub(crate) fn keep_round(round: &Round) -> Entry {
    let Spec {
        id,
        base,
        members,
        k,
        updates_min,
        start,
        strategy,
        clip,
        share_max,
        purpose,
        workload,
        encoding,
        session,
        stream,
    } = round.spec.clone();
    let members = match members {
        Members::Named(names) => Some(names),
        Members::AsTheyCome => None,
    };
    let phase = match &round.phase {
        Phase::Collecting => PhaseRecord::Collecting,
        Phase::Aggregating | Phase::Ready(..) => PhaseRecord::Aggregating,
        Phase::Publishing(publication) => PhaseRecord::Publishing(publication.uri.version),
        Phase::Lingering => PhaseRecord::Lingering,
    };
    let record = RoundRecord {
        id,
        base,
        members,
        k,
        updates_min,
        start,
        strategy: Some(strategy),
        clip,
        share_max,
        purpose,
        workload,
        encoding: encoding.map(|encoding| encoding.to_string()),
        session: session.filter(|_| stream.is_none()),
        stream: stream.map(|stream| (stream.session, stream.staleness_max)),
        schema: round.base.as_ref().map(|base| base.schema.clone()),
        form: round.base.as_ref().map_or(Form::Json, |base| base.form),
        base_blob: values(round).and_then(Kept::stored),
        base_sha256: round.base.as_ref().and_then(|base| base.sha256),
        opened_at: round.opened_at,
        deadline: round.deadline,
        closed_at: round.closed_at,
        rejected: round.rejected.clone(),
        phase,
    };
    Entry::put(ROUND, &round.spec.id, &record)
}

/// The numbers of the base model, if they are here, beside the round.
pub(crate) fn keep_base(round: &Round) -> Option<Entry> {
    match values(round)? {
        Kept::Here(bytes) => Some(Entry::put_bytes(BASE, &round.spec.id, bytes.to_vec())),
        Kept::Stored(_) => None,
    }
}

fn values(round: &Round) -> Option<&Kept> {
    round.base.as_ref()?.values.as_ref()
}

pub(crate) fn keep_counted(round: &RoundId, proplet: &PropletId, counted: &Counted) -> Entry {
    let record = CountedRecord {
        round: round.clone(),
        proplet: proplet.clone(),
        num_samples: counted.num_samples,
        fingerprint: counted.fingerprint,
        metrics: counted.metrics.clone(),
        blob: counted.values.as_ref().and_then(Kept::stored),
        left_out: counted.left_out,
        made_for: counted.made_for.clone(),
    };
    Entry::put(COUNTED, member_key(round, proplet), &record)
}

/// The numbers of a counted update that are held in memory.
pub(crate) fn keep_update(round: &RoundId, proplet: &PropletId, numbers: &[u8]) -> Entry {
    Entry::put_bytes(UPDATE, member_key(round, proplet), numbers.to_vec())
}

pub(crate) fn keep_absent(round: &RoundId, proplet: &PropletId) -> Entry {
    let record = AbsentRecord { round: round.clone(), proplet: proplet.clone() };
    Entry::put(ABSENT, member_key(round, proplet), &record)
}

/// The last version that was made on its line.
pub(crate) fn keep_made(uri: &ModelUri) -> Entry {
    let ModelUri { line, version } = uri;
    if line.is_default() {
        Entry::put(MADE, MADE_KEY, version)
    } else {
        Entry::put(MADE, format!("{MADE_KEY}/{line}"), version)
    }
}

fn made_line(key: &str) -> ModelLine {
    let name = key.split_once('/').and_then(|(_, name)| name.parse().ok());
    name.unwrap_or_default()
}

pub(crate) fn keep_outcome(ordinal: u64, outcome: &Outcome) -> Entry {
    let ending = match outcome.ending.clone() {
        Ending::Complete(complete) => EndingRecord::Complete(complete),
        Ending::Failed(failed) => EndingRecord::Failed(failed),
    };
    let counted = outcome.counted.iter().cloned().collect();
    let (start, digest) = (outcome.start, outcome.digest);
    let record = OutcomeRecord { ordinal, start, ending, counted, digest };
    Entry::put(OUTCOME, outcome.round(), &record)
}

/// The inverse of all of the above. Rounds that do not say how they are averaged are averaged by
/// `strategy`.
pub(crate) fn read(entries: Vec<Entry>, strategy: &str) -> Result<Remembered, EntryError> {
    let mut remembered = Remembered::default();
    let mut rounds: BTreeMap<RoundId, (Round, PhaseRecord)> = BTreeMap::new();
    let mut counted: Vec<CountedRecord> = vec![];
    let mut absent: Vec<AbsentRecord> = vec![];
    let mut states: Vec<StateRecord> = vec![];
    let mut raw: BTreeMap<(&str, String), Vec<u8>> = BTreeMap::new();
    for entry in entries {
        match entry.table {
            ROUND => rounds.extend(entry.read()?.map(|record| round(record, strategy))),
            COUNTED => counted.extend(entry.read::<CountedRecord>()?),
            ABSENT => absent.extend(entry.read::<AbsentRecord>()?),
            MADE => {
                let line = made_line(&entry.key);
                remembered.made.extend(entry.read()?.map(|version| (line, version)));
            }
            STATE => states.extend(entry.read::<StateRecord>()?),
            OUTCOME => remembered.outcomes.extend(entry.read()?.map(outcome)),
            table => {
                raw.extend(entry.value.map(|value| ((table, entry.key), value)));
            }
        }
    }
    for record in states {
        let here = raw.remove(&(STATE_VALUES, memory::key(&record.model)));
        remembered.states.extend(record.read(here));
    }
    for record in counted {
        let values = raw.remove(&(UPDATE, member_key(&record.round, &record.proplet)));
        let Some((round, phase)) = rounds.get_mut(&record.round) else { continue };
        let CountedRecord { proplet, num_samples, fingerprint, metrics, .. } = record;
        let (blob, left_out, made_for) = (record.blob, record.left_out, record.made_for);
        let here = values.map(|bytes| Kept::Here(bytes.into()));
        let values = here.or(blob.filter(|_| !phase.has_made()).map(Kept::Stored));
        let counted = Counted { num_samples, fingerprint, metrics, values, left_out, made_for };
        round.counted.insert(proplet, counted);
    }
    for AbsentRecord { round, proplet } in absent {
        if let Some((round, _)) = rounds.get_mut(&round) {
            round.absent.insert(proplet);
        }
    }
    for (id, (mut round, phase)) in rounds {
        if let (Some(base), Some(bytes)) = (&mut round.base, raw.remove(&(BASE, id.to_string()))) {
            base.values = Some(Kept::Here(bytes.into()));
        }
        round.phase = match phase {
            PhaseRecord::Collecting => Phase::Collecting,
            PhaseRecord::Aggregating => Phase::Aggregating,
            PhaseRecord::Publishing(version) => {
                let payload = raw.remove(&(MODEL, id.to_string()));
                let payload = payload.expect("a version is kept together with its model");
                let uri = ModelUri { line: round.spec.base.line.clone(), version };
                Phase::Publishing(Publication::read(uri, payload.into()))
            }
            PhaseRecord::Lingering => Phase::Lingering,
        };
        remembered.rounds.push(round);
    }
    Ok(remembered)
}

impl PhaseRecord {
    /// Whether the round's updates have been forgotten.
    const fn has_made(self) -> bool {
        match self {
            Self::Collecting | Self::Aggregating => false,
            Self::Publishing(_) | Self::Lingering => true,
        }
    }
}

fn round(record: RoundRecord, strategy: &str) -> (RoundId, (Round, PhaseRecord)) {
    let encoding = record.encoding.map(|text| text.parse().expect("what was kept is an encoding"));
    let id_of = record.id.clone();
    let of_stream = record.stream.as_ref().map(|(session, _)| session.clone());
    let spec = Spec {
        id: record.id,
        base: record.base,
        members: record.members.map_or(Members::AsTheyCome, Members::Named),
        k: record.k,
        updates_min: record.updates_min,
        start: record.start,
        strategy: record.strategy.unwrap_or_else(|| by_name(strategy)),
        clip: record.clip,
        share_max: record.share_max,
        purpose: record.purpose,
        workload: record.workload,
        encoding,
        session: record.session.or(of_stream),
        stream: record.stream.map(|(session, staleness_max)| Stream { session, staleness_max }),
    };
    let mut round = Round::open(spec, record.opened_at, record.deadline);
    let form = record.form;
    let values = record.base_blob.map(Kept::Stored);
    let sha256 = record.base_sha256;
    round.base = record.schema.map(|schema| Base { schema, form, values, sha256 });
    round.closed_at = record.closed_at;
    round.rejected = record.rejected;
    (id_of, (round, record.phase))
}

fn outcome(record: OutcomeRecord) -> (u64, Outcome) {
    let ending = match record.ending {
        EndingRecord::Complete(complete) => Ending::Complete(complete),
        EndingRecord::Failed(failed) => Ending::Failed(failed),
    };
    let OutcomeRecord { start, counted, digest, .. } = record;
    let outcome = Outcome { start, ending, counted: counted.into_iter().into(), digest };
    (record.ordinal, outcome)
}
