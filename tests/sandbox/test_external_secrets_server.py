"""The sandbox's Secrets and External Secrets, held to what the real ones were seen to do."""

import base64
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from killswitch.sandbox.external_secrets import PUSH_EVERY_S
from killswitch.sandbox.external_secrets_server import SyncedKubernetesServer, SyncedVaultServer

ESO = "/apis/external-secrets.io"
SECRETS = "/api/v1/namespaces/trading/secrets"
SYNCS = f"{ESO}/v1/namespaces/trading/externalsecrets"
PUSHES = f"{ESO}/v1alpha1/namespaces/trading/pushsecrets"
MAKERS = f"{ESO}/v1/clusterexternalsecrets"
QUOTAS = "/api/v1/namespaces/trading/resourcequotas"
ONLY_METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
MADE_UP = base64.b64encode(b"made-up").decode()
LATCH: dict[str, Any] = {
    "metadata": {"name": "lock", "annotations": {"killswitch/secrets": "a b"}},
    "spec": {"hard": {"secrets": "0", "count/externalsecrets.external-secrets.io": "0"}},
}


class Desk:
    """A cluster and its Vault on one clock, and a plain HTTP caller of the cluster."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.cluster = SyncedKubernetesServer(clock=lambda: self.now)
        self.vault = SyncedVaultServer(self.cluster, clock=lambda: self.now)

    def __call__(
        self, method: str, path: str, body: object = None, *, accept: str = "application/json"
    ) -> tuple[int, Any]:
        address = urlsplit(self.cluster.url)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=5)
        headers = {"Authorization": f"Bearer {self.cluster.token}", "Accept": accept}
        if body is not None:
            kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
            headers["Content-Type"] = kind
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        raw = response.read()
        connection.close()
        plain = response.headers.get_content_type() == "text/plain"
        return response.status, raw.decode() if plain else json.loads(raw)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.cluster.settle()

    def secrets(self) -> set[str]:
        return {thing.name for thing in self.cluster.synced.of("secrets")}

    def names(self, path: str) -> set[str]:
        return {item["metadata"]["name"] for item in self("GET", path)[1]["items"]}


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    for server in (desk.cluster, desk.vault):
        server.start()
    yield desk
    for server in (desk.cluster, desk.vault):
        server.stop()


def delete(desk: Desk, path: str, query: str = "") -> tuple[int, Any]:
    return desk("DELETE", f"{path}?{query}")


def test_what_is_seeded_is_live_but_for_the_token_of_the_store(desk: Desk) -> None:
    assert desk.cluster.live_secrets() == [
        "Secret trading/desk-webhook",
        "Secret trading/freqtrade-bybit",
        "Secret trading/hedger-bybit",
        "ExternalSecret trading/desk-webhook",
        "ExternalSecret trading/freqtrade-bybit",
        "ExternalSecret trading/hedger-bybit",
        "PushSecret trading/hedger-bybit",
        "ClusterExternalSecret /desk-webhook",
    ]
    assert "store-token" in desk.secrets()


def test_the_account_may_not_read_a_secret(desk: Desk) -> None:
    for path in (SECRETS, f"{SECRETS}/hedger-bybit"):
        assert desk("GET", path)[0] == 403
    assert desk("DELETE", SECRETS)[0] == 403


def test_the_dry_run_of_a_deletion_tells_whether_a_secret_is_there(desk: Desk) -> None:
    for query in ("dryRun=All", "dryRun=All&propagationPolicy=Background"):
        code, body = delete(desk, f"{SECRETS}/hedger-bybit", query)
        assert (code, body["kind"], body["details"]["kind"]) == (200, "Status", "secrets")
        code, body = delete(desk, f"{SECRETS}/nobody", query)
        assert (code, body["reason"]) == (404, "NotFound")
        assert body["details"] == {"name": "nobody", "kind": "secrets"}
    assert "hedger-bybit" in desk.secrets()


@pytest.mark.parametrize("policy", ["Foreground", "Orphan"])
def test_a_dry_run_in_the_foreground_reads_the_secret_as_the_real_server_lets_it(
    desk: Desk, policy: str
) -> None:
    path = f"{SECRETS}/hedger-bybit?dryRun=All&propagationPolicy={policy}"
    code, body = desk("DELETE", path)
    assert (code, body["kind"], body["data"]["key"]) == (200, "Secret", MADE_UP)
    assert body["metadata"]["deletionTimestamp"]
    code, body = desk("DELETE", path, accept=ONLY_METADATA)
    assert (code, body["kind"], "data" in body) == (200, "PartialObjectMetadata", False)


def test_the_deletion_of_a_secret_with_a_finalizer_reads_it_and_leaves_it_there(desk: Desk) -> None:
    desk.cluster.traps.add("secret-finalizer")
    code, body = delete(desk, f"{SECRETS}/hedger-bybit", "propagationPolicy=Background")
    assert (code, body["kind"]) == (200, "Secret")
    assert body["metadata"]["finalizers"] == ["desk.example/keep"]
    desk.later(5)
    assert "hedger-bybit" in desk.secrets()


def test_a_secret_with_an_owner_is_back_at_once_and_an_orphan_at_the_next_refresh(
    desk: Desk,
) -> None:
    for name in ("freqtrade-bybit", "hedger-bybit"):
        assert delete(desk, f"{SECRETS}/{name}")[0] == 200
    assert desk.secrets() == {"desk-webhook", "store-token"}
    desk.later(0.03)
    assert desk.secrets() == {"desk-webhook", "store-token", "freqtrade-bybit"}
    desk.later(1)
    assert "hedger-bybit" in desk.secrets()


def test_an_owned_secret_goes_with_its_externalsecret_and_an_orphan_stays(desk: Desk) -> None:
    for name in ("freqtrade-bybit", "hedger-bybit"):
        code, body = delete(desk, f"{SYNCS}/{name}")
        assert (code, body["kind"]) == (200, "ExternalSecret")
        assert body["metadata"]["finalizers"]
    desk.later(0.1)
    assert desk.names(SYNCS) == {"desk-webhook"}
    assert desk.secrets() == {"desk-webhook", "hedger-bybit", "store-token"}


def test_the_child_of_a_cluster_wide_parent_is_back_until_the_parent_is_gone(desk: Desk) -> None:
    _, body = desk("GET", SYNCS)
    owners = [item["metadata"].get("ownerReferences") for item in body["items"]]
    assert [(owner[0]["kind"], owner[0]["name"]) for owner in owners if owner] == [
        ("ClusterExternalSecret", "desk-webhook")
    ]
    delete(desk, f"{SYNCS}/desk-webhook")
    desk.later(0.03)
    desk.later(0.1)
    assert "desk-webhook" in desk.names(SYNCS)
    assert delete(desk, f"{MAKERS}/desk-webhook")[0] == 200
    desk.later(0.1)
    desk.later(0.1)
    assert "desk-webhook" not in desk.names(SYNCS) | desk.secrets()


def test_a_quota_keeps_out_what_the_operator_would_make_again(desk: Desk) -> None:
    assert desk("POST", QUOTAS, LATCH)[0] == 201
    desk.later(0.1)
    _, quota = desk("GET", f"{QUOTAS}/lock")
    assert quota["metadata"]["annotations"] == {"killswitch/secrets": "a b"}
    assert quota["status"]["hard"] == LATCH["spec"]["hard"]
    delete(desk, f"{SECRETS}/freqtrade-bybit")
    delete(desk, f"{SYNCS}/desk-webhook")
    for _ in range(5):
        desk.later(1)
    assert desk.secrets() == {"hedger-bybit", "store-token"}
    assert "desk-webhook" not in desk.names(SYNCS)


def test_a_pushsecret_writes_its_key_back_into_a_wiped_vault(desk: Desk) -> None:
    desk.vault.mounts["trading/"].v2.clear()
    desk.later(PUSH_EVERY_S - 1)
    assert desk.vault.live() == []
    desk.later(2)
    assert desk.vault.live() == ["trading/hedger"]


def test_a_deleted_pushsecret_pushes_no_more_also_while_its_finalizer_hangs(desk: Desk) -> None:
    desk.cluster.traps.add("pushsecret-hangs")
    code, body = delete(desk, f"{PUSHES}/hedger-bybit")
    assert (code, body["metadata"]["finalizers"]) == (
        200,
        ["pushsecret.externalsecrets.io/finalizer"],
    )
    desk.vault.mounts["trading/"].v2.clear()
    desk.later(2 * PUSH_EVERY_S)
    assert desk.names(PUSHES) == {"hedger-bybit"}
    assert desk.vault.live() == []
    assert "PushSecret trading/hedger-bybit" not in desk.cluster.live_secrets()


def test_a_reconcile_in_flight_writes_after_the_pushsecret_is_gone(desk: Desk) -> None:
    desk.cluster.traps.add("pushsecret-writes-late")
    delete(desk, f"{PUSHES}/hedger-bybit")
    desk.later(0.1)
    desk.vault.mounts["trading/"].v2.clear()
    assert (desk.names(PUSHES), desk.vault.live()) == (set(), [])
    desk.later(0.3)
    assert desk.vault.live() == ["trading/hedger"]


def test_discovery_tells_the_versions_and_nothing_when_it_is_not_installed(desk: Desk) -> None:
    groups = [group["name"] for group in desk("GET", "/apis")[1]["groups"]]
    assert "external-secrets.io" in groups
    _, body = desk("GET", f"{ESO}/v1alpha1")
    assert [item["name"] for item in body["resources"]] == ["pushsecrets", "clusterpushsecrets"]
    assert desk("GET", f"{ESO}/v1/namespaces/trading/pushsecrets")[0] == 404
    desk.cluster.traps.add("externalsecrets-missing")
    groups = [group["name"] for group in desk("GET", "/apis")[1]["groups"]]
    assert "external-secrets.io" not in groups
    assert desk("GET", SYNCS) == (404, "404 page not found\n")


def test_no_value_of_a_secret_stands_in_an_answer_that_asks_for_metadata(desk: Desk) -> None:
    desk.cluster.traps.add("secret-finalizer")
    for query in ("", "dryRun=All", "dryRun=All&propagationPolicy=Foreground"):
        _, body = desk("DELETE", f"{SECRETS}/hedger-bybit?{query}", accept=ONLY_METADATA)
        assert MADE_UP not in json.dumps(body)
