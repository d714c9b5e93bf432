//! Asking a broker what it takes: MQTT 5 brokers say so when they are connected to.
//!
//! The services themselves speak 3.1.1, where a broker that gets too much says nothing: it ends the
//! connection, or swallows the message.

use std::time::Duration;

use rumqttc::v5::{
    AsyncClient, ConnectionError, Event, MqttOptions,
    mqttbytes::v5::{ConnAck, Packet},
};
use tokio::time::timeout;

use super::{Config, link, tls};

/// How long the broker may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
const REQUESTS_MAX: usize = 4;

/// Why a broker did not say what it takes.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("it did not answer within {} s", PROBE_TIMEOUT.as_secs())]
    Silence,
    #[error("it does not let us in with MQTT 5: {0}")]
    Refused(String),
}

/// The largest packet that the broker takes, in bytes; nothing if it sets no limit.
pub async fn probe(config: &Config) -> Result<Option<u32>, ProbeError> {
    let asked = timeout(PROBE_TIMEOUT, ask(config)).await;
    match asked.map_err(|_| ProbeError::Silence)? {
        Ok(answer) => Ok(answer.properties.and_then(|properties| properties.max_packet_size)),
        Err(why) => {
            let said = tls::explain(&why).unwrap_or_else(|| why.to_string());
            Err(ProbeError::Refused(said))
        }
    }
}

async fn ask(config: &Config) -> Result<ConnAck, ConnectionError> {
    let (client, mut event_loop) = AsyncClient::new(options(config, "probe"), REQUESTS_MAX);
    loop {
        if let Event::Incoming(Packet::ConnAck(answer)) = event_loop.poll().await? {
            // A word of goodbye; the broker would get over it.
            if client.disconnect().await.is_ok() {
                while timeout(Duration::from_millis(100), event_loop.poll())
                    .await
                    .is_ok_and(|polled| polled.is_ok())
                {}
            }
            return Ok(answer);
        }
    }
}

/// `purpose` is put behind our client id, so that nobody is thrown out.
pub(super) fn options(config: &Config, purpose: &str) -> MqttOptions {
    let (host, way) = link::way(config);
    let client_id = format!("{}-{purpose}", config.client_id);
    let mut options = MqttOptions::new(client_id, host, config.address.port);
    options.set_transport(way).set_clean_start(true).set_keep_alive(PROBE_TIMEOUT);
    options.set_connection_timeout(PROBE_TIMEOUT.as_secs());
    if let Some(who) = &config.credentials {
        let password = who.password.as_ref().map_or("", |password| password.expose());
        options.set_credentials(&who.username, password);
    }
    options
}
