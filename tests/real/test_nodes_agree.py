"""The played node is held to the real one: the same orders, the same truth about the processes.

What the real node does is seen from outside its containers (pidfd). All cases of one node run at
the same time, each in a namespace of its own.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.servers.control_plane import ControlPlane
from tests.servers.fake_node import FakeNode
from tests.servers.fixtures import Cluster
from tests.servers.node import why_no_node

SETTLE_S = 2.5  # a pod that was just synced gets its SIGTERM late
PATIENCE_S = 25.0
# How far the two may be apart, on a busy machine: in the life of a process, in that of an object.
PROCESS_S, OBJECT_S = 1.0, 4.0

Order = tuple[float, str, int]


@dataclass(frozen=True)
class Case:
    """Orders (seconds after the first, what, grace) and what they lead to.

    `dies`: seconds from the first order (without one, from its start) to the process's end.
    `lie`: the object is gone while the process still runs. `apart_s`: how far the two nodes may
    be apart.
    """

    name: str
    orders: tuple[Order, ...]
    dies: tuple[float, float]
    lie: bool = False
    apart_s: float = PROCESS_S
    pod: dict[str, Any] = field(default_factory=dict)


IGNORES = {"on_sigterm": "ignores"}
NEEDS_4_S = {"ends_after_s": 4.0}
CASES = (
    Case("ends-on-sigterm", ((0, "delete", 1),), (0.0, 1.0)),
    Case("ignores-sigterm", ((0, "delete", 1),), (2.0, 3.0), pod=IGNORES),
    Case("no-handler", ((0, "delete", 1),), (2.0, 3.0), pod={"on_sigterm": "no handler"}),
    Case("grace-5", ((0, "delete", 5),), (5.0, 6.0), pod=IGNORES),
    Case(
        "the-first-grace-counts",
        ((0, "delete", 30), (0.5, "delete", 1)),
        (4.0, 5.0),
        pod=NEEDS_4_S,
    ),
    Case("force", ((0, "delete", 0),), (2.0, 3.0), lie=True, pod=IGNORES),
    Case(
        "force-later",
        ((0, "delete", 30), (0.5, "delete", 0)),
        (4.0, 5.0),
        lie=True,
        pod=NEEDS_4_S,
    ),
    Case("scale-only", ((0, "scale", 0),), (4.0, 5.0), pod=NEEDS_4_S),
    Case("own-grace-1", ((0, "scale", 0),), (2.0, 3.0), pod=IGNORES | {"grace_s": 1}),
    Case("own-grace-0", ((0, "scale", 0),), (2.0, 3.0), lie=True, pod=IGNORES | {"grace_s": 0}),
    Case("prestop", ((0, "delete", 1),), (3.0, 4.0), pod=IGNORES | {"prestop_s": 20}),
    # Its SIGTERM comes with the kubelet's next look, which is up to a second away.
    Case("just-touched", ((0, "label", 0), (0.05, "delete", 1)), (0.0, 2.0), apart_s=1.6),
    Case("exits-by-itself", (), (4.0, 5.5), pod={"exits_after_s": 4}),
)


@dataclass
class Seen:
    """What one case came to, in seconds since its first order."""

    died_s: float | None = None
    gone_s: float | None = None

    @property
    def lie(self) -> bool:
        """Whether the API said "gone" before it was over."""
        return self.gone_s is not None and self.gone_s < (self.died_s or 0) - 0.3


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Seen]]:
    folder = tmp_path_factory.mktemp("played")
    with ControlPlane(folder) as plane, FakeNode(plane) as node:
        yield Trial(Cluster(plane, node)).run()


@pytest.fixture(scope="module")
def real(cluster: Cluster) -> dict[str, Seen]:
    if why_no_node():
        pytest.skip(why_no_node())
    return Trial(cluster).run()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_played_node_does_what_the_table_says(case: Case, played: dict[str, Seen]) -> None:
    demand(case, played[case.name])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_real_node_does_the_same(
    case: Case, real: dict[str, Seen], played: dict[str, Seen]
) -> None:
    demand(case, real[case.name])
    ours, theirs = played[case.name], real[case.name]
    assert ours.died_s is not None
    assert theirs.died_s is not None
    assert abs(ours.died_s - theirs.died_s) < case.apart_s
    if case.orders:
        assert ours.gone_s is not None
        assert theirs.gone_s is not None
        assert abs(ours.gone_s - theirs.gone_s) < OBJECT_S


def demand(case: Case, seen: Seen) -> None:
    earliest, latest = case.dies
    assert seen.died_s is not None, f"{case.name}: its process did not end"
    assert earliest - 0.05 <= seen.died_s <= latest, seen
    assert seen.lie is case.lie, seen


class Trial:
    """All cases on one node, at the same time."""

    def __init__(self, cluster: Cluster) -> None:
        self._plane, self._node = cluster.control_plane, cluster.node
        stamp = f"{time.time_ns() % 10**8}"
        self._spaces = {case.name: f"{case.name}-{stamp}" for case in CASES}
        self._seen = {case.name: Seen() for case in CASES}
        self._began: dict[str, float] = {}
        self._unordered = {case.name for case in CASES if not case.orders}

    def run(self) -> dict[str, Seen]:
        """Return what each case came to."""
        try:
            for case in CASES:
                self._begin(case)
            self._wait(lambda: all(self._running(case) for case in CASES), 40)
            time.sleep(SETTLE_S)
            threads = [threading.Thread(target=self._order, args=(case,)) for case in CASES]
            for thread in threads:
                thread.start()
            self._wait(self._over, PATIENCE_S)
            for thread in threads:
                thread.join()
        finally:
            for space in self._spaces.values():
                self._plane.send("DELETE", f"/api/v1/namespaces/{space}")
        self._read_truth()
        return self._seen

    def _begin(self, case: Case) -> None:
        space = self._spaces[case.name]
        self._create("/api/v1/namespaces", {"metadata": {"name": space}})
        template = self._node.pod_template(**case.pod)
        if any(what == "scale" for _, what, _ in case.orders):
            spec = {"replicas": 1, "selector": {"matchLabels": {"app": "bot"}}}
            body = {"metadata": {"name": "bot"}, "spec": spec | {"template": template}}
            self._create(f"/apis/apps/v1/namespaces/{space}/deployments", body)
        else:
            template["metadata"]["name"] = "bot"
            template["spec"]["restartPolicy"] = "Never"
            self._create(f"/api/v1/namespaces/{space}/pods", template)

    def _create(self, path: str, body: dict[str, Any]) -> None:
        status, answer = self._plane.send("POST", path, body)
        assert status == 201, answer

    def _order(self, case: Case) -> None:
        began = time.time()
        if case.orders:
            self._began[case.name] = began
        space = self._spaces[case.name]
        for after_s, what, grace in case.orders:
            time.sleep(max(0.0, began + after_s - time.time()))
            if what == "scale":
                path = f"/apis/apps/v1/namespaces/{space}/deployments/bot/scale"
                self._plane.send("PATCH", path, {"spec": {"replicas": 0}})
            elif what == "label":
                body = {"metadata": {"labels": {"touched": "yes"}}}
                self._plane.send("PATCH", f"/api/v1/namespaces/{space}/pods/bot", body)
            else:
                pods = f"/api/v1/namespaces/{space}/pods"
                self._plane.send("DELETE", pods, query={"gracePeriodSeconds": grace})

    def _running(self, case: Case) -> bool:
        return any(
            event.namespace == self._spaces[case.name] and event.event == "started"
            for event in self._node.truth()
        )

    def _over(self) -> bool:
        there = {
            pod["metadata"]["namespace"]
            for pod in self._plane.send("GET", "/api/v1/pods")[1]["items"]
        }
        now = time.time()
        for case in CASES:
            seen = self._seen[case.name]
            began = self._began.get(case.name)
            if began and seen.gone_s is None and self._spaces[case.name] not in there:
                seen.gone_s = now - began
        self._read_truth()
        return all(
            self._seen[case.name].died_s is not None
            and (self._seen[case.name].gone_s is not None or not case.orders)
            for case in CASES
        )

    def _read_truth(self) -> None:
        names = {space: name for name, space in self._spaces.items()}
        for event in self._node.truth():
            name = names.get(event.namespace)
            if name in self._unordered and event.event == "started":
                self._began[name] = event.t
            if name and event.event == "exited" and name in self._began:
                self._seen[name].died_s = event.t - self._began[name]

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not done() and time.monotonic() < deadline:
            time.sleep(0.03)
