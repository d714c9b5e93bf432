//! The driver with a small machine on a broker in memory and a real state file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod counter;
mod health;

use std::{path::Path, time::Duration};

use protocol::{Envelope, Filter, Topic};
use service::{
    DriveError, Inbound, Store, Transport as _, drive,
    transport::memory::{Broker, Memory},
};
use tokio::{
    sync::mpsc::{Sender, UnboundedReceiver},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use counter::{Counter, CounterDriver, Effect, Event, NAME, TABLES, driver, sum_is};

const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    task: JoinHandle<Result<CounterDriver, DriveError>>,
    stop: CancellationToken,
    events: UnboundedReceiver<Event>,
    reports: Sender<u64>,
}

impl Running {
    fn start(broker: &Broker, store: Store, machine: Counter) -> Self {
        let (driver, events) = driver(broker, store, machine);
        let (stop, reports) = (CancellationToken::new(), driver.reports.sender());
        let task = tokio::spawn(drive(driver, stop.clone()));
        Self { task, stop, events, reports }
    }

    /// Waits for `wanted`; returns what came before it.
    async fn until(&mut self, wanted: Event) -> Vec<Event> {
        let mut before = vec![];
        let found = async {
            loop {
                match self.events.recv().await {
                    Some(event) if event == wanted => return,
                    Some(event) => before.push(event),
                    None => panic!("the driver ended before {wanted:?}"),
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        assert!(found.is_ok(), "{wanted:?} did not come, only {before:?}");
        before
    }

    async fn reach(&mut self, sum: u64) -> Vec<Event> {
        self.until(Event::Did(Effect::Reached(sum))).await
    }

    async fn stop(self) -> CounterDriver {
        self.stop.cancel();
        self.task.await.unwrap().unwrap()
    }
}

fn store(dir: &Path) -> Store {
    Store::open(dir, NAME, TABLES).unwrap()
}

fn number(text: impl ToString) -> Envelope {
    Envelope { topic: Topic::TaskResults, payload: text.to_string().into() }
}

async fn message(transport: &mut Memory) -> Envelope {
    loop {
        if let Inbound::Message { envelope, receipt } = transport.next().await.unwrap() {
            transport.ack(receipt);
            return envelope;
        }
    }
}

/// Somebody else on the broker, connected.
async fn peer(broker: &Broker) -> Memory {
    let mut peer = broker.connect("peer", None);
    peer.listen(Filter::Exactly(Topic::TaskMetrics));
    peer.next().await.unwrap();
    peer
}

#[tokio::test]
async fn news_lead_to_entries_promises_and_effects() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let mut peer = peer(&broker).await;
    let mut running = Running::start(&broker, store(dir.path()), Counter::default());
    running.until(Event::Did(Effect::Connected { resumed: false })).await;

    for n in 1..=1000 {
        peer.publish(number(n), None);
    }
    running.reach(500_500).await;
    assert_eq!(broker.owed(NAME), 0, "everything is acknowledged");
    let mut sum = 0;
    for n in 1..=1000 {
        sum += n;
        assert_eq!(message(&mut peer).await, sum_is(sum), "in order");
    }
    let driver = running.stop().await;
    let entries = driver.store.entries().unwrap();
    assert_eq!(entries[1].read::<u64>().unwrap(), Some(500_500));
}

#[tokio::test]
async fn a_refused_write_holds_everything_back_until_it_succeeds() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let mut peer = peer(&broker).await;
    let state = store(dir.path());
    let quota = state.quota();
    quota.set_bytes_max(1);
    let mut running = Running::start(&broker, state, Counter::default());
    running.until(Event::Did(Effect::Connected { resumed: false })).await;

    // This one comes with more ballast than the quota leaves room for.
    peer.publish(number(1000), None);
    let before = running.until(Event::StorageRefuses).await;
    assert_eq!(before, [], "no effect");
    peer.publish(number(1), None);
    let before = running.until(Event::StorageRefuses).await;
    assert_eq!(before, [], "tried again, still no effect");
    assert_eq!(broker.owed(NAME), 2, "nothing is acknowledged");
    assert_eq!(broker.owed("peer"), 0, "nothing is said");

    quota.set_bytes_max(u64::MAX);
    running.until(Event::StorageTakesAgain).await;
    running.reach(1000).await;
    running.reach(1001).await;
    assert_eq!(message(&mut peer).await, sum_is(1000));
    assert_eq!(message(&mut peer).await, sum_is(1001));
    assert_eq!(broker.owed(NAME), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_stop_is_heard_while_the_store_refuses() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let mut peer = peer(&broker).await;
    let state = store(dir.path());
    state.quota().set_bytes_max(1);
    let mut running = Running::start(&broker, state, Counter::default());
    running.until(Event::Did(Effect::Connected { resumed: false })).await;
    peer.publish(number(1000), None);
    running.until(Event::StorageRefuses).await;

    drop(running.stop().await);

    let mut running = Running::start(&broker, store(dir.path()), Counter::default());
    running.reach(1000).await;
    running.stop().await;
}

#[tokio::test]
async fn a_promise_outlives_the_process_until_the_broker_has_it() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let mut peer = peer(&broker).await;
    broker.stop();
    let mut running = Running::start(&broker, store(dir.path()), Counter::default());
    running.reports.send(7).await.unwrap();
    running.reach(7).await;
    let kept = running.stop().await.store.promises().unwrap();
    assert_eq!(kept.len(), 1);

    broker.resume();
    let mut running = Running::start(&broker, store(dir.path()), Counter::default());
    assert_eq!(message(&mut peer).await, sum_is(7), "said by the next process");
    running.reports.send(1).await.unwrap();
    running.reach(8).await;
    assert_eq!(message(&mut peer).await, sum_is(8), "it remembers what it had");
    let driver = running.stop().await;
    assert!(!driver.store.promises().unwrap().contains(&kept[0]), "kept and forgotten");
}

#[tokio::test]
async fn a_killed_driver_loses_and_repeats_nothing_that_was_acknowledged() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let mut peer = peer(&broker).await;
    let mut sum = 0;
    for n in 1..=20 {
        let mut running = Running::start(&broker, store(dir.path()), Counter::default());
        running.until(Event::Connection(true)).await;
        peer.publish(number(n), None);
        sum += n;
        running.reach(sum).await;
        running.task.abort();
        assert!(running.task.await.unwrap_err().is_cancelled());
    }
    assert_eq!(broker.owed(NAME), 0);
    let mut heard = message(&mut peer).await;
    while heard != sum_is(sum) {
        heard = message(&mut peer).await;
    }
}

#[tokio::test]
async fn an_unreadable_message_is_acknowledged_and_told() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let mut peer = peer(&broker).await;
    let mut running = Running::start(&broker, store(dir.path()), Counter::default());
    running.until(Event::Did(Effect::Connected { resumed: false })).await;
    for text in ["", "{", "-1", "1e400", "\u{0}"] {
        peer.publish(number(text), None);
        running.until(Event::Unreadable).await;
    }
    peer.publish(number(1), None);
    running.reach(1).await;
    assert_eq!(broker.owed(NAME), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_deadline_is_kept_also_under_load() {
    const MANY: u64 = 2000;
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let mut peer = peer(&broker).await;
    let machine = Counter { tick_after: Some(Duration::ZERO), ..Counter::default() };
    let mut running = Running::start(&broker, store(dir.path()), machine);
    running.until(Event::Did(Effect::Connected { resumed: false })).await;
    for _ in 0..MANY {
        peer.publish(number(1), None);
    }
    let before = running.until(Event::Did(Effect::Ticked)).await;
    assert!(before.len() < 100, "the tick came after {} inputs", before.len());
    running.reach(MANY).await;
    running.until(Event::Did(Effect::Ticked)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_deadline_in_the_future_is_waited_for() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let machine = Counter { tick_after: Some(Duration::from_millis(50)), ..Counter::default() };
    let mut running = Running::start(&broker, store(dir.path()), machine);
    let begun = tokio::time::Instant::now();
    running.reports.send(1).await.unwrap();
    running.reach(1).await;
    running.until(Event::Did(Effect::Ticked)).await;
    assert!(begun.elapsed() >= Duration::from_millis(45), "{:?}", begun.elapsed());
    running.stop().await;
}

#[tokio::test]
async fn a_lost_broker_is_told_and_its_return_is_a_connection() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), Broker::default());
    let mut running = Running::start(&broker, store(dir.path()), Counter::default());
    running.until(Event::Did(Effect::Connected { resumed: false })).await;
    broker.stop();
    running.until(Event::Connection(false)).await;
    broker.resume();
    running.until(Event::Did(Effect::Connected { resumed: true })).await;
    broker.crash();
    running.until(Event::Did(Effect::Connected { resumed: false })).await;
    let mut driver = running.stop().await;
    assert_eq!(driver.machine.disconnected, 2);
    let peer = peer(&broker).await;

    // What is left can say goodbye.
    driver.transport.publish(sum_is(0), None);
    driver.transport.close(Duration::from_secs(10)).await;
    let mut peer = peer;
    assert_eq!(message(&mut peer).await, sum_is(0));
}
