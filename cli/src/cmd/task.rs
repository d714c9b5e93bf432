//! `aileron task`: tasks through the manager's HTTP API.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::{
    http::{Api, ApiArgs},
    view::{self, Format, cell},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Create a task; with --start, start it as well
    Create(Box<Create>),
    /// List tasks
    List {
        #[command(flatten)]
        api: ApiArgs,
        /// Only tasks in this state, like Running
        #[arg(long)]
        state: Option<String>,
        /// Only tasks of this proplet
        #[arg(long)]
        proplet: Option<String>,
        /// text or json
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show one task
    Show(One),
    /// Start a task
    Start(One),
    /// Stop a task
    Stop(One),
    /// Show what a task returned
    Results(One),
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// Id of the task
    id: String,
    #[command(flatten)]
    api: ApiArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name of the task
    name: String,
    /// WebAssembly module or component to run
    #[arg(long, value_name = "WASM", conflicts_with = "image")]
    file: Option<PathBuf>,
    /// Where proplets fetch the module: oci://, http(s):// or file://
    #[arg(long, value_name = "URL")]
    image: Option<String>,
    /// Run on this proplet and no other
    #[arg(long)]
    proplet: Option<String>,
    /// Run on every proplet that is alive
    #[arg(long)]
    broadcast: bool,
    /// Environment variable of the guest; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Argument of the guest; repeatable
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    args: Vec<String>,
    /// Runs until it is stopped
    #[arg(long)]
    daemon: bool,
    /// How often an interrupted task runs again
    #[arg(long)]
    retries: Option<u32>,
    /// Start it at once
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    api: ApiArgs,
}

impl Task {
    pub(super) const fn format(&self) -> Format {
        match self {
            Self::List { format, .. } => *format,
            Self::Create(_) | Self::Show(_) | Self::Start(_) | Self::Stop(_) | Self::Results(_) => {
                Format::Text
            }
        }
    }

    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create(create) => create.run()?,
            Self::List { api, state, proplet, format } => {
                list(&api.api()?, state.as_deref(), proplet.as_deref(), format)?;
            }
            Self::Show(one) => view::json(&one.get("")?),
            Self::Start(one) => view::json(&one.post("/start")?),
            Self::Stop(one) => view::json(&one.post("/stop")?),
            Self::Results(one) => view::json(&one.get("/results")?),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl One {
    fn get(&self, what: &str) -> anyhow::Result<Value> {
        self.api.api()?.get(&format!("/tasks/{}{what}", checked(&self.id)?))
    }

    fn post(&self, what: &str) -> anyhow::Result<Value> {
        self.api.api()?.post(&format!("/tasks/{}{what}", checked(&self.id)?), None)
    }
}

impl Create {
    fn run(&self) -> anyhow::Result<()> {
        let api = self.api.api()?;
        let task = api.post("/tasks", Some(&self.body()?))?;
        let id = task["id"].as_str().context("the manager named no id")?;
        if self.start {
            api.post(&format!("/tasks/{id}/start"), None)?;
        }
        view::line(id);
        Ok(())
    }

    fn body(&self) -> anyhow::Result<Value> {
        let mut env = Map::new();
        for pair in &self.env {
            match pair.split_once('=') {
                Some((key, value)) => env.insert(key.to_owned(), value.into()),
                None => bail!("env takes KEY=VALUE, not {pair:?}"),
            };
        }
        let mut body = json!({
            "name": self.name, "cli_args": self.args, "env": env, "daemon": self.daemon,
            "broadcast": self.broadcast,
        });
        if let Some(path) = &self.file {
            body["file"] = encoded(path)?.into();
        }
        if let Some(image) = &self.image {
            body["image_url"] = image.as_str().into();
        }
        if let Some(proplet) = &self.proplet {
            body["proplet_id"] = proplet.as_str().into();
        }
        if let Some(retries) = self.retries {
            body["retries"] = retries.into();
        }
        Ok(body)
    }
}

/// A module's bytes as base64.
pub(super) fn encoded(path: &PathBuf) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    ensure!(bytes.starts_with(b"\0asm"), "{} is not WebAssembly", path.display());
    Ok(BASE64_STANDARD.encode(bytes))
}

fn checked(id: &str) -> anyhow::Result<&str> {
    let parsed: Result<protocol::TaskId, _> = id.parse();
    parsed.map(|_| id).with_context(|| format!("task id {id:?}"))
}

fn list(
    api: &Api,
    state: Option<&str>,
    proplet: Option<&str>,
    format: Format,
) -> anyhow::Result<()> {
    let mut path = "/tasks?".to_owned();
    for (key, value) in [("state", state), ("proplet_id", proplet)] {
        if let Some(value) = value {
            let checked: protocol::TaskId =
                value.parse().with_context(|| format!("{key} {value:?}"))?;
            path.push_str(&format!("{key}={checked}&"));
        }
    }
    let tasks = api.all(path.trim_end_matches(['?', '&']), "tasks")?;
    match format {
        Format::Json => view::json(&tasks.into()),
        Format::Text => view::table(
            &["id", "name", "state", "proplet", "error"],
            tasks.iter().map(|task| {
                ["id", "name", "state", "proplet_id", "error"]
                    .map(|field| cell(&task[field]))
                    .to_vec()
            }),
        ),
    }
    Ok(())
}
