"""The admission policies of deploy/kubernetes/ on a real API server: to halt, and no more."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from killswitch.model import Outcome
from killswitch.verdict import Intent
from tests.real.accounts import Account, section, told, until
from tests.real.manifests import Object, apply, documents, remove
from tests.real.workloads import loosen_lock, make_all, pods

DRY = {"dryRun": "All"}
ONLY_HALT = "policy-only-halt.yaml"


@pytest.fixture(scope="module", autouse=True)
def only_halt(account: Account, idle: str) -> Iterator[None]:
    """Put the policy in force."""
    apply(account.cluster, documents(ONLY_HALT))
    quota = f"/api/v1/namespaces/{idle}/resourcequotas"
    for path, method, body in (
        (f"/apis/apps/v1/namespaces/{idle}/deployments/deployments/scale", "PATCH", scale(3)),
        (f"/apis/batch/v1/namespaces/{idle}/jobs/jobs", "PATCH", {"spec": {"suspend": False}}),
        (f"/apis/apps/v1/namespaces/{idle}/daemonsets/daemonsets", "PATCH", {"spec": {}}),
        (quota, "POST", {"metadata": {"name": "other"}, "spec": {}}),
    ):
        until(partial(denied, account, method, path, body))
    yield
    remove(account.cluster, documents(ONLY_HALT))


def denied(account: Account, method: str, path: str, body: Object) -> bool:
    return account.send(method, path, body, query=DRY)[0] == 422


# The garbage collector deletes an object whose owner is not there.
ORPHAN = {
    "ownerReferences": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "never",
            "uid": "11111111-2222-4333-8444-555555555555",
        }
    ]
}


def scale(replicas: int) -> Object:
    return {"spec": {"replicas": replicas}}


def refused(status: int, answer: Any) -> str:
    return answer["message"] if status == 422 else f"{status} {answer}"


def test_under_the_policy_too(account: Account, trader: str, tmp_path: Path) -> None:
    drill = account.carry_out(tmp_path, section(trader), Intent.REHEARSE)
    assert drill.outcome is Outcome.REHEARSED, told(drill)
    halt = account.carry_out(tmp_path, section(trader), Intent.PERFORM)
    assert halt.outcome is Outcome.VERIFIED, told(halt)
    until(lambda: pods(account.cluster, trader) == [])


def test_a_lock_of_another_spec_is_mended_under_the_policy(
    account: Account, trader: str, tmp_path: Path
) -> None:
    loosen_lock(account.cluster, trader)
    halt = account.carry_out(tmp_path, section(trader), Intent.PERFORM)
    assert halt.outcome is Outcome.VERIFIED, told(halt)


CHANGES = {
    "scales a Deployment up": ("apps/v1/{ns}/deployments/deployments/scale", scale(3)),
    "scales a StatefulSet up": ("apps/v1/{ns}/statefulsets/statefulsets/scale", scale(1)),
    "scales a ReplicaSet up": ("apps/v1/{ns}/replicasets/replicasets/scale", scale(9)),
    "scales a ReplicationController up": (
        "v1/{ns}/replicationcontrollers/replicationcontrollers/scale",
        scale(9),
    ),
    "resumes a Job": ("batch/v1/{ns}/jobs/jobs", {"spec": {"suspend": False}}),
    "resumes a CronJob": ("batch/v1/{ns}/cronjobs/cronjobs", {"spec": {"suspend": False}}),
    "widens a Job": ("batch/v1/{ns}/jobs/jobs", {"spec": {"suspend": True, "parallelism": 5}}),
    "changes a CronJob's schedule": (
        "batch/v1/{ns}/cronjobs/cronjobs",
        {"spec": {"suspend": True, "schedule": "* * * * *"}},
    ),
    "has a CronJob run another image": (
        "batch/v1/{ns}/cronjobs/cronjobs",
        {
            "spec": {
                "suspend": True,
                "jobTemplate": {
                    "spec": {"template": {"spec": {"containers": [{"name": "bot", "image": "x"}]}}}
                },
            }
        },
    ),
    "has a DaemonSet select other nodes": (
        "apps/v1/{ns}/daemonsets/daemonsets",
        {"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}},
    ),
    "has a DaemonSet run another image": (
        "apps/v1/{ns}/daemonsets/daemonsets",
        {
            "spec": {
                "template": {
                    "spec": {
                        "nodeSelector": {"killswitch/halted": "true"},
                        "containers": [{"name": "bot", "image": "x"}],
                    }
                }
            }
        },
    ),
    "has a Job taken for garbage": (
        "batch/v1/{ns}/jobs/jobs",
        {"metadata": ORPHAN, "spec": {"suspend": True}},
    ),
    "has a CronJob taken for garbage": (
        "batch/v1/{ns}/cronjobs/cronjobs",
        {"metadata": ORPHAN, "spec": {"suspend": True}},
    ),
    "has a DaemonSet taken for garbage": (
        "apps/v1/{ns}/daemonsets/daemonsets",
        {
            "metadata": ORPHAN,
            "spec": {"template": {"spec": {"nodeSelector": {"killswitch/halted": "true"}}}},
        },
    ),
    "gives a DaemonSet another update strategy": (
        "apps/v1/{ns}/daemonsets/daemonsets",
        {
            "spec": {
                "updateStrategy": {"type": "OnDelete"},
                "template": {"spec": {"nodeSelector": {"killswitch/halted": "true"}}},
            }
        },
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_policy_refuses_whoever_has_its_token_and(
    account: Account, idle: str, change: str
) -> None:
    short, body = CHANGES[change]
    root = "/api/" if short.startswith("v1/") else "/apis/"
    path = root + short.format(ns=f"namespaces/{idle}")
    status, answer = account.send("PATCH", path, body)
    assert "killswitch may only" in refused(status, answer)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("killswitch-lock", {"hard": {"pods": "1"}}),
        ("killswitch-lock", {"hard": {"configmaps": "0"}}),
        ("killswitch-lock", {"hard": {"pods": "0", "configmaps": "9"}}),
        ("killswitch-lock", {"hard": {"pods": "0"}, "scopes": ["BestEffort"]}),
        ("another", {"hard": {"pods": "0"}}),
    ],
)
def test_the_policy_refuses_another_quota_than_the_lock(
    account: Account, idle: str, name: str, spec: Object
) -> None:
    path = f"/api/v1/namespaces/{idle}/resourcequotas"
    status, answer = account.send("POST", path, {"metadata": {"name": name}, "spec": spec})
    assert "killswitch may only" in refused(status, answer)


def test_the_policy_keeps_the_lock_from_being_loosened(account: Account, trader: str) -> None:
    path = f"/api/v1/namespaces/{trader}/resourcequotas"
    lock = {"metadata": {"name": "killswitch-lock"}, "spec": {"hard": {"pods": "0"}}}
    assert account.send("POST", path, lock)[0] == 201
    for loose in ({"spec": {"hard": {"pods": None, "configmaps": "0"}}}, {"metadata": ORPHAN}):
        status, answer = account.send("PATCH", f"{path}/killswitch-lock", loose)
        assert "killswitch may only" in refused(status, answer)


def test_the_policy_keeps_the_lock_from_being_made_as_garbage(account: Account, idle: str) -> None:
    path = f"/api/v1/namespaces/{idle}/resourcequotas"
    lock = {"metadata": {"name": "killswitch-lock", **ORPHAN}, "spec": {"hard": {"pods": "0"}}}
    status, answer = account.send("POST", path, lock)
    assert "killswitch may only" in refused(status, answer)


def test_the_policy_binds_nobody_else(account: Account, trader: str) -> None:
    path = f"/apis/apps/v1/namespaces/{trader}/deployments/deployments/scale"
    assert account.cluster.send("PATCH", path, scale(3))[0] == 200


def test_the_latch_policy_keeps_pods_out_of_a_labelled_namespace_only(
    account: Account, namespace: str
) -> None:
    cluster = account.cluster
    apply(cluster, documents("policy-latch.yaml"))
    try:
        make_all(cluster, namespace)
        label = {"metadata": {"labels": {"killswitch/halted": "true"}}}
        assert cluster.send("PATCH", f"/api/v1/namespaces/{namespace}", label)[0] == 200
        pod = {
            "metadata": {"generateName": "p-"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        path = f"/api/v1/namespaces/{namespace}/pods"
        until(lambda: cluster.send("POST", path, pod, query=DRY)[0] == 422)
        assert cluster.send("POST", "/api/v1/namespaces/default/pods", pod, query=DRY)[0] == 201
    finally:
        remove(cluster, documents("policy-latch.yaml"))
