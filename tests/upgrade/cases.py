"""The cases: what OLD is brought to, how it ends, what NEW has to do then."""
from __future__ import annotations

import os
import pty
import re
import signal
import time
from dataclasses import dataclass

from stage import Process, Stage, Trouble, until
from state import State, broken

MORE_EVENTS = 1_000  # so far the stream is followed before it counts as its middle
BLOCKED = 8  # as a cutover ends when something is in its way
TAKEN_OVER = 7  # as a process ends that another one has superseded
PROMPT = "Stop the writers of the source now"
BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:7.1f} s  {text}", flush=True)


@dataclass
class Outcome:
    moment: str
    documents: int
    seconds: float
    versions: tuple[int, int]
    equal: bool = False


def in_copy(state: State) -> bool:
    return state.documents() > 0 and any(row["state"] == "copying" for row in state.collections.values()) and \
        len(state.done()) * 3 > len(state.chunks) and bool(state.open())


def start(stage: Stage) -> None:
    stage.fill()
    stage.write()
    stage.run(stage.given.old, "old")


def to_the_copy(stage: Stage) -> State:
    """The middle of the copy, with something of it in the target."""
    start(stage)
    return stage.moment("the middle of the copy", lambda s: in_copy(s) and (not stage.kafka or s.events() > 0))


def to_the_stream(stage: Stage) -> State:
    """The middle of the stream."""
    start(stage)
    stage.near(stage.given.old)
    follows = stage.state().events()
    return stage.moment("the middle of the stream", lambda s: s.copied() and s.events() >= follows + MORE_EVENTS)


def to_the_recopy(stage: Stage) -> State:
    """The middle of a copy over rows that are there already: a collection was dropped, and a part of it came back."""
    start(stage)
    stage.near(stage.given.old)
    stage.stop_writing()
    aside = {"db": f"{stage.database}_aside", "coll": "bookings"}
    stage.mongo({"aggregate": "bookings", "pipeline": [{"$match": {"team": {"$not": {"$mod": [10, 0]}}}},
                                                       {"$merge": {"into": aside}}], "cursor": {}})
    # Asleep while the collection is away, so that its copy is as long as it can be.
    stage.pipeline[0].send(signal.SIGSTOP)
    stage.mongo({"drop": "bookings"})
    stage.mongo({"aggregate": "bookings", "$db": aside["db"], "cursor": {},
                 "pipeline": [{"$merge": {"into": {"db": stage.database, "coll": "bookings"}}}]})
    stage.write(1)
    stage.pipeline[0].send(signal.SIGCONT)

    def holds(state: State) -> bool:
        row = state.collections["legacy.bookings"]
        done = [chunk for chunk in state.done() if chunk["collection"] == "legacy.bookings"]
        return row["generation"] == 2 and row["reload"] and bool(done and state.open("legacy.bookings")) and state.seen == 3
    return stage.moment("the middle of the recopy", holds)


def too_old(stage: Stage, before: State, after: State) -> None:
    """OLD, where it only looks, says that it is too old."""
    if after.version == before.version:
        return
    code, said = stage.refused(stage.given.old, "status", stage.file)
    if code != 4 or "newer slackwater" not in said:
        raise Trouble(f"the status of the old program, with a newer schema, ends with {code}:\n{said}")


def not_yet(stage: Stage, before: State) -> None:
    """NEW, where it only looks, says that the schema is older, and leaves it so."""
    code, said = stage.refused(stage.given.new, "status", stage.file)
    if code and (code != 4 or "older than this program" not in said):
        raise Trouble(f"the status of the new program, before its start, ends with {code}:\n{said}")
    if stage.state().version != before.version:
        raise Trouble("a look has changed the schema")


def whole(stage: Stage, before: State, when: str) -> None:
    if found := broken(before, stage.state()):
        raise Trouble(f"{when}:\n  " + "\n  ".join(found))


def upgrade(stage: Stage, moment: str, seen: State) -> tuple[State, Outcome]:
    """Kills OLD and starts NEW; waits until it has caught up."""
    say(f"{moment}: {seen.documents()} documents are copied, {seen.events()} events of the stream applied")
    stage.kill()
    before = stage.state()
    if seen.open() and not before.open():
        raise Trouble("the kill came after the copy: take more documents")
    not_yet(stage, before)
    say(f"killed with {len(before.done())} chunks done, {len(before.open())} open; the new one starts")
    began = time.monotonic()
    stage.run(stage.given.new, "new")
    after = stage.moment("the new one has taken over", lambda s: s.epoch > before.epoch)
    whole(stage, before, "right after the start")
    too_old(stage, before, after)
    stage.near(stage.given.new)
    outcome = Outcome(moment, before.documents(), time.monotonic() - began, (before.version, after.version))
    say(f"caught up after {outcome.seconds:.1f} s")
    return before, outcome


def finish(stage: Stage, before: State, outcome: Outcome) -> Outcome:
    """Writers end; everything has to be there."""
    follows = stage.state().events()
    stage.moment("the stream goes on", lambda s: s.events() > follows)
    stage.stop_writing()
    stage.drain(stage.given.new)
    whole(stage, before, "at the end")
    stage.end_watching()
    outcome.equal = stage.compare()
    for process in stage.pipeline:
        process.stop()
    return outcome


def in_the_copy(stage: Stage) -> Outcome:
    return finish(stage, *upgrade(stage, "copy", to_the_copy(stage)))


def in_the_stream(stage: Stage) -> Outcome:
    return finish(stage, *upgrade(stage, "stream", to_the_stream(stage)))


def in_the_recopy(stage: Stage) -> Outcome:
    before, outcome = upgrade(stage, "recopy", to_the_recopy(stage))
    outcome = finish(stage, before, outcome)
    say(f"the one incident, from before: {before.incidents[0]['text']}")
    return outcome


def ends_clearly(process: Process) -> str:
    """How a process of the old version ended: it has to say that another one has its work, or that the schema is newer."""
    line = next((line for line in reversed(process.said().splitlines()) if "error:" in line), process.tail(1))
    told = f"{process.name} ended with {process.child.returncode}: {line.strip()}"
    if not (process.child.returncode == TAKEN_OVER or "newer slackwater" in line):
        raise Trouble(f"no clear end: {told}\n{process.tail()}")
    return told


def takeover(stage: Stage) -> tuple[State, float, State]:
    """The process that reads the source is started while the old one still runs, which is to end."""
    to_the_stream(stage)
    before, began = stage.state(), time.monotonic()
    role = "capture" if stage.kafka else "run"
    old, stage.pipeline[0] = stage.pipeline[0], stage.start(f"{role}-new", stage.given.new, role, stage.file)
    appliers = stage.pipeline[1:]
    del stage.pipeline[1:]
    after = stage.moment("the new process has taken over", lambda s: s.epoch > before.epoch)
    whole(stage, before, "right after the start of the new process")
    too_old(stage, before, after)
    old.wait()
    say(ends_clearly(old))
    stage.pipeline += appliers
    return before, began, after


def overlapping(stage: Stage) -> Outcome:
    """The new one is started while the old one runs."""
    before, began, after = takeover(stage)
    stage.near(stage.given.new)
    versions = before.version, after.version
    return finish(stage, before, Outcome("stream, not killed", before.documents(), time.monotonic() - began, versions))


def rolling(stage: Stage) -> Outcome:
    """The capture first, while the old one still runs; then the appliers, one by one."""
    before, began, after = takeover(stage)
    appliers = stage.pipeline[1:]
    # They may end, but then they say why.
    del stage.pipeline[1:]
    follows = stage.state().events()

    def settled() -> bool:
        stage.check()
        goes_on = stage.state().events() >= follows + MORE_EVENTS
        return goes_on or not any(process.runs() for process in appliers)
    until("the old appliers go on, or end", settled, 180)
    for member, process in zip(("one", "two"), appliers):
        if process.runs():
            say(f"{process.name} goes on with the new capture: {stage.state().events() - follows} events more")
            process.stop()
        else:
            say(ends_clearly(process))
        stage.pipeline.append(stage.apply(stage.given.new, "new", member))
    stage.near(stage.given.new)
    versions = before.version, after.version
    return finish(stage, before, Outcome("stream, capture first", before.documents(), time.monotonic() - began, versions))


class Operator:
    """Somebody at a terminal, who stops the writers when a cutover asks for it."""

    def __init__(self, stage: Stage):
        self.stage = stage
        self.ours, self.theirs = pty.openpty()

    def cutover(self, program, which: str) -> Process:
        return self.stage.start(f"cutover-{which}", program, "cutover", self.stage.file, "--report", self.stage.folder,
                                stdin=self.theirs)

    def asked(self, process: Process) -> None:
        until(f"{process.name} asks for the freeze", lambda: process.check() or PROMPT in process.said())

    def answer(self) -> None:
        self.stage.stop_writing()
        os.write(self.ours, b"\n")

    def leave(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


def cutover_is(stage: Stage, wanted: str) -> None:
    there = stage.sql("SELECT string_agg(state, ',' ORDER BY armed_at) FROM slackwater.cutovers")
    if there != wanted:
        raise Trouble(f"cutovers that are {wanted} were expected: {there}")


def opened(stage: Stage, outcome: Outcome, process: Process) -> Outcome:
    """The switch is made, by that process."""
    if code := process.wait():
        raise Trouble(f"the switch ended with {code}:\n{process.tail()}")
    say(process.tail(2).splitlines()[0])
    for part in stage.pipeline:
        if code := part.wait():
            raise Trouble(f"{part.name} ended with {code} after the switch:\n{part.tail()}")
    # One row: what the old one has begun, the new one has ended.
    cutover_is(stage, "open")
    stage.end_watching()
    outcome.equal = stage.compare()
    return outcome


def rehearsed(stage: Stage) -> Outcome:
    """A switch that OLD has armed and rehearsed, and that NEW makes."""
    to_the_stream(stage)
    operator = Operator(stage)
    old = operator.cutover(stage.given.old, "old")
    operator.asked(old)
    cutover_is(stage, "armed")
    old.kill()
    _, outcome = upgrade(stage, "switch rehearsed", stage.state())
    code, said = stage.refused(stage.given.new, "cutover", stage.file, "--plan", "--json")
    blockers = re.findall(r'"blocker": "(\w+)"', said)
    if (code, blockers) not in ((0, []), (BLOCKED, ["another_cutover"])):
        raise Trouble(f"cutover --plan ended with {code}:\n{said}")
    say(f"cutover --plan ends with {code}, blockers: {blockers}")
    new = operator.cutover(stage.given.new, "new")
    operator.asked(new)
    operator.answer()
    outcome = opened(stage, outcome, new)
    operator.leave()
    return outcome


def frozen(stage: Stage) -> Outcome:
    """A switch that OLD has brought as far as the proof, with the fence passed, and that NEW ends."""
    to_the_stream(stage)
    stage.sql("CREATE TABLE public.hold AS SELECT 600 AS seconds")
    operator = Operator(stage)
    old = operator.cutover(stage.given.old, "old")
    operator.asked(old)
    operator.answer()
    sleeps = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    until("the source is frozen and the last steps are made",
          lambda: old.check() or stage.sql(f"SELECT count(*) {sleeps}") == "1")
    cutover_is(stage, "frozen")
    stage.sql("UPDATE public.hold SET seconds = 0")
    old.kill()
    stage.sql(f"SELECT pg_terminate_backend(pid) {sleeps}")
    _, outcome = upgrade(stage, "switch frozen", stage.state())
    outcome = opened(stage, outcome, operator.cutover(stage.given.new, "new"))
    operator.leave()
    return outcome
