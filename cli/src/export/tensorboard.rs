//! TensorBoard's event files: TFRecords of `Event` protocol buffers, as `event.proto` and
//! `summary.proto` of TensorFlow define them, and `record_writer.cc` frames them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{Row, Session};

const FILE_VERSION: &str = "brain.Event:2";
/// Of CRC-32C (Castagnoli), its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;
const MASK_DELTA: u32 = 0xa282_ead8;

/// Writes the history below `dir`, one directory a session; again gives the same file. Its path.
pub(crate) fn write(session: &Session, dir: &Path) -> anyhow::Result<PathBuf> {
    let id = &session.session_id;
    if session.rows.is_empty() {
        bail!("session {id} has no round in its history yet");
    }
    let began = session.started_at.as_micros();
    let place = dir.join(id.as_str());
    fs::create_dir_all(&place).with_context(|| format!("make directory {}", place.display()))?;
    let path = place.join(format!("events.out.tfevents.{:010}.aileron", began / 1_000_000));
    // TensorBoard reads every file whose name holds `tfevents`; this one is not whole yet.
    let unfinished = place.join(".unfinished");
    let failed = || format!("write {}", path.display());
    fs::write(&unfinished, events(began, &session.rows)).with_context(failed)?;
    fs::rename(&unfinished, &path).with_context(failed)?;
    Ok(path)
}

/// The bytes of a file whose first event is of this time, in microseconds since 1970.
fn events(began_us: u64, rows: &[Row]) -> Vec<u8> {
    let mut file = vec![];
    let mut first = wall_time(began_us);
    put_bytes(&mut first, 3, FILE_VERSION.as_bytes());
    record(&mut file, &first);
    for row in rows {
        let mut summary = vec![];
        for (tag, value) in row.numbers() {
            let mut entry = vec![];
            put_bytes(&mut entry, 1, tag.as_bytes());
            put_key(&mut entry, 2, 5);
            entry.extend((value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &entry);
        }
        let mut event = wall_time(row.completed_at.as_micros());
        put_key(&mut event, 2, 0);
        put_varint(&mut event, row.round);
        put_bytes(&mut event, 5, &summary);
        record(&mut file, &event);
    }
    file
}

/// An event's first field: seconds, as a 64-bit float.
fn wall_time(us: u64) -> Vec<u8> {
    let mut event = vec![];
    put_key(&mut event, 1, 1);
    event.extend((us as f64 / 1e6).to_le_bytes());
    event
}

fn put_key(to: &mut Vec<u8>, field: u64, wire: u64) {
    put_varint(to, field << 3 | wire);
}

fn put_bytes(to: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(to, field, 2);
    put_varint(to, bytes.len() as u64);
    to.extend(bytes);
}

fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Length, its checksum, the bytes, theirs.
fn record(file: &mut Vec<u8>, bytes: &[u8]) {
    let len = (bytes.len() as u64).to_le_bytes();
    file.extend(len);
    file.extend(masked(&len).to_le_bytes());
    file.extend(bytes);
    file.extend(masked(bytes).to_le_bytes());
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(MASK_DELTA)
}

/// RFC 3720, appendix B.4. Bit by bit: a history is small.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    fn row() -> Row {
        serde_json::from_value(json!({
            "round": 300, "model_version": 300, "participants": 3, "num_updates": 2,
            "total_samples": 20, "duration_ms": 1500, "completed_at": "2026-01-12T10:30:45Z",
            "rejected": {"shape": 1}, "series": {"loss": 0.5, "eval_accuracy": 0.75},
        }))
        .unwrap()
    }

    /// What TensorBoard reads as step 300 of eight scalars.
    #[test]
    fn an_event_file_is_the_same_to_the_byte() {
        let file = events(1_768_213_800_000_000, &[row()]);
        let hex: String = file.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("golden.hex").trim());
    }

    #[test]
    fn numbers_stand_in_groups() {
        let numbers = row().numbers();
        assert_eq!((numbers["train/loss"], numbers["eval/accuracy"]), (0.5, 0.75));
        assert_eq!((numbers["round/rejected"], numbers["round/num_updates"]), (1.0, 2.0));
    }
}
