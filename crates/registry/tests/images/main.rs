//! Images pushed to and pulled from Debian's registry, in good order and in bad.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[cfg(feature = "cosign")]
mod cosign;
mod proxy;
mod pulling;
mod pushing;
mod realm;
mod server;
mod trouble;
