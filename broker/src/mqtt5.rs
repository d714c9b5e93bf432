//! The default implementation: the broker of the crate `mqtt5`, with its defaults made safe.
//!
//! With a guard or with encryption, a [`Gate`] has the port, and this broker one of its own that
//! only the gate's connections are let in at.

mod doorman;

use crate::gate::{Gate, GateStop};
use crate::running::{Serving, probe};
use crate::{BrokerConfig, BrokerError};
use ::mqtt5::broker::config::{StorageBackend, StorageConfig};
use ::mqtt5::broker::{BrokerConfig as Settings, MqttBroker};
use doorman::Doorman;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Opens the port and serves.
pub(crate) async fn open(config: BrokerConfig) -> Result<Serving, BrokerError> {
    if config.guard.is_none() && config.tls.is_none() {
        return serve(config, None).await;
    }
    let gate = Gate::bind(&config).await?;
    let inner = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let doorman = Doorman::new(config.guard.clone(), gate.visitors());
    let serving = serve(BrokerConfig { listen: inner, ..config }, Some(doorman)).await?;
    let (address, inside) = (gate.address(), serving.address);
    let (stop, finished) = gate.open(inside);
    Ok(behind(serving, address, (stop, finished)))
}

/// The broker with the gate's address: the gate closes first, and both have to end.
fn behind(
    serving: Serving,
    address: SocketAddr,
    (stop, gate): (GateStop, JoinHandle<()>),
) -> Serving {
    let Serving { shutdown, finished, .. } = serving;
    Serving {
        address,
        shutdown: Box::new(move || {
            stop.stop();
            shutdown();
        }),
        finished: tokio::spawn(async move {
            // Either may have died; the log has said so.
            let _both = (finished.await, gate.await);
        }),
    }
}

async fn serve(config: BrokerConfig, doorman: Option<Doorman>) -> Result<Serving, BrokerError> {
    probe(config.listen).await?;
    check_state_dir(config.state_dir.clone()).await?;
    let listen = config.listen;
    let refused = |reason: String| match &config.state_dir {
        // The port is known to be free, so what is left to refuse is the directory.
        Some(dir) => BrokerError::StateDir { dir: dir.clone(), reason },
        None => BrokerError::Start { address: listen, reason },
    };
    let broker = MqttBroker::with_config(settings(&config))
        .await
        .map_err(|error| refused(error.to_string()))?;
    let broker = match doorman {
        Some(doorman) => broker.with_auth_provider(Arc::new(doorman)),
        None => broker,
    };
    let address = broker.local_addr().ok_or_else(|| BrokerError::Start {
        address: listen,
        reason: "it lost its listener".to_owned(),
    })?;
    let stop = broker.shutdown_handle();
    let mut ready = broker.ready_receiver();
    let mut finished = tokio::spawn(run(broker, address));
    // A shutdown asked for before this point would be lost: the broker listens for it from here.
    tokio::select! {
        ready = ready.wait_for(|ready| *ready) => {
            ready.map_err(|_| refused("it ended before it was ready".to_owned()))?;
        }
        _ = &mut finished => return Err(refused("it ended before it was ready".to_owned())),
    }
    Ok(Serving { address, shutdown: Box::new(move || stop.shutdown()), finished })
}

async fn run(mut broker: MqttBroker, address: SocketAddr) {
    if let Err(error) = broker.run().await {
        tracing::error!(%error, %address, "broker ended by itself");
    }
}

fn settings(config: &BrokerConfig) -> Settings {
    let storage = StorageConfig {
        // Off, this would turn off not the disk but sessions as such; memory is a backend.
        enable_persistence: true,
        backend: match config.state_dir {
            Some(_) => StorageBackend::File,
            None => StorageBackend::Memory,
        },
        base_dir: config.state_dir.clone().unwrap_or_default(),
        max_queued_messages_per_client: config.queued_messages_max,
        max_queued_bytes_per_client: config.queued_bytes_max,
        ..StorageConfig::default()
    };
    Settings::default()
        .with_bind_address(config.listen)
        .with_max_packet_size(config.packet_bytes_max)
        .with_storage(storage)
}

/// Makes the directory and a file in it, for the plain reason if that cannot be done.
async fn check_state_dir(dir: Option<PathBuf>) -> Result<(), BrokerError> {
    let Some(dir) = dir else { return Ok(()) };
    let writable: JoinHandle<std::io::Result<()>> = tokio::task::spawn_blocking({
        let dir = dir.clone();
        move || {
            std::fs::create_dir_all(&dir)?;
            let trial = dir.join(".writable");
            std::fs::write(&trial, b"")?;
            std::fs::remove_file(&trial)
        }
    });
    let written = writable.await.unwrap_or_else(|lost| Err(std::io::Error::other(lost)));
    written.map_err(|error| BrokerError::StateDir { dir, reason: error.to_string() })
}
