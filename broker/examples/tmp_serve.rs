//! temporary
#[tokio::main]
async fn main() {
    let dir = std::env::args().nth(1).map(Into::into);
    let c = broker::BrokerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        state_dir: dir,
        ..Default::default()
    };
    let r = broker::start(c).await.unwrap();
    eprintln!("{}", r.address().port());
    tokio::signal::ctrl_c().await.unwrap();
    r.stop().await;
}
