//! GET /metrics: counts for Prometheus.

use axum::{extract::State, response::Response};
use fleet::{Answer, Ask, Census};
use http_api::{Family, exposition};
use protocol::message::TaskState;

use super::{Api, ApiError, out_of_turn};
use crate::status::Status;

/// Counts and gauges, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", tag = "manager", responses(
    (status = 200, description = "Prometheus text", body = String, content_type = "text/plain"),
    (status = 503, description = "The manager cannot answer", body = http_api::ErrorBody),
))]
pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, ApiError> {
    let Answer::Census(census) = api.ask(Ask::Census).await? else {
        return Err(out_of_turn());
    };
    let status = api.status.borrow();
    Ok(exposition(gauges(&census, &status).into_iter().chain(counters(&census, &status))))
}

fn gauges(census: &Census, status: &Status) -> Vec<Family> {
    let gauge = Family::gauge;
    let tasks = TaskState::ALL.iter().map(|state| {
        let count = census.tasks.get(state).copied().unwrap_or(0);
        (format!("{{state=\"{state}\"}}"), count as u64)
    });
    let by_state = "Tasks held, by state";
    vec![
        gauge("aileron_broker_connected", "Whether the broker is there", status.connected.into()),
        gauge(
            "aileron_storage_ok",
            "Whether the state file takes writes",
            status.storage.is_none().into(),
        ),
        gauge("aileron_proplets", "Proplets known", census.proplets as u64),
        gauge("aileron_proplets_alive", "Proplets alive", census.proplets_alive as u64),
        gauge("aileron_rounds", "Started rounds remembered", census.rounds as u64),
        gauge("aileron_files_bytes", "Modules held, in bytes", census.files_len as u64),
        Family { name: "aileron_tasks", kind: "gauge", help: by_state, samples: tasks.collect() },
    ]
}

fn counters(census: &Census, status: &Status) -> Vec<Family> {
    let counts = &census.counts;
    let counter = |name, help, samples: &[(&str, u64)]| Family {
        name,
        kind: "counter",
        help,
        samples: samples
            .iter()
            .map(|(kind, value)| match *kind {
                "" => (String::new(), *value),
                kind => (format!("{{kind=\"{kind}\"}}"), *value),
            })
            .collect(),
    };
    let received = [
        ("round_start", counts.round_starts),
        ("update", counts.updates_forwarded),
        ("proplet_create", counts.proplet_creates),
        ("proplet_alive", counts.proplet_alives),
        ("proplet_metrics", counts.proplet_metrics),
        ("task_metrics", counts.task_metrics),
        ("task_results", counts.task_results),
    ];
    let sent = [
        ("update", counts.updates_forwarded),
        ("start", counts.starts_sent),
        ("stop", counts.stops_sent),
        ("absent", counts.absents_sent),
        ("module_piece", counts.module_pieces_sent),
    ];
    let one = |value| [("", value)];
    vec![
        counter("aileron_messages_received_total", "Messages read, by kind", &received),
        counter("aileron_messages_sent_total", "Messages sent, by kind", &sent),
        counter(
            "aileron_messages_unreadable_total",
            "Messages that could not be read",
            &one(status.unreadable),
        ),
        counter(
            "aileron_messages_ignored_total",
            "Messages whose sender had no say",
            &one(counts.ignored),
        ),
        counter(
            "aileron_updates_forwarded_total",
            "Updates handed to the coordinator",
            &one(counts.updates_forwarded),
        ),
        counter(
            "aileron_starts_resent_total",
            "Starts sent again because they had not arrived",
            &one(counts.starts_resent),
        ),
        counter(
            "aileron_round_repeats_total",
            "Round starts heard again",
            &one(counts.round_repeats),
        ),
        counter(
            "aileron_round_conflicts_total",
            "Round starts ignored: same id, another content",
            &one(counts.round_conflicts),
        ),
    ]
}
