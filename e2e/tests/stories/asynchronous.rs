//! A session that does not wait for the slow, over real processes, with everything killed at: what
//! was late counts in a later round, once, and each model holds what its round says.

use std::{collections::BTreeMap, time::Duration};

use e2e::{BrokerKind, Dice, Operator, StackPlan, Turn, Victim, say, versions_are_whole};
use protocol::{
    PropletId, RoundId, Tensors,
    ledger::{self, Claim, Standing},
    message::{RoundComplete, SessionState, UpdateAck, Verdict},
};
use serde_json::json;

use crate::{
    sessions::{ends, kill, reaches, rounds_of, spec},
    walk::publish,
};

const ROUNDS: u64 = 8;
const SESSION: &str = "s-async";
/// What the slow one takes for a task, and what the others do at least: it is late for the first round, and back before the
/// last has begun.
const SLOW_MS: u64 = 1_000;
const QUICK_MS: u64 = 200;

#[test]
fn who_is_slow_counts_later_and_once_whatever_is_killed() {
    let _turn = Turn::take();
    let mut dice = Dice::of_story("an asynchronous session");
    let plan = StackPlan::new(BrokerKind::Mosquitto, 3).with("PROPLET_ALIVE_INTERVAL_S", 1);
    let mut stack = plan.start();
    let operator = stack.operator();
    let mut start = spec(&plan.fleet, SESSION, ROUNDS, QUICK_MS);
    start["asynchronous"] = json!({"buffer": 2, "concurrency": 3, "staleness_max": 20});
    start["strategy"] = json!({"name": "fedbuff", "params": {"staleness_exponent": 0.0}});
    start["hyperparams"]["keep"] = json!(1.0);
    let slow = start["hyperparams"]["members"]["proplet-3"].as_array_mut().unwrap();
    slow.push(json!(SLOW_MS));
    start["retries"] = json!(1000);
    start["timeout_s"] = json!(20);
    publish(&stack, "fl/sessions/start", &start.to_string());
    for round in 1..=ROUNDS {
        reaches(&operator, SESSION, round);
        // The point in time is the subject here, not something to wait for.
        std::thread::sleep(Duration::from_millis(dice.below(2 * QUICK_MS)));
        match round {
            2 | 4 | 6 => kill(&mut stack, Victim::Coordinator),
            3 => kill(&mut stack, Victim::Manager),
            5 => kill(&mut stack, Victim::Broker),
            7 => {
                say("kill the slow proplet");
                stack.proplets[2].kill();
                stack.proplets[2].start_again();
            }
            _ => {}
        }
    }
    let status = ends(&operator, SESSION);
    assert_eq!((status.state, status.rounds_done), (SessionState::Complete, ROUNDS), "{status:?}");
    versions_are_whole(&operator, ROUNDS);
    let completed = completions(&operator);
    let late: usize = completed.values().map(|complete| complete.late).sum();
    say(&format!("{late} late updates count in {} rounds", completed.len()));
    assert!(late > 0, "the slow one is late, and counts: {completed:?}");
    for complete in completed.values() {
        judge(&operator, &plan.fleet, complete);
    }
    counts_are_those_that_were_accepted(&operator, &completed);
}

/// The rounds that made a model.
fn completions(operator: &Operator) -> BTreeMap<RoundId, RoundComplete> {
    let heard = operator.peer().all("fl/rounds/+/complete");
    let read = |payload: &[u8]| serde_json::from_slice::<RoundComplete>(payload).unwrap();
    heard.iter().map(|it| read(&it.payload)).map(|it| (it.round_id.clone(), it)).collect()
}

/// What the model adds to the one before is a one at the place of everybody that is named.
fn judge(operator: &Operator, fleet: &e2e::OneHotFleet, complete: &RoundComplete) {
    let version = complete.model_version.0;
    let after = operator.model(version).tensors;
    let before = operator.model(version - 1).tensors.flatten();
    let added: Vec<f64> = after.flatten().iter().zip(before).map(|(x, y)| x - y).collect();
    let added = Tensors::unflatten(&after.schema(), &added).unwrap();
    let named = |member: &PropletId| match complete.participants.contains(member) {
        true => Standing::Accepted,
        false => Standing::Refused,
    };
    let claim = Claim { num_updates: complete.num_updates, total_samples: complete.total_samples };
    let counted = ledger::check(&fleet.ledger(named), &added, claim);
    counted.unwrap_or_else(|wrong| panic!("version {version}: {wrong:?}\n{complete:?}"));
}

/// Each update that was accepted is in one model.
fn counts_are_those_that_were_accepted(
    operator: &Operator,
    completed: &BTreeMap<RoundId, RoundComplete>,
) {
    let mut accepted: BTreeMap<PropletId, Vec<String>> = BTreeMap::new();
    for start in rounds_of(operator, SESSION) {
        for member in &start.participants {
            let acks = operator.peer().all(&format!("fl/rounds/{}/acks/{member}", start.round_id));
            let read = |payload: &[u8]| UpdateAck::read(member.clone(), payload).unwrap().verdict;
            if acks.iter().any(|ack| read(&ack.payload) == Verdict::Accepted) {
                accepted.entry(member.clone()).or_default().push(start.round_id.to_string());
            }
        }
    }
    for (member, rounds) in accepted {
        let counted = completed.values().filter(|it| it.participants.contains(&member)).count();
        assert_eq!(counted, rounds.len(), "{member} was accepted for {rounds:?}");
    }
}
