//! Rounds of SCAFFOLD over real processes: every participant keeps a control variate between its
//! rounds, and whoever is killed, the models are the same to the last bit.

use std::{fmt::Write as _, fs, path::Path, thread, time::Duration};

use e2e::{
    BrokerKind, Dice, Operator, Peer, Stack, StackPlan, Turn, Victim, say, versions_are_whole,
};
use serde_json::{Value, json};

const PROPLETS: usize = 3;
const ROUNDS: u64 = 5;
const CREATE: &str = "m/demo/c/fl/control/proplet/create";
/// Longest draw between a round's start and a kill.
const DELAY_MS_MAX: u64 = 400;

#[test]
fn kills_change_no_byte_of_models_and_variates() {
    let _turn = Turn::take();
    let mut dice = Dice::of_story("scaffold, killed at");
    let quiet = models(|_, _, _, _| {});
    let killed = models(|stack, operator, round, watch| {
        let victim = if round % 2 == 0 { Victim::Coordinator } else { Victim::Proplet };
        match victim {
            // Killed before its update is kept, a proplet would be absent from the round.
            Victim::Proplet => {
                let topic = format!("fl/rounds/r-{round}/updates/proplet-1");
                operator.peer().wait_for(&topic);
            }
            Victim::Broker | Victim::Manager | Victim::Coordinator | Victim::ModelServer => {}
        }
        // The point in time is the subject here, not something to wait for.
        thread::sleep(Duration::from_millis(dice.below(DELAY_MS_MAX)));
        say(&format!("kill {victim:?} in round {round}"));
        let from = watch.cursor();
        stack.kill(victim);
        stack.start_again(victim);
        if victim == Victim::Proplet {
            watch.wait_after(from, CREATE, |_| true);
        }
    });
    assert_eq!(quiet, killed);
    // What is compared is SCAFFOLD: the variate is there, and it made a difference.
    let last: Value = serde_json::from_str(&quiet.last().unwrap().1).unwrap();
    assert!(last["b"].as_f64().unwrap().abs() > 1e-6, "{last}");
    assert_eq!(last["series"], "r-0", "{last}");
}

#[test]
fn a_device_that_lets_guests_keep_nothing_is_absent_and_the_round_goes_on() {
    let _turn = Turn::take();
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let plan = StackPlan::new(BrokerKind::Embedded, PROPLETS).with_data(dir.path());
    let mut stack = plan.start();
    let operator = stack.operator();
    let watch = Peer::connect(stack.field().port(), &[CREATE]);
    let from = watch.cursor();
    stack.proplets[2].kill();
    stack.proplets[2].set_env("PROPLET_STATE_BYTES_MAX", "0");
    stack.proplets[2].start_again();
    watch.wait_after(from, CREATE, |_| true);
    operator.peer().publish("fl/rounds/start", start("r-0", 0).to_string());
    let absent = operator.peer().wait_for("fl/rounds/r-0/absent").json();
    assert_eq!(absent["proplet_id"], "proplet-3", "{absent}");
    assert!(absent["error"].as_str().unwrap().contains("state"), "{absent}");
    assert_eq!(operator.wait_for_complete("r-0").num_updates, 2);
}

/// Each model, and the control variate that its round began with, as they were said.
fn models(mut at: impl FnMut(&mut Stack, &Operator, u64, &Peer)) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let plan = StackPlan::new(BrokerKind::Embedded, PROPLETS).with_data(dir.path());
    let mut stack = plan.with("PROPLET_ALIVE_INTERVAL_S", 1).start();
    let operator = stack.operator();
    let watch = Peer::connect(stack.field().port(), &[CREATE]);
    let mut all = vec![];
    for round in 0..ROUNDS {
        let id = format!("r-{round}");
        operator.peer().publish("fl/rounds/start", start(&id, round).to_string());
        at(&mut stack, &operator, round, &watch);
        let complete = operator.wait_for_complete(&id);
        assert_eq!(complete.num_updates, PROPLETS, "{complete:?}");
        let model = operator.peer().wait_for(&format!("fl/models/global_model_v{}", round + 1));
        let variate = operator.peer().wait_for(&format!("fl/rounds/{id}/variate"));
        all.push((model.text(), variate.text()));
    }
    versions_are_whole(&operator, ROUNDS);
    all
}

fn start(id: &str, base: u64) -> Value {
    let participants: Vec<String> = (1..=PROPLETS).map(|it| format!("proplet-{it}")).collect();
    json!({
        "round_id": id, "model_uri": format!("fl/models/global_model_v{base}"),
        "participants": participants, "k_of_n": PROPLETS, "timeout_s": 100,
        "strategy": {"name": "scaffold"},
        "hyperparams": {
            "model": "linear", "epochs": 3, "lr": 0.05, "batch_size": 4, "holdout": 0,
        },
    })
}

/// Rows of three numbers and what follows from them, for each proplet by another rule.
fn data(dir: &Path) {
    for member in 1..=PROPLETS {
        let own = dir.join(format!("proplet-{member}"));
        fs::create_dir(&own).unwrap();
        let mut rows = String::new();
        for row in 0..12 {
            let [a, b, c] = [1, 5, 7].map(|step| f64::from(row * step % 11) / 11.0 - 0.5);
            let y = (member as f64) * a - b + 0.5 * c + member as f64 / 3.0;
            writeln!(rows, "{a},{b},{c},{y}").unwrap();
        }
        fs::write(own.join("rows.csv"), rows).unwrap();
    }
}
