"""The life of a service: found, started, waited for, ended. Each service says what is its own."""
from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

from . import docker
from .core import (
    Failure,
    alive,
    answers,
    end,
    identity,
    locked,
    next_free,
    own_folder,
    port_free,
    port_from_env,
    read_json,
    remove_own,
    say,
    state_root,
    tail,
    write_atomic,
)


class Died(Exception):
    """The server ended while it was waited for."""


class Service:
    all: dict[str, "Service"] = {}      # every service, by name

    name = ""
    variable = ""                       # the environment variable that says where it is
    ports: dict[str, tuple[str, int]] = {}  # what for: (environment variable, default)
    stop_signal = signal.SIGTERM
    stop_bound = 30.0
    start_bound = 120.0
    takes = "a few seconds"
    retry_when: re.Pattern | None = None  # last log lines after which starting again helps

    # --- what each service says ------------------------------------------------------------------

    def prepare(self) -> None:
        """Gets what the bare recipe needs onto the machine."""

    def launch(self, state: dict) -> subprocess.Popen:
        raise NotImplementedError

    def probe(self, state: dict) -> str | None:
        """None when the server can be used, else what it still lacks."""
        raise NotImplementedError

    def nudge(self, state: dict) -> str | None:
        """Does what the server waits for from us, while it cannot be used yet; may say what is lacking."""
        return None

    def settle(self, state: dict) -> None:
        """What is left to do, once the server can be used."""

    def exports(self, state: dict) -> dict[str, str]:
        raise NotImplementedError

    def tools(self) -> dict[str, str]:
        """Paths of programs, for tests that start servers of their own."""
        return {}

    # --- state -----------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return state_root() / self.name

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def load(self) -> dict:
        return read_json(self.folder / "state.json")

    def save(self, state: dict) -> None:
        own_folder(self.folder)
        write_atomic(self.folder / "state.json", json.dumps(state, indent=1) + "\n", 0o600)

    def external(self) -> str | None:
        """The address that the environment gives, unless it is our own, given back by `env`."""
        given = os.environ.get(self.variable)
        if not given or given == self.load().get("env", {}).get(self.variable):
            return None
        return given

    def running(self, state: dict) -> bool:
        if state.get("how") == "docker":
            return docker.running(state.get("container", ""))
        return alive(state)

    def leans_on(self, other: "Service") -> bool:
        """Whether this one, as it runs now, cannot do without the other."""
        return False

    # --- up --------------------------------------------------------------------------------------

    def up(self, bare: bool = False) -> None:
        given = self.external()
        if given:
            self.check_external(given)
            return
        with locked(self.name):
            state = self.load()
            if self.running(state):
                if state["how"] == "bare":
                    self.wait(state, None)
                self.settle(state)
                self.record(state)
                say(self.name, f"runs already, {self.where(state)}")
            elif not bare and self.docker_fits() and docker.engine():
                self.up_docker(state)
            else:
                self.up_bare(state)

    def docker_fits(self) -> bool:
        return True

    def up_docker(self, state: dict) -> None:
        own_folder(self.folder)
        found = None if state.get("pending") else docker.find(self.name)
        if found:  # started by hand: used, and left alone by `down`
            state = {**state, "container": found[0], "port": found[1], "adopted": True}
        else:
            state = {**self.choose_ports(state), "pending": True}  # what a broken-off `up` left is not by hand
            state.pop("adopted", None)
            self.save(state)
            ports = {s.name: s.load() for s in Service.all.values()}  # all of them: compose looks at the whole file
            ports[self.name] = state
            env = {variable: str(ports[s.name][key]) for s in Service.all.values()
                   for key, (variable, _) in s.ports.items() if ports[s.name].get(key)}
            state["container"] = docker.up(self.name, env, state_root() / "logs" / f"{self.name}-docker.log")
        state.pop("pending", None)
        state.update(how="docker", started=time.time())
        self.save(state)
        self.settle(state)
        self.record(state)
        say(self.name, f"up in Docker, {self.where(state)}")

    def up_bare(self, state: dict) -> None:
        self.prepare()
        own_folder(self.folder)
        began, told, moved = time.monotonic(), None, 0
        while True:
            state = {k: v for k, v in self.choose_ports(state).items() if k not in ("pid", "born", "container", "how")}
            if told != state["port"]:
                told = state["port"]
                say(self.name, f"starting on 127.0.0.1:{told} ({self.takes})")
            server = self.launch(state)
            state.update(how="bare", pid=server.pid, born=identity(server.pid), started=time.time())
            self.save(state)  # at once: whatever happens from here on, `down` finds it
            try:
                self.wait(state, server)
                self.settle(state)
            except Died as e:
                last = "\n".join(tail(self.log, 40))
                if self.retry_when and self.retry_when.search(last) and time.monotonic() - began < 40:
                    time.sleep(0.5)
                    continue
                if moved < 3 and not all(port_free(state[k]) for k in self.ports):
                    moved += 1  # somebody was faster to take the port
                    continue
                hint = f"if its data is of no use any more: dev/services down --wipe {self.name}, and up again"
                raise Failure(f"{self.name}: {e}", hint, self.log) from e
            except BaseException:
                with contextlib.suppress(Failure):
                    end(state, self.stop_signal, 10)
                raise
            self.record(state)
            say(self.name, f"up in {time.monotonic() - began:.1f} s, {self.where(state)}")
            return

    def choose_ports(self, state: dict) -> dict:
        taken = {other.load().get(key) for other in Service.all.values() if other is not self for key in other.ports}
        chosen = {}
        for key, (variable, default) in self.ports.items():
            wanted = port_from_env(variable) or state.get(key) or default
            chosen[key] = next_free(self.name, wanted, {p for p in taken if p} | set(chosen.values()))
        return {**state, **chosen}

    def wait(self, state: dict, server: subprocess.Popen | None) -> None:
        """Until the server can be used; by condition, not by time."""
        until = time.monotonic() + self.start_bound
        while True:
            if server is not None and server.poll() is not None:
                raise Died(f"the server ended while it started (code {server.returncode})")
            if server is None and not alive(state):
                raise Failure(f"{self.name} ended while it was waited for", "run this again", self.log)
            lacks = self.probe(state)
            if lacks is None:
                return
            lacks = self.nudge(state) or lacks
            if time.monotonic() > until:
                raise Failure(f"{self.name} is not ready after {self.start_bound:.0f} s: {lacks}",
                              f"dev/services down {self.name}, then dev/services up {self.name}", self.log)
            time.sleep(0.1)

    def record(self, state: dict) -> None:
        state["env"] = self.exports(state)
        self.save(state)

    def where(self, state: dict) -> str:
        return self.exports(state)[self.variable]

    def check_external(self, given: str) -> None:
        hosts = hosts_of(given, self.default_port_of_protocol)
        if not hosts:
            say(self.name, f"{self.variable} is set: used as it is (its address cannot be checked)")
        elif any(answers(host, port) for host, port in hosts):
            say(self.name, f"{self.variable} is set: used, {hosts[0][0]}:{hosts[0][1]} answers")
        else:
            raise Failure(f"{self.variable} is set, but nothing answers at " +
                          ", ".join(f"{h}:{p}" for h, p in hosts),
                          f"start that server, or: unset {self.variable}")

    default_port_of_protocol = 0

    # --- down ------------------------------------------------------------------------------------

    def down(self, wipe: bool = False) -> None:
        with locked(self.name):
            state = self.load()
            if state.get("adopted"):
                wipe = False
                said = "was not started by dev/services: docker compose down ends it"
            elif state.get("how") == "docker":
                said = docker.down(self.name, state["container"], wipe)
            elif state.get("pid"):
                before = alive(state)
                said = end(state, self.stop_signal, self.stop_bound) if before else "was not running"
            else:
                said = "was not started by dev/services"
            for gone in ("pid", "born", "container", "how", "adopted"):
                state.pop(gone, None)
            if wipe and self.folder.exists():
                self.wipe()
                said += "; data removed"
            elif state:
                self.save(state)
            say(self.name, said)

    def wipe(self) -> None:
        remove_own(self.folder)

    # --- status ----------------------------------------------------------------------------------

    def status(self) -> dict:
        given, state = self.external(), self.load()
        row: dict = {"name": self.name}
        if given:
            hosts = hosts_of(given, self.default_port_of_protocol)
            up = any(answers(h, p) for h, p in hosts) if hosts else None
            return {**row, "state": {True: "up", False: "no answer", None: "unknown"}[up], "how": "environment",
                    "url": without_password(given)}
        if not self.running(state):
            return {**row, "state": "died" if state.get("pid") or state.get("container") else "down"}
        lacks = self.probe(state) if state["how"] == "bare" else None
        row.update(state="up" if lacks is None else "not ready", how=state["how"], url=self.where(state),
                   seconds=round(time.time() - state.get("started", time.time())))
        if state["how"] == "bare":
            row.update(pid=state["pid"], log=str(self.log))
        else:
            row.update(container=state["container"][:12])
        return row

    def environment(self) -> dict[str, str] | None:
        """What `env` prints for this service; None if it is not up."""
        given, state = self.external(), self.load()
        if given:
            return {self.variable: given}
        if not self.running(state) or not state.get("env"):
            return None
        return state["env"]


def hosts_of(address: str, default: int) -> list[tuple[str, int]]:
    """The hosts and ports of a MongoDB URI, a Postgres URL or key=value text, a list of brokers, a URL."""
    if address.startswith("mongodb+srv:"):
        return []  # its hosts are in the DNS
    if "://" in address:
        scheme, rest = address.split("://", 1)
        default = {"http": 80, "https": 443}.get(scheme, default)
        places = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    elif re.search(r"\bhost(addr)?\s*=", address):
        pairs = dict(re.findall(r"(\w+)\s*=\s*'?([^'\s]*)", address))
        hosts = (pairs.get("hostaddr") or pairs["host"]).split(",")
        ports = (pairs.get("port") or str(default)).split(",")
        places = ",".join(f"{h}:{ports[min(i, len(ports) - 1)]}" for i, h in enumerate(hosts))
    else:
        places = address
    found = []
    for place in places.split(","):
        place = place.strip()
        if not place or place.startswith(("/", "%2F", "%2f")):
            continue  # a Unix socket
        with contextlib.suppress(ValueError):
            parts = urlsplit(f"//{place}")
            if parts.hostname:
                found.append((parts.hostname, parts.port or default))
    return found


def without_password(address: str) -> str:
    address = re.sub(r"(password\s*=\s*)\S+", r"\1***", address)
    return re.sub(r"(://[^:/@\s]*):[^@/]*@", r"\1:***@", address)

