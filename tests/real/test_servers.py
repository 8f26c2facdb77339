"""The real servers themselves: they start, answer, come again, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers import node_cleanup
from tests.servers.binaries import ROOT
from tests.servers.control_plane import ControlPlane
from tests.servers.external_secrets import ExternalSecrets
from tests.servers.fixtures import Cluster
from tests.servers.node import Node, why_no_node
from tests.servers.processes import listening
from tests.servers.s3 import SeaweedFS
from tests.servers.vault_server import DevVault, RaftVault

needs_a_real_node = pytest.mark.skipif(bool(why_no_node()), reason=why_no_node())

# Starts a control plane and a node in the folder of its argument, and waits to be killed.
STARTER = """
import sys, time
from pathlib import Path
from tests.servers.control_plane import ControlPlane
from tests.servers.node import Node
with ControlPlane(Path(sys.argv[1])) as plane, Node(plane) as node:
    pod = node.pod_template()
    pod["metadata"]["name"] = "bot"
    plane.send("POST", "/api/v1/namespaces/default/pods", pod)
    while not node.truth():
        time.sleep(0.05)
    print(node.name, flush=True)
    time.sleep(100)
"""


def test_a_user_without_rights_is_refused(control_plane: ControlPlane, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"

    assert control_plane.send("GET", path)[0] == 200
    assert control_plane.send("GET", path, user="killswitch")[0] == 403


def test_a_pod_runs_and_ends_on_its_node(cluster: Cluster, namespace: str) -> None:
    pod = cluster.node.pod_template()
    pod["metadata"]["name"] = "bot"
    path = f"/api/v1/namespaces/{namespace}/pods"
    assert cluster.control_plane.send("POST", path, pod)[0] == 201

    def events() -> list[str]:
        return [one.event for one in cluster.node.truth() if one.namespace == namespace]

    wait_until(lambda: "started" in events())
    cluster.control_plane.send("DELETE", f"{path}/bot", query={"gracePeriodSeconds": 1})
    wait_until(lambda: "exited" in events())
    wait_until(lambda: cluster.control_plane.send("GET", f"{path}/bot")[0] == 404)


def test_a_killed_api_server_comes_again_with_what_it_held(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as plane:
        plane.send("POST", "/api/v1/namespaces", {"metadata": {"name": "kept"}})
        port = int(plane.url.rpartition(":")[2])

        plane.kill_api()

        assert not listening(port)
        plane.start_api()
        assert plane.send("GET", "/api/v1/namespaces/kept")[0] == 200
    assert not listening(port)
    assert leftovers(tmp_path) == []


@needs_a_real_node
def test_a_stopped_node_leaves_nothing_on_the_machine(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    before = settings()
    with ControlPlane(tmp_path) as plane:
        with Node(plane) as node:
            pod = node.pod_template(on_sigterm="ignores")
            pod["metadata"]["name"] = "bot"
            plane.send("POST", "/api/v1/namespaces/default/pods", pod)
            wait_until(lambda: bool(node.truth()))
            assert leftovers(tmp_path, node.name) != []

        assert leftovers(node.folder, node.name) == []
    assert leftovers(tmp_path) == []
    assert settings() == before
    assert control_plane.send("GET", "/readyz")[0] == 200


@needs_a_real_node
def test_tests_that_are_killed_leave_nothing_on_the_machine(tmp_path: Path) -> None:
    before = settings()
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        name = starter.stdout.readline().strip()
        assert name.startswith("ks")
        assert leftovers(tmp_path, name) != []

        os.kill(starter.pid, signal.SIGKILL)

        wait_until(lambda: leftovers(tmp_path, name) == [])
        wait_until(lambda: settings() == before)


def test_a_vault_keeps_what_it_held_over_a_crash(raft_vault: RaftVault) -> None:
    raft_vault.send("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
    # The mount upgrades itself for a moment.
    wait_until(lambda: raft_vault.send("POST", "secret/data/a", {"data": {"b": "c"}})[0] == 200)

    raft_vault.stop()
    raft_vault.start_sealed()

    assert raft_vault.send("GET", "secret/data/a")[0] == 503
    raft_vault.unseal()
    assert raft_vault.send("GET", "secret/data/a")[1]["data"]["data"] == {"b": "c"}


def test_a_dev_vault_can_be_sealed_and_knows_kubernetes(dev_vault: DevVault) -> None:
    assert dev_vault.send("POST", "sys/auth/for-pods", {"type": "kubernetes"})[0] == 204

    dev_vault.seal()

    assert dev_vault.send("GET", "sys/auth")[0] == 503
    dev_vault.unseal()
    assert "for-pods/" in dev_vault.send("GET", "sys/auth")[1]["data"]


def test_the_operator_syncs_a_secret(external_secrets: ExternalSecrets, namespace: str) -> None:
    plane = external_secrets.control_plane
    here = f"/apis/external-secrets.io/v1/namespaces/{namespace}"
    data = [{"key": "bybit", "value": "made-up", "version": "v1"}]
    store: dict[str, Any] = {"kind": "SecretStore", "spec": {"provider": {"fake": {"data": data}}}}
    store |= {"apiVersion": "external-secrets.io/v1", "metadata": {"name": "store"}}
    assert plane.send("POST", f"{here}/secretstores", store)[0] == 201
    wanted = {"secretKey": "key", "remoteRef": {"key": "bybit", "version": "v1"}}
    spec = {
        "refreshInterval": "1h",
        "secretStoreRef": {"name": "store", "kind": "SecretStore"},
        "target": {"name": "synced"},
        "data": [wanted],
    }
    body: dict[str, Any] = {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "spec": spec,
    }
    body |= {"metadata": {"name": "synced"}}
    assert plane.send("POST", f"{here}/externalsecrets", body)[0] == 201

    path = f"/api/v1/namespaces/{namespace}/secrets/synced"
    wait_until(lambda: plane.send("GET", path)[0] == 200)


def test_an_s3_server_stops_for_good(tmp_path: Path) -> None:
    with SeaweedFS(tmp_path) as s3:
        port = int(s3.address.rpartition(":")[2])
        assert listening(port)

    assert not listening(port)
    assert leftovers(tmp_path) == []


def leftovers(folder: Path, name: str = "") -> list[str]:
    """Name what a server of this folder, or a node of this name, has on the machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/" in words and "-c" not in words.split()[:2]:
            found.append(words)
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found += [line for line in mounts if f" {folder}/" in line]
    if name:
        found += [str(group) for group in node_cleanup.cgroups(name)]
        found += [str(path) for path in Path("/sys/class/net").glob(name)]
    return found


def settings() -> dict[str, str]:
    """Return the settings of the machine that a kubelet changes."""
    paths = [Path("/proc/sys", setting) for setting in node_cleanup.SETTINGS]
    return {str(path): path.read_text() for path in paths if path.exists()}


def wait_until(done: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
