"""A small MQTT 5 client: connect, subscribe, publish at QoS 1 with user properties, take what comes.

One call at a time, no threads, no reconnect: a gateway that loses its broker cannot keep its promise, and says so.
"""

import socket
import struct
import time

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT = 1, 2, 3, 4, 8, 9, 10, 11, 14
USER_PROPERTY = 0x26

# Properties of a PUBLISH by the shape of their values.
_SIZES = {0x01: 1, 0x02: 4, 0x0B: None, 0x23: 2}
_TEXTS = {0x03, 0x08, 0x09}


class Message:
    def __init__(self, topic: str, payload: bytes, retain: bool, properties: dict):
        self.topic, self.payload, self.retain, self.properties = topic, payload, retain, properties
        self.arrived = time.monotonic()


class MqttError(Exception):
    pass


class Client:
    """One connection with a clean session."""

    def __init__(self, host: str, port: int, client_id: str, timeout_s: float = 10.0):
        self._socket = socket.create_connection((host, port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reads = self._socket.makefile("rb")
        self._packet = 0
        self._unacked = set()
        self._messages = []
        # Version 5, clean start, no keep-alive: this side may be still for as long as virtual time is.
        body = _text("MQTT") + bytes([5, 0b10, 0, 0]) + b"\x00" + _text(client_id)
        self._send(CONNECT, 0, body)
        kind, _, body = self._read()
        if kind != CONNACK or body[1] != 0:
            raise MqttError(f"the broker refuses the connection: {kind} {body[:2].hex()}")

    def close(self) -> None:
        try:
            self._send(DISCONNECT, 0, b"")
        except OSError:
            pass  # It is closed either way.
        self._reads.close()
        self._socket.close()

    def subscribe(self, topic_filter: str) -> None:
        """At QoS 1; returns when the broker has granted it."""
        body = self._next() + b"\x00" + _text(topic_filter) + b"\x01"
        self._send(SUBSCRIBE, 0b0010, body)
        reply = self._wait_for(SUBACK)
        if reply[-1] > 2:
            raise MqttError(f"the broker refuses filter {topic_filter!r}: {reply[-1]:#x}")

    def unsubscribe(self, topic_filter: str) -> None:
        self._send(UNSUBSCRIBE, 0b0010, self._next() + b"\x00" + _text(topic_filter))
        self._wait_for(UNSUBACK)

    def publish(self, topic: str, payload: bytes, retain: bool, properties: dict) -> None:
        """At QoS 1; `flush` waits for the acknowledgements."""
        packet = self._next()
        self._unacked.add(packet)
        pairs = b"".join(bytes([USER_PROPERTY]) + _text(key) + _text(value) for key, value in properties.items())
        body = _text(topic) + packet + _number(len(pairs)) + pairs + payload
        self._send(PUBLISH, 0b0010 | int(retain), body)

    def flush(self) -> None:
        while self._unacked:
            self._take()

    def messages_until(self, topic: str) -> list:
        """All messages that come before one on this topic, which is not among them."""
        while True:
            for index, message in enumerate(self._messages):
                if message.topic == topic:
                    before, self._messages = self._messages[:index], self._messages[index + 1 :]
                    return before
            self._take()

    def _wait_for(self, wanted: int) -> bytes:
        while True:
            kind, body = self._take()
            if kind == wanted:
                return body

    def _take(self):
        """Reads one packet, and keeps what it brings."""
        kind, flags, body = self._read()
        if kind == PUBACK:
            self._unacked.discard(body[:2])
        elif kind == PUBLISH:
            self._messages.append(self._message(flags, body))
        elif kind == DISCONNECT:
            raise MqttError(f"the broker disconnects: {body[:1].hex() or 'no reason'}")
        return kind, body

    def _message(self, flags: int, body: bytes) -> Message:
        topic, at = _read_text(body, 0)
        if flags & 0b0110:
            self._send(PUBACK, 0, body[at : at + 2])
            at += 2
        length, at = _read_number(body, at)
        end, properties = at + length, {}
        while at < end:
            key, at = body[at], at + 1
            if key == USER_PROPERTY:
                name, at = _read_text(body, at)
                properties[name], at = _read_text(body, at)
            elif key in _TEXTS:
                _, at = _read_text(body, at)
            elif _SIZES.get(key) is not None:
                at += _SIZES[key]
            elif key in _SIZES:
                _, at = _read_number(body, at)
            else:
                raise MqttError(f"a message on {topic!r} has the unknown property {key:#x}")
        return Message(topic, body[end:], bool(flags & 1), properties)

    def _next(self) -> bytes:
        self._packet = self._packet % 0xFFFF + 1
        return struct.pack(">H", self._packet)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.sendall(bytes([kind << 4 | flags]) + _number(len(body)) + body)

    def _read(self):
        first = self._exactly(1)[0]
        length, shift = 0, 0
        while True:
            byte = self._exactly(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return first >> 4, first & 0xF, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        read = self._reads.read(count)
        if len(read) != count:
            raise MqttError("the broker has closed the connection")
        return read


def _number(value: int) -> bytes:
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _read_number(body: bytes, at: int):
    value, shift = 0, 0
    while True:
        byte, at = body[at], at + 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded


def _read_text(body: bytes, at: int):
    (length,) = struct.unpack_from(">H", body, at)
    return body[at + 2 : at + 2 + length].decode(), at + 2 + length
