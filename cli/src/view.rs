//! What the operator sees: tables for eyes, JSON for programs.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program speaks")]

use clap::ValueEnum;
use comfy_table::{LineStyle, Table, TableStyle};
use serde_json::{Value, json};

const UNDERLINED_HEADER: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// How a command answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For eyes.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Says one line.
pub(crate) fn line(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}

/// Says something beside the answer.
pub(crate) fn aside(text: impl AsRef<str>) {
    eprintln!("{}", text.as_ref());
}

/// Shows a value as it is.
pub(crate) fn json(value: &Value) {
    println!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Shows rows under a header.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(UNDERLINED_HEADER).set_header(header.iter().copied());
    table.add_rows(rows);
    println!("{table}");
}

/// Says what went wrong, with its causes.
pub(crate) fn error(why: &anyhow::Error, format: Format) {
    match format {
        Format::Text => eprintln!("error: {why:#}"),
        Format::Json => eprintln!("{}", json!({ "error": format!("{why:#}") })),
    }
}

/// A JSON field as a cell: text bare, nothing as a dash.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    }
}

/// A share of one, for the eye.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", 100.0 * share))
}
