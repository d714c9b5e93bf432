//! The whole world of one guest: clock, dice, files, streams and memory, all of its own.

use std::collections::BTreeMap;

use super::{
    super::{
        Failure, PATHS,
        wasm::{
            guest::Budget,
            stdio::{Capture, Log, Shared},
        },
    },
    VirtualJob,
    clock::Clock,
    dice::Dice,
    files::{Files, Place},
};

/// One unit of fuel is burnt for so many bytes that the host moves or makes for the guest: the
/// guest waits for them, and nothing is free of time.
const BYTES_PER_FUEL: u64 = 16;

/// What a guest of preview 1 has open.
#[derive(Clone, Copy, Debug)]
pub(super) enum Descriptor {
    Stdin,
    Stdout,
    Stderr,
    Dir { place: Place, preopen: Option<&'static str> },
    File(OpenFile),
}

/// A file with a position.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenFile {
    pub(super) place: Place,
    pub(super) position: u64,
    pub(super) append: bool,
    pub(super) read: bool,
    pub(super) write: bool,
}

/// The state of one run, inside its store.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) dice: Dice,
    pub(super) files: Shared<Files>,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) stdout: Shared<Capture>,
    pub(super) log: Shared<Log>,
    pub(super) budget: Budget,
    pub(super) descriptors: BTreeMap<u32, Descriptor>,
}

impl World {
    pub(super) fn new(job: &VirtualJob) -> Result<Self, Failure> {
        let limits = &job.limits;
        let files = Files::new(
            job.data.as_ref(),
            (job.model.as_ref(), job.variates.as_ref()),
            limits.update_bytes_max,
        );
        let mut args = vec![job.label.clone()];
        args.extend(job.args.iter().cloned());
        let descriptors = descriptors(&files);
        let env = environment(job, &files)?;
        Ok(Self {
            clock: Clock::new(job.start_us, job.rate, limits),
            dice: Dice::new(job.seed),
            files: Shared::new(files),
            args,
            env,
            stdout: Shared::new(Capture::new(limits.stdout_bytes_max)),
            log: Shared::new(Log::new(job.label.clone(), limits.stderr_bytes_max)),
            budget: Budget::new(limits.memory_bytes_max, limits.table_elements_max),
            descriptors,
        })
    }

    /// Burns fuel for bytes that the host moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.clock.burn(bytes as u64 / BYTES_PER_FUEL);
    }
}

/// As the live executor does it, in the same order.
fn environment(job: &VirtualJob, files: &Files) -> Result<Vec<(String, String)>, Failure> {
    let mut env = Vec::new();
    for (name, value) in &job.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Failure::Environment { name: name.clone() });
        }
        if !PATHS.contains(&name.as_str()) {
            env.push((name.clone(), value.clone()));
        }
    }
    env.extend(files.variables().iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Ok(env)
}

fn descriptors(files: &Files) -> BTreeMap<u32, Descriptor> {
    let stdio = [Descriptor::Stdin, Descriptor::Stdout, Descriptor::Stderr];
    let dirs = files.preopens().map(|(path, place)| Descriptor::Dir { place, preopen: Some(path) });
    (0..).zip(stdio.into_iter().chain(dirs)).collect()
}
