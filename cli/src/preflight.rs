//! What has to be right before a device can take part, looked at one by one, each with what to do
//! where it is not.

mod broker;
mod device;

use std::path::Path;

use proplet::PropletSettings;
use serde_json::{Value, json};
use service::settings::{Environment, Resolved, resolve};

/// What came of one look.
#[derive(Debug)]
pub(crate) struct Check {
    name: &'static str,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    /// As it should be; what was seen.
    Ok(String),
    /// Not as it should be, and what to do.
    Failed { what: String, advice: String },
    /// Not looked at, and why.
    Skipped(String),
}

/// What was seen, or what is wrong and what to do.
type Seen = Result<String, (String, String)>;

/// Everything that was looked at.
#[derive(Debug, Default)]
pub(crate) struct Report {
    checks: Vec<Check>,
}

/// Looks at everything that the settings in `config` need.
pub(crate) async fn inspect(config: &Path) -> Report {
    let mut report = Report::default();
    let words = [format!("--config={}", config.display()).into()];
    let settings = match resolve::<PropletSettings>(&words, &Environment::of_process()) {
        Ok(Resolved::Run(settings)) => settings,
        Ok(Resolved::Print(_)) => return report,
        Err(why) => {
            let advice = "correct the settings, or have the device join again";
            report.add("settings", Err((why.to_string(), advice.to_owned())));
            report.skip("everything else", "without settings there is nothing to look at");
            return report;
        }
    };
    report.add("settings", Ok(format!("{} can be read", config.display())));
    device::inspect(config, &settings, &mut report).await;
    broker::inspect(&settings, &mut report).await;
    report
}

impl Report {
    fn add(&mut self, name: &'static str, seen: Seen) -> bool {
        let is_ok = seen.is_ok();
        let outcome = match seen {
            Ok(what) => Outcome::Ok(what),
            Err((what, advice)) => Outcome::Failed { what, advice },
        };
        self.checks.push(Check { name, outcome });
        is_ok
    }

    fn skip(&mut self, name: &'static str, why: &str) {
        self.checks.push(Check { name, outcome: Outcome::Skipped(why.to_owned()) });
    }

    /// Whether the device can take part.
    pub(crate) fn is_well(&self) -> bool {
        self.checks.iter().all(|check| !matches!(check.outcome, Outcome::Failed { .. }))
    }

    /// For eyes.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |check: &Check| {
            let name = check.name;
            match &check.outcome {
                Outcome::Ok(what) => format!("ok       {name:<12} {what}"),
                Outcome::Skipped(why) => format!("skipped  {name:<12} {why}"),
                Outcome::Failed { what, advice } => {
                    format!("failed   {name:<12} {what}\n         {:<12} -> {advice}", "")
                }
            }
        };
        self.checks.iter().map(line).collect()
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let check = |check: &Check| match &check.outcome {
            Outcome::Ok(what) => json!({"name": check.name, "status": "ok", "detail": what}),
            Outcome::Skipped(why) => {
                json!({"name": check.name, "status": "skipped", "detail": why})
            }
            Outcome::Failed { what, advice } => json!({
                "name": check.name, "status": "failed", "detail": what, "advice": advice,
            }),
        };
        json!({"ok": self.is_well(), "checks": self.checks.iter().map(check).collect::<Vec<_>>()})
    }
}

/// What is wrong, and what to do.
fn wrong<T>(what: impl ToString, advice: &str) -> Result<T, (String, String)> {
    Err((what.to_string(), advice.to_owned()))
}
