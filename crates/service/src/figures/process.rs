//! What this process takes, as Linux counts it; nothing on other systems.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// Clock ticks in a second of user space, the same on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// Read anew whenever somebody looks; under the names that Prometheus' own libraries use.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut say = |name: &str, help: &str, figure: &dyn EncodeMetric| {
            let metric = encoder.encode_descriptor(name, help, None, figure.metric_type())?;
            figure.encode(metric)
        };
        if let Some(bytes) = resident_bytes() {
            let help = "Resident memory in bytes";
            say("process_resident_memory_bytes", help, &ConstGauge::new(bytes))?;
        }
        if let Some(ticks) = cpu_ticks() {
            #[expect(clippy::cast_precision_loss, reason = "2^53 ticks are three million years")]
            let seconds = ticks as f64 / TICKS_A_SECOND;
            let help = "User and system CPU time in seconds";
            say("process_cpu_seconds", help, &ConstCounter::new(seconds))?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let open = open.count() as u64;
            say("process_open_fds", "Open file descriptors", &ConstGauge::new(open))?;
        }
        Ok(())
    }
}

/// User and system time of this process in hundredths of a second: the 14th and 15th field of its
/// stat, the second of which stands in brackets and may contain anything.
pub fn cpu_ticks() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory of this process that is in RAM.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
