//! The co-simulation endpoint: lines to and from nodes outside of this process.
