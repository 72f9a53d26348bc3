"""Services as containers of docker-compose.yml, where a Docker engine answers."""
from __future__ import annotations

import functools
import json
import os
from pathlib import Path

from .core import ROOT, Failure, output, run_long

FILE = ROOT / "docker-compose.yml"


@functools.lru_cache(maxsize=None)
def engine() -> bool:
    """Whether a Docker engine answers, with compose."""
    return output(["docker", "info"], 5)[0] == 0 and output(["docker", "compose", "version"], 10)[0] == 0


def _compose(name: str, *args: str) -> list[str]:
    # Services that the demo does not need have a profile of their own name; others pass over it.
    return ["docker", "compose", "-f", str(FILE), "--profile", name, *args]


def find(name: str) -> tuple[str, int] | None:
    """The container of this service that runs already, and its port on the host."""
    code, text = output(_compose(name, "ps", "--quiet", "--status", "running", name))
    if code != 0 or len(text.split()) != 1:
        return None
    code, ports = output(["docker", "inspect", "--format", "{{json .NetworkSettings.Ports}}", text], 10)
    try:
        return text, next(int(b["HostPort"]) for bound in json.loads(ports).values() for b in bound or [])
    except (ValueError, KeyError, AttributeError, StopIteration):
        return None


def up(name: str, env: dict[str, str], log: Path) -> str:
    """Brings the service up, waits until it is healthy, and returns the id of its container."""
    env = {**os.environ, **env}
    run_long(name, "starting in Docker (the first time it pulls the image: a minute or so)",
             _compose(name, "up", "--detach", "--wait", "--wait-timeout", "180", name), log, env=env,
             hint=f"see: docker compose logs {name}; or without Docker: dev/services up --bare {name}")
    code, text = output(_compose(name, "ps", "--quiet", name), env=env)
    ids = text.split()
    if code != 0 or len(ids) != 1:
        raise Failure(f"{name}: no container after docker compose up: {text}", "", log)
    return ids[0]


def running(container: str) -> bool:
    if not container:
        return False
    code, text = output(["docker", "inspect", "--format", "{{.State.Running}}", container], 10)
    return code == 0 and text == "true"


def down(name: str, container: str, wipe: bool) -> str:
    """Ends the container that `up` started, and no other; with `wipe` its volumes too."""
    was = running(container)
    volumes = []
    if wipe:
        code, text = output(["docker", "inspect", "--format",
                             '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}', container], 10)
        volumes = text.split() if code == 0 else []
    if was:
        code, text = output(["docker", "stop", "-t", "30", container], 60)
        if code != 0:
            raise Failure(f"docker stop of {name} failed: {text}")
    if wipe:
        output(["docker", "rm", "--force", container], 30)
        for volume in volumes:
            output(["docker", "volume", "rm", volume], 30)
    return "ended" if was else "was not running"

