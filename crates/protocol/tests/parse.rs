//! Whatever arrives, reading it ends in a value or an error, and what is written can be read.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use bytes::Bytes;
use proptest::prelude::*;
use protocol::Letter as _;
use protocol::{
    Digest, Filter, IdError, ModelLine, ModelUri, ModelVersion, Namespace, PropletId, Rejection,
    RoundId, Tensor, Tensors, Timestamp, Topic,
    manifest::CHUNKS_MAX,
    message::{
        Forwarded, Model, Origin, RoundStart, TaskStart, TaskState, Update, UpdateAck, forward,
        read_update,
    },
    topic::TOPICS,
};

const WILD: [char; 3] = ['+', '#', '{'];

fn ids() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,128}".prop_filter("dots", |id| id != "." && id != "..")
}

fn topics() -> impl Strategy<Value = Topic> {
    (0..27_usize, ids(), ids(), any::<u64>()).prop_map(|(which, round, proplet, version)| {
        let round: RoundId = round.parse().unwrap();
        let proplet: PropletId = proplet.parse().unwrap();
        all_topics(&round, &proplet, version).swap_remove(which)
    })
}

fn all_topics(round: &RoundId, proplet: &PropletId, version: u64) -> Vec<Topic> {
    let (round, proplet) = (|| round.clone(), || proplet.clone());
    let index = u32::try_from(version % u64::from(CHUNKS_MAX)).unwrap();
    let other = || "cnn_v2".parse::<ModelLine>().unwrap();
    let uri = |line| ModelUri { line, version: ModelVersion(version) };
    vec![
        Topic::RoundStart,
        Topic::RoundOpened { round: round() },
        Topic::RoundUpdate { round: round(), proplet: proplet() },
        Topic::RoundAck { round: round(), proplet: proplet() },
        Topic::RoundAbsent { round: round() },
        Topic::RoundComplete { round: round() },
        Topic::RoundFailed { round: round() },
        Topic::ForwardedUpdate,
        Topic::ModelPublish { line: ModelLine::default() },
        Topic::Model { uri: ModelUri::global(ModelVersion(version)) },
        Topic::ModelLatest { line: ModelLine::default() },
        Topic::PropletCreate,
        Topic::PropletAlive,
        Topic::PropletMetrics,
        Topic::TaskMetrics,
        Topic::TaskResults,
        Topic::TaskStart,
        Topic::TaskStop,
        Topic::DirectStart { proplet: proplet() },
        Topic::DirectStop { proplet: proplet() },
        Topic::UpdateWants { round: round(), proplet: proplet() },
        Topic::UpdateChunk { round: round(), proplet: proplet(), index },
        Topic::ModelPublishWants { line: ModelLine::default() },
        Topic::ModelPublishChunk { uri: ModelUri::global(ModelVersion(version)), index },
        Topic::ModelWants { line: ModelLine::default() },
        Topic::ModelChunk { uri: ModelUri::global(ModelVersion(version)), index },
        Topic::ModelPublish { line: other() },
        Topic::ModelLatest { line: other() },
        Topic::ModelPublishWants { line: other() },
        Topic::ModelPublishChunk { uri: uri(other()), index },
        Topic::ModelWants { line: other() },
        Topic::ModuleWants,
        Topic::ModuleChunk { sha256: Digest::of(b"module"), index },
        Topic::RoundVariate { round: round() },
        Topic::SessionStart,
        Topic::SessionCommand { session: "s-1".parse().unwrap() },
        Topic::SessionStatus { session: "s-1".parse().unwrap() },
    ]
}

fn namespace(prefix: &str) -> Namespace {
    Namespace::new(prefix, &"demo".parse().unwrap(), &"fl".parse().unwrap()).unwrap()
}

proptest! {
    #[test]
    fn an_id_is_read_only_if_it_is_harmless(text in "\\PC{0,140}") {
        if let Ok(id) = text.parse::<RoundId>() {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert!(!text.contains(['/', '+', '#', '$', '\0']));
            prop_assert!(text != "." && text != ".." && text.len() <= 128);
        }
    }

    #[test]
    fn every_topic_survives_the_wire(topic in topics(), prefix in "([a-z]{1,4}/){0,2}") {
        let namespace = namespace(&prefix);
        let text = namespace.render(&topic);
        prop_assert!(!text.contains(WILD));
        prop_assert_eq!(namespace.parse(&text), Ok(topic.clone()));
        prop_assert_eq!(topic.to_string().parse(), Ok(topic));
    }

    #[test]
    fn no_text_breaks_the_topic_parser(text in "\\PC{0,200}", tail in "(/(\\PC{0,9})){0,6}") {
        for text in [text.clone(), format!("fl{tail}"), format!("m/demo/c/fl{tail}")] {
            if let Ok(topic) = namespace("").parse(&text) {
                prop_assert_eq!(namespace("").render(&topic), text);
            }
        }
    }

    #[test]
    fn no_bytes_break_the_message_readers(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_update(&bytes, None);
        let _ = serde_json::from_slice::<RoundStart>(&bytes);
        let _ = serde_json::from_slice::<Model>(&bytes);
        let _ = UpdateAck::read("p".parse().unwrap(), &bytes);
        let forwarded = Forwarded::read(forward(&bytes, &origin(), Timestamp::ZERO));
        let sender = forwarded.origin.as_ref().map(|origin| &origin.proplet_id);
        if let Err(why) = read_update(&forwarded.payload, sender) {
            prop_assert_eq!(why.proplet_id, Some(origin().proplet_id));
        }
    }

    #[test]
    fn an_almost_right_update_never_panics(at in 0..200_usize, byte in any::<u8>(), cut in 0..220_usize) {
        let mut bytes = update(vec![0.5, -1.0]).seal().payload.to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        let _ = read_update(&bytes, None);
    }

    #[test]
    fn numbers_survive_to_the_last_bit(values in prop::collection::vec(any::<f64>(), 1..40)) {
        let finite: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        let sent = update(finite);
        let read = read_update(&sent.seal().payload, None).unwrap();
        let bits = |u: &Update| u.update.flatten().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&read), bits(&sent));
        prop_assert_eq!(read.fingerprint(), sent.fingerprint());
    }

    #[test]
    fn forwarding_changes_nothing_but_the_last_field(values in prop::collection::vec(-9.0..9.0, 0..9)) {
        let sent = update(values).seal().payload;
        let forwarded = forward(&sent, &origin(), Timestamp::ZERO);
        let kept = &sent[..sent.len() - 1];
        prop_assert_eq!(&forwarded[..kept.len()], kept);
        let tail = &forwarded[kept.len()..];
        prop_assert_eq!(tail, &b",\"forwarded_at\":\"1970-01-01T00:00:00Z\"}"[..]);
    }

    #[test]
    fn tensors_of_any_shape_survive(shape in prop::collection::vec(0..4_usize, 0..5)) {
        let len = shape.iter().product();
        let values: Vec<f64> = (0..len).map(|n| n as f64 / 3.0).collect();
        let tensor = Tensor::new(shape.clone(), values).unwrap();
        let text = serde_json::to_string(&tensor).unwrap();
        let read: Tensor = serde_json::from_str(&text).unwrap();
        // An empty outer dimension hides the inner ones, in JSON as everywhere.
        if !shape.contains(&0) {
            prop_assert_eq!(read, tensor);
        }
    }
}

#[test]
fn the_topic_table_has_a_row_for_every_topic_and_no_other() {
    let version = ModelVersion(7);
    let round = "ROUND".parse().unwrap();
    let proplet = "PROPLET".parse().unwrap();
    let topics = all_topics(&round, &proplet, version.0);
    assert_eq!(topics.len(), TOPICS.len());
    for topic in topics {
        let pattern = topic
            .to_string()
            .replace("ROUND", "{round_id}")
            .replace("PROPLET", "{proplet_id}")
            .replace("lines/cnn_v2", "lines/{line}")
            .replace("models/global_model", "models/{line}")
            .replace("s-1", "{session_id}")
            .replace("_v7", "_v{N}")
            .replace("/v7/", "/v{N}/")
            .replace(&Digest::of(b"module").to_string(), "{sha256}")
            .replace("chunks/7", "chunks/{i}");
        let row = TOPICS.iter().find(|row| row.pattern == pattern);
        let row = row.unwrap_or_else(|| panic!("{pattern} is not in the table"));
        assert_eq!(row.retained, topic.is_retained(), "{pattern}");
        assert!(Filter::Exactly(topic.clone()).matches(&topic));
    }
}

#[test]
fn an_address_has_one_spelling() {
    assert_eq!("fl/models/global_model_v12".parse(), Ok(ModelUri::global(ModelVersion(12))));
    for bad in [
        "v1",
        "fl/models/global_model_v01",
        "fl/models/global_model_v+1",
        "fl/models/latest",
        "fl/models/_v1",
        "fl/models/.._v",
        "fl/lines/cnn/latest",
        "../v1",
    ] {
        assert!(bad.parse::<ModelUri>().is_err(), "{bad}");
    }
    let cnn = ModelUri { line: "cnn_v2".parse().unwrap(), version: ModelVersion(7) };
    assert_eq!("fl/models/cnn_v2_v7".parse(), Ok(cnn));
    assert!("fl/lines/global_model/latest".parse::<Topic>().is_err(), "it has a home of its own");
    assert_eq!("".parse::<RoundId>(), Err(IdError::Empty));
    assert_eq!("a/b".parse::<RoundId>(), Err(IdError::Char('/')));
    assert!("..".parse::<RoundId>().is_err());
    assert!("x".repeat(129).parse::<RoundId>().is_err());
}

#[test]
fn the_poison_matrix_has_a_reason_for_every_row() {
    let base = |update: &str, n: &str| {
        format!(
            r#"{{"round_id":"r","proplet_id":"p","base_model_uri":"fl/models/global_model_v0","num_samples":{n},"metrics":{{}},"update":{update}}}"#
        )
    };
    let honest = r#"{"w":[1,1,1]}"#;
    for (payload, reason) in [
        (base(r#"{"w":[NaN,1,1]}"#, "100"), Rejection::NotFinite),
        (base(r#"{"w":[1,1,1]}"#, "NaN"), Rejection::NumSamples),
        (base(r#"{"w":[1,1,1]}"#, "-Infinity"), Rejection::NumSamples),
        (base(r#"{"w":[Infinity,1,1]}"#, "100"), Rejection::NotFinite),
        (base(r#"{"w":[1,-Infinity,1]}"#, "100"), Rejection::NotFinite),
        (base(r#"{"w":[1e999,1,1]}"#, "100"), Rejection::NotFinite),
        (base(honest, "0"), Rejection::NumSamples),
        (base(honest, "-50"), Rejection::NumSamples),
        (base(honest, "1.5"), Rejection::NumSamples),
        (base(honest, "\"many\""), Rejection::NumSamples),
        (base(honest, "null"), Rejection::NumSamples),
        (base(r#"{"w":[[1],[1,2]]}"#, "1"), Rejection::Malformed),
        (base(r#"{"w":[1],"w":[2]}"#, "1"), Rejection::Malformed),
        (base(r#"{"w":["1"]}"#, "1"), Rejection::Malformed),
        (
            base(&format!("{{\"w\":{}1{}}}", "[".repeat(60), "]".repeat(60)), "1"),
            Rejection::Malformed,
        ),
        (base("[1,2]", "1"), Rejection::Malformed),
        ("garbage".to_owned(), Rejection::Malformed),
        ("".to_owned(), Rejection::Malformed),
        ("{}".to_owned(), Rejection::Malformed),
    ] {
        let why = read_update(payload.as_bytes(), Some(&"p".parse().unwrap())).unwrap_err();
        assert_eq!(why.reason, reason, "{payload}: {why}");
    }
    let payload = base(honest, "1");
    let other = "q".parse().unwrap();
    let why = read_update(payload.as_bytes(), Some(&other)).unwrap_err();
    assert_eq!((why.reason, why.proplet_id), (Rejection::SenderMismatch, Some(other)));
}

#[test]
fn what_cannot_be_read_to_its_end_still_says_where_it_belongs() {
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let payloads = [
        format!(r#"{{"round_id":"r","proplet_id":"p","base_model_uri":{deep}}}"#),
        r#"{"round_id":"r","proplet_id":"p","base_model_uri":1e999}"#.to_owned(),
        r#"{"round_id":"r","proplet_id":"p","update":{},"update":{}}"#.to_owned(),
    ];
    for payload in payloads {
        let why = read_update(payload.as_bytes(), None).unwrap_err();
        assert_eq!(why.round_id, Some("r".parse().unwrap()), "{why}");
        assert_eq!(why.proplet_id, Some("p".parse().unwrap()), "{why}");
    }
}

#[test]
fn an_error_does_not_quote_megabytes() {
    let huge = "x".repeat(1 << 20);
    let update = format!(
        r#"{{"round_id":"r","proplet_id":"p","base_model_uri":"fl/models/global_model_v0","num_samples":1,"update":{{"w":"{huge}"}}}}"#
    );
    let why = read_update(update.as_bytes(), None).unwrap_err();
    assert!(why.what.len() < 600 && why.what.contains("line 1 column"), "{}", why.what.len());
    let start = format!(
        r#"{{"round_id":"r","model_uri":"fl/models/global_model_v0","participants":["p"],"k_of_n":"{huge}"}}"#
    );
    let envelope = protocol::Envelope { topic: Topic::RoundStart, payload: start.into() };
    let why = envelope.open::<RoundStart>().unwrap_err().to_string();
    assert!(why.len() < 600 && why.contains("line 1 column"), "{}", why.len());
}

#[test]
fn an_address_of_a_million_parts_is_refused_in_a_few_words() {
    let list = format!("[{}0]", "0,".repeat(1_000_000));
    for field in ["round_id", "proplet_id", "base_model_uri", "num_samples"] {
        let payload = format!(r#"{{"{field}":{list}}}"#);
        let why = read_update(payload.as_bytes(), None).unwrap_err();
        assert!(why.what.len() < 200, "{field}: {}", why.what.len());
    }
    let metrics: Vec<String> = (0..100_000).map(|n| format!(r#""m{n}":{n}"#)).collect();
    let payload = format!(
        r#"{{"round_id":"r","proplet_id":"p","base_model_uri":"fl/models/global_model_v0","num_samples":1,"metrics":{{{}}},"update":{{"b":1}}}}"#,
        metrics.join(",")
    );
    let update = read_update(payload.as_bytes(), None).unwrap();
    assert_eq!(update.metrics.len(), protocol::message::METRICS_MAX);
}

#[test]
fn inputs_of_a_start_are_measured_before_they_are_opened() {
    let start = |inputs: &str| format!(r#"{{"id":"t","inputs":{inputs}}}"#);
    let read = serde_json::from_str::<TaskStart>(&start(r#"[1,{"a":[]}]"#)).unwrap();
    assert_eq!(read.inputs.len(), 2);
    let bomb = start(&format!("[{}0]", "0,".repeat(1 << 19)));
    let why = serde_json::from_str::<TaskStart>(&bomb).unwrap_err().to_string();
    assert!(why.contains("at most 1048576 are taken"), "{why}");
    assert!(serde_json::from_str::<TaskStart>(&start("7")).is_err());
}

#[test]
fn more_participants_than_the_limit_are_refused_before_all_are_read() {
    let many: Vec<String> = (0..=100_000).map(|n| format!("\"p{n}\"")).collect();
    let start = |rest: &str| {
        format!(
            r#"{{"round_id":"r","model_uri":"fl/models/global_model_v0","participants":[{}{rest}"#,
            many.join(",")
        )
    };
    let why = serde_json::from_str::<RoundStart>(&start(",this is not even JSON")).unwrap_err();
    assert!(why.to_string().contains("more than 100000 participants"), "{why}");
}

#[test]
fn a_poisoned_metric_does_not_cost_an_honest_update() {
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let metrics = format!(r#"{{"a":{deep},"b":1e999,"c":"1","d":null,"loss":0.5}}"#);
    for (metrics, kept) in [(metrics.as_str(), 1), (&deep, 0), ("7", 0), ("null", 0)] {
        let payload = format!(
            r#"{{"round_id":"r","proplet_id":"p","base_model_uri":"fl/models/global_model_v0","num_samples":1,"metrics":{metrics},"update":{{"b":1}}}}"#
        );
        let update = read_update(payload.as_bytes(), None).unwrap();
        assert_eq!(update.metrics.len(), kept);
    }
}

#[test]
fn a_forwarded_message_says_who_sent_it_where_the_payload_does_not() {
    let origin = origin();
    for payload in
        ["{}", "{ }", "garbage", "", r#"{"w":[NaN]}"#, r#"{"proplet_id":"q","round_id":"r"}"#]
    {
        let forwarded = forward(payload.as_bytes(), &origin, Timestamp::ZERO);
        let read = Forwarded::read(forwarded);
        assert_eq!(read.origin.as_ref(), Some(&origin), "{payload}");
    }
    let honest = forward(&update(vec![]).seal().payload, &origin, Timestamp::ZERO);
    assert_eq!(Forwarded::read(honest).origin, None);
}

#[test]
fn a_state_is_a_word_or_a_number() {
    for (n, state) in TaskState::ALL.into_iter().enumerate() {
        assert_eq!(serde_json::from_str::<TaskState>(&n.to_string()).unwrap(), state);
        let word = format!("\"{state}\"");
        assert_eq!(serde_json::from_str::<TaskState>(&word).unwrap(), state);
    }
    for bad in ["7", "-1", "\"Flying\"", "null", "1.5"] {
        assert!(serde_json::from_str::<TaskState>(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_start_with_less_than_everything_gets_the_defaults() {
    let text = r#"{"round_id":"r","model_uri":"fl/models/global_model_v0","participants":["a","b"],"novel":1}"#;
    let start: RoundStart = serde_json::from_str(text).unwrap();
    assert_eq!((start.k_of_n, start.k_effective(), start.timeout_s), (3, 2, 30));
    let again: RoundStart = serde_json::from_slice(&start.seal().payload).unwrap();
    assert_eq!(again.fingerprint(), start.fingerprint());
    let alone = text.replace("[\"a\",\"b\"]", "[]");
    let nobody: RoundStart = serde_json::from_str(&alone).unwrap();
    assert_eq!(nobody.check().unwrap_err(), "participants is empty");
    let late = alone.replace("\"novel\":1", "\"k_of_n\":4,\"staleness_max\":2,\"session\":\"s\"");
    let late: RoundStart = serde_json::from_str(&late).unwrap();
    assert_eq!((late.check(), late.k_effective()), (Ok(()), 4));
    let of_none = RoundStart { session: None, ..late };
    assert!(of_none.check().unwrap_err().contains("needs a session"));
    for bad in [
        text.replace("\"a\"", "\"#\""),
        text.replace("\"novel\":1", "\"timeout_s\":0"),
        text.replace("\"novel\":1", "\"k_of_n\":-1"),
        text.replace("\"novel\":1", "\"hyperparams\":[1]"),
        text.replace("model_v0", "model_vv0"),
    ] {
        assert!(serde_json::from_str::<RoundStart>(&bad).is_err(), "{bad}");
    }
}

fn origin() -> Origin {
    Origin { round_id: "r".parse().unwrap(), proplet_id: "p".parse().unwrap() }
}

fn update(values: Vec<f64>) -> Update {
    let tensors: Tensors =
        [("w".to_owned(), Tensor::new(vec![values.len()], values).unwrap())].into_iter().collect();
    Update {
        round_id: "r".parse().unwrap(),
        proplet_id: "p".parse().unwrap(),
        base_model_uri: ModelUri::global(ModelVersion(0)),
        num_samples: 3,
        metrics: [].into(),
        update: tensors,
        form: protocol::Form::Json,
    }
}

#[test]
fn a_whole_model_reads_from_bytes() {
    let bytes = Bytes::from_static(br#"{"w":[0.0,0.0,0.0],"b":0.0,"version":0}"#);
    let model: Model = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(model.tensors.schema().parameters(), 4);
    for bad in [
        r#"{"w":[0.0]}"#,
        r#"{"version":-1}"#,
        r#"{"w":{"x":1},"version":1}"#,
        r#"{"w":[1],"version":1,"version":2}"#,
    ] {
        assert!(serde_json::from_str::<Model>(bad).is_err(), "{bad}");
    }
}
