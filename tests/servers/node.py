"""A node for a real control plane: a real kubelet with real processes, or one that plays it."""

import contextlib
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
from tests.servers.images import PAUSE, static_busybox, write_images
from tests.servers.node_settings import (
    containerd_settings,
    kubelet_settings,
    network_settings,
)
from tests.servers.pods import ABRUPT_IMAGE, IMAGE, Event, pod_template, read_events
from tests.servers.processes import (
    SEARCH,
    Program,
    ServerError,
    finally_run,
    forget,
    free_port,
)

START_S = 30.0
_HERE = Path(__file__).parent
CNI = Path("/usr/lib/cni")
_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
}


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
        missing = missing_packages()
        if missing:
            raise ServerError(f"a real node needs {', '.join(missing)}: scripts/servers build")
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
        """Start the kubelet."""
        arguments = {
            "config": self._kubelet_settings(),
            "kubeconfig": self.control_plane.admin_kubeconfig,
            "root-dir": self.folder / "kubelet",
            "hostname-override": "node1",
        }
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        log = self.folder / "kubelet.log"
        self._programs["kubelet"] = Program([binary("kubelet"), *flags], log)

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
        config.write_text(
            containerd_settings(self.folder, image=IMAGE, cni=CNI, snapshots=self._snapshots)
        )
        subnet = f"10.88.{secrets.randbelow(254) + 1}.0/24"
        network.write_text(json.dumps(network_settings(self.name, self.folder / "ipam", subnet)))
        containerd = Program(["containerd", "-c", config], self.folder / "containerd.log")
        self._programs["containerd"] = containerd
        containerd.wait_until(lambda: self._ctr("version").returncode == 0, START_S)
        write_images(self.folder / "images.tar")
        kind = f"--snapshotter={self._snapshots}"
        done = self._ctr("images", "import", kind, str(self.folder / "images.tar"))
        if done.returncode:
            raise ServerError(f"containerd took no image: {done.stderr}\n{containerd.tail()}")

    @property
    def _snapshots(self) -> str:
        # An overlay does not stand on another one.
        words = ["stat", "-f", "-c", "%T", str(self.folder)]
        kind = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return "native" if "overlay" in kind else "overlayfs"

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

    def _kubelet_settings(self) -> Path:
        path = self.folder / "kubelet.json"
        settings = kubelet_settings(
            self.folder,
            self.control_plane.folder,
            port=self._kubelet_port,
            health_port=self._health_port,
            cgroup=self.name,
        )
        path.write_text(json.dumps(settings, indent=1))
        return path


def missing_packages() -> list[str]:
    """Return Debian's names of what a real node needs and this machine lacks."""
    missing = [package for name, package in _PROGRAMS.items() if _which(name) is None]
    missing += [] if static_busybox() else ["busybox-static"]
    missing += [] if (CNI / "bridge").exists() else ["containernetworking-plugins"]
    return sorted(set(missing))


def make_cgroup(group: Path) -> None:
    """Make the cgroup below which a kubelet may have its own."""
    group.mkdir(exist_ok=True)
    for name in ("cpuset.mems", "cpuset.cpus"):
        inherited = group.parent / name
        if (group / name).exists() and inherited.exists():
            (group / name).write_text(inherited.read_text())
    controllers = group.parent / "cgroup.controllers"
    for one in controllers.read_text().split() if controllers.exists() else ():
        for folder in (group.parent, group):
            with contextlib.suppress(OSError):  # one that this machine does not pass on
                (folder / "cgroup.subtree_control").write_text(f"+{one}")


def _which(name: str) -> str | None:
    # Some of them are kept where only root's PATH looks.
    return shutil.which(name, path=SEARCH)


def _takes_folders(hierarchy: Path) -> bool:
    probe = hierarchy / f"ks-probe-{secrets.token_hex(4)}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True
