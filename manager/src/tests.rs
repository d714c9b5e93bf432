//! The manager, driven over HTTP and MQTT.

mod callers;
mod description;
mod http;
mod images;
mod modules;
mod refusals;
mod story;
mod trouble;
mod world;
