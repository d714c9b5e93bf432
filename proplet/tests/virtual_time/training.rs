//! The built-in client, in virtual time and live.

use proplet::executor::{Program, virtual_time::VirtualJob};

use crate::guests::{Lab, data, job, printed};

pub(crate) const ROWS: &str = "1,0,0,1\n0,1,0,2\n0,0,1,3\n1,1,1,6\n1,1,0,3\n";

/// A small training job.
pub(crate) fn training() -> VirtualJob {
    let mut job = job(&Program::builtin(), &[]);
    job.model = Some(r#"{"w":[0.0,0.0,0.0],"b":0.0,"version":0}"#.into());
    job.data = Some(data(&[("rows.csv", ROWS)]));
    for (name, value) in [
        ("ROUND_ID", "r-1"),
        ("MODEL_URI", "global_model_v0"),
        ("PROPLET_ID", "proplet-1"),
        ("HYPERPARAMS", r#"{"model":"linear","lr":0.1,"epochs":3}"#),
    ] {
        job.env.insert(name.into(), value.into());
    }
    job
}

#[test]
fn the_built_in_client_makes_the_same_update_as_live_on_every_run() {
    let lab = Lab::new();
    let job = training();
    let live = lab.run_live(&job, &[("rows.csv", ROWS)]).end.unwrap();
    let here = lab.run(&job);
    assert_eq!(printed(&here), String::from_utf8(live.stdout).unwrap());
    assert!(printed(&here).contains("\"num_samples\":4"));
    let again = Lab::new().run(&job);
    assert_eq!(again.end, here.end);
    assert_eq!((again.fuel, again.virtual_us), (here.fuel, here.virtual_us));
    assert!(here.fuel > 10_000 && here.virtual_us == here.fuel / 1_000);
}

#[test]
fn without_data_the_built_in_client_says_so() {
    let mut job = training();
    job.data = None;
    let outcome = Lab::new().run(&job);
    assert_eq!(outcome.end.unwrap_err().code(), "exit_code");
    assert!(outcome.stderr_tail.contains("DATA_DIR"), "{}", outcome.stderr_tail);
}
