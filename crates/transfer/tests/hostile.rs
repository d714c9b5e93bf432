//! Transfers over a network that loses, repeats, reorders and damages what it carries, between two
//! that crash, with strangers talking in between: they end well as long as the sender answers.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use proptest::{prelude::*, test_runner::RngAlgorithm};
use protocol::{Manifest, Timestamp, manifest::Format, message::Wants};
use transfer::{Assembly, Bitmap, Offer, OfferRules, Refusal, Rules, Step, Way, Window};

const CHUNK: u32 = 1024;

/// What can go wrong, in percent of messages.
#[derive(Clone, Debug)]
struct Weather {
    loss: u32,
    repeat: u32,
    damage: u32,
    junk: u32,
    delay_ms_max: u64,
    /// Of writes to the receiver's disk.
    refusal: u32,
    crashes: u32,
    cuts: u32,
}

fn weather() -> impl Strategy<Value = Weather> {
    (0..50_u32, 0..40_u32, 0..40_u32, 0..60_u32, 1..3000_u64, 0..20_u32, 0..4_u32, 0..4_u32)
        .prop_map(|(loss, repeat, damage, junk, delay_ms_max, refusal, crashes, cuts)| Weather {
            loss,
            repeat,
            damage,
            junk,
            delay_ms_max,
            refusal,
            crashes,
            cuts,
        })
}

#[derive(Clone, Debug)]
enum Event {
    /// Arrives at the sender.
    Wants(Vec<u32>),
    /// A subscription arrives at the broker.
    Subscribed(u32),
    /// Arrives at the receiver, in whatever life.
    Chunk {
        index: u32,
        bytes: Bytes,
    },
    /// The disk has written it, in the life of the receiver that asked for it.
    Stored {
        index: u32,
        bytes: Bytes,
        life: u32,
    },
    Crash,
    Cut,
    Mend,
}

struct World {
    blob: Bytes,
    manifest: Manifest,
    way: Way,
    rules: Rules,
    weather: Weather,
    dice: u64,
    now: Timestamp,
    events: BTreeMap<(Timestamp, u64), Event>,
    count: u64,
    assembly: Assembly,
    offer: Offer,
    life: u32,
    disk: BTreeMap<u32, Bytes>,
    /// Asked for in this life.
    asked: BTreeSet<u32>,
    refused: BTreeMap<Refusal, u64>,
    done: bool,
}

impl World {
    fn new(len: usize, way: Way, window: Window, weather: Weather, seed: u64) -> Self {
        let blob: Bytes =
            (0..len).map(|n| u8::try_from((n * 31 + n / 256) % 256).unwrap()).collect();
        let manifest = Manifest::of(&blob, CHUNK, Format::safetensors()).unwrap();
        // Patience outlives the network's delays, and nobody gives up.
        let stall_max = Duration::from_secs(1 << 40);
        let rules = Rules { window, stall_max, ..Rules::default() };
        let mut world = Self {
            assembly: Assembly::new(manifest.clone(), way, rules),
            offer: Offer::new(manifest.clone(), OfferRules::default()),
            blob,
            manifest,
            way,
            rules,
            weather,
            dice: seed | 1,
            now: Timestamp::from_micros(1),
            events: BTreeMap::new(),
            count: 0,
            life: 0,
            disk: BTreeMap::new(),
            asked: BTreeSet::new(),
            refused: BTreeMap::new(),
            done: false,
        };
        for _ in 0..world.weather.crashes {
            world.plan(60_000, Event::Crash);
        }
        for _ in 0..world.weather.cuts {
            world.plan(60_000, Event::Cut);
        }
        let steps = world.assembly.connected(world.now);
        world.obey(steps);
        world
    }

    /// xorshift: the same seed, the same story.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.roll(100) < u64::from(percent)
    }

    fn plan(&mut self, ms_max: u64, event: Event) {
        let delay = Duration::from_micros(self.roll(ms_max * 1000) + 1);
        self.count += 1;
        self.events.insert((self.now + delay, self.count), event);
    }

    /// Carries a message, in its way.
    fn carry(&mut self, event: Event) {
        if self.chance(self.weather.loss) {
            return;
        }
        if self.chance(self.weather.repeat) {
            self.plan(self.weather.delay_ms_max, event.clone());
        }
        self.plan(self.weather.delay_ms_max, event);
    }

    fn piece(&self, index: u32) -> Bytes {
        let from = self.manifest.offset(index) as usize;
        self.blob.slice(from..from + self.manifest.len_of(index))
    }

    fn send(&mut self, index: u32) {
        let mut bytes = self.piece(index);
        if self.chance(self.weather.damage) {
            let mut damaged = bytes.to_vec();
            match self.roll(4) {
                0 => damaged.truncate(damaged.len() / 2),
                1 => damaged.push(0),
                2 => damaged.clear(),
                _ => damaged[0] ^= 1,
            }
            bytes = damaged.into();
        }
        self.carry(Event::Chunk { index, bytes });
        if self.chance(self.weather.junk) {
            let index = u32::try_from(self.roll(u64::from(self.manifest.count()) + 3)).unwrap();
            let bytes = vec![7; self.roll(2000) as usize].into();
            self.carry(Event::Chunk { index, bytes });
        }
    }

    fn obey(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Ask(indexes) => {
                    assert!(!indexes.is_empty() && indexes.len() <= 256);
                    self.note_asked(&indexes);
                    self.carry(Event::Wants(indexes));
                }
                Step::Subscribe(index) => {
                    self.note_asked(&[index]);
                    self.carry(Event::Subscribed(index));
                }
                Step::Unsubscribe(index) => {
                    assert_eq!(self.way, Way::Retained);
                    assert!(self.asked.contains(&index));
                }
                Step::Store { index, bytes } => {
                    assert_eq!(bytes, self.piece(index), "only what is right is stored");
                    let life = self.life;
                    self.plan(50, Event::Stored { index, bytes, life });
                }
                Step::Done => {
                    assert!(!self.done, "said once");
                    self.done = true;
                }
                Step::Failed { reason } => panic!("{reason}"),
            }
        }
        let progress = self.assembly.progress();
        let (chunks, bytes) = (progress.under_way, progress.bytes_under_way);
        let Window { chunks: chunks_max, bytes: bytes_max } = self.rules.window;
        assert!(chunks <= chunks_max.max(1), "{chunks} under way");
        assert!(chunks <= 1 || bytes <= bytes_max, "{bytes} bytes under way");
    }

    fn note_asked(&mut self, indexes: &[u32]) {
        for index in indexes {
            assert!(!self.disk.contains_key(index), "{index} is there already");
            self.asked.insert(*index);
        }
    }

    /// Lets the next thing happen, be it time.
    fn step(&mut self) {
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let next = match (event, self.assembly.deadline()) {
            (Some(event), Some(deadline)) if deadline < event => None,
            (None, _) => None,
            (Some(_), _) => self.events.pop_first(),
        };
        let Some(((at, _), event)) = next else {
            let deadline = self.assembly.deadline().expect("it waits for something");
            self.now = self.now.max(deadline);
            let steps = self.assembly.tick(self.now);
            return self.obey(steps);
        };
        self.now = self.now.max(at);
        self.happen(event);
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Wants(indexes) => {
                let indexes = indexes.into_iter().collect();
                let wants = Wants { sha256: self.manifest.sha256(), indexes };
                let mut reads = self.offer.wanted(&wants, now).unwrap();
                while let Some(index) = reads.pop() {
                    assert!(reads.len() < OfferRules::default().reads_max);
                    self.send(index);
                    reads.extend(self.offer.sent(index, now));
                }
            }
            Event::Subscribed(index) => self.send(index),
            Event::Chunk { index, bytes } => {
                match self.assembly.chunk(index, bytes, now) {
                    Ok(steps) => self.obey(steps),
                    Err(refusal) => *self.refused.entry(refusal).or_default() += 1,
                }
                assert_eq!(self.assembly.counts().refused, self.refused);
            }
            Event::Stored { index, bytes, life } if life == self.life => {
                if self.chance(self.weather.refusal) {
                    self.assembly.store_failed(index, now);
                } else {
                    assert!(self.disk.insert(index, bytes).is_none(), "{index} stored twice");
                    let steps = self.assembly.stored(index, now);
                    self.obey(steps);
                }
            }
            Event::Stored { .. } => {}
            Event::Crash => self.crash(),
            Event::Cut => {
                self.assembly.disconnected();
                self.plan(90_000, Event::Mend);
            }
            Event::Mend => {
                let steps = self.assembly.connected(now);
                self.obey(steps);
            }
        }
    }

    /// The receiver forgets everything but its disk.
    fn crash(&mut self) {
        if self.done {
            return;
        }
        self.life += 1;
        self.asked.clear();
        self.refused.clear();
        let mut have = Bitmap::empty(self.manifest.count());
        self.disk.keys().for_each(|index| have.insert(*index));
        self.assembly = Assembly::new(self.manifest.clone(), self.way, self.rules);
        self.assembly.restore(&have);
        let steps = self.assembly.connected(self.now);
        self.obey(steps);
        let missing: BTreeSet<u32> = have.missing().collect();
        assert!(self.asked.is_subset(&missing), "only what is missing is asked for");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_algorithm: RngAlgorithm::ChaCha,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_blob_arrives_whole(
        len in 1..40_000_usize,
        pulled in any::<bool>(),
        chunks in 1..20_usize,
        bytes in 1..20_000_u64,
        weather in weather(),
        seed in any::<u64>(),
    ) {
        let way = if pulled { Way::Pulled } else { Way::Retained };
        let mut world = World::new(len, way, Window { chunks, bytes }, weather, seed);
        let mut steps = 0;
        while !world.done {
            world.step();
            steps += 1;
            prop_assert!(steps < 200_000, "it does not end: {:?}", world.assembly.progress());
        }
        let whole: Vec<u8> = world.disk.values().flatten().copied().collect();
        prop_assert_eq!(whole, world.blob.to_vec());
        prop_assert!(world.assembly.is_ended());
        prop_assert_eq!(world.assembly.progress().under_way, 0);
    }

    #[test]
    fn a_calm_network_carries_each_piece_once(len in 1..40_000_usize, chunks in 1..20_usize, seed in any::<u64>()) {
        let calm = Weather {
            loss: 0, repeat: 0, damage: 0, junk: 0, delay_ms_max: 1, refusal: 0, crashes: 0, cuts: 0,
        };
        let window = Window { chunks, bytes: 1 << 20 };
        let mut world = World::new(len, Way::Pulled, window, calm, seed);
        while !world.done {
            world.step();
        }
        let count = u64::from(world.manifest.count());
        prop_assert_eq!(world.offer.counts().sent, count);
        prop_assert_eq!(world.assembly.counts().accepted, count);
        prop_assert!(world.assembly.counts().refused.is_empty());
    }
}
