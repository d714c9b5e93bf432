//! Tasks as they travel over HTTP: what callers give, and what they get.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use fleet::{Edit, JsonText, TaskView};
use protocol::{
    PropletId,
    message::{TaskMetrics, TaskState},
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use super::ApiError;

/// How a WebAssembly module, and a component, begins.
const MAGIC: &[u8] = b"\0asm";
const HEADER_LEN: usize = 8;

#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Task")]
pub(super) struct TaskBody {
    /// A UUID.
    id: String,
    name: String,
    #[schema(value_type = String, example = "Pending")]
    state: TaskState,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_url: Option<String>,
    /// The image that the latest start runs, by digest, where `image_url` names a tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_resolved: Option<String>,
    /// Length of the uploaded module; the module itself is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_sha256: Option<String>,
    cli_args: Vec<String>,
    inputs: Vec<Value>,
    env: BTreeMap<String, String>,
    /// Runs until it is stopped.
    daemon: bool,
    /// The proplet that alone may run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    proplet_id: Option<String>,
    /// Runs on every proplet that is alive when it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    broadcast: Option<bool>,
    /// How often a run that is cut off is begun again.
    retries: u32,
    retries_left: u32,
    /// Counts the runs; 0 before the first.
    attempt: u32,
    /// Where the latest run was sent.
    sent_to: Vec<String>,
    /// Cut off, and about to run again: `Interrupted`, but not for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    results: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What kind of failure, a stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// This and the following: RFC 3339.
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_time: Option<String>,
}

/// A task's wording. What is left out stays as it is; `null` takes it away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(title = "TaskWording")]
pub(super) struct TaskWording {
    /// Required at creation.
    name: Option<String>,
    /// Accepted where it says what is so already; a word, or its number 0..6.
    #[schema(value_type = Option<String>)]
    state: Option<TaskState>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    image_url: Option<Option<String>>,
    /// A WebAssembly module or component, base64.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    file: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    cli_args: Option<Option<Vec<String>>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Vec<Object>>)]
    inputs: Option<Option<Vec<Value>>>,
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    env: Option<Option<BTreeMap<String, String>>>,
    daemon: Option<bool>,
    /// The proplet that alone may run it.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    proplet_id: Option<Option<String>>,
    broadcast: Option<bool>,
    /// 0 to 100, 1 by default.
    retries: Option<u32>,
}

/// One run's measurements.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "TaskMetrics")]
pub(super) struct TaskMetricsBody {
    proplet_id: String,
    attempt: u32,
    wall_ms: f64,
    cpu_ms: f64,
    memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel: Option<u64>,
    /// Where the compiled module came from.
    module: String,
    compile_ms: f64,
    start_us: f64,
}

impl From<TaskView> for TaskBody {
    fn from(view: TaskView) -> Self {
        let spec = &view.spec;
        Self {
            id: view.id.to_string(),
            name: spec.name.clone(),
            state: view.state,
            image_url: spec.image_url.clone(),
            image_resolved: view.image.filter(|image| Some(image) != spec.image_url.as_ref()),
            file_bytes: spec.file().map(|file| file.len),
            file_sha256: spec.file().map(|file| file.digest.to_string()),
            cli_args: spec.cli_args.clone(),
            inputs: spec.inputs.clone(),
            env: spec.env.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            daemon: spec.daemon,
            proplet_id: spec.pinned().map(PropletId::to_string),
            broadcast: spec.is_broadcast().then_some(true),
            retries: spec.retries,
            retries_left: view.retries_left,
            attempt: view.attempt,
            sent_to: view.sent_to.iter().map(PropletId::to_string).collect(),
            waits: view.waits.then_some(true),
            results: view.results.as_ref().map(raw),
            error: view.error,
            code: view.code,
            created_at: view.created_at.to_string(),
            updated_at: view.updated_at.to_string(),
            start_time: view.start_time.map(String::from),
            finish_time: view.finish_time.map(String::from),
        }
    }
}

impl From<TaskMetrics> for TaskMetricsBody {
    fn from(metrics: TaskMetrics) -> Self {
        Self {
            proplet_id: metrics.proplet_id.to_string(),
            attempt: metrics.attempt,
            wall_ms: metrics.wall_ms,
            cpu_ms: metrics.cpu_ms,
            memory_bytes: metrics.memory_bytes,
            fuel: metrics.fuel,
            module: metrics.module,
            compile_ms: metrics.compile_ms,
            start_us: metrics.start_us,
        }
    }
}

impl TaskWording {
    /// What the core is asked for. Empty texts count as none, as some clients write them.
    pub(super) fn read(self, upload_len_max: usize) -> Result<Edit, ApiError> {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let file = match self.file.map(some) {
            Some(Some(text)) => Some(Some(decoded(&text, upload_len_max)?)),
            Some(None) => Some(None),
            None => None,
        };
        let proplet = match self.proplet_id.map(some) {
            Some(Some(text)) => Some(Some(proplet(&text)?)),
            Some(None) => Some(None),
            None => None,
        };
        Ok(Edit {
            name: self.name,
            state: self.state,
            image_url: self.image_url.map(some),
            file,
            cli_args: self.cli_args.map(Option::unwrap_or_default),
            inputs: self.inputs.map(Option::unwrap_or_default),
            env: self.env.map(Option::unwrap_or_default),
            daemon: self.daemon,
            proplet,
            broadcast: self.broadcast,
            retries: self.retries,
        })
    }
}

/// Refuses what is no WebAssembly, and what is too much of it.
pub(super) fn checked(module: Bytes, len_max: usize) -> Result<Bytes, ApiError> {
    if module.len() > len_max {
        return Err(ApiError::TooLarge { len_max });
    }
    if module.len() >= HEADER_LEN && module.starts_with(MAGIC) {
        return Ok(module);
    }
    let begins: Vec<_> = module.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Err(ApiError::BadInput(format!(
        "file is not a WebAssembly module or component: {} bytes that begin with {:?}, not 00 61 73 6d",
        module.len(),
        begins.join(" ")
    )))
}

pub(super) fn raw(text: &JsonText) -> Box<RawValue> {
    RawValue::from_string(text.as_str().to_owned()).expect("results are kept as JSON")
}

fn decoded(text: &str, len_max: usize) -> Result<Bytes, ApiError> {
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let module = STANDARD
        .decode(compact)
        .map_err(|why| ApiError::BadInput(format!("file is not base64: {why}")))?;
    checked(module.into(), len_max)
}

fn proplet(text: &str) -> Result<PropletId, ApiError> {
    text.parse().map_err(|why| {
        let shown: String = text.chars().take(140).collect();
        ApiError::BadInput(format!("proplet_id {shown:?}: {why}"))
    })
}

/// Tells a `null` from a field that is not there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
