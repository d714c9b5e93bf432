//! What holds whatever happens, in whatever order, with crashes in between.

use std::{collections::BTreeMap, time::Duration};

use agent::Report;
use proptest::prelude::*;
use protocol::{
    Input, Rejection, Topic,
    message::{TaskResults, Verdict},
};

use crate::device::{Device, failed, federated, plain, round_id, stop, update};

const CONCURRENCY: usize = 2;

#[derive(Clone, Debug)]
enum Event {
    Plain {
        task: u8,
        attempt: u32,
    },
    Federated {
        task: u8,
        attempt: u32,
        round: u8,
    },
    Stop {
        task: u8,
    },
    Model {
        version: u64,
    },
    /// Ends the nth run, one way or another.
    Finish {
        nth: usize,
        well: bool,
    },
    Verdict {
        round: u8,
        accepted: bool,
    },
    Wait {
        ms: u64,
    },
    Lost,
    Connect,
    Crash,
    Shutdown,
}

fn event() -> impl Strategy<Value = Event> {
    let task = 0..6_u8;
    let attempt = 0..3_u32;
    prop_oneof![
        3 => (task.clone(), attempt.clone())
            .prop_map(|(task, attempt)| Event::Plain { task, attempt }),
        4 => (task.clone(), attempt, 0..3_u8)
            .prop_map(|(task, attempt, round)| Event::Federated { task, attempt, round }),
        1 => task.prop_map(|task| Event::Stop { task }),
        3 => (0..3_u64).prop_map(|version| Event::Model { version }),
        6 => (0..4_usize, any::<bool>()).prop_map(|(nth, well)| Event::Finish { nth, well }),
        1 => (0..3_u8, any::<bool>())
            .prop_map(|(round, accepted)| Event::Verdict { round, accepted }),
        3 => (0..40_000_u64).prop_map(|ms| Event::Wait { ms }),
        1 => Just(Event::Lost),
        2 => Just(Event::Connect),
        1 => Just(Event::Crash),
        1 => Just(Event::Shutdown),
    ]
}

/// The device, and what its peers remember of it.
struct Story {
    device: Device,
    connections: u64,
    up: bool,
    closing: bool,
    /// The first result heard of each attempt.
    results: BTreeMap<(String, u32), TaskResults>,
    /// The update that waits for a verdict, by round, as first seen on disk or in the air.
    waiting: BTreeMap<u8, serde_json::Value>,
    /// Which round each federated attempt belongs to.
    rounds: BTreeMap<(String, u32), u8>,
}

impl Story {
    fn new() -> Self {
        let device = Device::new(|config| {
            config.concurrency = CONCURRENCY;
            config.tasks_queued_max = 3;
        });
        Self {
            device,
            connections: 0,
            up: false,
            closing: false,
            results: BTreeMap::new(),
            waiting: BTreeMap::new(),
            rounds: BTreeMap::new(),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Plain { task, attempt } if self.up => {
                // A task is of one kind: even ones are plain, odd ones federated.
                self.device.hear(&plain(&format!("t-{}", task / 2 * 2), attempt));
            }
            Event::Federated { task, attempt, round } if self.up => {
                let task = format!("t-{}", task / 2 * 2 + 1);
                let round = *self.rounds.entry((task.clone(), attempt)).or_insert(round);
                let version = u64::from(round);
                self.device.hear(&federated(&task, attempt, &format!("r-{round}"), version));
            }
            Event::Stop { task } if self.up => self.device.hear(&stop(&format!("t-{task}"))),
            Event::Model { version } if self.up => self.device.hear_model(version),
            Event::Verdict { round, accepted } if self.up => {
                let verdict = if accepted {
                    Verdict::Accepted
                } else {
                    Verdict::Rejected(Rejection::Stranger)
                };
                self.device.verdict(&format!("r-{round}"), verdict);
                self.waiting.remove(&round);
            }
            Event::Plain { .. }
            | Event::Federated { .. }
            | Event::Stop { .. }
            | Event::Model { .. }
            | Event::Verdict { .. } => {}
            Event::Finish { nth, well } => self.finish(nth, well),
            Event::Wait { ms } => self.device.wait(Duration::from_millis(ms)),
            Event::Lost => {
                self.up = false;
                let connection = self.connections;
                self.device.step(Input::Report(Report::Lost { connection }));
            }
            Event::Connect => self.connect(),
            Event::Crash => {
                self.listen();
                self.device.crash();
                (self.up, self.closing, self.connections) = (false, false, 0);
            }
            Event::Shutdown => {
                self.device.step(Input::Report(Report::Shutdown));
                self.closing = true;
            }
        }
        self.listen();
    }

    fn connect(&mut self) {
        self.listen();
        self.device.connect();
        self.up = true;
        self.connections += 1;
        if self.closing {
            return;
        }
        for (round, update) in &self.waiting {
            let said = self.device.take_updates(&format!("r-{round}"));
            assert_eq!(said.first(), Some(update), "what waits is said at every connect");
        }
    }

    fn finish(&mut self, nth: usize, well: bool) {
        let Some((task, attempt)) = self.device.runs.keys().nth(nth).cloned() else { return };
        let task = task.to_string();
        if !well {
            return self.device.finish(&task, attempt, failed("trap", "the guest trapped"));
        }
        let round = self.rounds.get(&(task.clone(), attempt)).copied();
        let stdout = match round {
            Some(round) => update(&format!("r-{round}"), u64::from(round))
                .replace("0.73", &format!("0.{attempt}")),
            None => format!("{attempt}"),
        };
        let kept = self.device.kept("updates");
        self.device.print(&task, attempt, &stdout);
        if let Some(round) = round.filter(|_| self.device.kept("updates") > kept) {
            let mut update: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
            update["proplet_id"] = "proplet-1".into();
            assert!(self.waiting.insert(round, update).is_none(), "it replaces none that waits");
        }
    }

    /// Checks what was said, and what holds at every moment.
    fn listen(&mut self) {
        for result in self.device.take_results() {
            let key = (result.task_id.to_string(), result.attempt.expect("it counts"));
            let first = self.results.entry(key).or_insert_with(|| result.clone());
            assert_eq!(*first, result, "a result never changes");
        }
        for round in 0..3 {
            let topic = Topic::RoundUpdate {
                round: round_id(&format!("r-{round}")),
                proplet: crate::device::me(),
            };
            for said in self.device.take::<serde_json::Value>(&topic) {
                let waiting = self.waiting.get(&round);
                assert_eq!(waiting, Some(&said), "only what waits for a verdict is said");
            }
        }
        self.device.said.clear();
        assert!(self.device.runs.len() <= CONCURRENCY, "{:?} run", self.device.runs.keys());
        assert!(self.device.agent.slots_taken() <= CONCURRENCY);
        assert_eq!(self.device.kept("updates"), self.waiting.len());
    }

    /// However it went, in the end everything that waits is said, judged and forgotten.
    fn end(mut self) {
        self.happen(Event::Crash);
        self.happen(Event::Connect);
        self.device.wait(Duration::from_secs(61));
        let rounds: Vec<u8> = self.waiting.keys().copied().collect();
        for round in &rounds {
            let said = self.device.take_updates(&format!("r-{round}"));
            assert!(said.len() >= 4, "it goes on saying it: {} times", said.len());
        }
        for round in rounds {
            self.happen(Event::Verdict { round, accepted: true });
        }
        assert_eq!((self.device.kept("updates"), self.device.kept("running")), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

    #[test]
    fn whatever_happens(events in prop::collection::vec(event(), 1..120)) {
        let mut story = Story::new();
        story.happen(Event::Connect);
        for event in events {
            story.happen(event);
        }
        story.end();
    }
}
