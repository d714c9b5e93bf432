//! Runs that were cut off, and what begins them again.

use std::time::Duration;

use protocol::{Output, PropletId, TaskId, Timestamp};

use crate::{Notice, act::Acts, record, spec::Placed, state::State, task::Phase};

/// A proplet that gave a task back may be about to go: how long it gets to go, before the task is
/// sent to it again.
const PAUSE: Duration = Duration::from_secs(2);

impl State {
    /// A proplet is gone, and all its runs with it.
    pub(crate) fn lose(
        &mut self,
        proplet: &PropletId,
        why: &'static str,
        now: Timestamp,
        out: &mut Acts,
    ) {
        self.proplets.mark_offline(proplet);
        let Some(known) = self.proplets.get(proplet) else { return };
        out.push(Output::Keep(record::proplet(known)));
        out.push(Output::Effect(Notice::Offline { proplet: proplet.clone(), why }));
        for id in known.active().to_vec() {
            self.cut_off((&id, proplet), format!("{proplet} is offline"), now, out);
        }
    }

    /// One run was cut off. Where the task may go elsewhere, it goes there at once.
    pub(crate) fn cut_off(
        &mut self,
        (id, proplet): (&TaskId, &PropletId),
        why: String,
        now: Timestamp,
        out: &mut Acts,
    ) {
        let interrupted =
            self.change(id, now, out, |task| task.interrupt(proplet, why, now + PAUSE, now));
        match interrupted {
            Ok(()) => self.rerun(id, Some(proplet), now, out),
            Err(illegal) => self.ignore("interruption", illegal.to_string(), out),
        }
    }

    /// Begins a waiting task again, if there is a place for it, but not on `but`.
    pub(crate) fn rerun(
        &mut self,
        id: &TaskId,
        but: Option<&PropletId>,
        now: Timestamp,
        out: &mut Acts,
    ) {
        let Some(task) = self.tasks.get(id) else { return };
        let Phase::Waiting(_) = task.phase() else { return };
        let on = match &task.spec.placed {
            Placed::Anywhere => self.proplets.least_busy(but),
            Placed::Pinned(proplet) => {
                let free = self.proplets.is_alive(proplet) && Some(proplet) != but;
                free.then(|| proplet.clone())
            }
            Placed::Everywhere => None,
        };
        let Some(on) = on else { return };
        let again = self.change(id, now, out, |task| task.rerun(on, now));
        assert!(again.is_ok(), "a waiting task can run again");
        self.send(id, out);
    }

    /// A proplet has come (back): what waited for it runs there.
    pub(crate) fn rerun_waiting_for(
        &mut self,
        proplet: &PropletId,
        now: Timestamp,
        out: &mut Acts,
    ) {
        for id in self.tasks.waiting_for(proplet) {
            self.rerun(&id, None, now, out);
        }
    }
}
