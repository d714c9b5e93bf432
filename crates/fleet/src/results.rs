//! What came of a task. Only a proplet to which its latest attempt was sent has a say.

use protocol::{
    Timestamp,
    message::{FailureCode, TaskResults},
};

use crate::{
    JsonText,
    act::Acts,
    limits::ERROR_LEN_MAX,
    state::State,
    task::{Outcome, Phase, Task},
};

/// Longest failure code kept.
const CODE_LEN_MAX: usize = 64;
/// The code of a result that was too long to keep.
const TOO_LARGE: &str = "result_too_large";

/// What a report comes to.
enum Word {
    Ended(Outcome),
    CutOff(String),
}

impl State {
    pub(crate) fn hear_results(&mut self, given: TaskResults, now: Timestamp, out: &mut Acts) {
        self.counts.task_results += 1;
        let (id, on) = (given.task_id.clone(), given.proplet_id.clone());
        let Some(task) = self.tasks.get(&id) else {
            return self.ignore("results", format!("no task {id}, from {on}"), out);
        };
        if let Err(why) = has_a_say(task, &given) {
            return self.ignore("results", why, out);
        }
        match word(given, self.limits.results_len_max) {
            Word::CutOff(why) if task.run(&on).is_some() => self.cut_off((&id, &on), why, now, out),
            // It waits already.
            Word::CutOff(_) => {}
            Word::Ended(outcome) => {
                let reported = self.change(&id, now, out, |task| task.report(&on, outcome, now));
                assert!(reported.is_ok(), "whoever has a say can be heard");
            }
        }
    }
}

fn has_a_say(task: &Task, given: &TaskResults) -> Result<(), String> {
    let (id, on) = (&given.task_id, &given.proplet_id);
    if task.ended().is_some() {
        return Err(format!("task {id} has ended, from {on}"));
    }
    let goes_on = match task.phase() {
        Phase::Waiting(waiting) => waiting.last == *on,
        Phase::Pending | Phase::Active(_) | Phase::Ended(_) => task.run(on).is_some(),
    };
    if !goes_on {
        return Err(format!("task {id} does not run on {on}"));
    }
    match given.attempt {
        Some(attempt) if !task.is_latest(attempt) => {
            Err(format!("task {id} is at attempt {}, not {attempt}, from {on}", task.attempt()))
        }
        Some(_) | None => Ok(()),
    }
}

fn word(given: TaskResults, results_len_max: usize) -> Word {
    let code = given.code.map(|FailureCode(code)| clipped(code, CODE_LEN_MAX));
    let results = (!given.results.is_null()).then(|| JsonText::of(&given.results));
    let len = results.as_ref().map_or(0, |text| text.as_str().len());
    let (results, excess) = if len > results_len_max { (None, true) } else { (results, false) };
    let error = given.error.map(|error| clipped(error, ERROR_LEN_MAX));
    match (error, code.as_deref()) {
        (error, Some(FailureCode::INTERRUPTED)) => {
            Word::CutOff(error.unwrap_or_else(|| "interrupted".to_owned()))
        }
        (error, Some(FailureCode::CANCELLED)) => {
            let error = error.unwrap_or_else(|| "cancelled".to_owned());
            Word::Ended(Outcome::Interrupted(error))
        }
        (Some(error), _) => Word::Ended(Outcome::Failed { error, code, results }),
        (None, _) if excess => {
            let error =
                format!("results have {len} bytes, at most {results_len_max} are kept of a task");
            Word::Ended(Outcome::Failed { error, code: Some(TOO_LARGE.to_owned()), results })
        }
        (None, _) => {
            let results = results.unwrap_or_else(|| JsonText::of(&serde_json::Value::Null));
            Word::Ended(Outcome::Completed(results))
        }
    }
}

fn clipped(text: String, len_max: usize) -> String {
    if text.len() <= len_max {
        return text;
    }
    let mut end = len_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} [of {} bytes]", &text[..end], text.len())
}
