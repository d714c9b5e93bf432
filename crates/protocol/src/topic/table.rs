//! The topic table: who says what where.

/// One line of the topic table.
#[derive(Clone, Copy, Debug)]
pub struct TopicRow {
    /// `{B}` and `{...}` stand for what varies.
    pub pattern: &'static str,
    pub writer: &'static str,
    pub readers: &'static str,
    pub retained: bool,
    pub payload: &'static str,
}

macro_rules! table {
    ($($pattern:literal $writer:literal $readers:literal $retained:literal $payload:literal;)*) => {
        &[$(TopicRow {
            pattern: $pattern, writer: $writer, readers: $readers, retained: $retained,
            payload: $payload,
        },)*]
    };
}

/// The topic table: pattern, writer, readers, retained, payload. Everything is QoS 1.
pub const TOPICS: &[TopicRow] = table! {
    "fl/rounds/start" "operator or coordinator" "manager, coordinator" false "RoundStart";
    "fl/rounds/{round_id}/opened" "coordinator" "anyone" false "RoundOpened";
    "fl/rounds/{round_id}/updates/{proplet_id}" "that proplet" "manager" false "Update or UpdateOffer";
    "fl/rounds/{round_id}/wants/{proplet_id}" "coordinator" "that proplet" false "UpdateWants";
    "fl/rounds/{round_id}/updates/{proplet_id}/chunks/{i}" "that proplet" "coordinator" false "bytes";
    "fl/rounds/{round_id}/acks/{proplet_id}" "coordinator" "that proplet" false "UpdateAck";
    "fl/rounds/{round_id}/absent" "manager" "coordinator, anyone" false "RoundAbsent";
    "fl/rounds/{round_id}/complete" "coordinator" "anyone" false "RoundComplete";
    "fl/rounds/{round_id}/failed" "coordinator" "anyone" false "RoundFailed";
    "fl/rounds/{round_id}/variate" "coordinator" "anyone" true "RoundVariate; nothing when the round is over";
    "fml/updates" "manager" "coordinator" false "Update or UpdateOffer, with `forwarded_at`";
    "fl/models/publish" "coordinator or operator" "model server" false "Model or ModelBlob";
    "fl/models/publish/wants" "model server" "coordinator" false "ModelPublishWants";
    "fl/models/publish/v{N}/chunks/{i}" "coordinator" "model server" false "bytes";
    "fl/models/wants" "anyone" "model server" false "ModelWants";
    "fl/models/{line}_v{N}" "model server" "anyone" true "Model or ModelBlob";
    "fl/models/{line}_v{N}/chunks/{i}" "model server" "anyone" true "bytes";
    "fl/models/latest" "model server" "anyone" true "ModelLatest";
    "fl/lines/{line}/publish" "coordinator or operator" "model server" false "Model or ModelBlob";
    "fl/lines/{line}/publish/wants" "model server" "coordinator" false "ModelPublishWants";
    "fl/lines/{line}/publish/v{N}/chunks/{i}" "coordinator" "model server" false "bytes";
    "fl/lines/{line}/wants" "anyone" "model server" false "ModelWants";
    "fl/lines/{line}/latest" "model server" "anyone" true "ModelLatest";
    "fl/sessions/start" "operator" "coordinator" false "SessionStart";
    "fl/sessions/{session_id}/command" "operator" "coordinator" false "SessionCommand";
    "fl/sessions/{session_id}/status" "coordinator" "anyone" true "SessionStatus";
    "{B}/control/proplet/create" "proplet" "manager, coordinator" false "PropletCreate";
    "{B}/control/proplet/alive" "proplet (also its last will)" "manager, coordinator" false "PropletAlive";
    "{B}/control/proplet/metrics" "proplet" "manager" false "PropletMetrics";
    "{B}/control/proplet/task_metrics" "proplet" "manager" false "TaskMetrics";
    "{B}/control/proplet/results" "proplet" "manager" false "TaskResults";
    "{B}/control/proplet/module_wants" "proplet" "manager" false "ModuleWants";
    "{B}/control/manager/start" "manager" "every proplet of the channel" false "TaskStart";
    "{B}/control/manager/stop" "manager" "every proplet of the channel" false "TaskStop";
    "{B}/control/manager/{proplet_id}/start" "manager" "that proplet" false "TaskStart";
    "{B}/control/manager/{proplet_id}/stop" "manager" "that proplet" false "TaskStop";
    "{B}/control/manager/modules/{sha256}/chunks/{i}" "manager" "proplets" true "bytes";
};
