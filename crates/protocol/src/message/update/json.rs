//! An update as JSON.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Update, UpdateError, metrics, sent_by, shown};
use crate::{Form, ModelUri, PropletId, Rejection, RoundId, Tensors, envelope::brief};

/// What is read first: who speaks of what. The rest stays text until that is known.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default, borrow)]
    round_id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    proplet_id: Option<&'a RawValue>,
    #[serde(default, borrow)]
    base_model_uri: Option<&'a RawValue>,
    #[serde(default, borrow)]
    num_samples: Option<&'a RawValue>,
    #[serde(default, borrow)]
    metrics: Option<&'a RawValue>,
    #[serde(default, borrow)]
    update: Option<&'a RawValue>,
}

/// What can be read even where the rest cannot.
#[derive(Deserialize)]
struct Address {
    round_id: Option<RoundId>,
    proplet_id: Option<PropletId>,
}

/// See [`Update::read`].
pub(super) fn read(payload: &[u8], sender: Option<&PropletId>) -> Result<Update, UpdateError> {
    let malformed = |what: String| UpdateError {
        reason: Rejection::Malformed,
        what,
        round_id: None,
        proplet_id: sender.cloned(),
    };
    let wire: Wire<'_> =
        serde_json::from_slice(payload).map_err(|why| syntax(payload, &why, sender))?;
    let round_id: RoundId = id(wire.round_id, "round_id").map_err(malformed)?;
    let named = match wire.proplet_id {
        None => None,
        given => Some(id(given, "proplet_id").map_err(malformed)?),
    };
    let fail = |reason, what: String| UpdateError {
        reason,
        what,
        round_id: Some(round_id.clone()),
        proplet_id: sender.cloned().or_else(|| named.clone()),
    };
    let fail = |(reason, what)| fail(reason, what);
    let proplet_id = sent_by(sender, named.as_ref()).map_err(fail)?;
    let base_model_uri = base(wire.base_model_uri).map_err(fail)?;
    let num_samples =
        samples(wire.num_samples).map_err(|what| fail((Rejection::NumSamples, what)))?;
    let update = tensors(wire.update).map_err(fail)?;
    let metrics = metrics::read(wire.metrics.map(RawValue::get));
    let form = Form::Json;
    Ok(Update { round_id, proplet_id, base_model_uri, num_samples, metrics, update, form })
}

/// See [`super::read_update_address`].
pub(super) fn address(payload: &[u8]) -> (Option<RoundId>, Option<PropletId>) {
    let address = serde_json::from_slice::<Address>(payload).ok();
    address.map_or((None, None), |it| (it.round_id, it.proplet_id))
}

fn id<T: std::str::FromStr<Err = crate::IdError>>(
    given: Option<&RawValue>,
    field: &str,
) -> Result<T, String> {
    let Some(raw) = given else { return Err(format!("{field} is missing")) };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => text.parse().map_err(|why| format!("{field}: {why}")),
        Err(_) => Err(format!("{field} takes a string, not {}", shown(raw.get()))),
    }
}

/// An address of something else than a model of ours is a stale base, not a syntax error.
fn base(given: Option<&RawValue>) -> Result<ModelUri, (Rejection, String)> {
    let Some(raw) = given else {
        return Err((Rejection::Malformed, "base_model_uri is missing".into()));
    };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => text
            .parse()
            .map_err(|why: crate::ModelUriError| (Rejection::StaleBase, why.to_string())),
        Err(_) => {
            let what = format!("base_model_uri takes a string, not {}", shown(raw.get()));
            Err((Rejection::Malformed, what))
        }
    }
}

fn samples(given: Option<&RawValue>) -> Result<u64, String> {
    let Some(raw) = given else { return Err("num_samples is missing".into()) };
    match serde_json::from_str::<u64>(raw.get()) {
        Ok(0) => Err("num_samples is 0".into()),
        Ok(n) => Ok(n),
        Err(_) => Err(format!("num_samples takes a whole number, not {}", shown(raw.get()))),
    }
}

fn tensors(given: Option<&RawValue>) -> Result<Tensors, (Rejection, String)> {
    let Some(raw) = given else { return Err((Rejection::Malformed, "update is missing".into())) };
    let tensors: Tensors = serde_json::from_str(raw.get()).map_err(|why| {
        let reason =
            if is_out_of_range(&why) { Rejection::NotFinite } else { Rejection::Malformed };
        (reason, format!("update: {}", brief(&why)))
    })?;
    match tensors.not_finite() {
        Some(name) => Err((Rejection::NotFinite, format!("tensor {name:?} is not finite"))),
        None => Ok(tensors),
    }
}

/// Python writes NaN and Infinity into what it calls JSON: that is a number that is not finite,
/// and worth saying so.
fn syntax(payload: &[u8], why: &serde_json::Error, sender: Option<&PropletId>) -> UpdateError {
    let from = offset(payload, why).saturating_sub(2);
    let rest = payload.get(from..).unwrap_or_default();
    let window = String::from_utf8_lossy(&rest[..rest.len().min(12)]).into_owned();
    let words = ["NaN", "Infinity", "nan", "inf"];
    let word = words.into_iter().find_map(|word| window.find(word));
    let reason = match word {
        Some(at) if counts_samples(&payload[..from + at.min(rest.len())]) => Rejection::NumSamples,
        Some(_) => Rejection::NotFinite,
        None if is_out_of_range(why) => Rejection::NotFinite,
        None => Rejection::Malformed,
    };
    let what = format!("not JSON: {}", brief(why));
    // Valid JSON can still be too deep, or hold too large a number: then it says where it belongs.
    let (round_id, named) = address(payload);
    UpdateError { reason, what, round_id, proplet_id: sender.cloned().or(named) }
}

/// Whether the text ends where the number of samples should stand.
fn counts_samples(before: &[u8]) -> bool {
    let before = before.strip_suffix(b"-").unwrap_or(before).trim_ascii_end();
    let key = before.strip_suffix(b":").map(<[u8]>::trim_ascii_end);
    key.is_some_and(|key| key.ends_with(b"\"num_samples\""))
}

fn is_out_of_range(why: &serde_json::Error) -> bool {
    why.to_string().starts_with("number out of range")
}

/// Where in the payload serde_json stopped; it counts lines from 1, columns in bytes.
fn offset(payload: &[u8], why: &serde_json::Error) -> usize {
    let line = why.line().saturating_sub(1);
    let start = match line {
        0 => 0,
        n => payload
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .nth(n - 1)
            .map_or(0, |(at, _)| at + 1),
    };
    start + why.column().saturating_sub(1)
}
