//! Remembers outcomes by what went into them: a job that was run once is not run again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use protocol::Digest;

use super::{super::Variates, Span, VirtualJob, VirtualOutcome, VirtualWasm};

/// When every remembered run starts, by its own clock: what is remembered must not depend on who
/// asked first. The first second of 2026.
const START_US: u64 = 1_767_225_600_000_000;
/// What an entry takes beside its bytes, roughly.
const ENTRY_BYTES: usize = 512;

/// Runs each job once, and remembers its outcome while there is room.
///
/// Two jobs are one if the guest would see the same: program, arguments, environment, model, data,
/// seed, speed and limits. The time of day is the exception: guests are told the same one always.
#[derive(Debug)]
pub struct Memo {
    wasm: Arc<VirtualWasm>,
    bytes_max: usize,
    // Jobs come from several threads; held for a look-up only, never for a run.
    shelf: Mutex<Shelf>,
}

/// An outcome that somebody is about to find out, or has.
type Slot = Arc<OnceLock<Arc<VirtualOutcome>>>;

#[derive(Debug, Default)]
struct Shelf {
    slots: BTreeMap<Digest, Entry>,
    uses: u64,
    runs: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    slot: Slot,
    used: u64,
    /// None: the run has not ended.
    bytes: Option<usize>,
}

impl Memo {
    /// Remembers up to so many bytes of outcomes; beyond, what was not asked for longest goes.
    pub fn new(wasm: Arc<VirtualWasm>, bytes_max: usize) -> Self {
        Self { wasm, bytes_max, shelf: Mutex::default() }
    }

    /// The outcome of the job. Who asks for one that is being run waits for it.
    pub fn run(&self, job: &VirtualJob) -> Arc<VirtualOutcome> {
        let key = key(job);
        let slot = self.shelf().slot(key);
        let mut ran = false;
        let outcome = slot.get_or_init(|| {
            ran = true;
            Arc::new(self.wasm.run(&VirtualJob { start_us: START_US, ..job.clone() }))
        });
        if ran {
            self.shelf().keep(key, size(outcome), self.bytes_max);
        }
        Arc::clone(outcome)
    }

    /// How many jobs were really run.
    pub fn runs(&self) -> u64 {
        self.shelf().runs
    }

    /// How many bytes of outcomes are remembered.
    pub fn bytes(&self) -> usize {
        self.shelf().bytes
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn slot(&mut self, key: Digest) -> Slot {
        self.uses += 1;
        let fresh = || Entry { slot: Slot::default(), used: 0, bytes: None };
        let entry = self.slots.entry(key).or_insert_with(fresh);
        entry.used = self.uses;
        Arc::clone(&entry.slot)
    }

    fn keep(&mut self, key: Digest, bytes: usize, bytes_max: usize) {
        self.runs += 1;
        if let Some(entry) = self.slots.get_mut(&key) {
            self.bytes += bytes - entry.bytes.replace(bytes).unwrap_or_default();
        }
        while self.bytes > bytes_max {
            let ended = self.slots.iter().filter_map(|(key, it)| Some((it.used, *key, it.bytes?)));
            let Some((_, oldest, bytes)) = ended.min() else { return };
            self.slots.remove(&oldest);
            self.bytes -= bytes;
        }
    }
}

fn size(outcome: &VirtualOutcome) -> usize {
    let output = outcome.end.as_ref().map_or(0, |output| {
        let files = [&output.update_file, &output.state].into_iter().flatten();
        output.stdout.len() + files.map(Vec::len).sum::<usize>()
    });
    let timeline = outcome.timeline.len() * size_of::<Span>();
    ENTRY_BYTES + output + timeline + outcome.stderr_tail.len()
}

/// A digest over all that makes an outcome. Each part is preceded by its length.
fn key(job: &VirtualJob) -> Digest {
    let VirtualJob {
        label,
        program,
        args,
        env,
        model,
        variates,
        data,
        start_us: _,
        seed,
        rate,
        limits,
    } = job;
    let mut parts: Vec<Vec<u8>> = vec![
        label.as_bytes().to_vec(),
        program.digest().to_string().into_bytes(),
        (args.len() as u64).to_le_bytes().to_vec(),
    ];
    parts.extend(args.iter().map(|arg| arg.as_bytes().to_vec()));
    parts.push((env.len() as u64).to_le_bytes().to_vec());
    for (name, value) in env {
        parts.extend([name.as_bytes().to_vec(), value.as_bytes().to_vec()]);
    }
    let model = model.as_ref().map(|model| Digest::of(model));
    let data = data.as_ref().map(super::DataSet::digest);
    // Numbers and digests; what `Debug` says of them is as exact as they are.
    let variates = variates.as_ref().map(|Variates { control, state }| {
        (Digest::of(control), state.as_ref().map(|state| Digest::of(state)))
    });
    let numbers = format!("{model:?} {variates:?} {data:?} {seed} {rate:?} {limits:?}");
    parts.push(numbers.into_bytes());
    let lengths: Vec<[u8; 8]> =
        parts.iter().map(|part| (part.len() as u64).to_le_bytes()).collect();
    Digest::of_parts(lengths.iter().zip(&parts).flat_map(|(length, part)| [&length[..], &part[..]]))
}
