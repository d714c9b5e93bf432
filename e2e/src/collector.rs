//! A collector of OpenTelemetry, as far as a story needs one: it takes spans over HTTP, in protobuf,
//! and remembers them. What it reads is spelled out here, so that nothing of ours is believed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// Whether a collector does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    Takes,
    /// It takes a request, and never answers.
    Hangs,
}

/// Listens until the story ends.
#[derive(Debug)]
pub struct Collector {
    port: u16,
    // Every connection has a thread of its own.
    spans: Arc<Mutex<Vec<CollectedSpan>>>,
}

/// One span, ids in hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectedSpan {
    pub service: String,
    pub instance: String,
    pub trace: String,
    pub id: String,
    /// Empty at the root.
    pub parent: String,
    pub name: String,
    /// Nanoseconds since 1970.
    pub began: u64,
    pub ended: u64,
    pub attributes: BTreeMap<String, String>,
    /// Its status says so.
    pub failed: bool,
}

impl Collector {
    /// Starts one on a free port.
    #[track_caller]
    pub fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("a port").port();
        let spans = Arc::<Mutex<Vec<CollectedSpan>>>::default();
        let all = Arc::clone(&spans);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let all = Arc::clone(&all);
                thread::spawn(move || match manners {
                    Manners::Takes => while serve(&stream, &all).is_some() {},
                    Manners::Hangs => drop((&stream).read_to_end(&mut vec![])),
                });
            }
        });
        Self { port, spans }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is to say.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What has come so far of a trace.
    pub fn trace(&self, trace: &str) -> Vec<CollectedSpan> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| span.trace == trace).cloned().collect()
    }
}

/// One request; nothing once the other side has gone.
fn serve(mut stream: &TcpStream, all: &Mutex<Vec<CollectedSpan>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    let (mut len, mut kind) = (0, String::new());
    assert!(line.starts_with("POST /v1/traces "), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => len = value.parse().ok()?,
            "content-type" => kind = value.to_owned(),
            _ => {}
        }
    }
    assert_eq!(kind, "application/x-protobuf");
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    let read = request(&body);
    all.lock().unwrap_or_else(PoisonError::into_inner).extend(read);
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).ok()
}

/// A value in protobuf's wire format.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers, in order.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Wire<'_>)> {
    let mut fields = vec![];
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Wire::Number(varint(&mut bytes)),
            1 => {
                let (eight, rest) = bytes.split_first_chunk().expect("eight bytes");
                bytes = rest;
                Wire::Number(u64::from_le_bytes(*eight))
            }
            2 => {
                let len = usize::try_from(varint(&mut bytes)).expect("a length");
                let (value, rest) = bytes.split_at(len);
                bytes = rest;
                Wire::Bytes(value)
            }
            5 => {
                let (four, rest) = bytes.split_first_chunk().expect("four bytes");
                bytes = rest;
                Wire::Number(u32::from_le_bytes(*four).into())
            }
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first().expect("a varint ends");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

impl<'a> Wire<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("{number} in place of bytes"),
        }
    }

    fn text(self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("a text")
    }

    fn digits(self) -> String {
        self.bytes().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => panic!("bytes in place of a number"),
        }
    }
}

/// `ExportTraceServiceRequest` of opentelemetry-proto, `collector/trace/v1/trace_service.proto`.
fn request(body: &[u8]) -> Vec<CollectedSpan> {
    let of_resources = fields(body).into_iter().filter(|(number, _)| *number == 1);
    of_resources.flat_map(|(_, value)| resource_spans(value.bytes())).collect()
}

fn resource_spans(bytes: &[u8]) -> Vec<CollectedSpan> {
    let mut resource = BTreeMap::new();
    let mut spans = vec![];
    for (number, value) in fields(bytes) {
        match number {
            1 => resource = attributes(value.bytes(), 1),
            2 => spans.extend(
                fields(value.bytes())
                    .into_iter()
                    .filter(|(number, _)| *number == 2)
                    .map(|(_, value)| span(value.bytes())),
            ),
            _ => {}
        }
    }
    let said = |key: &str| resource.get(key).cloned().unwrap_or_default();
    for span in &mut spans {
        span.service = said("service.name");
        span.instance = said("service.instance.id");
    }
    spans
}

/// `Span` of `trace/v1/trace.proto`.
fn span(bytes: &[u8]) -> CollectedSpan {
    let mut span = CollectedSpan { attributes: attributes(bytes, 9), ..CollectedSpan::default() };
    for (number, value) in fields(bytes) {
        match number {
            1 => span.trace = value.digits(),
            2 => span.id = value.digits(),
            4 => span.parent = value.digits(),
            5 => span.name = value.text(),
            7 => span.began = value.number(),
            8 => span.ended = value.number(),
            15 => {
                let is_error = |(number, value): &(u64, Wire<'_>)| {
                    matches!((number, value), (3, Wire::Number(2)))
                };
                span.failed = fields(value.bytes()).iter().any(is_error);
            }
            _ => {}
        }
    }
    span
}

/// The `KeyValue`s in a field.
fn attributes(bytes: &[u8], field: u64) -> BTreeMap<String, String> {
    let pairs = fields(bytes).into_iter().filter(|(number, _)| *number == field);
    pairs.map(|(_, pair)| key_value(pair.bytes())).collect()
}

fn key_value(bytes: &[u8]) -> (String, String) {
    let (mut key, mut said) = (String::new(), String::new());
    for (number, value) in fields(bytes) {
        match number {
            1 => key = value.text(),
            2 => {
                said = match fields(value.bytes()).first() {
                    Some((1, text)) => text.text(),
                    Some((_, Wire::Number(number))) => number.to_string(),
                    Some((_, Wire::Bytes(_))) | None => String::new(),
                };
            }
            _ => {}
        }
    }
    (key, said)
}
