"""What containerd, its network and the kubelet are told."""

from pathlib import Path
from typing import Any


def kubelet_settings(
    folder: Path, certificates: Path, *, port: int, health_port: int, cgroup: str
) -> dict[str, Any]:
    """Return a KubeletConfiguration that keeps to `folder`, `cgroup` and loopback."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": port,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": health_port,
        "tlsCertFile": str(certificates / "kube-apiserver.crt"),
        "tlsPrivateKeyFile": str(certificates / "kube-apiserver.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(certificates / "ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{folder}/run/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
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
        "podLogsDir": str(folder / "logs"),
        "volumePluginDir": str(folder / "flex"),
    }


def containerd_settings(folder: Path, *, image: str, cni: Path, snapshots: str) -> str:
    """Return containerd's configuration."""
    return _CONTAINERD.format(folder=folder, image=image, cni=cni, snapshots=snapshots)


def network_settings(bridge: str, data: Path, subnet: str) -> dict[str, Any]:
    """Return the configuration of a bridge of the node's own."""
    ipam = {"type": "host-local", "dataDir": str(data), "ranges": [[{"subnet": subnet}]]}
    plugin = {"type": "bridge", "bridge": bridge, "isGateway": False, "ipMasq": False, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": bridge, "plugins": [plugin]}


# restrict_oom_score_adj: without CAP_SYS_RESOURCE runc may not lower oom_score_adj.
# disable_apparmor: some profiles keep runc's signals from the containers.
_CONTAINERD = """version = 2
root = "{folder}/lib"
state = "{folder}/run"
[grpc]
  address = "{folder}/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshots}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""
