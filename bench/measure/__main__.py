"""One run of the bench: loads, measures in turns, checks, and tells. Started by `bench/run`."""
from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import sys
import time
import uuid
from pathlib import Path

import candidates as c
import connect
import latency
import report
from process import Failure, Programs, measure, measure_until
from servers import Servers

READY = "slackwater_bench_ready_"  # databases to copy from, by candidate
TARGET = "slackwater_bench_"  # databases to write to
CANDIDATES = ("slackwater", "kafka", "debezium", "python", "bare")
USUAL = ["slackwater", "python", "bare"]
KAFKA = ["slackwater", "kafka", "debezium"]  # the direct log, Kafka as the log, and the peer
PARTS = ["snapshot", "stream", "two"]
MARKERS = 64  # where changes go through partitions
SAME_IDS = "python_uuid5"  # writes the very ids that slackwater writes, in place of padded ObjectIds


def options():
    parser = argparse.ArgumentParser(prog="bench/run", description=(
        "Measures the snapshot and the change stream of slackwater beside a plain Python script and the bare cursor, "
        "in turns, on the same data."))
    parser.add_argument("--documents", type=int, default=1_000_000, help="documents to copy (%(default)s)")
    parser.add_argument("--changes", type=int, default=500_000, help="changes to replay (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each candidate has its turn (%(default)s)")
    parser.add_argument("--kafka", action="store_true", help=(
        "Kafka as the log beside the direct log and Debezium: the flat documents and their changes"))
    parser.add_argument("--candidates", help=(
        f"which of {','.join(CANDIDATES)} ({','.join(USUAL)}; with --kafka {','.join(KAFKA)})"))
    parser.add_argument("--parts", help=(
        f"which of {','.join(PARTS)}: the copy of flat documents, their changes, the copy into two tables (all; with "
        "--kafka the first two)"))
    parser.add_argument("--images", action="store_true", help=(
        "post-images on: events hold the document, and no candidate looks it up"))
    parser.add_argument("--latency", action="store_true", help=(
        "in place of speed: how long a change takes to be readable in Postgres"))
    parser.add_argument("--rates", default="10,1000,5000", help="with --latency: changes a second (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="with --latency: of each pace (%(default)g)")
    parser.add_argument("--silences", type=int, default=5, help="with --latency: single changes (%(default)s)")
    parser.add_argument("--silence", type=float, default=60, help="with --latency: seconds before each (%(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to FILE")
    parser.add_argument("--keep", action="store_true", help="leave the databases of the bench behind")
    given = parser.parse_args()
    given.candidates = chosen(parser, given.candidates, CANDIDATES) or (KAFKA if given.kafka else USUAL)
    given.parts = chosen(parser, given.parts, PARTS) or (PARTS[:2] if given.kafka else PARTS)
    try:
        given.rates = [float(rate) if "." in rate else int(rate) for rate in given.rates.split(",") if rate.strip()]
    except ValueError:
        parser.error("rates are numbers, such as 10,1000")
    if given.latency and not {"python", "bare"}.isdisjoint(given.candidates):
        given.candidates = [name for name in given.candidates if name not in ("python", "bare")]
    needed = 2_000 + given.silences + sum(int(rate * given.seconds) for rate in given.rates)
    if given.latency and given.documents < needed:
        parser.error(f"each change needs a document of its own: at least {needed} documents")
    if given.documents < 10_000 or given.changes < 100 or given.rounds < 1:
        parser.error("at least 10000 documents, 100 changes and 1 round")
    if given.json:
        given.json = given.json.absolute()
    return given


def chosen(parser, text, known):
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or set(names) - set(known):
        parser.error(f"choose among {','.join(known)}")
    return names


class Bench:
    def __init__(self, given):
        self.given = given
        self.servers = Servers(kafka=bool({"kafka", "debezium"} & set(given.candidates)))
        if "debezium" in given.candidates:
            self.servers.versions.update(connect.versions())
        self.logs = Path(os.environ["BENCH_CACHE"]) / "logs"
        self.runs: list[dict] = []
        self.latencies: list[dict] = []
        self.sizes: dict[str, int] = {}
        # A mark of this run in the names of topics and connectors: others may use the same Kafka.
        self.mark = f"slackwater-bench-{uuid.uuid4().hex[:8]}"

    def say(self, text):
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def turns(self, names, rounds):
        """Every candidate in every round, each time another one first."""
        for number in range(rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                yield number, name

    def note(self, part, number, name, events, figures):
        figures = {"part": part, "round": number + 1, "candidate": name, "events": events, **figures}
        figures["per_second"] = events / figures["seconds"]
        self.runs.append(figures)
        self.say(f"{part} {number + 1}/{self.given.rounds} {name}: {figures['seconds']:.1f} s, "
                 f"{figures['per_second']:,.0f} a second"
                 + (f" (others used {figures['other_cpu']:.1f} s of CPU)" if figures["other_cpu"] > 1 else ""))

    def check(self, shape, target, expected, what):
        found = self.servers.target_sums(target, shape)
        if found != expected:
            wrong = {k: (v, found.get(k)) for k, v in expected.items() if found.get(k) != v}
            raise Failure(f"{what}: source and target differ, so its speed means nothing; "
                          f"(source, target) {wrong}")

    # --- the copy ------------------------------------------------------------------------------

    def load(self, shape):
        self.say(f"loading {self.given.documents:,} documents ({shape})")
        settings = c.environment(self.servers, shape)
        c.prepared(c.ceiling(f"load-{shape}", "--documents", self.given.documents), settings)

    def snapshot(self, shape, part, names, rounds):
        expected = self.servers.source_sums(c.SOURCE[shape], shape)
        for number, name in self.turns(names, rounds):
            log = self.logs / f"{part}-{name}.log"
            if name == "bare":
                settings = c.environment(self.servers, shape)
                figures = measure(c.ceiling("find", "--collection", shape), settings, log, self.servers)
            else:
                tables = {t: expected["items" if t == "two_items" else "rows"] for t in tables_of(shape, name)}
                figures = self.copy(shape, name, number, tables, log, last=number + 1 == rounds)
                self.check(shape, TARGET + name, expected, f"{part}, {name}")
                self.sizes["/".join(tables)] = self.servers.size(TARGET + name, tables)
                if name == "kafka" and "stream" in self.given.parts:  # what the topics hold goes with these very rows
                    self.servers.keep(TARGET + name, f"{READY}{name}_{number}")
            self.note(part, number, name, expected["rows"], figures)

    def copy(self, shape, name, number, tables, log, last):
        target = TARGET + name
        self.servers.create(target, c.BENCH / ("documents.sql" if name == "debezium" else f"{shape}.sql"))
        settings = c.environment(self.servers, shape, target)
        if name.startswith("python"):
            ids = ["--uuid5"] if name == SAME_IDS else []
            return measure(c.python("snapshot.py", "--shape", shape, *ids), settings, log, self.servers)
        settle = None
        if name == "debezium":
            candidate = self.debezium(shape, f"{self.mark}-copy-{number}", target)
        elif name == "kafka":
            migration = self.kafka_file(number)
            c.topics(migration, settings)
            candidate = Programs(c.kafka(migration), settings, log)
            settle = c.settle_snapshot(migration, settings)
        else:
            candidate = Programs({name: c.slackwater("run", c.file(shape))}, settings, log)
            settle = c.settle_snapshot(c.file(shape), settings) if last else None
        arrived, connection = self.servers.rows(target, tables, self.sizes.get("/".join(tables)))
        with contextlib.closing(connection):
            return measure_until(candidate, self.servers, arrived, settle)

    def kafka_file(self, number):
        """Each round has topics of its own: what a round wrote must not be there when the next one reads."""
        return c.kafka_file("flat", f"{self.mark}-round-{number}", self.logs / f"kafka-{number}.yaml")

    def debezium(self, shape, name, target, start=None):
        made = connect.Debezium(name, c.SOURCE[shape], shape, self.servers.url_of(target), start, self.given.images)
        made.prepare()
        return made

    # --- the stream ----------------------------------------------------------------------------

    def stream(self, writers):
        """All replay the same changes, made while nobody listened, onto the same rows."""
        for name in writers:
            if name != "kafka":
                self.servers.keep(TARGET + name, READY + name, tables_of("flat", name)[0])
        self.say(f"making {self.given.changes:,} changes")
        made = c.prepared(c.ceiling("change-flat", "--documents", self.given.documents, "--changes",
                                    self.given.changes, *(["--images"] if self.given.images else [])),
                          c.environment(self.servers, "flat"))
        made["markers"] = 1
        if self.servers.broker:
            self.servers.mark(c.SOURCE["flat"], MARKERS)
            made["events"] += MARKERS
            made["markers"] += MARKERS
        start, events = ",".join(map(str, made["start"])), made["events"]
        expected = self.servers.source_sums(c.SOURCE["flat"], "flat")
        whole = "whenAvailable" if self.given.images else "updateLookup"
        bare = ["bare", "bare with documents"] if "bare" in self.given.candidates else []
        for number, name in self.turns(writers + bare, self.given.rounds):
            log = self.logs / f"stream-{name.replace(' ', '-')}.log"
            if name in bare:
                kind = "default" if name == "bare" else {"updateLookup": "update-lookup"}.get(whole, "when-available")
                command = c.ceiling("change-stream", "--start", start, "--events", events, "--full-document", kind)
                figures = measure(command, c.environment(self.servers, "flat"), log, self.servers)
            else:
                figures = self.replay(name, number, made, whole, log)
                self.check("flat", TARGET + name, expected, f"stream, {name}")
            self.note("stream", number, name, events, figures)
        return made

    def replay(self, name, number, made, whole, log):
        target = TARGET + name
        self.servers.copy(f"{READY}{name}_{number}" if name == "kafka" else READY + name, target)
        settings = c.environment(self.servers, "flat", target)
        if name == "python":
            command = c.python("stream.py", "--start", ",".join(map(str, made["start"])), "--events", made["events"],
                               "--full-document", whole)
            return measure(command, settings, log, self.servers)
        if name == "debezium":
            candidate = self.debezium("flat", f"{self.mark}-stream-{number}", target, made["start"])
        elif name == "kafka":
            candidate = Programs(c.kafka(self.kafka_file(number)), settings, log)
        else:
            candidate = Programs({name: c.slackwater("run", c.file("flat"))}, settings, log)
        arrived, connection = self.servers.markers(target, made["markers"])
        with contextlib.closing(connection):
            return measure_until(candidate, self.servers, arrived)

    # --- latency ---------------------------------------------------------------------------------

    def latency(self):
        """Each candidate in turns; a round is one start, a copy, and every pace."""
        self.load("flat")
        first = 0
        for number, name in self.turns(self.given.candidates, self.given.rounds):
            if first:  # each change is made once, so the documents are made again
                self.load("flat")
            if self.given.images:
                self.servers.mongodb[c.SOURCE["flat"]].command(
                    "collMod", "flat", changeStreamPreAndPostImages={"enabled": True})
            log, target = self.logs / f"latency-{name}.log", TARGET + name
            self.servers.create(target, c.BENCH / ("documents.sql" if name == "debezium" else "flat.sql"))
            settings = c.environment(self.servers, "flat", target)
            if name == "debezium":
                candidate = self.debezium("flat", f"{self.mark}-latency-{number}", target)
            elif name == "kafka":
                migration = self.kafka_file(number)
                c.topics(migration, settings)
                candidate = Programs(c.kafka(migration), settings, log)
            else:
                candidate = Programs({name: c.slackwater("run", c.file("flat"))}, settings, log)
            self.say(f"latency {number + 1}/{self.given.rounds} {name}")
            found, first = latency.run(self, candidate, target, tables_of("flat", name)[0], log,
                                       latency.phases(self.given), 0)
            self.latencies += [{"round": number + 1, "candidate": name, **figures} for figures in found]

    # --- all of it -------------------------------------------------------------------------------

    def run(self):
        given, made = self.given, None
        # Python first: it tells how large the tables become, and so when to count slackwater's rows.
        writers = [name for name in ("python", "slackwater", "kafka", "debezium") if name in given.candidates]
        bare = ["bare"] if "bare" in given.candidates else []
        try:
            if given.latency:
                self.latency()
                return
            if "snapshot" in given.parts or "stream" in given.parts:
                self.load("flat")
                if "snapshot" in given.parts:
                    same = [SAME_IDS] if "python" in writers else []
                    self.snapshot("flat", "snapshot", writers + same + bare, given.rounds)
                else:  # the rows that the changes are for
                    self.snapshot("flat", "snapshot", writers, given.rounds if "kafka" in writers else 1)
            if "stream" in given.parts:
                made = self.stream(writers)
            direct = [name for name in writers if name in ("python", "slackwater")] + bare
            if "two" in given.parts and direct:
                self.load("two")
                self.snapshot("two", "two", direct, given.rounds)
        finally:
            self.told(made)
            if not given.keep:
                self.clear()

    def told(self, made):
        if not self.runs and not self.latencies:
            return
        print(latency.table_of(self.latencies) if self.latencies else report.table(self.runs))
        if self.given.json:
            machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "processor": processor(),
                       "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
                       **self.servers.versions}
            settings = {k: v for k, v in vars(self.given).items() if k not in ("json", "keep", "kafka")}
            self.given.json.write_text(json.dumps(
                {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine, "settings": settings,
                 "changes": made, "summary": report.summary(self.runs), "runs": self.runs, "latencies": self.latencies}, indent=1) + "\n")

    def clear(self):
        names = [*CANDIDATES, SAME_IDS]
        for name in names:
            self.servers.drop(TARGET + name)
        for name in names + [f"kafka_{number}" for number in range(self.given.rounds)]:
            self.servers.drop(READY + name)
        if "kafka" in self.given.candidates:
            connect.remove_topics(self.mark)
        for database in c.SOURCE.values():
            self.servers.mongodb.drop_database(database)


def tables_of(shape, name):
    return [connect.TABLE] if name == "debezium" else c.TABLES[shape]


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main():
    given = options()
    with open(Path(os.environ["BENCH_CACHE"]) / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("bench: another one is running on this machine") from None
        try:
            Bench(given).run()
        except Failure as e:
            raise SystemExit(f"bench: {e}") from None


main()
