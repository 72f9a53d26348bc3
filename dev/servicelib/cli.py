"""The command line."""
from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys

from .connect import Connect
from .core import Failure, Usage, cache_root, port_from_env, tail, warn
from .kafka import Kafka
from .kubernetes import Kubernetes
from .mongodb import MongoDB
from .nocodb import NocoDB
from .postgres import Postgres
from .service import Service
from .versions import MONGODB, VERSIONS, MongoDBOf, PostgresOf

USUAL = ["mongodb", "postgres"]
ORDER = [MongoDB, Postgres, Kafka, Connect, NocoDB, Kubernetes]
SERVICES = Service.all
SERVICES.update({kind.name: kind() for kind in ORDER})
# Their `env` is that of the usual one.
OTHERS = {service.name: service for service in [*map(PostgresOf, VERSIONS), *map(MongoDBOf, MONGODB)]}
SERVICES.update(OTHERS)
APART = ["kubernetes", *OTHERS]  # for a purpose of their own: only by name

EXAMPLES = """\
services:
  mongodb postgres kafka connect nocodb, or all. Without a name: up and down mean mongodb and postgres,
  status and env mean all. kubernetes is brought up by its name only; `down all` ends it too. postgres-13 to postgres-18
  and mongodb-5.0, mongodb-6.0 are other versions beside the usual one, by name only; `env postgres-13` gives
  SLACKWATER_POSTGRES_URL of that one.

examples:
  dev/services up                        MongoDB and Postgres, ready for use
  eval "$(dev/services env)"             their addresses into this shell
  dev/services up all                    the others too (NocoDB takes minutes, the first time)
  dev/services up kubernetes             a node of Kubernetes (Linux and root; built from source, the first time)
  dev/services status --json             what runs, for programs
  dev/services down all                  ends what `up` started, and nothing else
  dev/services down --wipe postgres      and removes its data

environment:
  SLACKWATER_MONGODB_URI, SLACKWATER_POSTGRES_URL, SLACKWATER_KAFKA_BROKERS, SLACKWATER_CONNECT_URL,
  SLACKWATER_NOCODB_URL, SLACKWATER_KUBECONFIG
      a server that is there already: used, never started or ended
  SLACKWATER_MONGODB_PORT, SLACKWATER_POSTGRES_PORT, SLACKWATER_KAFKA_PORT,
  SLACKWATER_KAFKA_CONTROLLER_PORT, SLACKWATER_CONNECT_PORT, SLACKWATER_NOCODB_PORT
      ports on 127.0.0.1 (27117, 54329, 29092, 29093, 18083, 18080)
  SLACKWATER_CACHE     downloads, data, logs (default: $XDG_CACHE_HOME/slackwater, ~/.cache/slackwater)
  SLACKWATER_MONGOD, SLACKWATER_PG_BIN
      a mongod, a folder of Postgres programs to use instead of what would be found

exit codes: 0 ok, 1 failed, 2 usage
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="dev/services", epilog=EXAMPLES,
                                  formatter_class=argparse.RawDescriptionHelpFormatter,
                                  description="Starts and ends the servers that tests and examples need.")
    sub = top.add_subparsers(dest="command", metavar="up|down|status|env", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        p = sub.add_parser(name, help=text, description=text)
        p.add_argument("services", nargs="*", metavar="SERVICE", help=f"{', '.join(SERVICES)}, all")
        return p

    up = add("up", "start what does not run yet, and wait until it can be used")
    up.add_argument("--bare", action="store_true", help="without Docker, even where it answers")
    down = add("down", "end what `up` started")
    down.add_argument("--wipe", action="store_true", help="remove its data and logs too")
    status = add("status", "say what runs (code 1 if a named service is not up)")
    status.add_argument("--json", action="store_true", help="for programs")
    add("env", "print export lines for eval (code 1 if a named service is not up)")
    return top


def pick(names: list[str], otherwise: list[str], command: str) -> list[Service]:
    if "all" in names:
        left_out = {"up": APART, "env": list(OTHERS)}.get(command, [])
        names = [*names, *(n for n in SERVICES if n not in left_out)]
    unknown = [n for n in names if n not in SERVICES and n != "all"]
    if unknown:
        raise Usage(f"no service named {', '.join(unknown)}; there are: {', '.join(SERVICES)}, all")
    return [s for s in SERVICES.values() if s.name in (names or otherwise)]


def tell(e: Failure) -> None:
    warn(f"error: {e}")
    if e.log:
        for line in tail(e.log):
            warn(f"  | {line}")
        warn(f"  whole log: {e.log}")
    if e.hint:
        warn(f"  what to do: {e.hint}")


def up(services: list[Service], bare: bool) -> int:
    failed = 0
    for service in services:
        try:
            service.up(bare)
        except (Failure, OSError) as e:
            failed = 1
            tell(e if isinstance(e, Failure) else Failure(f"{service.name}: {e}", "", service.log))
    return failed


def down(services: list[Service], wipe: bool, named: bool) -> int:
    failed = 0
    for service in reversed(services):  # what leans on another ends before it
        try:
            for other in SERVICES.values():
                if other not in services and other.leans_on(service):
                    other.down()
            service.down(wipe)
        except Failure as e:
            failed = 1
            tell(e)
    left = [s.name for s in SERVICES.values() if s not in services and s.running(s.load())]
    if left and not named:
        print(f"still up: {' '.join(left)} (dev/services down {' '.join(left)})")
    return failed


def status(services: list[Service], named: bool, as_json: bool) -> int:
    rows = [s.status() for s in services]
    if as_json:
        print(json.dumps({"cache": str(cache_root()), "services": rows}, indent=1))
    else:
        for r in rows:
            how = {"bare": f"pid {r.get('pid')}", "docker": f"container {r.get('container')}",
                   "environment": "from the environment"}.get(r.get("how", ""), "")
            print(f"{r['name']:<10} {r['state']:<10} {how:<22} {r.get('url', '')}".rstrip())
    return 1 if named and any(r["state"] != "up" for r in rows) else 0


def env(services: list[Service], named: bool) -> int:
    missing = []
    for service in services:
        values = service.environment()
        if values is None:
            missing.append(service.name)
        for name, value in {**(values or {}), **service.tools()}.items():
            print(f"export {name}={shlex.quote(value)}")
    if missing and (named or len(missing) == len(services)):
        warn(f"not up: {' '.join(missing)} (dev/services up {' '.join(missing)})")
    return 1 if missing and named else 0


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
    os.umask(0o022)
    try:
        usual = USUAL if args.command in ("up", "down") else [n for n in SERVICES if n not in OTHERS]
        services = pick(args.services, usual, args.command)
        for service in SERVICES.values():
            for variable, _ in service.ports.values():
                port_from_env(variable)
        if args.command == "up":
            return up(services, args.bare)
        if args.command == "down":
            return down(services, args.wipe, bool(args.services))
        if args.command == "status":
            return status(services, bool(args.services), args.json)
        return env(services, bool(args.services))
    except Usage as e:
        warn(f"dev/services: {e}")
        return 2
    except Failure as e:
        tell(e)
        return 1
    except KeyboardInterrupt:
        warn("interrupted")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
