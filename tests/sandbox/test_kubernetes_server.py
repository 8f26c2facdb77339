"""The sandbox's API server, held to what the real one was seen to do."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import pytest

from killswitch.sandbox.kubernetes import KubernetesServer
from killswitch.sandbox.kubernetes_controllers import Workload

PODS = "/api/v1/namespaces/trading/pods"
QUOTAS = "/api/v1/namespaces/trading/resourcequotas"
SCALE = "/apis/apps/v1/namespaces/trading/deployments/freqtrade/scale"
LOCK = {"metadata": {"name": "killswitch-lock"}, "spec": {"hard": {"pods": "0"}}}
MERGE = "application/merge-patch+json"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Cluster:
    """A server on a clock of its own, and a plain HTTP caller."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.server = KubernetesServer(clock=self.clock, **options)

    def __call__(
        self, method: str, path: str, body: object = None, *, kind: str = "", token: str = ""
    ) -> tuple[int, Any]:
        address = urlsplit(self.server.url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=5)
        headers = {"Authorization": f"Bearer {token or self.server.token}"}
        if body is not None:
            headers["Content-Type"] = kind or "application/json"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer

    def pods(self) -> list[str]:
        _, answer = self("GET", PODS)
        return [item["metadata"]["name"] for item in answer["items"]]

    def later(self, seconds: float) -> None:
        self.clock.now += seconds


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.server.start()
    yield cluster
    cluster.server.stop()


def trap(cluster: Cluster, name: str) -> None:
    cluster.server.traps.add(name)


def test_the_seeded_workloads_have_their_pods(cluster: Cluster) -> None:
    assert len(cluster.pods()) == 3
    assert len(cluster.server.live()) == 5


def test_every_trap_is_named_and_told() -> None:
    assert set(KubernetesServer.TRAPS) < set(KubernetesServer.all_traps())
    with pytest.raises(ValueError, match="no trap"):
        KubernetesServer(traps=("typo",))


def test_a_wrong_token_is_a_401_status(cluster: Cluster) -> None:
    code, status = cluster("GET", PODS, token="wrong")
    assert (code, status["kind"], status["reason"]) == (401, "Status", "Unauthorized")


def test_a_deleted_pod_is_listed_until_its_process_has_ended(cluster: Cluster) -> None:
    cluster("POST", QUOTAS, LOCK)
    cluster.later(0.01)
    code, _ = cluster("DELETE", f"{PODS}?gracePeriodSeconds=1")
    assert code == 200
    assert len(cluster.pods()) == 3
    _, pods = cluster("GET", PODS)
    assert all("deletionTimestamp" in pod["metadata"] for pod in pods["items"])
    cluster.later(0.7)
    assert cluster.pods() == []
    assert cluster.server.live() == []


def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace_but_not_before_the_floor() -> None:
    cluster = Cluster(term_s=20, floor_s=2)
    cluster.server.start()
    try:
        cluster("POST", QUOTAS, LOCK)
        cluster.later(0.01)
        cluster("DELETE", f"{PODS}?gracePeriodSeconds=1")
        cluster.later(1.9)
        assert len(cluster.pods()) == 3
        cluster.later(0.2)
        assert cluster.pods() == []
    finally:
        cluster.server.stop()


def test_the_first_grace_rules_however_short_a_later_one_is() -> None:
    cluster = Cluster(term_s=20)
    cluster.server.start()
    try:
        cluster("PATCH", SCALE, {"spec": {"replicas": 0}}, kind=MERGE)
        cluster("DELETE", f"{PODS}?gracePeriodSeconds=1&labelSelector=app%3Dfreqtrade")
        cluster.later(5)
        assert len(cluster.pods()) == 3
    finally:
        cluster.server.stop()


def test_a_forced_delete_hides_a_process_that_still_runs(cluster: Cluster) -> None:
    cluster("POST", QUOTAS, LOCK)
    cluster.later(0.01)
    cluster("DELETE", f"{PODS}?gracePeriodSeconds=0")
    assert cluster.pods() == []
    assert len(cluster.server.live()) == 3


def test_a_deployment_replaces_deleted_pods_at_once_unless_a_quota_holds(cluster: Cluster) -> None:
    cluster("DELETE", f"{PODS}?gracePeriodSeconds=1")
    assert len(cluster.pods()) == 5
    cluster("POST", QUOTAS, LOCK)
    cluster.later(0.01)
    cluster("DELETE", f"{PODS}?gracePeriodSeconds=1")
    cluster.later(1)
    assert cluster.pods() == []
    _, deployment = cluster("GET", SCALE.removesuffix("/scale"))
    assert "exceeded quota" in deployment["status"]["conditions"][0]["message"]


def test_a_quota_refuses_a_bare_pod_once_it_is_in_force(cluster: Cluster) -> None:
    code, quota = cluster("POST", QUOTAS, LOCK)
    assert (code, quota["status"]) == (201, {})
    assert cluster("POST", PODS, {"metadata": {"name": "early"}})[0] == 201
    cluster.later(0.01)
    code, status = cluster("POST", PODS, {"metadata": {"name": "late"}})
    assert code == 403
    assert "exceeded quota: killswitch-lock" in status["message"]
    _, quota = cluster("GET", f"{QUOTAS}/killswitch-lock")
    assert quota["status"]["hard"] == {"pods": "0"}


def test_a_second_quota_of_one_name_is_a_conflict(cluster: Cluster) -> None:
    cluster("POST", QUOTAS, LOCK)
    code, status = cluster("POST", QUOTAS, LOCK)
    assert (code, status["reason"]) == (409, "AlreadyExists")


def test_the_scopes_of_a_quota_are_immutable(cluster: Cluster) -> None:
    cluster("POST", QUOTAS, LOCK)
    patch = {"spec": {"scopes": ["BestEffort"]}}
    assert cluster("PATCH", f"{QUOTAS}/killswitch-lock", patch, kind=MERGE)[0] == 422


def test_scale_leaves_a_zero_out_of_the_scale_but_not_of_the_deployment(cluster: Cluster) -> None:
    code, scale = cluster("PATCH", SCALE, {"spec": {"replicas": 0}}, kind=MERGE)
    assert (code, scale["spec"]) == (200, {})
    _, deployment = cluster("GET", SCALE.removesuffix("/scale"))
    assert deployment["spec"]["replicas"] == 0
    assert len(cluster.pods()) == 3


def test_a_patch_needs_a_patch_type_and_json_patch_is_one(cluster: Cluster) -> None:
    assert cluster("PATCH", SCALE, {"spec": {"replicas": 0}})[0] == 415
    patch = [{"op": "replace", "path": "/spec/replicas", "value": 0}]
    assert cluster("PATCH", SCALE, patch, kind="application/json-patch+json")[0] == 200
    bad = {"spec": {"replicas": -1}}
    assert cluster("PATCH", SCALE, bad, kind=MERGE)[0] == 422


def test_a_dry_run_changes_nothing_and_is_no_write(cluster: Cluster) -> None:
    cluster("POST", f"{QUOTAS}?dryRun=All", LOCK)
    cluster("DELETE", f"{PODS}?gracePeriodSeconds=1&dryRun=All")
    cluster("DELETE", PODS, {"dryRun": ["All"]})
    cluster("PATCH", f"{SCALE}?dryRun=All", {"spec": {"replicas": 0}}, kind=MERGE)
    assert cluster.server.writes == []
    cluster.later(60)
    assert len(cluster.server.live()) == 5
    assert cluster("POST", f"{QUOTAS}?dryRun=yes", LOCK)[0] == 422


def test_lists_come_in_pages(cluster: Cluster) -> None:
    _, first = cluster("GET", f"{PODS}?limit=2")
    assert (len(first["items"]), first["metadata"]["remainingItemCount"]) == (2, 1)
    _, rest = cluster("GET", f"{PODS}?limit=2&continue={first['metadata']['continue']}")
    assert len(rest["items"]) == 1
    assert "continue" not in rest["metadata"]
    assert cluster("GET", f"{PODS}?continue=nonsense")[0] == 400


def test_a_namespace_that_does_not_exist_lists_as_empty(cluster: Cluster) -> None:
    assert cluster("GET", PODS.replace("trading", "tradign"))[1]["items"] == []
    code, status = cluster("POST", QUOTAS.replace("trading", "tradign"), LOCK)
    assert (code, status["message"]) == (404, 'namespaces "tradign" not found')


def test_what_is_not_there_is_a_404_status(cluster: Cluster) -> None:
    assert cluster("GET", f"{PODS}/nobody")[1]["reason"] == "NotFound"
    assert cluster("GET", SCALE.replace("freqtrade", "nobody"))[0] == 404
    assert cluster("GET", PODS.replace("pods", "widgets"))[0] == 404
    assert cluster("PUT", PODS, {})[0] == 405


def test_a_missing_right_is_a_403_that_says_which(cluster: Cluster) -> None:
    cluster.server.denied.add("list pods")
    code, status = cluster("GET", PODS)
    assert code == 403
    assert 'cannot list resource "pods"' in status["message"]
    trap(cluster, "forbidden")
    assert cluster("PATCH", SCALE, {"spec": {"replicas": 0}}, kind=MERGE)[0] == 403


def test_a_single_pod_can_be_deleted_and_the_quota_released(cluster: Cluster) -> None:
    code, pod = cluster("DELETE", f"{PODS}/hedger-0?gracePeriodSeconds=1")
    assert (code, pod["metadata"]["deletionGracePeriodSeconds"]) == (200, 1)
    cluster("POST", QUOTAS, LOCK)
    assert cluster("DELETE", f"{QUOTAS}/killswitch-lock")[0] == 200
    assert cluster("GET", QUOTAS)[1]["items"] == []


def test_the_expired_token_trap_refuses_everything(cluster: Cluster) -> None:
    trap(cluster, "expired-token")
    assert cluster("GET", PODS)[0] == 401


def test_the_stuck_pod_trap_keeps_one_pod_for_ever(cluster: Cluster) -> None:
    trap(cluster, "stuck-pod")
    cluster("POST", QUOTAS, LOCK)
    cluster.later(0.01)
    cluster("DELETE", f"{PODS}?gracePeriodSeconds=1")
    cluster.later(3600)
    assert len(cluster.pods()) == 1


def test_the_lies_answer_200_and_change_nothing(cluster: Cluster) -> None:
    cluster.server.traps |= {"scale-lies", "delete-lies"}
    assert cluster("PATCH", SCALE, {"spec": {"replicas": 0}}, kind=MERGE)[1]["spec"] == {}
    assert cluster("GET", SCALE)[1]["spec"] == {"replicas": 2}
    assert cluster("DELETE", f"{PODS}?gracePeriodSeconds=1")[0] == 200
    cluster.later(60)
    assert len(cluster.pods()) == 3


def test_the_reconciler_scales_back_each_fifth_of_a_second(cluster: Cluster) -> None:
    trap(cluster, "scales-back")
    cluster.pods()
    cluster("PATCH", SCALE, {"spec": {"replicas": 0}}, kind=MERGE)
    assert cluster("GET", SCALE)[1]["spec"] == {}
    cluster.later(0.25)
    assert cluster("GET", SCALE)[1]["spec"] == {"replicas": 2}


def test_slow_pods_take_one_and_a_half_seconds(cluster: Cluster) -> None:
    trap(cluster, "slow-pods")
    cluster("POST", QUOTAS, LOCK)
    cluster.later(0.01)
    cluster("DELETE", f"{PODS}?gracePeriodSeconds=1")
    cluster.later(1.4)
    assert len(cluster.pods()) == 3
    cluster.later(0.2)
    assert cluster.pods() == []


def test_an_idle_quota_keeps_nothing_out(cluster: Cluster) -> None:
    trap(cluster, "quota-idle")
    cluster("POST", QUOTAS, LOCK)
    cluster.later(60)
    assert cluster("POST", PODS, {"metadata": {"name": "bare"}})[0] == 201


def test_the_quota_refused_trap_refuses_only_its_creation(cluster: Cluster) -> None:
    trap(cluster, "quota-refused")
    assert cluster("POST", QUOTAS, LOCK)[0] == 403
    assert cluster("GET", QUOTAS)[0] == 200


def test_a_lost_reply_was_done_all_the_same(cluster: Cluster) -> None:
    trap(cluster, "lost-reply")
    with pytest.raises((HTTPException, OSError)):
        cluster("POST", QUOTAS, LOCK)
    assert len(cluster("GET", QUOTAS)[1]["items"]) == 1


def test_a_missing_namespace_trap_hides_what_is_still_live(cluster: Cluster) -> None:
    trap(cluster, "namespace-missing")
    assert cluster.pods() == []
    assert cluster("POST", QUOTAS, LOCK)[0] == 404
    assert cluster.server.live() != []


def test_a_bare_pod_returns_once(cluster: Cluster) -> None:
    trap(cluster, "pods-return-once")
    cluster("POST", QUOTAS, LOCK)
    cluster.later(0.01)
    for seen in (["debug-returned"], []):
        cluster("DELETE", f"{PODS}?gracePeriodSeconds=1")
        cluster.later(0.7)
        assert cluster.pods() == []
        cluster.later(0.7)
        assert cluster.pods() == seen


def test_anyone_may_read_only_if_the_server_was_told_so() -> None:
    server = KubernetesServer(open_reads=True, namespaces={"a": [Workload(kind="Job", name="x")]})
    server.start()
    address = urlsplit(server.url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=5)
    codes = {}
    for method, path in (("GET", PODS), ("DELETE", PODS)):
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
        codes[method] = response.status
    connection.close()
    server.stop()
    assert codes == {"GET": 200, "DELETE": 403}


def test_kubectl_gets_the_tables_and_the_discovery_that_it_asks_for(cluster: Cluster) -> None:
    assert cluster("GET", "/apis")[1]["groups"][0]["name"] == "apps"
    assert {r["name"] for r in cluster("GET", "/api/v1")[1]["resources"]} == {
        "pods",
        "resourcequotas",
        "replicationcontrollers",
        "replicationcontrollers/scale",
    }
    assert cluster("GET", "/version")[1]["gitVersion"].startswith("v1.")
