//! What is held of the tasks that have a slot: few, so they stand in one sorted list, which takes
//! no more memory than they need.

use protocol::TaskId;

/// Values by task, in the order of the tasks' ids.
#[derive(Debug)]
pub(crate) struct Slots<V>(Vec<(TaskId, V)>);

impl<V> Slots<V> {
    pub(crate) const fn new() -> Self {
        Self(vec![])
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, task: &TaskId) -> Option<&V> {
        self.place(task).ok().map(|place| &self.0[place].1)
    }

    pub(crate) fn get_mut(&mut self, task: &TaskId) -> Option<&mut V> {
        self.place(task).ok().map(|place| &mut self.0[place].1)
    }

    /// Takes the place of what was there.
    pub(crate) fn insert(&mut self, task: TaskId, value: V) {
        match self.place(&task) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(place, (task, value));
            }
        }
    }

    pub(crate) fn remove(&mut self, task: &TaskId) -> Option<V> {
        let removed = self.place(task).ok().map(|place| self.0.remove(place).1);
        if self.0.is_empty() {
            self.0 = vec![];
        }
        removed
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TaskId, &V)> {
        self.0.iter().map(|(task, value)| (task, value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    fn place(&self, task: &TaskId) -> Result<usize, usize> {
        self.0.binary_search_by(|(held, _)| held.cmp(task))
    }
}
