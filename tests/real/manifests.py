"""The manifests of deploy/, as they are sent to a real API server: what kubectl apply would do."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
KUBERNETES: Final = DEPLOY / "kubernetes"
ACCOUNT: Final = "system:serviceaccount:killswitch:killswitch"
Object = dict[str, Any]
_ROOTS: Final = {
    "v1": "/api/v1",
    "rbac.authorization.k8s.io/v1": "/apis/rbac.authorization.k8s.io/v1",
    "networking.k8s.io/v1": "/apis/networking.k8s.io/v1",
    "admissionregistration.k8s.io/v1": "/apis/admissionregistration.k8s.io/v1",
}
_CLUSTER_WIDE: Final = {
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


class Api(Protocol):
    """A control plane, as far as a manifest needs it."""

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        user: str = "admin",
        content_type: str | None = None,
    ) -> tuple[int, Any]: ...


def documents(name: str) -> list[Object]:
    """Return what a file of deploy/kubernetes holds."""
    return split((KUBERNETES / name).read_text())


def split(text: str) -> list[Object]:
    """Return the objects of a YAML stream."""
    found = [msgspec.yaml.decode(part) for part in text.split("\n---")]
    return [one for one in found if one is not None]


def placed(objects: Iterable[Object], namespace: str) -> Iterator[Object]:
    """Give those without a namespace this one, as `kubectl --namespace` does."""
    for one in copy.deepcopy(list(objects)):
        if one["kind"] not in _CLUSTER_WIDE:
            one["metadata"].setdefault("namespace", namespace)
        yield one


def address(one: Object) -> str:
    """Return the path of an object."""
    plural = one["kind"].lower() + "s"
    if plural.endswith("ys"):
        plural = plural.removesuffix("ys") + "ies"
    meta = one["metadata"]
    scope = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
    return f"{_ROOTS[one['apiVersion']]}{scope}/{plural}/{meta['name']}"


def apply(api: Api, objects: Iterable[Object], namespace: str = "default") -> None:
    """Create or change them; a field that the server does not know is an error."""
    for one in placed(objects, namespace):
        status, answer = api.send(
            "PATCH",
            address(one),
            one,
            query={"fieldManager": "deploy", "force": "true", "fieldValidation": "Strict"},
            content_type="application/apply-patch+yaml",
        )
        assert status in {200, 201}, answer


def remove(api: Api, objects: Iterable[Object], namespace: str = "default") -> None:
    """Delete them; one that is not there is no error."""
    for one in placed(objects, namespace):
        status, answer = api.send("DELETE", address(one))
        assert status in {200, 202, 404}, answer
