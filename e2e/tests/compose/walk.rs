//! From nothing to a trained model with one command, and everything that its reader is told to try then.

use std::fs;

use e2e::{
    Command, OneHotFleet, Operator, RoundPlan, Turn, eventually, judge, say, versions_are_whole,
};
use serde_json::{Value, json};

use crate::{
    engine::Engine,
    platform::{Platform, Reader, images},
};

const SERVICES: &[&str] =
    &["broker", "manager", "coordinator", "model-server", "proplet-1", "proplet-2", "proplet-3"];
const ROUNDS: u64 = 10;

#[test]
fn one_command_leads_to_a_trained_model_and_kills_lose_nothing() {
    let _turn = Turn::take();
    let Some(engine) = Engine::find() else { return };
    images(&engine);

    let platform = Platform::new(&engine, Reader::Program, "walk");
    platform.compose(&["up", "--detach", "--no-build"]);
    a_model_is_trained(&platform);
    everything_is_shut_in(&platform);
    a_round_is_started_with_mosquitto_pub(&platform);
    a_task_runs_over_http(&platform);
    a_second_up_trains_nothing(&platform);
    more_proplets_join(&platform);
    platform.down();

    let platform =
        Platform::new(&engine, Reader::newest(), "ledger").with("AILERON_MODEL_FILE", "");
    the_ledger_is_whole(&platform);
    platform.down();
}

fn a_model_is_trained(platform: &Platform<'_>) {
    let format = "{{.State.Status}} {{.State.ExitCode}}";
    let ended = eventually("the training ends", || {
        let state = platform.inspect("train", format);
        state.starts_with("exited").then_some(state)
    });
    let log = platform.compose(&["logs", "--no-color", "train"]);
    assert_eq!(ended, "exited 0", "{log}");
    assert!(log.contains(&format!("Complete  round {ROUNDS} of {ROUNDS}")), "{log}");
    for service in SERVICES {
        platform.wait_until_healthy(service);
    }
    let health = platform.http.get("/health");
    assert_eq!((health.status, &health.body["status"]), (200, &json!("pass")), "{health:?}");
    platform.http.wait_for_alive(3);
    let operator = Operator::connect(platform.mqtt_port);
    for version in 0..=ROUNDS {
        let model = operator.model(version);
        let file = platform.file("model-server", &format!("/state/global_model_v{version}.json"));
        let topic = format!("fl/models/global_model_v{version}");
        let retained = operator.peer().wait_for(&topic);
        assert!(retained.retained, "{topic}");
        assert_eq!(retained.payload, file, "{topic}");
        assert_eq!(model.version.0, version);
    }
    let status = operator.peer().wait_for("fl/sessions/first/status").json();
    let accuracy = status["metrics"]["accuracy"].as_f64().unwrap_or_default();
    say(&format!("accuracy on held-out rows after {ROUNDS} rounds: {accuracy:.4}"));
    assert!(accuracy > 0.85, "{status}");
}

/// Not root, no capability, nothing writable but what it was given, and limits.
fn everything_is_shut_in(platform: &Platform<'_>) {
    let format = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} \
                  {{.HostConfig.SecurityOpt}} {{.HostConfig.PidsLimit}}";
    for service in SERVICES {
        let said = platform.inspect(service, format);
        let wanted = match *service {
            "broker" => "1883:1883 true [ALL] [no-new-privileges:true] 64",
            _ => "65532:65532 true [ALL] [no-new-privileges:true] 128",
        };
        assert_eq!(said, wanted, "{service}");
        let limits = platform.inspect(service, "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}");
        assert!(limits.split(' ').all(|limit| limit != "0"), "{service}: {limits}");
        let mapped = platform.inspect(service, "{{json .HostConfig.PortBindings}}");
        let mapped: Value = serde_json::from_str(&mapped).unwrap();
        for binding in mapped.as_object().into_iter().flatten().flat_map(|(_, it)| it.as_array()) {
            assert!(binding.iter().all(|it| it["HostIp"] == "127.0.0.1"), "{service}: {mapped}");
        }
    }
}

/// The design note's message, with the model that is there now.
fn a_round_is_started_with_mosquitto_pub(platform: &Platform<'_>) {
    let operator = Operator::connect(platform.mqtt_port);
    let dir = tempfile::tempdir().unwrap();
    let message = json!({
        "round_id": "r-1768464194", "model_uri": format!("fl/models/global_model_v{ROUNDS}"),
        "participants": ["proplet-1", "proplet-2", "proplet-3"],
        "hyperparams": {"epochs": 1, "lr": 0.01, "batch_size": 16}, "k_of_n": 3, "timeout_s": 60,
    });
    let file = dir.path().join("start.json");
    fs::write(&file, message.to_string()).unwrap();
    let (port, file) = (platform.mqtt_port.to_string(), file.display().to_string());
    let words = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "fl/rounds/start", "-f", &file];
    let status = Command::outside(dir.path(), "mosquitto_pub", &words).start().wait();
    assert!(status.success(), "mosquitto_pub: {status}");
    let complete = operator.wait_for_complete("r-1768464194");
    assert_eq!((complete.model_version.0, complete.num_updates), (ROUNDS + 1, 3), "{complete:?}");
    let path = format!("/state/global_model_v{}.json", ROUNDS + 1);
    let file: Value = serde_json::from_slice(&platform.file("model-server", &path)).unwrap();
    assert_eq!(file["version"], ROUNDS + 1);
}

fn a_task_runs_over_http(platform: &Platform<'_>) {
    eventually("the tasks of all rounds are completed", || {
        let list = platform.http.get("/tasks?state=Completed").body;
        (list["total"] == 3 * (ROUNDS + 1)).then_some(())
    });
    // A module that does nothing, and so nothing wrong.
    let module = "AGFzbQEAAAABBAFgAAADAgEABwoBBl9zdGFydAAACgQBAgAL";
    let task = json!({"name": "nothing", "file": module, "proplet_id": "proplet-2"});
    let ended = platform.http.wait_for_end(&platform.http.run_task(&task));
    assert_eq!(ended["state"], "Completed", "{ended}");
}

fn a_second_up_trains_nothing(platform: &Platform<'_>) {
    let before = platform.inspect("train", "{{.State.FinishedAt}}");
    platform.compose(&["up", "--detach", "--no-build"]);
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.FinishedAt}}";
    eventually("the second training ends", || {
        let state = platform.inspect("train", format);
        (state.starts_with("exited 0") && !state.ends_with(&before)).then_some(())
    });
    let operator = Operator::connect(platform.mqtt_port);
    let latest = operator.peer().wait_for("fl/models/latest").json();
    assert_eq!(latest["version"], ROUNDS + 1, "{latest}");
}

fn more_proplets_join(platform: &Platform<'_>) {
    platform.compose(&["up", "--detach", "--no-build", "--scale", "proplet=2", "proplet"]);
    platform.http.wait_for_alive(5);
}

/// Broker and coordinator killed in the middle of rounds: everybody who was accepted counts once.
fn the_ledger_is_whole(platform: &Platform<'_>) {
    let mut words = vec!["up", "--detach", "--no-build"];
    words.extend(SERVICES);
    platform.compose(&words);
    platform.http.wait_for_alive(3);
    let fleet = OneHotFleet::of(3);
    let operator = Operator::connect(platform.mqtt_port);
    operator.peer().wait_for("fl/models/latest");
    let victims: [&[&str]; 4] = [&["broker"], &["coordinator"], &["broker", "coordinator"], &[]];
    for (base, victims) in (0..).zip(victims) {
        let round = RoundPlan::one_hot(&fleet, &format!("r-{base}"), base);
        let from = operator.start(&round);
        // In the middle: somebody has been heard, not everybody.
        let heard = format!("fl/rounds/{}/updates/+", round.id);
        operator.peer().wait_after(from, &heard, |_| true);
        platform.kill_and_start(victims);
        let complete = operator.wait_for_complete(&round.id);
        assert_eq!(complete.model_version.0, base + 1, "{victims:?} killed: {complete:?}");
        let counted = judge(&operator, &fleet, &complete);
        say(&format!("{victims:?} killed: {} of 3 counted", counted.len()));
        assert_eq!(counted.len(), 3, "{victims:?} killed: {complete:?}");
    }
    versions_are_whole(&operator, victims.len() as u64);
}
