"""A node for a real control plane: a real kubelet with real processes, or one that plays it."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers import node_cleanup
from tests.servers.binaries import binary
from tests.servers.control_plane import ControlPlane, answers, wait_for_node
from tests.servers.https import Http
from tests.servers.images import BUSYBOX, PAUSE, write_images
from tests.servers.pods import ABRUPT_IMAGE, IMAGE, Event, pod_template, read_events
from tests.servers.processes import Program, ServerError, finally_run, forget, free_port

START_S = 30.0
_HERE = Path(__file__).parent
_PROGRAMS = ("containerd", "ctr", "containerd-shim-runc-v2", "runc", "ip", "iptables", "umount")


def why_no_node() -> str:
    """Return why a real node cannot run on this machine, or "" when it can."""
    if os.geteuid() != 0:
        return "a real node needs root"
    writable = [path for path in node_cleanup.hierarchies() if os.access(path, os.W_OK)]
    if not writable or not all(_takes_folders(path) for path in writable):
        return "a real node needs cgroups that can be written"
    return ""


class Node:
    """A kubelet, a scheduler and containerd, joined to a control plane as "node1"; takes root."""

    real = True
    image, abrupt_image = IMAGE, ABRUPT_IMAGE

    def __init__(self, control_plane: ControlPlane, folder: Path | None = None) -> None:
        self.control_plane = control_plane
        self.folder = folder or control_plane.folder / "node"
        # Also the name of its bridge, so a short one.
        self.name = f"ks{secrets.token_hex(3)}"
        self.truth_folder = self.folder / "truth"
        self._programs: dict[str, Program] = {}
        self._lock: int | None = None
        self._kubelet_port, self._health_port = free_port(), free_port()
        self._scheduler_port = free_port()

    def __enter__(self) -> Self:
        demand_programs()
        try:
            self._prepare()
            self._start_containerd()
            self._start_scheduler()
            self.start_kubelet()
            self._start_truth()
            wait_for_node(self.control_plane, self._programs["kubelet"])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def truth(self) -> list[Event]:
        """Return what the processes did, in order; their end as seen from outside."""
        seen = read_events(self.truth_folder / "seen.jsonl")
        told = read_events(self.truth_folder / "told.jsonl")
        return sorted((*seen, *told), key=lambda event: event.t)

    def pod_template(self, **arguments: Any) -> dict[str, Any]:
        """Return metadata and spec of a pod: see `pods.pod_template`."""
        return pod_template(truth_folder=str(self.truth_folder), **arguments)

    def pod_spec(self, **arguments: Any) -> dict[str, Any]:
        """Return just the spec of `pod_template`."""
        spec: dict[str, Any] = self.pod_template(**arguments)["spec"]
        return spec

    def start_kubelet(self) -> None:
        """Start the kubelet (again)."""
        arguments = {
            "config": self._kubelet_config(),
            "kubeconfig": self.control_plane.admin_kubeconfig,
            "root-dir": self.folder / "kubelet",
            "hostname-override": "node1",
        }
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        log = self.folder / "kubelet.log"
        self._programs["kubelet"] = Program([binary("kubelet"), *flags], log)

    def kill_kubelet(self) -> None:
        """End the kubelet at once; its pods run on."""
        self._programs.pop("kubelet").kill()

    @property
    def kubelet(self) -> Program:
        """The running kubelet, which a test may stop and continue by signals."""
        return self._programs["kubelet"]

    def stop(self) -> None:
        """End everything and take away what it left on the machine."""
        for name in ("kubelet", "scheduler", "truth"):
            if name in self._programs:
                self._programs.pop(name).kill()
        if "containerd" in self._programs:
            containerd = self._programs.pop("containerd")
            node_cleanup.clean(self.folder, self.name)
            containerd.kill()
        node_cleanup.clean(self.folder, self.name)
        if self._lock is not None:
            node_cleanup.restore_settings(self._lock)
            self._lock = None
        forget(self.name)

    def _prepare(self) -> None:
        for part in ("run", "lib", "cni", "truth", "kubelet", "logs", "flex"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self.truth_folder.chmod(0o777)
        told = self.truth_folder / "told.jsonl"
        told.touch()
        told.chmod(0o666)
        cleanup: list[str | Path] = [
            sys.executable,
            "-I",
            _HERE / "node_cleanup.py",
            self.folder,
            self.name,
        ]
        finally_run(self.name, cleanup)
        self._lock = node_cleanup.save_settings()
        for hierarchy in node_cleanup.hierarchies():
            make_cgroup(hierarchy / self.name)

    def _start_containerd(self) -> None:
        config, network = self.folder / "containerd.toml", self.folder / "cni/10-bridge.conflist"
        config.write_text(_CONTAINERD.format(folder=self.folder, image=IMAGE))
        subnet = f"10.88.{secrets.randbelow(254) + 1}.0/24"
        network.write_text(json.dumps(_network(self.name, self.folder / "ipam", subnet)))
        containerd = Program(["containerd", "-c", config], self.folder / "containerd.log")
        self._programs["containerd"] = containerd
        containerd.wait_until(lambda: self._ctr("version").returncode == 0, START_S)
        write_images(self.folder / "images.tar")
        done = self._ctr("images", "import", str(self.folder / "images.tar"))
        if done.returncode:
            raise ServerError(f"containerd took no image: {done.stderr}\n{containerd.tail()}")

    def _start_scheduler(self) -> None:
        admin = self.control_plane.admin_kubeconfig
        arguments = {
            "kubeconfig": admin,
            "authentication-kubeconfig": admin,
            "authorization-kubeconfig": admin,
            "bind-address": "127.0.0.1",
            "secure-port": self._scheduler_port,
            "tls-cert-file": self.control_plane.folder / "kube-apiserver.crt",
            "tls-private-key-file": self.control_plane.folder / "kube-apiserver.key",
            "leader-elect": "false",
        }
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        log = self.folder / "scheduler.log"
        self._programs["scheduler"] = scheduler = Program([binary("kube-scheduler"), *flags], log)
        health = Http(
            f"https://127.0.0.1:{self._scheduler_port}", ca_file=self.control_plane.ca_file
        )
        scheduler.wait_until(lambda: answers(health, "/healthz", "ok"), START_S)

    def _start_truth(self) -> None:
        hierarchy = next(
            path for path in node_cleanup.hierarchies() if path.name in {"memory", "cgroup"}
        )
        words: list[str | Path] = [sys.executable, "-I", _HERE / "truth.py", hierarchy / self.name]
        words += [self.folder / "logs", self.truth_folder / "seen.jsonl", PAUSE]
        self._programs["truth"] = Program(words, self.folder / "truth.log")

    def _ctr(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = ["ctr", "-a", str(self.folder / "run/containerd.sock"), "-n", "k8s.io", *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    def _kubelet_config(self) -> Path:
        plane = self.control_plane
        path = self.folder / "kubelet.json"
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": self._kubelet_port,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": self._health_port,
            "tlsCertFile": str(plane.folder / "kube-apiserver.crt"),
            "tlsPrivateKeyFile": str(plane.folder / "kube-apiserver.key"),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(plane.ca_file)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{self.folder}/run/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.name}",
            "failCgroupV1": False,  # since 1.35 it refuses version 1 by default
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": False,  # leave the machine's iptables alone
            "localStorageCapacityIsolation": False,
            "imageGCHighThresholdPercent": 100,  # a full disk must not cost the image
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
                "imagefs.inodesFree": "1%",
            },
            "podLogsDir": str(self.folder / "logs"),
            "volumePluginDir": str(self.folder / "flex"),
        }
        path.write_text(json.dumps(config, indent=1))
        return path


def demand_programs() -> None:
    """Raise ServerError naming the programs of a node that this machine lacks."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    missing += [] if BUSYBOX.exists() else ["busybox"]
    missing += [] if Path("/usr/lib/cni/bridge").exists() else ["the CNI plugins"]
    if missing:
        raise ServerError(f"a real node needs {', '.join(missing)}: scripts/servers build")


def make_cgroup(group: Path) -> None:
    """Make the cgroup below which a kubelet may have its own."""
    group.mkdir(exist_ok=True)
    for name in ("cpuset.mems", "cpuset.cpus"):
        inherited = group.parent / name
        if (group / name).exists() and inherited.exists():
            (group / name).write_text(inherited.read_text())
    controllers = group.parent / "cgroup.controllers"
    if controllers.exists():
        wanted = " ".join(f"+{one}" for one in controllers.read_text().split())
        for folder in (group.parent, group):
            (folder / "cgroup.subtree_control").write_text(wanted)


def _takes_folders(hierarchy: Path) -> bool:
    probe = hierarchy / f"ks-probe-{secrets.token_hex(4)}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _network(bridge: str, data: Path, subnet: str) -> dict[str, Any]:
    ipam = {"type": "host-local", "dataDir": str(data), "ranges": [[{"subnet": subnet}]]}
    plugin = {"type": "bridge", "bridge": bridge, "isGateway": False, "ipMasq": False, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": bridge, "plugins": [plugin]}


# restrict_oom_score_adj: without CAP_SYS_RESOURCE runc may not lower oom_score_adj.
_CONTAINERD = """version = 2
root = "{folder}/lib"
state = "{folder}/run"
[grpc]
  address = "{folder}/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""
