#!/usr/bin/env python3
"""Has a reader that is not ours take a topic of Debezium's format into Postgres, and says whether all arrived.

    eval "$(dev/services env)"        # after dev/services up connect
    tests/foreign/debezium_jdbc.py --topic crm.people --table people --until-rows 980 --until-deleted 6592008073

The reader is Debezium's JDBC sink in Kafka Connect: JsonConverter with schemas, then the transform
ExtractNewDocumentState, then upserts and deletes by key. It reads what the topic holds when this starts (a
writer may go on) and is ended then; the table stays. Ends with 0 when everything that is asked for holds, 1 when not,
2 when it is not asked rightly.
"""
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "dev"))

from servicelib import wire  # noqa: E402
from servicelib.worker import Trouble, Worker, jdbc  # noqa: E402

JSON = "org.apache.kafka.connect.json.JsonConverter"
# The sink says that it has failed when it is called again, with records or without: after its worker's interval of
# commits at the latest, which is a second with dev/services. There is no sign of a call that went well.
CALLED = 3.0
UNWRAP = "io.debezium.connector.mongodb.transforms.ExtractNewDocumentState"


def options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])

    def place(name, variable, help):
        parser.add_argument(name, default=os.environ.get(variable), required=variable not in os.environ,
                            help=f"{help} ({variable})")
    place("--brokers", "SLACKWATER_KAFKA_BROKERS", "host:port, with commas between")
    place("--connect", "SLACKWATER_CONNECT_URL", "the worker of Kafka Connect: dev/services up connect")
    place("--postgres", "SLACKWATER_POSTGRES_URL", "postgres:// URL of the database to write to")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--table", required=True, help="made of the records' schemas if it is not there")
    parser.add_argument("--key", default="id", help="the column that the key goes into (%(default)s)")
    parser.add_argument("--until-rows", type=int, metavar="N", help="so many rows, no more")
    parser.add_argument("--until-present", action="append", default=[], metavar="KEY", help="there is such a row")
    parser.add_argument("--until-deleted", action="append", default=[], metavar="KEY", help="there is no such row")
    parser.add_argument("--until", action="append", default=[], metavar="SQL", help="a query whose one value is true")
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="to read the topic (%(default)s)")
    parser.add_argument("--sink", action="append", default=[], metavar="NAME=VALUE", help="a setting more of the sink")
    parser.add_argument("--transform", action="append", default=[], metavar="NAME=VALUE",
                        help="a setting more of the transform, such as flatten.struct=true")
    given = parser.parse_args()
    if given.until_rows is None and not (given.until_present or given.until_deleted or given.until):
        parser.error("say what has to hold: --until-rows, --until-present, --until-deleted, --until")
    for name in ("sink", "transform"):
        pairs = [pair.partition("=") for pair in getattr(given, name)]
        if not all(sign for _, sign, _ in pairs):
            parser.error(f"--{name} NAME=VALUE")
        setattr(given, name, {key: value for key, _, value in pairs})
    return given


def settings(given) -> dict[str, str]:
    made = {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        **jdbc(given.postgres),
        "topics": given.topic,
        "tasks.max": "1",
        "consumer.override.bootstrap.servers": given.brokers,
        # The sink commits no further than the last record that came out of the transform, and tombstones do not: how
        # far it has read shows only where the consumer commits too.
        "consumer.override.enable.auto.commit": "true",
        "consumer.override.auto.commit.interval.ms": "100",
        "collection.name.format": given.table,
        "quote.identifiers": "true",
        "schema.evolution": "basic",
        "insert.mode": "upsert",
        "primary.key.mode": "record_key",
        "delete.enabled": "true",
        "transforms": "unwrap",
        "transforms.unwrap.type": UNWRAP,
    }
    for part in ("key", "value"):
        made.update({f"{part}.converter": JSON, f"{part}.converter.schemas.enable": "true"})
    made.update({f"transforms.unwrap.{name}": value for name, value in given.transform.items()})
    return {**made, **given.sink}


def read(given, ends: dict[int, int]) -> None:
    """Runs the sink until it has been given everything before these offsets; when it is stopped, that is written."""
    worker, name = Worker(given.connect), f"foreign-{uuid.uuid4().hex[:12]}"
    until, called, reached = time.monotonic() + given.limit, None, dict.fromkeys(ends, 0)
    try:
        worker.make(name, settings(given), 1)
        while True:
            worker.check(name)
            for partition, offset in worker.reached(name, given.topic).items():
                reached[partition] = max(offset, reached.get(partition, 0))  # the sink's own commit goes back
            left = sum(max(0, end - reached[partition]) for partition, end in ends.items())
            if not left:
                called = called or time.monotonic() + CALLED
                if time.monotonic() > called:
                    return
            elif time.monotonic() > until:
                raise Trouble(f"{left} of {sum(ends.values())} records are not read after {given.limit:.0f} s")
            time.sleep(0.2)
    finally:
        worker.remove(name)


def ask(given, query: str, **values: str) -> str:
    """The one value of a query; text goes in as psql's own variables do."""
    folder = os.environ.get("SLACKWATER_PG_BIN")
    psql = shutil.which("psql", path=folder) if folder else shutil.which("psql")
    if not psql:
        raise Trouble("psql is not there: set SLACKWATER_PG_BIN (dev/services env)")
    put = [part for name, value in values.items() for part in ("-v", f"{name}={value}")]
    done = subprocess.run([psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *put, given.postgres], input=query,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode:
        raise Trouble(f"Postgres refuses a query: {(done.stderr.strip().splitlines() or ['no reason'])[0]}")
    return done.stdout.strip()


def wrong(given) -> list[str]:
    """What does not hold."""
    found = []
    table = ".".join('"%s"' % part.replace('"', '""') for part in given.table.split("."))
    if given.until_rows is not None:
        rows = int(ask(given, f"select count(*) from {table}"))
        if rows != given.until_rows:
            found.append(f"{rows} rows in {given.table}, not {given.until_rows}")
    for keys, expected in ((given.until_present, "1"), (given.until_deleted, "0")):
        for key in keys:
            query = f'select count(*) from {table} where :"column"::text = :\'key\''
            rows = ask(given, query, column=given.key, key=key)
            if rows != expected:
                found.append(f"{rows} rows with key {key} in {given.table}, not {expected}")
    for query in given.until:
        if ask(given, query) != "t":
            found.append(f"not true: {query}")
    return found


def main() -> int:
    given = options()
    try:
        ends = wire.ends(given.brokers, given.topic)
        read(given, ends)
        found = wrong(given)
    except (Trouble, wire.Refused, OSError) as e:
        found = [str(e)]
    for line in found:
        print(f"debezium_jdbc: {line}", file=sys.stderr)
    if not found:
        print(f"debezium_jdbc: {sum(ends.values())} offsets of {given.topic} read; all holds")
    return 1 if found else 0


sys.exit(main())
