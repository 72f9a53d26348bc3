"""The few requests of Kafka's protocol that scripts here need: what there is, make and remove topics, where they end.

In versions that every broker since 2.1 takes, over plain TCP: for development.
"""
from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass, field

METADATA, OFFSETS, CREATE, DELETE = (3, 4), (2, 1), (19, 2), (20, 1)  # the requests and their versions
CLIENT = b"slackwater"
LIMIT = 30  # seconds
MISSING, THERE = 3, 36  # of the errors: no such topic, topic exists
MOVING = (3, 5, 6)  # a topic that was just made or whose leader changes


class Refused(Exception):
    """The broker answered with an error, or with something that is not an answer."""


@dataclass
class Cluster:
    brokers: dict[int, tuple[str, int]] = field(default_factory=dict)  # node: where it listens
    topics: dict[str, dict[int, int]] = field(default_factory=dict)  # name: {partition: node that leads it}


def cluster(servers: str) -> Cluster:
    """The brokers and topics that there are."""
    answer = _first(servers, METADATA, struct.pack(">i?", -1, False))
    found = Cluster()
    answer.int32()  # how long we are held back
    for _ in range(answer.int32()):
        node, host, port, _rack = answer.int32(), answer.text(), answer.int32(), answer.text()
        found.brokers[node] = (host, port)
    answer.text(), answer.int32()  # the cluster's id, the controller
    for _ in range(answer.int32()):
        error, name, _internal = answer.int16(), answer.text(), answer.take(1)
        partitions = {}
        for _ in range(answer.int32()):
            _error, number, leader = answer.int16(), answer.int32(), answer.int32()
            for _ in range(2):  # replicas, and those in sync
                answer.take(4 * answer.int32())
            partitions[number] = leader
        if not error:
            found.topics[name] = partitions
    return found


def ends(servers: str, topic: str) -> dict[int, int]:
    """The offset that each partition's next record will have."""
    there = cluster(servers)
    if topic not in there.topics:
        raise Refused(f"there is no topic {topic}")
    return {number: _end(servers, topic, number) for number in there.topics[topic]}


def _end(servers: str, topic: str, number: int) -> int:
    body = struct.pack(">ii", -1, 1) + _text(topic) + struct.pack(">iiq", 1, number, -1)
    until = time.monotonic() + LIMIT
    while True:
        there = cluster(servers)
        leader = there.brokers.get(there.topics.get(topic, {}).get(number, -1))
        if leader:
            with _connected(leader) as broker:
                answer = _ask(broker, OFFSETS, body)
            answer.int32(), answer.text(), answer.int32(), answer.int32()
            error, _time, offset = answer.int16(), answer.int64(), answer.int64()
            if not error:
                return offset
        if time.monotonic() > until or leader and error not in MOVING:
            raise Refused(f"the end of partition {number} of {topic}: " + (f"error {error}" if leader else "no leader"))
        time.sleep(0.1)


def create(servers: str, topics: list[str], partitions: int, settings: dict[str, str] | None = None) -> None:
    """Makes topics with one copy of each partition."""
    wanted = [_text(name) + struct.pack(">ihii", partitions, 1, 0, len(settings or {})) +
              b"".join(_text(k) + _text(v) for k, v in (settings or {}).items()) for name in topics]
    body = struct.pack(">i", len(topics)) + b"".join(wanted) + struct.pack(">i?", LIMIT * 1000, False)
    answer = _first(servers, CREATE, body)
    answer.int32()
    for _ in range(answer.int32()):
        name, error, said = answer.text(), answer.int16(), answer.text()
        if error not in (0, THERE):
            raise Refused(f"topic {name}: {said or f'error {error}'}")


def delete(servers: str, topics: list[str]) -> None:
    """Removes topics; that one is not there is fine."""
    if not topics:
        return
    body = struct.pack(">i", len(topics)) + b"".join(map(_text, topics)) + struct.pack(">i", LIMIT * 1000)
    answer = _first(servers, DELETE, body)
    answer.int32()
    for _ in range(answer.int32()):
        name, error = answer.text(), answer.int16()
        if error not in (0, MISSING):
            raise Refused(f"topic {name} cannot be removed: error {error}")


class _Answer:
    """What a broker said, taken apart from its beginning."""

    def __init__(self, raw: bytes):
        self.raw, self.at = raw, 0

    def take(self, count: int) -> bytes:
        part = self.raw[self.at:self.at + max(0, count)]
        if len(part) < count:
            raise Refused("an answer that ends too early")
        self.at += len(part)
        return part

    def int16(self) -> int:
        return struct.unpack(">h", self.take(2))[0]

    def int32(self) -> int:
        return struct.unpack(">i", self.take(4))[0]

    def int64(self) -> int:
        return struct.unpack(">q", self.take(8))[0]

    def text(self) -> str:
        return self.take(self.int16()).decode()  # no text at all has the length -1


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack(">h", len(raw)) + raw


@contextlib.contextmanager
def _connected(place: tuple[str, int]):
    with socket.create_connection(place, LIMIT) as broker:
        yield broker


def _first(servers: str, kind: tuple[int, int], body: bytes) -> _Answer:
    """Asks the first broker of the list that can be reached: any of them passes on what is another's."""
    trouble: OSError | None = None
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            with _connected((host, int(port))) as broker:
                return _ask(broker, kind, body)
        except ValueError:
            raise Refused(f"{server} is not host:port") from None
        except OSError as e:
            trouble = e
    raise trouble or Refused("no brokers are named")


def _ask(broker: socket.socket, kind: tuple[int, int], body: bytes) -> _Answer:
    head = struct.pack(">hhih", *kind, 1, len(CLIENT)) + CLIENT
    broker.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
    size = struct.unpack(">i", _receive(broker, 4))[0]
    answer = _Answer(_receive(broker, size))
    if answer.int32() != 1:
        raise Refused("not a Kafka broker")
    return answer


def _receive(broker: socket.socket, count: int) -> bytes:
    raw = b""
    while len(raw) < count:
        part = broker.recv(min(65536, count - len(raw)))
        if not part:
            raise Refused("the connection was closed: not a Kafka broker, or one that speaks TLS")
        raw += part
    return raw
