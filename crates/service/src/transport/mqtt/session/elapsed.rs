//! Waiting for a timer that may not be set.

use std::pin::Pin;

use tokio::time::Sleep;

/// For ever, if it is not.
pub(super) async fn elapsed(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}
