"""Deleting a Secret without the right to read it: what tells too much, and what proves absence."""

from collections.abc import Iterator
from typing import Any

import pytest

from killswitch.sandbox.external_secrets import Thing
from killswitch.sandbox.external_secrets_server import SyncedKubernetesServer
from tests.contract.kubernetes_bench import METADATA, Answer, Bench, FakeBench, at, failure

OURS = f"{METADATA},application/json"
PLAIN, VALUE = "v-secret", "di1zZWNyZXQ="


@pytest.fixture(scope="module")
def vault(bench: Bench) -> Iterator[Bench]:
    """The same cluster, with Secrets."""
    if isinstance(bench, FakeBench):
        server = SyncedKubernetesServer(namespaces={})
        with FakeBench(server).running() as fake:
            yield fake
    else:
        yield bench


def put(bench: Bench, space: str, *, finalizer: str = "") -> None:
    """Put the Secret "bybit" there."""
    finalizers = [finalizer] if finalizer else []
    if isinstance(bench, FakeBench) and isinstance(bench.server, SyncedKubernetesServer):
        thing = Thing(name="bybit", namespace=space, data={"key": PLAIN}, finalizers=finalizers)
        bench.server.synced.add("secrets", thing)
        return
    meta = {"name": "bybit", "finalizers": finalizers}
    made = bench.ask("POST", at("secrets", space), {"metadata": meta, "data": {"key": VALUE}})
    assert made.code == 201, made.body


def delete(bench: Bench, space: str, name: str = "bybit", **query: str) -> Answer:
    return bench.ask("DELETE", at("secrets", space, name, **query))


def deleted(answer: Answer) -> Any:
    """Return the details of the Status that says so, which holds nothing else."""
    assert (answer.code, answer.body["kind"], answer.body["status"]) == (200, "Status", "Success")
    assert "data" not in answer.body
    return answer.body["details"]


@pytest.mark.parametrize("query", [{}, {"propagationPolicy": "Background"}])
def test_a_dry_run_says_that_it_is_there_and_no_more(vault: Bench, query: dict[str, str]) -> None:
    space = vault.namespace()
    put(vault, space)
    for _ in range(2):
        details = deleted(delete(vault, space, dryRun="All", **query))
        assert (details["name"], details["kind"]) == ("bybit", "secrets")


@pytest.mark.parametrize("policy", ["Foreground", "Orphan"])
def test_other_policies_tell_the_whole_secret_and_delete_nothing(vault: Bench, policy: str) -> None:
    space = vault.namespace()
    put(vault, space)
    told = delete(vault, space, dryRun="All", propagationPolicy=policy)
    assert (told.code, told.body["kind"], told.body["data"]) == (200, "Secret", {"key": VALUE})
    deleted(delete(vault, space, dryRun="All", propagationPolicy="Background"))


@pytest.mark.parametrize("policy", ["Foreground", "Background"])
def test_whoever_accepts_only_metadata_is_told_no_value(vault: Bench, policy: str) -> None:
    space = vault.namespace()
    put(vault, space, finalizer="bots.example/settle")
    for accept in (METADATA, OURS):
        path = at("secrets", space, "bybit", dryRun="All", propagationPolicy=policy)
        answer = vault.ask("DELETE", path, accept=accept)
        assert (answer.code, answer.body["kind"]) == (200, "PartialObjectMetadata")
        assert set(answer.body) == {"kind", "apiVersion", "metadata"}


def test_a_secret_with_a_finalizer_is_told_and_stays(vault: Bench) -> None:
    space = vault.namespace()
    put(vault, space, finalizer="bots.example/settle")
    told = delete(vault, space, propagationPolicy="Background")
    assert (told.code, told.body["data"]) == (200, {"key": VALUE})
    assert told.body["metadata"]["deletionTimestamp"]
    assert delete(vault, space, dryRun="All", propagationPolicy="Background").code == 200


def test_a_missing_one_is_a_404_for_whoever_may_delete_it_and_else_a_403(vault: Bench) -> None:
    space = vault.namespace()
    put(vault, space)
    deleted(delete(vault, space, propagationPolicy="Background"))
    for query in ({}, {"dryRun": "All"}):
        gone = delete(vault, space, propagationPolicy="Background", **query)
        assert failure(gone) == (404, "NotFound", {"name": "bybit", "kind": "secrets"})
    refused = vault.ask("DELETE", at("secrets", space, "bybit", dryRun="All"), as_user="nobody")
    assert failure(refused) == (403, "Forbidden", {"name": "bybit", "kind": "secrets"})
