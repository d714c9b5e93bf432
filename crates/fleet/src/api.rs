//! What callers of the manager may ask, and what they are told.

mod answer;
mod edit;
mod refusal;
mod view;

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{
    PropletId, TaskId,
    message::{TaskMetrics, TaskState},
};

use crate::{Counts, Found, JsonText, Piece, Seeker, Wanted};

pub use edit::Edit;
pub use refusal::{Refusal, RefusalKind};
pub use view::{PropletView, TaskView};

/// What the shell reports.
#[derive(Debug)]
pub enum Report<R> {
    /// A caller's question, and the way to answer it.
    Asked { reply: R, ask: Ask },
    /// There is room for this piece.
    Passed(Piece),
    /// What an image is, or why that cannot be said.
    Found { wanted: Wanted, seeker: Seeker<R>, found: Result<Found, String> },
}

/// A part of a long list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub offset: usize,
    pub limit: usize,
}

/// Which tasks; nothing named means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    pub state: Option<TaskState>,
    /// Pinned to it, or sent to it by the latest attempt.
    pub proplet: Option<PropletId>,
    pub name: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Census,
    Proplets(Page),
    Proplet(PropletId),
    /// Only of one that is not alive: an alive one would be back with its next sign of life.
    ForgetProplet(PropletId),
    CreateTask {
        id: TaskId,
        edit: Box<Edit>,
    },
    Tasks {
        page: Page,
        filter: TaskFilter,
    },
    Task(TaskId),
    EditTask {
        id: TaskId,
        edit: Box<Edit>,
    },
    Upload {
        id: TaskId,
        file: Bytes,
    },
    DeleteTask(TaskId),
    StartTask(TaskId),
    StopTask(TaskId),
    Results(TaskId),
    Metrics {
        id: TaskId,
        page: Page,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Census(Census),
    Proplets(PageOf<PropletView>),
    Proplet(PropletView),
    Tasks(PageOf<TaskView>),
    Task(Box<TaskView>),
    Results(Option<JsonText>),
    Metrics(PageOf<TaskMetrics>),
    Done,
}

/// Part of a list, and how long the list is.
#[derive(Clone, Debug, PartialEq)]
pub struct PageOf<T> {
    pub page: Page,
    pub total: usize,
    pub items: Vec<T>,
}

/// How much there is of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    pub proplets: usize,
    pub proplets_alive: usize,
    pub tasks: BTreeMap<TaskState, usize>,
    pub rounds: usize,
    pub files_len: usize,
    pub counts: Counts,
}

impl<T> PageOf<T> {
    /// The page of `all` that was asked for, each item shown by `show`.
    fn of<I>(page: Page, all: impl Iterator<Item = I>, show: impl Fn(I) -> T) -> Self {
        let mut items = vec![];
        let mut total = 0;
        for item in all {
            if total >= page.offset && items.len() < page.limit {
                items.push(show(item));
            }
            total += 1;
        }
        Self { page, total, items }
    }
}
