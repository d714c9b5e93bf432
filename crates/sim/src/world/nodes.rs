//! Every node by its number: the services, and the crowd of all others, which can be taken out to
//! be run on its own.

use std::ops::{Index, IndexMut};

use super::{Node, build::FIRST};

/// Nodes by number.
#[derive(Debug)]
pub(super) struct Nodes {
    services: Vec<Node>,
    crowd: Vec<Node>,
}

impl Nodes {
    pub(super) fn new(services: Vec<Node>, crowd: Vec<Node>) -> Self {
        assert_eq!(services.len(), FIRST as usize, "every service has its place");
        Self { services, crowd }
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        FIRST as usize + self.crowd.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.services.iter().chain(&self.crowd)
    }

    /// The crowd alone; this keeps the services.
    pub(super) fn take_crowd(&mut self) -> Self {
        Self { services: vec![], crowd: std::mem::take(&mut self.crowd) }
    }

    /// Takes the crowd back.
    pub(super) fn join(&mut self, crowd: &mut Self) {
        self.crowd = std::mem::take(&mut crowd.crowd);
    }
}

impl Index<u32> for Nodes {
    type Output = Node;

    fn index(&self, node: u32) -> &Node {
        match node.checked_sub(FIRST) {
            Some(place) => &self.crowd[place as usize],
            None => &self.services[node as usize],
        }
    }
}

impl IndexMut<u32> for Nodes {
    fn index_mut(&mut self, node: u32) -> &mut Node {
        match node.checked_sub(FIRST) {
            Some(place) => &mut self.crowd[place as usize],
            None => &mut self.services[node as usize],
        }
    }
}
