//! How fast it is. By command only, as no test may depend on the machine:
//! `cargo test -p proplet --test virtual_time -- --ignored --nocapture --test-threads 1`.

use std::{
    fs, thread,
    time::{Duration, SystemTime},
};

use proplet::executor::{Program, virtual_time::VirtualJob};

use crate::{
    guests::{Lab, data, job, printed, wat, workers},
    training::{ROWS, training},
};

#[test]
#[ignore = "a measurement"]
fn a_hundred_thousand_trainings() {
    const PROPLETS: u32 = 10_000;
    const ROUNDS: u32 = 10;
    let lab = Lab::new();
    lab.virtual_wasm.prepare(&Program::builtin()).unwrap();
    let base = training();
    let jobs: Vec<_> = (0..PROPLETS)
        .map(|n| {
            let rows = format!("{ROWS}{n},1,0,4\n");
            VirtualJob { data: Some(data(&[("rows.csv", &rows)])), ..base.clone() }
        })
        .collect();
    let before = resident_kib();
    let (fuel, took) = timed(|| {
        thread::scope(|scope| {
            let halves: Vec<_> = jobs
                .chunks(jobs.len().div_ceil(2))
                .map(|jobs| {
                    let lab = &lab;
                    scope.spawn(move || {
                        let all = (0..ROUNDS).flat_map(|_| jobs);
                        all.map(|job| {
                            let outcome = lab.run(job);
                            assert!(!printed(&outcome).is_empty());
                            outcome.fuel
                        })
                        .sum::<u64>()
                    })
                })
                .collect();
            halves.into_iter().map(|half| half.join().unwrap()).sum::<u64>()
        })
    });
    let runs = PROPLETS * ROUNDS;
    eprintln!(
        "{runs} runs in {took:?}: {:?} each and thread, {} fuel each, {:.0} fuel/us, \
         {} KiB before, {} KiB at most",
        took * 2 / runs,
        fuel / u64::from(runs),
        fuel as f64 / (took.as_micros() * 2) as f64,
        before,
        resident_kib()
    );
}

#[test]
#[ignore = "a measurement"]
fn the_cost_of_a_run() {
    const RUNS: u32 = 5_000;
    let lab = Lab::new();
    let nothing = wat(r#"(module (func (export "_start")))"#);
    let memory = wat(r#"(module (memory (export "memory") 17) (func (export "_start")))"#);
    let fails = job(&Program::builtin(), &[]);
    for (what, job) in [
        ("nothing", job(&nothing, &[])),
        ("nothing, with a memory", job(&memory, &[])),
        ("a complaint of the client", fails),
        ("a training", training()),
    ] {
        let first = lab.run(&job);
        let (_, took) = timed(|| (0..RUNS).for_each(|_| drop(lab.run(&job))));
        eprintln!("{what}: {:?}, {} fuel", took / RUNS, first.fuel);
    }
}

#[test]
#[ignore = "a measurement"]
fn three_guests_are_predicted_after_calibration() {
    let lab = Lab::new();
    let live = |job: &VirtualJob| {
        let outcome = lab.run_live(job, &[("rows.csv", &many_rows())]);
        outcome.end?;
        Ok(Duration::from_micros(outcome.metrics.cpu_us))
    };
    let mut guests: Vec<(&str, Scaled)> = Vec::new();
    // Each least size takes tens of milliseconds: the system's count of CPU time has grains of a few.
    for ((name, program), scale) in workers().into_iter().zip([100, 25]) {
        guests.push((name, Box::new(move |n| job(&program, &[&(n * scale).to_string()]))));
    }
    guests.push((
        "training",
        Box::new(|n| {
            let mut job = training();
            job.data = Some(data(&[("rows.csv", &many_rows())]));
            let hyperparams = format!(r#"{{"model":"linear","lr":0.001,"epochs":{}}}"#, n * 1_500);
            job.env.insert("HYPERPARAMS".into(), hyperparams);
            job
        }),
    ));
    for (name, job) in guests {
        let small = job(1);
        let calibration = lab.virtual_wasm.calibrate_by(&small, 9, live).unwrap();
        let mut large = job(4);
        large.rate = calibration.rate;
        let predicted_us = lab.run(&large).virtual_us;
        let measured = lab.virtual_wasm.calibrate_by(&large, 9, live).unwrap().measured;
        let here = lab.virtual_wasm.calibrate(&small, 9).unwrap();
        let off = predicted_us as f64 / measured.as_micros() as f64 - 1.0;
        eprintln!(
            "{name}: live {} fuel/us, here {} fuel/us; predicted {predicted_us} us, measured \
             {measured:?}: {:+.1} %",
            calibration.rate.fuel_per_ms() / 1_000,
            here.rate.fuel_per_ms() / 1_000,
            off * 100.0
        );
        assert!(off.abs() < 0.15, "{name}");
    }
}

/// A job of so many times the least size.
type Scaled = Box<dyn Fn(u32) -> VirtualJob>;

fn many_rows() -> String {
    let row = |n: u32| format!("{},{},{},{}\n", n % 7, n % 5, n % 3, n % 11);
    (0..2_000).map(row).collect()
}

fn timed<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    #[expect(clippy::disallowed_methods, reason = "a measurement")]
    let before = SystemTime::now();
    let result = work();
    (result, before.elapsed().unwrap())
}

/// The most memory this process had at once.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
