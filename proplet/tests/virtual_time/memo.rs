//! Jobs that were run are not run again, as far as there is room.

use std::{sync::Arc, thread};

use proplet::executor::virtual_time::{FuelRate, Memo, VirtualJob};

use crate::{
    guests::{Lab, data, job, printed, sleepers},
    training::training,
};

fn memo(bytes_max: usize) -> Memo {
    let lab = Lab::new();
    Memo::new(Arc::new(lab.virtual_wasm), bytes_max)
}

#[test]
fn the_same_job_is_run_once_however_many_ask_and_whenever() {
    let memo = memo(1 << 20);
    let job = training();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let (memo, job) = (&memo, &job);
                let job = VirtualJob { start_us: job.start_us + worker, ..job.clone() };
                scope.spawn(move || memo.run(&job))
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(memo.runs(), 1);
    assert!(outcomes.iter().all(|outcome| Arc::ptr_eq(outcome, &outcomes[0])));
    let alone = Lab::new().run(&job);
    assert_eq!(printed(&outcomes[0]), printed(&alone));
    assert_eq!(outcomes[0].fuel, alone.fuel);
}

#[test]
fn whatever_a_guest_can_see_makes_another_job() {
    let memo = memo(1 << 20);
    let base = training();
    let mut others = vec![base.clone(); 9];
    others[0].seed += 1;
    others[1].label.push('x');
    others[2].args.push(String::new());
    others[3].env.insert("X".into(), "1".into());
    others[4].model = Some(r#"{"w":[1.0,0.0,0.0],"b":0.0,"version":0}"#.into());
    others[5].data = Some(data(&[("rows.csv", "1,0,0,2\n0,1,0,2\n")]));
    others[6].data = Some(data(&[("rows2.csv", crate::training::ROWS)]));
    others[7].rate = FuelRate::per_us(999).unwrap();
    others[8].limits.fuel_max = Some(1);
    memo.run(&base);
    for (runs, other) in (2..).zip(&others) {
        memo.run(other);
        assert_eq!(memo.runs(), runs);
    }
}

#[test]
fn even_a_guest_that_asks_for_the_time_of_day_is_told_the_same() {
    let memo = memo(1 << 20);
    let (_, sleeper) = &sleepers()[0];
    let first = memo.run(&job(sleeper, &[]));
    let mut later = job(sleeper, &[]);
    later.start_us += 1_000_000;
    assert_eq!(memo.run(&later).end, first.end);
    assert_eq!(self::memo(1 << 20).run(&later).end, first.end, "whoever asks first");
}

#[test]
fn what_is_remembered_stays_below_its_limit() {
    let memo = memo(4_000);
    let seeded = |seed| VirtualJob { seed, ..training() };
    for seed in 0..20 {
        memo.run(&seeded(seed));
        assert!(memo.bytes() <= 4_000, "{}", memo.bytes());
    }
    assert!(memo.bytes() > 0);
    memo.run(&seeded(19));
    assert_eq!(memo.runs(), 20, "the last one is remembered");
    memo.run(&seeded(0));
    assert_eq!(memo.runs(), 21, "the first one is not");

    let none = self::memo(0);
    none.run(&seeded(0));
    assert_eq!((none.runs(), none.bytes()), (1, 0));
}
