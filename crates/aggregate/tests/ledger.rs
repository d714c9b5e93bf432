//! The one-hot ledger: a model that tells, by itself, who was counted in it and how often.
//!
//! Client `i` sends 1 in place `i` and 0 elsewhere, with a prime number of samples of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

use aggregate::{Update, find, run};

const CLIENTS: usize = 200;

#[test]
fn every_client_is_read_off_the_model_exactly() {
    let primes = primes(CLIENTS);
    for scale in [1, 1_000_003] {
        let counts: Vec<u64> = primes.iter().map(|prime| prime * scale).collect();
        let everyone: Vec<usize> = (0..CLIENTS).collect();
        assert_eq!(ledger(&counts, &everyone), counts);
    }
}

#[test]
fn an_absent_client_reads_zero_and_a_doubled_one_twice_its_samples() {
    let primes = primes(CLIENTS);
    let mut sent: Vec<usize> = (0..CLIENTS).filter(|client| *client != 17).collect();
    sent.push(42);
    let mut expected = primes.clone();
    expected[17] = 0;
    expected[42] *= 2;
    assert_eq!(ledger(&primes, &sent), expected);
}

/// `model[i] * total` for each place, after an aggregation of what was sent.
fn ledger(counts: &[u64], sent: &[usize]) -> Vec<u64> {
    let one_hot = |client: usize| {
        let mut weights = vec![0.0; CLIENTS];
        weights[client] = 1.0;
        weights
    };
    let weights: Vec<Vec<f64>> = sent.iter().map(|client| one_hot(*client)).collect();
    let updates: Vec<Update<'_>> = sent
        .iter()
        .zip(&weights)
        .map(|(client, weights)| Update { weights, num_samples: counts[*client] })
        .collect();
    let total: u64 = updates.iter().map(|update| update.num_samples).sum();
    assert!(total < 1 << 53);
    let model = run(&*(find("fedavg").unwrap().build)(), &updates).unwrap();
    model.iter().map(|weight| (weight * total as f64).round() as u64).collect()
}

fn primes(count: usize) -> Vec<u64> {
    let is_prime = |n: &u64| (2..*n).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (2..).filter(is_prime).take(count).collect()
}
