"""A node as xEdgeSim has them: it speaks the plain dialect, over its pipes, or on the port in its first argument.

As a `sensor` it sends a `sample` to `gateway` every 100 ms; as a `gateway` it answers each with an `ack`. A sensor also
tells nobody in particular that it has `measured`, and says that without a destination.
"""
import json
import random
import socket
import sys

EVERY_US = 100_000
PIPES = ("timestamp_us", "event_type", "source", "destination")
TCP = ("time_us", "type", "src", "dst")


class Node:
    def __init__(self, lines, out, words):
        self.lines, self.out, self.words = lines, out, words
        self.name, self.config, self.dice, self.due_us = "", {}, None, EVERY_US

    def event(self, time_us, kind, to, payload):
        event = dict(zip(self.words, (time_us, kind, self.name, to)))
        if to is None:
            del event[self.words[3]]
        event["payload"] = payload
        if self.words is TCP:
            event["size_bytes"] = len(json.dumps(payload))
        return event

    def advance(self, to_us, events):
        said = []
        for event in events:
            if self.config.get("type") == "gateway":
                time_us, _, source, _ = (event[word] for word in self.words)
                said.append(self.event(time_us, "ack", source, event["payload"]))
        while self.config.get("type") == "sensor" and self.due_us <= to_us:
            value = round(self.dice.gauss(20, 1), 3)
            said.append(self.event(self.due_us, "measured", None, {"value": value}))
            said.append(self.event(self.due_us, "sample", "gateway", {"value": value}))
            self.due_us += EVERY_US
        return said

    def say(self, *lines):
        self.out.write("".join(line + "\n" for line in lines))
        self.out.flush()

    def run(self):
        for line in self.lines:
            order, _, rest = line.strip().partition(" ")
            if order == "INIT":
                if not rest.startswith("{"):
                    self.name, _, rest = rest.partition(" ")
                self.config = json.loads(rest)
                self.name = self.name or self.config.get("node", "")
                self.dice = random.Random(self.config["seed"])
                self.say("READY")
            elif order == "ADVANCE":
                time, _, events = rest.partition(" ")
                events = json.loads(events or self.lines.readline() or "[]")
                self.say("DONE", json.dumps(self.advance(int(time), events)))
            elif order == "SHUTDOWN":
                return
            else:
                self.say("ERROR unknown order " + order)
                sys.exit(1)


def main():
    if len(sys.argv) < 2:
        Node(sys.stdin, sys.stdout, PIPES).run()
        return
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        connection, _ = server.accept()
    with connection, connection.makefile("rw", encoding="utf-8", newline="\n") as stream:
        Node(stream, stream, TCP).run()


if __name__ == "__main__":
    main()
