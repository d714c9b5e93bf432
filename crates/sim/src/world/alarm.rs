//! When a node is to be woken, with as few events as that takes: most alarms are for repetitions
//! that nobody will need, and behind them waits the next sign of life, an hour away.

use crate::queue::{Class, Key};

/// The alarm of one node. An event of the queue cannot be taken back; but one that stands there
/// serves any later alarm, by setting it when it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alarm {
    /// When the node is to be woken; the end of time, if not at all.
    pub(super) wake_us: u64,
    /// The first events of this alarm that stand in the queue.
    queued_us: [u64; 2],
    /// When an event is to come that was not put into the queue, and its number.
    put_off: (u64, u64),
}

impl Default for Alarm {
    fn default() -> Self {
        Self { wake_us: u64::MAX, queued_us: [u64::MAX; 2], put_off: (u64::MAX, 0) }
    }
}

impl Alarm {
    /// Is to wake the node then; the event to be put into the queue for that, if none stands there
    /// that comes before. Its place is that of the first alarm for this time.
    pub(super) fn set(&mut self, when_us: u64, node: u32, seq: u64) -> Option<Key> {
        self.wake_us = when_us;
        let (put_off_us, earlier) = self.put_off;
        let seq = if put_off_us == when_us { earlier } else { seq };
        if self.queued_us[0] <= when_us {
            self.put_off = (when_us, seq);
            return None;
        }
        Some(self.queue(Key { time_us: when_us, class: Class::Wake, source: node, seq }))
    }

    /// An event has come; the one that is to be put into the queue in its place.
    pub(super) fn rang(&mut self, now_us: u64, node: u32) -> Option<Key> {
        if self.queued_us[0] == now_us {
            self.queued_us = [self.queued_us[1], u64::MAX];
        }
        let (when_us, seq) = self.put_off;
        let is_next = self.wake_us == when_us && (now_us..self.queued_us[0]).contains(&when_us);
        if !is_next || when_us == now_us {
            return None;
        }
        Some(self.queue(Key { time_us: when_us, class: Class::Wake, source: node, seq }))
    }

    fn queue(&mut self, key: Key) -> Key {
        self.queued_us = [key.time_us, self.queued_us[0]];
        if self.put_off.0 == key.time_us {
            self.put_off = (u64::MAX, 0);
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_stands_in_the_queue_serves_a_later_alarm() {
        let mut alarm = Alarm::default();
        let times = |key: Option<Key>| key.map(|key| (key.time_us, key.seq));
        assert_eq!(times(alarm.set(100, 7, 1)), Some((100, 1)));
        assert_eq!(times(alarm.set(10, 7, 2)), Some((10, 2)));
        assert_eq!(times(alarm.rang(10, 7)), None);
        assert_eq!(alarm.wake_us, 10);
        alarm.wake_us = u64::MAX;
        // Later than what stands there, again and again: nothing more is put in.
        assert_eq!(times(alarm.set(200, 7, 3)), None);
        assert_eq!(times(alarm.set(20, 7, 4)), Some((20, 4)));
        assert_eq!(times(alarm.rang(20, 7)), None);
        alarm.wake_us = u64::MAX;
        assert_eq!(times(alarm.set(200, 7, 5)), None);
        // It comes in the place of the first alarm for its time.
        assert_eq!(times(alarm.rang(100, 7)), Some((200, 3)));
        assert_eq!(times(alarm.rang(200, 7)), None);
        assert_eq!(alarm.wake_us, 200);
    }

    #[test]
    fn an_event_that_stands_there_for_the_same_time_is_enough() {
        let mut alarm = Alarm::default();
        assert!(alarm.set(100, 7, 1).is_some());
        assert!(alarm.set(50, 7, 2).is_some());
        alarm.rang(50, 7);
        alarm.wake_us = u64::MAX;
        assert!(alarm.set(100, 7, 3).is_none());
        assert!(alarm.rang(100, 7).is_none());
        assert_eq!(alarm.wake_us, 100);
    }
}
