"""What every service shares: folders, locks, talk with the user, ports, processes."""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINUX = sys.platform.startswith("linux")
IS_ROOT = os.geteuid() == 0


class Failure(Exception):
    """Something that the user has to know: what went wrong, and what to do about it."""

    def __init__(self, message: str, hint: str = "", log: Path | None = None):
        super().__init__(message)
        self.hint = hint
        self.log = log


class Usage(Exception):
    """The command or its environment says something that cannot be."""


# --- folders -------------------------------------------------------------------------------------

def cache_root() -> Path:
    given = os.environ.get("SLACKWATER_CACHE")
    if given:
        return Path(os.path.abspath(os.path.expanduser(given)))
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.abspath(os.path.expanduser(base))) / "slackwater"


MARK = ".slackwater"  # is in every folder that `--wipe` may remove


def own_folder(path: Path, mode: int = 0o755) -> Path:
    """Makes a folder that is ours and marks it as such."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        (path / MARK).touch()
    except OSError as e:
        raise Failure(f"cannot write {path}: {e.strerror}", "set SLACKWATER_CACHE to a folder that can be written")
    return path


def state_root() -> Path:
    return own_folder(cache_root() / "state")


def remove_own(path: Path) -> None:
    """Removes a folder, but only one of ours."""
    if path.is_dir() and not path.is_symlink() and (path / MARK).exists():
        shutil.rmtree(path)


@contextlib.contextmanager
def locked(name: str):
    """One holder a name on this machine; the lock goes with the process, however it ends."""
    path = state_root() / f"{name}.lock"
    with open(path, "a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(name, "another dev/services is at work on it: waiting")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def built(final: Path):
    """A folder that is there as a whole or not at all: filled under another name, stamped, renamed.

    Yields None if it is there already, else the folder to fill. To be used under the service's lock.
    """
    if (final / ".complete").exists():
        yield None
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    for left in [final, *final.parent.glob(f"{final.name}.part-*")]:
        shutil.rmtree(left, ignore_errors=True)
    part = final.parent / f"{final.name}.part-{os.getpid()}"
    part.mkdir()
    try:
        yield part
        (part / ".complete").touch()
        part.rename(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    with open(part, "w") as f:
        os.chmod(part, mode)
        f.write(text)
    part.replace(path)


def read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text())
        return value if isinstance(value, dict) else {}
    except (OSError, ValueError):
        return {}


# --- talk ----------------------------------------------------------------------------------------

def say(who: str, text: str) -> None:
    print(f"{who}: {text}", flush=True)


def warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def tail(path: Path, lines: int = 15) -> list[str]:
    try:
        with open(path, "rb") as f:
            f.seek(0, os.SEEK_END)
            f.seek(max(0, f.tell() - 32768))
            return f.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []


def run_long(who: str, what: str, argv: list[str], log: Path, *, cwd: Path | None = None,
             env: dict | None = None, hint: str = "", limit: float = 1800) -> None:
    """Runs a long command with its output in a file, and shows that it goes on."""
    say(who, what)
    log.parent.mkdir(parents=True, exist_ok=True)
    began = shown = time.monotonic()
    with open(log, "ab") as out:
        out.write(f"\n$ {' '.join(argv)}\n".encode())
        out.flush()
        try:
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                     cwd=cwd, env=env, start_new_session=True)
        except OSError as e:
            raise Failure(f"cannot run {argv[0]}: {e.strerror}", hint)
    tty = sys.stdout.isatty()
    every = 0.5 if tty else 15
    try:
        while child.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            if now - began > limit:
                raise Failure(f"{argv[0]} is not done after {limit:.0f} s", hint, log)
            if now - shown >= every:
                shown = now
                last = (tail(log, 1) or [""])[0].strip()
                line = f"  {now - began:4.0f} s  {last}"
                print(f"\r\033[K{line[:shutil.get_terminal_size().columns - 1]}" if tty else line[:100],
                      end="" if tty else "\n", flush=True)
    finally:
        if tty and shown != began:
            print("\r\033[K", end="", flush=True)
        if child.poll() is None:  # interrupted, or too slow: nothing of it goes on
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode != 0:
        raise Failure(f"{argv[0]} failed (code {child.returncode})", hint, log)


def output(argv: list[str], timeout: float = 20, env: dict | None = None) -> tuple[int, str]:
    """Return code and output of a short command; 127 if it is not there, 124 if it takes too long."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=timeout, env=env)
        return done.returncode, done.stdout.decode("utf-8", "replace").strip()
    except OSError as e:
        return 127, str(e)
    except subprocess.TimeoutExpired:
        return 124, f"no answer in {timeout:.0f} s"


def apt_install(who: str, packages: list[str], why: str) -> None:
    """Installs Debian packages where we may, and otherwise says the exact command."""
    names = " ".join(packages)
    if not shutil.which("apt-get"):
        raise Failure(why, f"install what Debian calls {names}, then run this again")
    if not IS_ROOT:
        raise Failure(why, f"run: sudo apt-get install -y --no-install-recommends {names}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    log = state_root() / "logs" / "apt.log"
    wait = ["-q", "-o", "DPkg::Lock::Timeout=120"]
    with locked("apt"):
        say(who, why)
        run_long(who, "apt-get update", ["apt-get", *wait, "update"], log, env=env)
        run_long(who, f"apt-get install {names} (a minute or so)",
                 ["apt-get", *wait, "install", "-y", "--no-install-recommends", *packages], log, env=env,
                 hint=f"try by hand: apt-get install -y --no-install-recommends {names}")


# --- ports ---------------------------------------------------------------------------------------

def answers(host: str, port: int, timeout: float = 3.0) -> bool:
    try:
        socket.create_connection((host, port), timeout).close()
        return True
    except OSError:
        return False


def port_free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            s.listen(1)  # two may bind with REUSEADDR; only one may listen
        except OSError:
            return False
    return True


def port_from_env(name: str) -> int | None:
    text = os.environ.get(name, "")
    if not text:
        return None
    if not (text.isdigit() and 1 <= int(text) <= 65535):
        raise Usage(f"{name}={text}: a port is a number from 1 to 65535")
    return int(text)


def next_free(who: str, wanted: int, taken: set[int]) -> int:
    for port in range(wanted, min(wanted + 200, 65536)):
        if port not in taken and port_free(port):
            if port != wanted:
                say(who, f"port {wanted} is taken by someone else: using {port}")
            return port
    raise Failure(f"no free port from {wanted} on", f"set SLACKWATER_{who.upper()}_PORT")


# --- processes -----------------------------------------------------------------------------------

def identity(pid: int) -> str | None:
    """What tells one life of a pid from another: when it began. None if it does not run."""
    if LINUX:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZXx" else f"{boot}/{fields[19]}"
    code, text = output(["ps", "-o", "state=,lstart=", "-p", str(pid)])
    if code != 0 or not text or text.startswith("Z"):
        return None
    return re.sub(r"^\S+\s+", "", text)


def command_of(pid: int) -> str:
    """The command line of a process; empty where it cannot be seen."""
    if LINUX:
        try:
            return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
        except OSError:
            return ""
    code, text = output(["ps", "-o", "args=", "-p", str(pid)])
    return text if code == 0 else ""


def alive(state: dict) -> bool:
    pid, born = state.get("pid"), state.get("born")
    return isinstance(pid, int) and pid > 1 and born is not None and identity(pid) == born


def spawn(argv: list[str], log: Path, cwd: Path, env: dict | None = None, user: tuple[int, int] | None = None):
    """Starts a server that outlives us: own session, no terminal, no pipe of ours held open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    ids = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
    with contextlib.suppress(OSError):
        log.replace(log.with_name(log.name + ".old"))
    with open(log, "ab") as out:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd,
                                env=env, start_new_session=True, close_fds=True, **ids)


def end(state: dict, sig: int, bound: float) -> str:
    """Ends the process of this state and no other. Says how it went."""
    pid = state["pid"]
    handle = None
    if hasattr(os, "pidfd_open"):  # holds the process: a pid reused meanwhile is not hit
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)

    def send(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if handle is not None and hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(handle, number)
            else:
                os.kill(pid, number)

    def gone(within: float) -> bool:
        until = time.monotonic() + within
        while alive(state):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    try:
        if not alive(state):
            return "was not running"
        send(sig)
        if gone(bound):
            return "ended"
        send(signal.SIGKILL)
        if gone(10):
            return f"killed: it did not end by itself within {bound:.0f} s"
        raise Failure(f"process {pid} does not end", "see what holds it: ps -o pid,stat,wchan,cmd -p %d" % pid)
    except PermissionError:
        raise Failure(f"process {pid} belongs to another user", "run this as the user who started it")
    finally:
        if handle is not None:
            os.close(handle)
