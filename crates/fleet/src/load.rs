//! What a proplet has to do: mostly one task, sometimes many.

use std::collections::BTreeSet;

use protocol::TaskId;

/// So many are held in a list, which takes no more memory than they need.
const FEW: usize = 8;

/// A set of tasks, in order.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    Few(Vec<TaskId>),
    #[expect(clippy::box_collection, reason = "most are the other kind, and there are many")]
    Many(Box<BTreeSet<TaskId>>),
}

impl Default for Load {
    fn default() -> Self {
        Self::Few(vec![])
    }
}

impl Load {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(tasks) => tasks.len(),
            Self::Many(tasks) => tasks.len(),
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<TaskId> {
        match self {
            Self::Few(tasks) => tasks.clone(),
            Self::Many(tasks) => tasks.iter().cloned().collect(),
        }
    }

    /// Whether it was not there before.
    pub(crate) fn insert(&mut self, task: TaskId) -> bool {
        match self {
            Self::Few(tasks) => match tasks.binary_search(&task) {
                Ok(_) => return false,
                Err(place) if tasks.len() < FEW => {
                    if tasks.is_empty() {
                        tasks.reserve_exact(1);
                    }
                    tasks.insert(place, task);
                }
                Err(_) => {
                    let mut many: BTreeSet<_> = std::mem::take(tasks).into_iter().collect();
                    many.insert(task);
                    *self = Self::Many(Box::new(many));
                }
            },
            Self::Many(tasks) => return tasks.insert(task),
        }
        true
    }

    /// Whether it was there before. What is empty holds no memory.
    pub(crate) fn remove(&mut self, task: &TaskId) -> bool {
        let removed = match self {
            Self::Few(tasks) => {
                let place = tasks.binary_search(task);
                place.map(|place| tasks.remove(place)).is_ok()
            }
            Self::Many(tasks) => tasks.remove(task),
        };
        if self.len() == 0 {
            *self = Self::default();
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_one_set() {
        let id = |n: usize| format!("{:03}", n * 37 % 101).parse::<TaskId>().unwrap();
        let (mut load, mut model) = (Load::default(), BTreeSet::new());
        for n in (0..40).chain(0..3) {
            assert_eq!(load.insert(id(n)), model.insert(id(n)));
            assert_eq!(load.len(), model.len());
            assert!(load.to_vec().iter().eq(&model));
        }
        for n in (0..40).rev().chain(0..3) {
            assert_eq!(load.remove(&id(n)), model.remove(&id(n)));
            assert!(load.to_vec().iter().eq(&model));
        }
        assert!(matches!(load, Load::Few(tasks) if tasks.capacity() == 0));
    }
}
