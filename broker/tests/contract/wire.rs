//! Both protocol versions on one port, and payloads of the size of a model.

use crate::Ground;
use crate::peer::{Dial, Failure, Retain, Version};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

/// Given a 3.1.1 and a 5 client on the one port, when either publishes, then both hear it.
pub(crate) async fn versions_hear_each_other(ground: Ground) -> Result<(), Failure> {
    let mut four = Dial::to(ground.address, "four").connect().await?;
    let mut five = Dial::to(ground.address, "five").version(Version::Five).connect().await?;
    four.subscribe("said/by/+").await?;
    five.subscribe("said/by/+").await?;
    four.publish("said/by/four", b"4").await?;
    four.expect("said/by/four", b"4").await?;
    five.expect("said/by/four", b"4").await?;
    five.publish("said/by/five", b"5").await?;
    four.expect("said/by/five", b"5").await?;
    five.expect("said/by/five", b"5").await?;
    Ok(())
}

/// Given subscribers of both versions, when a message has user properties, then the 5 one gets
/// them, in order, and the 3.1.1 one gets the message and stays connected.
pub(crate) async fn user_properties_pass_by_four(ground: Ground) -> Result<(), Failure> {
    let mut four = Dial::to(ground.address, "four").connect().await?;
    let mut five = Dial::to(ground.address, "five").version(Version::Five).connect().await?;
    four.subscribe("with/properties").await?;
    five.subscribe("with/properties").await?;
    let sent = vec![
        ("forwarded_at".to_owned(), "2026-01-12T10:30:45Z".to_owned()),
        ("forwarded_at".to_owned(), "again, which is allowed".to_owned()),
        ("größe".to_owned(), "ö".to_owned()),
    ];
    let properties = PublishProperties {
        user_properties: sent.clone(),
        content_type: Some("application/json".to_owned()),
        ..PublishProperties::default()
    };
    let mut author = Dial::to(ground.address, "author").version(Version::Five).connect().await?;
    author.publish_with("with/properties", b"{}", properties).await?;
    let got = five.expect("with/properties", b"{}").await?.user_properties;
    // A broker may add properties of its own (the sender's id); it must not touch the sender's.
    let ours: Vec<_> = got.iter().filter(|pair| sent.contains(pair)).cloned().collect();
    ensure!(ours == sent, "user properties arrived as {got:?}");
    four.expect("with/properties", b"{}").await?;
    author.publish("with/properties", b"after").await?;
    four.expect("with/properties", b"after").await?;
    five.expect("with/properties", b"after").await?;
    Ok(())
}

/// Given a wildcard subscriber, when a topic is published by its alias, then it arrives by name.
pub(crate) async fn alias_arrives_as_topic(ground: Ground) -> Result<(), Failure> {
    let mut reader = Dial::to(ground.address, "reader").version(Version::Five).connect().await?;
    reader.subscribe("alias/#").await?;
    let mut author = Dial::to(ground.address, "author").version(Version::Five).connect().await?;
    let alias = |alias| PublishProperties { topic_alias: Some(alias), ..Default::default() };
    author.publish_with("alias/one", b"1", alias(1)).await?;
    author.publish_with("alias/two", b"2", alias(2)).await?;
    author.publish_with("", b"1 again", alias(1)).await?;
    reader.expect("alias/one", b"1").await?;
    reader.expect("alias/two", b"2").await?;
    reader.expect("alias/one", b"1 again").await?;
    Ok(())
}

/// Given a 16 MiB message, when it is retained, then subscribers of both versions get it whole.
pub(crate) async fn large_retained_arrives(ground: Ground) -> Result<(), Failure> {
    let model = large();
    Dial::to(ground.address, "author").connect().await?.retain("large", &model).await?;
    for (version, id) in [(Version::Four, "four"), (Version::Five, "five")] {
        let mut reader = Dial::to(ground.address, id).version(version).connect().await?;
        reader.subscribe("large").await?;
        reader.expect("large", &model).await?;
    }
    Ok(())
}

/// Given subscribers present and one away in a kept session, when 16 MiB messages are published,
/// then all get them whole.
pub(crate) async fn large_live_arrives(ground: Ground) -> Result<(), Failure> {
    let model = large();
    let away = || Dial::to(ground.address, "away").kept();
    let mut present = away().connect().await?;
    present.subscribe("large").await?;
    present.disconnect().await?;
    let mut four = Dial::to(ground.address, "four").connect().await?;
    let mut five = Dial::to(ground.address, "five").version(Version::Five).connect().await?;
    four.subscribe("large").await?;
    five.subscribe("large").await?;
    let mut author = Dial::to(ground.address, "author").connect().await?;
    // More than 64 MiB in all, at which a queue is cut short in some brokers' defaults.
    for _ in 0..5 {
        author.send("large", &model, Retain::No).await?;
        author.acknowledged(1).await?;
        four.expect("large", &model).await?;
        five.expect("large", &model).await?;
    }
    let mut back = away().connect().await?;
    for n in 0..5 {
        back.expect("large", &model).await.map_err(|why| format!("large {n} of 5: {why}"))?;
    }
    Ok(())
}

/// 16 MiB that no part of can be taken for another.
fn large() -> Vec<u8> {
    (0u32..4 * 1024 * 1024).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}
