//! aileron.
fn main() {}
