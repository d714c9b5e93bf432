//! How every session stands, and its history, for those who look: what the core last showed.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use protocol::{RoundId, SessionId, message::SessionStart, message::SessionStatus};
use session::{HistoryRow, SessionView};

/// All sessions. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gallery(
    /// The event loop writes, the HTTP side reads, each for as long as a copy takes.
    Arc<RwLock<BTreeMap<SessionId, Shown>>>,
);

/// One session.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) status: SessionStatus,
    pub(crate) start: Arc<SessionStart>,
    pub(crate) round: Option<RoundId>,
    rows: BTreeMap<u64, HistoryRow>,
}

impl Gallery {
    pub(crate) fn show(&self, view: SessionView) {
        let SessionView { status, start, round, rows } = view;
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let id = status.session_id.clone();
        let before = sessions.remove(&id).map(|shown| shown.rows).unwrap_or_default();
        let mut shown = Shown { status, start, round, rows: before };
        shown.rows.extend(rows.into_iter().map(|row| (row.round, row)));
        sessions.insert(id, shown);
    }

    pub(crate) fn trim(&self, id: &SessionId, first_row: u64) {
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(shown) = sessions.get_mut(id) {
            shown.rows = shown.rows.split_off(&first_row);
        }
    }

    pub(crate) fn forget(&self, id: &SessionId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// What is read of one session.
    pub(crate) fn read<T>(&self, id: &SessionId, read: impl FnOnce(&Shown) -> T) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).map(read)
    }

    /// What is read of some of them, by id; and how many there are.
    pub(crate) fn page<T>(
        &self,
        offset: usize,
        limit: usize,
        read: impl FnMut(&Shown) -> T,
    ) -> (Vec<T>, usize) {
        let sessions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (sessions.values().skip(offset).take(limit).map(read).collect(), sessions.len())
    }
}

impl Shown {
    /// In the order of rounds.
    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &HistoryRow> {
        self.rows.values()
    }
}
