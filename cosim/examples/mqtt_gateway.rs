//! A node that routes MQTT messages between nodes, in no virtual time: subscriptions and retained messages.
//!
//! `mqtt_subscribe {filter}` and `mqtt_publish {topic, payload, retain}` come in; `mqtt_message {topic, payload, retain}`
//! goes to each subscriber, once, at the time of the publication.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use cosim::{
    node::{self, Service, Step, Window},
    wire::Event,
};
use serde_json::{Value, json};

#[derive(Default)]
struct Gateway {
    filters: BTreeMap<String, BTreeSet<String>>,
    retained: BTreeMap<String, Value>,
}

impl Service for Gateway {
    fn advance(&mut self, window: Window) -> Result<Step, String> {
        let events = window.events.iter().flat_map(|event| self.route(event)).collect();
        Ok(Step { events, next_us: Some(u64::MAX) })
    }
}

impl Gateway {
    fn route(&mut self, event: &Event) -> Vec<Event> {
        let client = event.src.clone().unwrap_or_default();
        let word = |key: &str| event.payload[key].as_str().unwrap_or_default().to_owned();
        match event.kind.as_str() {
            "mqtt_subscribe" => {
                let filter = word("filter");
                let kept = self.retained.iter().filter(|(topic, _)| matches(&filter, topic));
                let sent =
                    kept.map(|(topic, payload)| message(event, &client, topic, payload, true));
                let sent = sent.collect();
                self.filters.entry(client).or_default().insert(filter);
                sent
            }
            "mqtt_unsubscribe" => {
                self.filters.entry(client).or_default().remove(&word("filter"));
                vec![]
            }
            "mqtt_publish" => {
                let (topic, payload) = (word("topic"), &event.payload["payload"]);
                if event.payload["retain"].as_bool() == Some(true) {
                    match payload.as_str() {
                        Some("") => self.retained.remove(&topic),
                        Some(_) | None => self.retained.insert(topic.clone(), payload.clone()),
                    };
                }
                let wants = |filters: &BTreeSet<String>| filters.iter().any(|f| matches(f, &topic));
                let clients = self.filters.iter().filter(|(_, filters)| wants(filters));
                clients.map(|(client, _)| message(event, client, &topic, payload, false)).collect()
            }
            // Whatever else reaches a broker has no effect there.
            _ => vec![],
        }
    }
}

fn message(cause: &Event, client: &str, topic: &str, payload: &Value, retain: bool) -> Event {
    Event {
        time_us: cause.time_us,
        kind: "mqtt_message".to_owned(),
        src: None,
        dst: Some(client.to_owned()),
        payload: json!({"topic": topic, "payload": payload, "retain": retain}),
        size_bytes: cause.size_bytes,
    }
}

/// Whether a topic is meant by a filter, as section 4.7 of MQTT 3.1.1 says.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            (_, _) => return false,
        }
    }
    levels.next().is_none()
}

fn main() -> ExitCode {
    match node::run(Gateway::default()) {
        Ok(()) => ExitCode::SUCCESS,
        // The harness has been told why.
        Err(_) => ExitCode::FAILURE,
    }
}
