//! What an operator is told of a run: a table and a few lines, or JSON.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};
use sim::RoundOutcome;

use super::{paced::Spread, report::Outcome};
use crate::view;

impl Outcome {
    /// Whether every claim holds.
    pub(crate) fn holds(&self) -> bool {
        self.checked.iter().all(|checked| checked.holds)
    }

    /// Rounds, metrics, claims, hash.
    pub(crate) fn show(&self, verbose: bool) {
        let summary = &self.summary;
        if verbose || summary.rounds.len() <= 20 {
            self.show_rounds();
        }
        for name in ["accuracy", "test_loss", "loss"] {
            if let Some(last) = summary.metrics.get(name).and_then(|samples| samples.last()) {
                view::line(format!("{name:<10} {:.4}", last.value));
            }
        }
        for lost in &summary.lost_nodes {
            view::line(format!("lost on the way: {lost}"));
        }
        view::line(format!(
            "{} of {} rounds complete, {} events in {} virtual, {:.2} s of wall time\ntrace {}",
            summary.rounds_complete(),
            summary.rounds.len(),
            summary.events,
            seconds(summary.virtual_us),
            self.wall_s,
            summary.trace_sha256
        ));
        for (node, spread) in &self.paced {
            view::line(format!("not deterministic: {node} ran in real time, {spread}"));
        }
        for checked in &self.checked {
            view::line(checked.to_string());
        }
    }

    fn show_rounds(&self) {
        let rows = self.summary.rounds.iter().map(|round| {
            let ended = round.end.as_ref();
            let outcome = ended.map_or("not ended".to_owned(), |end| match end.outcome {
                RoundOutcome::Complete { version, total_samples } => {
                    format!("model {version} from {total_samples} samples")
                }
                RoundOutcome::Failed { reason } => format!("failed: {reason}"),
            });
            vec![
                round.round.to_string(),
                seconds(round.asked_us),
                ended.map_or("-".to_owned(), |end| seconds(end.heard_us - round.asked_us)),
                ended.map_or("-".to_owned(), |end| {
                    format!("{} of {}", end.num_updates, round.participants)
                }),
                outcome,
            ]
        });
        view::table(&["round", "asked at", "took", "updates", "outcome"], rows);
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let summary = &self.summary;
        let last = summary.metrics.iter().filter_map(|(name, it)| Some((name, it.last()?)));
        let metrics: BTreeMap<_, _> = last.collect();
        let claims = self.checked.iter().map(|checked| {
            json!({ "claim": checked.assertion, "holds": checked.holds, "found": checked.found })
        });
        let lost = summary.lost_nodes.iter();
        let lost =
            lost.map(|why| json!({ "node": why.node, "time_us": why.time_us, "why": why.what }));
        json!({
            "holds": self.holds(),
            "deterministic": self.paced.is_empty(),
            "rounds": summary.rounds,
            "rounds_complete": summary.rounds_complete(),
            "versions": summary.versions,
            "metrics": metrics,
            "claims": claims.collect::<Vec<_>>(),
            "lost_nodes": lost.collect::<Vec<_>>(),
            "paced": self.paced,
            "energy_j": summary.energy_j,
            "events": summary.events,
            "virtual_us": summary.virtual_us,
            "wall_s": self.wall_s,
            "trace_sha256": summary.trace_sha256,
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: f64| us / 1e3;
        write!(
            f,
            "{} tasks in {:.1} ms with a standard deviation of {:.1} ms, {:.1} to {:.1} ms",
            self.tasks,
            ms(self.mean_us),
            ms(self.variance_us2.sqrt()),
            ms(self.shortest_us as f64),
            ms(self.longest_us as f64)
        )
    }
}

fn seconds(us: u64) -> String {
    format!("{:.3} s", us as f64 / 1e6)
}
