//! Which trace a message belongs to, as W3C Trace Context has it (`traceparent`, version 00), and
//! which ids the parts of a round have, so that nobody needs to be told them.

use std::{
    fmt,
    str::{self, FromStr},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::{Digest, PropletId, RoundId};

/// The environment variable of a task that says what its `traceparent` says.
pub const TRACEPARENT_ENV: &str = "TRACEPARENT";
/// Length of a `traceparent` of version 00.
pub(crate) const TRACEPARENT_LEN: usize = 55;
/// How much of what is none is shown.
const SHOWN_MAX: usize = 80;

/// Sixteen bytes, not all zero, in 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// Eight bytes, not all zero, in 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId([u8; 8]);

/// Whether the spans of a trace are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    Yes,
    No,
}

/// The span that what follows from a message hangs below.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    pub trace: TraceId,
    pub span: SpanId,
    pub sampled: Sampled,
}

/// What a message says of its trace. What is no `traceparent` is no reason to refuse it: whoever
/// cannot read one begins a trace of its own (W3C Trace Context, section 3.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceField {
    Parent(Traceparent),
    /// The beginning of what stands there instead.
    Unreadable(String),
}

/// A text that is no `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no traceparent, like 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
pub struct TraceparentError(String);

impl TraceId {
    /// Of a round whose start names no trace: the first sixteen bytes of the SHA-256 of its id.
    pub fn of_round(round: &RoundId) -> Self {
        Self(beginning(&Digest::of(round.as_str().as_bytes())))
    }

    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl SpanId {
    /// Of the coordinator's span of a whole round.
    pub fn of_round(round: &RoundId) -> Self {
        Self::of("round", [round.as_str()])
    }

    /// Of the manager's span of one participant's task.
    pub fn of_task(round: &RoundId, proplet: &PropletId) -> Self {
        Self::of("task", [round.as_str(), proplet.as_str()])
    }

    /// Of anything else, by what it is and what sets it apart: the first eight bytes of the SHA-256
    /// of these texts, each preceded by its length.
    pub fn of<'a>(what: &'a str, texts: impl IntoIterator<Item = &'a str>) -> Self {
        let texts = [what].into_iter().chain(texts);
        Self(beginning(&Digest::of_parts(texts.map(str::as_bytes))))
    }

    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

/// As good as never nothing but zeros.
fn beginning<const N: usize>(digest: &Digest) -> [u8; N] {
    *digest.as_bytes().first_chunk().expect("a digest is longer than an id")
}

impl Traceparent {
    /// The span of a whole round: below `parent`, if its start names one.
    pub fn of_round(round: &RoundId, parent: Option<Self>) -> Self {
        let trace = parent.map_or_else(|| TraceId::of_round(round), |parent| parent.trace);
        let sampled = parent.map_or(Sampled::Yes, |parent| parent.sampled);
        Self { trace, span: SpanId::of_round(round), sampled }
    }

    /// Another span of the same trace.
    pub const fn with_span(self, span: SpanId) -> Self {
        Self { span, ..self }
    }

    pub const fn is_sampled(&self) -> bool {
        matches!(self.sampled, Sampled::Yes)
    }
}

impl TraceField {
    /// The parent, if it can be read.
    pub const fn parent(&self) -> Option<Traceparent> {
        match self {
            Self::Parent(parent) => Some(*parent),
            Self::Unreadable(_) => None,
        }
    }

    /// Reads any text.
    pub fn read(text: &str) -> Self {
        text.parse().map_or_else(|TraceparentError(text)| Self::Unreadable(text), Self::Parent)
    }
}

impl FromStr for Traceparent {
    type Err = TraceparentError;

    /// Of a later version, the fields of this one are read (section 4.3 of the specification).
    fn from_str(text: &str) -> Result<Self, TraceparentError> {
        read(text).ok_or_else(|| TraceparentError(text.chars().take(SHOWN_MAX).collect()))
    }
}

fn read(text: &str) -> Option<Traceparent> {
    let (fields, more) = text.split_at_checked(TRACEPARENT_LEN)?;
    let mut fields = fields.split('-');
    let mut next = || fields.next();
    let [version]: [u8; 1] = digits(next()?)?;
    let (trace, span) = (digits(next()?)?, digits(next()?)?);
    let [flags]: [u8; 1] = digits(next()?)?;
    let may_go_on = match version {
        0xff => return None,
        0 => more.is_empty(),
        1..=0xfe => more.is_empty() || more.starts_with('-'),
    };
    let is_one = next().is_none() && may_go_on && trace != [0; 16] && span != [0; 8];
    let sampled = if flags & 1 == 1 { Sampled::Yes } else { Sampled::No };
    is_one.then_some(Traceparent { trace: TraceId(trace), span: SpanId(span), sampled })
}

/// Exactly as many lower-case digits as that takes.
fn digits<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (place, [high, low]) in bytes.iter_mut().zip(pairs) {
        *place = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn write(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(&self.0, f)
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", self.trace, self.span, u8::from(self.is_sampled()))
    }
}

impl fmt::Debug for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for TraceField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parent(parent) => write!(f, "{parent}"),
            Self::Unreadable(text) => f.write_str(text),
        }
    }
}

impl Serialize for TraceField {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(value.as_str().map_or_else(|| Self::read(&value.to_string()), Self::read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Letter as _, message::RoundStart};

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_w3c_has_it() {
        let read: Traceparent = TEXT.parse().unwrap();
        assert_eq!(read.to_string(), TEXT);
        assert_eq!(read.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(read.span.to_string(), "00f067aa0ba902b7");
        assert!(read.is_sampled());
        let unsampled: Traceparent = TEXT.replace("-01", "-00").parse().unwrap();
        assert!(!unsampled.is_sampled());
        // Flags that are not known are not passed on.
        let flags: Traceparent = TEXT.replace("-01", "-ff").parse().unwrap();
        assert_eq!(flags.to_string(), TEXT);
        for later in ["cc-", "01-"] {
            let text = TEXT.replacen("00-", later, 1);
            assert_eq!(text.parse(), Ok(read), "the fields of a later version are where they were");
            assert_eq!(format!("{text}-what-comes").parse(), Ok(read));
            assert!(format!("{text}x").parse::<Traceparent>().is_err());
        }
    }

    #[test]
    fn what_is_none_is_shown_and_never_an_error_of_its_message() {
        let zeros = TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let no_span = TEXT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let upper = TEXT.to_uppercase();
        let longer = format!("{TEXT}-01");
        let invalid = TEXT.replacen("00", "ff", 1);
        let dashes = TEXT.replacen("4bf9", "4b-9", 1);
        let unicode = format!("{}é", &TEXT[..54]);
        let texts = ["", "00", &zeros, &no_span, &upper, &longer, &invalid, &dashes, &unicode];
        for text in texts {
            assert!(text.parse::<Traceparent>().is_err(), "{text}");
            assert_eq!(TraceField::read(text), TraceField::Unreadable(text.to_owned()));
        }
        for (json, shown) in [("5", "5"), ("null", "null"), ("{\"a\":[]}", "{\"a\":[]}")] {
            let read: TraceField = serde_json::from_str(json).unwrap();
            assert_eq!(read, TraceField::Unreadable(shown.to_owned()));
        }
        let long = "x".repeat(1000);
        assert_eq!(TraceField::read(&long), TraceField::Unreadable("x".repeat(SHOWN_MAX)));
    }

    /// Who repeats a start may do so in another trace.
    #[test]
    fn a_start_is_the_same_in_any_trace() {
        let uri = crate::ModelUri::global(crate::ModelVersion(0));
        let plain = format!(r#"{{"round_id":"r","model_uri":"{uri}","participants":["p"]}}"#);
        let read = |text: &str| serde_json::from_str::<RoundStart>(text).unwrap();
        let with = |said: &str| plain.replacen('{', &format!("{{\"traceparent\":{said},"), 1);
        let given = read(&with(&format!("{TEXT:?}")));
        assert_eq!(given.parent().unwrap().to_string(), TEXT);
        let plain = read(&plain);
        for said in ["7", "\"bad\"", "[]"] {
            let bad = read(&with(said));
            assert!(matches!(bad.traceparent, Some(TraceField::Unreadable(_))));
            assert_eq!((bad.parent(), bad.fingerprint()), (None, plain.fingerprint()));
        }
        assert_eq!(given.fingerprint(), plain.fingerprint());
        assert_eq!(read(str::from_utf8(&given.seal().payload).unwrap()), given);
    }

    /// Coordinator and manager hear a start each, and must mean the same trace.
    #[test]
    fn ids_follow_from_the_round_alone() {
        let round: RoundId = "r-1".parse().unwrap();
        let (one, two) = ("proplet-1".parse().unwrap(), "proplet-2".parse().unwrap());
        let own = Traceparent::of_round(&round, None);
        let hash = Digest::of(b"r-1").to_string();
        assert_eq!(own.trace.to_string(), hash[..32]);
        assert!(own.is_sampled());
        assert_ne!(SpanId::of_task(&round, &one), SpanId::of_task(&round, &two));
        assert_ne!(SpanId::of_task(&round, &one), own.span);
        let given: Traceparent = TEXT.parse().unwrap();
        let below = Traceparent::of_round(&round, Some(given));
        assert_eq!((below.trace, below.span), (given.trace, own.span));
        let unsampled = Traceparent { sampled: Sampled::No, ..given };
        assert!(!Traceparent::of_round(&round, Some(unsampled)).is_sampled());
    }
}
