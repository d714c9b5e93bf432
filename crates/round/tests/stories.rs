//! Rounds, told as stories: what is heard, and what must be said.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

#[allow(unreachable_pub, clippy::wildcard_enum_match_arm, reason = "a module of tests")]
mod story;

use std::time::Duration;

use protocol::{
    Digest, Filter, Input, Letter as _, Machine as _, ModelLine, ModelUri, ModelVersion, Output,
    Rejection, Tensors, Topic,
    message::{Verdict, with_base_digest},
};
use round::{Beside, LazyRounds, Made, News, Note, Report, Rounds, Rules};
use serde_json::json;
use story::*;

const SECOND: Duration = Duration::from_secs(1);

fn count(story: &mut Story, proplets: &[&str]) -> Outputs {
    let mut last = vec![];
    for proplet in proplets {
        last = story.hears(sent(&update("r", proplet)));
        assert_eq!(verdict(&last), ACCEPTED, "{proplet}");
    }
    last
}

/// Round `r` closed with two updates, its model on the way; returns the model's digest.
fn publishing() -> (Story, Digest) {
    let mut story = Story::opened(&["a", "b"], 2);
    let closed = count(&mut story, &["a", "b"]);
    let made = story.aggregates(&job(&closed));
    let digest = Digest::of(&models(&made)[0]);
    (story, digest)
}

#[test]
fn from_start_to_completion() {
    let mut story = Story::new(Rules::default());
    let out = story.hears(start("r", &["a", "b", "c"], 2).seal());
    assert_eq!(letter(&out, &opened())["k_of_n"], 2);
    let base_model = Filter::Exactly(Topic::Model { uri: ModelUri::global(ModelVersion(0)) });
    assert!(out.contains(&Output::Listen(base_model.clone())));
    assert!(story.hears(base(0)).contains(&Output::Unlisten(base_model)));

    let out = count(&mut story, &["b", "a"]);
    let job = job(&out);
    let order: Vec<&str> = job.members.iter().map(|member| member.proplet.as_str()).collect();
    assert_eq!(order, ["a", "b"], "in the order of ids, not of arrival");
    let kept = job.members[0].values.tensors(&job.schema).unwrap().unwrap();
    assert_eq!(kept.flatten(), [1.0, 2.0, 3.0]);

    story.now = story.now + SECOND;
    let out = story.aggregates(&job);
    let model = models(&out).remove(0);
    assert!(!said(&out).iter().any(|said| said.topic == complete()), "not before it is stored");

    let out = story.hears(latest(1, Digest::of(&model)));
    let done = letter(&out, &complete());
    assert_eq!(done["model_version"], 1);
    assert_eq!(done["num_updates"], 2);
    assert_eq!(done["total_samples"], 20);
    assert_eq!(done["participants"], json!(["a", "b"]));
    assert_eq!(done["metrics"], json!({"loss": 0.5}));
    assert_eq!(story.disk.tables(), ["made", "outcome"], "the round itself is forgotten");
    assert_eq!(story.rounds.deadline(), None);
}

#[test]
fn every_row_of_the_poison_matrix_has_its_reason_and_the_round_goes_on() {
    let mut story = Story::opened(&["a", "b"], 2);
    let mut poison = |field: &str, value: serde_json::Value, reason: Rejection| {
        let mut payload = update("r", "a");
        payload[field] = value;
        let out = story.hears(forwarded("r", "a", payload.to_string().as_bytes()));
        assert_eq!(verdict(&out), rejected(reason), "{field} {}", payload[field]);
        let noted = |note: &Note| matches!(note, Note::Rejected { reason: r, .. } if *r == reason);
        assert!(notes(&out).iter().any(noted));
    };
    poison("num_samples", json!(0), Rejection::NumSamples);
    poison("num_samples", json!(-50), Rejection::NumSamples);
    poison("num_samples", json!(1.5), Rejection::NumSamples);
    poison("num_samples", json!(1e18), Rejection::NumSamples);
    poison("num_samples", json!(1_000_000_001), Rejection::NumSamples);
    poison("num_samples", json!("7"), Rejection::NumSamples);
    poison("update", json!({"w": [1.0]}), Rejection::Shape);
    poison("update", json!({"w": [1.0, 2.0, 3.0, 4.0]}), Rejection::Shape);
    poison("update", json!({"w": 1.0}), Rejection::Shape);
    poison("update", json!({"v": [1.0, 2.0, 3.0]}), Rejection::Shape);
    poison("update", json!({"w": [1.0, 2.0, 3.0], "v": 1.0}), Rejection::Shape);
    poison("update", json!({"w": [1.0, [2.0], 3.0]}), Rejection::Malformed);
    poison("update", json!({"w": ["1", "2", "3"]}), Rejection::Malformed);
    poison("update", json!(null), Rejection::Malformed);
    let other = ModelUri::global(ModelVersion(3)).to_string();
    poison("base_model_uri", json!(other), Rejection::StaleBase);
    poison("base_model_uri", json!("elsewhere"), Rejection::StaleBase);
    poison("proplet_id", json!("b"), Rejection::SenderMismatch);
    poison("round_id", json!("r2"), Rejection::SenderMismatch);
    for text in ["{\"round_id\":\"r\",\"update\":{\"w\":[NaN]}}", "not json", "", "{}", "[1]"] {
        let out = story.hears(forwarded("r", "a", text.as_bytes()));
        let nan = text.contains("NaN");
        let reason = if nan { Rejection::NotFinite } else { Rejection::Malformed };
        assert_eq!(verdict(&out), rejected(reason), "{text}");
    }
    let huge = update("r", "a").to_string().replace("1.0", "1e999");
    let out = story.hears(forwarded("r", "a", huge.as_bytes()));
    assert_eq!(verdict(&out), rejected(Rejection::NotFinite));
    let out = story.hears(sent(&update("r", "z")));
    assert_eq!(verdict(&out), rejected(Rejection::Stranger));

    let closed = count(&mut story, &["a", "b"]);
    let made = story.aggregates(&job(&closed));
    let done = story.hears(latest(1, Digest::of(&models(&made)[0])));
    let rejected = letter(&done, &complete())["rejected"].clone();
    assert_eq!(rejected["stranger"], 1);
    assert_eq!(rejected["num_samples"], 6);
    assert_eq!(rejected["shape"], 5);
    assert_eq!(rejected["sender_mismatch"], 2);
}

#[test]
fn an_update_over_the_limit_is_too_large_and_its_sender_hears_it() {
    let rules = Rules { update_len_max: 300, ..Rules::default() };
    let mut story = Story::new(rules);
    story.hears(start("r", &["a"], 1).seal());
    story.hears(base(0));
    let mut payload = update("r", "a");
    payload["padding"] = json!("x".repeat(1000));
    assert_eq!(verdict(&story.hears(sent(&payload))), rejected(Rejection::TooLarge));
    let garbage = "x".repeat(1000);
    let out = story.hears(forwarded("r", "a", garbage.as_bytes()));
    assert_eq!(verdict(&out), rejected(Rejection::Malformed), "what the manager made of it");
    count(&mut story, &["a"]);
}

#[test]
fn what_is_said_twice_counts_once() {
    let mut story = Story::opened(&["a", "b"], 2);
    count(&mut story, &["a", "a", "a"]);
    let mut other = update("r", "a");
    other["num_samples"] = json!(11);
    let out = story.hears(sent(&other));
    assert_eq!(verdict(&out), rejected(Rejection::Duplicate), "the first one wins");
    let mut garbled = update("r", "a");
    garbled["update"] = json!({});
    assert_eq!(verdict(&story.hears(sent(&garbled))), rejected(Rejection::Duplicate));
    let mut noisier = update("r", "a");
    noisier["metrics"] = json!({"loss": 0.25});
    assert_eq!(verdict(&story.hears(sent(&noisier))), ACCEPTED, "metrics do not make it another");
    assert_eq!(job(&count(&mut story, &["b"])).members.len(), 2);
}

#[test]
fn after_closing_only_what_was_counted_is_confirmed() {
    let (mut story, digest) = publishing();
    for ended in [false, true] {
        if ended {
            story.hears(latest(1, digest));
        }
        assert_eq!(verdict(&story.hears(sent(&update("r", "a")))), ACCEPTED);
        let mut other = update("r", "a");
        other["num_samples"] = json!(11);
        let out = story.hears(sent(&other));
        assert_eq!(verdict(&out), rejected(Rejection::RoundClosed), "ended: {ended}");
        let out = story.hears(sent(&update("r", "z")));
        assert_eq!(verdict(&out), rejected(Rejection::RoundClosed), "ended: {ended}");
        story.restarts();
        story.hears(latest(0, Digest::of(b"model 0")));
    }
}

#[test]
fn the_deadline_is_exact_and_closes_with_what_there_is() {
    let mut story = Story::opened(&["a", "b"], 2);
    count(&mut story, &["a"]);
    assert!(jobs(&story.passes(Duration::from_micros(29_999_999))).is_empty());
    let out = story.passes(Duration::from_micros(1));
    assert_eq!(job(&out).members.len(), 1);
    let out = story.hears(sent(&update("r", "b")));
    assert_eq!(verdict(&out), rejected(Rejection::RoundClosed));
}

#[test]
fn what_comes_at_the_deadline_is_late_even_if_the_tick_is_later() {
    let mut story = Story::opened(&["a", "b"], 2);
    count(&mut story, &["a"]);
    story.now = story.now + 30 * SECOND;
    let out = story.hears(sent(&update("r", "b")));
    assert_eq!(verdict(&out), rejected(Rejection::RoundClosed));
    assert_eq!(job(&out).members.len(), 1);
}

#[test]
fn too_few_updates_fail_the_round_at_its_deadline() {
    let mut story = Story::new(Rules::default());
    let mut asked = start("r", &["a", "b", "c"], 3);
    asked.min_updates = Some(2);
    story.hears(asked.seal());
    story.hears(base(0));
    count(&mut story, &["a"]);
    let out = story.passes(30 * SECOND);
    let said = letter(&out, &failed());
    assert_eq!(said["reason"], "too_few_updates");
    assert_eq!((&said["num_updates"], &said["k_of_n"]), (&json!(1), &json!(3)));
    assert_eq!(story.disk.tables(), ["outcome"]);
    let out = story.hears(asked.seal());
    assert_eq!(letter(&out, &failed())["reason"], "too_few_updates", "for who asks again");
}

#[test]
fn a_base_model_that_never_comes_fails_the_round_and_nobody_is_judged_before() {
    let mut story = Story::new(Rules::default());
    story.hears(start("r", &["a"], 1).seal());
    assert_eq!(verdict(&story.hears(sent(&update("r", "a")))), None);
    let out = story.passes(30 * SECOND);
    assert_eq!(letter(&out, &failed())["reason"], "unknown_model");
    assert!(out.iter().any(|output| matches!(output, Output::Unlisten(_))));
}

#[test]
fn a_round_does_not_wait_for_those_who_will_not_come() {
    let mut story = Story::opened(&["a", "b", "c"], 3);
    count(&mut story, &["a"]);
    assert!(jobs(&story.hears(absent("r", "b"))).is_empty());
    assert!(jobs(&story.hears(absent("r", "b"))).is_empty(), "told twice");
    assert!(jobs(&story.hears(absent("r", "z"))).is_empty(), "a stranger's absence");
    assert!(jobs(&story.hears(absent("r", "a"))).is_empty(), "it was counted before");
    story.restarts();
    story.hears(base(0));
    assert_eq!(job(&story.hears(absent("r", "c"))).members.len(), 1);
}

#[test]
fn absences_that_overtake_the_start_are_not_lost() {
    let mut story = Story::new(Rules::default());
    story.hears(absent("r", "a"));
    story.hears(absent("r", "b"));
    let out = story.hears(start("r", &["a", "b"], 2).seal());
    assert_eq!(letter(&out, &failed())["reason"], "all_absent");
    assert_eq!(story.disk.tables(), ["outcome"]);
}

#[test]
fn who_was_absent_and_comes_back_counts() {
    let mut story = Story::opened(&["a", "b"], 2);
    story.hears(absent("r", "a"));
    count(&mut story, &["a"]);
    assert_eq!(job(&count(&mut story, &["b"])).members.len(), 2);
}

#[test]
fn a_round_that_nobody_starts_is_unknown_after_a_grace() {
    let mut story = Story::new(Rules::default());
    assert_eq!(verdict(&story.hears(sent(&update("r", "a")))), None);
    assert_eq!(verdict(&story.passes(9 * SECOND)), None);
    assert_eq!(verdict(&story.passes(SECOND)), rejected(Rejection::UnknownRound));
    assert_eq!(story.rounds.deadline(), None);
    story.hears(sent(&update("r", "a")));
    story.hears(start("r", &["a"], 1).seal());
    assert_eq!(verdicts(&story.passes(10 * SECOND)), [], "it was started within the grace");
}

#[test]
fn the_unknown_are_bounded() {
    let mut story = Story::new(Rules::default());
    for n in 0..1000 {
        story.now = story.now + Duration::from_millis(1);
        story.hears(sent(&update(&format!("r{n}"), "a")));
    }
    assert_eq!(verdicts(&story.passes(10 * SECOND)).len(), 256);
}

#[test]
fn with_lazy_rounds_the_first_update_opens_the_round() {
    let mut story = Story::new(Rules { lazy: LazyRounds::On, ..Rules::default() });
    let out = story.hears(sent(&update("r", "a")));
    assert_eq!(letter(&out, &opened())["k_of_n"], 3);
    assert_eq!(verdict(&out), None, "its base model has not been seen");
    story.hears(base(0));
    assert_eq!(job(&count(&mut story, &["x", "a", "y"])).members.len(), 3);
    let mut bad = update("r9", "a");
    bad["num_samples"] = json!(0);
    let out = story.hears(sent(&bad));
    assert!(said(&out).is_empty(), "what is not an update opens nothing");
}

#[test]
fn a_repeated_start_is_answered_and_a_changed_one_is_not() {
    let (mut story, digest) = publishing();
    let asked = start("r", &["a", "b"], 2);
    assert_eq!(letter(&story.hears(asked.seal()), &opened())["participants"], 2);
    story.hears(latest(1, digest));
    assert_eq!(letter(&story.hears(asked.seal()), &complete())["model_version"], 1);
    story.restarts();
    assert_eq!(letter(&story.hears(asked.seal()), &complete())["model_version"], 1);
    let out = story.hears(start("r", &["a", "c"], 2).seal());
    assert!(said(&out).is_empty());
    assert!(matches!(&notes(&out)[..], [Note::StartRefused { .. }]));
}

#[test]
fn a_start_that_cannot_be_read_is_answered_if_it_has_a_name() {
    let mut story = Story::opened(&["a"], 1);
    let envelope = |text: &'static str| protocol::Envelope {
        topic: Topic::RoundStart,
        payload: text.as_bytes().into(),
    };
    let out = story.hears(envelope(r#"{"round_id":"bad","participants":[]}"#));
    let topic = Topic::RoundFailed { round: id("bad") };
    assert_eq!(letter(&out, &topic)["reason"], "bad_start");
    let out = story.hears(envelope(r#"{"round_id":"r","participants":[]}"#));
    assert!(said(&out).is_empty(), "the round that is open is not said to have failed");
    assert!(News::try_from(envelope(r#"{"round_id":"../r"}"#)).is_err());
    assert!(News::try_from(envelope("{")).is_err());
}

#[test]
fn more_rounds_than_the_limit_are_refused() {
    let mut story = Story::new(Rules { rounds_open_max: 2, ..Rules::default() });
    story.hears(start("r1", &["a"], 1).seal());
    story.hears(start("r2", &["a"], 1).seal());
    let out = story.hears(start("r3", &["a"], 1).seal());
    let topic = Topic::RoundFailed { round: id("r3") };
    assert_eq!(letter(&out, &topic)["reason"], "bad_start");
}

#[test]
fn more_updates_than_memory_wait_for_room() {
    let mut story = Story::new(Rules { kept_len_max: 50, ..Rules::default() });
    for round in ["r", "r2"] {
        story.hears(start(round, &["a", "b"], 2).seal());
    }
    story.hears(base(0));
    count(&mut story, &["a", "b"]);
    assert_eq!(verdict(&story.hears(sent(&update("r2", "a")))), None);
    story.restarts();
    story.hears(base(0));
    let out = story.hears(sent(&update("r2", "a")));
    assert!(matches!(&notes(&out)[..], [Note::NoRoom { kept_len: 48, .. }]), "{out:?}");
    story.hears(latest(0, Digest::of(b"model 0")));
    let report = Report::Aggregated {
        round: id("r"),
        model: Made::Here(tensors(&[0.0; 3])),
        beside: Beside::default(),
    };
    story.tell(Input::Report(report));
    assert_eq!(verdict(&story.hears(sent(&update("r2", "a")))), ACCEPTED);
}

#[test]
fn no_version_is_given_before_the_newest_is_known() {
    let mut story = Story::opened(&["a"], 1);
    let job = job(&count(&mut story, &["a"]));
    story.restarts();
    assert!(models(&story.aggregates(&job)).is_empty());
    let out = story.hears(latest(41, Digest::of(b"model 41")));
    let model: serde_json::Value = serde_json::from_slice(&models(&out)[0]).unwrap();
    assert_eq!(model["version"], 42);
}

#[test]
fn what_a_broker_retained_from_another_run_does_not_push_the_versions_up() {
    let mut story = Story::unconnected(Rules::default());
    story.tell(Input::Connected { resumed: false });
    story.hears(latest(41, Digest::of(b"model 41 of another run")));
    story.hears(latest(0, Digest::of(b"model 0")));
    story.hears(start("r", &["a"], 1).seal());
    story.hears(base(0));
    let closed = count(&mut story, &["a"]);
    let out = story.aggregates(&job(&closed));
    let model: serde_json::Value = serde_json::from_slice(&models(&out)[0]).unwrap();
    assert_eq!(model["version"], 1, "the model server takes no other");
}

#[test]
fn a_model_that_the_model_server_would_refuse_fails_its_round_and_holds_up_no_other() {
    let mut story = Story::new(Rules { model_len_max: 40, ..Rules::default() });
    story.hears(start("r", &["a"], 1).seal());
    story.hears(base(0));
    count(&mut story, &["a"]);
    let long = tensors(&[1.0 / 3.0, 2.0 / 3.0, 1.0 / 7.0]);
    let out = story.tell(Input::Report(Report::Aggregated {
        round: id("r"),
        model: Made::Here(long),
        beside: Beside::default(),
    }));
    let said = letter(&out, &failed());
    assert_eq!(said["reason"], "aggregation");
    assert!(said["error"].as_str().unwrap().ends_with("at most 40 are taken"), "{said}");
    story.hears(start("r2", &["a"], 1).seal());
    let closed = story.hears(sent(&update("r2", "a")));
    let out = story.aggregates(&job(&closed));
    let model: serde_json::Value = serde_json::from_slice(&models(&out)[0]).unwrap();
    assert_eq!(model["version"], 1, "no version was spent");
}

#[test]
fn new_models_do_not_keep_an_old_one_from_being_repeated() {
    let (mut story, digest) = publishing();
    let lost_at = story.now;
    for n in 0..4 {
        story.now = story.now + Duration::from_millis(400);
        let round = format!("r{n}");
        let mut out = story.hears(start(&round, &["a"], 1).seal());
        let closed = story.hears(sent(&update(&round, "a")));
        out.extend(story.aggregates(&job(&closed)));
        if models(&out).iter().any(|model| Digest::of(model) == digest) {
            assert!(story.now.since(lost_at) >= SECOND);
            return;
        }
    }
    panic!("the model server waits for the first, and refuses all others");
}

#[test]
fn a_start_that_is_too_long_is_answered_by_name() {
    let mut story = Story::new(Rules::default());
    let mut asked = start("r", &["a"], 1);
    asked.file = Some("A".repeat(64 << 20));
    let out = story.hears(asked.seal());
    let said = letter(&out, &failed());
    assert_eq!(said["reason"], "bad_start");
    assert!(said["error"].as_str().unwrap().contains("bytes, at most"), "{said}");
    let mut long: serde_json::Value =
        serde_json::from_slice(&latest(1, Digest::of(b"")).payload).unwrap();
    long["format"] = json!("x".repeat(100_000));
    let payload = long.to_string().into_bytes().into();
    assert!(
        News::try_from(protocol::Envelope {
            topic: Topic::ModelLatest { line: ModelLine::default() },
            payload
        })
        .is_err()
    );
}

#[test]
fn a_model_is_published_again_until_the_model_server_shows_it() {
    let (mut story, digest) = publishing();
    let mut waits = vec![];
    let mut attempts = 0;
    while attempts < 8 {
        let next = story.rounds.deadline().unwrap();
        waits.push(next.since(story.now).as_secs());
        story.now = next;
        let out = story.tell(Input::Tick);
        assert_eq!(Digest::of(&models(&out)[0]), digest);
        attempts += 1;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    let out = story.tell(Input::Connected { resumed: false });
    assert_eq!(models(&out).len(), 1, "at once when the broker is back");
    let out = story.restarts();
    assert_eq!(Digest::of(&models(&out)[0]), digest, "the same bytes after a restart");
    assert_eq!(letter(&story.hears(latest(1, digest)), &complete())["model_version"], 1);
}

#[test]
fn a_version_that_another_took_is_never_overwritten() {
    let (mut story, ours) = publishing();
    let out = story.hears(latest(1, Digest::of(b"somebody else's")));
    assert!(matches!(&notes(&out)[..], [Note::VersionTaken { .. }, Note::Made { .. }]));
    let model: serde_json::Value = serde_json::from_slice(&models(&out)[0]).unwrap();
    assert_eq!(model["version"], 2);
    assert_eq!(model["w"], json!([1.0, 2.0, 3.0]));
    let again = models(&story.restarts()).remove(0);
    assert_ne!(Digest::of(&again), ours);
    story.hears(latest(1, Digest::of(b"somebody else's")));
    let out = story.hears(latest(2, Digest::of(&again)));
    assert_eq!(letter(&out, &complete())["model_version"], 2);
}

#[test]
fn a_version_that_a_newer_one_hides_is_looked_up() {
    let (mut story, ours) = publishing();
    let out = story.hears(latest(5, Digest::of(b"model 5")));
    assert!(said(&out).is_empty());
    let filter = Filter::Exactly(Topic::Model { uri: ModelUri::global(ModelVersion(1)) });
    assert!(out.contains(&Output::Listen(filter)));
    let model = protocol::message::Model::new(ModelVersion(1), tensors(&[1.0, 2.0, 3.0]));
    let payload = model.seal().payload;
    assert_eq!(Digest::of(&payload), ours);
    let topic = Topic::Model { uri: ModelUri::global(ModelVersion(1)) };
    let out = story.hears(protocol::Envelope { topic, payload });
    assert_eq!(letter(&out, &complete())["model_version"], 1);
}

#[test]
fn an_aggregate_that_is_not_finite_fails_the_round_and_uses_no_version() {
    let mut story = Story::opened(&["a"], 1);
    count(&mut story, &["a"]);
    let tensors: Tensors = tensors(&[f64::INFINITY, 0.0, 0.0]);
    let out = story.tell(Input::Report(Report::Aggregated {
        round: id("r"),
        model: Made::Here(tensors),
        beside: Beside::default(),
    }));
    assert_eq!(letter(&out, &failed())["reason"], "not_finite");
    story.hears(start("r2", &["a"], 1).seal());
    let closed = story.hears(sent(&update("r2", "a")));
    let out = story.aggregates(&job(&closed));
    let model: serde_json::Value = serde_json::from_slice(&models(&out)[0]).unwrap();
    assert_eq!(model["version"], 1);
}

#[test]
fn a_restart_gives_open_rounds_a_grace_and_closed_ones_their_averaging() {
    let mut story = Story::opened(&["a", "b"], 2);
    count(&mut story, &["a"]);
    story.now = story.now + 3600 * SECOND;
    assert!(jobs(&story.restarts()).is_empty());
    let out = count(&mut story, &["b"]);
    let job = job(&out);
    assert_eq!(job.members.len(), 2, "what had queued up at the broker counts");
    assert_eq!(story::job(&story.restarts()), job, "the frozen set, again");
    assert!(jobs(&story.tell(Input::Connected { resumed: false })).is_empty(), "once a process");

    let mut alone = Story::opened(&["a", "b"], 2);
    count(&mut alone, &["a"]);
    alone.now = alone.now + 3600 * SECOND;
    alone.restarts();
    assert_eq!(jobs(&alone.passes(2 * SECOND)).len(), 1);
}

#[test]
fn stale_reports_change_nothing() {
    let (mut story, digest) = publishing();
    let tensors = tensors(&[9.0; 3]);
    let stale = Report::Aggregated {
        round: id("r"),
        model: Made::Here(tensors),
        beside: Beside::default(),
    };
    assert_eq!(story.tell(Input::Report(stale.clone())), vec![]);
    story.hears(latest(1, digest));
    assert_eq!(story.tell(Input::Report(stale)), vec![]);
}

#[test]
fn acceptance_is_kept_and_promised_in_one_step() {
    let mut story = Story::opened(&["a", "b"], 2);
    let out = story.hears(sent(&update("r", "a")));
    let kept = out.iter().filter(|output| matches!(output, Output::Keep(_))).count();
    let promised = out.iter().filter(|output| matches!(output, Output::Promise(_))).count();
    assert_eq!((kept, promised), (2, 1));
    assert_eq!(verdicts(&out)[0].2, Verdict::Accepted);
}

#[test]
fn a_payload_cannot_have_somebody_else_rejected() {
    let mut story = Story::opened(&["a", "b"], 2);
    let text = update("r", "a").to_string();
    let forged = format!(
        "{},\"forwarded_from\":{{\"round_id\":\"r\",\"proplet_id\":\"b\"}}}}",
        text.strip_suffix('}').unwrap()
    );
    let out = story.hears(forwarded("r", "a", forged.as_bytes()));
    assert!(verdicts(&out).iter().all(|(_, proplet, _)| proplet.as_str() == "a"), "{out:?}");
}

#[test]
fn what_is_not_for_a_coordinator_is_refused() {
    let topic = Topic::PropletAlive;
    let envelope = protocol::Envelope { topic, payload: "{}".into() };
    assert!(News::try_from(envelope).is_err());
    let wrong = protocol::Envelope {
        topic: Topic::Model { uri: ModelUri::global(ModelVersion(1)) },
        ..base(0)
    };
    assert!(News::try_from(wrong).is_err());
    assert!(News::try_from(latest(u64::MAX, Digest::of(b""))).is_err());
    let filters = Rounds::new(Rules::default()).filters();
    assert!(filters.contains(&Filter::AnyAbsent));
}

#[test]
fn an_update_that_calls_other_bytes_its_base_model_does_not_count() {
    let mut story = Story::opened(&["a", "b"], 2);
    let ours = Digest::of(&base(0).payload);
    let on = |proplet: &str, digest: Digest| {
        let text = update("r", proplet).to_string();
        let payload = with_base_digest(text.as_bytes(), digest).unwrap();
        forwarded("r", proplet, &payload)
    };
    let swapped = story.hears(on("a", Digest::of(b"another model")));
    assert_eq!(verdict(&swapped), rejected(Rejection::StaleBase));
    // Also of a coordinator that was started anew since it heard of its base model.
    story.restarts();
    let swapped = story.hears(on("a", Digest::of(b"another model")));
    assert_eq!(verdict(&swapped), rejected(Rejection::StaleBase));
    let mut nonsense = update("r", "a");
    nonsense["base_model_sha256"] = json!("x");
    let nonsense = story.hears(forwarded("r", "a", nonsense.to_string().as_bytes()));
    assert_eq!(verdict(&nonsense), rejected(Rejection::Malformed));
    let fine = story.hears(on("a", ours));
    assert_eq!(verdict(&fine), ACCEPTED);
    // Who does not say it is believed to mean ours.
    let closed = story.hears(sent(&update("r", "b")));
    assert_eq!(verdict(&closed), ACCEPTED);
    assert_eq!(job(&closed).members.len(), 2);
}
