"""How long a change takes from its acknowledgement at the source to the moment at which others can read it in Postgres.

A change is acknowledged when the writer has the server's answer to it (majority). It can be read when a snapshot of another
connection contains the transaction that wrote its row. A function in the target takes a snapshot every millisecond and tells
the time right after it, so a figure is never too small, and too large by a good millisecond at most. Both clocks are this
machine's.
"""
from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from statistics import median

import psycopg

import candidates as c
from process import Failure

WATCH = """
create function bench_watch(seconds double precision) returns table(at double precision, seen pg_snapshot)
language plpgsql volatile as $$
declare
    ends timestamptz := clock_timestamp() + make_interval(secs => seconds);
    last text;
begin
    loop
        seen := pg_current_snapshot();
        at := extract(epoch from clock_timestamp()) * 1e6;
        if last is distinct from seen::text then
            return next;
            last := seen::text;
        end if;
        exit when clock_timestamp() > ends;
        perform pg_sleep(0.001);
    end loop;
end $$"""
PATIENCE = 120.0  # seconds until the last change must be there
SLICE = 2.0  # seconds of one call of the function


class Watching:
    """Snapshots of the target, with their times, until it is left."""

    def __init__(self, url):
        self.url, self.snapshots, self.failed = url, [], None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                while not self.ended.is_set():
                    rows = connection.execute("select at, seen::text from bench_watch(%s)", [SLICE]).fetchall()
                    self.snapshots += rows
        except psycopg.Error as e:
            self.failed = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        if self.failed:
            raise Failure(f"the target could not be watched: {self.failed}")


def seen_at(snapshots, transactions):
    """When each transaction could be read first, in microseconds since 1970."""
    found, rest = {}, set(transactions)
    for at, text in snapshots:
        least, most, running = text.split(":")
        least, most = int(least), int(most)
        running = set(map(int, running.split(","))) if running else set()
        arrived = {x for x in rest if x < least or (x < most and x not in running)}
        found.update(dict.fromkeys(arrived, at))
        rest -= arrived
        if not rest:
            break
    return found


def percentile(values, part):
    """The smallest value that so many are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


class Phase:
    """Changes at one pace, and how long each of them took."""

    def __init__(self, name, rate, changes):
        self.name, self.rate, self.changes = name, rate, changes

    def measure(self, servers, target, table, first, candidate, log):
        settings = c.environment(servers, "flat")
        command = c.ceiling("change-at-pace", "--rate", self.rate, "--changes", self.changes, "--first", first)
        url = servers.url_of(target)
        with Watching(url) as watching, psycopg.connect(url, autocommit=True) as connection:
            writer = subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True)
            out, _ = writer.communicate()
            if writer.returncode:
                raise Failure("the writer failed; see above")
            made = c.json.loads(out)
            low, high = made["base"] + first, made["base"] + first + self.changes
            question = f"select count(*) from {table} where quantity >= {low} and quantity < {high}"
            deadline = time.monotonic() + PATIENCE
            while connection.execute(question).fetchone()[0] < self.changes:
                if why := candidate.broken():
                    raise Failure(why)
                if time.monotonic() > deadline:
                    raise Failure(f"{self.name}: not all changes have arrived after {PATIENCE:.0f} seconds; {log}")
                time.sleep(0.2)
        with psycopg.connect(url) as connection:
            rows = connection.execute(f"select quantity, xmin::text::bigint from {table} "
                                      f"where quantity >= {low} and quantity < {high}").fetchall()
        acknowledged = {made["base"] + from_ + more: at for from_, count, at in made["acks"] for more in range(count)}
        visible = seen_at(watching.snapshots, {xmin for _, xmin in rows})
        took = [(visible[xmin] - acknowledged[quantity]) / 1e3 for quantity, xmin in rows]
        return {"phase": self.name, "changes": len(took), "p50": percentile(took, 0.5), "p99": percentile(took, 0.99),
                "max": max(took), "late_ms": made["late_ms"], "seconds": made["seconds"],
                "transactions": len(visible), "load": os.getloadavg()[0]}


def phases(given):
    at_pace = [Phase(f"{rate:,} a second", rate, max(int(rate * given.seconds), 1)) for rate in given.rates]
    silent = Phase(f"one after {given.silence:g} s of silence", 1 / given.silence, given.silences)
    return at_pace + ([silent] if given.silences else [])


def run(bench, candidate, target, table, log, phases_left, first):
    """All phases, one after the other, with one start of the candidate. Gives figures, and the number of the next change."""
    found = []
    candidate.begin()
    try:
        with psycopg.connect(bench.servers.url_of(target), autocommit=True) as connection:
            connection.execute(WATCH)
            connection.execute(f"create index on {table} (quantity) where quantity >= 1000000")
            rows = bench.servers.source_sums(c.SOURCE["flat"], "flat")["rows"]
            deadline = time.monotonic() + 600
            while connection.execute(f"select count(*) from {table}").fetchone()[0] < rows:
                if why := candidate.broken():
                    raise Failure(why)
                if time.monotonic() > deadline:
                    raise Failure(f"the copy takes too long; {log}")
                time.sleep(0.5)
            connection.execute("vacuum analyze")
        time.sleep(3)  # what follows a copy is not what is measured
        for phase in phases_left:
            bench.servers.quiet()
            figures = phase.measure(bench.servers, target, table, first, candidate, log)
            first += phase.changes
            found.append(figures)
            bench.say(f"{figures['phase']}: p50 {figures['p50']:.1f}, p99 {figures['p99']:.1f}, max {figures['max']:.1f} ms "
                      f"({figures['changes']:,} changes, {figures['transactions']:,} transactions, load {figures['load']:.1f})")
        candidate.end()
    finally:
        with contextlib.suppress(Exception):
            candidate.clear()
    return found, first


def table_of(runs):
    """Medians over the rounds, with the least and the largest."""
    def shown(values):
        text = f"{median(values):,.1f}"
        return text if len(values) == 1 else f"{text} ({min(values):,.1f}–{max(values):,.1f})"

    cells = [("", "candidate", "changes", "p50 ms", "p99 ms", "max ms", "load")]
    for phase in dict.fromkeys(run["phase"] for run in runs):
        for name in dict.fromkeys(run["candidate"] for run in runs):
            of = [run for run in runs if (run["phase"], run["candidate"]) == (phase, name)]
            if of:
                cells.append((phase, name, f"{sum(run['changes'] for run in of):,}",
                              *(shown([run[key] for run in of]) for key in ("p50", "p99", "max", "load"))))
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["", "From the acknowledgement of a change to the moment at which it can be read in Postgres, median of the "
             "rounds (least–largest)"]
    lines += ["  " + "  ".join(text.ljust(w) if i < 2 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths)))
              for row in cells]
    return "\n".join(lines)
