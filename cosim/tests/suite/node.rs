//! The node's side is as strict as the harness's, in every dialect.

use cosim::{
    node::{self, NodeError, Service, Step, Window},
    wire::Event,
};

struct Mirror;

impl Service for Mirror {
    fn advance(&mut self, window: Window) -> Result<Step, String> {
        if window.to_us == 666 {
            return Err("no luck".to_owned());
        }
        let late_us = (window.to_us == 667).then_some(668);
        let back = |event: Event| {
            let time_us = late_us.or(event.time_us);
            Event { time_us, src: None, dst: event.src, ..event }
        };
        Ok(Step { events: window.events.into_iter().map(back).collect(), next_us: None })
    }
}

/// What the node says to these lines, and how it ends.
fn say(orders: &str) -> (String, Result<(), NodeError>) {
    let mut said = vec![];
    let end = node::serve(orders.as_bytes(), &mut said, Mirror);
    (String::from_utf8(said).unwrap(), end)
}

#[test]
fn each_dialect_is_answered_in_kind() {
    let (said, end) = say("{\"type\":\"INIT\",\"time_us\":0,\"config\":{}}\n\
         {\"type\":\"ADVANCE\",\"time_us\":10,\"events\":[{\"type\":\"a\",\"time_us\":4,\"src\":\"x\",\"payload\":1}]}\n\
         {\"type\":\"SHUTDOWN\"}\n");
    end.unwrap();
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["type"], "READY");
    assert_eq!((&lines[1]["type"], &lines[1]["time_us"]), (&"DONE".into(), &10.into()));
    assert_eq!(
        (&lines[1]["events"][0]["dst"], &lines[1]["events"][0]["payload"]),
        (&"x".into(), &1.into())
    );

    let (said, end) = say("INIT {\"seed\":1}\nADVANCE 10\n[]\nADVANCE 20 []\nSHUTDOWN\n");
    end.unwrap();
    assert_eq!(said, "READY\nDONE\n[]\nDONE\n[]\n");
    let (said, end) = say("INIT sensor1 {\"seed\":1}\nADVANCE 10\n[]\n");
    end.unwrap();
    assert_eq!(said, "READY\nDONE\n[]\n", "the end of the orders is an end");
}

#[test]
fn what_is_against_the_rules_is_answered_with_an_error() {
    let told = |orders: &str| {
        let (said, end) = say(orders);
        let error = end.unwrap_err().to_string();
        let last = said.lines().last().unwrap_or_default().to_owned();
        assert!(
            last.contains("ERROR") && last.contains(&error.replace('"', "\\\""))
                || last == format!("ERROR {error}"),
            "{last} / {error}"
        );
        error
    };
    assert_eq!(told("ADVANCE 5 []\n"), "order 1: ADVANCE before INIT");
    assert_eq!(told("{\"type\":\"ADVANCE\",\"time_us\":5}\n"), "order 1: ADVANCE before INIT");
    assert_eq!(told("INIT {}\nINIT {}\n"), "order 2: a second INIT");
    let back = told("INIT {}\nADVANCE 5 []\nADVANCE 4 []\n");
    assert_eq!(back, "order 3: time cannot go back from 5 us to 4 us");
    let event = r#"[{"type":"a","time_us":9}]"#;
    let outside = told(&format!("INIT {{}}\nADVANCE 5 {event}\n"));
    assert_eq!(outside, "order 2: event \"a\" at Some(9) us is outside of its window, 0 to 5 us");
    assert!(told("INIT {}\nADVANCE 5\nnonsense\n").starts_with("order 3 is malformed: not JSON"));
    assert!(told("hello\n").starts_with("order 1 is malformed: a first line should begin with"));
    assert_eq!(told("INIT {}\nADVANCE 666 []\n"), "order 2: the service failed: no luck");
    let event = r#"[{"type":"a","time_us":9}]"#;
    let late = told(&format!("INIT {{}}\nADVANCE 667 {event}\n"));
    assert!(
        late.ends_with("would send \"a\" at 668 us, outside of its window, 0 to 667 us"),
        "{late}"
    );
    assert_eq!(told(&"x".repeat((16 << 20) + 1)), "order 1 is longer than 16777216 bytes");
}
