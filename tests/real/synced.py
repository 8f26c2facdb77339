"""A bot whose keys come from a real Vault through the real External Secrets, and its halt."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from killswitch.clients.kubernetes import KubernetesClient
from killswitch.clients.kubernetes_secrets import SecretsClient
from killswitch.clients.vault import VaultClient
from killswitch.converge import Limits
from killswitch.halt import Assignment, carry_out
from killswitch.model import HaltReport, Mode, Step
from killswitch.runner import Runner
from killswitch.secret import Secret
from killswitch.steps.synced_secrets import DeleteSyncedSecrets
from killswitch.steps.vault import WipeSecrets
from killswitch.verdict import Intent
from tests.engine.simulator import make_order
from tests.servers.control_plane import ControlPlane
from tests.servers.vault_server import DevVault

GROUP = "external-secrets.io"
LIMITS = Limits(deadline_s=40, stay_down_s=2.5)
LISTED = ("owned", "merged", "pushed", "cluster-pushed")
VALUES = {"key": "A3-live-key-of-the-bot", "secret": "its-secret-value"}
_GRANTS: Mapping[str, Sequence[tuple[str, str, list[str]]]] = {
    "Role": [
        ("", "resourcequotas", ["get", "create", "patch"]),
        ("", "secrets", ["delete"]),
        (GROUP, "externalsecrets", ["list", "delete"]),
        (GROUP, "pushsecrets", ["list", "delete"]),
        (GROUP, "secretstores", ["list"]),
    ],
    "ClusterRole": [
        (GROUP, "clusterexternalsecrets", ["list", "delete"]),
        (GROUP, "clusterpushsecrets", ["list", "delete"]),
        (GROUP, "clustersecretstores", ["list"]),
    ],
}


@dataclass(frozen=True, slots=True)
class SyncedBot:
    """One namespace, with a mount in Vault of the same name, and everything that syncs them."""

    control_plane: ControlPlane
    vault: DevVault
    namespace: str
    listed: tuple[str, ...] = LISTED

    def set_up(self) -> None:
        """Make it all: three ExternalSecrets, two PushSecrets, and one of each cluster-wide."""
        self.vault.send("POST", f"sys/mounts/{self.mount}", {"type": "kv-v2"})
        self.vault.send("POST", f"{self.mount}/data/bybit", {"data": VALUES})
        self.grant()
        self._secret("store-token", {"token": self.vault.root_token})
        for name in ("merged", "pushed", "cluster-pushed"):
            self._secret(name, {"own": "value-of-its-own"})
        vault = {"server": self.vault.address, "path": self.mount, "version": "v2"}
        auth = {"tokenSecretRef": {"name": "store-token", "key": "token"}}
        self._make("v1", "secretstores", "store", {"provider": {"vault": {**vault, "auth": auth}}})
        policies = {"owned": "Owner", "kept": "Orphan", "merged": "Merge"}
        for name, policy in policies.items():
            self._make("v1", "externalsecrets", name, self._external(name, policy))
        for name, policy in (("pushed", "Replace"), ("pushed-once", "IfNotExists")):
            self._make("v1alpha1", "pushsecrets", name, self._push("pushed", name, policy))
        label = {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}
        external = {
            "externalSecretSpec": self._external("spread", "Owner"),
            "externalSecretName": "spread",
            "namespaceSelectors": [label],
            "refreshTime": "1s",
        }
        self._make("v1", "clusterexternalsecrets", f"{self.namespace}-es", external, wide=True)
        push = {
            "pushSecretSpec": self._push("cluster-pushed", "cluster-pushed", "Replace"),
            "pushSecretName": "cluster-push",
            "namespaceSelectors": [label],
            "refreshTime": "1s",
        }
        self._make("v1alpha1", "clusterpushsecrets", f"{self.namespace}-ps", push, wide=True)
        expected = {"owned", "kept", "merged", "spread", "pushed", "cluster-pushed", "store-token"}
        wait_until(lambda: self.secrets() == expected and self.synced(), "everything is synced")
        stored = {"bybit", "pushed", "pushed-once", "cluster-pushed"}
        wait_until(lambda: self.in_vault() == stored, "all is pushed")

    def clean_up(self) -> None:
        """Take everything away, so that nothing of it runs beside the next test."""
        for version, resource, name in (
            ("v1", "clusterexternalsecrets", f"{self.namespace}-es"),
            ("v1alpha1", "clusterpushsecrets", f"{self.namespace}-ps"),
        ):
            self.control_plane.send("DELETE", f"/apis/{GROUP}/{version}/{resource}/{name}")
        for version, resource in (("v1alpha1", "pushsecrets"), ("v1", "externalsecrets")):
            path = f"/apis/{GROUP}/{version}/namespaces/{self.namespace}/{resource}"
            for item in self._items(path):
                one = f"{path}/{item['metadata']['name']}"
                self.control_plane.send("PATCH", one, {"metadata": {"finalizers": None}})
                self.control_plane.send("DELETE", one)
        self.control_plane.send("DELETE", f"/api/v1/namespaces/{self.namespace}")
        self.vault.send("DELETE", f"sys/mounts/{self.mount}")

    @property
    def mount(self) -> str:
        """The bot's mount in Vault, without a slash."""
        return self.namespace

    def secrets(self) -> set[str]:
        """Return the names of the namespace's Secrets, read as admin."""
        path = f"/api/v1/namespaces/{self.namespace}/secrets"
        return {item["metadata"]["name"] for item in self._items(path)}

    def synced(self) -> bool:
        """Whether the Merge target holds what came from Vault."""
        path = f"/api/v1/namespaces/{self.namespace}/secrets/merged"
        return "key" in self.control_plane.send("GET", path)[1].get("data", {})

    def in_vault(self) -> set[str]:
        """Return the names of the secrets in the bot's mount."""
        status, body = self.vault.send("LIST", f"{self.mount}/metadata/")
        return set(body["data"]["keys"]) if status == 200 else set()

    def makers(self) -> list[str]:
        """Return what could still sync or push in the namespace, finalizers or not."""
        here = f"/apis/{GROUP}/v1/namespaces/{self.namespace}/externalsecrets"
        there = f"/apis/{GROUP}/v1alpha1/namespaces/{self.namespace}/pushsecrets"
        items = [*self._items(here), *self._items(there)]
        return [f"{item['kind']} {item['metadata']['name']}" for item in items]

    def steps(self, *, may_write: bool = True) -> tuple[Step, Step]:
        """Return the synced-secrets step with its least rights, and the Vault step."""
        kubernetes = KubernetesClient(
            kubeconfig=self.control_plane.kubeconfig("killswitch"), context="real"
        )
        kubernetes.login(may_write=may_write)
        vault = VaultClient(address=self.vault.address)
        vault.login(token=Secret(self.vault.root_token), may_write=may_write)
        listed = tuple(f"{self.namespace}/{name}" for name in self.listed)
        client = SecretsClient(kubernetes)
        return (
            DeleteSyncedSecrets(client, "real", (self.namespace,), listed),
            WipeSecrets(vault, "real", (f"{self.mount}/",)),
        )

    def halt(self, steps: Sequence[Step], intent: Intent = Intent.PERFORM) -> HaltReport:
        """Carry out an order with `steps`."""
        mode = Mode.LIVE if intent is Intent.PERFORM else Mode.DRILL
        assignment = Assignment(
            order=make_order(mode),
            proof=None,
            intent=intent,
            steps=tuple(steps),
            started_at=datetime.now(UTC),
            known={},
        )
        return Runner().run(lambda now: carry_out(assignment, LIMITS, now))

    def grant(self) -> None:
        """Give the user killswitch the least rights of the step."""
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        for kind, rules in _GRANTS.items():
            here = "" if kind == "ClusterRole" else f"/namespaces/{self.namespace}"
            name = "killswitch-synced"
            body: dict[str, Any] = {"metadata": {"name": name}}
            body["rules"] = [
                {"apiGroups": [group], "resources": [resource], "verbs": verbs}
                for group, resource, verbs in rules
            ]
            self.control_plane.send("POST", f"{rbac}{here}/{kind.lower()}s", body)
            subject = {"kind": "User", "name": "killswitch", "apiGroup": rbac.split("/")[2]}
            role = {"kind": kind, "name": name, "apiGroup": rbac.split("/")[2]}
            binding = {"metadata": {"name": name}, "subjects": [subject], "roleRef": role}
            self.control_plane.send("POST", f"{rbac}{here}/{kind.lower()}bindings", binding)

    def _external(self, name: str, policy: str) -> dict[str, Any]:
        return {
            "refreshInterval": "1s",
            "secretStoreRef": {"name": "store", "kind": "SecretStore"},
            "target": {"name": name, "creationPolicy": policy},
            "dataFrom": [{"extract": {"key": "bybit"}}],
        }

    def _push(self, secret: str, key: str, policy: str) -> dict[str, Any]:
        remote = {"remoteKey": key, "property": "own"}
        return {
            "refreshInterval": "1s",
            "updatePolicy": policy,
            "deletionPolicy": "None",
            "secretStoreRefs": [{"name": "store", "kind": "SecretStore"}],
            "selector": {"secret": {"name": secret}},
            "data": [{"match": {"secretKey": "own", "remoteRef": remote}}],
        }

    def _secret(self, name: str, values: Mapping[str, str]) -> None:
        body = {"metadata": {"name": name}, "stringData": dict(values)}
        self._demand(f"/api/v1/namespaces/{self.namespace}/secrets", body)

    def _make(
        self, version: str, resource: str, name: str, spec: Any, *, wide: bool = False
    ) -> None:
        kinds = {
            "secretstores": "SecretStore",
            "externalsecrets": "ExternalSecret",
            "pushsecrets": "PushSecret",
            "clusterexternalsecrets": "ClusterExternalSecret",
            "clusterpushsecrets": "ClusterPushSecret",
        }
        api = f"{GROUP}/{version}"
        where = "" if wide else f"/namespaces/{self.namespace}"
        body = {"apiVersion": api, "kind": kinds[resource], "metadata": {"name": name}}
        self._demand(f"/apis/{api}{where}/{resource}", {**body, "spec": spec})

    def _demand(self, path: str, body: Any) -> None:
        status, answer = self.control_plane.send("POST", path, body)
        assert status == 201, (path, answer)

    def _items(self, path: str) -> list[dict[str, Any]]:
        status, body = self.control_plane.send("GET", path)
        assert status == 200, body
        return list(body["items"])


def wait_until(done: Callable[[], bool], what: str, within_s: float = 30) -> None:
    """Wait until `done`; fails with `what` did not happen."""
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.1)
