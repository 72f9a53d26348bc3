"""A CRM of its own for one case: databases, topics, migration file, and the processes that work on it."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import state
from servicelib import mongodb, wire

ROOT = Path(__file__).resolve().parents[2]
LOOK = 0.02  # seconds between two looks; the moments of a kill are short


class Trouble(Exception):
    """What did not come about."""


def until(what: str, holds, limit: float = 120):
    """Asks until there is an answer, and returns it."""
    end = time.monotonic() + limit
    while not (answer := holds()):
        if time.monotonic() > end:
            raise Trouble(f"not within {limit:.0f} s: {what}")
        time.sleep(LOOK)
    return answer


class Process:
    """A process of ours that goes on until it is ended; what it says is in its log."""

    def __init__(self, name: str, argv: list, env: dict, log: Path, stdin=subprocess.DEVNULL):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            self.child = subprocess.Popen([str(a) for a in argv], cwd=ROOT, env=env, stdin=stdin, stdout=out, stderr=out)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def runs(self) -> bool:
        return self.child.poll() is None

    def check(self) -> None:
        if not self.runs():
            raise Trouble(f"{self.name} ended by itself with {self.child.returncode}:\n{self.tail()}")

    def tail(self, lines: int = 12) -> str:
        return "\n".join(self.said().splitlines()[-lines:])

    def send(self, number: int) -> None:
        self.check()
        self.child.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.child.wait()

    def wait(self, limit: float = 120) -> int:
        until(f"{self.name} ends", lambda: not self.runs(), limit)
        return self.child.returncode

    def stop(self) -> None:
        """Ends it as an operator does."""
        self.send(signal.SIGTERM)
        if code := self.wait():
            raise Trouble(f"{self.name}, told to stop, ended with {code}:\n{self.tail()}")


class Stage:
    """The databases and topics of one case. `old` and `new` are the programs."""

    def __init__(self, name: str, given, work: Path, kafka: bool, more: dict):
        self.name, self.given, self.kafka = name, given, kafka
        self.folder = work / name
        self.folder.mkdir()
        self.database = f"slackwater_upgrade_{given.mark}_{name}"
        self.source = urlsplit(os.environ["SLACKWATER_MONGODB_URI"])
        self.server = os.environ["SLACKWATER_POSTGRES_URL"]
        self.env = {**os.environ, "CRM_DATABASE": self.database}
        self.processes: list[Process] = []
        self.pipeline: list[Process] = []
        self.writers: Process | None = None
        self.watcher: Process | None = None
        self.file = self.folder / "migration.yaml"
        sections = {"snapshot": {"workers": 2, "chunk_documents": given.chunk}, **more}
        if kafka:
            sections["log"] = {"kafka": {
                "brokers": os.environ["SLACKWATER_KAFKA_BROKERS"], "group": self.database,
                "topics": {"prefix": self.database, "partitions": 4, "replication": 1},
                "consumer": {"session.timeout.ms": 6000}}}
        text = (ROOT / "migrations/crm_demo/migration.yaml").read_text()
        self.file.write_text(text + "".join(f"\n{key}: {json.dumps(value)}" for key, value in sections.items()) + "\n")

    def call(self, *argv, fails: bool = False) -> str:
        done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                              env=self.env)
        if done.returncode and not fails:
            raise Trouble(f"{Path(argv[0]).name} {argv[1]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def refused(self, *argv) -> tuple[int, str]:
        done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              cwd=ROOT, env=self.env)
        return done.returncode, done.stdout

    def fill(self) -> None:
        demo = self.given.demo
        self.env["SLACKWATER_POSTGRES_URL"] = self.call(demo, "schema", "--fresh", self.database)
        self.call(demo, "load", "--drop", "--documents", self.given.documents, "--seed", self.given.seed)
        if self.kafka:
            self.call(self.given.old, "topics", "apply", self.file)
        self.watcher = self.start("watch", demo, "watch")

    def start(self, name: str, program, *argv, stdin=subprocess.DEVNULL) -> Process:
        process = Process(name, [program, *argv], self.env, self.folder / f"{name}.log", stdin)
        self.processes.append(process)
        return process

    def write(self, seed: int = 0) -> None:
        """From now on writers write."""
        name = f"writers-{seed}"
        rate = str(self.given.rate)
        self.writers = self.start(name, self.given.demo, "write", "--seed", str(self.given.seed + seed), "--rate", rate)
        until("the writers write", lambda: self.writers.check() or "writing" in self.writers.said())

    def stop_writing(self) -> None:
        self.writers.stop()
        self.writers = None

    def run(self, program, which: str) -> None:
        """The processes that bring the target to where the source is."""
        if not self.kafka:
            self.pipeline = [self.start(f"run-{which}", program, "run", self.file)]
            return
        self.pipeline = [self.start(f"capture-{which}", program, "capture", self.file),
                         *(self.apply(program, which, member) for member in ("one", "two"))]

    def apply(self, program, which: str, member: str) -> Process:
        return self.start(f"apply-{which}-{member}", program, "apply", self.file, "--member", member)

    def kill(self) -> None:
        for process in self.pipeline:
            process.kill()
        # A transaction whose COMMIT was sent may still end.
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() " \
               "AND application_name = 'slackwater'"
        until("the servers have let the killed processes go", lambda: self.sql(gone) == "t")

    def check(self) -> None:
        for process in [*self.pipeline, self.watcher]:
            process.check()

    def sql(self, statement: str) -> str:
        psql = os.path.join(os.environ.get("SLACKWATER_PG_BIN", ""), "psql")
        argv = [psql, "-XAtq", "-v", "ON_ERROR_STOP=1", self.env["SLACKWATER_POSTGRES_URL"], "-c", statement]
        while True:
            code, text = self.refused(*argv)
            if not code:
                return text.strip()
            # A look at many tables meets a transaction that changes all of them; it is nobody's fault.
            if "deadlock detected" not in text:
                raise Trouble(f"{statement}\n{text}")
            print("a look of ours met a deadlock; once more", flush=True)

    def mongo(self, body: dict) -> dict:
        answer = mongodb.command(self.source.port, {**body, "$db": body.get("$db", self.database)}, 60)
        if not answer.get("ok"):
            raise Trouble(f"{next(iter(body))}: {answer.get('errmsg')}")
        return answer

    def state(self) -> state.State | None:
        """What the control schema says; nothing while it is not made, or a migration is not begun in it."""
        there = "SELECT to_regclass('slackwater.cutovers') IS NOT NULL, to_regclass('slackwater.captures') IS NOT NULL"
        made, later = self.sql(there).split("|")
        if made != "t":
            return None
        read = self.sql(state.READ.format(epochs=state.EPOCHS[later == "t"]))
        found = json.loads(read)
        return state.State(found) if found["epoch"] else None

    def moment(self, what: str, holds, limit: float = 300) -> state.State:
        """Waits for a moment in the control schema."""
        def look():
            self.check()
            if self.writers:
                self.writers.check()
            seen = self.state()
            return seen if seen and holds(seen) else None
        return until(what, look, limit)

    def status(self, program) -> dict:
        return json.loads(self.call(program, "status", self.file, "--json"))

    def near(self, program, limit: float = 300) -> None:
        """Waits until all is copied, and applied soon; what the source had at this moment is applied."""
        first: list[int] = []

        def holds() -> bool:
            self.check()
            code, text = self.refused(program, "status", self.file, "--json")
            # Before the first process has begun there is nothing to look at.
            if code or not text.startswith("{"):
                return False
            seen = json.loads(text)
            first.append(seen["source_operation_time"])
            lag = seen["lag_ms"]
            return seen["copied"] and lag is not None and lag < 2_000 and seen["applied_through"] >= first[0]
        until("all is copied, and the target less than two seconds behind", holds, limit)

    def drain(self, program) -> None:
        """Waits until everything that the source had at this moment is applied."""
        last = self.status(program)["source_operation_time"]

        def holds() -> bool:
            self.check()
            seen = self.status(program)
            # A reference may come before its target where they travel side by side; it is tried again.
            return (seen["applied_through"] or 0) >= last and seen["copied"] and seen["dead_letters_total"] == 0
        until("the last write is applied", holds, 300)

    def compare(self) -> bool:
        text = self.call(self.given.demo, "compare", fails=True)
        if text.splitlines()[-1] != "equal":
            print(text, file=sys.stderr)
        return text.splitlines()[-1] == "equal"

    def end_watching(self) -> None:
        self.watcher.send(signal.SIGTERM)
        if self.watcher.wait():
            raise Trouble(f"a row went back to an older version:\n{self.watcher.tail(24)}")

    def logs(self) -> str:
        return "\n".join(f"--- {process.name}\n{process.tail()}" for process in self.processes)

    def quit(self) -> None:
        """Ends what still runs."""
        for process in self.processes:
            if process.runs():
                process.kill()

    def clear(self) -> None:
        """Ends what still runs, and takes databases and topics away; goes on where a part of it is not there."""
        self.quit()
        psql = os.path.join(os.environ.get("SLACKWATER_PG_BIN", ""), "psql")

        def topics() -> None:
            brokers = os.environ["SLACKWATER_KAFKA_BROKERS"]
            wire.delete(brokers, [t for t in wire.cluster(brokers).topics if t.startswith(f"{self.database}.")])
        for what, act in [
            ("database of the target", lambda: self.call(psql, "-X", "-q", self.server, "-c",
                                                         f"drop database if exists {self.database} with (force)")),
            ("database of the source", lambda: self.mongo({"dropDatabase": 1})),
            ("what was set aside", lambda: self.mongo({"dropDatabase": 1, "$db": f"{self.database}_aside"})),
            *([("topics", topics)] if self.kafka else []),
        ]:
            try:
                act()
            except (Trouble, OSError, ValueError, wire.Refused) as e:
                print(f"left behind: {what} ({e})", file=sys.stderr)
