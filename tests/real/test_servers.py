"""The real servers themselves: they start, answer, and leave nothing behind."""

import time

from tests.servers.control_plane import ControlPlane
from tests.servers.fixtures import Cluster
from tests.servers.processes import listening


def test_a_control_plane_takes_no_order_from_a_user_without_rights(
    control_plane: ControlPlane, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"

    assert control_plane.send("GET", path)[0] == 200
    assert control_plane.send("GET", path, user="killswitch")[0] == 403


def test_a_pod_runs_and_ends_on_its_node(cluster: Cluster, namespace: str) -> None:
    pod = cluster.node.pod_template()
    pod["metadata"]["name"] = "bot"
    path = f"/api/v1/namespaces/{namespace}/pods"
    assert cluster.control_plane.send("POST", path, pod)[0] == 201
    wait_for(cluster, namespace, "started")

    cluster.control_plane.send("DELETE", f"{path}/bot", query={"gracePeriodSeconds": 1})

    wait_for(cluster, namespace, "exited")


def test_the_control_plane_listens_where_it_says(control_plane: ControlPlane) -> None:
    assert listening(int(control_plane.url.rpartition(":")[2]))


def wait_for(cluster: Cluster, namespace: str, event: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        seen = [one.event for one in cluster.node.truth() if one.namespace == namespace]
        if event in seen:
            return
        assert time.monotonic() < deadline, f"no {event} in {seen}"
        time.sleep(0.05)
