//! An MQTT client that is not ours: it hears everything it asks for, remembers all of it in order,
//! and says what a story wants said.

use std::{
    fmt::{self, Write as _},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use rumqttc::{
    Client, Connection, Event, LastWill, MqttOptions, Outgoing, Packet, QoS, SubscribeFilter,
};
use serde_json::Value;

use crate::{Deadline, PATIENCE, say};

const PACKET_BYTES_MAX: usize = 256 << 20;
const REQUESTS_MAX: usize = 100_000;
/// Between two attempts to reach a broker that is away.
const RETRY_AFTER: Duration = Duration::from_millis(50);
const SHOWN_MAX: usize = 60;

/// One message as the broker delivered it.
#[derive(Clone, Debug)]
pub struct Heard {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retained: bool,
}

/// How far a listener has read: waiting begins there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(usize);

/// How a peer connects.
#[derive(Clone, Debug)]
pub struct PeerPlan<'a> {
    pub port: u16,
    pub filters: &'a [&'a str],
    /// What the broker says of it when it is gone: topic and payload.
    pub will: Option<(&'a str, &'a str)>,
}

/// A connected client; reconnects by itself.
pub struct Peer {
    client: Client,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Locked by the reading thread to append and by stories to look; never held while waiting.
    log: Mutex<Log>,
    news: Condvar,
    gone: AtomicBool,
}

#[derive(Debug, Default)]
struct Log {
    heard: Vec<Heard>,
    /// How often all filters were taken by a broker.
    subscribed: u32,
    acknowledged: usize,
    published: usize,
}

impl Heard {
    /// The payload as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload)
            .unwrap_or_else(|why| panic!("{} is not JSON: {why}: {}", self.topic, self.text()))
    }

    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// Whether its topic is one of `pattern`, in which `+` stands for one level.
    pub fn is_on(&self, pattern: &str) -> bool {
        let mut levels = self.topic.split('/');
        let same = pattern
            .split('/')
            .all(|wanted| levels.next().is_some_and(|level| wanted == "+" || wanted == level));
        same && levels.next().is_none()
    }
}

impl Peer {
    /// Connects, and waits until the broker has taken all filters.
    #[track_caller]
    pub fn connect(port: u16, filters: &[&str]) -> Self {
        Self::with(&PeerPlan { port, filters, will: None })
    }

    /// As [`Peer::connect`], with a last will.
    #[track_caller]
    pub fn with(plan: &PeerPlan<'_>) -> Self {
        static PEERS: AtomicU32 = AtomicU32::new(0);
        let number = PEERS.fetch_add(1, Ordering::Relaxed);
        let id = format!("e2e-{}-{number}", std::process::id());
        let mut options = MqttOptions::new(id, "127.0.0.1", plan.port);
        options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        options.set_keep_alive(Duration::from_secs(60)).set_clean_session(false);
        if let Some((topic, payload)) = plan.will {
            options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, false));
        }
        let (client, mut connection) = Client::new(options, REQUESTS_MAX);
        connection.eventloop.network_options.set_connection_timeout(30);
        connection.eventloop.network_options.set_tcp_nodelay(true);
        let shared = Arc::new(Shared::default());
        let filters: Vec<String> = plan.filters.iter().map(|&filter| filter.to_owned()).collect();
        let (listener, asker) = (Arc::clone(&shared), client.clone());
        thread::spawn(move || listen(connection, &asker, &filters, &listener));
        let peer = Self { client, shared };
        peer.wait_until_subscribed(1);
        peer
    }

    /// Publishes at QoS 1; while the broker is away it waits for it.
    pub fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.send(topic, payload.into(), false);
    }

    /// Publishes a retained message at QoS 1.
    pub fn publish_retained(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.send(topic, payload.into(), true);
    }

    fn send(&self, topic: &str, payload: Vec<u8>, retain: bool) {
        self.shared.log().published += 1;
        // Only a full queue refuses, and a story says far less than that.
        self.client
            .try_publish(topic, QoS::AtLeastOnce, retain, payload)
            .expect("room in the queue");
    }

    /// Waits until the broker has acknowledged everything that was published.
    #[track_caller]
    pub fn flush(&self) {
        self.wait_log("the broker acknowledges what was published", |log| {
            (log.acknowledged >= log.published).then_some(())
        });
    }

    /// The end of what was heard so far.
    pub fn cursor(&self) -> Cursor {
        Cursor(self.shared.log().heard.len())
    }

    /// Everything heard so far on topics of `pattern`.
    pub fn all(&self, pattern: &str) -> Vec<Heard> {
        self.since(Cursor(0), pattern)
    }

    /// What was heard after `cursor` on topics of `pattern`.
    pub fn since(&self, cursor: Cursor, pattern: &str) -> Vec<Heard> {
        self.shared.log().heard[cursor.0..].iter().filter(|m| m.is_on(pattern)).cloned().collect()
    }

    /// The first message on a topic of `pattern`, heard already or to come.
    #[track_caller]
    pub fn wait_for(&self, pattern: &str) -> Heard {
        self.wait_after(Cursor(0), pattern, |_| true)
    }

    /// The first message after `cursor` on a topic of `pattern` that is as wanted.
    #[track_caller]
    pub fn wait_after(
        &self,
        cursor: Cursor,
        pattern: &str,
        wanted: impl Fn(&Heard) -> bool,
    ) -> Heard {
        self.wait(&format!("a message on {pattern}"), |heard| {
            heard[cursor.0..].iter().find(|m| m.is_on(pattern) && wanted(m)).cloned()
        })
    }

    /// Waits until what was heard holds what is looked for.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, look: impl Fn(&[Heard]) -> Option<T>) -> T {
        self.wait_log(what, |log| look(&log.heard))
    }

    /// Whether what is looked for is heard before the deadline.
    pub fn hears<T>(&self, deadline: Deadline, look: impl Fn(&[Heard]) -> Option<T>) -> Option<T> {
        self.wait_log_until(deadline, |log| look(&log.heard)).ok()
    }

    /// What was heard after `cursor`, as soon as there is any or the deadline has come, and the new
    /// end.
    pub fn next(&self, cursor: Cursor, deadline: Deadline) -> (Vec<Heard>, Cursor) {
        let look = |heard: &[Heard]| (heard.len() > cursor.0).then(|| heard[cursor.0..].to_vec());
        let news = self.hears(deadline, look).unwrap_or_default();
        let end = Cursor(cursor.0 + news.len());
        (news, end)
    }

    #[track_caller]
    fn wait_until_subscribed(&self, times: u32) {
        self.wait_log("the broker takes the subscriptions", |log| {
            (log.subscribed >= times).then_some(())
        });
    }

    #[track_caller]
    fn wait_log<T>(&self, what: &str, look: impl Fn(&Log) -> Option<T>) -> T {
        match self.wait_log_until(Deadline::after(PATIENCE), look) {
            Ok(found) => found,
            Err(shown) => {
                say(&shown);
                panic!("waited {PATIENCE:?} in vain: {what}")
            }
        }
    }

    fn wait_log_until<T>(
        &self,
        deadline: Deadline,
        look: impl Fn(&Log) -> Option<T>,
    ) -> Result<T, String> {
        let mut log = self.shared.log();
        loop {
            if let Some(found) = look(&log) {
                return Ok(found);
            }
            let Some(left) = deadline.left() else { return Err(log.shown()) };
            let woken = self.shared.news.wait_timeout(log, left);
            log = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Release);
        // If the broker is away there is nothing to take leave of.
        let _ = self.client.try_disconnect();
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// The latest messages, one a line, for a story that failed.
    fn shown(&self) -> String {
        let mut text = String::from("--- heard last\n");
        for heard in &self.heard[self.heard.len().saturating_sub(SHOWN_MAX)..] {
            let payload: String = heard.text().chars().take(200).collect();
            writeln!(text, "{} {payload}", heard.topic).expect("a String takes everything");
        }
        text
    }
}

/// The life of the connection: subscribes at every connect, since a killed broker may forget.
fn listen(mut connection: Connection, client: &Client, filters: &[String], shared: &Shared) {
    for event in connection.iter() {
        let gone = shared.gone.load(Ordering::Acquire);
        match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) if !filters.is_empty() => {
                let filters = filters
                    .iter()
                    .map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
                // A full queue cannot be: see `REQUESTS_MAX`.
                let _ = client.try_subscribe_many(filters);
            }
            Ok(Event::Incoming(Packet::ConnAck(_) | Packet::SubAck(_))) => {
                shared.log().subscribed += 1;
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => shared.log().acknowledged += 1,
            Ok(Event::Incoming(Packet::Publish(publish))) => shared.log().heard.push(Heard {
                topic: publish.topic,
                payload: publish.payload.to_vec(),
                retained: publish.retain,
            }),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => continue,
            Err(_) if gone => return,
            Err(_) => thread::sleep(RETRY_AFTER),
        }
        shared.news.notify_all();
    }
}
