//! A model that comes in pieces: one at a time, the next version.

use std::time::Duration;

use protocol::{
    Digest, Letter as _, Manifest, ModelLine, ModelVersion, Output, Timestamp,
    message::{ModelPublishWants, Wants},
};
use transfer::{Assembly, Bitmap, Failure, Refusal, Rules, Step, Way};

use crate::{Effect, Piece};

const RETRY: Duration = Duration::from_secs(2);

/// What is being fetched, if anything is.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    line: ModelLine,
    fetch: Option<Fetch>,
}

#[derive(Clone, Debug)]
struct Fetch {
    line: ModelLine,
    version: ModelVersion,
    assembly: Assembly,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The disk is to be looked at, at that time.
    BeginAt(Timestamp),
    Beginning,
    /// The pieces come.
    Fetching,
    /// They are all there; the whole is to be checked and put in its place, at that time.
    FinishAt(Timestamp),
    Finishing,
}

type Outputs = Vec<Output<Effect>>;

impl Incoming {
    pub(crate) const fn of(line: ModelLine) -> Self {
        Self { line, fetch: None }
    }

    pub(crate) fn start(&mut self, version: ModelVersion, manifest: Manifest) {
        let assembly = Assembly::new(manifest, Way::Pulled, Rules::default());
        let (line, stage) = (self.line.clone(), Stage::BeginAt(Timestamp::ZERO));
        self.fetch = Some(Fetch { line, version, assembly, stage });
    }

    /// The version that is being fetched, and its digest.
    pub(crate) fn expected(&self) -> Option<(ModelVersion, Digest)> {
        self.fetch.as_ref().map(|fetch| (fetch.version, fetch.assembly.manifest().sha256()))
    }

    /// The disk has been looked at.
    pub(crate) fn begun(
        &mut self,
        sha256: Digest,
        content: Result<Bitmap, String>,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Result<(), String> {
        let Some(fetch) = self.at(sha256, Stage::Beginning) else { return Ok(()) };
        match content {
            Ok(have) => {
                fetch.stage = Stage::Fetching;
                fetch.assembly.restore(&have);
                let steps = fetch.assembly.connected(now);
                fetch.obey(steps, now, out);
                Ok(())
            }
            Err(why) => {
                fetch.stage = Stage::BeginAt(now + RETRY);
                Err(why)
            }
        }
    }

    /// The connection is there again.
    pub(crate) fn connected(&mut self, now: Timestamp, out: &mut Outputs) {
        if let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.stage == Stage::Fetching) {
            let steps = fetch.assembly.connected(now);
            fetch.obey(steps, now, out);
        }
    }

    pub(crate) fn disconnected(&mut self) {
        if let Some(fetch) = &mut self.fetch {
            fetch.assembly.disconnected();
        }
    }

    pub(crate) fn piece(
        &mut self,
        piece: Piece,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Result<(), Refusal> {
        let fetch = self.fetch.as_mut().filter(|fetch| fetch.version == piece.version);
        let fetch = fetch.ok_or(Refusal::Unasked)?;
        let steps = fetch.assembly.chunk(piece.index, piece.bytes, now)?;
        fetch.obey(steps, now, out);
        Ok(())
    }

    /// A piece was written, or was not.
    pub(crate) fn stored(
        &mut self,
        sha256: Digest,
        result: Result<u32, (u32, String)>,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Result<(), String> {
        let Some(fetch) = self.at(sha256, Stage::Fetching) else { return Ok(()) };
        match result {
            Ok(index) => {
                let steps = fetch.assembly.stored(index, now);
                fetch.obey(steps, now, out);
                Ok(())
            }
            Err((index, why)) => {
                fetch.assembly.store_failed(index, now);
                Err(why)
            }
        }
    }

    /// The whole is in its place; what it is.
    pub(crate) fn finished(&mut self, version: ModelVersion) -> Option<Manifest> {
        let fetch = self.fetch.take_if(|fetch| fetch.version == version)?;
        Some(fetch.assembly.manifest().clone())
    }

    /// The disk did not take the whole; it will be asked again.
    pub(crate) fn finish_failed(&mut self, version: ModelVersion, now: Timestamp) {
        if let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.version == version) {
            fetch.stage = Stage::FinishAt(now + RETRY);
        }
    }

    /// What is due; if the transfer has failed, what it was and why.
    pub(crate) fn go_on(
        &mut self,
        now: Timestamp,
        out: &mut Outputs,
    ) -> Option<(ModelVersion, Failure)> {
        let fetch = self.fetch.as_mut()?;
        let manifest = fetch.assembly.manifest().clone();
        let steps = fetch.assembly.tick(now);
        let version = fetch.version;
        if let Some(Step::Failed { reason }) = steps.last() {
            let reason = *reason;
            self.fetch = None;
            out.push(Output::Effect(Effect::DropBlob { manifest }));
            return Some((version, reason));
        }
        fetch.obey(steps, now, out);
        match fetch.stage {
            Stage::BeginAt(at) if now >= at => {
                fetch.stage = Stage::Beginning;
                out.push(Output::Effect(Effect::BeginBlob { manifest }));
            }
            Stage::FinishAt(at) if now >= at => {
                fetch.stage = Stage::Finishing;
                out.push(Output::Effect(Effect::FinishBlob { version, manifest }));
            }
            Stage::BeginAt(_)
            | Stage::FinishAt(_)
            | Stage::Beginning
            | Stage::Fetching
            | Stage::Finishing => {}
        }
        None
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let fetch = self.fetch.as_ref()?;
        match fetch.stage {
            Stage::BeginAt(at) | Stage::FinishAt(at) => Some(at),
            Stage::Fetching => fetch.assembly.deadline(),
            Stage::Beginning | Stage::Finishing => None,
        }
    }

    fn at(&mut self, sha256: Digest, stage: Stage) -> Option<&mut Fetch> {
        let fetch = self.fetch.as_mut()?;
        (fetch.assembly.manifest().sha256() == sha256 && fetch.stage == stage).then_some(fetch)
    }
}

impl Fetch {
    fn obey(&mut self, steps: Vec<Step>, now: Timestamp, out: &mut Outputs) {
        for step in steps {
            let manifest = self.assembly.manifest();
            match step {
                Step::Ask(indexes) => {
                    let indexes = indexes.into_iter().collect();
                    let wants = Wants { sha256: manifest.sha256(), indexes };
                    let (line, version) = (self.line.clone(), self.version);
                    let wants = ModelPublishWants { line, version, wants };
                    out.push(Output::Publish(wants.seal()));
                }
                Step::Store { index, bytes } => {
                    let manifest = manifest.clone();
                    out.push(Output::Effect(Effect::StoreChunk { manifest, index, bytes }));
                }
                Step::Done => self.stage = Stage::FinishAt(now),
                Step::Subscribe(_) | Step::Unsubscribe(_) => {
                    unreachable!("a model on its way in is pulled")
                }
                Step::Failed { .. } => unreachable!("a transfer fails by the clock alone"),
            }
        }
    }
}
