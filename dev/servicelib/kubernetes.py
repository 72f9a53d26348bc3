"""Kubernetes 1.33, one node: etcd, its servers, containerd and a kubelet, each a process of its own.

Its programs are built from source (`golang.py`), its configuration is in `cluster.py`. Pods are not children of the
kubelet and outlive it: `down` ends them too, and gives back what they had mounted. Only what lies in our own folder
is touched, and only processes that were started here.
"""
from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from . import cluster, golang
from .core import (
    IS_ROOT,
    LINUX,
    Failure,
    alive,
    apt_install,
    end,
    identity,
    locked,
    output,
    own_folder,
    run_long,
    say,
    spawn,
    warn,
    write_atomic,
)
from .service import Service

PACKAGES = {"/usr/bin/etcd": "etcd-server", "/usr/bin/containerd": "containerd", "/usr/sbin/runc": "runc",
            "/usr/lib/cni/ptp": "containernetworking-plugins"}
# The kubelet sets these to what it likes for the whole machine; they are put back.
TUNABLES = ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
            "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"]
STOP = ["kubelet", "scheduler", "controllers", "apiserver", "containerd", "etcd"]


class Kubernetes(Service):
    name = "kubernetes"
    variable = "SLACKWATER_KUBECONFIG"
    ports = {"port": ("SLACKWATER_KUBERNETES_PORT", 16443), "etcd_port": ("SLACKWATER_ETCD_PORT", 12379),
             "etcd_peer_port": ("SLACKWATER_ETCD_PEER_PORT", 12380)}
    takes = "about 30 seconds"
    start_bound = 240.0

    def docker_fits(self) -> bool:
        return False

    @property
    def programs(self) -> Path:
        return Path(self.load()["programs"])

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def running(self, state: dict) -> bool:
        parts = state.get("parts", {})
        return all(alive(parts.get(part, {})) for part in STOP)

    # --- up --------------------------------------------------------------------------------------

    def prepare(self) -> None:
        if not (LINUX and IS_ROOT):
            raise Failure("a node of Kubernetes needs Linux and root",
                          f"set {self.variable} to the kubeconfig of a cluster that is there, or run this as root")
        missing = [package for file, package in PACKAGES.items() if not Path(file).exists()]
        if missing:
            apt_install(self.name, missing, "what Kubernetes needs is missing")
        golang.kubernetes(self.name)

    def up_bare(self, state: dict) -> None:
        try:
            super().up_bare(state)
        except BaseException:
            self.end_all(self.load())
            raise

    def launch(self, state: dict) -> subprocess.Popen:
        """Starts the parts in the order in which they need each other; the kubelet is the last."""
        self.end_all(state)  # what a broken-off `up` left
        state.update(how="bare", parts={}, programs=str(golang.kubernetes(self.name)))
        state["tunables"] = {name: Path("/proc/sys", name).read_text().strip() for name in TUNABLES}
        own_folder(self.folder)
        self.save(state)
        cluster.write_settings(self.folder, state)
        if not self.kubeconfig.exists():
            cluster.write_secrets(self.folder)
        write_atomic(self.kubeconfig, cluster.kubeconfig(self.folder, state["port"]), 0o600)
        parts = cluster.commands(self.folder, self.programs, state)
        self.start(state, "etcd", parts, lambda: self.etcd_lacks(state))
        self.start(state, "containerd", parts, self.containerd_lacks)
        self.add_pause()
        self.start(state, "apiserver", parts, self.apiserver_lacks)
        self.start(state, "controllers", parts)
        self.start(state, "scheduler", parts)
        return self.start(state, "kubelet", parts)

    def start(self, state: dict, part: str, commands: dict[str, list[str]], lacks=lambda: None) -> subprocess.Popen:
        log = self.log if part == "kubelet" else self.folder / f"{part}.log"
        server = spawn(commands[part], log, self.folder)
        born = {"pid": server.pid, "born": identity(server.pid)}
        state["parts"][part] = born
        if part == "kubelet":  # the last one counts for all of them
            state.update(born)
        self.save(state)  # at once: whatever happens from here on, `down` finds it
        until = time.monotonic() + self.start_bound
        while (missing := lacks()) is not None:
            if server.poll() is not None:
                raise Failure(f"{part} ended while it started (code {server.returncode})", "", log)
            if time.monotonic() > until:
                raise Failure(f"{part} is not ready after {self.start_bound:.0f} s: {missing}", "", log)
            time.sleep(0.1)
        return server

    def etcd_lacks(self, state: dict) -> str | None:
        return cluster.unhealthy(f"http://127.0.0.1:{state['etcd_port']}/health")

    def containerd_lacks(self) -> str | None:
        code, text = self.ctr("version")
        return None if code == 0 else text

    def apiserver_lacks(self) -> str | None:
        code, text = self.kubectl("get", "--raw", "/readyz")
        return None if code == 0 else text

    def probe(self, state: dict) -> str | None:
        """The node is ready, and the account exists that pods are made with."""
        code, text = self.kubectl("get", "node", cluster.NODE, "-o", "jsonpath={range .status.conditions[?(@.type=='Ready')]}"
                                  "{.status} {.lastHeartbeatTime}{end}")
        status, _, beat = text.partition(" ")
        if code != 0 or status != "True":
            return f"the node is not ready ({status if code == 0 else text})"
        if beat < time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(state["started"] - 2)):
            return "the node has not been heard of since the start"
        code, text = self.kubectl("get", "serviceaccount", "default")
        return None if code == 0 else text

    def kubectl(self, *args: str) -> tuple[int, str]:
        return output([str(self.programs / "kubectl"), f"--kubeconfig={self.kubeconfig}", "--request-timeout=10s",
                       *args], 20)

    def ctr(self, *args: str, timeout: float = 20) -> tuple[int, str]:
        return output(["ctr", "-n", "k8s.io", "-a", str(self.socket), *args], timeout)

    def add_pause(self) -> None:
        archive = self.folder / "pause.tar"
        cluster.write_pause_image(self.programs / "pause", archive)
        run_long(self.name, "adding the image that holds a pod's namespaces",
                 ["ctr", "-n", "k8s.io", "-a", str(self.socket), "images", "import", str(archive)],
                 self.folder / "import.log")

    # --- down ------------------------------------------------------------------------------------

    def down(self, wipe: bool = False) -> None:
        with locked(self.name):
            state = self.load()
            said = "ended" if self.running(state) else "what was left of it is ended" if state.get("parts") else \
                "was not started by dev/services"
            self.end_all(state)
            for gone in ("pid", "born", "how", "programs"):
                state.pop(gone, None)
            if wipe and self.folder.exists():
                self.wipe()
                said += "; data removed"
            elif state:
                self.save(state)
            say(self.name, said)

    def end_all(self, state: dict) -> None:
        """Ends the parts in the order in which they can do without each other, pods before containerd."""
        parts = state.get("parts", {})
        for part in STOP:
            if part == "containerd":
                self.end_pods(parts)
            if part in parts:
                end(parts[part], signal.SIGTERM, self.stop_bound)
        for name, value in state.get("tunables", {}).items():
            with contextlib.suppress(OSError):
                Path("/proc/sys", name).write_text(value)
        state["parts"], state["tunables"] = {}, {}
        if self.folder.exists():
            self.unmount()
            self.save(state)

    def end_pods(self, parts: dict) -> None:
        if not alive(parts.get("containerd", {})):
            return
        for container in self.ctr("containers", "ls", "-q")[1].split():
            network = re.search(r'"path": "(/(?:var/)?run/netns/cni-[\w-]+)"', self.ctr("containers", "info", container)[1])
            self.ctr("tasks", "rm", "--force", container)
            self.ctr("containers", "rm", container)
            if network:
                output(["umount", network.group(1)])
                Path(network.group(1)).unlink(missing_ok=True)
        left = self.ctr("tasks", "ls", "-q")[1].split()
        if left:
            warn(f"{self.name}: containers that did not end: {' '.join(left)}")

    def unmount(self) -> None:
        """What pods and containers had mounted below our folder, the innermost first."""
        ours = str(self.folder) + os.sep
        mounts = [line.split()[1].encode().decode("unicode_escape") for line in open("/proc/mounts")]
        for place in sorted((m for m in mounts if m.startswith(ours)), key=len, reverse=True):
            output(["umount", place])

    def wipe(self) -> None:
        self.unmount()
        super().wipe()

    # --- what others get -------------------------------------------------------------------------

    def exports(self, state: dict) -> dict[str, str]:
        return {self.variable: str(self.kubeconfig), "SLACKWATER_CONTAINERD": str(self.socket),
                "SLACKWATER_POD_LOGS": str(self.folder / "pods"), "SLACKWATER_KUBECTL": golang.kubectl(self.name)}
