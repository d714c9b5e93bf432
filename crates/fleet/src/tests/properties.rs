//! Whatever happens, in whatever order: a finished result stays, proplets and tasks agree on who
//! runs what, and what is on disk is what is known.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::{Input, Machine as _, TaskId, message::TaskState};
use serde_json::json;

use super::world::{World, federated, pinned, task};
use crate::{Ask, Edit, Limits, TaskView};

const PROPLETS: [&str; 3] = ["p0", "p1", "p2"];
const TASKS: [&str; 4] = ["t0", "t1", "t2", "t3"];

#[derive(Clone, Debug)]
enum Event {
    Create { on: usize, held: Vec<(usize, u32)> },
    CreateSilent { on: usize },
    Alive { on: usize, held: Vec<(usize, u32)> },
    AliveHonestly { on: usize },
    LastWill { on: usize },
    Make { task: usize, kind: usize },
    Start { task: usize },
    Stop { task: usize },
    Delete { task: usize },
    Report { task: usize, on: usize, attempt: Option<u32>, kind: usize },
    ReportRightly { task: usize, kind: usize },
    Round { id: usize },
    Forget { on: usize },
    Pass { tenths: u16 },
    Connected { resumed: bool },
    Disconnected,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let held = || prop::collection::vec((0..TASKS.len(), 0..4_u32), 0..3);
    let (on, id) = (0..PROPLETS.len(), 0..TASKS.len());
    prop_oneof![
        3 => (on.clone(), held()).prop_map(|(on, held)| Event::Create { on, held }),
        1 => on.clone().prop_map(|on| Event::CreateSilent { on }),
        2 => (on.clone(), held()).prop_map(|(on, held)| Event::Alive { on, held }),
        4 => on.clone().prop_map(|on| Event::AliveHonestly { on }),
        2 => on.clone().prop_map(|on| Event::LastWill { on }),
        4 => (id.clone(), 0..4_usize).prop_map(|(task, kind)| Event::Make { task, kind }),
        6 => id.clone().prop_map(|task| Event::Start { task }),
        1 => id.clone().prop_map(|task| Event::Stop { task }),
        1 => id.clone().prop_map(|task| Event::Delete { task }),
        3 => (id.clone(), on.clone(), prop::option::of(0..4_u32), 0..4_usize)
            .prop_map(|(task, on, attempt, kind)| Event::Report { task, on, attempt, kind }),
        4 => (id, 0..4_usize).prop_map(|(task, kind)| Event::ReportRightly { task, kind }),
        1 => (0..3_usize).prop_map(|id| Event::Round { id }),
        1 => on.prop_map(|on| Event::Forget { on }),
        4 => (1..400_u16).prop_map(|tenths| Event::Pass { tenths }),
        1 => any::<bool>().prop_map(|resumed| Event::Connected { resumed }),
        1 => Just(Event::Disconnected),
        1 => Just(Event::Restart),
    ]
}

fn said(kind: usize) -> serde_json::Value {
    match kind {
        0 => json!({"results": {"ok": true}}),
        1 => json!({"error": "failed"}),
        2 => json!({"error": "cut off", "code": "interrupted"}),
        _ => json!({"error": "stopped", "code": "cancelled"}),
    }
}

fn happen(world: &mut World, event: Event) {
    let ids = TASKS.map(task);
    let pairs = |held: &[(usize, u32)]| -> Vec<(TaskId, u32)> {
        held.iter().map(|(at, attempt)| (ids[*at].clone(), *attempt)).collect()
    };
    match event {
        Event::Create { on, held } => {
            let held = pairs(&held);
            let held: Vec<_> = held.iter().map(|(id, attempt)| (id, *attempt)).collect();
            world.create(PROPLETS[on], &held);
        }
        Event::CreateSilent { on } => world.create_with(PROPLETS[on], json!({}), None),
        Event::Alive { on, held } => {
            let held = pairs(&held);
            let held: Vec<_> = held.iter().map(|(id, attempt)| (id, *attempt)).collect();
            world.alive(PROPLETS[on], &held);
        }
        Event::AliveHonestly { on } => {
            let all = world.all();
            let here =
                all.iter().filter(|it| it.sent_to.iter().any(|p| p.as_str() == PROPLETS[on]));
            let held: Vec<_> = here.map(|it| (&it.id, it.attempt)).collect();
            world.alive(PROPLETS[on], &held);
        }
        Event::LastWill { on } => world.last_will(PROPLETS[on]),
        Event::Make { task, kind } => {
            let edit = match kind {
                0 => Edit::default(),
                1 => pinned("p1"),
                2 => federated("r9", "p2"),
                _ => Edit { broadcast: Some(true), ..Edit::default() },
            };
            let edit = Box::new(Edit { name: Some(TASKS[task].into()), ..edit });
            let _ = world.ask(Ask::CreateTask { id: ids[task].clone(), edit });
        }
        Event::Start { task } => drop(world.ask(Ask::StartTask(ids[task].clone()))),
        Event::Stop { task } => drop(world.ask(Ask::StopTask(ids[task].clone()))),
        Event::Delete { task } => drop(world.ask(Ask::DeleteTask(ids[task].clone()))),
        Event::Report { task, on, attempt, kind } => {
            world.report(&ids[task], PROPLETS[on], attempt, said(kind));
        }
        Event::ReportRightly { task, kind } => {
            let found = world.all().into_iter().find(|it| it.id == ids[task]);
            if let Some(on) = found.as_ref().and_then(|it| it.sent_to.last()) {
                world.report(
                    &ids[task],
                    on.as_str(),
                    found.as_ref().map(|it| it.attempt),
                    said(kind),
                );
            }
        }
        Event::Round { id } => world.start_round(&format!("r{id}"), &PROPLETS),
        Event::Forget { on } => drop(world.ask(Ask::ForgetProplet(PROPLETS[on].parse().unwrap()))),
        Event::Pass { tenths } => world.live(f64::from(tenths) / 10.0),
        Event::Connected { resumed } => drop(world.step(Input::Connected { resumed })),
        Event::Disconnected => world.fleet.disconnected(),
        Event::Restart => {
            world.restart();
            world.step(Input::Connected { resumed: true });
        }
    }
}

const fn is_final(view: &TaskView) -> bool {
    match view.state {
        TaskState::Completed | TaskState::Failed | TaskState::Skipped => true,
        TaskState::Interrupted => !view.waits,
        TaskState::Pending | TaskState::Scheduled | TaskState::Running => false,
    }
}

/// A finished attempt's result never changes, and attempts only grow.
fn check_history(before: &BTreeMap<TaskId, TaskView>, after: &[TaskView]) {
    for view in after {
        let Some(old) = before.get(&view.id).filter(|old| old.created_at == view.created_at) else {
            continue;
        };
        assert!(view.attempt >= old.attempt, "{old:?} -> {view:?}");
        if is_final(old) && view.attempt == old.attempt {
            assert_eq!(view, old);
        }
        assert!(view.attempt <= old.attempt + 2, "one event begins a run or two: {view:?}");
    }
}

/// Both sides agree on who runs what; nobody runs anything while offline; what runs once runs
/// only once.
fn check_agreement(world: &World, after: &[TaskView]) {
    let mut counted = 0;
    for name in PROPLETS {
        if let Some(Ok(crate::Answer::Proplet(view))) =
            world.fleet.look(&Ask::Proplet(name.parse().unwrap()))
        {
            counted += view.task_count;
            assert!(view.alive || view.task_count == 0, "{view:?}");
        }
    }
    let active = |it: &&TaskView| matches!(it.state, TaskState::Scheduled | TaskState::Running);
    let single: usize = after.iter().filter(active).filter(|it| !it.spec.is_broadcast()).count();
    for view in after.iter().filter(active).filter(|it| !it.spec.is_broadcast()) {
        assert_eq!(view.sent_to.len(), 1, "{view:?}");
        assert!(view.spec.pinned().is_none_or(|pin| *pin == view.sent_to[0]));
        assert!(view.attempt > 0);
    }
    assert!(!after.iter().any(|it| it.waits && it.spec.is_broadcast()), "it would wait for ever");
    let everywhere = after.iter().filter(active).filter(|it| it.spec.is_broadcast());
    let most: usize = everywhere.map(|it| it.sent_to.len()).sum();
    assert!(counted >= single && counted <= single + most, "{counted} {single} {most}");
    if most == 0 {
        assert_eq!(counted, single);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks(events in prop::collection::vec(event(), 1..80)) {
        let limits = Limits { federated_kept_max: 3, rounds_max: 2, ..Limits::default() };
        let mut world = World::with(limits);
        let mut before = BTreeMap::new();
        for event in events {
            world.live(0.1);
            let shown = format!("{event:?}");
            happen(&mut world, event);
            let after = world.all();
            check_history(&before, &after);
            check_agreement(&world, &after);
            // What is on disk is all that is known.
            let mut twin = World::with(limits);
            twin.store = world.store.clone();
            twin.restart();
            prop_assert_eq!(&twin.all(), &after, "after {}", shown);
            for name in PROPLETS {
                let ask = Ask::Proplet(name.parse().unwrap());
                let view = |world: &World| match world.fleet.look(&ask) {
                    Some(Ok(crate::Answer::Proplet(view))) => Some((view.alive, view.task_count)),
                    _ => None,
                };
                prop_assert_eq!(view(&twin), view(&world));
            }
            before = after.into_iter().map(|view| (view.id.clone(), view)).collect();
        }
    }
}
