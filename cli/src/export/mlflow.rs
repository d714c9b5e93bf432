//! A session as a run of an MLflow tracking server, over its REST API 2.0. A run is found again by
//! its tag, and what it has already is not logged twice.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, bail};
use protocol::message::SessionState;
use serde_json::{Value, json};
use ureq::{
    Agent,
    http::{Method, Request},
};

use super::{Row, Session};

const SESSION_TAG: &str = "aileron.session";
/// The last round whose numbers are there.
const ROUNDS_TAG: &str = "aileron.rounds_logged";
/// What one `log-batch` may hold.
const METRICS_MAX: usize = 1000;
const PARAMS_MAX: usize = 100;
const PARAM_LEN_MAX: usize = 500;
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What has been done.
#[derive(Debug)]
pub(crate) struct Logged {
    pub(crate) run_id: String,
    pub(crate) rounds: usize,
}

/// A tracking server.
struct Server {
    base: String,
    agent: Agent,
}

/// Logs what the server does not have yet.
pub(crate) fn log(session: &Session, url: &str, experiment: &str) -> anyhow::Result<Logged> {
    let agent = Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(60)))
        .http_status_as_error(false)
        .build()
        .into();
    let server = Server { base: url.trim_end_matches('/').to_owned(), agent };
    let experiment = server.experiment(experiment)?;
    let run = server.run(session, &experiment)?;
    let run_id = run["info"]["run_id"].as_str().context("the run has no id")?.to_owned();
    let before: u64 = tag(&run, ROUNDS_TAG).and_then(|text| text.parse().ok()).unwrap_or_default();
    let rows = session.settled_rows().iter().filter(|row| row.round > before);
    let mut rounds = 0;
    for row in rows {
        server.row(&run_id, row)?;
        rounds += 1;
    }
    server.finish(&run_id, session)?;
    Ok(Logged { run_id, rounds })
}

impl Server {
    fn experiment(&self, name: &str) -> anyhow::Result<String> {
        let body = json!({ "name": name });
        let id = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let (status, made) = self.ask(Method::POST, "experiments/create", Some(&body))?;
        if let Some(id) = id(&made["experiment_id"]) {
            return Ok(id);
        }
        if made["error_code"] != "RESOURCE_ALREADY_EXISTS" {
            bail!("make experiment {name:?}: {} ({status})", made["message"]);
        }
        let path = format!("experiments/get-by-name?experiment_name={}", escaped(name));
        let found = self.call(Method::GET, &path, None)?;
        id(&found["experiment"]["experiment_id"]).with_context(|| format!("experiment {name:?}"))
    }

    /// The session's run, made if it is not there.
    fn run(&self, session: &Session, experiment: &str) -> anyhow::Result<Value> {
        let id = &session.session_id;
        // An id holds no quote.
        let body = json!({
            "experiment_ids": [experiment], "max_results": 1,
            "filter": format!("tags.`{SESSION_TAG}` = '{id}'"),
        });
        let found = self.call(Method::POST, "runs/search", Some(&body))?;
        if let Some(run) = found["runs"].get(0) {
            return Ok(run.clone());
        }
        let body = json!({
            "experiment_id": experiment, "run_name": id, "start_time": ms(session.started_at),
            "tags": [{"key": SESSION_TAG, "value": id}],
        });
        let mut made = self.call(Method::POST, "runs/create", Some(&body))?;
        let run_id = made["run"]["info"]["run_id"].clone();
        let params: Vec<Value> = params(session)
            .into_iter()
            .take(PARAMS_MAX)
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        let body = json!({"run_id": run_id, "params": params});
        self.call(Method::POST, "runs/log-batch", Some(&body))?;
        Ok(made["run"].take())
    }

    /// The numbers of one round, and with the last of them that they are there.
    fn row(&self, run_id: &str, row: &Row) -> anyhow::Result<()> {
        let timestamp = ms(row.completed_at);
        let metrics: Vec<Value> = row
            .numbers()
            .into_iter()
            .map(|(name, value)| {
                let key = metric_name(&name);
                json!({"key": key, "value": value, "timestamp": timestamp, "step": row.round})
            })
            .collect();
        for part in metrics.chunks(METRICS_MAX) {
            let body = json!({"run_id": run_id, "metrics": part});
            self.call(Method::POST, "runs/log-batch", Some(&body))?;
        }
        let body = json!({"run_id": run_id, "key": ROUNDS_TAG, "value": row.round.to_string()});
        self.call(Method::POST, "runs/set-tag", Some(&body)).map(drop)
    }

    /// Says how the session ended, if it has.
    fn finish(&self, run_id: &str, session: &Session) -> anyhow::Result<()> {
        let status = match session.state {
            SessionState::Complete => "FINISHED",
            SessionState::Failed => "FAILED",
            SessionState::Running | SessionState::Stopped | SessionState::Refused => return Ok(()),
        };
        let end_time = ms(session.updated_at);
        let body = json!({"run_id": run_id, "status": status, "end_time": end_time});
        self.call(Method::POST, "runs/update", Some(&body)).map(drop)
    }

    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, answer) = self.ask(method, path, body)?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let why = answer["message"].as_str().unwrap_or("no reason given");
        bail!("MLflow: {path}: {why} ({status})")
    }

    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(u16, Value)> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.base);
        let request = Request::builder().method(method).uri(&url);
        let request = request.header("content-type", "application/json");
        let request = request.body(body.map(Value::to_string).unwrap_or_default());
        let request = request.with_context(|| format!("call {url}"))?;
        let mut response =
            self.agent.run(request).with_context(|| format!("reach MLflow at {url}"))?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text = text.with_context(|| format!("read the answer of {url}"))?;
        let answer = serde_json::from_str(&text)
            .with_context(|| format!("{url}: the answer ({status}) is not JSON"))?;
        Ok((status, answer))
    }
}

fn tag<'a>(run: &'a Value, key: &str) -> Option<&'a str> {
    let tags = run["data"]["tags"].as_array()?;
    tags.iter().find(|tag| tag["key"] == key)?["value"].as_str()
}

fn ms(at: protocol::Timestamp) -> u64 {
    at.as_micros() / 1000
}

/// What the session was asked to do, as text.
fn params(session: &Session) -> BTreeMap<String, String> {
    let start = &session.start;
    let mut params = BTreeMap::from([
        ("rounds".to_owned(), start.rounds.to_string()),
        ("seed".to_owned(), start.seed.to_string()),
        ("timeout_s".to_owned(), start.timeout_s.to_string()),
    ]);
    params.extend(start.strategy.as_ref().map(|it| ("strategy".to_owned(), it.name.clone())));
    params.extend(start.selection.method.clone().map(|it| ("selection".to_owned(), it)));
    let keys: BTreeMap<String, Value> =
        serde_json::from_str(start.hyperparams.as_str()).unwrap_or_default();
    let text = |value: Value| match value.clone() {
        Value::String(text) => text,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    };
    params.extend(keys.into_iter().map(|(key, value)| (metric_name(&key), text(value))));
    for value in params.values_mut() {
        *value = value.chars().take(PARAM_LEN_MAX).collect();
    }
    params
}

/// MLflow takes letters, digits, `_-. :/` in names.
fn metric_name(name: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || "_-. :/".contains(c);
    name.chars().take(250).map(|c| if fits(c) { c } else { '_' }).collect()
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let one = |byte| {
        if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_server_would_refuse_are_changed() {
        assert_eq!(metric_name("eval/accuracy_p10"), "eval/accuracy_p10");
        assert_eq!(metric_name("a,\"b\"\n"), "a__b__");
        assert_eq!(escaped("my runs/ü"), "my%20runs%2F%C3%BC");
    }
}
