"""Runs one candidate and tells how long it took and what it cost, itself and the servers beside it."""
from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
POLL = 0.1  # seconds: asking more often would be felt on two cores


class Failure(Exception):
    """A candidate that did not do what it was started for."""


def cpu_of(pid: int, children: bool = False) -> float:
    """CPU seconds of a process with all its threads; with those of children that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:15] if children else fields[11:13])) / TICK


def peak_of(pid: int) -> int:
    """Largest resident size so far, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def busy() -> float:
    """CPU seconds that the whole machine was busy."""
    user, nice, system, _idle, _wait, irq, softirq = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8])
    return (user + nice + system + irq + softirq) / TICK


class Watch:
    """Reads the peak of the resident size until the process is gone."""

    def __init__(self, pid: int):
        self.pid, self.peak, self.ended = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self) -> None:
        while not self.ended.is_set():
            self.look()
            self.ended.wait(POLL)

    def look(self) -> None:
        try:
            self.peak = max(self.peak, peak_of(self.pid))
        except OSError:
            pass  # gone


class Programs:
    """A candidate that goes on until it is told to end: one program, or some that work side by side."""

    def __init__(self, commands: dict[str, list], environment, log: Path):
        self.commands, self.environment = commands, environment
        several = len(commands) > 1
        self.logs = {name: log.with_suffix(f".{name}.log") if several else log for name in commands}
        self.children: dict[str, subprocess.Popen] = {}
        self.watches: dict[str, Watch] = {}

    def begin(self) -> None:
        for name, argv in self.commands.items():
            self.children[name] = spawned(argv, self.environment, self.logs[name])
            self.watches[name] = Watch(self.children[name].pid)

    def broken(self) -> str | None:
        """Why its work will not be done; None while it may."""
        for name, child in self.children.items():
            if child.poll() is not None:
                return failed(self.commands[name], child.returncode, self.logs[name])
        return None

    def cpu(self) -> dict[str, float]:
        return {name: cpu_of(child.pid) for name, child in self.children.items()}

    def peaks(self) -> dict[str, int]:
        for watch in self.watches.values():
            watch.look()
        return {name: watch.peak for name, watch in self.watches.items()}

    def end(self) -> None:
        for child in self.children.values():
            child.send_signal(signal.SIGTERM)
        for name, child in self.children.items():
            try:
                code = child.wait(60)
            except subprocess.TimeoutExpired:
                raise Failure(f"did not stop within 60 seconds of SIGTERM; see {self.logs[name]}") from None
            if code != 0:
                raise Failure(failed(self.commands[name], code, self.logs[name]))

    def clear(self) -> None:
        for watch in self.watches.values():
            watch.ended.set()
        for child in self.children.values():
            if child.returncode is None:
                child.kill()
                child.wait()


class Costs:
    """What the servers and everybody else used while a candidate was at work."""

    def __init__(self, servers):
        servers.quiet()
        self.servers, self.load = servers, os.getloadavg()[0]
        self.before, self.after = self.now(), None

    def now(self):
        return self.servers.cpu(), busy(), sum(os.times()[:2])

    def stop(self) -> None:
        self.after = self.now()

    def figures(self, seconds: float, cpu: dict[str, float], peaks: dict[str, int]) -> dict:
        (servers, machine, own), (before, machine_before, own_before) = self.after, self.before
        costs = {name: servers[name] - before[name] for name in servers}
        used = sum(cpu.values())
        others = machine - machine_before - used - sum(costs.values()) - (own - own_before)
        figures = {"seconds": seconds, "cpu": used, "rss_mb": sum(peaks.values()) / 1024,
                   "other_cpu": max(0.0, others), "load_before": self.load,
                   **{f"{name}_cpu": cost for name, cost in costs.items()}}
        if len(cpu) > 1:
            figures.update({f"{name}_cpu": cost for name, cost in cpu.items()},
                           **{f"{name}_rss_mb": peak / 1024 for name, peak in peaks.items()})
        return figures


def spawned(argv, environment, log) -> subprocess.Popen:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out:
        return subprocess.Popen([str(a) for a in argv], env=environment, cwd=log.parent, stdin=subprocess.DEVNULL,
                                stdout=out, stderr=subprocess.STDOUT)


def failed(argv, code, log) -> str:
    tail = log.read_bytes()[-1500:].decode(errors="replace").strip()
    return f"{Path(str(argv[0])).name} ended with {code}; {log}:\n{tail}"


def measure(argv, environment, log, servers, limit=3600.0) -> dict:
    """Runs `argv` until it ends by itself."""
    costs = Costs(servers)
    started = time.monotonic()
    child = spawned(argv, environment, log)
    watch, timer = Watch(child.pid), threading.Timer(limit, child.kill)
    try:
        timer.start()
        _pid, status, usage = os.wait4(child.pid, 0)
        ended = time.monotonic()
        child.returncode = os.waitstatus_to_exitcode(status)
        costs.stop()
        if child.returncode != 0:
            raise Failure(failed(argv, child.returncode, log))
    finally:
        timer.cancel()
        watch.ended.set()
        if child.returncode is None:
            child.kill()
            child.wait()
    return costs.figures(ended - started, {"": usage.ru_utime + usage.ru_stime}, {"": watch.peak})


def measure_until(candidate, servers, until, settle=None, limit=3600.0) -> dict:
    """Runs a candidate until `until()` tells the moment at which its work was done.

    `settle()` then waits, unmeasured, for what must be written before it is ended.
    """
    costs = Costs(servers)
    started, ended = time.monotonic(), None
    try:
        candidate.begin()
        while ended is None:
            if why := candidate.broken():
                raise Failure(why)
            if time.monotonic() - started > limit:
                raise Failure(f"not done after {limit:.0f} seconds")
            time.sleep(POLL)
            ended = until()
        cpu, peaks = candidate.cpu(), candidate.peaks()
        costs.stop()
        if settle:
            settle(candidate)
        candidate.end()
    finally:
        candidate.clear()
    return costs.figures(ended - started, cpu, peaks)
