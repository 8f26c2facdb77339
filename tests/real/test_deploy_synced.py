"""The rights on synced Secrets, on a real API server with External Secrets' own definitions.

Its operator does not run: what matters here is what the server lets through.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from killswitch.model import Outcome
from killswitch.verdict import Intent
from tests.real.accounts import Account, grant, may, told, until
from tests.real.manifests import Object, apply, documents, remove
from tests.real.workloads import make_secret
from tests.servers.control_plane import ControlPlane
from tests.servers.external_secrets import ExternalSecrets

VALUE = "the-secret-value"
KEY = "freqtrade-bybit"
HERE, EVERYWHERE = "synced-secrets.yaml", "synced-secrets-cluster.yaml"
NO_READING = "policy-no-secret-reading.yaml"
GROUP = "/apis/external-secrets.io"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


@pytest.fixture(scope="module")
def defined(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> ControlPlane:
    ExternalSecrets(control_plane, tmp_path_factory.mktemp("eso")).install_definitions()
    return control_plane


@pytest.fixture
def synced(defined: ControlPlane, namespace: str) -> Iterator[str]:
    """Return a namespace with a Secret, what syncs it both ways, and what makes that."""
    make_synced(defined, namespace)
    yield namespace
    for plural, version in (("clusterexternalsecrets", "v1"), ("clusterpushsecrets", "v1alpha1")):
        defined.send("DELETE", f"{GROUP}/{version}/{plural}/{namespace}")
    defined.send("DELETE", f"{GROUP}/v1/clustersecretstores/{namespace}")


@pytest.fixture
def rights(account: Account, synced: str) -> str:
    """Return such a namespace with exactly the rights of both files."""
    grant(account, documents(HERE), synced)
    grant(account, documents(EVERYWHERE), synced)
    return synced


@pytest.fixture
def no_reading(account: Account, rights: str) -> Iterator[str]:
    """Return the same under the policy, once it is in force."""
    apply(account.cluster, documents(NO_READING))
    until(lambda: delete(account, rights, {"propagationPolicy": "Orphan"})[0] == 422)
    yield rights
    remove(account.cluster, documents(NO_READING))


def make_synced(cluster: ControlPlane, namespace: str) -> None:
    for name in (KEY, "store-login", "cluster-login"):
        make_secret(cluster, namespace, name, VALUE)
    place = {"key": "trading/bybit", "property": "key"}
    store = {"secretStoreRef": {"name": "vault", "kind": "SecretStore"}}
    stores = {"secretStoreRefs": [{"name": "vault", "kind": "SecretStore"}]}
    match: Object = {"data": [{"match": {"secretKey": "key", "remoteRef": {"remoteKey": "bybit"}}}]}
    pull: Object = {**store, "target": {"name": KEY}}
    pull["data"] = [{"secretKey": "key", "remoteRef": place}]
    selector: Object = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}

    def pushes(source: str) -> Object:
        return {**stores, **match, "selector": {"secret": {"name": source}}}

    def store_of(login: str, **more: str) -> Object:
        auth = {"tokenSecretRef": {"name": login, "key": "key", **more}}
        return {"provider": {"vault": {"server": "https://vault.internal:8200", "auth": auth}}}

    def make(version: str, path: str, kind: str, name: str, spec: Object, **meta: Any) -> Object:
        body = {"apiVersion": f"external-secrets.io/{version}", "kind": kind}
        whole = {**body, "metadata": {"name": name, **meta}, "spec": spec}
        status, answer = cluster.send("POST", f"{GROUP}/{version}/{path}", whole)
        assert status == 201, answer
        owner = {"apiVersion": body["apiVersion"], "kind": kind, "name": name}
        return {"ownerReferences": [{**owner, "uid": answer["metadata"]["uid"]}]}

    here = f"namespaces/{namespace}"
    wide = {"externalSecretSpec": pull, "namespaceSelectors": [selector]}
    puller = make("v1", "clusterexternalsecrets", "ClusterExternalSecret", namespace, wide)
    wide = {"pushSecretSpec": pushes(KEY), "namespaceSelectors": [selector]}
    pusher = make("v1alpha1", "clusterpushsecrets", "ClusterPushSecret", namespace, wide)
    login = store_of("cluster-login", namespace=namespace)
    make("v1", "clustersecretstores", "ClusterSecretStore", namespace, login)
    make("v1", f"{here}/secretstores", "SecretStore", "vault", store_of("store-login"))
    make("v1", f"{here}/externalsecrets", "ExternalSecret", "bybit", pull, **puller)
    kind, path = "PushSecret", f"{here}/pushsecrets"
    make("v1alpha1", path, kind, "back", pushes(KEY), **pusher)
    for source in ("store-login", "cluster-login"):
        make("v1alpha1", path, kind, source, pushes(source))


def delete(
    account: Account, namespace: str, options: Object, *, name: str = KEY, accept: str = ""
) -> tuple[int, Any]:
    path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
    query = {"dryRun": "All", **options}
    return account.send("DELETE", path, query=query, accept=accept or "application/json")


def section(namespace: str) -> str:
    return f'[[synced_secrets]]\nnamespaces = ["{namespace}"]\nsecrets = ["{namespace}/{KEY}"]'


def secrets_in(cluster: ControlPlane, namespace: str) -> set[str]:
    items = cluster.send("GET", f"/api/v1/namespaces/{namespace}/secrets")[1]["items"]
    return {item["metadata"]["name"] for item in items}


def test_with_exactly_these_rights_the_synced_secret_goes_and_the_logins_stay(
    account: Account, rights: str, tmp_path: Path
) -> None:
    drill = account.carry_out(tmp_path, section(rights), Intent.REHEARSE)
    assert drill.outcome is Outcome.REHEARSED, told(drill)
    assert KEY in secrets_in(account.cluster, rights)
    halt = account.carry_out(tmp_path, section(rights), Intent.PERFORM)
    assert halt.outcome is Outcome.VERIFIED, told(halt)
    assert secrets_in(account.cluster, rights) == {"store-login", "cluster-login"}
    assert VALUE not in told(drill) + told(halt)


def test_under_both_policies_too(account: Account, no_reading: str, tmp_path: Path) -> None:
    apply(account.cluster, documents("policy-only-halt.yaml"))
    quota = f"/api/v1/namespaces/{no_reading}/resourcequotas"
    other = {"metadata": {"name": "other"}, "spec": {"hard": {"secrets": "0"}}}
    until(lambda: account.send("POST", quota, other, query={"dryRun": "All"})[0] == 422)
    try:
        drill = account.carry_out(tmp_path, section(no_reading), Intent.REHEARSE)
        assert drill.outcome is Outcome.REHEARSED, told(drill)
        halt = account.carry_out(tmp_path, section(no_reading), Intent.PERFORM)
        assert halt.outcome is Outcome.VERIFIED, told(halt)
    finally:
        remove(account.cluster, documents("policy-only-halt.yaml"))


@pytest.mark.parametrize("path", ["/{name}", "", "?watch=1&timeoutSeconds=1"])
def test_reading_stays_refused(account: Account, rights: str, path: str) -> None:
    place = f"/api/v1/namespaces/{rights}/secrets{path.format(name=KEY)}"
    for accept in ("application/json", METADATA):
        status, answer = account.send("GET", place, accept=accept)
        assert status == 403
        assert VALUE not in json.dumps(answer)


def test_nor_may_it_delete_all_secrets_or_one_that_is_not_named(
    account: Account, rights: str
) -> None:
    assert delete(account, rights, {}, name="store-login")[0] == 403
    assert delete(account, rights, {}, name="")[0] == 403


FORMS: list[Object] = [
    {"propagationPolicy": "Foreground"},
    {"propagationPolicy": "Orphan"},
    {"orphanDependents": "true"},
    {"orphanDependents": "false"},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_under_the_policy_a_deletion_does_not_show_the_secret(
    account: Account, no_reading: str, form: Object
) -> None:
    for options in (form, {**form, "gracePeriodSeconds": "0"}):
        status, answer = delete(account, no_reading, options)
        assert status == 422, answer
        assert VALUE not in json.dumps(answer)
    path = f"/api/v1/namespaces/{no_reading}/secrets/{KEY}"
    kind = {"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]}
    body = {**kind, **{key: {"true": True, "false": False}.get(it, it) for key, it in form.items()}}
    assert account.send("DELETE", path, body)[0] == 422


def test_without_the_policy_it_would(account: Account, rights: str) -> None:
    until(lambda: "data" in delete(account, rights, {"propagationPolicy": "Foreground"})[1])


def test_under_the_policy_the_background_is_let_through_and_shows_nothing(
    account: Account, no_reading: str
) -> None:
    for options in ({}, {"propagationPolicy": "Background"}):
        status, answer = delete(account, no_reading, options)
        assert status == 200
        assert "data" not in answer


def test_under_the_policy_a_finalizer_does_not_show_the_secret(
    account: Account, no_reading: str
) -> None:
    path = f"/api/v1/namespaces/{no_reading}/secrets/{KEY}"
    held = {"metadata": {"finalizers": ["a.example/b"]}}
    assert account.cluster.send("PATCH", path, held)[0] == 200
    try:
        status, answer = delete(account, no_reading, {"propagationPolicy": "Background"})
        assert status == 422
        assert VALUE not in json.dumps(answer)
    finally:
        account.cluster.send("PATCH", path, {"metadata": {"finalizers": None}})


def test_the_policy_binds_nobody_else(account: Account, no_reading: str) -> None:
    path = f"/api/v1/namespaces/{no_reading}/secrets/{KEY}"
    query = {"dryRun": "All", "propagationPolicy": "Foreground"}
    assert account.cluster.send("DELETE", path, query=query)[0] == 200


def without_one(name: str) -> Iterator[Any]:
    """Yield a file once for each verb of each resource, without it."""
    for index, rule in enumerate(documents(name)[0]["rules"]):
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                less = copy.deepcopy(documents(name))
                others = [one for one in rule["resources"] if one != resource]
                verbs = [one for one in rule["verbs"] if one != verb]
                rest = [
                    {**rule, "resources": others},
                    {**rule, "resources": [resource], "verbs": verbs},
                ]
                less[0]["rules"][index : index + 1] = [
                    one for one in rest if one["resources"] and one["verbs"]
                ]
                yield pytest.param(name, less, rule, verb, resource, id=f"{verb} {resource}")


@pytest.mark.parametrize(
    ("name", "less", "rule", "verb", "resource"), [*without_one(HERE), *without_one(EVERYWHERE)]
)
def test_a_right_that_is_missing_is_named_by_the_drill(
    account: Account,
    synced: str,
    tmp_path: Path,
    name: str,
    less: list[Object],
    rule: Object,
    verb: str,
    resource: str,
) -> None:
    for file in {HERE, EVERYWHERE} - {name}:
        grant(account, documents(file), synced)
    grant(account, less, synced)
    scope = "" if name == EVERYWHERE else synced
    until(lambda: not may(account, scope, rule, verb, resource))
    drill = account.carry_out(tmp_path, section(synced), Intent.REHEARSE)
    assert drill.outcome is not Outcome.REHEARSED, told(drill)
    login = {"secretstores": "store-login", "clustersecretstores": "cluster-login"}
    named = f'cannot {verb} resource "{resource}"'
    if resource in login:  # then it takes that Secret for one of the trader's
        named = f'secrets "{login[resource]}" is forbidden'
    assert named in told(drill)
