//! What came of a task. Only a proplet to which its latest attempt was sent has a say.

use std::str;

use bytes::Bytes;
use protocol::{Envelope, OpenError, PropletId, TaskId, Timestamp, message::FailureCode};
use serde::Deserialize;
use serde_json::value::RawValue;

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
/// The code of a result that those who ask for it could not open.
const TOO_DEEP: &str = "result_too_deep";
/// Most lists and objects around a value of a result; usual readers of JSON give up at 128.
const DEPTH_MAX: usize = 100;

/// What a proplet says of a task, with the results still closed: opened, they take many times
/// their length, and nobody knows yet whether they are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedResults {
    pub task_id: TaskId,
    pub proplet_id: PropletId,
    /// JSON text, a part of the message that it came in; `None` is `null`.
    pub results: Option<Bytes>,
    pub error: Option<String>,
    pub attempt: Option<u32>,
    pub code: Option<FailureCode>,
}

/// As [`protocol::message::TaskResults`] on the wire.
#[derive(Deserialize)]
struct Wire<'a> {
    task_id: TaskId,
    proplet_id: PropletId,
    #[serde(default, borrow)]
    results: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    attempt: Option<u32>,
    #[serde(default)]
    code: Option<FailureCode>,
}

/// What a report comes to.
enum Word {
    Ended(Outcome),
    CutOff(String),
}

/// Results that cannot be kept.
struct Unfit {
    code: &'static str,
    error: String,
}

impl SealedResults {
    pub(crate) fn read(envelope: &Envelope) -> Result<Self, OpenError> {
        let payload = &envelope.payload;
        let wire: Wire<'_> = serde_json::from_slice(payload)
            .map_err(|source| OpenError::Malformed { topic: envelope.topic.clone(), source })?;
        Ok(Self {
            task_id: wire.task_id,
            proplet_id: wire.proplet_id,
            results: wire.results.map(|raw| payload.slice_ref(raw.get().as_bytes())),
            error: wire.error,
            attempt: wire.attempt,
            code: wire.code,
        })
    }
}

impl State {
    pub(crate) fn hear_results(&mut self, given: SealedResults, now: Timestamp, out: &mut Acts) {
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

fn has_a_say(task: &Task, given: &SealedResults) -> Result<(), String> {
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

fn word(given: SealedResults, results_len_max: usize) -> Word {
    let code = given.code.map(|FailureCode(code)| clipped(code, CODE_LEN_MAX));
    let results = given.results.map(|text| kept(&text, results_len_max)).transpose();
    let error = given.error.map(|error| clipped(error, ERROR_LEN_MAX));
    match (error, code.as_deref(), results) {
        (error, Some(FailureCode::INTERRUPTED), _) => {
            Word::CutOff(error.unwrap_or_else(|| "interrupted".to_owned()))
        }
        (error, Some(FailureCode::CANCELLED), _) => {
            let error = error.unwrap_or_else(|| "cancelled".to_owned());
            Word::Ended(Outcome::Interrupted(error))
        }
        (Some(error), _, results) => {
            let results = results.unwrap_or_default();
            Word::Ended(Outcome::Failed { error, code, results })
        }
        (None, _, Err(Unfit { code, error })) => {
            let code = Some(code.to_owned());
            Word::Ended(Outcome::Failed { error, code, results: None })
        }
        (None, _, Ok(results)) => {
            let results = results.unwrap_or_else(|| JsonText::of(&serde_json::Value::Null));
            Word::Ended(Outcome::Completed(results))
        }
    }
}

/// Results as they are kept, if they are short enough, and anybody could open them.
fn kept(results: &[u8], len_max: usize) -> Result<JsonText, Unfit> {
    let len = results.len();
    if len > len_max {
        let error = format!("results have {len} bytes, at most {len_max} are kept of a task");
        return Err(Unfit { code: TOO_LARGE, error });
    }
    if depth(results) > DEPTH_MAX {
        let error = format!("results are nested more than {DEPTH_MAX} deep");
        return Err(Unfit { code: TOO_DEEP, error });
    }
    let text = str::from_utf8(results).expect("JSON that was read is UTF-8");
    Ok(JsonText::revive(text.to_owned()))
}

/// Most lists and objects around a value of this JSON text.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut depth_max) = (0_usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        depth_max = depth_max.max(depth);
    }
    depth_max
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
