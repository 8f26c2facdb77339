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
def sandbox() -> Iterator[Cluster]:
    sandbox = Cluster()
    sandbox.server.start()
    yield sandbox
    sandbox.server.stop()


def trap(sandbox: Cluster, name: str) -> None:
    sandbox.server.traps.add(name)


def test_the_seeded_workloads_have_their_pods(sandbox: Cluster) -> None:
    assert len(sandbox.pods()) == 3
    assert len(sandbox.server.live()) == 5


def test_every_trap_is_named_and_told() -> None:
    assert set(KubernetesServer.TRAPS) < set(KubernetesServer.all_traps())
    with pytest.raises(ValueError, match="no trap"):
        KubernetesServer(traps=("typo",))


def test_a_wrong_token_is_a_401_status(sandbox: Cluster) -> None:
    code, status = sandbox("GET", PODS, token="wrong")
    assert (code, status["kind"], status["reason"]) == (401, "Status", "Unauthorized")


def test_a_deleted_pod_is_listed_until_its_process_has_ended(sandbox: Cluster) -> None:
    sandbox("POST", QUOTAS, LOCK)
    sandbox.later(0.01)
    code, _ = sandbox("DELETE", f"{PODS}?gracePeriodSeconds=1")
    assert code == 200
    assert len(sandbox.pods()) == 3
    _, pods = sandbox("GET", PODS)
    assert all("deletionTimestamp" in pod["metadata"] for pod in pods["items"])
    sandbox.later(0.7)
    assert sandbox.pods() == []
    assert sandbox.server.live() == []


def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace_but_not_before_the_floor() -> None:
    sandbox = Cluster(term_s=20, floor_s=2)
    sandbox.server.start()
    try:
        sandbox("POST", QUOTAS, LOCK)
        sandbox.later(0.01)
        sandbox("DELETE", f"{PODS}?gracePeriodSeconds=1")
        sandbox.later(1.9)
        assert len(sandbox.pods()) == 3
        sandbox.later(0.2)
        assert sandbox.pods() == []
    finally:
        sandbox.server.stop()


def test_the_first_grace_rules_however_short_a_later_one_is() -> None:
    sandbox = Cluster(term_s=20)
    sandbox.server.start()
    try:
        sandbox("PATCH", SCALE, {"spec": {"replicas": 0}}, kind=MERGE)
        sandbox("DELETE", f"{PODS}?gracePeriodSeconds=1&labelSelector=app%3Dfreqtrade")
        sandbox.later(5)
        assert len(sandbox.pods()) == 3
    finally:
        sandbox.server.stop()


def test_a_forced_delete_hides_a_process_that_still_runs(sandbox: Cluster) -> None:
    sandbox("POST", QUOTAS, LOCK)
    sandbox.later(0.01)
    sandbox("DELETE", f"{PODS}?gracePeriodSeconds=0")
    assert sandbox.pods() == []
    assert len(sandbox.server.live()) == 3


def test_a_deployment_replaces_deleted_pods_at_once_unless_a_quota_holds(sandbox: Cluster) -> None:
    sandbox("DELETE", f"{PODS}?gracePeriodSeconds=1")
    assert len(sandbox.pods()) == 5
    sandbox("POST", QUOTAS, LOCK)
    sandbox.later(0.01)
    sandbox("DELETE", f"{PODS}?gracePeriodSeconds=1")
    sandbox.later(1)
    assert sandbox.pods() == []
    _, deployment = sandbox("GET", SCALE.removesuffix("/scale"))
    assert "exceeded quota" in deployment["status"]["conditions"][0]["message"]


def test_a_quota_refuses_a_bare_pod_once_it_is_in_force(sandbox: Cluster) -> None:
    code, quota = sandbox("POST", QUOTAS, LOCK)
    assert (code, quota["status"]) == (201, {})
    assert sandbox("POST", PODS, {"metadata": {"name": "early"}})[0] == 201
    sandbox.later(0.01)
    code, status = sandbox("POST", PODS, {"metadata": {"name": "late"}})
    assert code == 403
    assert "exceeded quota: killswitch-lock" in status["message"]
    _, quota = sandbox("GET", f"{QUOTAS}/killswitch-lock")
    assert quota["status"]["hard"] == {"pods": "0"}


def test_a_second_quota_of_one_name_is_a_conflict(sandbox: Cluster) -> None:
    sandbox("POST", QUOTAS, LOCK)
    code, status = sandbox("POST", QUOTAS, LOCK)
    assert (code, status["reason"]) == (409, "AlreadyExists")


def test_the_scopes_of_a_quota_are_immutable(sandbox: Cluster) -> None:
    sandbox("POST", QUOTAS, LOCK)
    patch = {"spec": {"scopes": ["BestEffort"]}}
    assert sandbox("PATCH", f"{QUOTAS}/killswitch-lock", patch, kind=MERGE)[0] == 422


def test_scale_leaves_a_zero_out_of_the_scale_but_not_of_the_deployment(sandbox: Cluster) -> None:
    code, scale = sandbox("PATCH", SCALE, {"spec": {"replicas": 0}}, kind=MERGE)
    assert (code, scale["spec"]) == (200, {})
    _, deployment = sandbox("GET", SCALE.removesuffix("/scale"))
    assert deployment["spec"]["replicas"] == 0
    assert len(sandbox.pods()) == 3


def test_a_patch_needs_a_patch_type_and_json_patch_is_one(sandbox: Cluster) -> None:
    assert sandbox("PATCH", SCALE, {"spec": {"replicas": 0}})[0] == 415
    patch = [{"op": "replace", "path": "/spec/replicas", "value": 0}]
    assert sandbox("PATCH", SCALE, patch, kind="application/json-patch+json")[0] == 200
    bad = {"spec": {"replicas": -1}}
    assert sandbox("PATCH", SCALE, bad, kind=MERGE)[0] == 422


def test_a_dry_run_changes_nothing_and_is_no_write(sandbox: Cluster) -> None:
    sandbox("POST", f"{QUOTAS}?dryRun=All", LOCK)
    sandbox("DELETE", f"{PODS}?gracePeriodSeconds=1&dryRun=All")
    sandbox("DELETE", PODS, {"dryRun": ["All"]})
    sandbox("PATCH", f"{SCALE}?dryRun=All", {"spec": {"replicas": 0}}, kind=MERGE)
    assert sandbox.server.writes == []
    sandbox.later(60)
    assert len(sandbox.server.live()) == 5
    assert sandbox("POST", f"{QUOTAS}?dryRun=yes", LOCK)[0] == 422


def test_lists_come_in_pages(sandbox: Cluster) -> None:
    _, first = sandbox("GET", f"{PODS}?limit=2")
    assert (len(first["items"]), first["metadata"]["remainingItemCount"]) == (2, 1)
    _, rest = sandbox("GET", f"{PODS}?limit=2&continue={first['metadata']['continue']}")
    assert len(rest["items"]) == 1
    assert "continue" not in rest["metadata"]
    assert sandbox("GET", f"{PODS}?continue=nonsense")[0] == 400


def test_a_namespace_that_does_not_exist_lists_as_empty(sandbox: Cluster) -> None:
    assert sandbox("GET", PODS.replace("trading", "tradign"))[1]["items"] == []
    code, status = sandbox("POST", QUOTAS.replace("trading", "tradign"), LOCK)
    assert (code, status["message"]) == (404, 'namespaces "tradign" not found')


def test_what_is_not_there_is_a_404_status(sandbox: Cluster) -> None:
    assert sandbox("GET", f"{PODS}/nobody")[1]["reason"] == "NotFound"
    assert sandbox("GET", SCALE.replace("freqtrade", "nobody"))[0] == 404
    assert sandbox("GET", PODS.replace("pods", "widgets"))[0] == 404
    assert sandbox("PUT", PODS, {})[0] == 405


def test_a_missing_right_is_a_403_that_says_which(sandbox: Cluster) -> None:
    sandbox.server.denied.add("list pods")
    code, status = sandbox("GET", PODS)
    assert code == 403
    assert 'cannot list resource "pods"' in status["message"]
    trap(sandbox, "forbidden")
    assert sandbox("PATCH", SCALE, {"spec": {"replicas": 0}}, kind=MERGE)[0] == 403


def test_a_single_pod_can_be_deleted_and_the_quota_released(sandbox: Cluster) -> None:
    code, pod = sandbox("DELETE", f"{PODS}/hedger-0?gracePeriodSeconds=1")
    assert (code, pod["metadata"]["deletionGracePeriodSeconds"]) == (200, 1)
    sandbox("POST", QUOTAS, LOCK)
    assert sandbox("DELETE", f"{QUOTAS}/killswitch-lock")[0] == 200
    assert sandbox("GET", QUOTAS)[1]["items"] == []


def test_the_expired_token_trap_refuses_everything(sandbox: Cluster) -> None:
    trap(sandbox, "expired-token")
    assert sandbox("GET", PODS)[0] == 401


def test_the_stuck_pod_trap_keeps_one_pod_for_ever(sandbox: Cluster) -> None:
    trap(sandbox, "stuck-pod")
    sandbox("POST", QUOTAS, LOCK)
    sandbox.later(0.01)
    sandbox("DELETE", f"{PODS}?gracePeriodSeconds=1")
    sandbox.later(3600)
    assert len(sandbox.pods()) == 1


def test_the_lies_answer_200_and_change_nothing(sandbox: Cluster) -> None:
    sandbox.server.traps |= {"scale-lies", "delete-lies"}
    assert sandbox("PATCH", SCALE, {"spec": {"replicas": 0}}, kind=MERGE)[1]["spec"] == {}
    assert sandbox("GET", SCALE)[1]["spec"] == {"replicas": 2}
    assert sandbox("DELETE", f"{PODS}?gracePeriodSeconds=1")[0] == 200
    sandbox.later(60)
    assert len(sandbox.pods()) == 3


def test_the_reconciler_scales_back_each_fifth_of_a_second(sandbox: Cluster) -> None:
    trap(sandbox, "scales-back")
    sandbox.pods()
    sandbox("PATCH", SCALE, {"spec": {"replicas": 0}}, kind=MERGE)
    assert sandbox("GET", SCALE)[1]["spec"] == {}
    sandbox.later(0.25)
    assert sandbox("GET", SCALE)[1]["spec"] == {"replicas": 2}


def test_slow_pods_take_one_and_a_half_seconds(sandbox: Cluster) -> None:
    trap(sandbox, "slow-pods")
    sandbox("POST", QUOTAS, LOCK)
    sandbox.later(0.01)
    sandbox("DELETE", f"{PODS}?gracePeriodSeconds=1")
    sandbox.later(1.4)
    assert len(sandbox.pods()) == 3
    sandbox.later(0.2)
    assert sandbox.pods() == []


def test_an_idle_quota_keeps_nothing_out(sandbox: Cluster) -> None:
    trap(sandbox, "quota-idle")
    sandbox("POST", QUOTAS, LOCK)
    sandbox.later(60)
    assert sandbox("POST", PODS, {"metadata": {"name": "bare"}})[0] == 201


def test_the_quota_refused_trap_refuses_only_its_creation(sandbox: Cluster) -> None:
    trap(sandbox, "quota-refused")
    assert sandbox("POST", QUOTAS, LOCK)[0] == 403
    assert sandbox("GET", QUOTAS)[0] == 200


def test_a_lost_reply_was_done_all_the_same(sandbox: Cluster) -> None:
    trap(sandbox, "lost-reply")
    with pytest.raises((HTTPException, OSError)):
        sandbox("POST", QUOTAS, LOCK)
    assert len(sandbox("GET", QUOTAS)[1]["items"]) == 1


def test_a_missing_namespace_trap_hides_what_is_still_live(sandbox: Cluster) -> None:
    trap(sandbox, "namespace-missing")
    assert sandbox.pods() == []
    assert sandbox("POST", QUOTAS, LOCK)[0] == 404
    assert sandbox.server.live() != []


def test_a_bare_pod_returns_once(sandbox: Cluster) -> None:
    trap(sandbox, "pods-return-once")
    sandbox("POST", QUOTAS, LOCK)
    sandbox.later(0.01)
    for seen in (["debug-returned"], []):
        sandbox("DELETE", f"{PODS}?gracePeriodSeconds=1")
        sandbox.later(0.7)
        assert sandbox.pods() == []
        sandbox.later(0.7)
        assert sandbox.pods() == seen


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


def test_kubectl_gets_the_tables_and_the_discovery_that_it_asks_for(sandbox: Cluster) -> None:
    assert sandbox("GET", "/apis")[1]["groups"][0]["name"] == "apps"
    assert {r["name"] for r in sandbox("GET", "/api/v1")[1]["resources"]} == {
        "pods",
        "resourcequotas",
        "replicationcontrollers",
        "replicationcontrollers/scale",
    }
    assert sandbox("GET", "/version")[1]["gitVersion"].startswith("v1.")
