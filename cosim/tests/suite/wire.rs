//! The three dialects: what is written is read again, and no bytes do harm.

use cosim::wire::{
    Advance, Answer, AnswerReader, Completed, DIALECTS, Dialect, Event, Init, Order, OrderReader,
    WireError,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn orders(dialect: Dialect, lines: &[&str]) -> Result<Vec<Order>, WireError> {
    let mut reader = OrderReader::new(dialect);
    let taken = lines.iter().map(|line| reader.take(line.as_bytes()));
    Ok(taken.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn answers(dialect: Dialect, text: &[u8]) -> Result<Vec<Answer>, WireError> {
    let mut reader = AnswerReader::new(dialect);
    let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n');
    let taken: Result<Vec<_>, _> = lines.map(|line| reader.take(line)).collect();
    Ok(taken?.into_iter().flatten().collect())
}

#[test]
fn the_first_line_tells_the_dialect() {
    let detected = |line: &str| Dialect::detect(line.as_bytes());
    assert_eq!(detected("{\"type\":\"INIT\"}"), Ok(Dialect::Json));
    assert_eq!(detected("INIT {\"seed\":42}\r"), Ok(Dialect::PlainStdio));
    assert_eq!(detected("INIT"), Ok(Dialect::PlainStdio));
    assert_eq!(detected("INIT sensor1 {\"seed\": 42}"), Ok(Dialect::PlainTcp));
    assert!(matches!(detected("HELO"), Err(WireError::UnknownDialect { .. })));
    assert!(matches!(detected(""), Err(WireError::UnknownDialect { .. })));
    assert!(matches!(Dialect::detect(b"\xff"), Err(WireError::NotText { at: 0 })));
}

/// The lines are those of xEdgeSim's coordinator, socket nodes and containers.
#[test]
fn the_originals_lines_are_understood() {
    let init = orders(Dialect::PlainTcp, &["INIT sensor1 {\"seed\": 42}"]).unwrap();
    let config = json!({"seed": 42});
    assert_eq!(init, [Order::Init(Init { node: "sensor1".to_owned(), seed: 42, config })]);

    let event = r#"[{"timestamp_us": 5, "event_type": "t", "source": "a", "destination": "b", "payload": {"v": 1}}]"#;
    let apart = orders(Dialect::PlainStdio, &["ADVANCE 1000", event]).unwrap();
    let together = orders(Dialect::PlainStdio, &[&format!("ADVANCE 1000 {event}")]).unwrap();
    assert_eq!(apart, together);
    let [Order::Advance(Advance { to_us: 1000, events })] = &apart[..] else { panic!("{apart:?}") };
    assert_eq!(events[0].time_us, Some(5));
    assert_eq!((events[0].kind.as_str(), events[0].dst.as_deref()), ("t", Some("b")));

    let none = orders(Dialect::PlainStdio, &["ADVANCE 7", ""]).unwrap();
    assert_eq!(none, [Order::Advance(Advance { to_us: 7, events: vec![] })]);

    let done = answers(
        Dialect::PlainTcp,
        br#"READY
DONE
[{"time_us": 3, "type": "sample", "src": "s", "dst": null, "payload": null, "size_bytes": 9}]
ERROR it broke
"#,
    );
    let done = done.unwrap();
    assert_eq!(done[0], Answer::Ready);
    let Answer::Done(completed) = &done[1] else { panic!("{done:?}") };
    assert_eq!((completed.events[0].dst.as_deref(), completed.events[0].size_bytes), (None, 9));
    assert_eq!(done[2], Answer::Error("it broke".to_owned()));
}

/// The lines are those of seed 000's section 3.1.
#[test]
fn the_documented_objects_are_understood() {
    let order = r#"{"type": "ADVANCE", "time_us": 1000000, "events": [
        {"type": "mqtt_message", "topic": "sensors/temp", "payload": "25.3"}]}"#;
    let order = orders(Dialect::Json, &[&order.replace('\n', " ")]).unwrap();
    let [Order::Advance(advance)] = &order[..] else { panic!("{order:?}") };
    assert_eq!(advance.events[0].payload, json!({"topic": "sensors/temp", "payload": "25.3"}));

    let done = br#"{"type":"DONE","time_us":5,"events":[{"type":"inference_result","label":"anomaly","confidence":0.95}]}"#;
    let done = answers(Dialect::Json, done).unwrap();
    let [Answer::Done(done)] = &done[..] else { panic!("{done:?}") };
    assert_eq!(done.events[0].payload, json!({"label": "anomaly", "confidence": 0.95}));
    assert_eq!((done.time_us, done.next_us, done.events[0].time_us), (Some(5), None, None));
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = |dialect, line: &str| orders(dialect, &[line]).unwrap_err().to_string();
    let json = |line| wrong(Dialect::Json, line);
    assert!(json("{").starts_with("not JSON ("), "{}", json("{"));
    assert_eq!(json("[]"), "expected a JSON object, found []");
    assert_eq!(json("{}"), "`type` is missing");
    assert_eq!(json(r#"{"type":"ADVANCE"}"#), "`time_us` is missing");
    let negative = json(r#"{"type":"ADVANCE","time_us":-1}"#);
    assert_eq!(negative, "`time_us` should be a whole number, 0 or more, found -1");
    let event = json(r#"{"type":"ADVANCE","time_us":1,"events":[{"type":"a"},{}]}"#);
    assert_eq!(event, "event 1: `type` is missing");
    let list = json(r#"{"type":"ADVANCE","time_us":1,"events":{}}"#);
    assert_eq!(list, "expected a JSON list of events, found {}");
    assert!(json(r#"{"type":"READY"}"#).ends_with("found \"READY\""));
    let time = wrong(Dialect::PlainStdio, "ADVANCE soon []");
    assert_eq!(time, "`time` should be a whole number of microseconds, found soon");
    assert!(wrong(Dialect::PlainTcp, "INIT a 5").contains("`config` should be an object"));
    assert!(wrong(Dialect::PlainTcp, &"x".repeat(9999)).len() < 300);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300f64..1e300).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

fn event() -> impl Strategy<Value = Event> {
    let name = || prop::option::of(".{0,8}");
    (prop::option::of(any::<u64>()), ".{0,8}", name(), name(), value(), any::<u64>()).prop_map(
        |(time_us, kind, src, dst, payload, size_bytes)| Event {
            time_us,
            kind,
            src,
            dst,
            payload,
            size_bytes,
        },
    )
}

fn order() -> impl Strategy<Value = Order> {
    let init = ("[A-Za-z0-9._-]{1,9}", any::<u64>()).prop_map(|(node, seed)| {
        Order::Init(Init { node, seed, config: json!({"seed": seed, "rate": 0.1}) })
    });
    let advance = (any::<u64>(), prop::collection::vec(event(), 0..4))
        .prop_map(|(to_us, events)| Order::Advance(Advance { to_us, events }));
    prop_oneof![init, advance, Just(Order::Shutdown)]
}

fn answer() -> impl Strategy<Value = Answer> {
    let done = (any::<u64>(), prop::collection::vec(event(), 0..4), prop::option::of(any::<u64>()));
    prop_oneof![
        Just(Answer::Ready),
        "[a-z][a-z ]{0,20}[a-z]".prop_map(Answer::Error),
        done.prop_map(|(time_us, events, next_us)| {
            Answer::Done(Completed { time_us: Some(time_us), events, next_us })
        }),
    ]
}

/// What a dialect does not carry is lost on the way, and nothing else.
fn carried(dialect: Dialect, events: &[Event]) -> Vec<Event> {
    let size = |event: &Event| match dialect {
        Dialect::Json | Dialect::PlainTcp => event.size_bytes,
        Dialect::PlainStdio => 0,
    };
    events.iter().map(|event| Event { size_bytes: size(event), ..event.clone() }).collect()
}

proptest! {
    #[test]
    fn an_order_that_is_written_is_read(order in order()) {
        for dialect in DIALECTS {
            let text = dialect.write_order(&order);
            let text = std::str::from_utf8(&text).unwrap();
            let lines: Vec<_> = text.strip_suffix('\n').unwrap().split('\n').collect();
            let expected = match (&order, dialect) {
                (Order::Init(init), Dialect::PlainStdio) => {
                    Order::Init(Init { node: String::new(), ..init.clone() })
                }
                (Order::Advance(Advance { to_us, events }), _) => {
                    Order::Advance(Advance { to_us: *to_us, events: carried(*dialect, events) })
                }
                (Order::Init(_) | Order::Shutdown, _) => order.clone(),
            };
            prop_assert_eq!(orders(*dialect, &lines).unwrap(), vec![expected]);
            if matches!(order, Order::Init(_)) {
                prop_assert_eq!(Dialect::detect(lines[0].as_bytes()), Ok(*dialect));
            }
        }
    }

    #[test]
    fn an_answer_that_is_written_is_read(answer in answer()) {
        for dialect in DIALECTS {
            let expected = match &answer {
                Answer::Done(done) => Answer::Done(Completed {
                    events: carried(*dialect, &done.events),
                    time_us: done.time_us.filter(|_| *dialect == Dialect::Json),
                    next_us: done.next_us.filter(|_| *dialect == Dialect::Json),
                }),
                Answer::Ready | Answer::Error(_) => answer.clone(),
            };
            prop_assert_eq!(answers(*dialect, &dialect.write_answer(&answer)).unwrap(), vec![expected]);
        }
    }

    #[test]
    fn no_bytes_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..4)) {
        for dialect in DIALECTS {
            let (mut orders, mut answers) = (OrderReader::new(*dialect), AnswerReader::new(*dialect));
            for line in &lines {
                drop(Dialect::detect(line));
                drop(orders.take(line));
                drop(answers.take(line));
            }
        }
    }

    /// Nearly right is nearer to trouble than any bytes.
    #[test]
    fn no_bent_line_panics(
        answer in answer(), order in order(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        for dialect in DIALECTS {
            for mut text in [dialect.write_answer(&answer), dialect.write_order(&order)] {
                let at = at.index(text.len());
                text[at] = byte;
                let mut orders = OrderReader::new(*dialect);
                drop(answers(*dialect, &text));
                text.split(|byte| *byte == b'\n').for_each(|line| drop(orders.take(line)));
            }
        }
    }
}
