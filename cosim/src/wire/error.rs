//! What can be wrong with a line.

use serde_json::Value;

/// Characters of a line that an error shows.
const EXCERPT_CHARS: usize = 160;

/// A line that is not what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("not UTF-8 from byte {at} on")]
    NotText { at: usize },
    #[error("not JSON ({why})")]
    NotJson { why: String },
    #[error("expected a JSON {expected}, found {found}")]
    NotA { expected: &'static str, found: String },
    #[error("`{key}` is missing")]
    Missing { key: &'static str },
    #[error("`{key}` should be {expected}, found {found}")]
    Wrong { key: &'static str, expected: &'static str, found: String },
    #[error("expected one of {expected}, found {found:?}")]
    UnknownWord { expected: &'static str, found: String },
    #[error("event {index}: {source}")]
    InEvent { index: usize, source: Box<Self> },
    #[error("a first line should begin with `{{`, `INIT {{` or `INIT <node> {{`, found {line:?}")]
    UnknownDialect { line: String },
}

impl WireError {
    pub(super) fn not_json(error: &serde_json::Error) -> Self {
        Self::NotJson { why: error.to_string() }
    }

    pub(super) fn wrong(key: &'static str, expected: &'static str, found: &Value) -> Self {
        Self::Wrong { key, expected, found: excerpt(&found.to_string()) }
    }
}

/// The beginning of a text, so that a huge line does not make a huge error.
pub(crate) fn excerpt(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(EXCERPT_CHARS).collect();
    if chars.next().is_some() {
        shown.push_str("...");
    }
    shown
}
