//! Rounds that look at a model and make none, and callers who ask about rounds.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "these are tests")]

#[allow(unreachable_pub, clippy::wildcard_enum_match_arm, reason = "a module of tests")]
mod story;

use std::time::Duration;

use protocol::{
    Digest, Input, Letter as _, Output, Rejection, Topic,
    message::{Purpose, RoundComplete, RoundStart},
};
use round::{Answer, Ask, Effect, Refusal, Report, RoundView, Rules, Stage, Taken};
use serde_json::{Value, json};
use story::*;

fn evaluation(participants: &[&str]) -> RoundStart {
    RoundStart { purpose: Purpose::Evaluate, ..start("r", participants, participants.len()) }
}

fn finding(proplet: &str, samples: u64, accuracy: f64) -> Value {
    let mut found = update("r", proplet);
    found["num_samples"] = json!(samples);
    found["metrics"] = json!({ "accuracy": accuracy });
    found["update"] = json!({});
    found
}

fn ended(outputs: &Outputs) -> RoundComplete {
    serde_json::from_value(letter(outputs, &complete())).unwrap()
}

/// A coordinator in whose evaluation by three the first two have been counted.
fn begun() -> Story {
    let mut story = Story::new(Rules::default());
    story.hears(evaluation(&["a", "b", "c"]).seal());
    assert_eq!(verdict(&story.hears(sent(&finding("a", 10, 0.5)))), ACCEPTED);
    assert_eq!(verdict(&story.hears(sent(&finding("b", 30, 0.9)))), ACCEPTED);
    story
}

#[test]
fn an_evaluation_ends_with_means_and_quantiles_and_makes_no_version() {
    let mut story = begun();
    let out = story.hears(sent(&finding("c", 10, 0.1)));
    let found = ended(&out);
    assert_eq!((found.model_version.0, found.purpose), (0, Purpose::Evaluate));
    assert_eq!((found.num_updates, found.total_samples), (3, 50));
    assert!((found.metrics["accuracy"] - 33.0 / 50.0).abs() < 1e-12, "{found:?}");
    let spread = found.quantiles["accuracy"];
    assert_eq!((spread.min, spread.median, spread.max), (0.1, 0.5, 0.9));
    assert_eq!((spread.lowest_decile_mean, spread.highest_decile_mean), (0.1, 0.9));
    assert_eq!(found.contributions[&id("b")].metrics["accuracy"], 0.9);
    assert!(jobs(&out).is_empty() && models(&out).is_empty());
    assert_eq!(story.disk.tables(), ["outcome"], "nothing else is left of it");
    let repeated = story.hears(evaluation(&["a", "b", "c"]).seal());
    assert_eq!(ended(&repeated), found);
    assert_eq!(verdict(&story.hears(sent(&finding("c", 10, 0.1)))), ACCEPTED, "it was counted");
}

#[test]
fn what_was_counted_outlives_a_crash() {
    let mut story = begun();
    story.restarts();
    assert_eq!(verdict(&story.hears(sent(&finding("a", 10, 0.5)))), ACCEPTED, "counted once");
    story.restarts();
    let out = story.hears(sent(&finding("c", 10, 0.1)));
    assert_eq!(ended(&out).num_updates, 3);
    story.restarts();
    let repeated = story.hears(evaluation(&["a", "b", "c"]).seal());
    assert_eq!(ended(&repeated), ended(&out));
}

#[test]
fn an_evaluation_needs_no_look_at_its_model_and_closes_at_its_deadline() {
    let mut story = begun();
    let out = story.passes(Duration::from_secs(30));
    assert_eq!(ended(&out).num_updates, 2);
    let mut story = Story::new(Rules::default());
    let out = story.hears(evaluation(&["a", "b"]).seal());
    assert!(!out.iter().any(|it| matches!(it, Output::Listen(_))), "{out:?}");
    let out = story.passes(Duration::from_secs(30));
    assert_eq!(letter(&out, &failed())["reason"], "too_few_updates");
}

#[test]
fn what_is_no_evaluation_is_rejected() {
    let bad = [
        ("update", json!({"w": [1.0, 2.0, 3.0]}), Rejection::Shape),
        ("metrics", json!({}), Rejection::Malformed),
        ("metrics", json!({"accuracy": "high"}), Rejection::Malformed),
        ("num_samples", json!(0), Rejection::NumSamples),
        (
            "base_model_uri",
            json!(protocol::ModelUri::global(protocol::ModelVersion(1))),
            Rejection::StaleBase,
        ),
    ];
    for (field, value, reason) in bad {
        let mut story = Story::new(Rules::default());
        story.hears(evaluation(&["a", "b"]).seal());
        let mut found = finding("a", 10, 0.5);
        found[field] = value;
        assert_eq!(verdict(&story.hears(sent(&found))), rejected(reason), "{found}");
    }
    let mut story = Story::opened(&["a"], 1);
    assert_eq!(verdict(&story.hears(sent(&finding("a", 10, 0.5)))), rejected(Rejection::Shape));
}

fn asks(story: &mut Story, ask: Ask) -> (Outputs, Result<Answer, Refusal>) {
    let out = story.tell(Input::Report(Report::Asked { ticket: 3, ask }));
    let answer = out.iter().find_map(|it| match it {
        Output::Effect(Effect::Answer { ticket: 3, answer }) => Some(answer.clone()),
        _ => None,
    });
    (out, answer.unwrap().map(|answer| *answer))
}

#[test]
fn a_round_that_a_caller_starts_is_told_to_everybody() {
    let mut story = Story::new(Rules::default());
    let ask = |start: RoundStart| Ask::Start(Box::new(start));
    let (out, answer) = asks(&mut story, ask(start("r", &["a"], 1)));
    let Ok(Answer::Started { round: RoundView::Open(open), taken }) = answer else { panic!("no") };
    assert_eq!((open.stage, open.k_of_n, taken), (Stage::Collecting, 1, Taken::Now));
    let promised = |it: &Output<Effect>| match it {
        Output::Promise(said) => said.topic == Topic::RoundStart,
        _ => false,
    };
    assert!(out.iter().any(promised), "the manager hears of it");
    let again = story.hears(start("r", &["a"], 1).seal());
    assert_eq!(letter(&again, &opened())["k_of_n"], 1);
    let (_, answer) = asks(&mut story, ask(start("r", &["a"], 1)));
    assert!(matches!(answer, Ok(Answer::Started { taken: Taken::Before, .. })), "{answer:?}");
    let (_, answer) = asks(&mut story, ask(start("r", &["b"], 1)));
    assert!(matches!(answer, Err(Refusal::Conflict(_))), "{answer:?}");
    let strategy = serde_json::from_value(json!({"name": "guesswork"})).unwrap();
    let odd = RoundStart { strategy: Some(strategy), ..start("r-2", &["a"], 1) };
    let (_, answer) = asks(&mut story, ask(odd));
    let Err(Refusal::Bad(said)) = answer else { panic!("it was taken: {answer:?}") };
    assert!(said.contains("guesswork"), "{said}");
}

#[test]
fn rounds_and_models_are_listed_and_known_after_a_crash() {
    let mut story = Story::opened(&["a"], 1);
    let closed = story.hears(sent(&update("r", "a")));
    let made = story.aggregates(&job(&closed));
    let sha256 = Digest::of(&models(&made)[0]);
    story.hears(latest(1, sha256));
    story.hears(start("r-2", &["a"], 1).seal());
    story.restarts();
    let (_, answer) = asks(&mut story, Ask::Rounds { offset: 0, limit: 10 });
    let Ok(Answer::Rounds { rounds, total: 2 }) = answer else { panic!("{answer:?}") };
    assert!(matches!(&rounds[..], [RoundView::Open(_), RoundView::Complete(_)]), "{rounds:?}");
    let (_, answer) = asks(&mut story, Ask::Models { offset: 0, limit: 10 });
    let Ok(Answer::Models { models, total: 1, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!((models[0].uri.version.0, models[0].sha256), (1, Some(sha256)));
    let (_, answer) = asks(&mut story, Ask::Rounds { offset: 1, limit: 10 });
    assert!(matches!(answer, Ok(Answer::Rounds { rounds, total: 2 }) if rounds.len() == 1));
    let (_, answer) = asks(&mut story, Ask::Round(id("r-9")));
    assert!(matches!(answer, Err(Refusal::Unknown(_))));
}
