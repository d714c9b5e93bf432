"""What a node will send later: work that takes virtual time."""

import heapq

from .wire import NEVER_US, Event


class Agenda:
    """Events by the time at which they happen; equal times in the order in which they were put in."""

    def __init__(self):
        self._events = []
        self._count = 0

    def put(self, time_us: int, event: Event) -> None:
        event.time_us = time_us
        heapq.heappush(self._events, (time_us, self._count, event))
        self._count += 1

    def take_until(self, to_us: int) -> list:
        """Takes out what happens up to a time."""
        due = []
        while self._events and self._events[0][0] <= to_us:
            due.append(heapq.heappop(self._events)[2])
        return due

    @property
    def next_us(self) -> int:
        """When the next event happens; `NEVER_US` where there is none, since then only others can wake the node."""
        return self._events[0][0] if self._events else NEVER_US
