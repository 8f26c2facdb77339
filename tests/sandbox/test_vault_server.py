from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests

from killswitch.sandbox.vault import PUT_BACK_S, ROOT_TOKEN, TOKEN, VaultServer
from killswitch.sandbox.vault_policy import capabilities, parse_policy
from killswitch.sandbox.vault_sys import UPGRADE_S

DENIED = {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Asker:
    """A client that knows nothing of Vault but its wire."""

    def __init__(self, server: VaultServer, token: str) -> None:
        self.server = server
        self.token = token
        self.session = requests.Session()
        self.session.trust_env = False

    def __call__(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, Any]:
        answer = self.session.request(
            method,
            f"{self.server.url}/v1/{path}",
            headers={"X-Vault-Token": self.token},
            json=body,
            timeout=5,
        )
        return answer.status_code, answer.json() if answer.content else None


Start = Callable[..., VaultServer]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[VaultServer] = []

    def begin(*traps: str, **more: Any) -> VaultServer:
        server = VaultServer(traps=traps, **more)
        server.start()
        started.append(server)
        return server

    yield begin
    for server in started:
        server.stop()


def test_the_seeded_world_is_live(start: Start) -> None:
    server = start()
    assert len(server.live()) == 8
    assert "trading/bybit/main-desk" in server.live()
    assert {"trading/kakunin", "trading/kakunin/bot-1"} <= set(server.live())


def test_the_limited_token_can_wipe_and_cannot_read(start: Start) -> None:
    server = start()
    ask = Asker(server, TOKEN)
    status, body = ask("LIST", "trading/metadata/")
    assert (status, body["data"]["keys"]) == (
        200,
        ["bybit/", "freqtrade/", "kakunin", "kakunin/", "telegram/"],
    )
    assert ask("GET", "trading/data/kakunin") == (403, DENIED)
    assert ask("GET", "sys/mounts") == (403, DENIED)
    assert ask("POST", "trading/data/kakunin", {"data": {}}) == (403, DENIED)
    assert ask("DELETE", "trading/metadata/kakunin") == (204, None)
    assert "trading/kakunin" not in server.live()
    assert ask("DELETE", "sys/mounts/trading") == (204, None)
    assert server.live() == []


def test_a_soft_delete_is_no_wipe_and_a_destroy_leaves_the_name(start: Start) -> None:
    server = start()
    root = Asker(server, ROOT_TOKEN)
    server.put("trading/kakunin", {"api_key": "newer"})
    assert root("DELETE", "trading/data/kakunin")[0] == 204
    assert root("GET", "trading/data/kakunin")[0] == 404
    assert root("GET", "trading/data/kakunin?version=1")[1]["data"]["data"] == {
        "api_key": "made-up"
    }
    assert root("POST", "trading/undelete/kakunin", {"versions": [2]})[0] == 204
    assert root("GET", "trading/data/kakunin")[1]["data"]["data"] == {"api_key": "newer"}
    assert root("PUT", "trading/destroy/kakunin", {"versions": [1, 2]})[0] == 204
    assert root("POST", "trading/undelete/kakunin", {"versions": [2]})[0] == 204
    assert root("GET", "trading/data/kakunin")[1]["data"]["data"] is None
    assert "trading/kakunin" in server.live()


def test_only_ten_versions_are_kept(start: Start) -> None:
    server = start()
    for number in range(12):
        server.put("trading/kakunin", {"n": str(number)})
    about = Asker(server, ROOT_TOKEN)("GET", "trading/metadata/kakunin")[1]["data"]
    assert (about["current_version"], about["oldest_version"]) == (13, 4)
    assert len(about["versions"]) == 10


def test_a_fresh_kv_v2_mount_refuses_writes_while_it_upgrades(start: Start) -> None:
    clock = Clock()
    root = Asker(start(clock=clock), ROOT_TOKEN)
    body = {"type": "kv", "options": {"version": "2"}}
    assert root("POST", "sys/mounts/new", body)[0] == 204
    status, said = root("POST", "new/data/a", {"data": {"k": "v"}})
    assert status == 400
    assert said["errors"][0].startswith("Upgrading from non-versioned to versioned data")
    clock.now += UPGRADE_S
    assert root("POST", "new/data/a", {"data": {"k": "v"}})[0] == 200


def test_relative_paths_are_refused_and_double_slashes_collapse(start: Start) -> None:
    server = start()
    connection = Asker(server, TOKEN)
    assert connection("LIST", "trading//metadata//bybit")[0] == 200
    assert connection("LIST", "trading/metadata/%2E%2E/")[0] == 400


def test_a_deny_wins_over_every_grant() -> None:
    rules = [
        parse_policy('path "a/*" { capabilities = ["read"] }'),
        parse_policy('path "a/*" { capabilities = ["deny"] }'),
    ]
    assert capabilities(rules, "a/b") == frozenset()


@pytest.mark.parametrize(
    ("path", "granted"),
    [
        ("kv/data/x", {"read"}),
        ("kv/data/desk/x", {"list"}),
        ("kv/data/desk/main", {"delete"}),
        ("kv/any/desk", {"update"}),
        ("kv/any/deeper/desk", set()),
        ("other", set()),
    ],
)
def test_the_most_specific_pattern_decides(path: str, granted: set[str]) -> None:
    rules = parse_policy("""
        # a comment
        path "kv/data/*" { capabilities = ["read"] }
        path "kv/data/desk/*" { capabilities = ["list"] }
        path "kv/data/desk/main" { capabilities = ["delete"] }
        path "kv/+/desk" { capabilities = ["update"] }
    """)
    assert capabilities([rules], path) == granted


def test_a_policy_that_is_not_one_is_refused(start: Start) -> None:
    root = Asker(start(), ROOT_TOKEN)
    assert root("PUT", "sys/policies/acl/x", {"policy": "path oops"})[0] == 400
    rule = 'path "a/*" { capabilities = ["read"] }'
    assert root("PUT", "sys/policies/acl/x", {"policy": rule})[0] == 204
    assert root("GET", "sys/policies/acl/x")[1]["data"] == {"name": "x", "policy": rule}


def test_a_token_ends_by_its_accessor_by_its_time_and_by_itself(start: Start) -> None:
    clock = Clock()
    server = start(clock=clock)
    root = Asker(server, ROOT_TOKEN)
    made = [
        root("POST", "auth/token/create", {"policies": ["killswitch"], "ttl": "10m"})[1]["auth"]
        for _ in range(3)
    ]
    one, two, three = (Asker(server, auth["client_token"]) for auth in made)
    assert made[0]["accessor"] in root("LIST", "auth/token/accessors")[1]["data"]["keys"]
    body = {"accessor": made[0]["accessor"]}
    assert root("POST", "auth/token/revoke-accessor", body) == (204, None)
    assert root("POST", "auth/token/revoke-accessor", body)[1]["warnings"] == [
        "No token found with this accessor"
    ]
    assert one("LIST", "trading/metadata/")[0] == 403
    assert two("POST", "auth/token/revoke-self")[0] == 204
    assert two("GET", "auth/token/lookup-self")[0] == 403
    assert three("GET", "auth/token/lookup-self")[1]["data"]["ttl"] == 600
    clock.now += 600
    assert three("GET", "auth/token/lookup-self")[0] == 403


def test_revoking_a_prefix_needs_sudo_on_that_very_path(start: Start) -> None:
    server = start()
    limited = Asker(server, TOKEN)
    path = "sys/leases/revoke-prefix/auth/token/create"
    server.tokens.policies["killswitch"] += f'\npath "{path}" {{ capabilities = ["update"] }}'
    assert limited("PUT", path, {}) == (403, DENIED)
    server.tokens.policies["killswitch"] += f'\npath "{path}" {{ capabilities = ["sudo"] }}'
    assert limited("PUT", path, {}) == (204, None)
    assert limited("GET", "auth/token/lookup-self")[0] == 403


def test_a_mount_is_shown_only_to_who_has_a_right_inside(start: Start) -> None:
    server = start()
    limited = Asker(server, TOKEN)
    assert limited("GET", "sys/internal/ui/mounts/trading/bybit")[1]["data"]["path"] == "trading/"
    for path in ("secret", "nope"):
        status, body = limited("GET", f"sys/internal/ui/mounts/{path}")
        assert status == 403
        assert body["errors"][0].startswith("preflight capability check returned 403")


def test_a_half_erased_mount_is_listed_unreadable_and_ended_by_a_second_unmount(
    start: Start,
) -> None:
    server = start("half-erased")
    limited = Asker(server, TOKEN)
    assert limited("GET", "sys/internal/ui/mounts/trading")[0] == 200
    status, body = limited("LIST", "trading/metadata/")
    assert (status, body) == (
        404,
        {"errors": ['no handler for route "trading/metadata/". route entry is tainted.']},
    )
    assert len(server.live()) == 8
    assert limited("DELETE", "sys/mounts/trading")[0] == 204
    assert server.live() == []


def test_a_client_that_follows_redirects_loses_its_token(start: Start) -> None:
    server = start("redirect")
    assert Asker(server, TOKEN)("LIST", "trading/metadata/")[0] == 204
    assert server.elsewhere.tokens == [TOKEN]


def test_one_secret_is_put_back_once_after_all_were_gone(start: Start) -> None:
    clock = Clock()
    server = start("put-back", clock=clock)
    limited = Asker(server, TOKEN)

    def wipe() -> None:
        for path in server.live():
            limited("DELETE", "trading/metadata/" + quote(path.removeprefix("trading/")))

    wipe()
    assert server.live() == []
    clock.now += PUT_BACK_S
    assert server.live() == ["trading/bybit/held/101"]
    wipe()
    clock.now += 10
    assert server.live() == []


def test_requests_are_too_many_for_one_second_after_the_fifth(start: Start) -> None:
    clock = Clock()
    limited = Asker(start("rate-limited", clock=clock), TOKEN)
    statuses = [limited("LIST", "trading/metadata/")[0] for _ in range(7)]
    assert statuses == [200] * 5 + [429] * 2
    clock.now += 1.0
    assert [limited("LIST", "trading/metadata/")[0] for _ in range(7)] == [200] * 7


def test_a_mount_of_version_1_has_nothing_where_version_2_keeps_its_secrets(start: Start) -> None:
    server = start("wrong-version")
    root = Asker(server, ROOT_TOKEN)
    shown = root("GET", "sys/internal/ui/mounts/trading")[1]["data"]["options"]
    assert shown == {"version": "1"}
    assert root("LIST", "trading/metadata/") == (404, {"errors": []})
    assert root("LIST", "trading/")[0] == 200
    assert root("GET", "trading/kakunin")[1]["data"] == {"api_key": "made-up"}
    assert len(server.live()) == 8


def test_a_renamed_mount_keeps_its_secrets_under_the_new_path(start: Start) -> None:
    server = start("wrong-mount")
    root = Asker(server, ROOT_TOKEN)
    assert root("LIST", "trading/metadata/")[0] == 404
    assert root("GET", "sys/internal/ui/mounts/trading")[0] == 403
    assert root("LIST", "renamed-trading/metadata/")[0] == 200
    assert len(server.live()) == 8


def test_every_trap_has_a_sentence_and_an_unknown_one_is_refused() -> None:
    assert all(VaultServer.TRAPS.values())
    with pytest.raises(ValueError, match="has no trap"):
        VaultServer(traps=["no-such-trap"])
