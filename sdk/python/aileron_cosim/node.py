"""A node's life: INIT, windows of time, SHUTDOWN.

The stream is the one that `AILERON_COSIM` names: `stdio`, `unix:<path>`, `tcp:<host>:<port>` (connect) or
`listen:<host>:<port>`.
"""

import os
import socket
import sys
from dataclasses import dataclass
from typing import Callable, Optional, Union

from . import wire
from .wire import LINE_BYTES_MAX, Event

ENDPOINT_VARIABLE = "AILERON_COSIM"


class NodeError(Exception):
    """Why a node has ended before it was told to."""


@dataclass
class Start:
    """Who the node is in this run. `node` is empty where the harness does not say."""

    node: str
    seed: int
    config: dict


@dataclass
class Window:
    """The time a node is given, and what reaches it then."""

    from_us: int
    to_us: int
    events: list


@dataclass
class Step:
    """What a node did, and when it next acts by itself (`None`: it does not know)."""

    events: list
    next_us: Optional[int] = None


Service = Callable[[Window], Union[Step, list, None]]


def run(service: Service, init: Optional[Callable[[Start], None]] = None) -> None:
    """Serves until the run ends; on an error it tells the harness, and exits with code 1."""
    try:
        _run(service, init)
    except NodeError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(service, init):
    endpoint = os.environ.get(ENDPOINT_VARIABLE, "stdio")
    kind, _, address = endpoint.partition(":")
    if kind == "stdio" and not address:
        reads, writes = sys.stdin.buffer, sys.stdout.buffer
        # What the service prints must not get between the lines.
        sys.stdout = sys.stderr
        serve(reads, writes, service, init)
        return
    try:
        stream = _connect(kind, address)
    except (OSError, ValueError) as error:
        raise NodeError(f"{ENDPOINT_VARIABLE}={endpoint!r}: {error}") from None
    with stream:
        serve(stream.makefile("rb"), stream.makefile("wb"), service, init)


def _connect(kind: str, address: str) -> socket.socket:
    if kind == "unix":
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.connect(address)
        return stream
    host, _, port = address.rpartition(":")
    if kind == "tcp":
        stream = socket.create_connection((host, int(port)))
    elif kind == "listen":
        with socket.create_server((host, int(port))) as listener:
            host, port = listener.getsockname()[:2]
            print(f"listening on {host}:{port}", file=sys.stderr, flush=True)
            stream, _ = listener.accept()
    else:
        raise ValueError("expected stdio, unix:<path>, tcp:<address> or listen:<address>")
    # One small line goes each way in turn: waiting to fill a packet would cost 40 ms a step.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def serve(reads, writes, service: Service, init: Optional[Callable[[Start], None]] = None) -> None:
    """Serves on two binary streams; what is wrong is answered with ERROR, and raised as `NodeError`."""
    node = _Node(writes, service, init)
    try:
        node.live(reads)
    except NodeError as error:
        try:
            node.say(wire.write_error(node.dialect or wire.PLAIN_STDIO, str(error)))
        except OSError:
            pass  # A harness that has gone cannot be told.
        raise


class _Node:
    def __init__(self, writes, service, init):
        self.dialect = None
        self._writes = writes
        self._service = service
        self._init = init
        self._now_us = None
        self._line = 0

    def live(self, reads) -> None:
        orders = None
        while True:
            line = self._read_line(reads)
            if line is None:
                return
            try:
                if orders is None:
                    self.dialect = wire.detect(line)
                    orders = wire.OrderReader(self.dialect)
                order = orders.take(line)
            except wire.WireError as error:
                raise NodeError(f"order {self._line} is malformed: {error}") from None
            if isinstance(order, wire.Shutdown):
                return
            if isinstance(order, wire.Init):
                self._begin(order)
            elif isinstance(order, wire.Advance):
                self._advance(order)

    def say(self, text: str) -> None:
        self._writes.write(text.encode())
        self._writes.flush()

    def _read_line(self, reads) -> Optional[str]:
        """One line without its end; `None` at the end of the orders, also within a line."""
        self._line += 1
        line = reads.readline(LINE_BYTES_MAX + 1)
        if not line.endswith(b"\n"):
            if len(line) > LINE_BYTES_MAX:
                raise NodeError(f"order {self._line} is longer than {LINE_BYTES_MAX} bytes")
            return None
        try:
            return line.decode().strip(" \t\r\n")
        except UnicodeDecodeError as error:
            raise NodeError(f"order {self._line} is malformed: not UTF-8 ({error})") from None

    def _begin(self, order: wire.Init) -> None:
        if self._now_us is not None:
            raise NodeError(f"order {self._line}: a second INIT")
        if self._init is not None:
            self._call(self._init, Start(order.node, order.seed, order.config))
        self._now_us = 0
        self.say(wire.write_ready(self.dialect))

    def _advance(self, order: wire.Advance) -> None:
        at, from_us, to_us = f"order {self._line}", self._now_us, order.to_us
        if from_us is None:
            raise NodeError(f"{at}: ADVANCE before INIT")
        if to_us < from_us:
            raise NodeError(f"{at}: time cannot go back from {from_us} us to {to_us} us")
        window = f"outside of its window, {from_us} to {to_us} us"
        for event in order.events:
            if event.time_us is None or not from_us <= event.time_us <= to_us:
                raise NodeError(f"{at}: event {event.type!r} at {event.time_us} us is {window}")
        step = self._call(self._service, Window(from_us, to_us, order.events))
        if not isinstance(step, Step):
            step = Step(list(step or []))
        for event in step.events:
            if event.time_us is not None and not from_us <= event.time_us <= to_us:
                raise NodeError(f"{at}: the service would send {event.type!r} at {event.time_us} us, {window}")
        self._now_us = to_us
        try:
            answer = wire.write_done(self.dialect, to_us, step.events, step.next_us)
        except (TypeError, ValueError) as error:
            raise NodeError(f"{at}: the service's events are no JSON: {error}") from None
        self.say(answer)

    def _call(self, part, argument):
        try:
            return part(argument)
        except Exception as error:  # Whatever a service raises, the harness is told.
            raise NodeError(f"order {self._line}: the service failed: {type(error).__name__}: {error}") from error
