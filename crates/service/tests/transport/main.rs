//! The contract of `Transport`, one suite for every implementation, and what only MQTT has.

mod ground;
mod mosquitto;
mod mqtt;
mod proxy;
mod suite;
mod tls;
