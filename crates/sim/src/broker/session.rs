//! One client at the broker: what waits for it, and what is under way to it.

use std::{collections::VecDeque, sync::Arc};

use super::{Answer, Message, Outbound, Weather};

/// How a session is served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Messages that may be under way at once.
    pub(super) window: usize,
    pub(super) weather: Weather,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    exists: bool,
    conn: Option<u32>,
    /// When the last connection was lost, as far as the broker knows.
    lost_us: u64,
    /// Made when something has to wait.
    waiting: Option<Box<Waiting>>,
    /// In the order of their numbers, without gaps.
    flights: VecDeque<Flight>,
    next_pid: u64,
    /// When this session is looked at again; one look serves all that waits.
    look_us: Option<u64>,
}

/// Messages, and whether they were sent before.
type Waiting = VecDeque<(Arc<Message>, bool)>;

#[derive(Debug)]
struct Flight {
    pid: u64,
    /// To be sent again, where that can become necessary.
    message: Option<Arc<Message>>,
    /// When the client's acknowledgement is here; it has not been sent, if nothing is said.
    acked_us: Option<u64>,
}

impl Session {
    pub(super) const fn conn(&self) -> Option<u32> {
        self.conn
    }

    pub(super) const fn lost_us(&self) -> u64 {
        self.lost_us
    }

    /// Forgets everything but when it ended.
    pub(super) fn wipe(&mut self) {
        *self = Self { lost_us: self.lost_us, ..Self::default() };
    }

    pub(super) const fn connect(&mut self, conn: u32) -> bool {
        self.conn = Some(conn);
        std::mem::replace(&mut self.exists, true)
    }

    /// What was not acknowledged waits again, before everything else.
    pub(super) fn lose(&mut self, conn: u32, now_us: u64) {
        if self.conn != Some(conn) {
            return;
        }
        self.conn = None;
        self.lost_us = now_us;
        while let Some(flight) = self.flights.pop_back() {
            if flight.acked_us.is_none_or(|acked| acked > now_us) {
                // In calm weather only an empty battery ends a connection, and that for good.
                let Some(message) = flight.message else { continue };
                self.waiting.get_or_insert_default().push_front((message, true));
            }
        }
    }

    /// Whether there was room.
    pub(super) fn push(&mut self, message: &Arc<Message>, queued_max: usize) -> bool {
        let waiting = self.waiting.get_or_insert_default();
        let room = waiting.len() < queued_max;
        if room {
            if waiting.is_empty() {
                waiting.reserve_exact(1);
            }
            waiting.push_back((Arc::clone(message), false));
        }
        room
    }

    pub(super) fn pump(&mut self, to: u32, rules: Rules, now_us: u64, answer: &mut Answer) {
        self.look_us = self.look_us.filter(|at| *at > now_us);
        let Some(conn) = self.conn else { return };
        self.land(now_us);
        while self.flights.len() < rules.window {
            let next = self.waiting.as_mut().and_then(|waiting| waiting.pop_front());
            let Some((message, duplicate)) = next else {
                // An empty list still holds the memory of what waited in it.
                self.waiting = None;
                return;
            };
            let pid = self.next_pid;
            self.next_pid += 1;
            self.fly(pid, &message, rules);
            answer.sends.push(Outbound { to, conn, pid, message, duplicate });
        }
        if self.does_wait()
            && let Some(at) = self.flights.front().and_then(|flight| flight.acked_us)
        {
            answer.pumps.extend(self.look_at(at).map(|at| (to, at)));
        }
    }

    /// Sends a message for which nothing has to wait, if there is room under way. It goes the way
    /// of all others, which is longer.
    pub(super) fn send(
        &mut self,
        (to, message): (u32, &Arc<Message>),
        rules: Rules,
        now_us: u64,
        answer: &mut Answer,
    ) -> bool {
        let Some(conn) = self.conn.filter(|_| !self.does_wait()) else { return false };
        self.land(now_us);
        if self.flights.len() >= rules.window {
            return false;
        }
        self.look_us = self.look_us.filter(|at| *at > now_us);
        let pid = self.next_pid;
        self.next_pid += 1;
        self.fly(pid, message, rules);
        let message = Arc::clone(message);
        answer.sends.push(Outbound { to, conn, pid, message, duplicate: false });
        true
    }

    fn does_wait(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.is_empty())
    }

    fn fly(&mut self, pid: u64, message: &Arc<Message>, rules: Rules) {
        let again = match rules.weather {
            Weather::Calm => None,
            Weather::Rough => Some(Arc::clone(message)),
        };
        if self.flights.is_empty() {
            self.flights.reserve_exact(1);
        }
        self.flights.push_back(Flight { pid, message: again, acked_us: None });
    }

    /// What was acknowledged by now is no longer under way.
    fn land(&mut self, now_us: u64) {
        while self.flights.front().is_some_and(|it| it.acked_us.is_some_and(|at| at <= now_us)) {
            self.flights.pop_front();
        }
    }

    /// When to look again, if nobody is going to look by then.
    fn look_at(&mut self, at_us: u64) -> Option<u64> {
        if self.look_us.is_some_and(|look_us| look_us <= at_us) {
            return None;
        }
        self.look_us = Some(at_us);
        Some(at_us)
    }

    /// When to look again, if something waits for this.
    pub(super) fn acknowledge(&mut self, conn: u32, pid: u64, at_us: u64) -> Option<u64> {
        if self.conn != Some(conn) {
            return None;
        }
        let first = self.flights.front()?.pid;
        let place = usize::try_from(pid.checked_sub(first)?).ok()?;
        self.flights.get_mut(place)?.acked_us = Some(at_us);
        if place == 0 && self.does_wait() { self.look_at(at_us) } else { None }
    }
}
