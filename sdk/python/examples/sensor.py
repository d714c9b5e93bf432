"""A node that senses: at even times it has a digit classified, and publishes what came of it by MQTT.

It asks `classifier` for each digit (`inference_request {input}`), and publishes every answer on `digits/{node}` at
`router`: the world's own broker, a gateway node, or a real broker behind one. It has subscribed to that topic there,
and to `fl/models/latest` at the world's broker. What it hears is held against what it said: an answer or a message that
does not come within `deadline_us`, that comes twice or out of order, is an error, and so is an end without them.

Settings: `every_us` (250000), `count` (40), `deadline_us` (200000), `classifier`, `router` ("broker").
"""

import random
from collections import deque

from aileron_cosim import Agenda, Event, Start, Step, Window, run

BROKER = "broker"


class Sensor:
    def __init__(self):
        self.agenda = Agenda()
        self.asked, self.published = deque(), deque()
        self.answers, self.messages, self.models = 0, 0, 0

    def init(self, start: Start) -> None:
        config = start.config
        self.every_us, self.count = int(config.get("every_us", 250_000)), int(config.get("count", 40))
        self.deadline_us = int(config.get("deadline_us", 200_000))
        self.classifier, self.router = config["classifier"], config.get("router", BROKER)
        self.topic = f"digits/{start.node}"
        dice = random.Random(start.seed)
        for filter_, router in ((self.topic, self.router), ("fl/models/latest", BROKER)):
            self.agenda.put(0, Event("mqtt_subscribe", dst=router, payload={"filter": filter_}))
        for number in range(1, self.count + 1):
            pixels = [dice.randint(0, 16) / 16 for _ in range(64)]
            ask = Event("inference_request", dst=self.classifier, payload={"input": pixels}, size_bytes=64)
            self.agenda.put(number * self.every_us, ask)

    def advance(self, window: Window) -> Step:
        sent = []
        for event in window.events:
            sent += self.take(event)
        for event in self.agenda.take_until(window.to_us):
            if event.type == "inference_request":
                self.asked.append(event.time_us)
            sent.append(event)
        self.late(window.to_us)
        waiting = [times[0] + self.deadline_us + 1 for times in (self.asked, self.published) if times]
        return Step(sent, min([self.agenda.next_us, *waiting]))

    def take(self, event: Event) -> list:
        if event.type == "inference_result":
            if not self.asked or "label" not in event.payload:
                raise ValueError(f"an answer that was not asked for: {event.payload}")
            self.asked.popleft()
            self.answers += 1
            self.published.append(event.time_us)
            said = {"topic": self.topic, "payload": f"{self.answers} {event.payload['label']}"}
            return [Event("mqtt_publish", dst=self.router, payload=said, time_us=event.time_us, size_bytes=32)]
        if event.type == "mqtt_message" and event.payload["topic"] == self.topic:
            self.messages += 1
            number, label = map(int, event.payload["payload"].split())
            if number != self.messages or not 0 <= label <= 9:
                raise ValueError(f"message {self.messages} is {event.payload['payload']!r}")
            self.published.popleft()
        elif event.type == "mqtt_message":
            self.models += 1
        return []

    def late(self, now_us: int) -> None:
        for what, times in (("answer", self.asked), ("message", self.published)):
            if times and times[0] + self.deadline_us < now_us:
                raise ValueError(f"no {what} to what was sent at {times[0]} us")


if __name__ == "__main__":
    sensor = Sensor()
    run(sensor.advance, sensor.init)
