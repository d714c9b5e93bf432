//! The operator: asks for rounds until it hears how they ended, and remembers all that was said.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use protocol::{
    Digest, Form, ModelVersion,
    message::{Model, ModelBlob, RoundComplete, is_blob_form},
    tensor::safetensors,
};
use serde_json::{Value, json};

use crate::{Cursor, Heard, OneHotFleet, Peer, one_hot_base64};

/// How often a start is said again; a broker that was killed may have forgotten it.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What to ask for.
#[derive(Clone, Debug)]
pub struct RoundPlan {
    pub id: String,
    pub base_version: u64,
    pub participants: Vec<String>,
    pub hyperparams: Value,
    pub k_of_n: usize,
    pub timeout_s: u64,
    /// The workload, base64; the built-in client if absent.
    pub file: Option<String>,
    /// The workload as an image in a registry, in place of `file`.
    pub image: Option<String>,
    /// How updates are to be written.
    pub encoding: Option<String>,
    /// The span below which it is asked for.
    pub traceparent: Option<String>,
}

/// How a round ended.
#[expect(clippy::large_enum_variant, reason = "a story has a handful of them")]
#[derive(Clone, Debug)]
pub enum Ended {
    Complete(RoundComplete),
    Failed(Value),
}

/// A peer that hears all of `fl/#` and `fml/#`, and repeats the start of the round that is open.
#[derive(Debug)]
pub struct Operator {
    peer: Arc<Peer>,
    said: Arc<Said>,
    repeater: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Said {
    /// The start to repeat; shared with the repeating thread.
    start: Mutex<Repeat>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Repeat {
    #[default]
    Nothing,
    Start(String),
    Leave,
}

impl RoundPlan {
    /// A round of the one-hot guest with every member of a fleet, all of whom must be heard.
    pub fn one_hot(fleet: &OneHotFleet, id: &str, base_version: u64) -> Self {
        Self {
            id: id.to_owned(),
            base_version,
            participants: fleet.members.iter().map(ToString::to_string).collect(),
            hyperparams: fleet.hyperparams(300),
            k_of_n: fleet.members.len(),
            timeout_s: 50,
            file: Some(one_hot_base64().to_owned()),
            image: None,
            encoding: None,
            traceparent: None,
        }
    }

    /// The address of its base model.
    pub fn model_uri(&self) -> String {
        format!("fl/models/global_model_v{}", self.base_version)
    }

    fn message(&self) -> String {
        let mut message = json!({
            "round_id": self.id, "model_uri": self.model_uri(),
            "participants": self.participants, "hyperparams": self.hyperparams,
            "k_of_n": self.k_of_n, "timeout_s": self.timeout_s,
        });
        if let Some(file) = self.file.as_ref().filter(|_| self.image.is_none()) {
            message["file"] = file.as_str().into();
        }
        if let Some(image) = &self.image {
            message["task_wasm_image"] = image.as_str().into();
        }
        if let Some(encoding) = &self.encoding {
            message["encoding"] = encoding.as_str().into();
        }
        if let Some(traceparent) = &self.traceparent {
            message["traceparent"] = traceparent.as_str().into();
        }
        message.to_string()
    }
}

impl Operator {
    /// Takes its place at the broker on `port`.
    #[track_caller]
    pub fn connect(port: u16) -> Self {
        let peer = Arc::new(Peer::connect(port, &["fl/#", "fml/#"]));
        let said = Arc::new(Said::default());
        let (mouth, mind) = (Arc::clone(&peer), Arc::clone(&said));
        let repeater = thread::spawn(move || repeat(&mouth, &mind));
        Self { peer, said, repeater: Some(repeater) }
    }

    /// What it hears.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Asks for a round, and goes on asking until [`Operator::wait_for_end`].
    pub fn start(&self, plan: &RoundPlan) -> Cursor {
        let cursor = self.peer.cursor();
        let message = plan.message();
        self.peer.publish("fl/rounds/start", message.clone());
        self.say(Repeat::Start(message));
        cursor
    }

    /// How the round ended.
    #[track_caller]
    pub fn wait_for_end(&self, round: &str) -> Ended {
        let (complete, failed) =
            (format!("fl/rounds/{round}/complete"), format!("fl/rounds/{round}/failed"));
        let what = format!("round {round} ends");
        let ended = self.peer.wait(&what, |heard| {
            heard.iter().find(|m| m.topic == complete || m.topic == failed).cloned()
        });
        self.say(Repeat::Nothing);
        if ended.topic == failed {
            return Ended::Failed(ended.json());
        }
        let read = serde_json::from_slice(&ended.payload);
        Ended::Complete(read.unwrap_or_else(|why| panic!("{complete}: {why}: {}", ended.text())))
    }

    /// Waits for the round's completion; any other end fails the story.
    #[track_caller]
    pub fn wait_for_complete(&self, round: &str) -> RoundComplete {
        match self.wait_for_end(round) {
            Ended::Complete(complete) => complete,
            Ended::Failed(failed) => panic!("round {round} failed: {failed}"),
        }
    }

    /// Starts a round and waits for its completion.
    #[track_caller]
    pub fn run(&self, plan: &RoundPlan) -> RoundComplete {
        self.start(plan);
        self.wait_for_complete(&plan.id)
    }

    /// The model on its retained topic.
    #[track_caller]
    pub fn model(&self, version: u64) -> Model {
        let heard = self.peer.wait_for(&format!("fl/models/global_model_v{version}"));
        if is_blob_form(&heard.payload) {
            return self.model_in_pieces(version, &heard);
        }
        Model::read(&heard.payload.clone().into())
            .unwrap_or_else(|why| panic!("model {version}: {why}: {}", heard.text()))
    }

    /// As anybody could put it together: the pieces in order, each held against the manifest.
    #[track_caller]
    fn model_in_pieces(&self, version: u64, heard: &Heard) -> Model {
        let read = serde_json::from_slice(&heard.payload);
        let ModelBlob { blob, .. } =
            read.unwrap_or_else(|why| panic!("model {version}: {why}: {}", heard.text()));
        let mut file = vec![];
        for index in 0..blob.count() {
            let topic = format!("fl/models/global_model_v{version}/chunks/{index}");
            let piece = self.peer.wait(&topic, |heard| {
                let mut heard = heard.iter().filter(|m| m.topic == topic && !m.payload.is_empty());
                heard.next().cloned()
            });
            assert_eq!(blob.check(index, &piece.payload), Ok(()), "{topic}");
            file.extend(piece.payload);
        }
        assert_eq!(Digest::of(&file), blob.sha256(), "model {version} as a whole");
        let read = safetensors::read(&file.into());
        let read = read.unwrap_or_else(|why| panic!("model {version}: {why}"));
        Model { version: ModelVersion(version), tensors: read.tensors, form: Form::Safetensors }
    }

    fn say(&self, repeat: Repeat) {
        *self.said.start.lock().unwrap_or_else(PoisonError::into_inner) = repeat;
        self.said.changed.notify_all();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.say(Repeat::Leave);
        if let Some(repeater) = self.repeater.take() {
            // A repeater that panicked has already said so.
            let _ = repeater.join();
        }
    }
}

fn repeat(peer: &Peer, said: &Said) {
    let mut start = said.start.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let (held, waited) =
            said.changed.wait_timeout(start, AGAIN_AFTER).unwrap_or_else(PoisonError::into_inner);
        start = held;
        match &*start {
            Repeat::Leave => return,
            Repeat::Start(message) if waited.timed_out() => {
                peer.publish("fl/rounds/start", message.clone());
            }
            Repeat::Start(_) | Repeat::Nothing => {}
        }
    }
}
