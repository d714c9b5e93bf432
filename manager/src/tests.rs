//! The manager, driven over HTTP and MQTT.
