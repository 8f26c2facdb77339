import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from werkzeug.wrappers import Request, Response

from killswitch.clients.vault import VaultClient
from killswitch.clients.vault_http import MAX_BODY
from killswitch.clients.vault_pool import THREADS
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.sandbox.server import VendorServer
from killswitch.sandbox.vault import VaultServer
from killswitch.secret import Secret
from killswitch.steps.vault import WipeSecrets
from killswitch.steps.vault_port import HalfErased, Tree
from tests.tls import Authority

TOKEN = "hvs.made-up-token-of-a-test"
ODD_NAMES = [
    "blank in it",
    "ü",
    "100%",
    "%2F",
    "a?b",
    "a#b",
    "a+b",
    "a;b",
    "a&b=c",
    'it\'s "quoted"',
    "back\\slash",
    "{braces}",
    "trailing blank ",
    "~dot.dash-under_",
    "...",
]


class Says(VendorServer):
    """A server that answers every request with the same status and body."""

    name = "says"

    def __init__(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.reply = (status, body, headers)
        self.headers: list[dict[str, str]] = []

    def respond(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        status, body, headers = self.reply
        return Response(body, status=status, headers=headers, content_type="application/json")

    def live(self) -> list[str]:
        return []


Serve = Callable[[VendorServer], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[VendorServer] = []

    def start(server: VendorServer) -> str:
        server.start()
        started.append(server)
        return server.url

    yield start
    for server in started:
        server.stop()


def logged_in(address: str, *, may_write: bool = True, token: str = TOKEN) -> VaultClient:
    client = VaultClient(address=address, timeout_s=(0.5, 0.5))
    client.login(token=Secret(token), may_write=may_write)
    return client


def walked(client: VaultClient, path: str) -> Tree:
    found = client.walk(path)
    assert isinstance(found, Tree)
    return found


def vault(serve: Serve, *traps: str, **more: object) -> tuple[VaultServer, VaultClient]:
    server = VaultServer(token=TOKEN, traps=traps, **more)  # type: ignore[arg-type]  # per test
    return server, logged_in(serve(server))


def test_warming_up_tells_the_seal_and_the_version_without_a_token(serve: Serve) -> None:
    server = VaultServer()
    assert VaultClient(address=serve(server)).warm() == "unsealed, 1.21.0"
    assert [(seen.method, seen.path) for seen in server.seen] == [("GET", "/v1/sys/health")]


def test_a_sealed_vault_is_unreachable_and_says_why(serve: Serve) -> None:
    server = VaultServer(traps=["sealed"])
    with pytest.raises(UnreachableError, match="vault answered 503: sealed"):
        VaultClient(address=serve(server)).warm()


def test_a_standby_is_told_and_no_obstacle_because_it_forwards(serve: Serve) -> None:
    body = b'{"initialized": true, "sealed": false, "standby": true, "version": "1.21.0"}'
    client = VaultClient(address=serve(Says(429, body)))
    assert client.warm() == "unsealed, a standby node, 1.21.0"


def test_a_disaster_recovery_secondary_is_unreachable(serve: Serve) -> None:
    body = b'{"initialized": true, "sealed": false, "standby": true, "version": "1.21.0"}'
    with pytest.raises(UnreachableError, match="472: a disaster recovery secondary"):
        VaultClient(address=serve(Says(472, body))).warm()


def test_nothing_is_asked_before_the_login(serve: Serve) -> None:
    server = VaultServer()
    with pytest.raises(RuntimeError):
        VaultClient(address=serve(server)).walk("trading/")
    assert server.seen == []


@pytest.mark.parametrize("version", [1, 2])
def test_a_walk_finds_every_secret_and_a_delete_leaves_none(serve: Serve, version: int) -> None:
    server, client = vault(serve, mounts={"team/kv/": version}, secrets={
        "team/kv/a": {"k": "v"}, "team/kv/a/b": {"k": "v"}, "team/kv/a/b/c/d": {"k": "v"},
        "team/kv/z": {"k": "v"},
    })  # fmt: skip
    tree = walked(client, "team/kv/")
    assert sorted(tree.names) == ["a", "a/b", "a/b/c/d", "z"]
    assert (tree.mount, tree.version, tree.folder) == ("team/kv/", version, "")
    assert tree.accessor == server.mounts["team/kv/"].accessor
    assert len(set(tree.names)) == len(tree.names)
    client.delete(tree)
    assert server.live() == []
    assert walked(client, "team/kv/").names == ()


def test_a_folder_is_walked_without_its_neighbours(serve: Serve) -> None:
    server, client = vault(serve)
    tree = walked(client, "trading/bybit/")
    assert sorted(tree.names) == ["bybit/held/101", "bybit/held/102", "bybit/main-desk"]
    client.delete(tree)
    assert [path for path in server.live() if "bybit" in path] == []
    assert "trading/kakunin" in server.live()


@pytest.mark.parametrize("version", [1, 2])
def test_odd_names_make_the_round_trip(serve: Serve, version: int) -> None:
    paths = [f"kv/{name}" for name in ODD_NAMES] + [f"kv/{name}/inner" for name in ODD_NAMES]
    secrets = {path: {"k": "v"} for path in paths}
    server, client = vault(serve, mounts={"kv/": version}, secrets=secrets)
    tree = walked(client, "kv/")
    assert sorted(f"kv/{name}" for name in tree.names) == sorted(paths)
    assert client.missing_rights(tree) == ()
    client.delete(tree)
    assert server.live() == []


def test_hundreds_of_secrets_are_deleted_side_by_side(serve: Serve) -> None:
    secrets = {f"kv/{n % 7}/{n}": {"k": "v"} for n in range(300)}
    server, client = vault(serve, mounts={"kv/": 2}, secrets=secrets)
    client.delete(walked(client, "kv/"))
    assert server.live() == []
    assert THREADS == 8


def test_every_version_goes_with_the_metadata(serve: Serve) -> None:
    server, client = vault(serve)
    server.put("trading/kakunin", {"api_key": "newer"})
    assert len(server.mounts["trading/"].v2["kakunin"].versions) == 2
    client.delete(walked(client, "trading/"))
    assert server.mounts["trading/"].v2 == {}


ERRORS = [
    ("sealed", UnreachableError, "503: Vault is sealed"),
    ("token-revoked", RefusedError, "403: permission denied, invalid token"),
    ("forbidden-list", RefusedError, "may not list trading/: vault answered 403"),
    ("wrong-mount", RefusedError, "trading/: no such mount, or no right under it"),
    ("redirect", RefusedError, "307: a redirect, which is not followed"),
    ("hang", UnreachableError, "did not answer in time"),
    ("drop", UnreachableError, "no connection to vault, or it was cut"),
    ("garbage", GarbledError, "not its api's json"),
    ("down", UnreachableError, "vault answered 503"),
]


@pytest.mark.parametrize(
    ("namespace", "version", "doubtful"),
    [("bots", "1.21.0", True), ("bots", "1.21.0+ent.hsm", False), (None, "1.21.0", False)],
)
def test_a_namespace_that_vault_may_ignore_is_told_and_no_reason_to_stop(
    serve: Serve,
    namespace: str | None,
    version: str,
    doubtful: bool,  # noqa: FBT001 (a table)
) -> None:
    class Edition(VaultServer):
        def respond(self, request: Request) -> Response:
            answer = super().respond(request)
            if request.path == "/v1/sys/health":
                answer.set_data(answer.get_data().replace(b"1.21.0", version.encode()))
            return answer

    client = VaultClient(address=serve(Edition(token=TOKEN)), namespace=namespace)
    assert not client.namespace_doubt  # nobody has asked yet
    assert client.warm() == f"unsealed, {version}"
    assert bool(client.namespace_doubt) is doubtful
    client.login(token=Secret(TOKEN), may_write=True)
    plan = WipeSecrets(client, "main", paths=("trading/",)).plan()
    kinds = [note.kind for note in plan.notes]
    assert ("namespace" in kinds) is doubtful


def test_no_connection_is_told_from_one_that_was_cut(serve: Serve) -> None:
    server, client = vault(serve)
    server.stop()
    with pytest.raises(UnreachableError) as told:
        client.walk("trading/")
    assert told.value.problem == "no connection to vault"


@pytest.mark.parametrize(("trap", "error", "words"), ERRORS)
def test_a_walk_that_cannot_see_says_why(
    serve: Serve, trap: str, error: type[VendorError], words: str
) -> None:
    server, client = vault(serve, trap)
    with pytest.raises(error, match=words):
        client.walk("trading/")
    assert len(server.live()) == 8


def test_a_mount_that_is_listed_and_has_no_route_is_half_erased(serve: Serve) -> None:
    server, client = vault(serve, "half-erased")
    accessor = server.mounts["trading/"].accessor
    assert client.walk("trading/") == HalfErased("trading/", accessor)
    assert client.walk("trading/bybit/") == HalfErased("trading/", accessor)
    assert len(server.live()) == 8


def described(**more: object) -> bytes:
    """Return what Vault says of a mount; `more` adds to it, or replaces what it says."""
    mount = {"path": "trading/", "type": "kv", "accessor": "kv_1"} | more
    return json.dumps({"data": mount}).encode()


STATUSES = [
    (301, b"", RefusedError),
    (400, b'{"errors": ["what?"]}', GarbledError),
    (401, b"", RefusedError),
    (403, b"<html>", RefusedError),
    (404, b"<html>", GarbledError),
    (404, b"{}", GarbledError),
    (405, b"[]", GarbledError),
    (412, b"", UnreachableError),
    (429, b'{"errors": ["slow"]}', UnreachableError),
    (472, b"", UnreachableError),
    (473, b"", UnreachableError),
    (500, b"[1]", UnreachableError),
    (502, b"\xff\xfe", UnreachableError),
    (200, b"", GarbledError),
    (200, b'{"data": null}', GarbledError),
    (200, b'{"data": {"path": "trading/", "type": "kv"}}', GarbledError),
    (200, described(path="other/"), GarbledError),
    (200, described(options={"version": "3"}), GarbledError),
    (200, described(type="pki"), RefusedError),
    (200, b"[" * 100_000, GarbledError),
    (200, b" " * (MAX_BODY + 1), GarbledError),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "error"), STATUSES)
def test_every_status_and_body_is_one_of_three_errors(
    serve: Serve, status: int, body: bytes, error: type[VendorError]
) -> None:
    client = logged_in(serve(Says(status, body)))
    with pytest.raises(error) as caught:
        client.walk("trading/")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_answer_that_is_cut_off_is_not_believed(serve: Serve) -> None:
    client = logged_in(serve(Says(200, b'{"data"', {"Content-Length": "500"})))
    with pytest.raises((GarbledError, UnreachableError)):
        client.walk("trading/")


@pytest.mark.parametrize("key", ["..", ".", "", "/", "../", "a/../b", "x//"])
def test_a_listed_key_that_would_reach_another_path_is_told_and_never_asked_for(
    serve: Serve, key: str
) -> None:
    server = Says(200, described(keys=[key, "leaf"]))
    tree = walked(logged_in(serve(server)), "trading/")
    assert tree.names == ("leaf",)
    [error] = tree.unseen
    assert error.lasting
    assert error.problem == (
        f"trading/ holds a key named '{key}', which no client can address: "
        "delete it in the storage or disable the mount"
    )
    assert len(server.headers) == 2  # the mount, and one listing


def test_a_listing_without_any_key_is_not_believed(serve: Serve) -> None:
    client = logged_in(serve(Says(200, described(keys=[]))))
    with pytest.raises(GarbledError, match=r"vault lists trading/ with no key$"):
        client.walk("trading/")


def test_a_walk_ends_in_folders_without_end(serve: Serve) -> None:
    body = described(keys=["deeper/", "leaf"])
    tree = walked(logged_in(serve(Says(200, body))), "trading/")
    assert [error.problem for error in tree.unseen] == [
        "trading/ is too large or too deep to be seen at once"
    ]
    assert "leaf" in tree.names


def test_the_token_does_not_follow_a_redirect(serve: Serve) -> None:
    server, client = vault(serve)
    tree = walked(client, "trading/")
    server.traps.add("redirect")
    for call in (lambda: client.walk("trading/"), lambda: client.delete(tree), client.token_ttl_s):
        with pytest.raises(RefusedError, match="redirect"):
            call()
    assert server.elsewhere.seen == []
    assert server.elsewhere.tokens == []
    assert len(server.live()) == 8


def test_a_folder_that_may_not_be_listed_does_not_hide_the_others(serve: Serve) -> None:
    server, client = vault(serve)
    deny = '\npath "trading/metadata/bybit/held/*" { capabilities = ["deny"] }'
    server.tokens.policies["killswitch"] += deny
    tree = walked(client, "trading/")
    assert len(tree.names) == 6
    assert [error.problem for error in tree.unseen] == [
        "may not list trading/bybit/held/: vault answered 403: permission denied"
    ]


def test_a_secret_that_may_not_be_deleted_does_not_keep_the_others(serve: Serve) -> None:
    server, client = vault(serve)
    deny = '\npath "trading/metadata/bybit/main-desk" { capabilities = ["list"] }'
    server.tokens.policies["killswitch"] += deny
    tree = walked(client, "trading/")
    assert client.missing_rights(tree) == ("delete trading/metadata/bybit/main-desk",)
    with pytest.raises(RefusedError, match="1 of 8 secrets not deleted: vault answered 403"):
        client.delete(tree)
    assert server.live() == ["trading/bybit/main-desk"]


def test_a_cut_connection_ends_the_attempt_and_is_worth_another(serve: Serve) -> None:
    server, client = vault(serve, "lost-reply")
    with pytest.raises(UnreachableError, match="secrets not deleted: no connection"):
        client.delete(walked(client, "trading/"))
    assert len(server.live()) < 8


def test_a_client_that_may_only_read_sends_no_delete(serve: Serve) -> None:
    server = VaultServer(token=TOKEN)
    client = logged_in(serve(server), may_write=False)
    tree = walked(client, "trading/")
    assert client.missing_rights(tree) == ()
    assert client.token_ttl_s() > 86000
    with pytest.raises(RefusedError, match="may only read"):
        client.delete(tree)
    assert server.writes == []


def test_rights_are_asked_for_on_every_folder_and_secret(serve: Serve) -> None:
    server, client = vault(serve)
    tree = walked(client, "trading/bybit/")
    server.tokens.policies["killswitch"] = 'path "trading/metadata/*" { capabilities = ["read"] }'
    assert sorted(client.missing_rights(tree)) == [
        "delete trading/metadata/bybit/held/101",
        "delete trading/metadata/bybit/held/102",
        "delete trading/metadata/bybit/main-desk",
        "list trading/metadata/bybit/",
        "list trading/metadata/bybit/held/",
    ]


def test_nothing_is_taken_from_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".vault-token").write_text("hvs.token-of-the-home-folder")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    for name, value in {
        "HOME": str(tmp_path),
        "VAULT_TOKEN": "hvs.token-of-the-environment",
        "VAULT_ADDR": "https://elsewhere.example",
        "VAULT_CACERT": "/nowhere",
        "REQUESTS_CA_BUNDLE": "/nowhere",
        "HTTP_PROXY": "http://proxy.example:3128",
    }.items():
        monkeypatch.setenv(name, value)
    server = Says(503, b"")
    client = VaultClient(address=serve(server), namespace="desk")
    with pytest.raises(UnreachableError):
        client.warm()
    client.login(token=Secret(TOKEN), may_write=True)
    with pytest.raises(UnreachableError):
        client.walk("trading/")
    tokens = [headers.get("X-Vault-Token") for headers in server.headers]
    assert tokens == [None, TOKEN]
    assert {headers.get("X-Vault-Namespace") for headers in server.headers} == {"desk"}
    assert not any("Authorization" in headers for headers in server.headers)


@pytest.mark.parametrize(
    "address",
    [
        "http://vault.internal:8200",
        "ftp://127.0.0.1",
        "vault.internal",
        "https://user:password@vault.internal",
        "https://user:password@[::1",
        "https://",
    ],
)
def test_an_address_that_is_not_safe_is_refused(address: str) -> None:
    with pytest.raises(ValueError) as caught:
        VaultClient(address=address)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("value", ["", " ", "two words", "new\nline", "tokën", "nul\0"])
def test_a_token_that_cannot_be_one_is_not_sent(value: str) -> None:
    with pytest.raises(RefusedError) as caught:
        VaultClient(address="https://vault.example").login(token=Secret(value), may_write=True)
    assert caught.value.problem.startswith("the token is empty or has characters")


@dataclass(frozen=True, slots=True)
class Tls:
    """A Vault behind a certificate, and the file of the authority that signed it."""

    port: int
    ca_file: str


@pytest.fixture
def tls(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tls]:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    server = VaultServer(token=TOKEN)
    names = getattr(request, "param", {})
    context = authority.server(tmp_path, **names)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    server.start()
    yield Tls(server._server.server_port, str(tmp_path / "ca.pem"))
    server.stop()


def test_a_private_authority_is_trusted_where_it_is_named(tls: Tls) -> None:
    client = VaultClient(address=f"https://127.0.0.1:{tls.port}", ca_file=tls.ca_file)
    assert client.warm() == "unsealed, 1.21.0"
    client.login(token=Secret(TOKEN), may_write=True)
    tree = walked(client, "trading/")
    assert len(tree.names) == 8
    client.erase("trading/", tree.accessor)  # on its own connection, which trusts it as well


def test_another_authority_is_refused_in_words(tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(Authority("other").pem)
    for ca_file in (None, str(tmp_path / "other.pem")):
        client = VaultClient(address=f"https://127.0.0.1:{tls.port}", ca_file=ca_file)
        with pytest.raises(UnreachableError, match=r"not accepted: .*certificate"):
            client.warm()


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ({"names": ("vault.internal",)}, "not accepted: .*mismatch"),
        ({"days": -1}, "not accepted: certificate has expired"),
    ],
    indirect=["tls"],
)
def test_a_certificate_that_does_not_fit_is_refused_in_words(tls: Tls, words: str) -> None:
    client = VaultClient(address=f"https://127.0.0.1:{tls.port}", ca_file=tls.ca_file)
    with pytest.raises(UnreachableError, match=words):
        client.warm()


@pytest.mark.parametrize("content", [None, "", "no certificate", b"\xff\xfe"])
def test_a_ca_file_that_is_none_is_refused_in_words(
    tmp_path: Path, content: str | bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    client = VaultClient(address="https://127.0.0.1:1", ca_file=str(file))
    with pytest.raises(RefusedError, match="the ca_file holds no certificate"):
        client.warm()


def failure(call: Callable[[], object]) -> VendorError | None:
    try:
        call()
    except VendorError as error:
        return error
    return None


def test_no_secret_is_in_an_error_or_a_repr(serve: Serve) -> None:
    said = f'{{"errors": ["the token {TOKEN} is odd\\u001b[31m"]}}'.encode()
    servers: list[VendorServer] = [VaultServer(token=TOKEN, traps=[trap]) for trap, *_ in ERRORS]
    servers += [Says(status, said) for status in (307, 400, 403, 404, 429, 500)]
    tree = Tree("trading/", "kv_1", 2, "", ("a", "b"))
    failures = []
    for server in servers:
        client = logged_in(serve(server))
        assert repr(client) == f"VaultClient('{server.url}')"
        failures += [
            failure(partial(client.walk, "trading/")),
            failure(partial(client.delete, tree)),
        ]
    errors = [error for error in failures if error is not None]
    assert len(errors) > len(servers)
    for error in errors:
        chain = "".join(traceback.format_exception(error))
        assert TOKEN not in f"{error} {error!r} {chain}"
        assert "\x1b" not in str(error)
