"""What deploy/kubernetes/ gives to killswitch on a real API server: enough to halt, no more."""

import base64
import copy
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from killswitch.model import Outcome
from killswitch.verdict import Intent
from tests.real.accounts import Account, grant, may, section, told, until
from tests.real.manifests import ACCOUNT, KUBERNETES, Object, apply, documents, remove
from tests.real.workloads import make_all, pods
from tests.servers.control_plane import ControlPlane

# What is only listed to be named in the report is named in its own words.
NAMED = {
    "horizontalpodautoscalers": "not seen whether any HorizontalPodAutoscaler",
    "scaledobjects": "not seen whether any KEDA ScaledObject",
}
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"


@pytest.mark.parametrize("name", sorted(path.name for path in KUBERNETES.glob("*.yaml")))
def test_the_server_knows_every_field_of_every_file(control_plane: ControlPlane, name: str) -> None:
    # The policies of reconcilers name kinds that this cluster does not have: that is no error.
    apply(control_plane, documents("account.yaml"))
    apply(control_plane, documents(name))
    for one in documents(name):
        if one["kind"] == "ValidatingAdmissionPolicy":
            checked = one["metadata"]["name"]
            until(partial(is_checked, control_plane, checked))
            assert status_of(control_plane, checked)["typeChecking"] == {}
    if name != "account.yaml":
        remove(control_plane, documents(name))


def is_checked(cluster: ControlPlane, policy: str) -> bool:
    return "typeChecking" in status_of(cluster, policy)


def status_of(cluster: ControlPlane, policy: str) -> Object:
    status: Object = cluster.send("GET", f"{POLICIES}/{policy}")[1].get("status", {})
    return status


def test_with_exactly_these_rights_a_drill_passes_and_a_halt_ends_clean(
    account: Account, trader: str, tmp_path: Path
) -> None:
    drill = account.carry_out(tmp_path, section(trader), Intent.REHEARSE)
    assert drill.outcome is Outcome.REHEARSED, told(drill)
    assert pods(account.cluster, trader)
    halt = account.carry_out(tmp_path, section(trader), Intent.PERFORM)
    assert halt.outcome is Outcome.VERIFIED, told(halt)
    until(lambda: pods(account.cluster, trader) == [])


def without_one() -> Iterator[Any]:
    """Yield trader.yaml once for each verb of each resource, without it."""
    whole = documents("trader.yaml")
    for index, rule in enumerate(whole[0]["rules"]):
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                less = copy.deepcopy(whole)
                rest = [one for one in rule["resources"] if one != resource]
                less[0]["rules"][index]["resources"] = rest
                fewer = [one for one in rule["verbs"] if one != verb]
                less[0]["rules"].append({**rule, "resources": [resource], "verbs": fewer})
                less[0]["rules"] = [
                    it for it in less[0]["rules"] if it["resources"] and it["verbs"]
                ]
                yield pytest.param(less, verb, resource, id=f"{verb} {resource}")


@pytest.mark.parametrize(("less", "verb", "resource"), list(without_one()))
def test_a_right_that_is_missing_is_named_by_the_drill(
    account: Account,
    namespace: str,
    tmp_path: Path,
    less: list[Object],
    verb: str,
    resource: str,
) -> None:
    make_all(account.cluster, namespace)
    grant(account, less, namespace)
    drill = account.carry_out(tmp_path, section(namespace), Intent.REHEARSE)
    assert NAMED.get(resource, f'cannot {verb} resource "{resource}"') in told(drill)
    if drill.outcome is Outcome.REHEARSED:  # told as a note: the quota keeps its pods out
        assert verb == "list"
        assert resource not in {"pods", "deployments", "statefulsets"}


def test_without_the_policy_it_could_scale_up_and_change_what_runs(
    account: Account, idle: str
) -> None:
    path = f"/apis/apps/v1/namespaces/{idle}/deployments/deployments/scale"
    until(
        lambda: (
            account.send("PATCH", path, {"spec": {"replicas": 3}}, query={"dryRun": "All"})[0]
            == 200
        )
    )


FORBIDDEN: list[tuple[str, str, Object | None]] = [
    ("GET", "/api/v1/namespaces/{ns}/secrets/exchange", None),
    ("GET", "/api/v1/namespaces/{ns}/secrets", None),
    ("GET", "/api/v1/namespaces/{ns}/secrets?watch=1&timeoutSeconds=1", None),
    ("GET", "/api/v1/secrets", None),
    ("DELETE", "/api/v1/namespaces/{ns}/secrets/exchange?dryRun=All", None),
    ("DELETE", "/api/v1/namespaces/{ns}/secrets?dryRun=All", None),
    ("PATCH", "/api/v1/namespaces/{ns}/secrets/exchange", {"metadata": {"finalizers": ["a/b"]}}),
    ("POST", "/api/v1/namespaces/{ns}/secrets", {"metadata": {"name": "new"}}),
    ("GET", "/api/v1/namespaces/{ns}/configmaps", None),
    ("GET", "/api/v1/namespaces/{ns}/pods/pods/log", None),
    ("GET", "/api/v1/namespaces/{ns}/pods/pods/exec?command=env", None),
    ("POST", "/api/v1/namespaces/{ns}/pods/pods/exec?command=env", None),
    ("POST", "/api/v1/namespaces/{ns}/pods", {"metadata": {"name": "new"}}),
    ("PATCH", "/api/v1/namespaces/{ns}/pods/pods", {"metadata": {"labels": {"a": "b"}}}),
    ("DELETE", "/api/v1/namespaces/{ns}/resourcequotas/killswitch-lock", None),
    ("DELETE", "/api/v1/namespaces/{ns}/resourcequotas", None),
    ("DELETE", "/api/v1/namespaces/{ns}", None),
    ("PATCH", "/api/v1/namespaces/{ns}", {"metadata": {"labels": {"a": "b"}}}),
    ("PATCH", "/apis/apps/v1/namespaces/{ns}/deployments/deployments", {"spec": {"replicas": 0}}),
    ("DELETE", "/apis/apps/v1/namespaces/{ns}/deployments/deployments", None),
    ("DELETE", "/apis/batch/v1/namespaces/{ns}/jobs/jobs", None),
    ("GET", "/api/v1/namespaces/default/pods", None),
    ("GET", "/api/v1/pods", None),
    ("GET", "/api/v1/namespaces/killswitch/secrets/killswitch-token", None),
    ("POST", "/api/v1/namespaces/killswitch/serviceaccounts/killswitch/token", {"spec": {}}),
]


@pytest.mark.parametrize(("method", "path", "body"), FORBIDDEN)
def test_it_may_not(
    account: Account, idle: str, method: str, path: str, body: Object | None
) -> None:
    status, answer = account.send(method, path.format(ns=idle), body)
    assert status == 403, answer
    assert "the-key" not in json.dumps(answer)


def test_the_token_that_never_ends_is_made_and_is_the_accounts(account: Account) -> None:
    apply(account.cluster, documents("account-token.yaml"))
    path = "/api/v1/namespaces/killswitch/secrets/killswitch-token"
    until(lambda: "token" in (account.cluster.send("GET", path)[1].get("data") or {}))
    token = base64.b64decode(account.cluster.send("GET", path)[1]["data"]["token"]).decode()
    review = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    answer = Account(account.cluster, token).send("POST", review, {})[1]
    assert answer["status"]["userInfo"]["username"] == ACCOUNT
    assert "exp" not in claims(token)


def test_a_created_token_says_when_it_ends(account: Account) -> None:
    assert 3000 < claims(account.token)["exp"] - time.time() < 3700


def claims(token: str) -> Any:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_the_cluster_is_told_by_one_uid_and_nothing_else_is(account: Account) -> None:
    grant(account, documents("cluster-uid.yaml"), "kube-system")
    assert account.send("GET", "/api/v1/namespaces/kube-system")[1]["metadata"]["uid"]
    for path in ("", "/default", "/kube-system/pods", "/kube-system/secrets"):
        assert account.send("GET", f"/api/v1/namespaces{path}")[0] == 403


def test_a_pinned_cluster_needs_its_one_right(
    account: Account, trader: str, tmp_path: Path
) -> None:
    (role, _) = right = documents("cluster-uid.yaml")
    kube_system = account.cluster.send("GET", "/api/v1/namespaces/kube-system")[1]["metadata"]
    pinned = f'{section(trader)}\ncluster_uid = "{kube_system["uid"]}"'
    remove(account.cluster, right)
    until(lambda: not may(account, "kube-system", role["rules"][0], "get", "namespaces"))
    drill = account.carry_out(tmp_path, pinned, Intent.REHEARSE)
    assert drill.outcome is not Outcome.REHEARSED
    assert "get on namespaces, resourceNames [kube-system]" in told(drill)
    grant(account, right, "kube-system")
    drill = account.carry_out(tmp_path, pinned, Intent.REHEARSE)
    assert drill.outcome is Outcome.REHEARSED, told(drill)
