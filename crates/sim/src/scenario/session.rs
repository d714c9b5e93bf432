//! Sessions that the operator of a scenario starts.

use protocol::message::SessionStart;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Span;

/// One session. The coordinator's own core runs it; several may be under way at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// When it is started.
    #[serde(default = "at_default")]
    pub at: Span,
    /// What is said on `fl/sessions/start`.
    pub start: Map<String, Value>,
}

impl SessionSpec {
    /// The start, as the coordinator reads it and takes it up.
    pub(crate) fn read(&self) -> Result<SessionStart, String> {
        let start: SessionStart = serde_json::from_value(Value::Object(self.start.clone()))
            .map_err(|why| why.to_string())?;
        session::Sessions::check(&start).map(|()| start)
    }
}

fn at_default() -> Span {
    Span::secs(2)
}
