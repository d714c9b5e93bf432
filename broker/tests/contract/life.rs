//! Start, stop and drop: what is refused, what is left behind, what survives.

use crate::peer::{Dial, Failure, Retain};
use crate::raw::{self, Raw};
use crate::{Ground, anywhere, serves};
use broker::{BrokerConfig, BrokerError, Exposure};
use std::net::{SocketAddr, TcpListener, TcpStream};

fn text(error: impl std::fmt::Display) -> Failure {
    error.to_string()
}

/// A stopped broker's port can be listened on at once, and its clients are cut off.
pub(crate) async fn stop_frees_the_port(ground: Ground) -> Result<(), Failure> {
    let running = ground.another(anywhere()).await.map_err(text)?;
    let address = running.address();
    ensure!(address.port() != 0, "the real port is not told");
    let client = Dial::to(address, "client").connect().await?;
    running.stop().await;
    client.closed().await?;
    ensure!(TcpStream::connect(address).is_err(), "{address} still accepts");
    let again = ground.another(BrokerConfig { listen: address, ..anywhere() }).await;
    let again = again.map_err(text)?;
    ensure!(again.address() == address, "{} instead of {address}", again.address());
    serves(address).await?;
    again.stop().await;
    drop(TcpListener::bind(address).map_err(text)?);
    Ok(())
}

/// A dropped broker cuts its clients off and stops listening.
pub(crate) async fn drop_stops_serving(ground: Ground) -> Result<(), Failure> {
    let running = ground.another(anywhere()).await.map_err(text)?;
    let address = running.address();
    let client = Dial::to(address, "client").connect().await?;
    let idle = Raw::open(address).await?;
    drop(running);
    client.closed().await?;
    idle.closed().await?;
    let refused = async {
        while Raw::open(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let refused = tokio::time::timeout(crate::peer::PATIENCE, refused).await;
    refused.map_err(|_| format!("{address} still accepts"))
}

/// Clients that do not read, or never finished to connect, do not keep a broker from stopping.
pub(crate) async fn stop_ends_stuck_connections(ground: Ground) -> Result<(), Failure> {
    let running = ground.another(anywhere()).await.map_err(text)?;
    let address = running.address();
    let idle = Raw::open(address).await?;
    let mut stuck = Raw::client(address, "stuck").await?;
    stuck.send(&raw::subscribe("flood", 1)).await?;
    stuck.read(5).await?;
    let mut author = Dial::to(address, "author").connect().await?;
    for _ in 0..500 {
        author.send("flood", &[9; 32 * 1024], Retain::No).await?;
        author.acknowledged(1).await?;
    }
    running.stop().await;
    idle.closed().await?;
    stuck.closed().await?;
    drop(TcpListener::bind(address).map_err(text)?);
    Ok(())
}

/// A port in use is an error that names the address, not a broker that nobody reaches.
pub(crate) async fn busy_port_is_refused(ground: Ground) -> Result<(), Failure> {
    let holder = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    let held = holder.local_addr().map_err(text)?;
    for busy in [held, ground.address] {
        let config = BrokerConfig { listen: busy, ..anywhere() };
        match ground.another(config).await {
            Ok(_) => return Err(format!("started on {busy}, which is in use")),
            Err(error @ BrokerError::Listen { .. }) => {
                let named = error.to_string().contains(&busy.to_string());
                ensure!(named, "{error:?} does not name {busy}");
            }
            Err(other) => return Err(format!("wrong reason: {other}")),
        }
    }
    ground.serves().await
}

/// An address that others can reach is refused by name, unless the settings say so.
pub(crate) async fn remote_address_is_refused(ground: Ground) -> Result<(), Failure> {
    let open: SocketAddr = ([0, 0, 0, 0], 0).into();
    let closed = BrokerConfig { listen: open, ..anywhere() };
    match ground.another(closed.clone()).await {
        Ok(_) => return Err(format!("started on {open} without being told so")),
        Err(error @ BrokerError::NotLoopback { .. }) => {
            ensure!(error.to_string().contains("0.0.0.0:0"), "{error} does not name {open}");
        }
        Err(other) => return Err(format!("wrong reason: {other}")),
    }
    let told = BrokerConfig { exposure: Exposure::Network, ..closed };
    let running = ground.another(told).await.map_err(text)?;
    serves(SocketAddr::from(([127, 0, 0, 1], running.address().port()))).await?;
    running.stop().await;
    Ok(())
}

/// With a state directory, retained messages, sessions and their queues are there after a restart.
pub(crate) async fn state_survives_a_restart(ground: Ground) -> Result<(), Failure> {
    let dir = tempfile::tempdir().map_err(text)?;
    // A directory that does not exist yet is made.
    let state_dir = Some(dir.path().join("broker/state"));
    let config = BrokerConfig { state_dir, ..anywhere() };
    let large = vec![3; 1024 * 1024];
    let running = ground.another(config.clone()).await.map_err(text)?;
    let away = |address| Dial::to(address, "away").kept();
    let mut present = away(running.address()).connect().await?;
    present.subscribe("queued").await?;
    present.disconnect().await?;
    let mut author = Dial::to(running.address(), "author").connect().await?;
    author.retain("kept", b"small").await?;
    author.retain("kept/large", &large).await?;
    author.retain("kept/cleared", b"1").await?;
    author.retain("kept/cleared", b"").await?;
    for n in 0..100u8 {
        author.publish("queued", &[n]).await?;
    }
    running.stop().await;

    let running = ground.another(config).await.map_err(text)?;
    let mut back = away(running.address()).connect().await?;
    ensure!(back.session_present, "the session is gone");
    for n in 0..100u8 {
        back.expect("queued", &[n]).await.map_err(|why| format!("queued {n}: {why}"))?;
    }
    back.subscribe("kept").await?;
    back.expect("kept", b"small").await?;
    back.subscribe("kept/large").await?;
    back.expect("kept/large", &large).await?;
    back.subscribe("kept/cleared").await?;
    back.publish("queued", b"end").await?;
    let seen = back.before("queued").await?;
    ensure!(seen.is_empty(), "a cleared message is back");
    running.stop().await;
    Ok(())
}

/// A state directory that another broker uses, or that cannot be one, is refused by name.
pub(crate) async fn used_state_dir_is_refused(ground: Ground) -> Result<(), Failure> {
    let dir = tempfile::tempdir().map_err(text)?;
    let file = dir.path().join("file");
    std::fs::write(&file, b"not a directory").map_err(text)?;
    let used = dir.path().join("used");
    let config = |dir| BrokerConfig { state_dir: Some(dir), ..anywhere() };
    let running = ground.another(config(used.clone())).await.map_err(text)?;
    for refused in [used.clone(), file.clone(), file.join("below")] {
        let named = refused.display().to_string();
        match ground.another(config(refused)).await {
            Ok(_) => return Err(format!("started with {named}")),
            Err(error @ BrokerError::StateDir { .. }) => {
                ensure!(error.to_string().contains(&named), "{error} does not name {named}");
            }
            Err(other) => return Err(format!("wrong reason: {other}")),
        }
    }
    running.stop().await;
    // Once it is free, it can be used again.
    let again = ground.another(config(used)).await.map_err(text)?;
    serves(again.address()).await?;
    again.stop().await;
    Ok(())
}
