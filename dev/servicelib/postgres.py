"""Postgres 15 or later, from the machine's packages, with a data folder and a port of its own."""
from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
import shutil
import signal
from pathlib import Path

from .core import (
    IS_ROOT,
    Failure,
    apt_install,
    cache_root,
    command_of,
    identity,
    output,
    own_folder,
    run_long,
    say,
    spawn,
    state_root,
)
from .service import Service

USER = "slackwater-pg"  # Postgres does not run as root
OLDEST = 15

CONF = """\
# Written at every start by dev/services. Durability stays as in production.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 256MB
max_wal_size = 4GB
log_line_prefix = '%m [%p] %q%u@%d '
"""


class Postgres(Service):
    name = "postgres"
    variable = "SLACKWATER_POSTGRES_URL"
    ports = {"port": ("SLACKWATER_POSTGRES_PORT", 54329)}
    default_port_of_protocol = 5432
    stop_signal = signal.SIGINT  # "fast": sessions are ended, nothing is lost
    retry_when = re.compile("pre-existing shared memory block|lock file .* already exists")

    def binaries(self) -> Path | None:
        """The folder of the newest Postgres here that is new enough."""
        found = []
        given = os.environ.get("SLACKWATER_PG_BIN")
        for folder in [Path(given)] if given else []:
            if self.major(folder) >= OLDEST:
                return folder
        folders = list(Path("/usr/lib/postgresql").glob("*/bin"))
        code, text = output(["pg_config", "--bindir"], 5)
        if code == 0:
            folders.append(Path(text))
        found = sorted((self.major(f), str(f)) for f in folders)
        return Path(found[-1][1]) if found and found[-1][0] >= OLDEST else None

    @staticmethod
    def major(folder: Path) -> int:
        if not all(os.access(folder / p, os.X_OK) for p in ("initdb", "postgres", "psql")):
            return 0
        code, text = output([str(folder / "postgres"), "--version"], 5)
        number = re.search(r"\) (\d+)", text)
        return int(number.group(1)) if code == 0 and number else 0

    def tools(self) -> dict[str, str]:
        folder, pooler = self.binaries(), self.pooler()
        return {**({"SLACKWATER_PG_BIN": str(folder)} if folder else {}),
                **({"SLACKWATER_PGBOUNCER": pooler} if pooler else {})}

    @staticmethod
    def pooler() -> str | None:
        """PgBouncer, which Debian puts where only root's path looks."""
        return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")

    def get_companions(self) -> None:
        """What tests put beside Postgres: a pooler in front of it, certificates for it. It serves without them, too."""
        missing = [name for name, there in (("pgbouncer", self.pooler()), ("openssl", shutil.which("openssl"))) if not there]
        if missing and not os.environ.get("SLACKWATER_PGBOUNCER"):
            try:
                apt_install(self.name, missing, f"{' and '.join(missing)} (for tests of connections) is not there")
            except Failure as e:
                say(self.name, f"{e}: {e.hint}")

    # --- the user and the folder -----------------------------------------------------------------

    def user(self) -> tuple[int, int] | None:
        if not IS_ROOT:
            return None
        try:
            entry = pwd.getpwnam(USER)
        except KeyError:
            code, text = output(["useradd", "--system", "--user-group", "--no-create-home", "--home-dir",
                                 "/nonexistent", "--shell", "/usr/sbin/nologin", USER])
            if code not in (0, 9):  # 9: somebody made it meanwhile
                raise Failure(f"cannot make the user {USER}: {text}", "make it, or run this as a user that is not root")
            entry = pwd.getpwnam(USER)
        return entry.pw_uid, entry.pw_gid

    @property
    def folder(self) -> Path:
        """In the state folder; but where root's cache is closed to others, under /var/tmp."""
        inside = state_root() / self.name
        if not IS_ROOT:
            return inside
        above = [p for p in inside.parents if p.exists()]
        if all(p.stat().st_mode & 0o001 for p in above):
            return inside
        key = hashlib.sha256(str(cache_root()).encode()).hexdigest()[:8]
        base = Path(f"/var/tmp/slackwater-{os.geteuid()}")
        base.mkdir(mode=0o755, exist_ok=True)
        if base.is_symlink() or base.stat().st_uid != os.geteuid():
            raise Failure(f"{base} belongs to somebody else", "remove it, or set SLACKWATER_CACHE")
        return base / key / self.name

    # --- up --------------------------------------------------------------------------------------

    def prepare(self) -> None:
        if not self.binaries():
            conf = Path("/etc/postgresql-common/createcluster.conf")
            if IS_ROOT and shutil.which("apt-get") and not conf.exists():
                with contextlib.suppress(OSError):  # the package would start a server of its own
                    conf.parent.mkdir(parents=True, exist_ok=True)
                    conf.write_text("create_main_cluster = false\n")
            newest = f"postgresql-{OLDEST}"
            code, text = output(["apt-cache", "search", "--names-only", r"^postgresql-[0-9]+$"])
            numbers = [int(n) for n in re.findall(r"^postgresql-(\d+) ", text, re.M)] if code == 0 else []
            if numbers and OLDEST not in numbers:
                newest = f"postgresql-{max(numbers)}"
            apt_install(self.name, [newest], f"Postgres {OLDEST} or later is not there")
            if not self.binaries():
                raise Failure("Postgres is still not there", "set SLACKWATER_PG_BIN to the folder of its programs")

    def launch(self, state: dict):
        pg, user = self.binaries(), self.user()
        own_folder(self.folder)
        data = self.folder / f"data-{self.major(pg)}"
        if not (data / "PG_VERSION").exists():
            self.initdb(pg, data, user)
        (data / "slackwater.conf").write_text(CONF)
        self.forget_stale_pid(data)
        return spawn([str(pg / "postgres"), "-D", str(data), "-p", str(state["port"])], self.log, data, user=user,
                     env={k: v for k, v in os.environ.items() if not k.startswith("PG")})

    def initdb(self, pg: Path, data: Path, user: tuple[int, int] | None) -> None:
        for left in [data, *data.parent.glob(f"{data.name}.part*")]:
            shutil.rmtree(left, ignore_errors=True)
        part = data.with_name(f"{data.name}.part")
        part.mkdir(mode=0o700)
        argv = [str(pg / "initdb"), "-D", str(part), "-U", "slackwater", "-A", "trust", "-E", "UTF8",
                "--locale", "C.UTF-8" if "C.utf8" in output(["locale", "-a"])[1] else "C"]
        if user:
            os.chown(part, *user)
            argv = ["setpriv", f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups", *argv]
        run_long(self.name, "making a data folder (3 seconds)", argv, self.folder / "initdb.log", cwd=self.folder,
                 hint=f"is there room, and may {USER if user else 'you'} write {self.folder}?")
        with open(part / "postgresql.conf", "a") as f:
            f.write("\ninclude 'slackwater.conf'\n")
        part.rename(data)

    def forget_stale_pid(self, data: Path) -> None:
        """Takes away a postmaster.pid that would stop Postgres from starting for nothing.

        After a crash its pid may be some other program's by now, or that of a dead process which nobody has
        waited for. Server processes that are left over are found by Postgres itself, by their shared memory.
        """
        try:
            pid = int((data / "postmaster.pid").read_text().split("\n")[0])
            os.kill(pid, 0)
        except PermissionError:
            pass  # it runs
        except (OSError, ValueError):
            return  # no such file, or no such process: Postgres sees to that
        command = command_of(pid)
        if identity(pid) is None or (command and "postgres" not in command and "postmaster" not in command):
            (data / "postmaster.pid").unlink()

    def client(self) -> Path | None:
        """The folder of psql."""
        return self.binaries()

    def psql(self, port: int, sql: str, database: str = "postgres") -> tuple[int, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        env["PGCONNECT_TIMEOUT"] = "5"
        return output([str(self.client() / "psql"), "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", str(port),
                       "-U", "slackwater", "-d", database, "-c", sql], 10, env)

    def probe(self, state: dict) -> str | None:
        code, text = self.psql(state["port"], "select 1")
        return None if code == 0 and text == "1" else f"no answer yet ({text.splitlines()[-1] if text else code})"

    def settle(self, state: dict) -> None:
        self.get_companions()
        if state["how"] == "bare":
            self.create_database(state["port"], "slackwater")

    def create_database(self, port: int, name: str) -> None:
        code, text = self.psql(port, f"select 1 from pg_database where datname = '{name}'")
        if code == 0 and text == "1":
            return
        code, text = self.psql(port, f"create database {name}")
        if code != 0 and "already exists" not in text:
            raise Failure(f"cannot make the database {name}: {text}", "", self.log)
        say(self.name, f"made the database {name}")

    def exports(self, state: dict) -> dict[str, str]:
        return {self.variable: f"postgres://slackwater@127.0.0.1:{state['port']}/slackwater"}
