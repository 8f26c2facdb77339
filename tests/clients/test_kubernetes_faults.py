"""What goes wrong on the way to a cluster: each fault has its own words, in time, and no secret."""

import base64
import json
import socket
import ssl
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from killswitch.clients.kubernetes import KubernetesClient
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.sandbox.kubernetes import TOKEN, KubernetesServer
from tests.tls import Authority, Signed
from tests.toxic import Mode, ToxicProxy

FAST = (0.6, 0.6)
IN_TIME_S = 2.5


@dataclass(slots=True)
class Place:
    """Where servers are started, and what a kubeconfig says of the one that is asked."""

    folder: Path
    stack: ExitStack
    api: tuple[str, int]
    authority: Authority
    user: dict[str, Any]
    url: str = ""
    trusts: bytes = b""
    server_name: str = ""

    def front(self, mode: Mode = "pass", tls: ssl.SSLContext | None = None) -> ToxicProxy:
        proxy = self.stack.enter_context(ToxicProxy(self.api, mode, tls=tls))
        self.url = proxy.url
        return proxy

    def secure(self, **server: Any) -> ToxicProxy:
        return self.front(tls=self.authority.server(self.folder, **server))

    def show(self, signed: Signed) -> None:
        for name, data in (("certificate", signed.pem), ("key", signed.key_pem)):
            self.user[f"client-{name}-data"] = base64.b64encode(data).decode()

    def client(self) -> KubernetesClient:
        cluster: dict[str, Any] = {"server": self.url}
        if self.url.startswith("https"):
            trusts = self.trusts or self.authority.pem
            cluster["certificate-authority-data"] = base64.b64encode(trusts).decode()
        if self.server_name:
            cluster["tls-server-name"] = self.server_name
        parts = {
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": self.user}],
        }
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(parts))
        client = KubernetesClient(kubeconfig=path, context="here", timeout_s=FAST)
        client.login(may_write=True)
        return client


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    server = KubernetesServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def place(server: KubernetesServer, authority: Authority, tmp_path: Path) -> Iterator[Place]:
    host, port = server.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        yield Place(tmp_path, stack, (host, int(port)), authority, {"token": TOKEN})


def nobody(place: Place) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        place.url = f"http://127.0.0.1:{unused.getsockname()[1]}"


def drops_syn(place: Place) -> None:
    """A full queue: the kernel drops what asks for a connection."""
    listener = place.stack.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=0)))
    for _ in range(3):
        waiting = place.stack.enter_context(closing(socket.socket()))
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
    time.sleep(0.05)
    place.url = f"https://127.0.0.1:{listener.getsockname()[1]}"


def no_such_name(place: Place) -> None:
    place.url = "https://cluster.invalid:6443"


def swallows(place: Place) -> None:
    place.front("blackhole")


def swallows_tls(place: Place) -> None:
    place.secure().mode = "blackhole"


def drips(place: Place) -> None:
    place.front("drip")


def drips_tls(place: Place) -> None:
    place.secure().mode = "drip"


def resets(place: Place) -> None:
    place.front("reset")


def resets_tls(place: Place) -> None:
    place.secure().mode = "reset"


def cuts_the_head(place: Place) -> None:
    place.front("cut").cut_after = 5


def cuts_the_body(place: Place) -> None:
    place.front("cut").cut_after = 400


def noise(place: Place) -> None:
    place.front("garbage")


def noise_for_tls(place: Place) -> None:
    place.secure().mode = "garbage"


def plain_for_tls(place: Place) -> None:
    place.url = f"https://{place.front().url.removeprefix('http://')}"


def other_authority(place: Place) -> None:
    place.secure()
    place.trusts = Authority("another").pem


def other_name(place: Place) -> None:
    place.secure()
    place.server_name = "api.internal"


def server_expired(place: Place) -> None:
    place.secure(days=-1)


def client_certificate_wanted(place: Place) -> None:
    place.secure(clients="required")


def client_certificate_expired(place: Place) -> None:
    place.secure(clients="asked")
    place.show(place.authority.sign("operator", days=-1))


def client_certificate_unknown(place: Place) -> None:
    place.secure(clients="asked")
    place.show(Authority("another").sign("operator"))


def token_expired(place: Place) -> None:
    claims = base64.urlsafe_b64encode(b'{"exp": 1700000000}').decode().rstrip("=")
    place.user["token"] = f"e30.{claims}.c2ln"
    place.front()


def token_unknown(place: Place) -> None:
    place.user["token"] = "of-another-cluster"
    place.front()


FAULTS: list[tuple[Callable[[Place], None], type[VendorError], str]] = [
    (nobody, UnreachableError, "HOST takes no connection"),
    (drops_syn, UnreachableError, "no connection to HOST within 0.6 s"),
    (no_such_name, UnreachableError, "the name of HOST cannot be resolved"),
    (swallows, UnreachableError, "HOST did not answer within 0.6 s"),
    (swallows_tls, UnreachableError, "HOST did not answer within 0.6 s"),
    (drips, GarbledError, "the answer of HOST is dripping in too slowly"),
    (drips_tls, GarbledError, "the answer of HOST is dripping in too slowly"),
    (resets, UnreachableError, "the connection to HOST was cut"),
    (resets_tls, UnreachableError, "the connection to HOST was cut"),
    (cuts_the_head, GarbledError, "what HOST answers is not HTTP"),
    (cuts_the_body, GarbledError, "the answer of HOST was cut off"),
    (noise, GarbledError, "what HOST answers is not HTTP"),
    (noise_for_tls, GarbledError, "HOST does not answer in TLS: is this a plain http port?"),
    (plain_for_tls, GarbledError, "HOST does not answer in TLS: is this a plain http port?"),
    (
        other_authority,
        RefusedError,
        "the certificate of HOST does not verify: not by the kubeconfig's certificate-authority",
    ),
    (
        other_name,
        RefusedError,
        "the certificate of HOST does not verify: it is for another name (see tls-server-name)",
    ),
    (server_expired, RefusedError, "the certificate of HOST does not verify: it has expired"),
    (client_certificate_wanted, RefusedError, "HOST wants a client certificate"),
    (
        client_certificate_expired,
        RefusedError,
        "HOST says that the client certificate has expired",
    ),
    (
        client_certificate_unknown,
        RefusedError,
        "HOST says that the client certificate is of an authority that it does not know",
    ),
    (
        token_expired,
        RefusedError,
        "the token was not accepted (401): expired at 2023-11-14 22:13 UTC",
    ),
    (
        token_unknown,
        RefusedError,
        "the token was not accepted (401): expired, or of another cluster",
    ),
]


@pytest.mark.parametrize(
    ("fault", "kind", "words"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS]
)
def test_every_fault_has_its_own_words_in_time(
    place: Place, fault: Callable[[Place], None], kind: type[VendorError], words: str
) -> None:
    fault(place)
    client = place.client()
    for ask in (lambda: client.pods("trading"), lambda: client.writes.delete_pods("trading")):
        started = time.monotonic()
        with pytest.raises(VendorError) as caught:
            ask()
        assert time.monotonic() - started < IN_TIME_S
        assert str(caught.value) == words.replace("HOST", place.url.partition("://")[2])
        assert type(caught.value) is kind
        told = repr(client) + "".join(traceback.format_exception(caught.value))
        assert place.user["token"] not in told


def test_a_cluster_that_dies_in_the_middle_is_told_and_seen_again_when_it_is_back(
    place: Place, server: KubernetesServer
) -> None:
    proxy = place.secure()
    client = place.client()
    assert len(client.pods("trading")) == 3
    proxy.mode = "reset"
    proxy.reset()
    for _ in range(2):
        with pytest.raises(UnreachableError, match="was cut"):
            client.pods("trading")
    proxy.mode = "pass"
    assert len(client.pods("trading")) == 3
    assert server.writes == []


@pytest.mark.parametrize("cut_after", range(0, 300, 23))
def test_wherever_an_answer_is_cut_it_is_never_an_empty_list(place: Place, cut_after: int) -> None:
    place.front("cut").cut_after = cut_after
    with pytest.raises(VendorError):
        place.client().pods("trading")


def test_a_cluster_that_falls_silent_costs_a_look_one_time_out_and_not_one_for_each_question(
    place: Place,
) -> None:
    place.front("blackhole")
    client = place.client()
    started = time.monotonic()
    for _ in range(6):
        with pytest.raises(UnreachableError, match="did not answer within"):
            client.pods("trading")
    assert time.monotonic() - started < 2 * FAST[1]


def test_one_slow_answer_does_not_hide_the_other_questions(
    place: Place, server: KubernetesServer
) -> None:
    place.front()
    client = place.client()
    assert len(client.pods("trading")) == 3
    server.traps.add("hang")
    with pytest.raises(UnreachableError):
        client.pods("trading")
    server.traps.clear()
    assert len(client.pods("trading")) == 3


def test_the_environment_s_proxies_are_ignored_for_https_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    place.secure()
    assert len(place.client().pods("trading")) == 3


def test_a_dead_proxy_url_is_told_as_such(place: Place) -> None:
    place.secure()
    with closing(socket.create_server(("127.0.0.1", 0))) as unused:
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
    client = place.client()
    path = place.folder / "kubeconfig"
    path.write_text(path.read_text().replace('"server"', f'"proxy-url": "{dead}", "server"'))
    client = KubernetesClient(kubeconfig=path, context="here", timeout_s=FAST)
    client.login(may_write=True)
    with pytest.raises(UnreachableError, match="the kubeconfig's proxy-url it takes no connection"):
        client.pods("trading")
