//! The `docker` key of xEdgeSim's nodes: lists or maps, as its users write them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use sim::DockerSpec;

/// A container.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Docker {
    pub(super) image: Option<String>,
    pub(super) build_context: Option<String>,
    dockerfile: Option<String>,
    ports: Pairs,
    environment: Pairs,
    volumes: Pairs,
    network: Option<String>,
    command: Option<Words>,
}

/// One text, or a list of words.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Words {
    Line(String),
    List(Vec<String>),
}

/// `a: b`, or a list of texts that say the same.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Pairs {
    List(Vec<String>),
    Map(BTreeMap<String, Value>),
}

impl Default for Pairs {
    fn default() -> Self {
        Self::List(vec![])
    }
}

impl Words {
    /// A line is what a shell would make of it, without its quotes.
    pub(super) fn list(self) -> Vec<String> {
        match self {
            Self::Line(line) => line.split_whitespace().map(str::to_owned).collect(),
            Self::List(list) => list,
        }
    }
}

impl Docker {
    pub(super) fn convert(self) -> Result<DockerSpec, String> {
        let Self { image, build_context, dockerfile, network, .. } = self;
        Ok(DockerSpec {
            image,
            build_context,
            dockerfile,
            command: self.command.map(Words::list).unwrap_or_default(),
            environment: self.environment.variables()?,
            volumes: self.volumes.joined("volumes")?,
            ports: self.ports.joined("ports")?,
            network,
            memory_mb: None,
            cpus: None,
            channel: Some("stdio".to_owned()),
        })
    }
}

impl Pairs {
    fn variables(self) -> Result<BTreeMap<String, String>, String> {
        match self {
            Self::Map(map) => map
                .into_iter()
                .map(|(key, value)| {
                    let said = plain(&value);
                    let said =
                        said.ok_or_else(|| format!("environment.{key}: {value} is no text"))?;
                    Ok((key, said))
                })
                .collect(),
            Self::List(list) => list
                .into_iter()
                .map(|line| match line.split_once('=') {
                    Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                    None => Err(format!("environment: {line:?} is not NAME=VALUE")),
                })
                .collect(),
        }
    }

    /// `left:right`, and for a volume its mode.
    fn joined(self, what: &str) -> Result<Vec<String>, String> {
        let map = match self {
            Self::List(list) => return Ok(list),
            Self::Map(map) => map,
        };
        let one = |(left, right): (String, Value)| {
            let bad = format!("{what}.{left}: {right} is neither a text nor `bind` and `mode`");
            if let Some(right) = plain(&right) {
                return Ok(format!("{left}:{right}"));
            }
            let bind = right.get("bind").and_then(Value::as_str).ok_or(bad)?;
            let mode = right.get("mode").and_then(Value::as_str);
            Ok(mode
                .map_or_else(|| format!("{left}:{bind}"), |mode| format!("{left}:{bind}:{mode}")))
        };
        map.into_iter().map(one).collect()
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
