//! The HTTP APIs of the manager and the coordinator, from the outside.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::Value;
use service::settings::Secret;
use ureq::{
    Agent, Body,
    http::{Method, Request, Response},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Where the manager's HTTP API is.
#[derive(Clone, Debug, Args)]
pub(crate) struct ApiArgs {
    /// Address of the manager's HTTP API
    #[arg(long, env = "AILERON_HTTP", default_value = "http://127.0.0.1:7070", global = true)]
    http: String,
    /// Token from `aileron token`, if the manager asks for one
    #[arg(
        long,
        env = "AILERON_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        global = true
    )]
    token: Option<Secret>,
    /// Certificates (PEM) to trust for https, in place of the usual authorities
    #[arg(long, env = "AILERON_HTTP_CA_FILE", value_name = "FILE", global = true)]
    http_ca_file: Option<PathBuf>,
}

/// A client of the API.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    base: String,
    agent: Agent,
    token: Option<Secret>,
}

impl ApiArgs {
    pub(crate) fn api(&self) -> anyhow::Result<Api> {
        let roots = self.http_ca_file.as_deref().map(trusted).transpose()?;
        let api = Api::with(&self.http, roots);
        Ok(Api { token: self.token.clone(), ..api })
    }
}

fn trusted(path: &Path) -> anyhow::Result<RootCerts> {
    let pem = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let mut roots = vec![];
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) =
            item.with_context(|| format!("{} is not PEM", path.display()))?
        {
            roots.push(certificate);
        }
    }
    ensure!(!roots.is_empty(), "{} holds no certificate", path.display());
    Ok(RootCerts::new_with_certs(&roots))
}

impl Api {
    pub(crate) fn new(base: &str) -> Self {
        Self::with(base, None)
    }

    fn with(base: &str, roots: Option<RootCerts>) -> Self {
        let tls = match roots {
            Some(roots) => TlsConfig::builder().root_certs(roots).build(),
            None => TlsConfig::default(),
        };
        let agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .tls_config(tls)
            .build()
            .into();
        Self { base: base.trim_end_matches('/').to_owned(), agent, token: None }
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None)
    }

    pub(crate) fn post(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.call(Method::POST, path, body)
    }

    /// What is no JSON.
    pub(crate) fn text(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("{}{path}", self.base);
        let request = Request::builder().uri(&url).body(String::new());
        let request = request.with_context(|| format!("call {url}"))?;
        let mut response = self.agent.run(request).with_context(|| format!("reach {url}"))?;
        if !response.status().is_success() {
            return answer(response).map(|value| value.to_string());
        }
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        body.read_to_string().with_context(|| format!("read {url}"))
    }

    /// Every item of a paged listing.
    pub(crate) fn all(&self, path: &str, items: &str) -> anyhow::Result<Vec<Value>> {
        let glue = if path.contains('?') { '&' } else { '?' };
        let mut all = vec![];
        loop {
            let page = self.get(&format!("{path}{glue}offset={}&limit=1000", all.len()))?;
            let got = page[items].as_array().cloned().unwrap_or_default();
            let total = page["total"].as_u64().unwrap_or_default();
            let none = got.is_empty();
            all.extend(got);
            if none || all.len() as u64 >= total {
                return Ok(all);
            }
        }
    }

    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base);
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder().method(method.clone()).uri(&url);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.expose()));
        }
        let request = request.body(text).with_context(|| format!("call {url}"))?;
        let response = self.agent.run(request).with_context(|| format!("reach {url}"))?;
        answer(response).with_context(|| format!("{method} {path}"))
    }
}

fn answer(mut response: Response<Body>) -> anyhow::Result<Value> {
    let status = response.status();
    let text = response
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_string()
        .context("read the answer")?;
    let value: Value = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).with_context(|| format!("the answer ({status}) is not JSON"))?
    };
    if status.is_success() {
        return Ok(value);
    }
    match value["error"].as_str() {
        Some(why) => bail!("{why} ({status})"),
        None => bail!("the answer was {status}"),
    }
}
