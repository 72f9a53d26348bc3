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


def measure(argv, environment, log, servers, until=None, settle=None, limit=3600.0) -> dict:
    """Runs `argv` until it ends, or until `until()` tells the moment at which its work was done.

    `settle()` then waits, unmeasured, for what must be written before it is stopped with SIGTERM.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    servers.quiet()
    load, before, machine, own = os.getloadavg()[0], servers.cpu(), busy(), sum(os.times()[:2])
    with open(log, "wb") as out:
        started = time.monotonic()
        child = subprocess.Popen([str(a) for a in argv], env=environment, cwd=log.parent, stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=subprocess.STDOUT)
    watch = Watch(child.pid)
    code = None
    try:
        if until is None:
            timer = threading.Timer(limit, child.kill)
            timer.start()
            _pid, status, usage = os.wait4(child.pid, 0)
            timer.cancel()
            ended = time.monotonic()
            child.returncode = code = os.waitstatus_to_exitcode(status)
            cpu = usage.ru_utime + usage.ru_stime
        else:
            ended = None
            while ended is None:
                if child.poll() is not None:
                    break
                if time.monotonic() - started > limit:
                    raise Failure(f"not done after {limit:.0f} seconds; see {log}")
                time.sleep(POLL)
                ended = until()
            if ended is not None:
                cpu = cpu_of(child.pid)
                watch.look()
        after, machine_after, own_after = servers.cpu(), busy(), sum(os.times()[:2])
        if until is not None and ended is not None:
            if settle:
                settle(child)
            child.send_signal(signal.SIGTERM)
            try:
                code = child.wait(60)
            except subprocess.TimeoutExpired:
                raise Failure(f"did not stop within 60 seconds of SIGTERM; see {log}") from None
        if ended is None or code != 0:
            tail = log.read_bytes()[-1500:].decode(errors="replace").strip()
            raise Failure(f"{Path(str(argv[0])).name} ended with {child.returncode}; {log}:\n{tail}")
    finally:
        watch.ended.set()
        if child.returncode is None:
            child.kill()
            child.wait()
    costs = {name: after[name] - before[name] for name in after}
    others = machine_after - machine - cpu - sum(costs.values()) - (own_after - own)
    return {"seconds": ended - started, "cpu": cpu, "rss_mb": watch.peak / 1024, "other_cpu": max(0.0, others),
            "load_before": load, **{f"{name}_cpu": cost for name, cost in costs.items()}}
