//! Chores, in Rust. The house rules are tests: see `tests/tidy.rs`.
