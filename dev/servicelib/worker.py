"""The connectors of a Kafka Connect worker, by its REST interface."""
from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from urllib.parse import quote, unquote, urlsplit

LIMIT = 60  # seconds for what is a matter of a few


class Trouble(Exception):
    """The worker, or a connector, does not do what it should."""


class Worker:
    def __init__(self, url: str):
        self.url = url.rstrip("/")

    # --- a connector's life ------------------------------------------------------------------------

    def make(self, name: str, settings: dict[str, str], tasks: int) -> None:
        """Makes a connector and waits until so many of its tasks run."""
        self.ask("POST", "/connectors", {"name": name, "config": settings})
        until = time.monotonic() + LIMIT
        while True:
            states = self.check(name)
            if states.count("RUNNING") == len(states) > tasks:
                return
            if time.monotonic() > until:
                raise Trouble(f"{name} does not run after {LIMIT} s: {', '.join(states) or 'no word of it'}")
            time.sleep(0.1)

    def remove(self, name: str) -> None:
        """Ends a connector and forgets how far it was; that there is none is fine."""
        if self.ask("PUT", f"/connectors/{quote(name)}/stop", fine=(404,))[0] == 404:
            return
        until = time.monotonic() + LIMIT
        while self.states(name) != ["STOPPED"]:
            if time.monotonic() > until:
                raise Trouble(f"{name} does not stop")
            time.sleep(0.1)
        # The group of a sink that never got anything is not there.
        self.ask("DELETE", f"/connectors/{quote(name)}/offsets", fine=(400, 404, 500))
        self.ask("DELETE", f"/connectors/{quote(name)}", fine=(404,))

    def states(self, name: str) -> list[str]:
        """The state of the connector and those of its tasks; empty while the worker has no word of it."""
        return [part["state"] for part in self.parts(name)]

    def check(self, name: str) -> list[str]:
        """The same; raises when the connector, or one of its tasks, has failed."""
        parts = self.parts(name)
        for part in parts:
            if part["state"] == "FAILED":
                raise Trouble(f"{name} has failed: {causes(part.get('trace', ''))}")
        return [part["state"] for part in parts]

    def parts(self, name: str) -> list[dict]:
        code, answer = self.ask("GET", f"/connectors/{quote(name)}/status", fine=(404,))
        return [answer["connector"], *answer["tasks"]] if code == 200 else []

    def reached(self, name: str, topic: str) -> dict[int, int]:
        """The offsets that a sink has written everything before."""
        code, answer = self.ask("GET", f"/connectors/{quote(name)}/offsets", fine=(404,))
        found = {}
        for each in answer.get("offsets", []) if code == 200 else []:
            where, offset = each["partition"], each["offset"]
            if offset and where.get("kafka_topic") == topic:
                found[int(where["kafka_partition"])] = int(offset["kafka_offset"])
        return found

    # --- requests ----------------------------------------------------------------------------------

    def plugins(self) -> dict[str, str]:
        """The classes of connectors that were found, and their versions."""
        return {plugin["class"]: plugin["version"] for plugin in self.ask("GET", "/connector-plugins")[1]}

    def ask(self, method: str, path: str, body: dict | None = None, fine: tuple[int, ...] = ()):
        """One request; again while the worker is busy with placing tasks."""
        until = time.monotonic() + LIMIT
        while True:
            code, answer = request(self.url + path, method, body)
            if code < 300 or code in fine:
                return code, answer
            if code != 409 or "rebalance" not in str(answer) or time.monotonic() > until:
                said = answer.get("message") if isinstance(answer, dict) else None
                raise Trouble(f"{method} {path}: {code} {said or answer}")
            time.sleep(0.2)


def request(url: str, method: str = "GET", body: dict | None = None):
    """The status, and the answer if it is JSON."""
    ask = urllib.request.Request(url, method=method, data=json.dumps(body).encode() if body is not None else None,
                                 headers={"content-type": "application/json"})
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with straight.open(ask, timeout=LIMIT) as answer:
            code, raw = answer.status, answer.read()
    except urllib.error.HTTPError as e:
        code, raw = e.code, e.read()
    except http.client.HTTPException as e:
        raise OSError(f"no answer of HTTP: {e}") from e
    try:
        return code, json.loads(raw) if raw else {}
    except ValueError:
        return code, {"message": raw[:200].decode("utf-8", "replace")}


def causes(trace: str) -> str:
    """The messages of a Java stack trace, without the stack and without the values that Postgres tells."""
    lines = [line for line in trace.splitlines() if re.match(r"(Caused by: )?[\w.$]+(Exception|Error)\b", line)]
    said = dict.fromkeys(line.removeprefix("Caused by: ").partition(" VALUES ")[0][:300].strip() for line in lines)
    return " / ".join(said) or "it does not say why"


def jdbc(url: str) -> dict[str, str]:
    """The settings of a JDBC connector that say which Postgres."""
    there = urlsplit(url)
    if there.scheme not in ("postgres", "postgresql") or not there.hostname:
        raise Trouble("a Postgres URL is wanted: postgres://user:password@host:port/database")
    settings = {"connection.url": f"jdbc:postgresql://{there.hostname}:{there.port or 5432}{there.path}" +
                                  (f"?{there.query}" if there.query else ""),
                "connection.username": unquote(there.username or "postgres")}
    # A password that is not asked for must not be empty for the connector.
    return {**settings, "connection.password": unquote(there.password or "none")}
