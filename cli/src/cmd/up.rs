//! `aileron up`: a platform in one process, kept running.

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use crate::{
    platform::{Plan, fleet},
    view,
};

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Directory for all state
    #[arg(long, default_value = ".aileron/up")]
    dir: PathBuf,
    /// Settings file in TOML, with a section a service
    #[arg(long)]
    config: Option<PathBuf>,
    /// Proplets to run in this process; others may join from outside
    #[arg(long, default_value_t = 3)]
    proplets: usize,
    /// Directory with a data directory proplet-1, proplet-2, ... for each proplet
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Use this MQTT broker instead of the embedded one
    #[arg(long)]
    mqtt_address: Option<String>,
    /// Where the embedded broker listens
    #[arg(long, default_value = "127.0.0.1:1883")]
    broker_listen: SocketAddr,
    /// Port of the manager's HTTP API
    #[arg(long, default_value_t = 7070)]
    http_port: u16,
    /// Port of the coordinator's HTTP API
    #[arg(long, value_name = "PORT", default_value_t = 7071)]
    coordinator_http_port: u16,
    /// Model 0: a JSON, safetensors or npz file
    #[arg(long)]
    model_file: Option<PathBuf>,
}

impl Up {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        super::service::log_as_text();
        fs::create_dir_all(&self.dir)
            .with_context(|| format!("make directory {}", self.dir.display()))?;
        let plan = Plan {
            dir: self.dir,
            config: self.config,
            mqtt_address: self.mqtt_address,
            broker_listen: self.broker_listen,
            http_port: self.http_port,
            coordinator_http_port: self.coordinator_http_port,
            model_file: self.model_file,
            proplets: fleet(self.proplets, self.data_dir.as_deref()),
        };
        super::on_runtime(async |stop| {
            let mut platform = plan.start().await?;
            view::aside(format!(
                "Aileron is up.\n  MQTT  {}\n  HTTP  http://{} (tasks), http://{} (sessions)\n\
                 Open to every program on this machine, and to no other machine. Ctrl-C ends it.\n\
                 Next: aileron proplet list; aileron round start --watch",
                platform.mqtt_address, platform.http, platform.coordinator_http
            ));
            let ended = tokio::select! {
                () = stop.cancelled() => None,
                why = platform.ended() => Some(why),
            };
            platform.stop().await;
            match ended {
                None => Ok(ExitCode::SUCCESS),
                Some(why) => Err(why),
            }
        })
    }
}
