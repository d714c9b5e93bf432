"""A node that routes MQTT messages between nodes, in no virtual time.

`mqtt_subscribe {filter}`, `mqtt_unsubscribe {filter}` and `mqtt_publish {topic, payload, retain}` come in;
`mqtt_message {topic, payload, retain}` goes to each subscriber at the time of the publication.

With the setting `broker` a real MQTT 5 broker does the routing: the one at "host:port", or a Mosquitto of the run's own
("mosquitto"). Each node has a connection of its own, and every message carries its virtual time and number as user
properties. After each window a last message is sent, and every connection is read until that one comes: so all
deliveries of the window are there, and they are put into the order of their stamps, whatever the order in which the
broker sent them. Without `broker`, the node routes by itself.

With the setting `variance_us`, too, the broker is paced: a message arrives as much later in virtual time as it took in
real time, so no two runs are the same. The setting declares how much that may be; a message that takes longer is an
error.
"""

import atexit
import os
import shutil
import socket
import subprocess
import time

import mqtt5
from aileron_cosim import Agenda, Event, Start, Step, Window, run

STAMP, NUMBER = "virtual_us", "number"


class OwnRouter:
    """Subscriptions and retained messages in this process."""

    def __init__(self):
        self.filters, self.retained = {}, {}

    def subscribe(self, client, topic_filter, time_us):
        self.filters.setdefault(client, set()).add(topic_filter)
        kept = sorted(self.retained.items())
        return [(time_us, client, topic, payload, True) for topic, payload in kept if matches(topic_filter, topic)]

    def unsubscribe(self, client, topic_filter):
        self.filters.get(client, set()).discard(topic_filter)

    def publish(self, topic, payload, retain, time_us):
        if retain:
            self.retained[topic] = payload
            if not payload:
                del self.retained[topic]
        wants = [client for client, filters in sorted(self.filters.items()) if any(matches(f, topic) for f in filters)]
        return [(time_us, client, topic, payload, False) for client in wants]

    def settle(self, from_us):
        return []


class Broker:
    """A real broker as the router."""

    def __init__(self, address: str, variance_us):
        if address == "mosquitto":
            address = own_mosquitto()
        host, _, port = address.rpartition(":")
        self.variance_us, self.sent_at = variance_us, {}
        self.address = host, int(port)
        # Several runs may share a broker.
        self.run = os.urandom(6).hex()
        self.publisher = mqtt5.Client(*self.address, f"cosim-{self.run}")
        self.clients = {}
        self.count, self.windows, self.asked = 0, 0, False

    def subscribe(self, client, topic_filter, time_us):
        if client not in self.clients:
            self.clients[client] = mqtt5.Client(*self.address, f"cosim-{self.run}-{len(self.clients)}")
            self.clients[client].subscribe(self.barrier("+"))
        # What was published before must have been routed before.
        self.publisher.flush()
        self.clients[client].subscribe(topic_filter)
        self.asked = True
        return []

    def unsubscribe(self, client, topic_filter):
        self.publisher.flush()
        if client in self.clients:
            self.clients[client].unsubscribe(topic_filter)

    def publish(self, topic, payload, retain, time_us):
        self.count += 1
        stamps = {STAMP: str(time_us), NUMBER: str(self.count)}
        self.sent_at[self.count] = time.monotonic()
        self.publisher.publish(topic, payload.encode(), retain, stamps)
        self.asked = True
        return []

    def settle(self, from_us):
        """All deliveries of a window, in the order of their stamps."""
        if not self.asked:
            return []
        self.asked = False
        self.windows += 1
        last = self.barrier(str(self.windows))
        self.publisher.publish(last, b"", False, {})
        self.publisher.flush()
        sorted_by_stamp = []
        for client, connection in sorted(self.clients.items()):
            seen = set()
            for message in connection.messages_until(last):
                number = int(message.properties.get(NUMBER, 0))
                # Filters that overlap may bring a message twice.
                if number and number in seen:
                    continue
                seen.add(number)
                # What is retained from an earlier window arrives now; so does what others publish at this broker.
                time_us = max(int(message.properties.get(STAMP, 0)), from_us) + self.took_us(number, message)
                payload = message.payload.decode("utf-8", "replace")
                delivery = (time_us, client, message.topic, payload, message.retain)
                sorted_by_stamp.append(((time_us, number, client), delivery))
        self.sent_at.clear()
        return [delivery for _, delivery in sorted(sorted_by_stamp, key=lambda pair: pair[0])]

    def took_us(self, number, message) -> int:
        """How much later in virtual time a message arrives: not at all, unless the broker is paced."""
        if self.variance_us is None or number not in self.sent_at:
            return 0
        took_us = int((message.arrived - self.sent_at[number]) * 1e6)
        if took_us > self.variance_us:
            raise ValueError(f"a message on {message.topic!r} took {took_us} us, declared are {self.variance_us} us")
        return took_us

    def barrier(self, window: str) -> str:
        return f"cosim-barrier/{self.run}/{window}"


class Gateway:
    def __init__(self):
        self.router, self.agenda = OwnRouter(), Agenda()

    def init(self, start: Start) -> None:
        if start.config.get("broker"):
            self.router = Broker(start.config["broker"], start.config.get("variance_us"))

    def advance(self, window: Window) -> Step:
        deliveries = []
        for event in window.events:
            payload = event.payload if isinstance(event.payload, dict) else {}
            if event.type == "mqtt_subscribe":
                deliveries += self.router.subscribe(event.src, str(payload.get("filter", "")), event.time_us)
            elif event.type == "mqtt_unsubscribe":
                self.router.unsubscribe(event.src, str(payload.get("filter", "")))
            elif event.type == "mqtt_publish":
                topic, text = str(payload.get("topic", "")), str(payload.get("payload", ""))
                deliveries += self.router.publish(topic, text, payload.get("retain") is True, event.time_us)
        deliveries += self.router.settle(window.from_us)
        for delivery in deliveries:
            self.agenda.put(delivery[0], message(*delivery))
        return Step(self.agenda.take_until(window.to_us), self.agenda.next_us)


def own_mosquitto() -> str:
    """Starts one that only this machine reaches; it ends with the node, and the harness sees to it."""
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise FileNotFoundError("mosquitto is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Without a file of settings it listens on the loopback, and takes everybody.
    child = subprocess.Popen([program, "-p", str(port)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    atexit.register(child.kill)
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return f"127.0.0.1:{port}"
        except OSError:
            if child.poll() is not None:
                raise ChildProcessError(f"mosquitto has ended with code {child.returncode}") from None
            time.sleep(0.02)
    raise TimeoutError(f"mosquitto does not listen on port {port}")


def message(time_us, client, topic, payload, retain) -> Event:
    said = {"topic": topic, "payload": payload, "retain": retain}
    return Event("mqtt_message", dst=client, payload=said, time_us=time_us, size_bytes=len(topic) + len(payload))


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic is meant by a filter, as section 4.7 of MQTT says."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


if __name__ == "__main__":
    gateway = Gateway()
    run(gateway.advance, gateway.init)
