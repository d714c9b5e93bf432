//! GET /metrics: counts for Prometheus.

use axum::{extract::State, response::Response};
use fleet::{Answer, Ask, Census, Counts};
use protocol::message::TaskState;
use service::{Figures, Standing, figures::labels};

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
    let mut now = Figures::default();
    show(&census, &api.status.borrow(), &mut now);
    Ok(api.counted.exposition(&now))
}

fn show(census: &Census, status: &Status, now: &mut Figures) {
    Standing::show([&status.standing], now);
    now.gauge("aileron_proplets", "Proplets known", census.proplets as u64);
    now.gauge("aileron_proplets_alive", "Proplets alive", census.proplets_alive as u64);
    now.gauge("aileron_rounds", "Started rounds remembered", census.rounds as u64);
    now.gauge("aileron_files_bytes", "Modules held, in bytes", census.files_len as u64);
    let tasks = TaskState::ALL.iter().map(|state| {
        let count = census.tasks.get(state).copied().unwrap_or(0);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        (labels([("state", &state.to_string())]), f64::from(count))
    });
    now.gauges("aileron_tasks", "Tasks held, by state", tasks);
    let unreadable = "Messages that could not be read";
    now.counted("aileron_messages_unreadable_total", unreadable, status.unreadable);
    show_counts(&census.counts, now);
}

fn show_counts(counts: &Counts, now: &mut Figures) {
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
    let by_kind = |(kind, count)| (labels([("kind", kind)]), count);
    let received = received.map(by_kind);
    now.counted_by("aileron_messages_received_total", "Messages read, by kind", received);
    now.counted_by("aileron_messages_sent_total", "Messages sent, by kind", sent.map(by_kind));
    let rows = [
        ("aileron_messages_ignored_total", "Messages whose sender had no say", counts.ignored),
        (
            "aileron_updates_forwarded_total",
            "Updates handed to the coordinator",
            counts.updates_forwarded,
        ),
        (
            "aileron_starts_resent_total",
            "Starts sent again because they had not arrived",
            counts.starts_resent,
        ),
        ("aileron_round_repeats_total", "Round starts heard again", counts.round_repeats),
        (
            "aileron_round_conflicts_total",
            "Round starts ignored: same id, another content",
            counts.round_conflicts,
        ),
    ];
    for (name, help, count) in rows {
        now.counted(name, help, count);
    }
}
