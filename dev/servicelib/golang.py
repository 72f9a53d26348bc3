"""Go, and programs that are built from dev/kubernetes/go.mod into the cache."""
from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from .core import ROOT, apt_install, built, cache_root, output, run_long, state_root

SOURCE = ROOT / "dev" / "kubernetes"
KUBERNETES = "v1.33.1"  # as in go.mod
OLDEST = (1, 21)        # from here on Go gets the newer one that a go.mod asks for by itself
TOOLCHAIN = "golang.org/toolchain@v0.0.1-go1.24.13.linux-amd64"


def version(go: str) -> tuple[int, ...]:
    code, text = output([go, "env", "GOVERSION"])
    found = re.fullmatch(r"go(\d+)\.(\d+).*", text)
    return tuple(int(n) for n in found.groups()) if code == 0 and found else ()


def need_go(who: str) -> str:
    """A Go that can build Kubernetes: the machine's, or one that Debian's old one gets as a module."""
    if not shutil.which("go"):
        apt_install(who, ["golang-go"], "Go is not there; it builds Kubernetes")
    if version("go") >= OLDEST:
        return "go"
    with tempfile.TemporaryDirectory() as empty:
        env = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "on"}
        run_long(who, "getting a newer Go (70 MB)", ["go", "mod", "download", TOOLCHAIN],
                 state_root() / "logs" / "go.log", cwd=Path(empty), env=env, hint="install Go 1.24 or later")
    where = Path(output(["go", "env", "GOMODCACHE"])[1]) / TOOLCHAIN
    for program in [*(where / "bin").iterdir(), *where.glob("pkg/tool/*/*")]:
        program.chmod(0o755)  # a module's files have no run bit
    return str(where / "bin" / "go")


def bring(who: str, name: str, takes: str, packages: list[str], sources: list[str]) -> Path:
    """A folder of programs, by what they are built from: go.mod, go.sum, and our own `sources`."""
    digest = hashlib.sha256()
    for file in ["go.mod", "go.sum", *sources]:
        digest.update((SOURCE / file).read_bytes())
    final = cache_root() / f"{name}-{digest.hexdigest()[:12]}"
    with built(final) as folder:
        if folder:
            go = need_go(who)
            stamp = {"k8s.io/component-base/version.gitVersion": KUBERNETES,
                     "k8s.io/component-base/version.gitMajor": "1", "k8s.io/component-base/version.gitMinor": "33"}
            flags = " ".join(["-s -w", *(f"-X {key}={value}" for key, value in stamp.items())])
            nice = ["nice", "-n", "10"] if shutil.which("nice") else []
            run_long(who, f"building {name} from source ({takes})",
                     [*nice, go, "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", f"{folder}/", *packages],
                     state_root() / "logs" / f"{name}-build.log", cwd=SOURCE, env={**os.environ, "CGO_ENABLED": "0"},
                     limit=7200, hint="is the Go module proxy in reach, and 6 GB of room?")
    return final


def kubernetes(who: str) -> Path:
    """The servers of Kubernetes, and what holds a pod's namespaces."""
    return bring(who, "kubernetes", "7 minutes on two idle cores", ["tool", "./pause"], ["pause/main.go"])


def kubectl(who: str) -> str:
    """The machine's kubectl, else one that is built with the servers."""
    return shutil.which("kubectl") or str(kubernetes(who) / "kubectl")


def manifests(who: str) -> Path:
    """The program that checks manifests."""
    return bring(who, "manifests", "2 minutes", ["./manifests"], ["manifests/main.go"]) / "manifests"
