//! model-server.
