"""The co-simulation protocol as lines: JSON objects, and the two plain dialects of xEdgeSim.

Orders come in, answers go out; nothing here reads or writes.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Optional

LINE_BYTES_MAX = 16 << 20

JSON, PLAIN_TCP, PLAIN_STDIO = "json", "plain_tcp", "plain_stdio"

NEVER_US = (1 << 64) - 1
"""As `next_us`: this node only answers to others."""


class WireError(ValueError):
    """A line that is not what the protocol says."""


@dataclass
class Event:
    """Something that happens at one virtual time, from one node to another."""

    type: str
    dst: Optional[str] = None
    payload: Any = None
    time_us: Optional[int] = None
    src: Optional[str] = None
    size_bytes: int = 0


@dataclass
class Init:
    node: str = ""
    seed: int = 0
    config: dict = field(default_factory=dict)


@dataclass
class Advance:
    to_us: int
    events: list


class Shutdown:
    pass


def detect(line: str) -> str:
    """What the harness speaks, by its first line."""
    if line.startswith("{"):
        return JSON
    word, rest = _keyword(line)
    if word == "INIT":
        return PLAIN_STDIO if not rest or rest.startswith("{") else PLAIN_TCP
    if word in ("ADVANCE", "SHUTDOWN"):
        return PLAIN_STDIO
    raise WireError(
        f"a first line should begin with `{{`, `INIT {{` or `INIT <node> {{`, found {line[:160]!r}"
    )


class OrderReader:
    """Puts orders together from lines: the plain dialects spread one order over two."""

    def __init__(self, dialect: str):
        self._dialect = dialect
        self._begun_us = None

    def take(self, line: str):
        """Takes one line; `None` means that the order goes on."""
        if self._dialect == JSON:
            return _read_json(line)
        if self._begun_us is not None:
            to_us, self._begun_us = self._begun_us, None
            return Advance(to_us, _events(_loads(line or "[]")))
        word, rest = _keyword(line)
        if word == "INIT":
            return self._init(rest)
        if word == "ADVANCE":
            time, rest = _keyword(rest)
            if not (time.isascii() and time.isdigit()):
                raise WireError(f"`time` should be a whole number of microseconds, found {time[:160]}")
            if rest:
                return Advance(int(time), _events(_loads(rest)))
            self._begun_us = int(time)
            return None
        if word == "SHUTDOWN" and not rest:
            return Shutdown()
        raise WireError(f"expected one of INIT, ADVANCE, SHUTDOWN, found {line[:160]!r}")

    def _init(self, rest: str) -> Init:
        node = ""
        if self._dialect == PLAIN_TCP:
            node, rest = _keyword(rest)
        config = _config(_loads(rest) if rest else {})
        return Init(node, _count(config, "seed") or 0, config)


def write_ready(dialect: str) -> str:
    return '{"type":"READY","time_us":0}\n' if dialect == JSON else "READY\n"


def write_done(dialect: str, to_us: int, events: list, next_us: Optional[int]) -> str:
    listed = [_write_event(dialect, event) for event in events]
    if dialect != JSON:
        return f"DONE\n{_dumps(listed)}\n"
    done = {"type": "DONE", "time_us": to_us, "events": listed}
    if next_us is not None:
        done["next_us"] = next_us
    return _dumps(done) + "\n"


def write_error(dialect: str, message: str) -> str:
    if dialect == JSON:
        return _dumps({"type": "ERROR", "message": message}) + "\n"
    return "ERROR " + " ".join(message.splitlines()) + "\n"


def _keyword(text: str):
    word, _, rest = text.replace("\t", " ", 1).partition(" ")
    return word, rest.strip()


def _loads(text: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON ({error})") from None


def _dumps(value) -> str:
    # What is no JSON, like NaN, must fail here and not at the other side.
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _read_json(line: str):
    order = _loads(line)
    if not isinstance(order, dict):
        raise WireError(f"expected a JSON object, found {line[:160]}")
    kind = order.get("type")
    if kind == "INIT":
        config = _config(order.get("config"))
        seed = _count(order, "seed")
        node = order.get("node", "")
        if not isinstance(node, str):
            raise WireError(f"`node` should be a text, found {node!r}")
        return Init(node, seed if seed is not None else _count(config, "seed") or 0, config)
    if kind == "ADVANCE":
        to_us = _count(order, "time_us")
        if to_us is None:
            raise WireError("`time_us` is missing")
        return Advance(to_us, _events(order.get("events", [])))
    if kind == "SHUTDOWN":
        return Shutdown()
    raise WireError(f"expected one of INIT, ADVANCE, SHUTDOWN, found {str(kind)[:160]!r}")


def _config(config) -> dict:
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise WireError(f"`config` should be an object, found {str(config)[:160]}")
    return config


def _count(found: dict, *keys) -> Optional[int]:
    for key in keys:
        value = found.pop(key, None) if key != "seed" else found.get(key)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise WireError(f"`{keys[0]}` should be a whole number, 0 or more, found {value!r}")
            return value
    return None


def _word(found: dict, *keys) -> Optional[str]:
    for key in keys:
        value = found.pop(key, None)
        if value is not None:
            if not isinstance(value, str):
                raise WireError(f"`{keys[0]}` should be a text, found {str(value)[:160]}")
            return value
    return None


def _events(listed) -> list:
    if not isinstance(listed, list):
        raise WireError(f"expected a JSON list of events, found {str(listed)[:160]}")
    return [_event(index, found) for index, found in enumerate(listed)]


def _event(index: int, found) -> Event:
    if not isinstance(found, dict):
        raise WireError(f"event {index}: expected a JSON object, found {str(found)[:160]}")
    found = dict(found)
    kind = _word(found, "type", "event_type")
    if kind is None:
        raise WireError(f"event {index}: `type` is missing")
    src, dst = _word(found, "src", "source"), _word(found, "dst", "destination")
    time_us = _count(found, "time_us", "timestamp_us")
    size_bytes = _count(found, "size_bytes") or 0
    # Keys beside the payload belong to it.
    payload = found.get("payload") if set(found) <= {"payload"} else found
    return Event(kind, dst, payload, time_us, src, size_bytes)


def _write_event(dialect: str, event: Event) -> dict:
    if dialect == PLAIN_STDIO:
        named = {"timestamp_us": event.time_us, "event_type": event.type, "source": event.src,
                 "destination": event.dst, "payload": event.payload}
    else:
        named = {"time_us": event.time_us, "type": event.type, "src": event.src, "dst": event.dst,
                 "payload": event.payload, "size_bytes": event.size_bytes}
    return {key: value for key, value in named.items() if value is not None or key == "payload"}
