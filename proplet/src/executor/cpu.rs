//! The CPU time of the thread that runs a guest.

use std::fs;

/// Time that this thread has spent on a CPU since it began, where the system says; a guest runs on
/// one thread, so the difference is the guest's own.
pub(super) fn thread_us() -> Option<u64> {
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let on_cpu_ns: u64 = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(on_cpu_ns / 1_000)
}
