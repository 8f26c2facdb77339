"""What a kubeconfig may hold: each kind of credential works, or is refused with what to do."""

import base64
import json
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from killswitch.clients.kubeconfig_credential import TokenFile
from killswitch.clients.kubernetes import KubernetesClient
from killswitch.errors import RefusedError
from killswitch.secret import Secret
from tests.tls import Authority
from tests.toxic import ToxicProxy

TOKEN = "eyJhbGciOiJSUzI1NiJ9.made-up-token"
FAST = (2.0, 2.0)
EMPTY = b'{"gitVersion":"v1.36.2","kind":"PodList","metadata":{},"items":[]}'


class Api(ThreadingHTTPServer):
    """Answers with an empty list, and keeps the headers that it was sent."""

    def __init__(self) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.heard.append(self.headers.items())
                self.send_response(200)
                self.send_header("Content-Length", str(len(EMPTY)))
                self.end_headers()
                self.wfile.write(EMPTY)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's)
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True
        self.heard: list[list[tuple[str, str]]] = []

    @property
    def shown(self) -> list[str]:
        return [dict(headers).get("Authorization", "") for headers in self.heard]


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    threading.Thread(target=api.serve_forever, args=(0.01,), daemon=True).start()
    yield api
    api.shutdown()
    api.server_close()


def text(server: str, *, user: Any = None, cluster: Any = None, **more: Any) -> str:
    parts = {
        "current-context": "elsewhere",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server} | (cluster or {})}],
        "users": [{"name": "u", "user": {"token": TOKEN} if user is None else user}],
    }
    return json.dumps(parts | more)


def url(api: Api) -> str:
    return f"http://127.0.0.1:{api.server_port}"


@pytest.fixture
def client(tmp_path: Path) -> Callable[..., KubernetesClient]:
    def make(text: str, **more: Any) -> KubernetesClient:
        path = tmp_path / "kubeconfig"
        path.write_text(text)
        return KubernetesClient(kubeconfig=path, context="here", timeout_s=FAST, **more)

    return make


@pytest.fixture
def ask(client: Callable[..., KubernetesClient]) -> Callable[..., KubernetesClient]:
    def make(text: str, **more: Any) -> KubernetesClient:
        asking = client(text, **more)
        asking.login(may_write=False)
        assert asking.pods("trading") == ()
        return asking

    return make


Ask = Callable[..., KubernetesClient]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# Tokens and names.


def test_a_token_is_shown(api: Api, ask: Ask) -> None:
    ask(text(url(api)))
    assert api.shown == [f"Bearer {TOKEN}"]


def test_a_token_file_counts_more_than_a_token(api: Api, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token-of-the-file\n")
    ask(text(url(api), user={"tokenFile": "token", "token": TOKEN}))
    assert api.shown == ["Bearer token-of-the-file"]


def test_a_token_file_is_read_again_and_its_last_token_kept(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first-token\n")
    often, seldom = TokenFile(path, reread_s=0), TokenFile(path)
    path.write_text("second-token\n")
    assert (often.current(), seldom.current()) == ("second-token", "first-token")
    for broken in (path.unlink, lambda: path.write_text(""), lambda: path.write_text("a\nb")):
        broken()
        assert often.current() == "second-token"


def test_a_name_and_password_are_shown_as_basic_and_known_as_a_secret(api: Api, ask: Ask) -> None:
    ask(text(url(api), user={"username": "me", "password": "pass-word"}))
    assert api.shown == [f"Basic {b64(b'me:pass-word')}"]


def test_without_a_user_nothing_is_shown(api: Api, ask: Ask) -> None:
    ask(text(url(api), contexts=[{"name": "here", "context": {"cluster": "c"}}]))
    assert api.shown == [""]


def test_the_credential_of_a_kubeconfig_is_left_alone_when_a_token_follows(
    api: Api, client: Callable[..., KubernetesClient], tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "touch"}
    user = {"exec": plugin | {"args": [str(mark)]}, "tokenFile": "missing"}
    asking = client(text(url(api), user=user), own_credential=False, plugins=["touch"])
    asking.login(may_write=False, token=Secret("token-of-the-bundle"))
    asking.pods("trading")
    assert api.shown == ["Bearer token-of-the-bundle"]
    assert not mark.exists()


# As whom to act.


def test_impersonation_is_sent_as_headers(api: Api, ask: Ask) -> None:
    user = {
        "token": TOKEN,
        "as": "system:serviceaccount:killswitch:killswitch",
        "as-uid": "u-1",
        "as-groups": ["halters", "system:authenticated"],
        "as-user-extra": {"Reason.example/Why": ["one", "two"]},
    }
    ask(text(url(api), user=user))
    sent = [(name, value) for name, value in api.heard[0] if name.startswith("Impersonate")]
    assert sent == [
        ("Impersonate-User", "system:serviceaccount:killswitch:killswitch"),
        ("Impersonate-Uid", "u-1"),
        ("Impersonate-Group", "halters"),
        ("Impersonate-Group", "system:authenticated"),
        ("Impersonate-Extra-reason.example%2Fwhy", "one"),
        ("Impersonate-Extra-reason.example%2Fwhy", "two"),
    ]


# Client certificates.


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def front(api: Api, authority: Authority, tmp_path: Path) -> Iterator[ToxicProxy]:
    """Speaks TLS in front of the API, and wants a client certificate."""
    context = authority.server(tmp_path, names=("api.internal",), clients="required")
    with ToxicProxy(("127.0.0.1", api.server_port), tls=context) as proxy:
        yield proxy


def trusting(authority: Authority) -> dict[str, str]:
    return {"certificate-authority-data": b64(authority.pem), "tls-server-name": "api.internal"}


def test_a_client_certificate_in_files_is_shown(
    front: ToxicProxy, authority: Authority, ask: Ask, tmp_path: Path
) -> None:
    signed = authority.sign("operator")
    (tmp_path / "pki").mkdir()
    for name, data in (("c", signed.pem), ("k", signed.key_pem), ("ca", authority.pem)):
        (tmp_path / "pki" / name).write_bytes(data)
    user = {"client-certificate": "pki/c", "client-key": "pki/k"}
    cluster = {"certificate-authority": "pki/ca", "tls-server-name": "api.internal"}
    ask(text(front.url, user=user, cluster=cluster))


def test_data_counts_more_than_files_and_may_be_folded(
    front: ToxicProxy, authority: Authority, ask: Ask
) -> None:
    signed = authority.sign("operator")
    folded = base64.encodebytes(signed.pem).decode()
    user = {
        "client-certificate-data": folded,
        "client-certificate": "missing",
        "client-key-data": b64(signed.key_pem),
        "client-key": "missing",
    }
    ask(text(front.url, user=user, cluster=trusting(authority)))


def test_an_expired_certificate_is_told_while_warming_up(
    api: Api, authority: Authority, client: Callable[..., KubernetesClient], tmp_path: Path
) -> None:
    signed = authority.sign("operator", days=-1)
    user = {"client-certificate-data": b64(signed.pem), "client-key-data": b64(signed.key_pem)}
    context = authority.server(tmp_path)
    with ToxicProxy(("127.0.0.1", api.server_port), tls=context) as front:
        cluster = {"certificate-authority-data": b64(authority.pem)}
        warming = client(text(front.url, user=user, cluster=cluster))
        with pytest.raises(RefusedError, match=r"the client certificate expired at 20.* UTC$"):
            warming.warm()


# Proxies.


def test_a_proxy_url_is_used_and_its_password_is_a_secret(
    api: Api, authority: Authority, ask: Ask, tmp_path: Path
) -> None:
    context = authority.server(tmp_path)
    with (
        ToxicProxy(("127.0.0.1", api.server_port), tls=context) as front,
        Tunnel(front.address) as tunnel,
    ):
        cluster = {
            "certificate-authority-data": b64(authority.pem),
            "proxy-url": f"http://me:pass%2Dword@127.0.0.1:{tunnel.port}",
        }
        asking = ask(text(front.url, cluster=cluster))
    assert api.shown == [f"Bearer {TOKEN}"]
    (asked,) = tunnel.asked
    assert asked.startswith(f"CONNECT {front.address[0]}:{front.address[1]} HTTP/1.")
    assert b64(b"me:pass-word") in asked
    assert TOKEN not in asked
    assert "pass-word" not in repr(asking)


class Tunnel(ToxicProxy):
    """An HTTP proxy that knows CONNECT."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(target)
        self.port = self.address[1]
        self.asked: list[str] = []

    def _relay(self, client: Any) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.asked.append(head.decode())
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        super()._relay(client)


# What is refused, and what to do then.

_CERT = {"client-certificate-data": b64(b"-----BEGIN CERTIFICATE-----")}
_HTTPS = "https://127.0.0.1:1"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            text(
                _HTTPS, user={"auth-provider": {"name": "gcp", "config": {"access-token": TOKEN}}}
            ),
            "uses the auth-provider 'gcp', .*: the plugin gke-gcloud-auth-plugin, allowed by exec",
        ),
        (text(_HTTPS, user={"auth-provider": {"name": "azure"}}), "the plugin kubelogin"),
        (text(_HTTPS, user={"auth-provider": {"name": "oidc"}}), "a service account's token"),
        (text(_HTTPS, user={"as-groups": ["g"]}), "kubeconfig user 'u' has as-… without 'as'"),
        (text(_HTTPS, user={"as": "two\nlines"}), "acts as a name that no header can hold"),
        (text(_HTTPS, user=_CERT), "has a client certificate without its key"),
        (text(_HTTPS, user={"client-key-data": b64(b"k")}), "a client key without its certificate"),
        (text(_HTTPS, user={"client-key-data": "%%"}), "is not base64"),
        (text(_HTTPS, user={"client-certificate": "no"}), "cannot read the client certificate or"),
        (text(_HTTPS, user=_CERT | {"client-key-data": b64(b"k")}), "is not a PEM certificate"),
        (text(_HTTPS, cluster={"certificate-authority-data": b64(b"ca")}), "it is not PEM"),
        # No authority at all would mean those of the system.
        (text(_HTTPS, cluster={"certificate-authority-data": b64(b"\n")}), "it is not PEM"),
        (text(_HTTPS, cluster={"certificate-authority": "no"}), "the certificate-authority .*/no"),
        (text("http://127.0.0.1:1", user={"tokenFile": "kubeconfig"}), "no token has"),
        (text(_HTTPS, cluster={"proxy-url": "socks5://127.0.0.1:1"}), "for SOCKS, forward a port"),
        (text(_HTTPS, cluster={"proxy-url": "http://[::1"}), "cannot be read as an address"),
        (
            text("http://127.0.0.1:1", cluster={"proxy-url": "http://127.0.0.1:1"}),
            "a server without TLS is not reached through a proxy-url",
        ),
        (
            text("https://api.example", cluster={"insecure-skip-tls-verify": True}),
            "insecure-skip-tls-verify is refused .*certificate-authority-data",
        ),
        (
            text(
                _HTTPS,
                cluster={"insecure-skip-tls-verify": True, "proxy-url": "http://proxy.example:1"},
            ),
            "insecure-skip-tls-verify is refused .*certificate-authority-data",
        ),
        (
            text(_HTTPS, users=[{"name": "u", "user": {"token": t}} for t in ("a", "b")]),
            "the kubeconfig has 2 users named 'u': leave one",
        ),
        (text(_HTTPS, users=[]), "the kubeconfig has no user 'u'; it has: none"),
        (text(_HTTPS, contexts=[]), "the kubeconfig has no context 'here'; it has: none"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_do(
    client: Callable[..., KubernetesClient], config: str, words: str
) -> None:
    asking = client(config)
    for call in (asking.warm, lambda: asking.login(may_write=True)):
        with pytest.raises(RefusedError, match=words) as caught:
            call()
        assert TOKEN not in "".join(traceback.format_exception(caught.value))
        assert "\n" not in str(caught.value)


def test_an_encrypted_key_is_refused_with_how_to_write_one_that_is_not(
    authority: Authority, client: Callable[..., KubernetesClient]
) -> None:
    signed = authority.sign("operator")
    user = {
        "client-certificate-data": b64(signed.pem),
        "client-key-data": b64(signed.encrypted_key_pem),
    }
    with pytest.raises(RefusedError, match=r"the client key is encrypted, .*openssl pkey"):
        client(text(_HTTPS, user=user)).warm()


def test_the_key_of_another_certificate_is_refused(
    authority: Authority, client: Callable[..., KubernetesClient]
) -> None:
    one, other = authority.sign("one"), authority.sign("other")
    user = {"client-certificate-data": b64(one.pem), "client-key-data": b64(other.key_pem)}
    with pytest.raises(RefusedError, match="the key is of another certificate"):
        client(text(_HTTPS, user=user)).warm()


def test_the_sandbox_uses_no_proxy_on_another_machine(
    client: Callable[..., KubernetesClient],
) -> None:
    cluster = {"proxy-url": "http://proxy.example:3128"}
    with pytest.raises(RefusedError, match=r"the kubeconfig names proxy.example"):
        client(text(_HTTPS, cluster=cluster), only_loopback=True).warm()
