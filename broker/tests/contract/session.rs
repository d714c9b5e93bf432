//! Kept sessions and last wills: what the broker owes a client that is away or gone.

use crate::Ground;
use crate::peer::{Dial, Failure, Retain, Version};

const COUNT: usize = 500;

fn numbered(n: usize) -> Vec<u8> {
    format!("message {n}").into_bytes()
}

/// Given a kept session whose client is away, when 500 messages are published, then the client
/// gets all of them in order when it returns, without subscribing again.
pub(crate) async fn queue_keeps_all_in_order(ground: Ground) -> Result<(), Failure> {
    for (version, id) in [(Version::Four, "away-four"), (Version::Five, "away-five")] {
        let reader = || Dial::to(ground.address, id).version(version).kept();
        let mut present = reader().connect().await?;
        ensure!(!present.session_present, "{id} had a session before it came");
        present.subscribe(id).await?;
        present.disconnect().await?;
        let mut author = Dial::to(ground.address, "author").connect().await?;
        for n in 0..COUNT {
            author.send(id, &numbered(n), Retain::No).await?;
        }
        author.acknowledged(COUNT).await?;
        let mut back = reader().connect().await?;
        ensure!(back.session_present, "{id} has lost its session");
        for n in 0..COUNT {
            back.expect(id, &numbered(n)).await.map_err(|why| format!("{id}, {n}: {why}"))?;
        }
        back.disconnect().await?;
    }
    Ok(())
}

/// Given a kept session, when its client vanishes while messages flow, again and again, then in
/// the end it has heard every one.
pub(crate) async fn cuts_lose_nothing(ground: Ground) -> Result<(), Failure> {
    let reader = || Dial::to(ground.address, "cut").kept().manual_acks();
    let mut present = reader().connect().await?;
    present.subscribe("flow").await?;
    let author = Dial::to(ground.address, "author").connect().await?;
    let flow = tokio::spawn(async move {
        let mut author = author;
        for n in 0..COUNT {
            author.send("flow", &numbered(n), Retain::No).await?;
        }
        author.acknowledged(COUNT).await
    });
    let mut heard = std::collections::BTreeSet::new();
    for cut in 0.. {
        // Ten cuts, each with the last message heard but not acknowledged; then to the end.
        let last = |heard: usize| if cut < 10 { heard >= (cut + 1) * 40 } else { heard == COUNT };
        while !last(heard.len()) {
            let message = present.next().await;
            let message = message.map_err(|why| format!("cut {cut}, {}: {why}", heard.len()))?;
            heard.insert(message.payload.clone());
            if !last(heard.len()) {
                present.acknowledge(&message).await?;
            }
        }
        if heard.len() == COUNT {
            break;
        }
        present.vanish().await;
        present = reader().connect().await?;
        ensure!(present.session_present, "the session is lost after cut {cut}");
    }
    flow.await.map_err(|lost| lost.to_string())?
}

/// Given messages delivered and not acknowledged, when their client vanishes and returns, then it
/// gets exactly those again, and in order.
pub(crate) async fn unacknowledged_comes_again(ground: Ground) -> Result<(), Failure> {
    for (version, id) in [(Version::Four, "unsure-four"), (Version::Five, "unsure-five")] {
        let reader = || Dial::to(ground.address, id).version(version).kept().manual_acks();
        let mut present = reader().connect().await?;
        present.subscribe(id).await?;
        let mut author = Dial::to(ground.address, "author").connect().await?;
        for n in 0..10 {
            author.publish(id, &numbered(n)).await?;
        }
        for n in 0..10 {
            let message = present.expect(id, &numbered(n)).await?;
            if n < 4 {
                present.acknowledge(&message).await?;
            }
        }
        // Its own later message acknowledged shows that the broker has read the earlier ones.
        present.publish("nobody/listens", b"").await?;
        present.vanish().await;
        let mut back = reader().connect().await?;
        ensure!(back.session_present, "{id} has lost its session");
        for n in 4..10 {
            let message = back.expect(id, &numbered(n)).await;
            let message = message.map_err(|why| format!("{id}, {n} again: {why}"))?;
            back.acknowledge(&message).await?;
        }
        back.disconnect().await?;
    }
    Ok(())
}

/// Given a kept session, when its client comes back wanting a clean one, then nothing old reaches it.
pub(crate) async fn clean_start_forgets(ground: Ground) -> Result<(), Failure> {
    let mut before = Dial::to(ground.address, "forgetful").kept().connect().await?;
    before.subscribe("old").await?;
    before.disconnect().await?;
    let mut author = Dial::to(ground.address, "author").connect().await?;
    author.publish("old", b"for the old session").await?;
    let mut after = Dial::to(ground.address, "forgetful").connect().await?;
    ensure!(!after.session_present, "a clean session is said to be resumed");
    after.subscribe("fence").await?;
    author.publish("old", b"again").await?;
    author.publish("fence", b"").await?;
    let seen = after.before("fence").await?;
    ensure!(seen.is_empty(), "{} messages of the old session", seen.len());
    Ok(())
}

/// Given a client with a will, when its socket closes without a word, then the will is published.
pub(crate) async fn will_on_abrupt_close(ground: Ground) -> Result<(), Failure> {
    for (version, id) in [(Version::Four, "frail-four"), (Version::Five, "frail-five")] {
        let mut watcher = Dial::to(ground.address, "watcher").connect().await?;
        watcher.subscribe("wills/+").await?;
        let topic = format!("wills/{id}");
        let frail = Dial::to(ground.address, id).version(version).will(&topic, "gone");
        frail.connect().await?.vanish().await;
        watcher.expect(&topic, b"gone").await?;
        watcher.disconnect().await?;
    }
    Ok(())
}

/// Given a client with a will, when it says goodbye, then the will is not published, though the
/// will of another that vanishes afterwards is.
pub(crate) async fn no_will_on_goodbye(ground: Ground) -> Result<(), Failure> {
    for (version, id) in [(Version::Four, "polite-four"), (Version::Five, "polite-five")] {
        let mut watcher = Dial::to(ground.address, "watcher").connect().await?;
        watcher.subscribe("wills/+").await?;
        let topic = format!("wills/{id}");
        let polite = || Dial::to(ground.address, id).version(version).will(&topic, "gone");
        polite().connect().await?.disconnect().await?;
        // The same client back again: by then the broker is done with its first connection.
        polite().connect().await?.disconnect().await?;
        let frail = Dial::to(ground.address, "frail").will("wills/frail", "gone");
        frail.connect().await?.vanish().await;
        let seen = watcher.before("wills/frail").await?;
        ensure!(seen.is_empty(), "{} wills after {id} said goodbye", seen.len());
        watcher.disconnect().await?;
    }
    Ok(())
}

/// Given a connected client, when another connects under its id, then the first is closed and the
/// second is served.
pub(crate) async fn same_id_takes_over(ground: Ground) -> Result<(), Failure> {
    let first = Dial::to(ground.address, "twin").kept().connect().await?;
    let mut second = Dial::to(ground.address, "twin").kept().connect().await?;
    first.closed().await?;
    second.subscribe("twin").await?;
    second.publish("twin", b"me").await?;
    second.expect("twin", b"me").await?;
    Ok(())
}
