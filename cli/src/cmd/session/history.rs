//! `aileron session history` and `export`: what a session has come to, round by round.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use protocol::SessionId;

use crate::{
    export::{Session, mlflow, tensorboard},
    http::Api,
    view,
};

/// Where the coordinator's HTTP API is.
#[derive(Debug, Args)]
pub(crate) struct CoordinatorArgs {
    /// Address of the coordinator's HTTP API
    #[arg(long, env = "AILERON_COORDINATOR_HTTP", default_value = "http://127.0.0.1:7071")]
    coordinator_http: String,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Id of the session
    id: SessionId,
    #[command(flatten)]
    coordinator: CoordinatorArgs,
    /// table, json or csv
    #[arg(long, value_enum, default_value_t)]
    format: HistoryFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum HistoryFormat {
    #[default]
    Table,
    Json,
    Csv,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Id of the session
    id: SessionId,
    /// tensorboard DIR, mlflow URL or csv FILE; the same again changes nothing
    #[arg(long, num_args = 2, required = true, value_names = ["KIND", "PLACE"])]
    to: Vec<String>,
    /// Experiment of MLflow that the run belongs to; made if it is not there
    #[arg(long, default_value = "aileron")]
    experiment: String,
    #[command(flatten)]
    coordinator: CoordinatorArgs,
}

impl CoordinatorArgs {
    fn api(&self) -> Api {
        Api::new(&self.coordinator_http)
    }
}

impl History {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let api = self.coordinator.api();
        let path = format!("/fl/sessions/{}/history", self.id);
        match self.format {
            HistoryFormat::Json => view::json(&api.all(&path, "rows")?.into()),
            HistoryFormat::Csv => view::line(api.text(&format!("{path}.csv"))?.trim_end()),
            HistoryFormat::Table => table(&Session::fetch(&api, &self.id)?),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Export {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let (api, id) = (self.coordinator.api(), &self.id);
        let [kind, place] = &self.to[..] else { bail!("--to takes a kind and a place") };
        match kind.as_str() {
            "csv" => {
                let text = api.text(&format!("/fl/sessions/{id}/history.csv"))?;
                fs::write(place, text).with_context(|| format!("write {place}"))?;
                view::line(place);
            }
            "tensorboard" => {
                let path = tensorboard::write(&Session::fetch(&api, id)?, Path::new(place))?;
                view::line(path.display().to_string());
            }
            "mlflow" => {
                let logged = mlflow::log(&Session::fetch(&api, id)?, place, &self.experiment)?;
                view::line(format!("run {}: {} rounds logged", logged.run_id, logged.rounds));
            }
            other => bail!("--to takes tensorboard, mlflow or csv, not {other:?}"),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(session: &Session) {
    let names = ["round", "model", "updates", "samples", "seconds", "metrics"];
    let rows = session.rows.iter().map(|row| {
        // Quantiles are for the other formats.
        let is_mean = |name: &&String| {
            let parts = ["_min", "_p10", "_p25", "_median", "_p75", "_p90", "_max", "_decile_mean"];
            !parts.into_iter().any(|part| name.ends_with(part))
        };
        let metrics: Vec<String> = row
            .series
            .keys()
            .filter(is_mean)
            .map(|name| format!("{name} {:.4}", row.series[name]))
            .collect();
        vec![
            row.round.to_string(),
            row.model_version.to_string(),
            format!("{} of {}", row.num_updates, row.participants),
            row.total_samples.to_string(),
            format!("{:.1}", row.duration_ms as f64 / 1e3),
            metrics.join(", "),
        ]
    });
    view::table(&names, rows);
}
