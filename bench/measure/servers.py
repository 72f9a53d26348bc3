"""MongoDB, Postgres and Kafka: their processes, the databases of the bench, and whether target and source say the same."""
from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pymongo
from bson import ObjectId

from process import Failure, cpu_of

CENTS = {"$round": [{"$multiply": ["$amount", 100]}]}

# The same sums on both sides; whole numbers throughout, so that they can be compared to the last digit.
SOURCE = {
    "flat": [{"$group": {
        "_id": None, "rows": {"$sum": 1}, "cents": {"$sum": CENTS}, "quantity": {"$sum": "$quantity"},
        "active": {"$sum": {"$cond": ["$active", 1, 0]}}, "updated": {"$sum": {"$toLong": "$updatedAt"}},
        "created": {"$sum": {"$toLong": "$createdAt"}}, "owners": {"$sum": {"$cond": ["$owner", 1, 0]}},
        "text": {"$sum": {"$add": [{"$strLenCP": f"${f}"} for f in ("name", "email", "status", "city", "note")]}},
    }}],
    "two": [{"$group": {
        "_id": None, "rows": {"$sum": 1}, "cents": {"$sum": {"$round": [{"$multiply": ["$total", 100]}]}},
        "created": {"$sum": {"$toLong": "$createdAt"}}, "items": {"$sum": {"$size": "$items"}},
        "qty": {"$sum": {"$sum": "$items.qty"}},
        "text": {"$sum": {"$add": [{"$strLenCP": f"${f}"} for f in ("number", "customer", "status", "note")]}},
    }}],
}
TARGET = {
    "flat": """
        select count(*) as rows, sum(amount * 100) as cents, sum(quantity) as quantity,
               count(*) filter (where active) as active, sum(extract(epoch from updated_at) * 1000) as updated,
               sum(extract(epoch from created_at) * 1000) as created, count(owner_id) as owners,
               sum(length(name) + length(email) + length(status) + length(city) + length(note)) as text
        from flat""",
    "two": """
        select count(*) as rows, sum(total * 100) as cents, sum(extract(epoch from created_at) * 1000) as created,
               (select count(*) from two_items i join two p on p.id = i.two_id) as items,
               (select sum(qty) from two_items) as qty,
               sum(length(number) + length(customer) + length(status) + length(note)) as text
        from two""",
}


class Servers:
    """The servers, and what they have used so far."""

    def __init__(self, kafka: bool = False):
        self.mongodb = pymongo.MongoClient(os.environ["SLACKWATER_MONGODB_URI"])
        self.url = os.environ["SLACKWATER_POSTGRES_URL"]
        self.postgres = psycopg.connect(self.url, autocommit=True)
        status = self.mongodb.admin.command("serverStatus")
        self.mongod = local(int(status["pid"]), "mongod")
        backend = self.postgres.execute("select pg_backend_pid()").fetchone()[0]
        self.postmaster = parent(backend)
        self.broker = listening(os.environ["SLACKWATER_KAFKA_BROKERS"], "java") if kafka else None
        if kafka and not self.broker:
            raise Failure("Kafka must run on this machine, as the same user or for root")
        self.versions = {"mongodb": status["version"],
                         "postgres": self.postgres.execute("show server_version").fetchone()[0]}

    def cpu(self) -> dict[str, float]:
        """CPU seconds since their start, of the servers that run on this machine."""
        used = {}
        if self.mongod:
            used["mongod"] = cpu_of(self.mongod)
        if self.postmaster:
            used["postgres"] = cpu_of(self.postmaster, children=True)
            tasks = Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children").read_text().split()
            for child in tasks:
                try:
                    used["postgres"] += cpu_of(int(child))
                except OSError:
                    pass  # it ended meanwhile: its parent counts it from the next time on
        if self.broker:
            used["broker"] = cpu_of(self.broker)
        return used

    def quiet(self) -> None:
        """What one candidate left to be written is not the next one's cost."""
        self.postgres.execute("checkpoint")

    # --- databases of the target ---------------------------------------------------------------

    def url_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    def create(self, database: str, tables: Path) -> None:
        self.drop(database)
        self.postgres.execute(f"create database {database}")
        with psycopg.connect(self.url_of(database)) as connection:
            connection.execute(tables.read_text())

    def drop(self, database: str) -> None:
        self.postgres.execute(f"drop database if exists {database} with (force)")

    def keep(self, database: str, name: str, table: str = "flat") -> None:
        """Makes the database one to copy from. The index finds the markers without a scan; it holds only them."""
        with psycopg.connect(self.url_of(database), autocommit=True) as connection:
            connection.execute(f"create index flat_marker on {table} (name) where name = 'marker'")
            connection.execute("vacuum analyze")
        self.drop(name)
        self.postgres.execute(f"alter database {database} rename to {name}")

    def copy(self, name: str, database: str) -> None:
        self.drop(database)
        self.postgres.execute(f"create database {database} template {name} strategy file_copy")

    # --- how far a candidate is ------------------------------------------------------------------

    def mark(self, database: str, count: int) -> None:
        """More markers behind the last change. A log has partitions, and each of them is done at its own time: with so
        many markers there is one in each, whatever way a candidate spreads keys over them."""
        flat = self.mongodb[database]["flat"]
        marker = flat.find_one({"name": "marker"})
        last = int.from_bytes(marker["_id"].binary, "big")
        flat.insert_many([{**marker, "_id": ObjectId((last - more).to_bytes(12, "big"))}
                          for more in range(1, count + 1)])

    def markers(self, database: str, count: int):
        """A function that tells when the last changes had arrived."""
        connection = psycopg.connect(self.url_of(database), autocommit=True)
        cursor = connection.cursor()

        def arrived():
            asked = time.monotonic()
            found = cursor.execute("select count(*) from flat where name = 'marker'", prepare=True).fetchone()[0]
            return asked if found >= count else None
        return arrived, connection

    def rows(self, database: str, tables: dict[str, int], size: int | None):
        """A function that tells when all rows had arrived. Counting is costly: it starts once the tables are nearly
        as large as those of another candidate were (`size`), or else seldom."""
        connection = psycopg.connect(self.url_of(database), autocommit=True)
        cursor = connection.cursor()
        cursor.execute("set max_parallel_workers_per_gather = 0")
        left, rest = dict(tables), 0.0

        def arrived():
            nonlocal rest
            if size and total_size(cursor, tables) < size * 0.985 or time.monotonic() < rest:
                return None
            asked = time.monotonic()
            for table, expected in list(left.items()):
                if cursor.execute(f"select count(*) from {table}").fetchone()[0] < expected:
                    rest = time.monotonic() + (time.monotonic() - asked) * (2 if size else 8)
                    return None
                left.pop(table)
            return asked
        return arrived, connection

    def size(self, database: str, tables) -> int:
        with psycopg.connect(self.url_of(database)) as connection:
            return total_size(connection.cursor(), tables)

    # --- the proof -------------------------------------------------------------------------------

    def source_sums(self, database: str, shape: str) -> dict[str, int]:
        row = next(self.mongodb[database][shape].aggregate(SOURCE[shape]))
        return {name: int(value) for name, value in row.items() if name != "_id"}

    def target_sums(self, database: str, shape: str) -> dict[str, int]:
        with psycopg.connect(self.url_of(database)) as connection:
            cursor = connection.execute(TARGET[shape])
            return {c.name: int(v or 0) for c, v in zip(cursor.description, cursor.fetchone())}


def total_size(cursor, tables) -> int:
    return sum(cursor.execute("select pg_relation_size(%s::regclass)", [t]).fetchone()[0] for t in tables)


def local(pid: int, name: str) -> int | None:
    """The pid, when it is that of a process on this machine."""
    try:
        return pid if Path(f"/proc/{pid}/comm").read_text().strip().startswith(name) else None
    except OSError:
        return None


def listening(address: str, name: str) -> int | None:
    """The process on this machine that listens at the (first) host:port, when it has this name."""
    port = int(address.split(",")[0].rpartition(":")[2])
    sockets = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if sockets & {os.readlink(each) for each in folder.iterdir()}:
                return local(int(folder.parent.name), name)
    return None


def parent(pid: int) -> int | None:
    if not local(pid, "postgres"):
        return None
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
