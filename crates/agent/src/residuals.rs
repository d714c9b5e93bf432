//! What updates leave for the next ones of their kind: what their encoding left out, or the state
//! of their guest. Kept with each update until its verdict, and for good only if that is `accepted`.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{Digest, Entry, EntryError, RoundId, message::Verdict};
use serde::{Deserialize, Serialize};

use crate::record::{RESIDUAL_VALUES, RESIDUALS, STATE_VALUES, STATES};

/// Residuals that are kept; the one used longest ago goes first.
const KEPT_MAX: usize = 4;

/// What an update left for the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residual {
    /// What it belongs to, of one that an encoding left out the digest of the model's schema: it is
    /// worth nothing to a model of another one.
    pub schema: Digest,
    pub values: ResidualValues,
}

/// Of what an encoding left out an F32 for each parameter, tensors in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResidualValues {
    Here(Bytes),
    /// A pinned blob.
    Stored(Digest),
}

/// All residuals of one kind on one device.
#[derive(Debug)]
pub(crate) struct Residuals {
    /// Where they are kept.
    tables: &'static Tables,
    /// Made when there is something to hold: most devices have nothing.
    held: Option<Box<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    /// By the line of models, and the encoding or the workload.
    kept: BTreeMap<String, Kept>,
    /// Of updates whose verdict has not been heard.
    waiting: BTreeMap<RoundId, Waiting>,
}

/// Of the records, and of values that are not in a blob.
#[derive(Clone, Copy, Debug)]
struct Tables {
    records: &'static str,
    values: &'static str,
}

#[derive(Debug)]
struct Kept {
    /// Higher is used later.
    sequence: u64,
    residual: Residual,
}

#[derive(Debug)]
struct Waiting {
    series: String,
    residual: Residual,
}

#[derive(Serialize, Deserialize)]
struct Record {
    series: String,
    /// Of one that waits for a verdict.
    round: Option<RoundId>,
    sequence: u64,
    schema: Digest,
    /// Where the values are a file of their own.
    blob: Option<Digest>,
}

impl Residual {
    const fn blob(&self) -> Option<Digest> {
        match &self.values {
            ResidualValues::Here(_) => None,
            ResidualValues::Stored(blob) => Some(*blob),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.values {
            ResidualValues::Here(bytes) => bytes.len(),
            ResidualValues::Stored(_) => 0,
        }
    }
}

impl Residuals {
    /// None yet of what encodings leave out.
    pub(crate) const fn of_encodings() -> Self {
        Self::kept_in(&Tables { records: RESIDUALS, values: RESIDUAL_VALUES })
    }

    /// None yet of the states of guests.
    pub(crate) const fn of_guests() -> Self {
        Self::kept_in(&Tables { records: STATES, values: STATE_VALUES })
    }

    const fn kept_in(tables: &'static Tables) -> Self {
        Self { tables, held: None }
    }

    fn held(&self) -> &Held {
        static NOTHING: Held = Held { kept: BTreeMap::new(), waiting: BTreeMap::new() };
        self.held.as_deref().unwrap_or(&NOTHING)
    }

    /// Whether it is kept among these.
    pub(crate) fn holds(&self, entry: &Entry) -> bool {
        [self.tables.records, self.tables.values].contains(&entry.table)
    }

    /// Whether an update to this round has left something, and waits for its verdict.
    pub(crate) fn awaits(&self, round: &RoundId) -> bool {
        self.held().waiting.contains_key(round)
    }

    /// What the last update of this series, a line of models in an encoding, that counted left out.
    pub(crate) fn of(&self, series: &str) -> Option<Residual> {
        self.held().kept.get(series).map(|kept| kept.residual.clone())
    }

    /// An update waits for its verdict, which left this out.
    pub(crate) fn wait(
        &mut self,
        round: RoundId,
        series: String,
        residual: Residual,
    ) -> Vec<Entry> {
        let record = record(&series, Some(round.clone()), 0, &residual);
        let entries = self.tables.put(&waiting_key(&round), &record, &residual);
        let held = self.held.get_or_insert_default();
        held.waiting.insert(round, Waiting { series, residual });
        entries
    }

    /// The verdict on the update to `round` was heard: what is to be kept and forgotten, and the
    /// blobs that nobody needs any more.
    pub(crate) fn judged(
        &mut self,
        round: &RoundId,
        verdict: Verdict,
    ) -> (Vec<Entry>, Vec<Digest>) {
        let waited = self.held.as_mut().and_then(|held| Some((held.waiting.remove(round)?, held)));
        let Some((Waiting { series, residual }, held)) = waited else { return (vec![], vec![]) };
        let mut entries = self.tables.forget(&waiting_key(round), &residual);
        let mut blobs = vec![];
        match verdict {
            Verdict::Rejected(_) => blobs.extend(residual.blob()),
            Verdict::Accepted => {
                let sequence = held.kept.values().map(|kept| kept.sequence).max().unwrap_or(0) + 1;
                let key = kept_key(&series);
                if let Some(before) = held.kept.remove(&series) {
                    entries.extend(self.tables.forget(&key, &before.residual));
                    blobs.extend(before.residual.blob());
                }
                let record = record(&series, None, sequence, &residual);
                entries.extend(self.tables.put(&key, &record, &residual));
                held.kept.insert(series, Kept { sequence, residual });
                let (gone, unused) = self.make_room();
                entries.extend(gone);
                blobs.extend(unused);
            }
        }
        (entries, blobs)
    }

    /// The blobs that are needed, each as often as it is.
    pub(crate) fn blobs(&self) -> Vec<Digest> {
        let Held { kept, waiting } = self.held();
        let kept = kept.values().map(|kept| &kept.residual);
        let waiting = waiting.values().map(|waiting| &waiting.residual);
        kept.chain(waiting).filter_map(Residual::blob).collect()
    }

    /// Bytes of those that wait, in memory.
    pub(crate) fn waiting_len(&self) -> usize {
        self.held().waiting.values().map(|waiting| waiting.residual.len()).sum()
    }

    /// Takes back what was kept.
    pub(crate) fn restore(&mut self, entries: Vec<Entry>) -> Result<(), EntryError> {
        let mut values = BTreeMap::new();
        let mut records = vec![];
        for entry in entries {
            if entry.table == self.tables.values {
                values.extend(entry.value.map(|bytes| (entry.key, bytes)));
            } else {
                records.extend(entry.read::<Record>()?.map(|record| (entry.key, record)));
            }
        }
        for (key, record) in records {
            let Record { series, round, sequence, schema, blob } = record;
            let here = values.remove(&key).map(|bytes| ResidualValues::Here(bytes.into()));
            let Some(values) = blob.map(ResidualValues::Stored).or(here) else { continue };
            let residual = Residual { schema, values };
            let held = self.held.get_or_insert_default();
            match round {
                Some(round) => drop(held.waiting.insert(round, Waiting { series, residual })),
                None => drop(held.kept.insert(series, Kept { sequence, residual })),
            }
        }
        Ok(())
    }

    fn make_room(&mut self) -> (Vec<Entry>, Option<Digest>) {
        let full = self.held.as_mut().filter(|held| held.kept.len() > KEPT_MAX);
        let oldest = full.and_then(|held| {
            let (series, _) = held.kept.iter().min_by_key(|(_, kept)| kept.sequence)?;
            let series = series.clone();
            held.kept.remove_entry(&series)
        });
        let Some((series, Kept { residual, .. })) = oldest else { return (vec![], None) };
        (self.tables.forget(&kept_key(&series), &residual), residual.blob())
    }
}

/// Neither kind of key begins like the other.
fn kept_key(series: &str) -> String {
    format!("kept/{series}")
}

fn waiting_key(round: &RoundId) -> String {
    format!("waiting/{round}")
}

fn record(series: &str, round: Option<RoundId>, sequence: u64, residual: &Residual) -> Record {
    let (series, schema, blob) = (series.to_owned(), residual.schema, residual.blob());
    Record { series, round, sequence, schema, blob }
}

impl Tables {
    fn put(self, key: &str, record: &Record, residual: &Residual) -> Vec<Entry> {
        let mut entries = vec![Entry::put(self.records, key, record)];
        if let ResidualValues::Here(bytes) = &residual.values {
            entries.push(Entry::put_bytes(self.values, key.to_owned(), bytes.to_vec()));
        }
        entries
    }

    fn forget(self, key: &str, residual: &Residual) -> Vec<Entry> {
        let mut entries = vec![Entry::forget(self.records, key)];
        if let ResidualValues::Here(_) = &residual.values {
            entries.push(Entry::forget(self.values, key));
        }
        entries
    }
}
