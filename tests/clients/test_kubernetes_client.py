"""The Kubernetes client: the official library against the sandbox's server, and against faults."""

import base64
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from killswitch.clients.kubernetes import KubernetesClient
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.model import Receipt
from killswitch.sandbox.kubernetes import KubernetesServer
from killswitch.sandbox.kubernetes_controllers import Workload
from killswitch.secret import Secret
from killswitch.steps.kubernetes import StopTrading
from killswitch.steps.kubernetes_port import Lock

TOKEN = "eyJhbGciOiJSUzI1NiJ9.made-up-token"
FAST = (0.5, 0.5)


def config(server: str, **parts: Any) -> str:
    """Return a kubeconfig; `user`, `cluster` add to or replace what they hold."""
    return json.dumps(
        {
            "contexts": [{"name": "sandbox", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server} | parts.get("cluster", {})}],
            "users": [{"name": "u", "user": parts.get("user", {"token": TOKEN})}],
        }
    )


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    server = KubernetesServer(token=TOKEN)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connect(tmp_path: Path) -> Callable[..., KubernetesClient]:
    def make(
        text: str,
        *,
        may_write: bool = True,
        log_in: bool = True,
        timeout_s: tuple[float, float] = FAST,
    ) -> KubernetesClient:
        path = tmp_path / "kubeconfig"
        path.write_text(text)
        client = KubernetesClient(kubeconfig=path, context="sandbox", timeout_s=timeout_s)
        if log_in:
            client.login(may_write=may_write)
        return client

    return make


Connect = Callable[..., KubernetesClient]


class Canned(ThreadingHTTPServer):
    """Answers every request with one status, body and headers."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        canned = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                canned.heard.append(dict(self.headers.items()))
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 (the base's names)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's)
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True
        self.heard: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def canned() -> Iterator[Callable[..., Canned]]:
    started: list[Canned] = []

    def start(status: int, body: bytes = b"", **headers: str) -> Canned:
        server = Canned(status, body, headers)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def status(code: int, message: str) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "message": message}).encode()


# What it does.


def test_warming_up_shows_no_token(server: KubernetesServer, connect: Connect) -> None:
    server.traps.add("expired-token")
    assert connect(server.kubeconfig(), log_in=False).warm() == "kubernetes v1.36.2+sandbox"


@pytest.mark.parametrize("code", [401, 403])
def test_a_refusal_of_the_first_call_still_proves_reachability(
    canned: Callable[..., Canned], connect: Connect, code: int
) -> None:
    server = canned(code, status(code, "no"))
    client = connect(config(server.url), log_in=False)
    assert client.warm() == f"reachable, wants a credential ({code})"
    assert "Authorization" not in server.heard[0]


def test_a_token_that_says_when_it_expires_is_told(
    server: KubernetesServer, connect: Connect
) -> None:
    claims = base64.urlsafe_b64encode(b'{"exp": 1893456000}').decode().rstrip("=")
    client = connect(config(server.url, user={"token": f"e30.{claims}.c2ln"}), log_in=False)
    assert client.warm().endswith("token until 2030-01-01 00:00 UTC")


def test_nothing_is_asked_before_the_login(server: KubernetesServer, connect: Connect) -> None:
    client = connect(server.kubeconfig(), log_in=False)
    with pytest.raises(RuntimeError):
        client.pods("trading")
    assert server.seen == []


def test_everything_is_read_as_it_is(server: KubernetesServer, connect: Connect) -> None:
    client = connect(server.kubeconfig())
    assert client.lock_state("trading") is Lock.MISSING
    assert [(pod.node, pod.ending) for pod in client.pods("trading")] == [("node-1", False)] * 3
    (freqtrade,) = client.workloads("trading", "deployments")
    (hedger,) = client.workloads("trading", "statefulsets")
    assert (freqtrade.name, freqtrade.replicas, hedger.replicas) == ("freqtrade", 2, 1)


def test_the_three_changes_stop_the_pods(server: KubernetesServer, connect: Connect) -> None:
    changes = connect(server.kubeconfig()).writes
    assert changes.lock("trading").evidence["name"] == "killswitch-lock"
    time.sleep(0.01)
    assert "within 1 s (its kubelet gives at least 2)" in changes.delete_pods("trading").summary
    changes.scale_to_zero("trading", "deployments", "freqtrade")
    assert changes.scale_to_zero("trading", "statefulsets", "hedger").summary == "asks for 0 pods"
    time.sleep(0.65)
    assert server.live() == []
    assert all("fieldManager=killswitch" in w.query for w in server.writes if w.method != "DELETE")


def test_locking_twice_is_one_lock(server: KubernetesServer, connect: Connect) -> None:
    changes = connect(server.kubeconfig()).writes
    changes.lock("trading")
    time.sleep(0.01)
    assert changes.lock("trading").summary == "the quota is in force"


def test_a_quota_with_another_spec_is_mended(server: KubernetesServer, connect: Connect) -> None:
    client = connect(server.kubeconfig())
    client.writes.lock("trading")
    quota = server.world.namespaces["trading"].quotas["killswitch-lock"]
    quota.spec = {"hard": {"pods": "5", "secrets": "0"}}
    assert client.lock_state("trading") is Lock.OTHER
    client.writes.lock("trading")
    assert quota.hard == {"pods": "0", "secrets": "0"}


def test_a_quota_of_some_pods_only_is_no_lock(server: KubernetesServer, connect: Connect) -> None:
    client = connect(server.kubeconfig())
    client.writes.lock("trading")
    quota = server.world.namespaces["trading"].quotas["killswitch-lock"]
    quota.spec = {"hard": {"pods": "0"}, "scopes": ["BestEffort"]}
    assert client.lock_state("trading") is Lock.OTHER
    with pytest.raises(RefusedError, match="has scopes, which cannot be changed"):
        client.writes.lock("trading")


def test_a_stored_quota_is_not_yet_one_in_force(server: KubernetesServer, connect: Connect) -> None:
    server.traps.add("quota-idle")
    client = connect(server.kubeconfig())
    client.writes.lock("trading")
    assert client.lock_state("trading") is Lock.PENDING


def test_without_the_right_to_read_a_quota_a_dry_run_tells_whether_it_is_missing(
    server: KubernetesServer, connect: Connect
) -> None:
    server.denied.add("get resourcequotas")
    client = connect(server.kubeconfig())
    assert client.lock_state("trading") is Lock.MISSING
    assert server.writes == []
    client.writes.lock("trading")
    with pytest.raises(RefusedError, match="cannot get resource"):
        client.lock_state("trading")


@pytest.mark.parametrize("verb", ["create", "get", "patch"])
def test_a_rehearsal_names_each_right_that_a_halt_needs_on_its_quota(
    server: KubernetesServer, connect: Connect, verb: str
) -> None:
    server.denied.add(f"{verb} resourcequotas")
    rehearsal = connect(server.kubeconfig(), may_write=False).rehearsal
    with pytest.raises(RefusedError, match=f"cannot {verb} resource"):
        rehearsal.lock("trading")
    assert server.writes == []


def test_a_rehearsal_changes_nothing_even_for_a_client_that_may_only_read(
    server: KubernetesServer, connect: Connect
) -> None:
    rehearsal = connect(server.kubeconfig(), may_write=False).rehearsal
    before = server.live()
    assert rehearsal.lock("trading").summary.startswith("dry run: ")
    rehearsal.delete_pods("trading")
    rehearsal.scale_to_zero("trading", "deployments", "freqtrade")
    assert (server.live(), server.writes) == (before, [])


def test_a_client_that_may_only_read_sends_no_change(
    server: KubernetesServer, connect: Connect
) -> None:
    writes = connect(server.kubeconfig(), may_write=False).writes
    changes: tuple[Callable[[], Receipt], ...] = (
        partial(writes.lock, "trading"),
        partial(writes.delete_pods, "trading"),
        partial(writes.scale_to_zero, "trading", "deployments", "freqtrade"),
    )
    for change in changes:
        with pytest.raises(RefusedError, match="may only read"):
            change()
    assert server.seen == []


def test_a_rehearsal_finds_a_missing_right(server: KubernetesServer, connect: Connect) -> None:
    server.traps.add("forbidden")
    with pytest.raises(RefusedError, match="cannot deletecollection"):
        connect(server.kubeconfig()).rehearsal.delete_pods("trading")


def test_a_missing_namespace_is_refused_in_words(
    server: KubernetesServer, connect: Connect
) -> None:
    with pytest.raises(RefusedError, match="namespace 'tradign' does not exist"):
        connect(server.kubeconfig()).writes.lock("tradign")


def test_long_lists_are_read_to_their_end(connect: Connect) -> None:
    many = [Workload(kind="Deployment", name=f"bot-{n}", replicas=1) for n in range(230)]
    server = KubernetesServer(token=TOKEN, namespaces={"trading": many})
    server.start()
    client = connect(server.kubeconfig(), timeout_s=(3, 10))
    assert len(client.pods("trading")) == len(client.workloads("trading", "deployments")) == 230
    server.stop()


def test_a_name_cannot_leave_its_place_in_the_path(
    server: KubernetesServer, connect: Connect
) -> None:
    with pytest.raises(VendorError):
        connect(server.kubeconfig()).pods("../../../version?x=")
    assert server.seen[0].path != "/version"


def test_how_long_a_pod_is_overdue_goes_by_the_server_s_clock(
    server: KubernetesServer, connect: Connect
) -> None:
    pod = server.world.namespaces["trading"].pods["hedger-0"]
    pod.delete_at = time.time() - 30
    overdue = {pod.name: pod.overdue_s for pod in connect(server.kubeconfig()).pods("trading")}
    assert 28 <= overdue.pop("hedger-0") <= 32
    assert set(overdue.values()) == {0}


@pytest.mark.parametrize(
    ("labels", "annotations", "keepers"),
    [
        ({"app.kubernetes.io/managed-by": "pulumi"}, {}, "manager pulumi"),
        (
            {"app.kubernetes.io/managed-by": "Helm"},
            {"meta.helm.sh/release-name": "bot", "meta.helm.sh/release-namespace": "trading"},
            "Helm release trading/bot",
        ),
        (
            {},
            {"argocd.argoproj.io/tracking-id": "bots:apps/Deployment:trading/bot"},
            "Argo CD application argocd/bots",
        ),
        (
            {},
            {"argocd.argoproj.io/tracking-id": "desk_bots:apps/Deployment:trading/bot"},
            "Argo CD application desk/bots",
        ),
        (
            {
                "kustomize.toolkit.fluxcd.io/name": "bots",
                "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
            },
            {},
            "Flux Kustomization flux-system/bots",
        ),
        (
            {"helm.toolkit.fluxcd.io/name": "bot", "helm.toolkit.fluxcd.io/namespace": "desk"},
            {"meta.helm.sh/release-name": "bot", "meta.helm.sh/release-namespace": "trading"},
            "Flux HelmRelease desk/bot, Helm release trading/bot",
        ),
        (
            {},
            {
                "objectset.rio.cattle.io/owner-name": "bots",
                "objectset.rio.cattle.io/owner-namespace": "kube-system",
            },
            "k3s AddOn kube-system/bots",
        ),
        ({}, {}, ""),
    ],
)
def test_who_may_scale_back_is_read_from_the_object_itself(
    connect: Connect, labels: dict[str, str], annotations: dict[str, str], keepers: str
) -> None:
    bot = Workload(kind="Deployment", name="bot", labels=labels, annotations=annotations)
    server = KubernetesServer(token=TOKEN, namespaces={"trading": [bot]})
    server.start()
    (workload,) = connect(server.kubeconfig()).workloads("trading", "deployments")
    assert ", ".join(map(str, workload.keepers)) == keepers
    server.stop()


# The error table.


@pytest.mark.parametrize(
    ("code", "body", "error", "words"),
    [
        (401, status(401, "Unauthorized"), RefusedError, "the token was not accepted .401."),
        (403, status(403, "pods is forbidden"), RefusedError, "not allowed .403.: pods is forb"),
        (403, b"<html>", RefusedError, "not allowed .403.$"),
        (404, b"not found", RefusedError, "refused .404."),
        (422, status(422, "says\nthree\nlines"), RefusedError, "refused .422.: says three lines"),
        (409, status(409, "changed"), UnreachableError, "not now .409."),
        (410, status(410, "page expired"), UnreachableError, "not now .410."),
        (429, b"", UnreachableError, "not now .429."),
        (500, status(500, "etcd"), UnreachableError, "not well .500.: etcd"),
        (503, b"<html>", UnreachableError, "not well .503."),
        (200, b"<html>welcome</html>", GarbledError, "not what the API sends"),
        (200, b"{}", GarbledError, "not what the API sends"),
        (200, b'{"kind":"PodList","metadata":{}}', GarbledError, "not what the API sends"),
        (200, b'{"kind":"Status","metadata":{},"items":[]}', GarbledError, "asked for a PodList"),
        (200, b'{"kind":"PodList","metadata":{},"items":[{', GarbledError, "not what the API"),
        (200, b" " * (5 << 20), GarbledError, "too large"),
    ],
)
def test_every_answer_has_its_error(
    canned: Callable[..., Canned],
    connect: Connect,
    code: int,
    body: bytes,
    error: type[VendorError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        connect(config(canned(code, body).url)).pods("trading")


def test_an_empty_list_may_be_null(canned: Callable[..., Canned], connect: Connect) -> None:
    server = canned(200, b'{"kind":"PodList","metadata":{},"items":null}')
    assert connect(config(server.url)).pods("trading") == ()


def test_a_redirect_is_refused_and_not_followed(
    canned: Callable[..., Canned], connect: Connect
) -> None:
    target = canned(200, b'{"kind":"PodList","metadata":{},"items":[]}')
    server = canned(302, Location=f"{target.url}/elsewhere?token=x")
    with pytest.raises(RefusedError, match=r"redirected \(302\) to .*/elsewhere$"):
        connect(config(server.url)).pods("trading")
    assert target.heard == []


def test_a_busy_server_is_asked_once(canned: Callable[..., Canned], connect: Connect) -> None:
    server = canned(429, **{"Retry-After": "1"})
    with pytest.raises(UnreachableError):
        connect(config(server.url)).pods("trading")
    assert len(server.heard) == 1


def test_a_list_without_an_end_is_garbled(canned: Callable[..., Canned], connect: Connect) -> None:
    endless = {"kind": "PodList", "metadata": {"continue": "more"}, "items": []}
    server = canned(200, json.dumps(endless).encode())
    with pytest.raises(GarbledError, match="more than 5000"):
        connect(config(server.url)).pods("trading")


def test_an_answer_that_is_cut_off_is_garbled(
    canned: Callable[..., Canned], connect: Connect
) -> None:
    server = canned(200, b'{"kind":', **{"Content-Length": "4000", "Connection": "close"})
    with pytest.raises(VendorError):
        connect(config(server.url)).pods("trading")


def test_a_refused_connection_is_unreachable_at_once_and_stays_so_for_a_moment(
    connect: Connect,
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        port = unused.getsockname()[1]
    client = connect(config(f"http://127.0.0.1:{port}"))
    for _ in range(2):
        with pytest.raises(UnreachableError, match="takes no connection"):
            client.pods("trading")
    with pytest.raises(UnreachableError, match="takes no connection"):
        client.writes.delete_pods("trading")


def test_a_server_that_never_answers_costs_one_time_out(
    server: KubernetesServer, connect: Connect
) -> None:
    server.traps.add("hang")
    client = connect(server.kubeconfig())
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"did not answer within 0\.5 s"):
        client.pods("trading")
    assert time.monotonic() - started < 1.5


def test_a_server_that_drips_is_given_up_on(connect: Connect) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        line, _ = listener.accept()
        with closing(line), suppress(OSError):
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while True:
                line.sendall(b" ")
                time.sleep(0.05)

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    client = connect(config(f"http://127.0.0.1:{listener.getsockname()[1]}"))
    with closing(listener), pytest.raises(GarbledError, match="too slowly"):
        client.pods("trading")
    thread.join(5)


@pytest.mark.parametrize("trap", ["drop", "down", "garbage", "expired-token"])
def test_every_way_to_fail_keeps_the_token_to_itself(
    server: KubernetesServer, connect: Connect, trap: str
) -> None:
    server.traps.add(trap)
    client = connect(server.kubeconfig())
    with pytest.raises(VendorError) as caught:
        client.pods("trading")
    with pytest.raises(VendorError) as again:
        client.writes.lock("trading")
    for error in (caught.value, again.value):
        told = str(error) + repr(error) + repr(client)
        told += "".join(traceback.format_exception(error))
        assert TOKEN not in told
        assert "\n" not in str(error)


def test_a_lost_reply_is_unreachable_and_was_done(
    server: KubernetesServer, connect: Connect
) -> None:
    server.traps.add("lost-reply")
    client = connect(server.kubeconfig())
    with pytest.raises(UnreachableError):
        client.writes.lock("trading")
    assert client.lock_state("trading") in {Lock.PENDING, Lock.IN_FORCE}


def test_a_message_that_repeats_the_token_is_masked(
    canned: Callable[..., Canned], connect: Connect
) -> None:
    server = canned(403, status(403, f"no right for {TOKEN}"))
    with pytest.raises(RefusedError, match=r"no right for \[secret\]"):
        connect(config(server.url)).pods("trading")


def test_the_environment_s_proxies_are_ignored(
    server: KubernetesServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert len(connect(server.kubeconfig()).pods("trading")) == 3


def test_the_vendor_s_library_is_not_loaded_before_it_is_needed() -> None:
    code = (
        "import pathlib, sys, killswitch.clients.kubernetes as module\n"
        "module.KubernetesClient(kubeconfig=pathlib.Path('x'), context='y')\n"
        "sys.exit(bool({'kubernetes', 'urllib3', 'yaml'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=False)
    assert run.returncode == 0


# What a kubeconfig may hold.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\t: not yaml: [", "is not YAML"),
        (f"a: {TOKEN}\n\tb", "is not YAML"),
        ("just words", "is not a kubeconfig"),
        ("{}", "no context 'sandbox'; it has: none"),
        ('{"contexts": [{"name": "prod", "context": {"cluster": "c"}}]}', "it has: prod"),
        ('{"contexts": [{"name": "sandbox", "context": {"cluster": "c"}}]}', "no cluster 'c'"),
        (config("http://api.example"), "https is required except for loopback: api.example"),
        (config("ftp://api.example"), "https is required except for loopback: api.example"),
        (config("api.example:6443"), "https is required except for loopback: no host"),
        (config("https://me:word@api.example"), "an address has no user, .*: api.example"),
        (config("https://[::1"), "the kubeconfig's server: this cannot be read as an address"),
        (config("https://api.example:port"), "the kubeconfig's server: this cannot be read"),
        (
            config("https://api.example", cluster={"insecure-skip-tls-verify": True}),
            "insecure-skip-tls-verify is refused",
        ),
        (config("http://127.0.0.1", user={"token": "two\nlines"}), "characters that no token has"),
        (config("http://127.0.0.1", user={"tokenFile": "none"}), "cannot read the tokenFile"),
        (
            config("https://api.example", cluster={"certificate-authority-data": "bm9uZQ=="}),
            "cannot be used",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_refused_in_words(
    connect: Connect, text: str, words: str
) -> None:
    with pytest.raises(RefusedError, match=words) as caught:
        connect(text)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_an_address_that_cannot_be_read_is_refused_while_warming_up_too(connect: Connect) -> None:
    client = connect(config("https://[::1"), log_in=False)
    for call in (client.warm, partial(client.login, may_write=True)):
        with pytest.raises(RefusedError, match="cannot be read as an address"):
            call()


def test_a_kubeconfig_that_is_not_there_is_refused(tmp_path: Path) -> None:
    client = KubernetesClient(kubeconfig=tmp_path / "none", context="sandbox")
    with pytest.raises(RefusedError, match="No such file"):
        client.warm()


def test_the_sandbox_s_client_reaches_no_other_machine(
    server: KubernetesServer, tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(config("https://api.example:6443", user={"tokenFile": "none"}))
    client = KubernetesClient(kubeconfig=path, context="sandbox", only_loopback=True)
    words = "the sandbox may only reach this machine, and the kubeconfig names api.example"
    for call in (client.warm, partial(client.login, may_write=True)):
        with pytest.raises(RefusedError) as caught:
            call()
        assert str(caught.value) == words
    path.write_text(server.kubeconfig())
    assert client.warm() == "kubernetes v1.36.2+sandbox"
    client.login(may_write=True)
    assert len(client.pods("trading")) == 3


def test_a_token_file_stands_beside_the_kubeconfig(
    server: KubernetesServer, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    client = connect(config(server.url, user={"tokenFile": "token"}))
    assert len(client.pods("trading")) == 3


def test_a_name_and_password_are_shown_as_basic(
    canned: Callable[..., Canned], connect: Connect
) -> None:
    server = canned(401)
    with suppress(RefusedError):
        connect(config(server.url, user={"username": "me", "password": "word"})).pods("trading")
    assert server.heard[0]["Authorization"] == "Basic bWU6d29yZA=="


def test_a_forced_delete_is_not_to_be_had() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        KubernetesClient(kubeconfig=Path("x"), context="sandbox", grace_s=0)


# TLS.


def certificate(name: str, issuer: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("kubernetes.internal")]), critical=False
        )
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    return built, key


def pem(pair: tuple[Any, Any]) -> tuple[bytes, bytes]:
    return pair[0].public_bytes(serialization.Encoding.PEM), pair[1].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Secure:
    """A TLS server with an authority of its own that wants a client certificate."""

    def __init__(self, folder: Path) -> None:
        authority = certificate("authority")
        self.ca = pem(authority)[0]
        self.client = pem(certificate("operator", authority))
        files = [folder / "ca.pem", folder / "server.pem"]
        files[0].write_bytes(self.ca)
        files[1].write_bytes(b"\n".join(pem(certificate("server", authority))))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files[1])
        context.load_verify_locations(files[0])
        context.verify_mode = ssl.CERT_REQUIRED
        self.canned = Canned(200, b'{"kind":"PodList","metadata":{},"items":[]}', {})
        self.canned.socket = context.wrap_socket(self.canned.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.canned.server_port}"

    def kubeconfig(self, **cluster: Any) -> str:
        cert, key = (base64.b64encode(part).decode() for part in self.client)
        ca = {"certificate-authority-data": base64.b64encode(self.ca).decode()}
        name = {"tls-server-name": "kubernetes.internal"}
        user = {"client-certificate-data": cert, "client-key-data": key}
        return config(self.url, cluster=ca | name | cluster, user=user)


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    secure = Secure(tmp_path)
    serve: HTTPServer = secure.canned
    threading.Thread(target=serve.serve_forever, args=(0.01,), daemon=True).start()
    yield secure
    serve.shutdown()
    serve.server_close()


def test_a_client_certificate_is_shown_and_its_key_leaves_no_file(
    secure: Secure, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "memory"
    where.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(where))
    assert connect(secure.kubeconfig()).pods("trading") == ()
    assert list(where.iterdir()) == []


def test_a_certificate_of_another_authority_is_refused(secure: Secure, connect: Connect) -> None:
    other = base64.b64encode(pem(certificate("other"))[0]).decode()
    client = connect(secure.kubeconfig(**{"certificate-authority-data": other}))
    with pytest.raises(RefusedError, match="does not verify"):
        client.pods("trading")


def test_a_certificate_of_another_name_is_refused(secure: Secure, connect: Connect) -> None:
    client = connect(secure.kubeconfig(**{"tls-server-name": "other.internal"}))
    with pytest.raises(RefusedError, match="does not verify"):
        client.pods("trading")


def test_an_unverified_certificate_is_taken_on_loopback_only(
    secure: Secure, connect: Connect
) -> None:
    client = connect(secure.kubeconfig(**{"insecure-skip-tls-verify": True}))
    assert client.pods("trading") == ()


# The step, through all of it.


def halt(step: StopTrading, within_s: float) -> bool:
    """Plan and perform the lowest phase until nothing is live or blind; False when it is late."""
    deadline = time.monotonic() + within_s
    given_up: set[tuple[str, str]] = set()
    while time.monotonic() < deadline:
        with suppress(UnreachableError):
            plan = step.plan()
            if not plan.live and not plan.blind:
                return True
            to_do = [action for action in plan.live if action.key not in given_up]
            for action in to_do:
                if action.phase == min(other.phase for other in to_do):
                    try:
                        action.perform()
                    except RefusedError:
                        given_up.add(action.key)
        time.sleep(0.03)
    return False


@pytest.mark.parametrize("trap", ["", "slow-pods", "scales-back", "lost-reply"])
def test_the_step_stops_every_pod(server: KubernetesServer, connect: Connect, trap: str) -> None:
    if trap:
        server.traps.add(trap)
    step = StopTrading(connect(server.kubeconfig()), "sandbox", ("trading",))
    assert halt(step, 6)
    assert server.live() == []


def test_a_pod_that_returns_is_live_again(server: KubernetesServer, connect: Connect) -> None:
    server.traps.add("pods-return-once")
    step = StopTrading(connect(server.kubeconfig()), "sandbox", ("trading",))
    assert halt(step, 6)
    time.sleep(0.8)
    assert [action.target for action in step.plan().live] == ["trading/pods"]
    assert halt(step, 6)
    assert server.live() == []


@pytest.mark.parametrize(
    ("trap", "left"),
    [
        ("forbidden", "trading/pods"),
        ("stuck-pod", "trading/pods"),
        ("delete-lies", "trading/pods"),
        ("quota-refused", "trading/quota"),
        ("quota-idle", "trading/quota"),
        ("namespace-missing", "trading/quota"),
    ],
)
def test_the_step_never_calls_it_done_while_something_is_live(
    server: KubernetesServer, connect: Connect, trap: str, left: str
) -> None:
    server.traps.add(trap)
    step = StopTrading(connect(server.kubeconfig()), "sandbox", ("trading",))
    assert not halt(step, 1)
    assert left in {action.target for action in step.plan().live}


@pytest.mark.parametrize("trap", ["quota-refused", "quota-idle"])
def test_a_quota_that_does_not_hold_does_not_keep_the_pods_alive(
    server: KubernetesServer, connect: Connect, trap: str
) -> None:
    server.traps.add(trap)
    halt(StopTrading(connect(server.kubeconfig()), "sandbox", ("trading",)), 1.5)
    assert server.live() == []


def test_a_token_from_elsewhere_takes_the_place_of_the_kubeconfigs(
    server: KubernetesServer, connect: Connect
) -> None:
    for own in ({}, {"token": "of-somebody-else"}):
        client = connect(config(server.url, user=own), log_in=False)
        assert client.warm()
        client.login(may_write=False, token=Secret(TOKEN))
        assert client.pods("trading")
        assert TOKEN not in repr(client)


def test_what_cannot_be_a_token_is_refused_before_it_is_sent(
    server: KubernetesServer, connect: Connect
) -> None:
    client = connect(config(server.url, user={}), log_in=False)
    with pytest.raises(RefusedError, match="holds characters that no token has") as caught:
        client.login(may_write=False, token=Secret("two\nlines-of-text"))
    assert "lines-of-text" not in str(caught.value)
