//! Everything a client can do wrong, by mistake or on purpose: afterwards a fresh client is served.

use crate::Ground;
use crate::peer::{Dial, Failure, Retain};
use crate::raw::{self, Raw};
use crate::{anywhere, serves};
use broker::BrokerConfig;

/// A topic that begins with a letter outside ASCII: unusual, allowed, delivered.
pub(crate) async fn non_ascii_topic(ground: Ground) -> Result<(), Failure> {
    let mut reader = Dial::to(ground.address, "reader").connect().await?;
    for filter in ["ärger/日本", "+/日本", "#"] {
        reader.subscribe(filter).await?;
    }
    reader.publish("ärger/日本", b"1").await?;
    reader.expect("ärger/日本", b"1").await?;
    ground.serves().await
}

/// A wildcard where a topic's name must be: not delivered, its sender disconnected.
pub(crate) async fn wildcard_in_topic(ground: Ground) -> Result<(), Failure> {
    let mut watcher = Dial::to(ground.address, "watcher").connect().await?;
    watcher.subscribe("#").await?;
    for topic in ["a/+/x", "a/#", "+", "#"] {
        let mut rude = Raw::client(ground.address, "rude").await?;
        rude.offer(&raw::publish(topic.as_bytes(), b"1")).await;
        rude.closed().await.map_err(|why| format!("published to {topic}: {why}"))?;
        ground.serves().await?;
    }
    let mut author = Dial::to(ground.address, "author").connect().await?;
    author.publish("fence", b"").await?;
    let seen = watcher.before("fence").await?;
    let forged = seen.iter().find(|message| message.topic.contains(['+', '#']));
    ensure!(forged.is_none(), "{forged:?} was delivered");
    Ok(())
}

/// Bytes that are no CONNECT, or a broken one.
pub(crate) async fn garbage_instead_of_connect(ground: Ground) -> Result<(), Failure> {
    let mut openings: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
        raw::publish(b"before/connect", b"1"),
        raw::subscribe("before/connect", 1),
        vec![0x10, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x10, 0],
        b"\x10\x0c\0\x04MQTT\x63\x02\0\x3c\0\0".to_vec(),
        b"\x10\x0c\0\x04NOPE\x04\x02\0\x3c\0\0".to_vec(),
        b"\x10\x0c\0\x04MQTT\x04\xff\0\x3c\0\0".to_vec(),
        b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\xff\xff".to_vec(),
        b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01\xff".to_vec(),
        b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01/".to_vec(),
        b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02..".to_vec(),
    ];
    openings.extend((0..50).map(noise));
    for bytes in &openings {
        Raw::open(ground.address).await?.offer(bytes).await;
    }
    ground.serves().await
}

/// Broken packets from a client that connected well; each must at most cost it its connection.
pub(crate) async fn garbage_after_connect(ground: Ground) -> Result<(), Failure> {
    let mut packets: Vec<Vec<u8>> = vec![
        vec![0x00, 0],
        vec![0xf0, 0],
        vec![0x20, 2, 0, 0],
        vec![0x36, 5, 0, 1, b'a', 0, 1],
        vec![0x32, 5, 0, 1, b'a', 0, 0],
        vec![0x32, 3, 0, 0, 1],
        vec![0x30, 2, 0xff, 0xff],
        vec![0x30, 4, 0, 2, 0xc3, 0x28],
        vec![0x30, 4, 0, 2, b'a', 0],
        vec![0x82, 2, 0, 1],
        vec![0x82, 5, 0, 1, 0, 0, 1],
        vec![0x82, 6, 0, 1, 0, 1, b'a', 7],
        raw::subscribe("a/#/b", 1),
        raw::subscribe("a+", 1),
        raw::subscribe("$share/crew", 1),
        raw::subscribe("$share//jobs", 1),
        raw::subscribe("$share/+/jobs", 1),
        vec![0xa2, 2, 0, 1],
        vec![0x40, 2, 0x7f, 0xff],
        vec![0x50, 2, 0x7f, 0xff],
        vec![0x62, 2, 0x7f, 0xff],
        vec![0x70, 2, 0x7f, 0xff],
        vec![0x40, 0],
        raw::connect("rude"),
        raw::publish(&vec![b'a'; 60_000], b"1"),
        raw::publish("/".repeat(60_000).as_bytes(), b"1"),
        raw::publish(b"$SYS/broker/version", b"1"),
        raw::publish(b"$share/crew/jobs", b"1"),
        raw::subscribe(&"+/".repeat(30_000), 1),
        vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x7f],
    ];
    packets.extend((0..50).map(noise));
    for (n, packet) in packets.iter().enumerate() {
        let rude = Raw::client(ground.address, &format!("rude-{n}")).await;
        let mut rude = rude.map_err(|why| format!("before packet {n}: {why}"))?;
        rude.offer(packet).await;
    }
    ground.serves().await
}

/// A packet over the limit ends its sender's connection, one just under it passes, and a promise
/// of 200 MB is not believed.
pub(crate) async fn oversized_packet(ground: Ground) -> Result<(), Failure> {
    let limit = 64 * 1024;
    let config = BrokerConfig { packet_bytes_max: limit, ..anywhere() };
    let running = ground.another(config).await.map_err(|error| error.to_string())?;
    let mut reader = Dial::to(running.address(), "reader").connect().await?;
    reader.subscribe("size").await?;
    let under = vec![7; limit - 1024];
    reader.publish("size", &under).await?;
    reader.expect("size", &under).await?;
    let over = raw::publish(b"size", &vec![7; limit + 1]);
    for bytes in [over.as_slice(), &[0x30, 0x80, 0x84, 0xaf, 0x5f, 0, 1, b'a']] {
        let mut rude = Raw::client(running.address(), "rude").await?;
        rude.offer(bytes).await;
        rude.closed().await?;
        serves(running.address()).await?;
    }
    reader.publish("size", b"still here").await?;
    reader.expect("size", b"still here").await?;
    running.stop().await;
    Ok(())
}

/// A hundred clients that stop in the middle of their CONNECT or their PUBLISH, and stay.
pub(crate) async fn half_open_connects(ground: Ground) -> Result<(), Failure> {
    let connect = raw::connect("half");
    let publish = raw::publish(b"half/done", &[0; 1000]);
    let mut open = Vec::new();
    for n in 0..100 {
        let mut rude = match n % 2 {
            0 => Raw::open(ground.address).await?,
            _ => Raw::client(ground.address, &format!("half-{n}")).await?,
        };
        match n % 2 {
            0 => rude.send(&connect[..n % connect.len()]).await?,
            _ => rude.send(&publish[..n]).await?,
        }
        open.push(rude);
    }
    ground.serves().await?;
    drop(open);
    ground.serves().await
}

/// Subscribers that never read while 64 MiB come for them: another one gets every message, and
/// when the slow ones are gone, the service stays.
pub(crate) async fn slow_subscriber(ground: Ground) -> Result<(), Failure> {
    let mut slow = Vec::new();
    for qos in [0, 1] {
        let mut raw = Raw::client(ground.address, &format!("slow-{qos}")).await?;
        raw.send(&raw::subscribe("flood", qos)).await?;
        raw.read(5).await?;
        slow.push(raw);
    }
    let mut quick = Dial::to(ground.address, "quick").connect().await?;
    quick.subscribe("flood").await?;
    let drop_of_it = vec![9; 32 * 1024];
    let mut author = Dial::to(ground.address, "author").connect().await?;
    for n in 0..2000 {
        author.send("flood", &drop_of_it, Retain::No).await?;
        quick.expect("flood", &drop_of_it).await.map_err(|why| format!("{n} of 2000: {why}"))?;
    }
    author.acknowledged(2000).await?;
    drop(slow);
    ground.serves().await
}

/// The only kept member of a shared subscription vanishes with messages unacknowledged, as a
/// crashing service does: the service stays, and the member gets them when it is back.
pub(crate) async fn shared_member_leaves(ground: Ground) -> Result<(), Failure> {
    let member = || Dial::to(ground.address, "member").kept().manual_acks();
    let mut present = member().connect().await?;
    present.subscribe("$share/crew/jobs").await?;
    let mut author = Dial::to(ground.address, "author").connect().await?;
    for n in 0..10u8 {
        author.publish("jobs", &[n]).await?;
        present.expect("jobs", &[n]).await?;
    }
    present.vanish().await;
    ground.serves().await?;
    let mut back = member().connect().await?;
    for n in 0..10u8 {
        let message = back.expect("jobs", &[n]).await;
        message.map_err(|why| format!("job {n} after the return: {why}"))?;
    }
    ground.serves().await
}

/// Bytes without meaning, the same in every run.
fn noise(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..200).map(|_| next()).collect()
}
