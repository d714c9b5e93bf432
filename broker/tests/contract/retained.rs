//! Retained messages: every subscribe gets them, all of them, until they are cleared.

use crate::Ground;
use crate::peer::{Dial, Failure, Peer, Version};
use crate::pump::Message;
use rumqttc::QoS;
use std::collections::BTreeSet;

/// Given a retained message, when a client subscribes, again, and again in its resumed session,
/// then it gets the message each time.
pub(crate) async fn reaches_every_subscribe(ground: Ground) -> Result<(), Failure> {
    for version in [Version::Four, Version::Five] {
        let topic = if version == Version::Four { "kept/four" } else { "kept/five" };
        Dial::to(ground.address, "author").connect().await?.retain(topic, b"model").await?;
        let id = topic.replace('/', "-");
        let reader = || Dial::to(ground.address, &id).version(version).kept();
        let mut first = reader().connect().await?;
        for time in ["first", "second"] {
            first.subscribe(topic).await?;
            let got = first.expect(topic, b"model").await;
            let got = got.map_err(|why| format!("{time} subscribe: {why}"))?;
            ensure!(got.retained, "{time} subscribe: not marked as retained");
        }
        first.disconnect().await?;
        let mut resumed = reader().connect().await?;
        ensure!(resumed.session_present, "the session was not resumed");
        resumed.subscribe(topic).await?;
        let got = resumed.expect(topic, b"model").await;
        got.map_err(|why| format!("resumed session's subscribe: {why}"))?;
    }
    Ok(())
}

/// Given 300 retained messages, when a client subscribes to all by a wildcard, then it gets 300.
pub(crate) async fn three_hundred_reach_a_wildcard(ground: Ground) -> Result<(), Failure> {
    let mut author = Dial::to(ground.address, "author").connect().await?;
    let topics: BTreeSet<_> = (0..300).map(|n| format!("pieces/{n}")).collect();
    for topic in &topics {
        author.retain(topic, topic.as_bytes()).await?;
    }
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut reader = Dial::to(ground.address, "reader").connect().await?;
        reader.subscribe_with("pieces/+", qos).await?;
        let mut got = BTreeSet::new();
        while got.len() < topics.len() {
            let message = reader.next().await;
            let message = message.map_err(|why| format!("{} of 300, {qos:?}: {why}", got.len()))?;
            ensure!(message.payload == message.topic.as_bytes(), "wrong {}", message.topic);
            got.insert(message.topic);
        }
        ensure!(got == topics, "other topics than those published");
        reader.disconnect().await?;
    }
    Ok(())
}

/// Given a retained message, when an empty one is retained on its topic, then the topic has none.
pub(crate) async fn empty_clears(ground: Ground) -> Result<(), Failure> {
    let mut author = Dial::to(ground.address, "author").connect().await?;
    author.retain("clear/me", b"old").await?;
    author.retain("clear/me", b"").await?;
    let seen = seen_by_newcomer(ground, &mut author, "clear/me").await?;
    ensure!(seen.is_empty(), "{} messages on a cleared topic", seen.len());
    Ok(())
}

/// Given a retained message, when an empty one is published that is not to be retained, then
/// present subscribers hear it and the retained one stays.
pub(crate) async fn empty_unretained_leaves_it(ground: Ground) -> Result<(), Failure> {
    let mut author = Dial::to(ground.address, "author").connect().await?;
    author.retain("stay/here", b"old").await?;
    let mut present = Dial::to(ground.address, "present").connect().await?;
    present.subscribe("stay/here").await?;
    present.expect("stay/here", b"old").await?;
    author.publish("stay/here", b"").await?;
    present.expect("stay/here", b"").await?;
    let seen = seen_by_newcomer(ground, &mut author, "stay/here").await?;
    let payloads: Vec<_> = seen.iter().map(|message| message.payload.as_slice()).collect();
    ensure!(payloads == [b"old"], "a newcomer sees {payloads:?}");
    Ok(())
}

/// What a new subscriber of the topic gets before a live message that was published afterwards.
async fn seen_by_newcomer(
    ground: Ground,
    author: &mut Peer,
    topic: &str,
) -> Result<Vec<Message>, Failure> {
    let mut newcomer = Dial::to(ground.address, "newcomer").connect().await?;
    newcomer.subscribe(topic).await?;
    newcomer.subscribe("fence").await?;
    author.publish("fence", b"").await?;
    newcomer.before("fence").await
}
