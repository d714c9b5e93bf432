//! What a machine wants remembered: small keyed records, written before anything else happens.

use serde::{Serialize, de::DeserializeOwned};

use crate::json::Text;

/// One change to what is remembered. A value of `None` forgets the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The kind of record; each machine has a handful.
    pub table: &'static str,
    /// Unique within its table.
    pub key: String,
    /// The record, or nothing to forget it.
    pub value: Option<Vec<u8>>,
}

/// A remembered record that cannot be read back.
#[derive(Debug, thiserror::Error)]
#[error("read back record {table}/{key}")]
pub struct EntryError {
    table: &'static str,
    key: String,
    #[source]
    source: serde_json::Error,
}

impl Entry {
    /// Remember `record` under `key`, in place of what was there.
    pub fn put(table: &'static str, key: impl ToString, record: &impl Serialize) -> Self {
        Self { table, key: key.to_string(), value: Some(Text::of(record).into_vec()) }
    }

    /// Remember raw bytes under `key`.
    pub fn put_bytes(table: &'static str, key: impl ToString, bytes: Vec<u8>) -> Self {
        Self { table, key: key.to_string(), value: Some(bytes) }
    }

    /// Forget `key`.
    pub fn forget(table: &'static str, key: impl ToString) -> Self {
        Self { table, key: key.to_string(), value: None }
    }

    /// The record back again; `None` if the entry forgets.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, EntryError> {
        let Some(bytes) = &self.value else { return Ok(None) };
        serde_json::from_slice(bytes).map(Some).map_err(|source| EntryError {
            table: self.table,
            key: self.key.clone(),
            source,
        })
    }
}
