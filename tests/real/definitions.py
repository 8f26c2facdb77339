"""Custom resources without their controllers: enough to be listed, patched and refused."""

from collections.abc import Iterable
from functools import partial
from typing import Final

from tests.real.accounts import until
from tests.servers.control_plane import ControlPlane

_DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RECONCILERS: Final = (
    ("argoproj.io", "v1alpha1", "applications", "Application"),
    ("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject"),
    ("kustomize.toolkit.fluxcd.io", "v1", "kustomizations", "Kustomization"),
    ("helm.toolkit.fluxcd.io", "v2", "helmreleases", "HelmRelease"),
)


def define(cluster: ControlPlane, kinds: Iterable[tuple[str, str, str, str]]) -> None:
    """Define kinds that take any field, and wait until they are served."""
    for group, version, plural, kind in kinds:
        served = {
            "name": version,
            "served": True,
            "storage": True,
            "schema": {
                "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            },
        }
        body = {
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": plural, "kind": kind},
                "versions": [served],
            },
        }
        status, answer = cluster.send("POST", _DEFINITIONS, body)
        assert status in {201, 409}, answer
    for group, version, plural, _ in kinds:
        place = f"/apis/{group}/{version}/{plural}"
        until(partial(_is_served, cluster, place))


def _is_served(cluster: ControlPlane, place: str) -> bool:
    return cluster.send("GET", place)[0] == 200
