//! The durable form of sessions.

use std::collections::BTreeMap;

use protocol::{
    Entry, EntryError, PropletId, RoundId, SessionId, Timestamp, message::SessionStart,
};
use serde::{Deserialize, Serialize};

use crate::{
    candidates::Metadata,
    selection::Shares,
    session::{Current, HistoryRow, Session, Share, Standing, Unkept},
};

/// The tables of the sessions' entries.
pub const TABLES: &[&str] = &[START, STANDING, ROUND, SHARES, HISTORY, PROPLET];

/// What was asked for; written once.
const START: &str = "session";
const STANDING: &str = "standing";
/// The round under way: its id and its start, to the byte.
const ROUND: &str = "session_round";
/// By session and proplet; earlier releases kept all of a session's as one.
const SHARES: &str = "shares";
/// By session and round.
const HISTORY: &str = "history";
/// What a proplet says of itself: it does so once, not at every sign of life.
const PROPLET: &str = "proplet";

#[derive(Serialize, Deserialize)]
struct CurrentRecord {
    round: RoundId,
    asked: usize,
    /// The start as it was said, text.
    start: String,
}

/// Everything read back.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) history: BTreeMap<SessionId, Vec<HistoryRow>>,
    pub(crate) proplets: BTreeMap<PropletId, Metadata>,
}

pub(crate) fn keep_start(session: &Session) -> Entry {
    Entry::put(START, &session.start.session_id, &*session.start)
}

/// What a round's end or beginning changes.
pub(crate) fn keep_standing(session: &mut Session) -> Vec<Entry> {
    let Unkept { proplets, as_one } = std::mem::take(&mut session.unkept);
    let id = &session.start.session_id;
    let current = match &session.current {
        None => Entry::forget(ROUND, id),
        Some(current) => {
            let start = String::from_utf8_lossy(&current.start).into_owned();
            let record =
                CurrentRecord { round: current.round.clone(), asked: current.asked, start };
            Entry::put(ROUND, id, &record)
        }
    };
    let shares = proplets.into_iter().filter_map(|proplet| {
        let share = session.shares.get(&proplet)?;
        Some(Entry::put(SHARES, share_key(id, &proplet), share))
    });
    let before = as_one.then(|| Entry::forget(SHARES, id));
    let standing = Entry::put(STANDING, id, &session.standing);
    [standing, current].into_iter().chain(before).chain(shares).collect()
}

pub(crate) fn keep_row(session: &SessionId, row: &HistoryRow) -> Entry {
    Entry::put(HISTORY, history_key(session, row.round), row)
}

pub(crate) fn forget_row(session: &SessionId, round: u64) -> Entry {
    Entry::forget(HISTORY, history_key(session, round))
}

pub(crate) fn keep_proplet(id: &PropletId, metadata: &Metadata) -> Entry {
    Entry::put(PROPLET, id, metadata)
}

/// Everything of a session that is to be forgotten.
pub(crate) fn forget(session: &Session) -> Vec<Entry> {
    let id = &session.start.session_id;
    let tables = [START, STANDING, ROUND];
    let before = session.unkept.as_one.then(|| Entry::forget(SHARES, id));
    let shares = session.shares.keys();
    let shares = shares.map(|proplet| Entry::forget(SHARES, share_key(id, proplet)));
    let rows = session.first_row..=session.standing.rounds_done;
    let rows = rows.map(|round| Entry::forget(HISTORY, history_key(id, round)));
    let facts = tables.into_iter().map(|table| Entry::forget(table, id));
    facts.chain(before).chain(shares).chain(rows).collect()
}

/// Neither id can hold a slash.
fn share_key(session: &SessionId, proplet: &PropletId) -> String {
    format!("{session}/{proplet}")
}

fn read_shares(
    entry: &Entry,
    shares: &mut BTreeMap<String, (Shares, Unkept)>,
) -> Result<(), EntryError> {
    if let Some((session, proplet)) = entry.key.split_once('/') {
        let own = &mut shares.entry(session.to_owned()).or_default().0;
        let id: Option<PropletId> = proplet.parse().ok();
        own.extend(id.zip(entry.read::<Share>()?));
    } else if let Some(all) = entry.read::<Shares>()? {
        let (own, unkept) = shares.entry(entry.key.clone()).or_default();
        *unkept = Unkept { proplets: all.keys().cloned().collect(), as_one: true };
        own.extend(all);
    }
    Ok(())
}

/// Keys in order are rounds in order.
fn history_key(session: &SessionId, round: u64) -> String {
    format!("{session}/{round:08}")
}

pub(crate) fn read(entries: &[Entry]) -> Result<Remembered, EntryError> {
    let mut remembered = Remembered::default();
    let mut standings: BTreeMap<String, Standing> = BTreeMap::new();
    let mut shares: BTreeMap<String, (Shares, Unkept)> = BTreeMap::new();
    let mut rounds: BTreeMap<String, CurrentRecord> = BTreeMap::new();
    for entry in entries {
        let key = || entry.key.clone();
        match entry.table {
            STANDING => standings.extend(entry.read()?.map(|read| (key(), read))),
            SHARES => read_shares(entry, &mut shares)?,
            ROUND => rounds.extend(entry.read()?.map(|read| (key(), read))),
            PROPLET => {
                let id: Option<PropletId> = entry.key.parse().ok();
                remembered.proplets.extend(id.zip(entry.read()?));
            }
            _ => {}
        }
    }
    for entry in entries.iter().filter(|entry| entry.table == START) {
        let Some(start) = entry.read::<SessionStart>()? else { continue };
        let Some(standing) = standings.remove(&entry.key) else { continue };
        let mut session = Session::new(start, standing.ordinal, standing.started_at);
        session.standing = standing;
        (session.shares, session.unkept) = shares.remove(&entry.key).unwrap_or_default();
        session.current = rounds.remove(&entry.key).map(|record| Current {
            round: record.round,
            start: record.start.into(),
            asked: record.asked,
            opened: false,
            repeat_at: Timestamp::ZERO,
        });
        remembered.sessions.insert(session.start.session_id.clone(), session);
    }
    for entry in entries.iter().filter(|entry| entry.table == HISTORY) {
        let Some(row) = entry.read::<HistoryRow>()? else { continue };
        let session = entry.key.rsplit_once('/').and_then(|(session, _)| session.parse().ok());
        if let Some(session) = session {
            remembered.history.entry(session).or_default().push(row);
        }
    }
    for (id, session) in &mut remembered.sessions {
        let rows = remembered.history.get(id);
        let first = rows.and_then(|rows| rows.first()).map(|row| row.round);
        session.first_row = first.unwrap_or(session.standing.rounds_done + 1);
    }
    Ok(remembered)
}
