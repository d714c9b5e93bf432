"""A node that sends every event back, after a delay that its settings give: `delay_us`, else at once."""

from aileron_cosim import Agenda, Event, Start, Step, Window, run


class Echo:
    def __init__(self):
        self.delay_us = 0
        self.agenda = Agenda()

    def init(self, start: Start) -> None:
        self.delay_us = int(start.config.get("delay_us", 0))

    def advance(self, window: Window) -> Step:
        for event in window.events:
            echo = Event("echo", dst=event.src, payload=event.payload, size_bytes=event.size_bytes)
            self.agenda.put(event.time_us + self.delay_us, echo)
        return Step(self.agenda.take_until(window.to_us), self.agenda.next_us)


if __name__ == "__main__":
    echo = Echo()
    run(echo.advance, echo.init)
