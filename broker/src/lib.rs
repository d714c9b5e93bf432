//! The embedded MQTT broker, for first runs and tests: one small seam, two implementations behind it.
//!
//! It knows nothing of topics, rounds or services. Its contract, which `tests/contract` runs
//! for every implementation:
//!
//! - a retained message reaches *every* subscribe, also the second one of a session;
//! - a session kept by its client (clean session off) loses nothing and keeps the order;
//! - a last will is published when a connection dies, and only then;
//! - MQTT 3.1.1 and 5 share one port and hear each other;
//! - no bytes that a client can send end the service for the others;
//! - with a [`Guard`], nobody is let in, heard or told anything but by its word, and whom it no
//!   longer welcomes is cut off within a second;
//! - [`RunningBroker::stop`] leaves the port free, and dropping it leaves nothing serving.
//!
//! ```no_run
//! # async fn story() -> Result<(), broker::BrokerError> {
//! let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
//! let running = broker::start(broker::BrokerConfig { listen, ..Default::default() }).await?;
//! let address = running.address();
//! running.stop().await;
//! # Ok(()) }
//! ```

mod config;
mod error;
mod gate;
mod guard;
mod kind;
mod mqtt5;
#[cfg(feature = "rumqttd")]
mod rumqttd;
mod running;
mod tls;

pub use config::{BrokerConfig, Exposure, PACKET_BYTES_MAX, PACKET_BYTES_MIN};
pub use error::BrokerError;
pub use guard::{Certificate, Denial, Guard, Guarded, Knock};
pub use kind::{Kind, KindError};
pub use running::{RunningBroker, start};
pub use tls::TlsFiles;
