//! The way to the broker, and what this device may say and hear there.

use std::{io::ErrorKind, time::Duration};

use access::{facts, moment};
use proplet::PropletSettings;
use protocol::{
    Filter, Letter as _, ModelLine, PropletId, Topic,
    message::{AliveStatus, ModelLatest, PropletAlive},
};
use service::{
    Clock as _, SystemClock,
    health::{self, HealthError},
    settings::Scheme,
    transport::mqtt::{
        Config,
        visit::{self, Visit},
    },
};

use super::{Report, Seen, wrong};

/// How long a retained message may take.
const MODEL_MAX: Duration = Duration::from_secs(5);
/// In the order in which one needs the other.
const STEPS: [&str; 7] = ["name", "tcp", "tls", "connect", "subscribe", "publish", "model"];

/// Goes as far as it gets; what comes after a step that fails is not looked at.
pub(super) async fn inspect(settings: &PropletSettings, report: &mut Report) {
    let before = report.checks.len();
    go(settings, report).await;
    let done = report.checks.len() - before;
    for step in &STEPS[done.min(STEPS.len())..] {
        report.skip(step, "it needs what failed before");
    }
}

/// Stops, with an answer of nothing, at what cannot go on.
async fn go(settings: &PropletSettings, report: &mut Report) -> Option<()> {
    let (address, own) = (&settings.mqtt.mqtt_address, id(settings));
    let advice = "check mqtt_address, and the device's network";
    let found = visit::resolve(address).await;
    let found = found.or_else(|why| wrong(format!("{}: {why}", address.host), advice));
    let seen = found.as_ref().map(|all| format!("{} is {}", address.host, all[0].ip()));
    report.add("name", seen.map_err(Clone::clone)).then_some(())?;
    let addresses = found.ok()?;

    let advice = "check that the broker runs, and that no firewall is between";
    let dialled = visit::dial(&addresses).await;
    let dialled = dialled.or_else(|why| wrong(format!("{address}: {why}"), advice));
    let seen = dialled.as_ref().map(|_| format!("{address} answers"));
    report.add("tcp", seen.map_err(Clone::clone)).then_some(())?;
    let stream = dialled.ok()?;

    let config = settings.mqtt.config(own.as_str(), None);
    let config = config.or_else(|why| wrong(why, "correct the setting"));
    let config = match config {
        Ok(config) => config,
        Err(why) => {
            report.add("tls", Err(why));
            return None;
        }
    };
    match address.scheme {
        Scheme::Tcp | Scheme::WebSocket => {
            report.skip("tls", "the connection is not encrypted (mqtt_address)");
        }
        Scheme::Tls | Scheme::WebSocketTls => {
            report.add("tls", tls(&config, stream).await).then_some(())?;
        }
    }

    let advice = "ask the operator whether this device is on the roster: aileron token list";
    let visited = Visit::begin(&config).await;
    let visited = visited.or_else(|why| wrong(why, advice));
    let seen = visited.as_ref().map(|_| format!("the broker lets {own} in"));
    report.add("connect", seen.map_err(Clone::clone)).then_some(())?;
    let mut visit = visited.ok()?;
    report.add("subscribe", subscribe(&mut visit, &own).await);
    match runs(settings).await {
        false => report.add("publish", publish(&mut visit, &own).await),
        true => {
            report.skip("publish", "the proplet runs, and would be taken for one that does not");
            true
        }
    };
    report.add("model", model(&mut visit).await);
    visit.end().await;
    Some(())
}

/// Whether the proplet whose settings these are runs already, on this machine.
async fn runs(settings: &PropletSettings) -> bool {
    let dir = settings.state.state_dir.clone();
    let asked = tokio::task::spawn_blocking(move || health::ask(&dir)).await;
    match asked.expect("asking does not panic, and nobody aborts it") {
        Ok(()) | Err(HealthError::Failing { .. } | HealthError::Unreadable { .. }) => true,
        Err(HealthError::NotRunning { .. }) => false,
        // What it has left behind when it was killed answers nobody.
        Err(HealthError::Silent { source, .. }) => source.kind() != ErrorKind::ConnectionRefused,
    }
}

/// Without a name yet, one that is nobody's.
fn id(settings: &PropletSettings) -> PropletId {
    let nobody = || "preflight".parse().expect("a word is an id");
    settings.id.clone().unwrap_or_else(nobody)
}

async fn tls(config: &Config, stream: tokio::net::TcpStream) -> Seen {
    let advice = "check the clock, mqtt_ca_file and mqtt_server_name; if they are right, whoever \
                  answers there is not the broker";
    let shown = visit::shake(config, stream).await.or_else(|why| wrong(why, advice))?;
    let facts = shown.and_then(|der| facts(&der));
    Ok(facts.map_or_else(
        || "the broker's certificate is good".to_owned(),
        |facts| {
            let days = (facts.until - moment(SystemClock.now())).whole_days();
            let name = facts.name.unwrap_or_default();
            format!("the broker's certificate ({name}) is good for {days} more days")
        },
    ))
}

/// What a proplet hears.
async fn subscribe(visit: &mut Visit, own: &PropletId) -> Seen {
    let advice = "ask the operator for the role proplet under this very name";
    let filters = [
        Filter::Exactly(Topic::TaskStart),
        Filter::Exactly(Topic::TaskStop),
        Filter::Exactly(Topic::DirectStart { proplet: own.clone() }),
        Filter::Exactly(Topic::DirectStop { proplet: own.clone() }),
        Filter::AcksOf(own.clone()),
        Filter::UpdateWantsOf(own.clone()),
        latest(),
    ];
    for filter in &filters {
        match visit.may_listen(filter).await {
            Ok(true) => {}
            Ok(false) => return wrong(format!("the broker refuses {filter:?}"), advice),
            Err(why) => return wrong(format!("{filter:?}: {why}"), advice),
        }
    }
    Ok(format!("tasks and verdicts of {own}, and models: {} filters", filters.len()))
}

/// Says the truth: that this proplet does not run. The broker's answer is what counts.
async fn publish(visit: &mut Visit, own: &PropletId) -> Seen {
    let advice = "ask the operator for the role proplet under this very name";
    let alive = PropletAlive {
        proplet_id: own.clone(),
        status: AliveStatus::Offline,
        namespace: String::new(),
        tasks: None,
    };
    match visit.may_say(alive.seal()).await {
        Ok(true) => Ok("the broker takes what this device says".to_owned()),
        Ok(false) => wrong("the broker refuses what this device says", advice),
        Err(why) => wrong(why, advice),
    }
}

/// Whether what the platform says arrives here: its newest model is said to whoever listens.
async fn model(visit: &mut Visit) -> Seen {
    let advice = "check domain_id, channel_id and topic_prefix, and that the model server runs";
    let Filter::Exactly(topic) = latest() else { return wrong("no topic", advice) };
    let heard = visit.hear(&topic, MODEL_MAX).await.or_else(|why| wrong(why, advice))?;
    let Some(payload) = heard else {
        return wrong(format!("nothing is heard on {topic}"), advice);
    };
    match serde_json::from_slice::<ModelLatest>(&payload) {
        Ok(latest) => Ok(format!("the newest is {}", latest.topic)),
        Err(why) => wrong(format!("what is heard on {topic} is no model's name: {why}"), advice),
    }
}

fn latest() -> Filter {
    Filter::Exactly(Topic::ModelLatest { line: ModelLine::default() })
}
