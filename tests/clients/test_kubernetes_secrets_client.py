"""The client of synced secrets: the official library against the sandbox's server, and faults."""

import json
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from werkzeug.wrappers import Request, Response

from killswitch.clients.kubernetes import KubernetesClient
from killswitch.clients.kubernetes_secrets import SecretsClient
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.model import Receipt
from killswitch.sandbox.external_secrets import GROUP, STORE_TOKEN, Thing
from killswitch.sandbox.external_secrets_server import SyncedKubernetesServer
from killswitch.steps.synced_secrets_port import (
    PARENTS,
    PUSHES,
    SYNCS,
    Found,
    Latch,
    Lock,
    SecretWrites,
    Synced,
)

NS = "trading"
VALUE = "A3-a-key-that-must-never-be-shown"
Connect = Callable[..., SecretsClient]


@pytest.fixture
def server() -> Iterator[SyncedKubernetesServer]:
    server = SyncedKubernetesServer()
    for thing in server.synced.of("secrets"):
        thing.data = {"key": VALUE}
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connect(tmp_path: Path) -> Connect:
    def make(kubeconfig: str, *, may_write: bool = True) -> SecretsClient:
        path = tmp_path / "kubeconfig"
        path.write_text(kubeconfig)
        client = KubernetesClient(kubeconfig=path, context="sandbox", timeout_s=(0.5, 0.5))
        client.login(may_write=may_write)
        return SecretsClient(client)

    return make


@pytest.fixture
def client(server: SyncedKubernetesServer, connect: Connect) -> SecretsClient:
    return connect(server.kubeconfig())


def test_it_lists_what_syncs_and_pushes_and_what_each_touches(client: SecretsClient) -> None:
    assert client.synced(NS, SYNCS) == (
        Synced("desk-webhook", secrets=("desk-webhook",), parent="desk-webhook"),
        Synced("freqtrade-bybit", secrets=("freqtrade-bybit",)),
        Synced("hedger-bybit", secrets=("hedger-bybit",)),
    )
    assert client.synced(NS, PUSHES) == (Synced("hedger-bybit", secrets=("hedger-bybit",)),)
    assert client.makers(PARENTS[1]) == {"desk-webhook"}
    parents = client.parents(PARENTS[1]) or ()
    assert [(one.name, one.namespaces) for one in parents] == [("desk-webhook", frozenset([NS]))]
    assert client.parents(PARENTS[0]) == ()


@pytest.mark.parametrize(
    ("spec", "secrets", "beyond"),
    [
        ({"target": {}}, ("es",), ""),
        ({}, ("es",), ""),
        ({"target": {"name": "x", "creationPolicy": "Merge"}}, ("x",), ""),
        ({"target": {"name": "x", "creationPolicy": "None"}}, (), ""),
        ({"target": {"name": "x", "manifest": {"kind": "ConfigMap"}}}, (), "writes a ConfigMap"),
    ],
)
def test_the_target_is_the_one_that_the_operator_writes(
    server: SyncedKubernetesServer,
    client: SecretsClient,
    spec: dict[str, object],
    secrets: tuple[str, ...],
    beyond: str,
) -> None:
    server.traps.add("operator-down")  # or it would act on the odd ones
    server.synced.traps = server.traps
    server.synced.add(SYNCS, Thing(name="es", namespace=NS, spec=spec))
    found = next(one for one in client.synced(NS, SYNCS) or () if one.name == "es")
    assert (found.secrets, found.beyond) == (secrets, beyond)


def test_a_pushsecret_that_chooses_by_label_says_so(
    server: SyncedKubernetesServer, client: SecretsClient
) -> None:
    server.traps.add("operator-down")
    spec = {"selector": {"secret": {"selector": {"matchLabels": {"app": "bot"}}}}}
    server.synced.add(PUSHES, Thing(name="many", namespace=NS, spec=spec))
    found = next(one for one in client.synced(NS, PUSHES) or () if one.name == "many")
    assert (found.secrets, found.beyond) == ((), "pushes Secrets that it chooses by label")


def test_what_is_not_installed_is_none_and_not_an_error(
    server: SyncedKubernetesServer, client: SecretsClient
) -> None:
    server.traps.add("externalsecrets-missing")
    for resource in (PUSHES, SYNCS):
        assert client.synced(NS, resource) is None
    assert [client.parents(resource) for resource in PARENTS] == [None, None]
    server.traps.clear()
    assert client.synced(NS, SYNCS)


def test_a_group_that_vanishes_between_two_calls_is_asked_for_again(
    server: SyncedKubernetesServer, client: SecretsClient
) -> None:
    assert client.synced(NS, SYNCS)
    server.traps.add("externalsecrets-missing")
    with pytest.raises(UnreachableError, match="not served any more"):
        client.synced(NS, SYNCS)
    assert client.synced(NS, SYNCS) is None


def test_a_secret_is_there_until_the_dry_run_of_its_deletion_answers_404(
    server: SyncedKubernetesServer, client: SecretsClient
) -> None:
    server.traps.add("operator-down")
    assert client.secret(NS, "hedger-bybit") == Found()
    client.writes.delete_secret(NS, "hedger-bybit")
    assert client.secret(NS, "hedger-bybit") is None
    assert client.seen(NS) == {"hedger-bybit"}
    assert {seen.query for seen in server.seen if seen.method == "DELETE"} == {
        "propagationPolicy=Background&dryRun=All",
        "propagationPolicy=Background",
    }


def test_a_finalizer_is_named_and_no_value_is_kept_or_told(
    server: SyncedKubernetesServer, client: SecretsClient
) -> None:
    server.traps.add("secret-finalizer")
    assert client.secret(NS, "hedger-bybit") == Found(("desk.example/keep",))
    receipt = client.writes.delete_secret(NS, "hedger-bybit")
    assert receipt.summary == "deletion asked, held by a finalizer"
    assert VALUE not in repr((receipt, vars(client), client.kubernetes))


def test_the_quota_is_created_mended_and_keeps_the_names_that_were_found(
    server: SyncedKubernetesServer, client: SecretsClient, connect: Connect
) -> None:
    assert client.latch(NS) == Latch(Lock.MISSING)
    client.secret(NS, "hedger-bybit")
    client.writes.lock(NS)
    later = connect(server.kubeconfig())
    assert later.latch(NS).names == {"hedger-bybit"}
    later.synced(NS, SYNCS)
    later.writes.lock(NS)
    assert later.latch(NS).names == {"desk-webhook", "freqtrade-bybit", "hedger-bybit"}
    fresh = connect(server.kubeconfig())
    fresh.latch(NS)
    assert fresh.discovered(NS)["freqtrade-bybit"] == "an earlier look"
    space = server.world.namespaces[NS]
    assert set(space.quotas["killswitch-secrets-lock"].hard) == {
        "secrets",
        f"count/externalsecrets.{GROUP}",
        f"count/pushsecrets.{GROUP}",
    }


def test_what_earlier_runs_reported_is_known_and_a_configured_name_is_no_discovery(
    client: SecretsClient,
) -> None:
    targets = ("secrets/found", "secrets/listed", "secrets", "externalsecrets/es", "quota")
    client.recall([f"{NS}/{target}" for target in targets], [f"{NS}/listed"])
    client.recall([f"all namespaces/{PARENTS[1]}/maker", f"all namespaces/{PARENTS[0]}"], ())
    assert client.discovered(NS) == {"found": "an earlier run"}
    assert client.earlier_makers(PARENTS[1]) == {"maker"}
    assert client.earlier_makers(PARENTS[0]) == client.makers(PARENTS[1]) == frozenset()
    client.writes.lock(NS)
    assert client.latch(NS).names == {"found"}


def test_what_makes_an_object_is_noted_beside_the_quota_for_a_second_run(
    server: SyncedKubernetesServer, connect: Connect
) -> None:
    first, second = connect(server.kubeconfig()), connect(server.kubeconfig())
    first.synced(NS, SYNCS)
    first.writes.lock(NS)
    assert second.latch(NS).makers == {"clusterexternalsecrets/desk-webhook"}
    assert second.makers(PARENTS[1]) == {"desk-webhook"}


def test_a_quota_that_is_refused_is_remembered_and_a_rehearsal_of_it_is_not(
    server: SyncedKubernetesServer, client: SecretsClient
) -> None:
    server.traps.add("quota-refused")
    with pytest.raises(RefusedError):
        client.rehearsal.lock(NS)
    assert not client.lock_refused(NS)
    with pytest.raises(RefusedError):
        client.writes.lock(NS)
    assert client.lock_refused(NS)


def test_another_quota_of_the_same_name_is_mended(
    server: SyncedKubernetesServer, client: SecretsClient
) -> None:
    client.writes.lock(NS)
    server.world.namespaces[NS].quotas["killswitch-secrets-lock"].spec = {"hard": {"secrets": "9"}}
    assert client.latch(NS).lock is Lock.OTHER
    assert client.writes.lock(NS).summary == "quota mended: no Secret can be created"
    assert client.latch(NS).lock in {Lock.PENDING, Lock.IN_FORCE}


def test_a_namespace_that_does_not_exist_takes_no_quota(client: SecretsClient) -> None:
    with pytest.raises(RefusedError, match="'nowhere' does not exist"):
        client.writes.lock("nowhere")
    assert client.synced("nowhere", SYNCS) == ()
    assert client.secret("nowhere", "x") is None


def test_the_secrets_that_stores_log_in_with_are_known(
    server: SyncedKubernetesServer, client: SecretsClient
) -> None:
    assert client.logins(NS) == {STORE_TOKEN: "SecretStore vault"}
    server.denied.add("list secretstores")
    assert client.logins(NS) == {}


def test_a_login_is_left_unless_it_is_written_or_was_seen_or_noted(
    server: SyncedKubernetesServer, client: SecretsClient
) -> None:
    server.traps.add("operator-down")
    spec = {"selector": {"secret": {"name": STORE_TOKEN}}}
    server.synced.add("pushsecrets", Thing(name="token", namespace=NS, spec=spec))
    client.synced(NS, PUSHES)
    assert STORE_TOKEN in client.discovered(NS)
    client.logins(NS)
    assert client.left(NS) == {STORE_TOKEN: "SecretStore vault"}
    assert STORE_TOKEN not in client.discovered(NS)
    client.secret(NS, STORE_TOKEN)
    assert client.left(NS) == {}
    assert STORE_TOKEN in client.discovered(NS)


def test_stores_that_cannot_be_listed_for_a_moment_are_not_taken_for_none(
    connect: Connect,
) -> None:
    class StoresDown(SyncedKubernetesServer):
        def respond(self, request: Request) -> Response:
            if request.path.endswith("/secretstores"):
                return Response('{"kind": "Status", "message": "leader changed"}', status=503)
            return super().respond(request)

    down = StoresDown()
    down.start()
    try:
        with pytest.raises(UnreachableError, match="503"):
            connect(down.kubeconfig()).logins(NS)
    finally:
        down.stop()


def test_a_client_that_may_only_read_sends_dry_runs_and_nothing_else(
    server: SyncedKubernetesServer, connect: Connect
) -> None:
    client = connect(server.kubeconfig(), may_write=False)
    changes: list[Callable[[SecretWrites], Receipt]] = [
        lambda to: to.lock(NS),
        lambda to: to.delete(SYNCS, "hedger-bybit", NS),
        lambda to: to.delete(PARENTS[1], "desk-webhook"),
        lambda to: to.delete_secret(NS, "hedger-bybit"),
    ]
    for change in changes:
        assert change(client.rehearsal).summary.startswith("dry run: ")
        with pytest.raises(RefusedError, match="may only read"):
            change(client.writes)
    assert server.writes == []


@pytest.mark.parametrize("verb", ["create", "get", "patch"])
def test_a_rehearsal_names_each_right_that_a_halt_needs_on_its_quota(
    server: SyncedKubernetesServer, connect: Connect, verb: str
) -> None:
    server.denied.add(f"{verb} resourcequotas")
    client = connect(server.kubeconfig(), may_write=False)
    with pytest.raises(RefusedError, match=f"cannot {verb} resource"):
        client.rehearsal.lock(NS)
    assert server.writes == []


@pytest.mark.parametrize(
    ("trap", "error"),
    [
        ("secrets-forbidden", RefusedError),
        ("expired-token", RefusedError),
        ("down", UnreachableError),
        ("drop", VendorError),
        ("garbage", GarbledError),
        ("hang", UnreachableError),
    ],
)
def test_a_fault_is_never_taken_for_a_secret_that_is_gone(
    server: SyncedKubernetesServer, client: SecretsClient, trap: str, error: type[VendorError]
) -> None:
    server.traps.add(trap)
    with pytest.raises(error) as caught:
        client.secret(NS, "hedger-bybit")
    shown = "".join(traceback.format_exception(caught.value)) + repr(client)
    assert VALUE not in shown
    assert server.token not in shown


@pytest.mark.parametrize(
    "body",
    [
        "404 page not found",
        json.dumps({"kind": "Status", "reason": "NotFound", "details": {"name": "other"}}),
        json.dumps({"error": "no such route"}),
    ],
)
def test_a_404_that_is_not_about_this_secret_proves_nothing(connect: Connect, body: str) -> None:
    class Proxy(BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.handle_request, daemon=True).start()
        clusters = [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{proxy.server_port}"}}]
        context = {"name": "sandbox", "context": {"cluster": "c", "user": "u"}}
        users = [{"name": "u", "user": {"token": "made-up-token"}}]
        text = json.dumps({"contexts": [context], "clusters": clusters, "users": users})
        with pytest.raises(GarbledError):
            connect(text).secret(NS, "hedger-bybit")
