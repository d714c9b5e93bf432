//! The second implementation: the router of the crate `rumqttd` behind servers of our own making.
//!
//! `rumqttd::Broker` cannot be stopped, says Ok on a busy port, and serves one protocol version a
//! port. So its parts are put together here: the router, and one server that speaks both versions
//! ([`dialect::Either`]). The router's thread cannot be ended; after a stop it waits, idle, with
//! what it holds in memory, until the process ends.

mod dialect;

use crate::running::{Serving, probe};
use crate::{BrokerConfig, BrokerError, Kind};
use ::rumqttd::{
    ConnectionSettings, LinkType, Router, RouterConfig, Server, ServerSettings, Strategy,
};
use dialect::Either;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Opens the port and serves.
pub(crate) async fn open(config: BrokerConfig) -> Result<Serving, BrokerError> {
    if let Some(dir) = config.state_dir {
        return Err(BrokerError::StateDirUnsupported { kind: Kind::Rumqttd, dir });
    }
    if config.guard.is_some() || config.tls.is_some() {
        return Err(BrokerError::GateUnsupported { kind: Kind::Rumqttd });
    }
    let address = probe(config.listen).await?;
    let router = Router::new(0, router_config()).spawn();
    let mut server = Server::new(settings(address, config.packet_bytes_max), router, Either::new());
    let (shutdown, asked) = oneshot::channel::<()>();
    let mut finished = tokio::spawn(async move {
        tokio::select! {
            ended = server.start(LinkType::Remote) => {
                tracing::error!(?ended, %address, "broker ended by itself");
            }
            _ = asked => {}
        }
    });
    tokio::select! {
        _ = &mut finished => {
            let reason = "it could not listen after all".to_owned();
            return Err(BrokerError::Start { address, reason });
        }
        () = accepts(address) => {}
    }
    let shutdown = Box::new(move || {
        // A receiver that is gone has ended already, which is what was asked for.
        let _ended = shutdown.send(());
    });
    Ok(Serving { address, shutdown, finished })
}

/// Waits for the listener, which rumqttd opens without saying so.
async fn accepts(address: SocketAddr) {
    let reach = match address.ip().is_unspecified() {
        true => SocketAddr::from(([127, 0, 0, 1], address.port())),
        false => address,
    };
    while TcpStream::connect(reach).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

fn router_config() -> RouterConfig {
    RouterConfig {
        max_connections: 10_010,
        max_outgoing_packet_count: 200,
        // Smaller segments lose acknowledged messages in silence.
        max_segment_size: 100 * 1024 * 1024,
        max_segment_count: 10,
        custom_segment: None,
        initialized_filters: None,
        shared_subscriptions_strategy: Strategy::RoundRobin,
    }
}

fn settings(listen: SocketAddr, packet_bytes_max: usize) -> ServerSettings {
    ServerSettings {
        name: "mqtt".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 10_000,
            max_payload_size: packet_bytes_max,
            max_inflight_count: 500,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    }
}
