//! A guest that puts words into a map and takes them out: branches and pointers.

use std::collections::BTreeMap;

fn main() {
    let rounds: u64 = std::env::args().nth(1).and_then(|it| it.parse().ok()).expect("rounds");
    let mut sum = 0;
    for round in 0..rounds {
        let mut words = BTreeMap::new();
        for n in 0..2_000_u64 {
            words.insert(format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), n ^ round);
        }
        sum += words.values().fold(0, |sum: u64, n| sum.wrapping_mul(31).wrapping_add(*n)) >> 40;
    }
    println!("{sum}");
}
