"""The rights to pause what would scale up again, on a real API server without the controllers."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from killswitch.model import Outcome
from killswitch.verdict import Intent
from tests.real.accounts import Account, grant, told, until
from tests.real.definitions import RECONCILERS, define
from tests.real.manifests import Object, apply, documents, remove
from tests.real.workloads import make_all

DRY = {"dryRun": "All"}
ONLY_HALT = "policy-only-halt.yaml"
FILES = ("pause-keda.yaml", "pause-argocd.yaml", "pause-flux.yaml")
SKIP = "argocd.argoproj.io/skip-reconcile"
PAUSED = "autoscaling.keda.sh/paused-replicas"
ARGOCD = "/apis/argoproj.io/v1alpha1/namespaces/{ns}/applications/trader"
KEDA = "/apis/keda.sh/v1alpha1/namespaces/{ns}/scaledobjects/trader"
FLUX = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/{ns}/kustomizations/trader"
HELM = "/apis/helm.toolkit.fluxcd.io/v2/namespaces/{ns}/helmreleases/trader"
SPECS: dict[str, Object] = {
    ARGOCD: {"source": {"repoURL": "https://git.example/trader"}, "syncPolicy": {"automated": {}}},
    KEDA: {"scaleTargetRef": {"name": "deployments"}, "maxReplicaCount": 3},
    FLUX: {"path": "./trader", "interval": "10m"},
    HELM: {"chart": {"spec": {"chart": "trader"}}, "interval": "10m"},
}
PAUSES: dict[str, Object] = {
    ARGOCD: {"metadata": {"annotations": {SKIP: "true"}}},
    KEDA: {"metadata": {"annotations": {PAUSED: "0"}}},
    FLUX: {"spec": {"suspend": True}},
    HELM: {"spec": {"suspend": True}},
}


@pytest.fixture
def kept(account: Account, namespace: str) -> str:
    """Return a namespace whose Deployment is kept by all four, and the rights to pause them."""
    make_kept(account, namespace)
    return namespace


@pytest.fixture(scope="module")
def shared(account: Account) -> str:
    """Return such a namespace for tests that only ask, or pause."""
    make_kept(account, "kept-trader")
    return "kept-trader"


@pytest.fixture(scope="module")
def only_halt(account: Account, shared: str) -> Iterator[None]:
    """Put the policy in force."""
    apply(account.cluster, documents(ONLY_HALT))
    for path in PAUSES:
        wrong = {"spec": {"anything": "else"}}
        until(partial(refuses, account, path.format(ns=shared), wrong))
    yield
    remove(account.cluster, documents(ONLY_HALT))


def make_kept(account: Account, namespace: str) -> None:
    cluster = account.cluster
    define(cluster, RECONCILERS)
    make_all(cluster, namespace)
    for path, spec in SPECS.items():
        _, group, version, _, _, plural, name = path.strip("/").split("/")
        kind = {it[2]: it[3] for it in RECONCILERS}[plural]
        body = {
            "apiVersion": f"{group}/{version}",
            "kind": kind,
            "metadata": {"name": name, "annotations": {"team": "desk"}},
            "spec": spec,
        }
        status, answer = cluster.send("POST", path.format(ns=namespace).rpartition("/")[0], body)
        assert status == 201, answer
    marks = {
        "annotations": {"argocd.argoproj.io/tracking-id": f"{namespace}_trader:apps/Deployment:x"},
        "labels": {
            "kustomize.toolkit.fluxcd.io/name": "trader",
            "kustomize.toolkit.fluxcd.io/namespace": namespace,
            "helm.toolkit.fluxcd.io/name": "trader",
            "helm.toolkit.fluxcd.io/namespace": namespace,
        },
    }
    deployment = f"/apis/apps/v1/namespaces/{namespace}/deployments/deployments"
    assert cluster.send("PATCH", deployment, {"metadata": marks})[0] == 200
    for name in ("trader.yaml", *FILES):
        grant(account, documents(name), namespace)


def refuses(account: Account, path: str, body: Object) -> bool:
    return patch(account, path, body)[0] == 422


def patch(account: Account, path: str, body: Object) -> tuple[int, Object]:
    return account.send("PATCH", path, body, query=DRY)


def section(namespace: str) -> str:
    return f'[[kubernetes]]\nnamespaces = ["{namespace}"]\npause = ["argocd", "flux", "keda"]'


@pytest.mark.usefixtures("only_halt")
def test_with_exactly_these_rights_all_four_are_paused(
    account: Account, kept: str, tmp_path: Path
) -> None:
    drill = account.carry_out(tmp_path, section(kept), Intent.REHEARSE)
    assert drill.outcome is Outcome.REHEARSED, told(drill)
    halt = account.carry_out(tmp_path, section(kept), Intent.PERFORM)
    assert halt.outcome is Outcome.VERIFIED, told(halt)
    for path, expected in PAUSES.items():
        found = account.cluster.send("GET", path.format(ns=kept))[1]
        for part, wanted in expected.items():
            for key, value in wanted.items():
                held = found[part][key]
                assert value.items() <= held.items() if isinstance(value, dict) else held == value


@pytest.mark.usefixtures("only_halt")
@pytest.mark.parametrize("path", PAUSES, ids=lambda path: path.split("/")[-2])
def test_a_pause_is_let_through_and_nothing_beside_it(
    account: Account, shared: str, path: str
) -> None:
    place, pause = path.format(ns=shared), PAUSES[path]
    assert patch(account, place, pause)[0] == 200
    more: list[Object] = [
        {**pause, "operation": {"sync": {"revision": "evil"}}},
        {**pause, "spec": {**pause.get("spec", {}), "path": "./evil"}},
        {**pause, "metadata": {**pause.get("metadata", {}), "labels": {"a": "b"}}},
        {**pause, "metadata": {"annotations": {**marks_of(pause), "another": "mark"}}},
        {**pause, "metadata": {"annotations": {**marks_of(pause), "team": None}}},
        {**pause, "metadata": {**pause.get("metadata", {}), "finalizers": ["a.example/b"]}},
    ]
    for body in more:
        status, answer = patch(account, place, body)
        assert status == 422, (body, answer)
        assert "killswitch may only" in answer["message"]


def marks_of(pause: Object) -> Object:
    marks: Object = pause.get("metadata", {}).get("annotations", {})
    return marks


@pytest.mark.usefixtures("only_halt")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (ARGOCD, {"metadata": {"annotations": {SKIP: "false"}}}),
        (KEDA, {"metadata": {"annotations": {PAUSED: "3"}}}),
        (FLUX, {"spec": {"suspend": False}}),
        (HELM, {"spec": {"suspend": None}}),
    ],
)
def test_nothing_is_let_loose_again(account: Account, shared: str, path: str, body: Object) -> None:
    assert account.send("PATCH", path.format(ns=shared), PAUSES[path])[0] == 200
    assert patch(account, path.format(ns=shared), body)[0] == 422


@pytest.mark.parametrize("name", FILES)
def test_without_its_file_the_drill_names_the_right(
    account: Account, kept: str, tmp_path: Path, name: str
) -> None:
    role = documents(name)[0]
    for rule in role["rules"]:
        for verb in rule["verbs"]:
            fewer = [one for one in rule["verbs"] if one != verb]
            less = [{**rule, "verbs": fewer}] if fewer else []
            less += [one for one in role["rules"] if one is not rule]
            place = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{kept}/roles/{name[:-5]}"
            changed = {**role, "rules": less}
            remove(account.cluster, [role], kept)
            grant(account, [changed], kept)
            drill = account.carry_out(tmp_path, section(kept), Intent.REHEARSE)
            assert drill.outcome is not Outcome.REHEARSED, (place, told(drill))
            assert f'cannot {verb} resource "{rule["resources"][0]}"' in told(drill)
