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
from pathlib import Path

import candidates as c
import report
from process import Failure, measure
from servers import Servers

READY = "slackwater_bench_ready_"  # databases to copy from, by candidate
TARGET = "slackwater_bench_"  # databases to write to
WRITERS = ("slackwater", "python")
SAME_IDS = "python_uuid5"  # writes the very ids that slackwater writes, in place of padded ObjectIds


def options():
    parser = argparse.ArgumentParser(prog="bench/run", description=(
        "Measures the snapshot and the change stream of slackwater beside a plain Python script and the bare cursor, "
        "in turns, on the same data."))
    parser.add_argument("--documents", type=int, default=1_000_000, help="documents to copy (%(default)s)")
    parser.add_argument("--changes", type=int, default=500_000, help="changes to replay (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each candidate has its turn (%(default)s)")
    parser.add_argument("--candidates", default="slackwater,python,bare", help="which of %(default)s")
    parser.add_argument("--parts", default="snapshot,stream,two", help=(
        "which of %(default)s: the copy of flat documents, their changes, the copy into two tables"))
    parser.add_argument("--images", action="store_true", help=(
        "post-images on: events hold the document, and no candidate looks it up"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to FILE")
    parser.add_argument("--keep", action="store_true", help="leave the databases of the bench behind")
    given = parser.parse_args()
    given.candidates = chosen(parser, given.candidates, ("slackwater", "python", "bare"))
    given.parts = chosen(parser, given.parts, ("snapshot", "stream", "two"))
    if given.documents < 10_000 or given.changes < 100 or given.rounds < 1:
        parser.error("at least 10000 documents, 100 changes and 1 round")
    if given.json:
        given.json = given.json.absolute()
    return given


def chosen(parser, text, known):
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or set(names) - set(known):
        parser.error(f"choose among {','.join(known)}")
    return names


class Bench:
    def __init__(self, given):
        self.given = given
        self.servers = Servers()
        self.logs = Path(os.environ["BENCH_CACHE"]) / "logs"
        self.runs: list[dict] = []
        self.sizes: dict[str, int] = {}

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
        tables = {t: expected["items" if t == "two_items" else "rows"] for t in c.TABLES[shape]}
        for number, name in self.turns(names, rounds):
            log = self.logs / f"{part}-{name}.log"
            if name == "bare":
                settings = c.environment(self.servers, shape)
                figures = measure(c.ceiling("find", "--collection", shape), settings, log, self.servers)
            else:
                figures = self.copy(shape, name, tables, log, last=number + 1 == rounds)
                self.check(shape, TARGET + name, expected, f"{part}, {name}")
                self.sizes[shape] = self.servers.size(TARGET + name, tables)
            self.note(part, number, name, expected["rows"], figures)

    def copy(self, shape, name, tables, log, last):
        target = TARGET + name
        self.servers.create(target, c.BENCH / f"{shape}.sql")
        settings = c.environment(self.servers, shape, target)
        if name.startswith("python"):
            ids = ["--uuid5"] if name == SAME_IDS else []
            return measure(c.python("snapshot.py", "--shape", shape, *ids), settings, log, self.servers)
        arrived, connection = self.servers.rows(target, tables, self.sizes.get(shape))
        settle = c.settle_snapshot(shape, settings) if last else None
        with contextlib.closing(connection):
            return measure(c.slackwater(shape), settings, log, self.servers, arrived, settle)

    # --- the stream ----------------------------------------------------------------------------

    def stream(self, writers):
        """All replay the same changes, made while nobody listened, onto the same rows."""
        for name in writers:
            self.servers.keep(TARGET + name, READY + name)
        self.say(f"making {self.given.changes:,} changes")
        made = c.prepared(c.ceiling("change-flat", "--documents", self.given.documents, "--changes",
                                    self.given.changes, *(["--images"] if self.given.images else [])),
                          c.environment(self.servers, "flat"))
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
                figures = self.replay(name, start, events, whole, log)
                self.check("flat", TARGET + name, expected, f"stream, {name}")
            self.note("stream", number, name, events, figures)
        return made

    def replay(self, name, start, events, whole, log):
        target = TARGET + name
        self.servers.copy(READY + name, target)
        settings = c.environment(self.servers, "flat", target)
        if name == "python":
            command = c.python("stream.py", "--start", start, "--events", events, "--full-document", whole)
            return measure(command, settings, log, self.servers)
        arrived, connection = self.servers.marker(target)
        with contextlib.closing(connection):
            return measure(c.slackwater("flat"), settings, log, self.servers, arrived)

    # --- all of it -------------------------------------------------------------------------------

    def run(self):
        given, made = self.given, None
        # Python first: it tells how large the tables become, and so when to count slackwater's rows.
        writers = [name for name in ("python", "slackwater") if name in given.candidates]
        bare = ["bare"] if "bare" in given.candidates else []
        try:
            if "snapshot" in given.parts or "stream" in given.parts:
                self.load("flat")
                if "snapshot" in given.parts:
                    same = [SAME_IDS] if "python" in writers else []
                    self.snapshot("flat", "snapshot", writers + same + bare, given.rounds)
                else:  # the rows that the changes are for
                    self.snapshot("flat", "snapshot", writers, 1)
            if "stream" in given.parts:
                made = self.stream(writers)
            if "two" in given.parts:
                self.load("two")
                self.snapshot("two", "two", writers + bare, given.rounds)
        finally:
            self.told(made)
            if not given.keep:
                self.clear()

    def told(self, made):
        if not self.runs:
            return
        print(report.table(self.runs))
        if self.given.json:
            machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "processor": processor(),
                       "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
                       **self.servers.versions}
            settings = {k: v for k, v in vars(self.given).items() if k not in ("json", "keep")}
            self.given.json.write_text(json.dumps(
                {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine, "settings": settings,
                 "changes": made, "summary": report.summary(self.runs), "runs": self.runs}, indent=1) + "\n")

    def clear(self):
        for name in (*WRITERS, SAME_IDS):
            self.servers.drop(TARGET + name)
            self.servers.drop(READY + name)
        for database in c.SOURCE.values():
            self.servers.mongodb.drop_database(database)


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
