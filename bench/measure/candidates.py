"""The candidates: how each is started, and, for slackwater, how one sees that it is done."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from process import Failure

BENCH = Path(__file__).resolve().parent.parent
TABLES = {"flat": ["flat"], "two": ["two", "two_items"]}
PARTITIONS = 4  # of Kafka's topics, the peer's too
WRITERS = 2  # transactions side by side in the applier; the direct log copies with four
SOURCE = {"flat": "slackwater_bench_flat", "two": "slackwater_bench_two"}  # databases of MongoDB


def environment(servers, shape: str, target: str | None = None) -> dict[str, str]:
    settings = {**os.environ, "BENCH_DATABASE": SOURCE[shape]}
    if target:
        settings["SLACKWATER_POSTGRES_URL"] = servers.url_of(target)
    return settings


def ceiling(*arguments) -> list[str]:
    return [os.environ["BENCH_CEILING"], *map(str, arguments)]


def python(script: str, *arguments) -> list[str]:
    return [sys.executable, str(BENCH / "baseline" / script), *map(str, arguments)]


def slackwater(*arguments) -> list[str]:
    return [os.environ["BENCH_SLACKWATER"], *map(str, arguments)]


def file(shape: str) -> Path:
    return BENCH / f"{shape}.yaml"


def kafka_file(shape: str, prefix: str, made: Path) -> Path:
    """The same migration with Kafka as its log. The name is both the topics' prefix and the group of the appliers."""
    log = {"kafka": {"brokers": os.environ["SLACKWATER_KAFKA_BROKERS"], "group": prefix, "writers": WRITERS,
                     "topics": {"prefix": prefix, "partitions": PARTITIONS, "replication": 1}}}
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text(f"{file(shape).read_text()}log: {json.dumps(log)}\n")  # YAML takes JSON as it is
    return made


def kafka(migration: Path) -> dict[str, list[str]]:
    """Two processes with Kafka between them."""
    return {name: slackwater(name, migration) for name in ("capture", "apply")}


def topics(migration: Path, settings: dict[str, str]) -> None:
    done = subprocess.run(slackwater("topics", "apply", migration), env=settings, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Failure(f"slackwater topics apply failed:\n{done.stdout[-1500:]}")


def prepared(command: list[str], settings: dict[str, str]) -> dict:
    """Runs a loader and returns the line of JSON that it prints."""
    done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failure(f"{' '.join(command[1:2])} failed")
    return json.loads(done.stdout)


def status(migration: Path, settings: dict[str, str]) -> dict | None:
    """What `slackwater status` says, or nothing while it cannot tell."""
    done = subprocess.run(slackwater("status", migration, "--json"), env=settings, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        return json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:
        return None


def copied(answer: dict) -> bool | None:
    """Whether the status says that every collection is copied; None if it has no word on it.

    The one place that knows the shape of `status --json`.
    """
    collections = answer.get("collections")
    if isinstance(collections, dict):
        collections = list(collections.values())
    if not isinstance(collections, list) or not collections:
        return None
    states = [c.get("snapshot", c.get("state")) if isinstance(c, dict) else None for c in collections]
    states = [s.get("state") if isinstance(s, dict) else s for s in states]
    if any(s is None for s in states):
        return None
    return all(s is True or s in ("copied", "done", "complete", "completed", "streaming") for s in states)


def settle_snapshot(migration: Path, settings: dict[str, str]):
    """Waits until slackwater has noted that its snapshot is whole, so that it does not start over when it is
    started again."""
    def settle(programs):
        deadline = time.monotonic() + 60
        unknown_until = time.monotonic() + 5
        while time.monotonic() < deadline and not programs.broken():
            answer = status(migration, settings)
            done = copied(answer) if answer is not None else None
            if done or (done is None and time.monotonic() > unknown_until):
                return
            time.sleep(0.5)
        if not programs.broken():
            raise Failure("all rows arrived, but `slackwater status` does not say that the collections are copied")
    return settle
