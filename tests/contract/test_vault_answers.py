"""What the Vault step builds on, asked of the sandbox and of a real Vault: in plain HTTP, and
through our client."""

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from killswitch.errors import GarbledError, RefusedError, UnreachableError
from killswitch.model import Clear
from killswitch.steps.vault_port import Erased, HalfErased, NoRightError, Tree
from tests.contract.vault_bench import VaultBench, sandbox
from tests.servers.vault_server import DevVault, RaftVault

BOTH = ["sandbox", pytest.param("real", marks=pytest.mark.real)]
DENIED = {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
EMPTY: tuple[int, dict[str, list[str]]] = (404, {"errors": []})


@pytest.fixture(scope="module", params=BOTH)
def vault(request: pytest.FixtureRequest) -> Iterator[VaultBench]:
    """A Vault for all tests here, each with mounts of its own."""
    if request.param == "sandbox":
        with sandbox() as bench:
            yield bench
    else:
        real: DevVault = request.getfixturevalue("dev_vault")
        yield VaultBench(real.address, real.root_token)


@pytest.fixture(params=BOTH)
def slow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VaultBench]:
    """A Vault that takes a while to erase a mount: the real one has raft storage."""
    if request.param == "sandbox":
        with sandbox(erase_s=0.01) as bench:
            yield bench
    else:
        with RaftVault(tmp_path / "vault") as real:
            yield VaultBench(real.address, real.root_token, many=300, hang_up_s=0.06)


@pytest.fixture(params=BOTH)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VaultBench]:
    """A Vault of its own, which may be sealed."""
    if request.param == "sandbox":
        with sandbox() as bench:
            yield bench
    else:
        with DevVault(tmp_path / "vault") as real:
            yield VaultBench(real.address, real.root_token)


def tree_of(found: object) -> Tree:
    assert isinstance(found, Tree)
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_a_list_tells_what_is_there_and_what_is_empty(vault: VaultBench, version: int) -> None:
    mount = vault.mount(version, ["a", "a/b", "c/d"])
    root = f"{mount}metadata/" if version == 2 else mount
    status, body = vault.send("LIST", root)
    assert (status, body["data"]["keys"]) == (200, ["a", "a/", "c/"])
    tree = tree_of(vault.client().walk(mount))
    assert (tree.version, sorted(tree.names)) == (version, ["a", "a/b", "c/d"])
    assert vault.client().delete(tree) == 3
    assert vault.send("LIST", root) == EMPTY
    assert vault.send("LIST", f"{root}c/") == EMPTY
    assert tree_of(vault.client().walk(mount)).names == ()


def test_a_path_without_a_mount_says_so_and_is_never_empty(vault: VaultBench) -> None:
    for path in ("nosuch/metadata/", "nosuch/"):
        status, body = vault.send("LIST", path)
        told = [f'no handler for route "{path}". route entry not found.']
        assert (status, body["errors"]) == (404, told)
    assert vault.send("GET", "sys/internal/ui/mounts/nosuch/")[0] == 403
    with pytest.raises(NoRightError, match="no such mount, or no right under it"):
        vault.client().walk("nosuch/")


def test_a_call_of_the_wrong_version_does_nothing_and_warns(vault: VaultBench) -> None:
    mount = vault.mount(2, ["a"])
    status, body = vault.send("DELETE", f"{mount}a")
    assert (status, "errors" in body, len(body["warnings"])) == (404, False, 1)
    assert tree_of(vault.client().walk(mount)).names == ("a",)
    lying = Tree(mount, "kv_1", 1, "", ("a",))
    with pytest.raises(GarbledError, match="1 of 1 secrets not deleted"):
        vault.client().delete(lying)


def test_a_soft_delete_and_a_destroy_are_no_wipe(vault: VaultBench) -> None:
    mount = vault.mount(2, ["a", "b"])
    vault.good("DELETE", f"{mount}data/a")
    vault.good("PUT", f"{mount}destroy/b", {"versions": [1]})
    for name, sign in (("a", "deletion_time"), ("b", "destroyed")):
        status, body = vault.send("GET", f"{mount}data/{name}")
        assert status == 404
        assert body["data"]["metadata"][sign]
    assert sorted(tree_of(vault.client().walk(mount)).names) == ["a", "b"]


@pytest.mark.parametrize("path", ["sys/mounts/typo", "sys/auth/typo", "{mount}metadata/missing"])
def test_a_204_proves_nothing(vault: VaultBench, path: str) -> None:
    mount = vault.mount(2, ["a"])
    assert vault.send("DELETE", path.format(mount=mount)) == (204, None)


def test_a_write_to_a_folder_is_refused(vault: VaultBench) -> None:
    told = {"errors": ["cannot write to a path ending in '/'"]}
    assert vault.send("POST", "sys/mounts/folder/", {"type": "kv"}) == (400, told)


def test_what_may_not_be_listed_is_never_empty(vault: VaultBench) -> None:
    mount = vault.mount(2, ["a"])
    token = vault.token(f'path "{mount}metadata/*" {{ capabilities = ["delete"] }}')
    assert vault.send("LIST", f"{mount}metadata/", token=token) == (403, DENIED)
    with pytest.raises(NoRightError, match="may not list"):
        vault.client(token).walk(mount)


def test_a_dead_token_and_none_are_told_from_a_missing_right(vault: VaultBench) -> None:
    mount = vault.mount(2, ["a"])
    token = vault.token(f'path "{mount}metadata/*" {{ capabilities = ["list"] }}')
    client = vault.client(token)
    client.revoke_own_token((Clear("all", "ended"),))
    dead = {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}
    for path in ("auth/token/lookup-self", f"sys/internal/ui/mounts/{mount}", f"{mount}data/a"):
        assert vault.send("GET", path, token=token) == (403, dead)
    assert vault.send("GET", f"{mount}data/a", token="") == (403, {"errors": ["permission denied"]})
    with pytest.raises(RefusedError, match="the token is dead, or unknown to this vault") as caught:
        client.walk(mount)
    assert not isinstance(caught.value, NoRightError)
    with pytest.raises(RefusedError, match="invalid token"):
        client.own_token()


def test_a_policy_lets_wipe_and_not_read(vault: VaultBench) -> None:
    mount = vault.mount(2, ["a", "b/c"])
    bare = mount.rstrip("/")
    token = vault.token(
        f'path "{mount}metadata/*" {{ capabilities = ["list", "delete"] }}\n'
        f'path "sys/mounts/{bare}" {{ capabilities = ["delete"] }}'
    )
    assert vault.send("GET", f"{mount}data/a", token=token) == (403, DENIED)
    assert vault.send("GET", "sys/mounts", token=token) == (403, DENIED)
    client = vault.client(token)
    needed = (
        ("delete", f"sys/mounts/{bare}"),
        ("list", f"{mount}metadata/"),
        ("read", "sys/mounts"),
    )
    assert client.lacks(*needed) == ("read sys/mounts",)
    tree = tree_of(client.walk(mount))
    assert client.missing_rights(tree) == ()
    assert client.delete(tree) == 2
    assert vault.send("LIST", f"{mount}metadata/") == EMPTY


def test_odd_names_make_the_round_trip(vault: VaultBench) -> None:
    names = ["blank in it", "ü", "100%", "%2F", "a?b", "a#b", "a+b", "a;b", "a&b=c", "{x}", '"q"']
    mount = vault.mount(2, [quote(name) for name in names])
    client = vault.client()
    tree = tree_of(client.walk(mount))
    assert sorted(tree.names) == sorted(names)
    assert client.delete(tree) == len(names)
    assert vault.send("LIST", f"{mount}metadata/") == EMPTY


def test_a_mount_that_was_disabled_is_gone_for_good(vault: VaultBench) -> None:
    mount = vault.mount(2, ["a", "b"])
    client = vault.client()
    tree = tree_of(client.look_at(mount))
    assert vault.send("GET", f"sys/internal/ui/mounts/{mount}")[0] == 200
    client.erase(mount, tree.accessor)
    assert vault.send("GET", f"sys/internal/ui/mounts/{mount}")[0] == 403
    status, body = vault.send("LIST", f"{mount}metadata/")
    assert (status, body["errors"][0].endswith("route entry not found.")) == (404, True)
    assert isinstance(client.look_at(mount), Erased)
    with pytest.raises(RefusedError, match="no mount is at"):
        vault.client().look_at(mount)


def test_a_caller_who_hangs_up_leaves_a_mount_half_erased_for_good(slow: VaultBench) -> None:
    mount = slow.mount(2, [f"d{number % 7}/s{number}" for number in range(slow.many)])
    accessor = tree_of(slow.client().look_at(mount)).accessor
    with pytest.raises(requests.exceptions.ReadTimeout):
        slow.send("DELETE", f"sys/mounts/{mount.rstrip('/')}", timeout_s=slow.hang_up_s)
    time.sleep(1.0)
    status, body = slow.send("LIST", f"{mount}metadata/")
    assert (status, body["errors"][0].endswith("route entry is tainted.")) == (404, True)
    assert slow.send("GET", f"sys/internal/ui/mounts/{mount}")[0] == 200
    assert f"{mount}" in slow.good("GET", "sys/mounts")
    assert slow.send("POST", f"sys/mounts/{mount.rstrip('/')}", {"type": "kv"}) == (
        400,
        {"errors": [f"path is already in use at {mount}"]},
    )
    client = slow.client()
    assert client.look_at(mount) == client.walk(mount) == HalfErased(mount, accessor)
    client.erase(mount, accessor)
    assert isinstance(client.look_at(mount), Erased)
    assert mount not in slow.good("GET", "sys/mounts")


def test_a_role_reads_back_as_gone_and_a_missing_method_is_told_apart(vault: VaultBench) -> None:
    method = vault.approle()
    role = f"auth/{method}/role/bot"
    client = vault.client()
    assert client.role(role) is not None
    client.delete_role(role)
    assert vault.send("GET", role) == EMPTY
    assert client.role(role) is None
    assert vault.send("DELETE", role) == (204, None)
    vault.good("DELETE", f"sys/auth/{method}")
    status, body = vault.send("GET", role)
    assert (status, body["errors"][0].endswith("route entry not found.")) == (404, True)
    with pytest.raises(RefusedError, match="no auth method is there"):
        client.role(role)
    assert client.leases(f"auth/{method}/login") is None


def test_a_deleted_role_stops_logins_and_its_tokens_live_until_they_are_revoked(
    vault: VaultBench,
) -> None:
    method = vault.approle()
    role, prefix = f"auth/{method}/role/bot", f"auth/{method}/login"
    role_id = vault.good("GET", f"{role}/role-id")["role_id"]
    secret_id = vault.good("POST", f"{role}/secret-id")["secret_id"]
    tokens = [vault.log_in_with(method, role_id, secret_id)[1] for _ in range(3)]
    limited = vault.token(
        f'path "{role}" {{ capabilities = ["read", "delete"] }}\n'
        f'path "sys/leases/revoke-prefix/{prefix}" {{ capabilities = ["update", "sudo"] }}\n'
        f'path "sys/leases/lookup/{prefix}/" {{ capabilities = ["list", "sudo"] }}'
    )
    client = vault.client(limited)
    assert client.leases(prefix) == 3
    client.delete_role(role)
    assert vault.log_in_with(method, role_id, secret_id)[0] == 400
    assert {vault.send("GET", "auth/token/lookup-self", token=it)[0] for it in tokens} == {200}
    client.revoke_prefix(prefix)
    assert {vault.send("GET", "auth/token/lookup-self", token=it)[0] for it in tokens} == {403}
    assert vault.send("LIST", f"sys/leases/lookup/{prefix}/") == EMPTY
    assert client.leases(prefix) == 0
    assert client.asked == {role, prefix}
    other = vault.token(f'path "{role}" {{ capabilities = ["delete"] }}')
    with pytest.raises(NoRightError, match="may not read"):
        vault.client(other).role(role)
    with pytest.raises(NoRightError, match="may not list the leases"):
        vault.client(other).leases(prefix)


def test_revoking_a_prefix_takes_update_and_sudo(vault: VaultBench) -> None:
    method = vault.approle()
    path = f"sys/leases/revoke-prefix/auth/{method}/login"
    token = vault.token(f'path "{path}" {{ capabilities = ["update"] }}')
    assert vault.send("PUT", path, token=token) == (403, DENIED)


def test_batch_tokens_cannot_be_revoked_and_their_role_says_so(vault: VaultBench) -> None:
    method = vault.approle(token_type="batch")
    _, token = vault.log_in(method)
    found = vault.client().role(f"auth/{method}/role/bot")
    assert found is not None
    assert found.batch
    vault.client().revoke_prefix(f"auth/{method}/login")
    assert vault.send("GET", "auth/token/lookup-self", token=token)[0] == 200
    assert vault.client().leases(f"auth/{method}/login") == 0
    assert vault.client(token).own_token().batch
    status, body = vault.send("PUT", "auth/token/revoke-self", token=token)
    assert (status, body["errors"]) == (400, ["batch tokens cannot be revoked"])


def test_the_own_token_tells_where_it_was_made_and_ends_once(vault: VaultBench) -> None:
    token = vault.token('path "nothing/*" { capabilities = ["list"] }')
    own = vault.client(token).own_token()
    assert (own.path, own.batch) == ("auth/token/create", False)
    assert 500 < own.ttl_s <= 600
    vault.client(token).revoke_own_token((Clear("all", "ended"),))
    assert vault.send("GET", "auth/token/lookup-self", token=token)[0] == 403


def test_a_rate_limit_has_no_retry_after_and_is_waited_out(vault: VaultBench) -> None:
    mount = vault.mount(2, [f"s{number}" for number in range(40)])
    name = f"sys/quotas/rate-limit/{mount.rstrip('/')}"
    vault.good("POST", name, {"rate": 2, "path": mount})
    seen = [vault.send("LIST", f"{mount}metadata/") for _ in range(20)]
    limited = [body for status, body in seen if status == 429]
    assert limited
    assert all(body["errors"][0].endswith("rate limit quota exceeded") for body in limited)
    vault.good("POST", name, {"rate": 20, "path": mount})
    client = vault.client()
    assert client.delete(tree_of(client.walk(mount))) == 40
    vault.good("DELETE", name)
    assert vault.send("LIST", f"{mount}metadata/") == EMPTY


def test_a_sealed_vault_says_so_and_is_never_empty(fresh: VaultBench) -> None:
    mount = fresh.mount(2, ["a"])
    client = fresh.client()
    tree = tree_of(client.walk(mount))
    fresh.good("PUT", "sys/seal")
    status, body = fresh.send("LIST", f"{mount}metadata/")
    assert (status, body["errors"]) == (503, ["Vault is sealed"])
    for call in (lambda: client.walk(mount), lambda: client.delete(tree), client.own_token):
        with pytest.raises(UnreachableError, match="503: Vault is sealed"):
            call()
    with pytest.raises(UnreachableError, match="503: sealed or down"):
        client.warm()


def test_a_namespace_is_not_known_here_and_ignored(vault: VaultBench) -> None:
    mount = vault.mount(2, ["a"])
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(
            "LIST",
            f"{vault.address}/v1/{mount}metadata/",
            headers={"X-Vault-Token": vault.root_token, "X-Vault-Namespace": "desk"},
            timeout=5,
        )
    assert answer.json()["data"]["keys"] == ["a"]
