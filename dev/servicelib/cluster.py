"""The configuration of a Kubernetes of one node: everything on loopback, everything in one folder."""
from __future__ import annotations

import hashlib
import io
import json
import secrets
import tarfile
import urllib.request
from pathlib import Path

from .core import Failure, output, write_atomic

NODE = "slackwater"
PAUSE = "slackwater.dev/pause:1"
SERVICES = "10.96.0.0/16"
PODS = "10.97.0.0/16"


def commands(folder: Path, programs: Path, state: dict) -> dict[str, list[str]]:
    """The command line of each part."""
    etcd, peer = (f"http://127.0.0.1:{state[key]}" for key in ("etcd_port", "etcd_peer_port"))
    accounts, config = folder / "accounts.key", f"--kubeconfig={folder / 'kubeconfig'}"
    return {
        "etcd": ["etcd", "--name", NODE, "--data-dir", str(folder / "etcd"),
                 "--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", peer,
                 "--initial-advertise-peer-urls", peer, "--initial-cluster", f"{NODE}={peer}",
                 "--unsafe-no-fsync"],
        "containerd": ["containerd", "--config", str(folder / "containerd.toml")],
        "apiserver": [str(programs / "kube-apiserver"), "--etcd-servers", etcd, "--bind-address=127.0.0.1",
                      "--advertise-address=127.0.0.1", f"--secure-port={state['port']}",
                      f"--cert-dir={folder / 'certificates'}", f"--token-auth-file={folder / 'tokens.csv'}",
                      "--authorization-mode=Node,RBAC", "--service-account-issuer=https://kubernetes.default.svc",
                      f"--service-account-key-file={accounts}", f"--service-account-signing-key-file={accounts}",
                      f"--service-cluster-ip-range={SERVICES}", "--endpoint-reconciler-type=none"],
        "controllers": [str(programs / "kube-controller-manager"), config, "--leader-elect=false", "--secure-port=0",
                        f"--service-account-private-key-file={accounts}", "--use-service-account-credentials=false"],
        "scheduler": [str(programs / "kube-scheduler"), config, "--leader-elect=false", "--secure-port=0"],
        "kubelet": [str(programs / "kubelet"), config, f"--config={folder / 'kubelet.json'}",
                    f"--root-dir={folder / 'kubelet'}", f"--cert-dir={folder / 'certificates'}",
                    f"--hostname-override={NODE}", "--node-ip=127.0.0.1"],
    }


def write_settings(folder: Path, state: dict) -> None:
    for name in ("certificates", "cni", "kubelet", "pods"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "containerd.toml").write_text(f"""\
# Written at every start by dev/services.
version = 2
root = "{folder / 'containerd'}"
state = "{folder / 'containerd-state'}"
[grpc]
  address = "{folder / 'containerd.sock'}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder / 'cni'}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder / 'opt'}"
""")
    network = {"cniVersion": "0.4.0", "name": NODE, "plugins": [
        {"type": "ptp", "ipam": {"type": "host-local", "subnet": PODS, "dataDir": str(folder / "addresses")}}]}
    (folder / "cni" / "10-slackwater.conflist").write_text(json.dumps(network, indent=1) + "\n")
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "enableServer": False,  # nobody asks it: the API server follows no address on loopback
        "healthzPort": 0, "readOnlyPort": 0, "podLogsDir": str(folder / "pods"),
        "volumePluginDir": str(folder / "plugins"),
        "containerRuntimeEndpoint": f"unix://{folder / 'containerd.sock'}",
        "cgroupDriver": "cgroupfs", "failCgroupV1": False, "cgroupsPerQOS": False, "enforceNodeAllocatable": [],
        "failSwapOn": False, "localStorageCapacityIsolation": False, "makeIPTablesUtilChains": False,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        # A full disk of the machine is not a reason to end pods or to remove our image.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
    }
    (folder / "kubelet.json").write_text(json.dumps(kubelet, indent=1) + "\n")


def write_secrets(folder: Path) -> None:
    """The key that signs accounts, and the token of the one user there is."""
    code, text = output(["openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048"], 60)
    if code != 0:
        raise Failure(f"openssl makes no key: {text}", "install openssl")
    (folder / "accounts.key").chmod(0o600)
    write_atomic(folder / "tokens.csv", f"{secrets.token_hex(16)},developer,1,system:masters\n", 0o600)


def kubeconfig(folder: Path, port: int) -> str:
    token = (folder / "tokens.csv").read_text().split(",")[0]
    return json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": NODE,
        "clusters": [{"name": NODE, "cluster": {"server": f"https://127.0.0.1:{port}",
                                                "insecure-skip-tls-verify": True}}],
        "users": [{"name": NODE, "user": {"token": token}}],
        "contexts": [{"name": NODE, "context": {"cluster": NODE, "user": NODE}}],
    }, indent=1) + "\n"


def unhealthy(url: str) -> str | None:
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with straight.open(url, timeout=5):
            return None
    except OSError as e:
        return f"no answer yet ({e})"


def write_pause_image(program: Path, archive: Path) -> None:
    """An image of one file, in the form of `docker save`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = program.stat().st_size, 0o755
        with open(program, "rb") as f:
            tar.addfile(entry, f)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"]},
                         "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(archive, "w") as tar:
        for name, content in (("layer.tar", layer.getvalue()), ("config.json", config), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
