//! A manager's core with a store and a clock, and everything that it said.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use protocol::{
    Entry, Envelope, Input, Letter, Machine as _, Output, PropletId, RoundId, TaskId, Timestamp,
    Topic,
    message::{
        AliveStatus, HeldTask, PropletAlive, PropletCreate, RoundAbsent, TaskResults, TaskStart,
        TaskState, TaskStop,
    },
};
use serde_json::{Value, json};

use crate::{
    Answer, Ask, Edit, Effect, Fleet, Limits, News, Notice, Piece, Refusal, Report, Seeker,
    TaskView, Wanted,
};

pub(super) type Asked = Result<Answer, Refusal>;

pub(super) struct World {
    pub(super) fleet: Fleet<u32>,
    pub(super) now: Timestamp,
    pub(super) store: BTreeMap<(&'static str, String), Vec<u8>>,
    pub(super) promised: Vec<Envelope>,
    pub(super) published: Vec<Envelope>,
    pub(super) notices: Vec<Notice>,
    /// Pieces that wait for room in the transport.
    pub(super) passing: Vec<Piece>,
    /// What a registry was to be asked.
    pub(super) asked: Vec<(Wanted, Seeker<u32>)>,
    limits: Limits,
}

pub(super) fn proplet(name: &str) -> PropletId {
    name.parse().unwrap()
}

pub(super) fn task(name: &str) -> TaskId {
    name.parse().unwrap()
}

pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(super) fn round_start(id: &str, participants: &[&str]) -> Value {
    json!({
        "round_id": id, "model_uri": protocol::ModelUri::global(protocol::ModelVersion(0)),
        "participants": participants, "hyperparams": {"lr": 0.10, "unknown": [1, null]},
        "k_of_n": 2, "timeout_s": 30,
    })
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    /// One that has been connected for so long that everybody has been heard.
    pub(super) fn with(limits: Limits) -> Self {
        let mut world = Self::fresh(limits);
        world.now = world.now + limits.settles_after;
        world
    }

    /// One that has just connected, and has heard nobody yet.
    pub(super) fn fresh(limits: Limits) -> Self {
        let now = Timestamp::from_micros(1_768_464_194_000_000 - 12_000_000);
        let mut world = Self {
            fleet: Fleet::new(limits),
            now,
            store: BTreeMap::new(),
            promised: vec![],
            published: vec![],
            notices: vec![],
            passing: vec![],
            asked: vec![],
            limits,
        };
        world.step(Input::Connected { resumed: false });
        world
    }

    /// `kill -9`, and a new process on the same disk.
    pub(super) fn restart(&mut self) {
        self.fleet = Fleet::new(self.limits);
        let entries = self.store.iter().map(|((table, key), value)| Entry {
            table,
            key: key.clone(),
            value: Some(value.clone()),
        });
        self.fleet.restore(entries.collect()).unwrap();
    }

    pub(super) fn step(&mut self, input: Input<News, Report<u32>>) -> Option<Asked> {
        let outputs = self.fleet.step(input, self.now);
        let mut answered = None;
        for output in outputs {
            match output {
                Output::Keep(Entry { table, key, value: Some(value) }) => {
                    self.store.insert((table, key), value);
                }
                Output::Keep(Entry { table, key, value: None }) => {
                    self.store.remove(&(table, key));
                }
                Output::Promise(envelope) => self.promised.push(envelope),
                Output::Publish(envelope) => self.published.push(envelope),
                Output::Effect(Effect::Tell(notice)) => self.notices.push(notice),
                Output::Effect(Effect::Pass(piece)) => self.passing.push(piece),
                Output::Effect(Effect::Find { wanted, seeker }) => {
                    self.asked.push((wanted, seeker))
                }
                Output::Effect(Effect::Reply { to: 7, answer }) => answered = Some(*answer),
                other @ (Output::Effect(Effect::Reply { .. })
                | Output::Listen(_)
                | Output::Unlisten(_)) => panic!("unexpected {other:?}"),
            }
        }
        answered
    }

    pub(super) fn pass(&mut self, seconds: f64) {
        self.now = self.now + Duration::from_secs_f64(seconds);
    }

    /// Lets time pass the way a driver does: with a tick at every deadline.
    pub(super) fn live(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while let Some(at) = self.fleet.deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.step(Input::Tick);
        }
        self.now = end;
    }

    pub(super) fn say(&mut self, topic: Topic, payload: impl Into<Bytes>) {
        let envelope = Envelope { topic, payload: payload.into() };
        self.step(Input::News(News::try_from(envelope).unwrap()));
    }

    pub(super) fn hear(&mut self, letter: &impl Letter) {
        let envelope = letter.seal();
        self.step(Input::News(News::try_from(envelope).unwrap()));
    }

    pub(super) fn start_round(&mut self, id: &str, participants: &[&str]) {
        self.say(Topic::RoundStart, round_start(id, participants).to_string());
    }

    pub(super) fn create(&mut self, name: &str, held: &[(&TaskId, u32)]) {
        self.create_with(name, json!({ "module_pieces": true }), Some(held));
    }

    pub(super) fn create_with(
        &mut self,
        name: &str,
        metadata: Value,
        held: Option<&[(&TaskId, u32)]>,
    ) {
        self.hear(&PropletCreate {
            proplet_id: proplet(name),
            namespace: "ns".into(),
            metadata: serde_json::from_value(metadata).unwrap(),
            tasks: held.map(holds),
        });
    }

    pub(super) fn alive(&mut self, name: &str, held: &[(&TaskId, u32)]) {
        let status = AliveStatus::Alive;
        self.hear(&PropletAlive {
            proplet_id: proplet(name),
            status,
            namespace: "ns".into(),
            tasks: Some(holds(held)),
        });
    }

    pub(super) fn last_will(&mut self, name: &str) {
        let status = AliveStatus::Offline;
        self.hear(&PropletAlive {
            proplet_id: proplet(name),
            status,
            namespace: String::new(),
            tasks: None,
        });
    }

    pub(super) fn report(&mut self, id: &TaskId, on: &str, attempt: Option<u32>, what: Value) {
        let mut given = json!({ "task_id": id, "proplet_id": on, "attempt": attempt });
        for (key, value) in what.as_object().unwrap() {
            given[key] = value.clone();
        }
        let results: TaskResults = serde_json::from_value(given).unwrap();
        self.hear(&results);
    }

    pub(super) fn ask(&mut self, ask: Ask) -> Asked {
        self.step(Input::Report(Report::Asked { reply: 7, ask }))
            .expect("every question is answered")
    }

    /// A task that somebody asked for.
    pub(super) fn make(&mut self, name: &str, edit: Edit) -> TaskId {
        let edit = Box::new(Edit { name: Some(name.into()), ..edit });
        self.ask(Ask::CreateTask { id: task(name), edit }).unwrap();
        task(name)
    }

    pub(super) fn start(&mut self, id: &TaskId) {
        self.ask(Ask::StartTask(id.clone())).unwrap();
    }

    pub(super) fn view(&self, id: &TaskId) -> TaskView {
        match self.fleet.look(&Ask::Task(id.clone())) {
            Some(Ok(Answer::Task(view))) => *view,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn state(&self, id: &TaskId) -> TaskState {
        self.view(id).state
    }

    pub(super) fn all(&self) -> Vec<TaskView> {
        let page = crate::Page { offset: 0, limit: usize::MAX };
        let ask = Ask::Tasks { page, filter: crate::TaskFilter::default() };
        match self.fleet.look(&ask) {
            Some(Ok(Answer::Tasks(page))) => page.items,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn proplet(&self, name: &str) -> crate::PropletView {
        match self.fleet.look(&Ask::Proplet(proplet(name))) {
            Some(Ok(Answer::Proplet(view))) => view,
            other => panic!("{other:?}"),
        }
    }

    /// Starts said since the last look: task, proplet, attempt.
    pub(super) fn starts(&mut self) -> Vec<(TaskId, Option<PropletId>, u32)> {
        let starts =
            self.taken(|topic| matches!(topic, Topic::TaskStart | Topic::DirectStart { .. }));
        let starts = starts.iter().map(|it| it.open::<TaskStart>().unwrap());
        starts.map(|start| (start.id, start.proplet_id, start.attempt)).collect()
    }

    pub(super) fn stops(&mut self) -> Vec<TaskStop> {
        let stops = self.taken(|topic| matches!(topic, Topic::TaskStop | Topic::DirectStop { .. }));
        stops.iter().map(|it| it.open().unwrap()).collect()
    }

    /// Absences promised since the last look.
    pub(super) fn absences(&mut self) -> Vec<RoundAbsent> {
        let all = std::mem::take(&mut self.promised);
        all.iter().map(|it| it.open().unwrap()).collect()
    }

    pub(super) fn taken(&mut self, which: impl Fn(&Topic) -> bool) -> Vec<Envelope> {
        let (taken, left) =
            std::mem::take(&mut self.published).into_iter().partition(|it| which(&it.topic));
        self.published = left;
        taken
    }
}

pub(super) fn pinned(name: &str) -> Edit {
    Edit { proplet: Some(Some(proplet(name))), ..Edit::default() }
}

pub(super) fn federated(round: &str, on: &str) -> Edit {
    let round: RoundId = round.parse().unwrap();
    let env = BTreeMap::from([("ROUND_ID".to_owned(), round.to_string())]);
    Edit { env: Some(env), ..pinned(on) }
}

fn holds(held: &[(&TaskId, u32)]) -> Vec<HeldTask> {
    held.iter().map(|(id, attempt)| HeldTask { id: (*id).clone(), attempt: *attempt }).collect()
}

impl World {
    pub(super) fn fleet_disconnected(&mut self) {
        self.fleet.disconnected();
    }

    pub(super) fn fleet_deadline(&self) -> Option<Timestamp> {
        self.fleet.deadline()
    }
}
