//! /fl/sessions/{id}/history: one row for each round that made a model.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use http_api::{ApiError, ErrorBody, Id, Words};
use protocol::SessionId;
use serde::Serialize;
use session::HistoryRow;
use utoipa::ToSchema;

use super::{Api, sessions::unknown};

const CONTENT_TYPE: &str = "text/csv; charset=utf-8";

/// A round of a session, its evaluations included.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "HistoryRow")]
pub(super) struct RowBody {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    row: HistoryRow,
    /// Every number of it by one name: the metrics, those of evaluations with `eval_` or `central_`
    /// before them, and their quantiles, like `eval_accuracy_p10`.
    series: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryPage {
    offset: usize,
    limit: usize,
    total: usize,
    rows: Vec<RowBody>,
}

/// The rounds of a session in their order; the oldest are forgotten in the end.
#[utoipa::path(get, path = "/fl/sessions/{id}/history", tag = "sessions",
    params(
        ("id" = String, Path, description = "Session id"),
        ("offset" = Option<usize>, Query, description = "How many to leave out"),
        ("limit" = Option<usize>, Query, description = "1 to 1000, 100 by default"),
    ),
    responses(
        (status = 200, body = HistoryPage),
        (status = 400, description = "Not an id, or a bad page", body = ErrorBody),
        (status = 404, description = "No such session", body = ErrorBody),
        (status = 503, description = "Not known yet", body = ErrorBody),
    ),
)]
pub(super) async fn page(
    State(api): State<Api>,
    Id(id): Id<SessionId>,
    words: Words,
) -> Result<Json<HistoryPage>, ApiError> {
    let page = words.page()?;
    api.knows_sessions()?;
    let read = |shown: &crate::gallery::Shown| {
        let rows = shown.rows().skip(page.offset).take(page.limit);
        (rows.cloned().collect::<Vec<_>>(), shown.rows().len())
    };
    let (rows, total) = api.gallery.read(&id, read).ok_or_else(|| unknown(&id))?;
    let rows = rows.into_iter().map(|row| RowBody { series: series(&row), row }).collect();
    Ok(Json(HistoryPage { offset: page.offset, limit: page.limit, total, rows }))
}

/// The whole history as a table.
#[utoipa::path(get, path = "/fl/sessions/{id}/history.csv", tag = "sessions",
    params(("id" = String, Path, description = "Session id")),
    responses(
        (status = 200, description = "A header, and a line a round", body = String, content_type = "text/csv"),
        (status = 400, description = "Not an id", body = ErrorBody),
        (status = 404, description = "No such session", body = ErrorBody),
        (status = 503, description = "Not known yet", body = ErrorBody),
    ),
)]
pub(super) async fn csv(
    State(api): State<Api>,
    Id(id): Id<SessionId>,
) -> Result<Response, ApiError> {
    api.knows_sessions()?;
    let rows = api.gallery.read(&id, |shown| shown.rows().cloned().collect::<Vec<_>>());
    let rows = rows.ok_or_else(|| unknown(&id))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], table(&rows)).into_response())
}

/// Every number of a row by one name.
fn series(row: &HistoryRow) -> BTreeMap<String, f64> {
    let mut series = row.metrics.clone();
    for evaluation in &row.evaluations {
        let prefix = evaluation.leg.prefix();
        for (name, value) in &evaluation.metrics {
            series.insert(format!("{prefix}_{name}"), *value);
        }
        for (name, spread) in &evaluation.quantiles {
            let parts = [
                ("min", spread.min),
                ("p10", spread.p10),
                ("p25", spread.p25),
                ("median", spread.median),
                ("p75", spread.p75),
                ("p90", spread.p90),
                ("max", spread.max),
                ("lowest_decile_mean", spread.lowest_decile_mean),
                ("highest_decile_mean", spread.highest_decile_mean),
            ];
            let named = parts.map(|(part, value)| (format!("{prefix}_{name}_{part}"), value));
            series.extend(named);
        }
    }
    series
}

const COLUMNS: &str = "round,round_id,model_version,participants,num_updates,total_samples,\
                       duration_ms,completed_at,rejected";

/// As RFC 4180 has it; a number that a round does not have is an empty field.
fn table(rows: &[HistoryRow]) -> String {
    let series: Vec<_> = rows.iter().map(series).collect();
    let names: BTreeSet<&String> = series.iter().flat_map(BTreeMap::keys).collect();
    let mut text = COLUMNS.to_owned();
    for name in &names {
        let _ = write!(text, ",{}", field(name));
    }
    text.push_str("\r\n");
    for (row, series) in rows.iter().zip(&series) {
        let HistoryRow { round, round_id, model_version, participants, num_updates, .. } = row;
        let HistoryRow { total_samples, duration_ms, completed_at, rejected, .. } = row;
        let rejected: Vec<String> =
            rejected.iter().map(|(reason, count)| format!("{reason}={count}")).collect();
        let rejected = rejected.join(" ");
        let _ = write!(
            text,
            "{round},{round_id},{model_version},{participants},{num_updates},{total_samples},\
             {duration_ms},{completed_at},{rejected}"
        );
        for name in &names {
            let value = series.get(*name).map(ToString::to_string).unwrap_or_default();
            let _ = write!(text, ",{value}");
        }
        text.push_str("\r\n");
    }
    text
}

/// The names of metrics are the guest's: they may hold anything.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_guests_stay_in_their_field() {
        assert_eq!(field("loss"), "loss");
        assert_eq!(field("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
    }
}
