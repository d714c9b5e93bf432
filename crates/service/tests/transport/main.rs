//! The contract of `Transport`, one suite for every implementation, and what only MQTT has.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod ground;
mod limits;
mod mosquitto;
mod mqtt;
mod pki;
mod proxy;
mod suite;
mod tls;
mod websocket;
