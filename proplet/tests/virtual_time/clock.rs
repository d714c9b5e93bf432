//! Time, sleep and dice.

use std::{thread, time::Duration};

use proplet::executor::{
    Failure,
    virtual_time::{Activity, FuelRate, Span, VirtualOutcome},
};

use crate::guests::{Lab, START_US, job, printed, sleepers, wat};

const SECOND_NS: u64 = 1_000_000_000;

/// A line that a sleeper prints.
struct Look {
    wall_ns: u64,
    elapsed_ns: u64,
    random: String,
}

fn looks(outcome: &VirtualOutcome) -> Vec<Look> {
    let lines = printed(outcome).lines().take(3).map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let [_, wall_ns, elapsed_ns, random] = words[..] else { panic!("{line:?}") };
        Look {
            wall_ns: wall_ns.parse().unwrap(),
            elapsed_ns: elapsed_ns.parse().unwrap(),
            random: random.into(),
        }
    });
    lines.collect()
}

#[test]
fn a_guest_that_sleeps_for_ten_seconds_wakes_ten_seconds_later_by_its_own_clocks() {
    let lab = Lab::new();
    for (form, sleeper) in sleepers() {
        let outcome = lab.run(&job(&sleeper, &[]));
        let looks = looks(&outcome);
        let [before, after, worked] = &looks[..] else { panic!("{form}") };
        // Its work up to there takes less than a second: a thousand million units of fuel.
        assert!(before.wall_ns >= START_US * 1_000, "{form}");
        assert!(before.wall_ns < START_US * 1_000 + SECOND_NS, "{form}");
        for slept in [after.wall_ns - before.wall_ns, after.elapsed_ns - before.elapsed_ns] {
            assert!((10 * SECOND_NS..11 * SECOND_NS).contains(&slept), "{form}: {slept}");
        }
        // A million turns take time, too: at least two instructions each.
        assert!(worked.elapsed_ns - after.elapsed_ns >= 2_000_000, "{form}");
        assert!(outcome.virtual_us >= worked.elapsed_ns / 1_000, "{form}");
        assert_ne!(before.random, after.random, "{form}");
        let sleeps: Vec<_> =
            outcome.timeline.iter().filter(|span| span.activity == Activity::Sleep).collect();
        let [sleep] = sleeps[..] else { panic!("{form}: {:?}", outcome.timeline) };
        assert!((10_000_000..=10_000_001).contains(&(sleep.until_us - sleep.from_us)), "{form}");
    }
}

#[test]
fn the_same_job_prints_the_same_bytes_and_another_seed_or_start_other_ones() {
    for (form, sleeper) in sleepers() {
        let first = Lab::new().run(&job(&sleeper, &[]));
        let again = Lab::new().run(&job(&sleeper, &[]));
        assert_eq!(printed(&first), printed(&again), "{form}");
        assert_eq!((first.fuel, first.virtual_us), (again.fuel, again.virtual_us), "{form}");
        assert_eq!(first.timeline, again.timeline, "{form}");

        let lab = Lab::new();
        let mut other = job(&sleeper, &[]);
        other.seed += 1;
        let dice = lab.run(&other);
        assert_ne!(looks(&first)[0].random, looks(&dice)[0].random, "{form}");
        let mut later = job(&sleeper, &[]);
        later.start_us += 1;
        let later = lab.run(&later);
        assert_eq!(looks(&first)[0].wall_ns + 1_000, looks(&later)[0].wall_ns, "{form}");
    }
}

#[test]
fn threads_change_nothing() {
    let lab = Lab::new();
    for (form, sleeper) in sleepers() {
        let alone: Vec<_> = (0..16).map(|seed| run_with_seed(&lab, &sleeper, seed)).collect();
        for threads in [2, 8] {
            let together: Vec<_> = thread::scope(|scope| {
                let workers: Vec<_> = (0..threads)
                    .map(|worker| {
                        let (lab, sleeper) = (&lab, &sleeper);
                        let seeds = (worker..16).step_by(threads as usize);
                        scope.spawn(move || {
                            seeds.map(|seed| (seed, run_with_seed(lab, sleeper, seed))).collect()
                        })
                    })
                    .collect();
                let mut all: Vec<(u64, (String, u64))> =
                    workers.into_iter().flat_map(|it| -> Vec<_> { it.join().unwrap() }).collect();
                all.sort();
                all.into_iter().map(|(_, outcome)| outcome).collect()
            });
            assert_eq!(together, alone, "{form}, {threads} threads");
        }
    }
}

fn run_with_seed(lab: &Lab, program: &proplet::executor::Program, seed: u64) -> (String, u64) {
    let mut job = job(program, &[]);
    job.seed = seed;
    let outcome = lab.run(&job);
    (printed(&outcome).to_owned(), outcome.fuel)
}

#[test]
fn a_slower_device_takes_longer_for_the_same_fuel() {
    let lab = Lab::new();
    let spins = wat(&spinning(1_000_000));
    let fast = lab.run(&job(&spins, &[]));
    let mut slow = job(&spins, &[]);
    slow.rate = FuelRate::per_ms(20_000).unwrap();
    let slow = lab.run(&slow);
    assert_eq!(slow.fuel, fast.fuel);
    assert_eq!(slow.virtual_us, fast.fuel / 20);
    assert_eq!(fast.virtual_us, fast.fuel / 1_000);
    let whole = Span { activity: Activity::Compute, from_us: 0, until_us: slow.virtual_us };
    assert_eq!(slow.timeline, [whole]);
}

#[test]
fn rates_are_exact_and_never_stop_time() {
    assert_eq!(FuelRate::per_us(0), None);
    assert_eq!(FuelRate::per_ms(0), None);
    let rate = FuelRate::per_us(3).unwrap();
    assert_eq!(rate, FuelRate::per_ms(3_000).unwrap());
    assert_eq!((rate.time_ns(10), rate.fuel(3_333)), (3_333, 9));
    let slow = FuelRate::per_ms(1).unwrap();
    assert_eq!(slow.time_ns(7), 7_000_000);
    assert_eq!(slow.time_ns(u64::MAX), u64::MAX, "for ever");
    let fast = FuelRate::per_ms(u64::MAX).unwrap();
    assert_eq!((fast.time_ns(u64::MAX), fast.fuel(u64::MAX)), (1_000_000, u64::MAX));
}

#[test]
fn extreme_starts_seeds_rates_and_limits_are_taken_as_they_are() {
    let lab = Lab::new();
    let (_, sleeper) = &sleepers()[0];
    for rate in [FuelRate::per_ms(1), FuelRate::per_ms(u64::MAX)] {
        for wall_max in [Duration::ZERO, Duration::MAX] {
            for fuel_max in [None, Some(0), Some(u64::MAX)] {
                let mut job = job(sleeper, &[]);
                (job.start_us, job.seed) = (u64::MAX / 1_000, u64::MAX);
                job.rate = rate.unwrap();
                (job.limits.wall_max, job.limits.fuel_max) = (wall_max, fuel_max);
                let ended = wall_max == Duration::MAX && fuel_max != Some(0);
                let outcome = lab.run(&job);
                let code = outcome.end.err().map(|failure| failure.code());
                let expected = match (ended, fuel_max) {
                    (true, _) => None,
                    (false, Some(0)) => Some("out_of_fuel"),
                    (false, _) => Some("timeout"),
                };
                assert_eq!(code, expected, "{rate:?} {wall_max:?} {fuel_max:?}");
            }
        }
    }
}

fn spinning(turns: u32) -> String {
    format!(
        r#"(module (memory (export "memory") 1) (func (export "_start") (local $n i32)
            (loop $again
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $n) (i32.const {turns}))))))"#
    )
}

#[test]
fn a_guest_that_waits_on_its_clock_in_a_loop_gets_there() {
    // It reads the clock until a millisecond is over, and prints nothing.
    let waits = wat(r#"(module
            (import "wasi_snapshot_preview1" "clock_time_get"
                (func $now (param i32 i64 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (loop $again
                    (drop (call $now (i32.const 1) (i64.const 0) (i32.const 0)))
                    (br_if $again (i64.lt_u (i64.load (i32.const 0)) (i64.const 1000000))))))"#);
    let outcome = Lab::new().run(&job(&waits, &[]));
    outcome.end.unwrap();
    assert_eq!(outcome.virtual_us, 1_000);
}

#[test]
fn time_is_a_limit_in_virtual_terms_whether_a_guest_computes_or_sleeps() {
    let lab = Lab::new();
    let limit = Duration::from_millis(1_500);
    let expected = Failure::Timeout { limit };
    let mut spins = job(&wat(r#"(module (func (export "_start") (loop br 0)))"#), &[]);
    spins.limits.wall_max = limit;
    let outcome = lab.run(&spins);
    assert_eq!(outcome.end.unwrap_err(), expected);
    assert_eq!(outcome.virtual_us, 1_500_000);
    assert_eq!(outcome.fuel, 1_500_000_000);

    for (form, sleeper) in sleepers() {
        let mut sleeps = job(&sleeper, &[]);
        sleeps.limits.wall_max = limit;
        let outcome = lab.run(&sleeps);
        assert_eq!(outcome.end.unwrap_err(), expected, "{form}");
        assert_eq!(outcome.virtual_us, 1_500_000, "{form}");
        // What it slept, it cannot compute any more.
        let mut barely = job(&sleeper, &[]);
        barely.limits.wall_max = Duration::from_secs(10) + Duration::from_millis(1);
        let outcome = lab.run(&barely);
        assert_eq!(outcome.end.unwrap_err().code(), "timeout", "{form}");
        // A sleep may begin a little after the alarm was set.
        assert!(outcome.fuel <= 1_010_000, "{form}: {}", outcome.fuel);
    }
}

#[test]
fn fuel_is_a_limit_of_its_own() {
    let mut spins = job(&wat(r#"(module (func (export "_start") (loop br 0)))"#), &[]);
    spins.limits.fuel_max = Some(100_000);
    let outcome = Lab::new().run(&spins);
    assert_eq!(outcome.end.unwrap_err(), Failure::OutOfFuel { limit: 100_000 });
    assert_eq!(outcome.fuel, 100_000);
    assert_eq!(outcome.virtual_us, 100);
}

#[test]
fn a_guest_that_sleeps_without_end_has_a_small_timeline() {
    let naps = wat(r#"(module
            (import "wasi_snapshot_preview1" "poll_oneoff"
                (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "_start")
                (i32.store (i32.const 16) (i32.const 1))
                (i64.store (i32.const 24) (i64.const 2000000))
                (loop $again
                    (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
                    (loop $work
                        (i32.store (i32.const 200)
                            (i32.add (i32.load (i32.const 200)) (i32.const 1)))
                        (br_if $work (i32.rem_u (i32.load (i32.const 200)) (i32.const 999))))
                    (br $again))))"#);
    let outcome = Lab::new().run(&job(&naps, &[]));
    assert_eq!(outcome.end.unwrap_err().code(), "timeout");
    assert!((2_000..3_000).contains(&outcome.timeline.len()), "{}", outcome.timeline.len());
    let mut at_us = 0;
    for span in &outcome.timeline {
        assert_eq!(span.from_us, at_us, "no gaps");
        assert!(span.until_us > span.from_us);
        at_us = span.until_us;
    }
    assert_eq!(at_us, outcome.virtual_us);
}
