import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import pytest

from killswitch.clients.vault import VaultClient
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.ledger import Ledger
from killswitch.model import Blind, Clear, Outcome, Plan, Step
from killswitch.sandbox.vault import PUT_BACK_S, VaultServer
from killswitch.sandbox.vault_store import Mount
from killswitch.secret import Secret
from killswitch.steps.vault import WipeSecrets
from killswitch.steps.vault_access import kept_token
from killswitch.steps.vault_port import HalfErased, OwnToken, Role, Standing, Tree
from killswitch.steps.vault_wipe import REPLACED
from killswitch.verdict import Intent

TOKEN = "hvs.made-up-token-of-a-test"
S = TypeVar("S")
KV_2 = Clear("trading", "kv v2")


class Store:
    """A Vault in memory: paths to secrets, or to the error that a walk meets."""

    asked: frozenset[str] = frozenset()
    last_seen: tuple[Clear, ...] | None = None
    namespace_doubt = ""

    def __init__(self, **paths: Tree | HalfErased | VendorError) -> None:
        self.paths = {f"{name}/": found for name, found in paths.items()}
        self.missing: tuple[str, ...] = ()

    def each(self, look: Callable[[S], Plan], items: Sequence[S]) -> list[Plan]:
        return [look(item) for item in items]

    def seen(self, live: Iterable[str]) -> frozenset[str]:
        return frozenset(live)

    def steady(self, *, clean: bool) -> bool:
        return clean

    def walk(self, path: str) -> Tree | HalfErased:
        found = self.paths[path]
        if isinstance(found, VendorError):
            raise found
        return found

    def replaced(self, _path: str) -> tuple[str, ...]:
        return ()

    def delete(self, tree: Tree) -> int:
        self.paths[tree.mount] = Tree(tree.mount, tree.accessor, tree.version, tree.folder, ())
        return len(tree.names)

    def missing_rights(self, tree: Tree) -> tuple[str, ...]:
        return self.missing if tree.names else ()

    def own_token(self) -> OwnToken:
        return OwnToken("accessor-123456", "auth/token/create", 600, batch=False)

    def look_at(self, mount: str) -> Standing:
        return self.walk(mount)

    def erase(self, mount: str, accessor: str) -> None:
        raise NotImplementedError

    def lacks(self, *_needed: tuple[str, str]) -> tuple[str, ...]:
        return ()

    def role(self, path: str) -> Role | None:
        raise NotImplementedError

    def delete_role(self, path: str) -> None:
        raise NotImplementedError

    def leases(self, prefix: str) -> int | None:
        raise NotImplementedError

    def revoke_prefix(self, prefix: str) -> None:
        raise NotImplementedError

    def revoke_own_token(self, seen: tuple[Clear, ...]) -> None:
        raise NotImplementedError


def tree(
    mount: str, *names: str, unseen: tuple[VendorError, ...] = (), accessor: str = "kv_1"
) -> Tree:
    return Tree(mount, accessor, 2, "", names, unseen)


def wiped(accessor: str = "kv_1", version: int = 2) -> Plan:
    empty = "empty: LIST answers 404"
    seen = Clear("trading", f"kv v{version}")
    gone = Clear(f"trading/ in {accessor}", empty, only_if_known=True)
    return Plan(clear=(seen, gone), notes=kept_token("main").notes)


def wipe(store: Store) -> WipeSecrets:
    return WipeSecrets(vault=store, system="main", paths=tuple(store.paths))


def test_each_path_is_one_action_that_counts_its_secrets() -> None:
    bots = tree("bots/", "x", accessor="kv_2")
    step = wipe(Store(trading=tree("trading/", "a", "a/b"), bots=bots))
    plan = step.plan()
    found = [(action.verb, action.target, action.phase, action.amount) for action in plan.live]
    assert found == [("delete", "trading/ in kv_1", 3, 2), ("delete", "bots/ in kv_2", 3, 1)]
    assert (plan.blind, plan.notes) == ((), kept_token("main").notes)
    assert plan.clear == (KV_2, Clear("bots", "kv v2"))
    assert not any(action.reversible for action in plan.live)


def test_it_is_a_step() -> None:
    step: Step = wipe(Store(trading=tree("trading/")))
    assert (step.name, step.system, step.evidence) == ("vault", "main", False)


def test_an_empty_path_counts_only_where_something_was_seen() -> None:
    assert wipe(Store(trading=tree("trading/"))).plan() == wiped()


def test_an_empty_mount_in_the_place_of_a_known_one_is_not_taken_as_wiped() -> None:
    store = Store(trading=tree("trading/", "a", accessor="kv_old"))
    step = wipe(store)
    known = frozenset(action.target for action in step.plan().live)
    assert known == {"trading/ in kv_old"}
    store.paths["trading/"] = tree("trading/", accessor="kv_new")
    plan = step.plan()
    assert plan == wiped("kv_new")
    assert not known & {clear.target for clear in plan.clear}

    def verdicts(known: frozenset[str]) -> dict[str, Outcome]:
        ledger = Ledger("vault", "main", evidence=False, known=known, origin=0.0)
        for _ in range(2):
            ledger.looked(plan, started=0.0, ended=0.0)
            ledger.rested()
        targets = ledger.result(Intent.PERFORM).targets
        return {target.target: target.outcome for target in targets}

    assert verdicts(known)["trading/ in kv_new"] is Outcome.UNKNOWN
    assert verdicts(frozenset({"trading/ in kv_new"})) == {
        "trading": Outcome.ALREADY,
        "trading/ in kv_new": Outcome.ALREADY,
    }


def test_a_path_that_cannot_be_seen_is_blind_and_hides_no_other() -> None:
    refused, cut = RefusedError("may not list"), UnreachableError("cut")
    plan = wipe(Store(a=refused, b=cut, c=GarbledError("?"), d=tree("d/", "x"))).plan()
    assert plan.blind == (
        Blind("a", "may not list", lasting=True),
        Blind("b", "cut"),
        Blind("c", "?"),
    )
    assert [action.target for action in plan.live] == ["d/ in kv_1"]
    assert plan.clear == (Clear("d", "kv v2"),)


def test_a_folder_that_cannot_be_seen_leaves_its_path_blind_and_the_rest_live() -> None:
    unseen = (RefusedError("may not list x/"), UnreachableError("cut"))
    plan = wipe(Store(trading=tree("trading/", "a", unseen=unseen))).plan()
    assert plan.blind == (Blind("trading/ in kv_1", "may not list x/ (and 1 more)"),)
    assert [action.amount for action in plan.live] == [1]
    only_unseen = wipe(Store(trading=tree("trading/", unseen=unseen[:1]))).plan()
    blind = Blind("trading/ in kv_1", "may not list x/", lasting=True)
    assert (only_unseen.live, only_unseen.blind, only_unseen.clear) == ((), (blind,), (KV_2,))


def test_performing_is_safe_to_repeat_and_the_receipt_counts() -> None:
    step = wipe(Store(trading=tree("trading/", "a", "b")))
    [action] = step.plan().live
    assert action.perform().summary == "2 secrets deleted"
    assert action.perform().summary == "0 secrets deleted"
    assert step.plan() == wiped()


def test_a_rehearsal_tells_the_time_the_token_has_left_and_deletes_nothing() -> None:
    step = wipe(Store(trading=tree("trading/", "a")))
    [action] = step.plan().live
    receipt = action.rehearse()
    assert receipt.summary == "may list and delete 1 secret"
    assert dict(receipt.evidence) == {"token_ttl_s": "600"}
    assert step.plan().live == (action,)


def test_a_rehearsal_names_the_right_that_is_missing() -> None:
    store = Store(trading=tree("trading/", "a"))
    store.missing = ("delete trading/metadata/a", "list trading/metadata/")
    [action] = wipe(store).plan().live
    with pytest.raises(RefusedError, match=r"may not delete trading/metadata/a \(and 1 more\)"):
        action.rehearse()


def test_a_rehearsal_fails_when_a_folder_may_not_be_listed() -> None:
    unseen = (RefusedError("may not list trading/x/"),)
    [action] = wipe(Store(trading=tree("trading/", "a", unseen=unseen))).plan().live
    with pytest.raises(RefusedError, match="may not list trading/x/"):
        action.rehearse()


@pytest.mark.parametrize("path", ["trading", "", "/", "/trading/", "a//b/", "a/../b/", "./", "../"])
def test_a_path_that_is_no_plain_folder_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="looks like"):
        WipeSecrets(vault=Store(), system="main", paths=(path,))


Run = Callable[..., tuple[VaultServer, WipeSecrets]]


@pytest.fixture
def run() -> Iterator[Run]:
    started: list[VaultServer] = []

    def start(*traps: str, version: int = 2) -> tuple[VaultServer, WipeSecrets]:
        secrets = {"trading/a": {"k": "v"}, "trading/a/b": {"k": "v"}} if version == 1 else None
        server = VaultServer(
            token=TOKEN, traps=traps, mounts={"trading/": version}, secrets=secrets
        )
        server.start()
        started.append(server)
        client = VaultClient(address=server.url, timeout_s=(0.5, 0.5))
        client.login(token=Secret(TOKEN), may_write=True)
        return server, WipeSecrets(vault=client, system="main", paths=("trading/",))

    yield start
    for server in started:
        server.stop()


def accessor_of(server: VaultServer) -> str:
    return server.mounts["trading/"].accessor


def converge(step: WipeSecrets, *, for_s: float = 3.0, pause_s: float = 0.05) -> Plan:
    """Plan and perform the lowest phase until all is clear, or the time is over."""
    end = time.monotonic() + for_s
    plan = step.plan()
    while (plan.live or plan.blind) and time.monotonic() < end:
        lowest = min((action.phase for action in plan.live), default=0)
        for action in plan.live:
            if action.phase == lowest:
                _perform(action.perform)
        time.sleep(pause_s)
        plan = step.plan()
    return plan


def _perform(perform: Callable[[], object]) -> None:
    try:
        perform()
    except VendorError:
        return  # the next look is what counts


@pytest.mark.parametrize("version", [1, 2])
def test_a_real_client_wipes_the_mount_until_nothing_lives(run: Run, version: int) -> None:
    server, step = run(version=version)
    assert server.live() != []
    assert converge(step) == wiped(accessor_of(server), version)
    assert server.live() == []


def test_a_mount_that_is_replaced_at_its_path_gets_another_target(run: Run) -> None:
    server, step = run()
    [before] = step.plan().live
    server.mounts["trading/"] = Mount("trading/", 2)
    plan = step.plan()
    assert plan.clear == wiped(accessor_of(server)).clear
    assert plan.blind == (Blind(before.target, REPLACED, lasting=True),)
    assert before.target not in {clear.target for clear in plan.clear}


@pytest.mark.parametrize("trap", ["rate-limited", "lost-reply"])
def test_a_trap_that_passes_is_overcome(run: Run, trap: str) -> None:
    server, step = run(trap)
    assert converge(step) == wiped(accessor_of(server))
    assert server.live() == []


def test_a_secret_that_is_put_back_is_wiped_again(run: Run) -> None:
    server, step = run("put-back")
    assert converge(step).live == ()
    time.sleep(PUT_BACK_S + 0.1)
    [action] = step.plan().live
    assert action.amount == 1
    assert converge(step) == wiped(accessor_of(server))
    assert server.live() == []


@pytest.mark.parametrize("trap", ["wipe-lies", "forbidden-delete"])
def test_what_is_not_deleted_stays_live(run: Run, trap: str) -> None:
    server, step = run(trap)
    plan = converge(step, for_s=0.3)
    assert [action.amount for action in plan.live] == [len(server.live())] == [8]
    assert plan.clear == (KV_2,)


@pytest.mark.parametrize("trap", ["forbidden-list", "token-revoked", "wrong-mount", "redirect"])
def test_what_will_be_refused_again_is_blind_for_good(run: Run, trap: str) -> None:
    server, step = run(trap)
    plan = step.plan()
    assert [(blind.target, blind.lasting) for blind in plan.blind] == [("trading", True)]
    assert (plan.live, plan.clear) == ((), ())
    assert len(server.live()) == 8


@pytest.mark.parametrize("trap", ["sealed", "hang", "drop", "garbage", "down"])
def test_what_may_pass_is_blind_for_now_and_never_clear(run: Run, trap: str) -> None:
    server, step = run(trap)
    plan = step.plan()
    assert [(blind.target, blind.lasting) for blind in plan.blind] == [("trading", False)]
    assert (plan.live, plan.clear) == ((), ())
    assert len(server.live()) == 8


def test_what_a_half_erased_mount_held_is_live_and_says_the_way_out(run: Run) -> None:
    server, step = run("half-erased")
    [action] = step.plan().live
    assert action.withheld.startswith("half erased: unreadable, but its data is still in storage")
    assert "list trading/ in mounts" in action.withheld
    with pytest.raises(UnreachableError, match="half erased"):
        action.perform()
    assert len(server.live()) == 8


def test_a_mount_of_the_other_version_is_looked_at_and_wiped_as_what_it_is(run: Run) -> None:
    server, step = run("wrong-version")
    [blind] = step.plan().blind  # the policy was written for version 2
    assert blind.lasting
    server.tokens.policies["killswitch"] = 'path "trading/*" { capabilities = ["list", "delete"] }'
    [action] = step.plan().live
    assert action.amount == 8
    action.perform()
    assert server.live() == []


def test_a_rehearsal_on_a_vault_writes_nothing(run: Run) -> None:
    server, step = run()
    [action] = step.plan().live
    assert action.rehearse().summary == "may list and delete 8 secrets"
    assert server.writes == []
    server.traps.add("forbidden-delete")
    with pytest.raises(RefusedError, match="may not delete trading/metadata/"):
        action.rehearse()
