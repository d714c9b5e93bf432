//! Answers: questions are looked up, commands are done.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use protocol::{Entry, Output, PropletId, TaskId, Timestamp};

use super::{Answer, Ask, Census, Edit, PageOf, PropletView, Refusal, TaskFilter, TaskView};
use crate::{Spec, act::Acts, record::PROPLETS, state::State, task::Task};

impl State {
    pub(crate) fn answer(
        &mut self,
        ask: Ask,
        now: Timestamp,
        out: &mut Acts,
    ) -> Result<Answer, Refusal> {
        if let Some(answer) = self.look(&ask) {
            return answer;
        }
        match ask {
            Ask::ForgetProplet(id) => self.forget_proplet(&id, now, out),
            Ask::CreateTask { id, edit } => self.create_task(id, *edit, now, out),
            Ask::EditTask { id, edit } => self.edit_task(&id, *edit, now, out),
            Ask::Upload { id, file } => {
                let edit = Edit { file: Some(Some(file)), ..Edit::default() };
                self.edit_task(&id, edit, now, out)
            }
            Ask::DeleteTask(id) => {
                self.task(&id)?.at_rest("be deleted")?;
                self.drop_task(&id, out);
                Ok(Answer::Done)
            }
            Ask::StartTask(id) => self.start(&id, now, out).map(|()| Answer::Done),
            Ask::StopTask(id) => self.stop_task(&id, now, out),
            Ask::Census
            | Ask::Proplets(_)
            | Ask::Proplet(_)
            | Ask::Tasks { .. }
            | Ask::Task(_)
            | Ask::Results(_)
            | Ask::Metrics { .. } => unreachable!("questions were answered above"),
        }
    }

    /// The answer to a question; `None` if it is a command.
    pub(crate) fn look(&self, ask: &Ask) -> Option<Result<Answer, Refusal>> {
        let answer = match ask {
            Ask::Census => Ok(Answer::Census(self.census())),
            Ask::Proplets(page) => {
                let all = self.proplets.iter();
                Ok(Answer::Proplets(PageOf::of(*page, all, PropletView::of)))
            }
            Ask::Proplet(id) => match self.proplets.get(id) {
                Some(proplet) => Ok(Answer::Proplet(PropletView::of(proplet))),
                None => Err(Refusal::NoProplet(id.clone())),
            },
            Ask::Tasks { page, filter } => {
                let all = self.tasks.iter().filter(|task| filter.takes(task));
                Ok(Answer::Tasks(PageOf::of(*page, all, TaskView::of)))
            }
            Ask::Task(id) => self.task(id).map(|task| Answer::Task(Box::new(TaskView::of(task)))),
            Ask::Results(id) => self
                .task(id)
                .map(|task| Answer::Results(task.ended().and_then(|ended| ended.results.clone()))),
            Ask::Metrics { id, page } => self
                .task(id)
                .map(|_| Answer::Metrics(PageOf::of(*page, self.metrics.of(id), Clone::clone))),
            Ask::ForgetProplet(_)
            | Ask::CreateTask { .. }
            | Ask::EditTask { .. }
            | Ask::Upload { .. }
            | Ask::DeleteTask(_)
            | Ask::StartTask(_)
            | Ask::StopTask(_) => return None,
        };
        Some(answer)
    }

    fn task(&self, id: &TaskId) -> Result<&Task, Refusal> {
        self.tasks.get(id).ok_or_else(|| Refusal::NoTask(id.clone()))
    }

    fn census(&self) -> Census {
        let mut tasks = BTreeMap::new();
        for task in self.tasks.iter() {
            *tasks.entry(task.state()).or_insert(0) += 1;
        }
        Census {
            proplets: self.proplets.len(),
            proplets_alive: self.proplets.alive_len(),
            tasks,
            rounds: self.rounds.len(),
            files_len: self.files.len(),
            counts: self.counts,
        }
    }

    /// What waited for that proplet waits no longer.
    fn forget_proplet(
        &mut self,
        id: &PropletId,
        now: Timestamp,
        out: &mut Acts,
    ) -> Result<Answer, Refusal> {
        let known = self.proplets.get(id).ok_or_else(|| Refusal::NoProplet(id.clone()))?;
        if known.is_alive() {
            return Err(Refusal::PropletAlive(id.clone()));
        }
        for task in self.tasks.waiting_for(id) {
            if self.task(&task)?.spec.pinned() == Some(id) {
                let why = format!("proplet {id} was removed");
                self.change(&task, now, out, |task| task.cancel(&why, now))?;
            }
        }
        self.proplets.remove(id);
        out.push(Output::Keep(Entry::forget(PROPLETS, id)));
        Ok(Answer::Done)
    }

    fn create_task(
        &mut self,
        id: TaskId,
        edit: Edit,
        now: Timestamp,
        out: &mut Acts,
    ) -> Result<Answer, Refusal> {
        let max = self.limits.tasks_max;
        if self.tasks.get(&id).is_some() {
            return Err(Refusal::TaskExists(id));
        }
        if self.tasks.len() >= max {
            return Err(Refusal::TasksFull { max });
        }
        check_state(&edit, protocol::message::TaskState::Pending)?;
        let mut spec = edit.apply(Spec::named(String::new()))?;
        if let Some(Some(file)) = edit.file {
            self.check_room(&file)?;
            spec.file = Some(Box::new(self.files.take(file, out)));
        }
        let task = Task::new(id, self.tasks.seq_next(), spec, now);
        let shown = TaskView::of(&task);
        self.add(task, out);
        Ok(Answer::Task(Box::new(shown)))
    }

    fn edit_task(
        &mut self,
        id: &TaskId,
        edit: Edit,
        now: Timestamp,
        out: &mut Acts,
    ) -> Result<Answer, Refusal> {
        let task = self.task(id)?;
        task.at_rest("be changed")?;
        check_state(&edit, task.state())?;
        let before = task.spec.file();
        let mut spec = edit.apply((*task.spec).clone())?;
        if let Some(file) = edit.file {
            if let Some(bytes) = &file {
                self.check_room(bytes)?;
            }
            spec.file = file.map(|bytes| Box::new(self.files.take(bytes, out)));
            if let Some(before) = before {
                self.release_file(before, out);
            }
        }
        self.unpin(id, out);
        self.change(id, now, out, |task| {
            task.spec = Arc::new(spec);
            Ok(())
        })?;
        Ok(Answer::Task(Box::new(TaskView::of(self.task(id)?))))
    }

    fn check_room(&self, file: &Bytes) -> Result<(), Refusal> {
        let max = self.limits.files_len_max;
        if self.files.has_room(file, max) {
            return Ok(());
        }
        Err(Refusal::FilesFull { len: file.len(), held: self.files.len(), max })
    }

    fn stop_task(
        &mut self,
        id: &TaskId,
        now: Timestamp,
        out: &mut Acts,
    ) -> Result<Answer, Refusal> {
        let on = self.task(id)?.running_on();
        self.change(id, now, out, |task| task.cancel("stopped by an operator", now))?;
        self.call_back(id, on, out);
        Ok(Answer::Done)
    }
}

/// A caller may repeat the state that it was shown, not set another.
fn check_state(edit: &Edit, is: protocol::message::TaskState) -> Result<(), Refusal> {
    match edit.state {
        Some(asked) if asked != is => Err(Refusal::State { is, asked }),
        Some(_) | None => Ok(()),
    }
}

impl TaskFilter {
    fn takes(&self, task: &Task) -> bool {
        let on =
            |proplet: &PropletId| task.spec.pinned() == Some(proplet) || task.was_sent_to(proplet);
        self.state.is_none_or(|state| state == task.state())
            && self.proplet.as_ref().is_none_or(on)
            && self.name.as_ref().is_none_or(|name| *name == task.spec.name)
    }
}
