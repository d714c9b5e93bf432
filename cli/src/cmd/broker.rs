//! `aileron broker`: the embedded broker on its own.

use std::{net::SocketAddr, path::PathBuf};

use ::broker::{BrokerConfig, BrokerError, Exposure, Kind};
use clap::Args;
use service::{settings::Settings, telemetry::LogArgs};
use tokio_util::sync::CancellationToken;

/// What the embedded broker can be told.
#[derive(Debug, Args)]
pub(crate) struct BrokerSettings {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// Address and port to listen on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:1883")]
    listen: SocketAddr,
    /// Listen on an address that other machines reach; anybody there may then say anything
    #[arg(long)]
    allow_remote: bool,
    /// Implementation
    #[arg(long, default_value_t = Kind::default())]
    kind: Kind,
    /// Directory for retained messages and sessions; without it they live in memory
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Largest packet in bytes, 1024 to 268435456
    #[arg(long, default_value_t = ::broker::PACKET_BYTES_MAX)]
    packet_bytes_max: usize,
}

impl Settings for BrokerSettings {
    const SERVICE: &'static str = "broker";
    const ABOUT: &'static str = "Embedded MQTT broker, for first runs and tests";
}

/// Serves until stopped.
pub(super) async fn run(
    settings: BrokerSettings,
    stop: CancellationToken,
) -> Result<(), BrokerError> {
    let exposure = if settings.allow_remote { Exposure::Network } else { Exposure::LoopbackOnly };
    let running = ::broker::start(BrokerConfig {
        kind: settings.kind,
        listen: settings.listen,
        exposure,
        packet_bytes_max: settings.packet_bytes_max,
        state_dir: settings.state_dir,
        ..BrokerConfig::default()
    })
    .await?;
    stop.cancelled().await;
    running.stop().await;
    Ok(())
}
