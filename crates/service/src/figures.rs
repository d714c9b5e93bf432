//! Figures of a service, as Prometheus reads them: what every service counts, and how it counts more.

mod process;
mod traffic;

use std::fmt::{Debug, Write as _};

use prometheus_client::{
    encoding::prometheus_text,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};

pub use process::{cpu_ticks, resident_bytes};
pub use prometheus_client::metrics::{counter::Counter as Count, histogram::Histogram as Seconds};
pub use traffic::Traffic;

/// What tells apart the figures of one name.
pub type Labels = Vec<(&'static str, String)>;
/// Counts of one name, by their labels.
pub type Counts = Family<Labels, Counter>;
/// Distributions of one name, by their labels.
pub type SecondsBy = Family<Labels, Histogram, fn() -> Histogram>;

/// The first bucket of a distribution of times; each further one is twice as long, up to 524 s.
const SHORTEST_S: f64 = 0.001;
const BUCKETS: u16 = 20;
/// What the library puts behind the name of each counter.
const TOTAL: &str = "_total";

/// A set of figures. Those that are counted on are kept by whoever counts; the others are put in
/// when somebody looks.
#[derive(Debug, Default)]
pub struct Figures {
    registry: Registry,
    /// Families that may have no member yet: name, help and type. They are told all the same.
    families: Vec<(String, String, &'static str)>,
}

/// No labels but these.
pub fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.map(|(name, value)| (name, value.to_owned())).into()
}

impl Figures {
    /// With what there is to say of any process.
    pub fn of_process() -> Self {
        let mut figures = Self::default();
        figures.registry.register_collector(Box::new(process::Process));
        figures
    }

    /// The traffic of all connections to the broker, by name.
    pub fn watch(&mut self, connections: Vec<(&'static str, Traffic)>) {
        self.registry.register_collector(Box::new(traffic::Connections(connections)));
    }

    /// A count to go on with; `name` ends in `_total`.
    pub fn count(&mut self, name: &str, help: &str) -> Counter {
        let count = Counter::default();
        self.add(name, help, count.clone());
        count
    }

    /// Counts to go on with, by label; `name` ends in `_total`.
    pub fn counts(&mut self, name: &str, help: &str) -> Counts {
        let counts = Counts::default();
        self.family(name, help, "counter");
        self.add(name, help, counts.clone());
        counts
    }

    /// Times to be observed, in seconds; `name` ends in `_seconds`.
    pub fn seconds(&mut self, name: &str, help: &str) -> Histogram {
        let seconds = times();
        self.add(name, help, seconds.clone());
        seconds
    }

    /// Times to be observed, in seconds, by label; `name` ends in `_seconds`.
    pub fn seconds_by(&mut self, name: &str, help: &str) -> SecondsBy {
        let seconds = SecondsBy::new_with_constructor(times);
        self.family(name, help, "histogram");
        self.add(name, help, seconds.clone());
        seconds
    }

    /// A value as it is now.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, help, ConstGauge::new(value));
    }

    /// Values as they are now, by labels.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let gauges = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        for (labels, value) in values {
            gauges.get_or_create(&labels).set(value);
        }
        self.family(name, help, "gauge");
        self.add(name, help, gauges);
    }

    /// A count as it is now; `name` ends in `_total`.
    pub fn counted(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, help, ConstCounter::new(value));
    }

    /// Counts as they are now, by labels; `name` ends in `_total`.
    pub fn counted_by(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let counts = self.counts(name, help);
        for (labels, value) in values {
            counts.get_or_create(&labels).inc_by(value);
        }
    }

    fn family(&mut self, name: &str, help: &str, kind: &'static str) {
        self.families.push((name.to_owned(), help.to_owned(), kind));
    }

    fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.registry.register(name.strip_suffix(TOTAL).unwrap_or(name), help, metric);
    }

    /// Appends them to `text`, in the text format 0.0.4.
    pub fn write(&self, text: &mut String) {
        let begun = text.len();
        if let Err(why) = prometheus_text::encode(text, &self.registry) {
            // A collector that gave up half-way; what is there of it is a comment at most.
            let _ = writeln!(text, "# {why}");
        }
        for (name, help, kind) in &self.families {
            let told = format!("# TYPE {name} {kind}\n");
            if !text[begun..].contains(&told) {
                let _ = write!(text, "# HELP {name} {help}\n{told}");
            }
        }
    }
}

/// An empty distribution of times, in seconds.
pub fn times() -> Histogram {
    Histogram::new(exponential_buckets(SHORTEST_S, 2.0, BUCKETS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(figures: &Figures) -> String {
        let mut text = String::new();
        figures.write(&mut text);
        text
    }

    #[test]
    fn counters_end_in_total_and_nothing_else_does() {
        let mut figures = Figures::default();
        figures.count("aileron_rounds_total", "Rounds").inc();
        figures.counts("aileron_updates_total", "Updates");
        figures.gauge("aileron_open", "Open rounds", 3);
        figures.counted_by("aileron_no_total", "No", [(labels([("reason", "a\"b")]), 7)]);
        let text = text(&figures);
        for line in [
            "aileron_rounds_total 1",
            "# TYPE aileron_rounds_total counter",
            "aileron_open 3",
            "aileron_no_total{reason=\"a\\\"b\"} 7",
            "# TYPE aileron_updates_total counter",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn times_fall_into_times() {
        let mut figures = Figures::default();
        let seconds = figures.seconds("aileron_round_seconds", "Length of rounds");
        seconds.observe(0.0015);
        seconds.observe(1e9);
        let text = text(&figures);
        for line in [
            "aileron_round_seconds_bucket{le=\"0.001\"} 0",
            "aileron_round_seconds_bucket{le=\"0.002\"} 1",
            "aileron_round_seconds_bucket{le=\"524.288\"} 1",
            "aileron_round_seconds_bucket{le=\"+Inf\"} 2",
            "aileron_round_seconds_count 2",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_says_what_it_takes() {
        let text = text(&Figures::of_process());
        for name in
            ["process_resident_memory_bytes ", "process_cpu_seconds_total ", "process_open_fds "]
        {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
        }
    }
}
