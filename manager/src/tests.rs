//! The manager, driven over HTTP and MQTT.

mod description;
mod http;
mod modules;
mod refusals;
mod story;
mod trouble;
mod world;
