"""The peer: Kafka Connect with Debezium's MongoDB source and its JDBC sink, tuned.

The worker runs before and after; what is measured is a pair of connectors in it, from the moment at which the source is
made. The sink waits for records by then, on topics that are there: in favour of the peer.
"""
from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

from candidates import PARTITIONS
from process import Failure, Watch, cpu_of
from servers import listening

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "dev"))
from servicelib import wire  # noqa: E402
from servicelib.worker import Trouble, Worker, jdbc  # noqa: E402

TASKS = 2  # of the sink, as there are two CPUs
BATCH = "5000"
TABLE = "documents"  # see documents.sql
LOOK = 2.0  # seconds: the worker answers with work of its own


class Debezium:
    """A source and a sink for one collection, and the topic between them."""

    def __init__(self, name: str, database: str, collection: str, target: str, start=None, images=False):
        self.worker = Worker(os.environ["SLACKWATER_CONNECT_URL"])
        self.brokers = os.environ["SLACKWATER_KAFKA_BROKERS"]
        self.pid = listening(self.worker.url.rpartition("/")[2], "java")
        if not self.pid:
            raise Failure("Kafka Connect must run on this machine, as the same user or for root")
        self.name, self.topic = name, f"{name}.{database}.{collection}"
        self.source = source(name, database, collection, start, images)
        self.sink = sink(self.topic, target)
        self.used = self.looked = 0.0
        self.watch: Watch | None = None

    def prepare(self) -> None:
        """What happens before the clock runs: the topic, and a sink that waits for what comes."""
        try:
            with told():
                wire.create(self.brokers, [self.topic], PARTITIONS)
                self.worker.make(f"{self.name}-sink", self.sink, TASKS)
        except BaseException:
            self.clear()
            raise

    # --- as measure_until wants it -------------------------------------------------------------------

    def begin(self) -> None:
        with contextlib.suppress(OSError):  # the peak of this run, not of the worker's life
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.used, self.watch = cpu_of(self.pid), Watch(self.pid)
        with told():
            self.worker.make(f"{self.name}-source", self.source, 1)

    def broken(self) -> str | None:
        if time.monotonic() < self.looked + LOOK:
            return None
        self.looked = time.monotonic()
        try:
            for part in ("source", "sink"):
                self.worker.check(f"{self.name}-{part}")
        except (Trouble, OSError) as e:
            return str(e)
        return None

    def cpu(self) -> dict[str, float]:
        return {"": cpu_of(self.pid) - self.used}

    def peaks(self) -> dict[str, int]:
        self.watch.look()
        return {"": self.watch.peak}

    def end(self) -> None:
        """A connector that is stopped has written what it had taken."""
        with told():
            for part in ("source", "sink"):
                self.worker.remove(f"{self.name}-{part}")

    def clear(self) -> None:
        if self.watch:
            self.watch.ended.set()
        for last in (self.end, lambda: remove_topics(self.name)):
            with contextlib.suppress(Failure):  # there is a better one to tell, or nothing left
                last()


def source(name, database, collection, start, images) -> dict[str, str]:
    settings = {
        "connector.class": "io.debezium.connector.mongodb.MongoDbConnector",
        "mongodb.connection.string": os.environ["SLACKWATER_MONGODB_URI"],
        "topic.prefix": name,
        "capture.scope": "database",
        "capture.target": database,
        "collection.include.list": f"{database}.{collection}",
        "capture.mode": "change_streams_update_full",
        "capture.mode.full.update.type": "post_image" if images else "lookup",
        "max.batch.size": "8192",
        "max.queue.size": "32768",
        "poll.interval.ms": "5",
        "snapshot.fetch.size": "10000",
        "snapshot.max.threads": "2",
        "extended.headers.enabled": "false",
        "producer.override.batch.size": "524288",
        "producer.override.linger.ms": "5",
        "producer.override.compression.type": "lz4",
        **converters(),
        # At the source: a sink that has to do it is slower.
        "transforms": "unwrap",
        "transforms.unwrap.type": "io.debezium.connector.mongodb.transforms.ExtractNewDocumentState",
    }
    if start:
        seconds, increment = start
        settings.update({"snapshot.mode": "no_data", "capture.start.op.time": str(seconds << 32 | increment)})
    return settings


def sink(topic, target) -> dict[str, str]:
    where = jdbc(target)
    # One statement with many rows: less work for both sides.
    where["connection.url"] += ("&" if "?" in where["connection.url"] else "?") + "reWriteBatchedInserts=true"
    return {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        **where,
        "topics": topic,
        "tasks.max": str(TASKS),
        "collection.name.format": TABLE,
        "quote.identifiers": "true",
        "insert.mode": "upsert",
        "primary.key.mode": "record_key",
        "delete.enabled": "true",
        "field.exclude.list": f"{topic}:_id",  # the key again
        "use.reduction.buffer": "true",
        "batch.size": BATCH,
        "consumer.override.max.poll.records": BATCH,
        **converters(),
    }


def converters() -> dict[str, str]:
    return {f"{part}.converter{name}": value for part in ("key", "value")
            for name, value in (("", "org.apache.kafka.connect.json.JsonConverter"), (".schemas.enable", "true"))}


def versions() -> dict[str, str]:
    with told():
        worker = Worker(os.environ["SLACKWATER_CONNECT_URL"])
        return {"connect": worker.ask("GET", "/")[1]["version"],
                "debezium": worker.plugins()["io.debezium.connector.mongodb.MongoDbConnector"]}


def remove_topics(prefix: str) -> None:
    """Removes all topics whose names begin so."""
    brokers = os.environ["SLACKWATER_KAFKA_BROKERS"]
    with told():
        wire.delete(brokers, [name for name in wire.cluster(brokers).topics if name.startswith(prefix)])


@contextlib.contextmanager
def told():
    """What goes wrong with Connect or Kafka is told as every failure of the bench is."""
    try:
        yield
    except (Trouble, wire.Refused, OSError) as e:
        raise Failure(str(e)) from None
