//! A guest that prints clocks and random numbers, sleeps for ten seconds, and prints them again.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

fn main() {
    let began = Instant::now();
    look("before", began);
    thread::sleep(Duration::from_secs(10));
    look("after", began);
    let mut sum = 0_u64;
    for n in 0..1_000_000_u64 {
        sum = std::hint::black_box(sum.wrapping_add(n));
    }
    look("worked", began);
    println!("{}", sum & 1);
}

fn look(when: &str, began: Instant) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let random = RandomState::new().build_hasher().finish();
    println!("{when} {} {} {random:016x}", wall.as_nanos(), began.elapsed().as_nanos());
}
