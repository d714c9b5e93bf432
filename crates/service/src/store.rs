//! What a service must not lose: entries and promises in one SQLite file, one writer.
//!
//! Journal mode WAL with `synchronous=FULL`: a commit that has returned survives a power cut. The
//! file is opened exclusively, so that two processes cannot share a state directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protocol::{Entry, Envelope, TopicError};
use rusqlite::{Connection, params};
use tokio::time::Instant;

use crate::figures::{self, Seconds};

/// The place of a promise in the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromiseId(pub i64);

/// Entries and promises on disk.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    tables: &'static [&'static str],
    quota: Quota,
    /// The quota that the connection knows of.
    quota_bytes: u64,
    commits: Seconds,
}

/// How large the state file may become; can be changed while the store is in use.
#[derive(Clone, Debug)]
pub struct Quota(Arc<AtomicU64>);

impl Quota {
    /// From the next commit on; what is there already stays.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.0.store(bytes_max, Ordering::Relaxed);
    }
}

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("make state directory {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("state file {path} is in use by another process")]
    InUse { path: PathBuf },
    #[error("{action} state file {path}")]
    Sqlite {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("state file {path} holds table {table:?}, which this version does not know")]
    Table { path: PathBuf, table: String },
    #[error("read a promise from state file {path}")]
    Topic {
        path: PathBuf,
        #[source]
        source: TopicError,
    },
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS entries (
    tab TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (tab, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS promises (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL
);";

/// How long a process that is just ending may still hold the file.
const BUSY: Duration = Duration::from_secs(1);
/// As many as SQLite can count.
const PAGES_MAX: u64 = 4_294_967_294;

impl Store {
    /// Opens `{dir}/{name}.db`, making both if they are missing. `tables` are the entry tables
    /// that the machine knows.
    pub fn open(
        dir: &Path,
        name: &str,
        tables: &'static [&'static str],
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(dir)
            .map_err(|source| StoreError::Directory { path: dir.to_owned(), source })?;
        let path = dir.join(format!("{name}.db"));
        let connection = connect(&path).map_err(|source| classify("open", &path, source))?;
        let quota = Quota(Arc::new(AtomicU64::new(u64::MAX)));
        Ok(Self {
            connection,
            path,
            tables,
            quota,
            quota_bytes: u64::MAX,
            commits: figures::times(),
        })
    }

    /// The limit of the state file, none at first. A commit that would pass it fails as on a full
    /// disk.
    pub fn quota(&self) -> Quota {
        self.quota.clone()
    }

    /// The same, whose commits are counted there.
    #[must_use]
    pub fn observed(self, commits: Seconds) -> Self {
        Self { commits, ..self }
    }

    /// Where the service answers that is the one writer of this file.
    pub(crate) fn health_socket(&self) -> PathBuf {
        self.path.with_extension(crate::health::EXTENSION)
    }

    /// Every entry, by table and key.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let rows = self.query("SELECT tab, key, value FROM entries ORDER BY tab, key")?;
        rows.into_iter()
            .map(|(tab, key, value)| {
                let table =
                    self.tables.iter().copied().find(|table| *table == tab).ok_or_else(|| {
                        StoreError::Table { path: self.path.clone(), table: tab.clone() }
                    })?;
                Ok(Entry { table, key, value: Some(value) })
            })
            .collect()
    }

    /// Every promise that the broker has not acknowledged, oldest first.
    pub fn promises(&self) -> Result<Vec<(PromiseId, Envelope)>, StoreError> {
        let rows =
            self.query("SELECT CAST(id AS TEXT), topic, payload FROM promises ORDER BY id")?;
        rows.into_iter()
            .map(|(id, topic, payload)| {
                let topic = topic
                    .parse()
                    .map_err(|source| StoreError::Topic { path: self.path.clone(), source })?;
                let id = PromiseId(id.parse().expect("an integer key reads as an integer"));
                Ok((id, Envelope { topic, payload: payload.into() }))
            })
            .collect()
    }

    /// Writes entries and promises, and forgets promises that were kept, in one transaction.
    /// Returns the place of each new promise, in order.
    pub fn commit(
        &mut self,
        entries: &[Entry],
        promises: &[Envelope],
        kept: &[PromiseId],
    ) -> Result<Vec<PromiseId>, StoreError> {
        let path = &self.path;
        let quota_bytes = self.quota.0.load(Ordering::Relaxed);
        if quota_bytes != self.quota_bytes {
            limit(&self.connection, quota_bytes)
                .map_err(|source| classify("limit", path, source))?;
            self.quota_bytes = quota_bytes;
        }
        let begun = Instant::now();
        let written = write(&mut self.connection, entries, promises, kept);
        self.commits.observe(begun.elapsed().as_secs_f64());
        written.map_err(|source| classify("write", path, source))
    }

    fn query(&self, sql: &str) -> Result<Vec<(String, String, Vec<u8>)>, StoreError> {
        let read = || -> Result<_, rusqlite::Error> {
            let mut statement = self.connection.prepare(sql)?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        };
        read().map_err(|source| classify("read", &self.path, source))
    }
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

fn limit(connection: &Connection, bytes_max: u64) -> Result<(), rusqlite::Error> {
    let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let pages = bytes_max / page_bytes.unsigned_abs().max(1);
    let pages = pages.clamp(1, PAGES_MAX);
    connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
}

fn write(
    connection: &mut Connection,
    entries: &[Entry],
    promises: &[Envelope],
    kept: &[PromiseId],
) -> Result<Vec<PromiseId>, rusqlite::Error> {
    let transaction = connection.transaction()?;
    let mut ids = Vec::with_capacity(promises.len());
    {
        let mut put = transaction.prepare_cached(
            "INSERT OR REPLACE INTO entries (tab, key, value) VALUES (?1, ?2, ?3)",
        )?;
        let mut forget =
            transaction.prepare_cached("DELETE FROM entries WHERE tab = ?1 AND key = ?2")?;
        for entry in entries {
            match &entry.value {
                Some(value) => put.execute(params![entry.table, entry.key, value])?,
                None => forget.execute(params![entry.table, entry.key])?,
            };
        }
        let mut promise =
            transaction.prepare_cached("INSERT INTO promises (topic, payload) VALUES (?1, ?2)")?;
        for envelope in promises {
            promise.execute(params![envelope.topic.to_string(), &envelope.payload[..]])?;
            ids.push(PromiseId(transaction.last_insert_rowid()));
        }
        let mut done = transaction.prepare_cached("DELETE FROM promises WHERE id = ?1")?;
        for id in kept {
            done.execute(params![id.0])?;
        }
    }
    transaction.commit()?;
    Ok(ids)
}

fn classify(action: &'static str, path: &Path, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            StoreError::InUse { path: path.to_owned() }
        }
        Some(_) | None => StoreError::Sqlite { action, path: path.to_owned(), source },
    }
}
