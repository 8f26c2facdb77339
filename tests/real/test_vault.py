"""Vault itself, through the step and the engine: every way in which it can go, in its own words."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from killswitch.clients.vault import VaultClient
from killswitch.converge import Limits
from killswitch.halt import Assignment, carry_out
from killswitch.model import Mode, Outcome, StepResult, TargetResult
from killswitch.runner import Runner
from killswitch.steps.vault import WipeSecrets
from killswitch.verdict import Intent
from tests.contract.vault_bench import VaultBench
from tests.engine.simulator import make_order
from tests.servers.vault_server import DevVault, RaftVault

LIMITS = Limits(deadline_s=30, wrap_up_s=1, patience_s=4, stay_down_s=0.5)


@pytest.fixture
def dev(dev_vault: DevVault) -> VaultBench:
    return VaultBench(dev_vault.address, dev_vault.root_token)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[DevVault, VaultBench]]:
    """A dev Vault for one test, which may seal it."""
    with DevVault(tmp_path / "vault") as vault:
        yield vault, VaultBench(vault.address, vault.root_token)


def policy(mount: str, *more: str) -> str:
    """Return the documented rights: list and delete, and no reading."""
    return "\n".join(
        [
            f'path "{mount}metadata/*" {{ capabilities = ["list", "delete"] }}',
            f'path "sys/mounts/{mount.rstrip("/")}" {{ capabilities = ["delete"] }}',
            *more,
        ]
    )


def carried_out(
    client: VaultClient,
    *,
    known: frozenset[str] = frozenset(),
    limits: Limits = LIMITS,
    intent: Intent = Intent.PERFORM,
    paths: tuple[str, ...] = (),
    mounts: tuple[str, ...] = (),
    roles: tuple[str, ...] = (),
    revoke_prefixes: tuple[str, ...] = (),
    revoke_own_token: bool = False,
) -> StepResult:
    step = WipeSecrets(
        client, "real", paths, mounts, roles, revoke_prefixes, revoke_own_token=revoke_own_token
    )
    assignment = Assignment(
        order=make_order(Mode.LIVE if intent is Intent.PERFORM else Mode.DRILL),
        proof=None,
        intent=intent,
        steps=(step,),
        started_at=datetime.now(UTC),
        known={(step.name, step.system): known},
    )
    return Runner().run(lambda now: carry_out(assignment, limits, now)).results[0]


def only(result: StepResult, target: str) -> TargetResult:
    return next(each for each in result.targets if each.target.startswith(target))


def test_a_path_is_wiped_with_the_documented_rights(dev: VaultBench) -> None:
    mount = dev.mount(2, [f"d{number % 5}/s{number}" for number in range(300)])
    token = dev.token(policy(mount))
    result = carried_out(dev.client(token), paths=(mount,))
    assert result.outcome is Outcome.VERIFIED
    assert only(result, f"{mount} in").saw == "empty: LIST answers 404"
    assert dev.send("LIST", f"{mount}metadata/") == (404, {"errors": []})
    assert dev.send("GET", f"{mount}data/d0/s0", token=token)[0] == 403


def test_version_1_is_told_apart_and_wiped(dev: VaultBench) -> None:
    mount = dev.mount(1, ["a", "b/c"])
    assert carried_out(dev.client(), paths=(mount,)).outcome is Outcome.VERIFIED
    assert dev.send("LIST", mount) == (404, {"errors": []})


def test_rights_for_the_wrong_version_are_unknown_and_touch_nothing(dev: VaultBench) -> None:
    mount = dev.mount(1, ["a"])
    result = carried_out(dev.client(dev.token(policy(mount))), paths=(mount,))
    assert result.outcome is Outcome.UNKNOWN
    assert f"may not list {mount}: vault answered 403" in only(result, mount.rstrip("/")).saw
    assert dev.good("LIST", mount)["keys"] == ["a"]


def test_a_typing_error_is_unknown_for_a_path_and_for_a_mount(dev: VaultBench) -> None:
    token = dev.token(policy("tradng/"))
    for what in ("paths", "mounts"):
        client = dev.client(token)
        result = (
            carried_out(client, paths=("tradng/",))
            if what == "paths"
            else carried_out(client, mounts=("tradng/",))
        )
        assert result.outcome is Outcome.UNKNOWN
        assert "tradng/" in result.targets[0].saw


def test_a_mount_that_was_renamed_is_unknown_although_it_was_seen(dev: VaultBench) -> None:
    mount = dev.mount(2, ["a"])
    token = dev.token(policy(mount))
    drill = carried_out(dev.client(token), mounts=(mount,), intent=Intent.REHEARSE)
    assert drill.outcome is Outcome.REHEARSED
    dev.good("POST", "sys/remount", {"from": mount, "to": f"moved-{mount}"})
    while dev.send("GET", f"sys/internal/ui/mounts/{mount}")[0] == 200:
        time.sleep(0.05)
    seen = frozenset(target.target for target in drill.targets)
    result = carried_out(dev.client(token), mounts=(mount,), known=seen)
    assert result.outcome is Outcome.UNKNOWN
    assert "erased, renamed, or a typing error" in result.targets[0].saw


def test_a_revoked_token_is_unknown_and_says_that_a_new_one_is_needed(dev: VaultBench) -> None:
    mount = dev.mount(2, ["a"])
    token = dev.token(policy(mount))
    dev.send("POST", "auth/token/revoke-self", token=token)
    result = carried_out(dev.client(token), paths=(mount,))
    assert result.outcome is Outcome.UNKNOWN
    assert "the token is dead, or unknown to this vault" in result.targets[0].saw
    assert "permission denied, invalid token" in result.targets[0].saw


def test_a_sealed_vault_is_unknown(own: tuple[DevVault, VaultBench]) -> None:
    vault, bench = own
    mount = bench.mount(2, ["a"])
    client = bench.client()
    vault.seal()
    result = carried_out(client, paths=(mount,), limits=replace(LIMITS, patience_s=1))
    assert result.outcome is Outcome.UNKNOWN
    assert result.targets[0].saw == "vault answered 503: Vault is sealed"


def test_a_wipe_meets_the_rate_limit_waits_and_goes_on(dev: VaultBench) -> None:
    mount = dev.mount(2, [f"s{number}" for number in range(150)])
    quota = f"sys/quotas/rate-limit/{mount.rstrip('/')}"
    dev.good("POST", quota, {"rate": 60, "path": mount})
    result = carried_out(dev.client(dev.token(policy(mount))), paths=(mount,))
    dev.good("DELETE", quota)
    assert result.outcome is Outcome.VERIFIED
    assert dev.send("LIST", f"{mount}metadata/") == (404, {"errors": []})


def test_a_writer_that_puts_keys_back_is_wiped_after_and_never_halted_while_it_writes(
    dev: VaultBench,
) -> None:
    mount = dev.mount(2, [f"s{number}" for number in range(50)])
    stop = threading.Event()

    def write() -> None:
        with requests.Session() as session:
            session.trust_env = False
            session.headers["X-Vault-Token"] = dev.root_token
            while not stop.wait(0.01):
                url = f"{dev.address}/v1/{mount}data/back"
                session.post(url, json={"data": {"k": "v"}}, timeout=5)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    result = carried_out(dev.client(), paths=(mount,), limits=replace(LIMITS, patience_s=1))
    assert not result.outcome.ended
    threading.Timer(1.0, stop.set).start()
    assert carried_out(dev.client(), paths=(mount,)).outcome is Outcome.VERIFIED
    writer.join()
    assert dev.send("LIST", f"{mount}metadata/") == (404, {"errors": []})


def test_an_operator_that_logs_in_anew_is_cut_off_before_the_wipe(dev: VaultBench) -> None:
    """What it holds, a role's identity, would let it write back for ever."""
    mount = dev.mount(2, ["a"])
    writes = f'path "{mount}data/*" {{ capabilities = ["create", "update"] }}'
    dev.good("PUT", "sys/policies/acl/writer", {"policy": writes})
    method = dev.approle(token_policies="writer")
    role, prefix = f"auth/{method}/role/bot", f"auth/{method}/login"
    role_id = dev.good("GET", f"{role}/role-id")["role_id"]
    secret_id = dev.good("POST", f"{role}/secret-id")["secret_id"]
    stop, statuses = threading.Event(), list[int]()

    def push() -> None:
        while not stop.wait(0.05):
            _, token = dev.log_in_with(method, role_id, secret_id)
            body = {"data": {"k": "v"}}
            statuses.append(dev.send("POST", f"{mount}data/back", body, token=token)[0])

    pusher = threading.Thread(target=push, daemon=True)
    pusher.start()
    token = dev.token(
        policy(
            mount,
            f'path "{role}" {{ capabilities = ["read", "delete"] }}',
            f'path "sys/leases/revoke-prefix/{prefix}" {{ capabilities = ["update", "sudo"] }}',
            f'path "sys/leases/lookup/{prefix}/" {{ capabilities = ["list", "sudo"] }}',
        )
    )
    result = carried_out(
        dev.client(token),
        paths=(mount,),
        roles=(role,),
        revoke_prefixes=(prefix,),
        revoke_own_token=True,
    )
    stop.set()
    pusher.join()
    assert result.outcome.ended
    assert statuses[-1] == 403
    assert dev.send("LIST", f"{mount}metadata/") == (404, {"errors": []})
    assert dev.send("GET", "auth/token/lookup-self", token=token)[0] == 403


def test_a_mount_goes_whole_and_a_half_erased_one_is_repaired(raft_vault: RaftVault) -> None:
    bench = VaultBench(raft_vault.address, raft_vault.root_token)
    mount = bench.mount(2, [f"s{number}" for number in range(300)])
    token = bench.token(policy(mount))
    with pytest.raises(requests.exceptions.ReadTimeout):
        bench.send("DELETE", f"sys/mounts/{mount.rstrip('/')}", token=token, timeout_s=0.06)
    raft_vault.stop()  # for good: also a restart does not go on with it
    raft_vault.start()
    drill = carried_out(bench.client(token), mounts=(mount,), intent=Intent.REHEARSE)
    assert "may disable" in only(drill, f"{mount} (mount").saw
    as_path = carried_out(bench.client(token), paths=(mount,))
    assert as_path.outcome is Outcome.SKIPPED
    assert only(as_path, f"{mount} in").live
    assert "half erased" in only(as_path, f"{mount} in").saw
    result = carried_out(bench.client(token), mounts=(mount,))
    assert result.outcome is Outcome.VERIFIED
    assert "erase the half-erased mount" in {
        attempt.verb for attempt in only(result, f"{mount} (mount").attempts
    }
    assert mount not in bench.good("GET", "sys/mounts")


def test_a_vault_that_is_killed_while_it_erases_is_unknown_and_repaired_later(
    raft_vault: RaftVault,
) -> None:
    bench = VaultBench(raft_vault.address, raft_vault.root_token)
    mount = bench.mount(2, [f"s{number}" for number in range(300)])
    token = bench.token(policy(mount))
    client = bench.client(token)

    def kill() -> None:
        while not bench.unfinished.under_way():
            time.sleep(0.01)
        time.sleep(0.1)
        raft_vault.stop()

    killer = threading.Thread(target=kill)
    killer.start()
    result = carried_out(client, mounts=(mount,), limits=replace(LIMITS, patience_s=1))
    killer.join()
    assert result.outcome is Outcome.UNKNOWN
    assert "no connection to vault" in only(result, mount.rstrip("/")).saw
    raft_vault.start()
    assert carried_out(bench.client(token), mounts=(mount,)).outcome is Outcome.VERIFIED
    assert mount not in bench.good("GET", "sys/mounts")
