//! What a driver answers to whoever asks how it is, while things go wrong and well again.

use std::{fs, path::Path};

use service::{
    Transport as _,
    health::{self, HealthError},
    transport::memory::Broker,
};

use crate::{
    Running,
    counter::{Counter, Effect, Event, NAME},
    number, peer, store,
};

/// Asks as another process would, which waits.
async fn asked(dir: &Path) -> Result<(), HealthError> {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || health::ask(&dir)).await.unwrap()
}

#[tokio::test]
async fn a_service_is_well_from_its_connection_to_its_end() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    assert!(matches!(asked(dir.path()).await, Err(HealthError::NotRunning { .. })));
    let mut running = Running::start(&broker, store(dir.path()), Counter::default());
    running.until(Event::Did(Effect::Connected { resumed: false })).await;
    asked(dir.path()).await.unwrap();
    running.stop().await;
    assert!(matches!(asked(dir.path()).await, Err(HealthError::NotRunning { .. })));
}

#[tokio::test]
async fn a_service_whose_disk_refuses_says_so_until_it_takes_again() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let mut peer = peer(&broker).await;
    let state = store(dir.path());
    let quota = state.quota();
    quota.set_bytes_max(1);
    let mut running = Running::start(&broker, state, Counter::default());
    running.until(Event::Did(Effect::Connected { resumed: false })).await;
    peer.publish(number(1000), None);
    running.until(Event::StorageRefuses).await;
    running.until(Event::StorageRefuses).await;
    let why = asked(dir.path()).await.unwrap_err().to_string();
    assert!(why.starts_with("cannot write: "), "{why}");
    quota.set_bytes_max(u64::MAX);
    running.reach(1000).await;
    asked(dir.path()).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn what_a_killed_service_has_left_is_no_answer_and_no_obstacle() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let left = dir.path().join(NAME).with_extension("health");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    assert!(matches!(asked(dir.path()).await, Err(HealthError::Silent { .. })));
    fs::write(dir.path().join("other.txt"), "not a socket").unwrap();
    let mut running = Running::start(&broker, store(dir.path()), Counter::default());
    running.until(Event::Did(Effect::Connected { resumed: false })).await;
    asked(dir.path()).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_state_directory_with_too_long_a_path_is_served_without_answers() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    // A Unix socket's path has 107 bytes at most.
    let deep = dir.path().join("d".repeat(120));
    let mut running = Running::start(&broker, store(&deep), Counter::default());
    running.until(Event::Did(Effect::Connected { resumed: false })).await;
    assert!(matches!(asked(&deep).await, Err(HealthError::NotRunning { .. })));
    running.stop().await;
}
