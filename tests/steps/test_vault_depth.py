"""Vault through the real client and the real engine, against the sandbox: mounts, roles, tokens."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from werkzeug.wrappers import Request, Response

from killswitch.clients.vault import VaultClient
from killswitch.converge import Limits
from killswitch.errors import VendorError
from killswitch.halt import Assignment, carry_out
from killswitch.journal.history import History
from killswitch.journal.store import NewEvent
from killswitch.model import Mode, Outcome, StepResult, TargetResult
from killswitch.runner import Runner
from killswitch.sandbox.vault import VaultServer
from killswitch.sandbox.vault_store import Mount
from killswitch.secret import Secret
from killswitch.steps.vault import WipeSecrets, mounts_named
from killswitch.steps.vault_port import ERASING, Erased, Gone
from killswitch.steps.vault_wipe import REPLACED
from killswitch.unfinished import Unfinished, outlast
from killswitch.verdict import Intent
from tests.engine.simulator import make_order
from tests.journal.test_history import AT, history

TOKEN = "hvs.made-up-token-of-a-test"
LIMITS = Limits(
    deadline_s=20, wrap_up_s=1, look_s=3, act_s=3, phase_s=1, patience_s=2, stay_down_s=0.3
)
ESO, BOT = "auth/kubernetes/role/eso", "auth/approle/role/bot"
LOGIN = "auth/approle/login"


def carried_out(
    step: WipeSecrets,
    intent: Intent = Intent.PERFORM,
    *,
    known: frozenset[str] = frozenset(),
    limits: Limits = LIMITS,
) -> StepResult:
    mode = Mode.LIVE if intent is Intent.PERFORM else Mode.DRILL
    assignment = Assignment(
        order=make_order(mode),
        proof=None,
        intent=intent,
        steps=(step,),
        started_at=datetime.now(UTC),
        known={(step.name, step.system): known},
    )
    return Runner().run(lambda now: carry_out(assignment, limits, now)).results[0]


class Desk:
    """A sandbox Vault, and steps that are made against it."""

    def __init__(self, server: VaultServer) -> None:
        self.server = server
        self.unfinished = Unfinished()

    def client(
        self, *, may_write: bool = True, token: str = TOKEN, erase_s: float = 30, **past: Any
    ) -> VaultClient:
        client = VaultClient(
            address=self.server.url,
            timeout_s=(0.5, 0.5),
            back_off_s=1.5,
            steady_s=0.4,
            erase_s=erase_s,
            unfinished=self.unfinished,
        )
        client.login(token=Secret(token), may_write=may_write, **past)
        return client

    def step(self, client: VaultClient | None = None, /, **what: Any) -> WipeSecrets:
        return WipeSecrets(client or self.client(), "main", **what)

    def target(self) -> str:
        return f"trading/ (mount {self.server.mounts['trading/'].accessor})"

    def asked(self, method: str, path: str) -> int:
        return sum((seen.method, seen.path) == (method, path) for seen in self.server.seen)


Open = Callable[..., Desk]


@pytest.fixture
def desk() -> Iterator[Open]:
    started: list[VaultServer] = []

    def start(*traps: str, kind: type[VaultServer] = VaultServer, **more: object) -> Desk:
        server = kind(token=TOKEN, traps=traps, **more)  # type: ignore[arg-type]  # per test
        server.start()
        started.append(server)
        return Desk(server)

    yield start
    for server in started:
        server.stop()


def move(server: VaultServer, source: str, to: str) -> None:
    """Do what sys/remount does: the mount stays itself."""
    mount = server.mounts[to] = server.mounts.pop(source)
    mount.path = to


def past(result: StepResult) -> History:
    """Return what the journal remembers of a halt that ended so."""
    data = {"order": {"id": "h1"}, "results": [msgspec.to_builtins(result)]}
    return history(NewEvent("h1.completed", "halt.completed", AT, data))


def of(result: StepResult, target: str) -> TargetResult:
    return next(each for each in result.targets if each.target == target)


# A mount that goes whole.


def test_a_mount_is_erased_with_everything_in_it(desk: Open) -> None:
    vault = desk()
    target = vault.target()
    result = carried_out(vault.step(mounts=("trading/",)))
    assert result.outcome is Outcome.VERIFIED
    erased = of(result, target)
    assert erased.saw == "erased: DELETE answered 204, no route is left"
    assert erased.attempts[0].summary == "DELETE answered 204: trading/ erased, at least 8 secrets"
    assert vault.server.live() == []
    assert "trading/" not in vault.server.mounts
    assert vault.asked("DELETE", "/v1/sys/mounts/trading") == 1


def test_an_empty_mount_is_erased_too_and_said_to_have_been_empty(desk: Open) -> None:
    vault = desk(secrets={})
    result = carried_out(vault.step(mounts=("trading/",)))
    assert result.outcome is Outcome.VERIFIED
    assert "trading/" not in vault.server.mounts
    texts = [note.text for note in result.notes]
    assert "trading/ held no secret when it was looked at" in texts


def test_a_mount_that_is_a_typing_error_stays_unknown(desk: Open) -> None:
    vault = desk()
    result = carried_out(vault.step(mounts=("trading-typo/",)))
    assert result.outcome is Outcome.UNKNOWN
    assert "no such mount, or no right under it" in of(result, "trading-typo").saw
    assert vault.asked("DELETE", "/v1/sys/mounts/trading-typo") == 0
    assert len(vault.server.live()) == 8


def test_a_mount_that_only_its_right_is_for_and_that_is_not_there_stays_unknown(desk: Open) -> None:
    vault = desk()
    del vault.server.mounts["trading/"]  # erased, or renamed: it looks the same
    result = carried_out(vault.step(mounts=("trading/",)), known=frozenset({"trading/ in kv_1"}))
    assert result.outcome is Outcome.UNKNOWN
    assert "no mount is at trading/: erased, renamed, or a typing error" in result.targets[0].saw
    assert vault.server.writes == []


def test_a_folder_is_not_taken_for_a_mount(desk: Open) -> None:
    vault = desk()
    result = carried_out(vault.step(mounts=("trading/bybit/",)))
    assert result.outcome is Outcome.UNKNOWN
    assert (
        of(result, "trading/bybit").saw == "trading/bybit/ is no mount: it is a folder of trading/"
    )
    assert vault.server.writes == []


def test_a_half_erased_mount_is_live_and_erased_to_the_end(desk: Open) -> None:
    vault = desk("half-erased")
    step = vault.step(mounts=("trading/",))
    [action] = step.plan().live
    assert action.verb == "erase the half-erased mount"
    assert carried_out(step).outcome is Outcome.VERIFIED
    assert vault.server.live() == []


def test_an_erasing_that_is_cut_off_is_begun_again(desk: Open) -> None:
    vault = desk("cut-erase")
    target = vault.target()
    result = carried_out(vault.step(mounts=("trading/",)))
    assert result.outcome is Outcome.VERIFIED
    verbs = [(attempt.verb, bool(attempt.error)) for attempt in of(result, target).attempts]
    assert verbs == [("erase", True), ("erase the half-erased mount", False)]
    assert vault.server.live() == []


def test_an_erasing_that_vault_itself_ends_is_asked_for_until_it_is_done(desk: Open) -> None:
    vault = desk("erase-limit")
    target = vault.target()
    result = carried_out(vault.step(mounts=("trading/",)))
    assert result.outcome is Outcome.VERIFIED
    assert [attempt.error for attempt in of(result, target).attempts] == [""]
    assert vault.asked("DELETE", "/v1/sys/mounts/trading") == 4
    assert vault.server.live() == []


def test_an_erasing_that_vault_itself_ends_after_the_report_is_asked_for_all_the_same(
    desk: Open,
) -> None:
    vault = desk("erase-limit", erase_s=0.3)
    brief = replace(LIMITS, act_s=0.3, patience_s=0.4)
    result = carried_out(vault.step(mounts=("trading/",)), limits=brief)
    assert result.outcome is Outcome.UNKNOWN
    [call] = vault.unfinished.under_way()
    outlast((call,), 20, lambda: False)
    assert (call.done.is_set(), call.error) == (True, None)
    assert vault.server.live() == []
    assert "trading/" not in vault.server.mounts


def begun_to_erase(client: VaultClient) -> VendorError:
    """Return what the erasing of a mount that was looked at ends with."""
    found = client.look_at("trading/")
    with pytest.raises(VendorError) as caught:
        client.erase("trading/", found.accessor)
    return caught.value


def test_an_erasing_that_vault_ends_is_asked_for_no_longer_than_it_is_waited_for(
    desk: Open,
) -> None:
    vault = desk("erase-limit")
    error = begun_to_erase(vault.client(erase_s=0.3))
    assert error.problem == "vault answered 400: context canceled"
    assert vault.asked("DELETE", "/v1/sys/mounts/trading") == 2
    assert len(vault.server.live()) == 4


def test_an_erasing_that_vault_ends_is_not_asked_for_when_another_mount_is_there(
    desk: Open,
) -> None:
    class Replaces(VaultServer):
        def respond(self, request: Request) -> Response:
            answer = super().respond(request)
            if request.method == "DELETE":
                self.mounts["trading/"] = Mount("trading/", 2, unmounted=True)
            return answer

    vault = desk("erase-limit", kind=Replaces)
    error = begun_to_erase(vault.client())
    text = "trading/ was not told to go again: another mount is there, or none"
    assert error.problem == text
    assert vault.asked("DELETE", "/v1/sys/mounts/trading") == 1


def test_an_erasing_that_vault_ends_is_asked_for_again_when_a_look_between_is_cut_off(
    desk: Open,
) -> None:
    class Cuts(VaultServer):
        told = False

        def respond(self, request: Request) -> Response:
            self.told = self.told or request.method == "DELETE"
            if self.told and request.method == "LIST":
                self.cut(request)
            return super().respond(request)

    vault = desk("erase-limit", kind=Cuts)
    client = vault.client()
    client.erase("trading/", client.look_at("trading/").accessor)
    assert "trading/" not in vault.server.mounts


@pytest.mark.parametrize("status", [400, 405, 500])
def test_an_erasing_that_vault_does_not_begin_is_told_in_its_own_words(
    desk: Open, status: int
) -> None:
    class Refuses(VaultServer):
        def respond(self, request: Request) -> Response:
            if request.method == "DELETE":
                return Response('{"errors": ["not this one"]}', status)
            return super().respond(request)

    error = begun_to_erase(desk(kind=Refuses).client())
    assert error.problem == f"vault answered {status}: not this one"


def test_a_caller_who_hangs_up_leaves_the_mount_half_erased(desk: Open) -> None:
    vault = desk(erase_s=0.1)
    client = vault.client()
    line = client._patient_client(0.25)
    with pytest.raises(Exception, match="Read timed out"):
        line.adapter.delete("/v1/sys/mounts/trading")
    time.sleep(0.4)
    left = vault.server.live()
    time.sleep(0.4)
    assert vault.server.live() == left
    assert 0 < len(left) < 8
    assert "trading/" in vault.server.mounts
    assert carried_out(vault.step(mounts=("trading/",))).outcome is Outcome.VERIFIED


def test_an_erasing_that_outlasts_the_deadline_is_unknown_and_never_asked_for_twice(
    desk: Open,
) -> None:
    vault = desk(erase_s=0.8)
    target = vault.target()
    brief = replace(LIMITS, act_s=0.5, patience_s=0.6)
    result = carried_out(vault.step(mounts=("trading/",)), limits=brief)
    assert result.outcome is Outcome.UNKNOWN
    assert of(result, target).saw == ERASING
    [call] = vault.unfinished.under_way()
    assert call.told == "Vault is still erasing trading/"
    outlast((call,), 10, lambda: False)
    assert call.error is None
    assert vault.asked("DELETE", "/v1/sys/mounts/trading") == 1
    assert vault.server.live() == []
    # Another process, later: what was told to end, and is gone, is told to end once more.
    tried = mounts_named([target])
    again = vault.step(vault.client(begun=tried), mounts=("trading/",))
    assert isinstance(vault.client(begun=tried).look_at("trading/"), Gone)
    assert carried_out(again).outcome is Outcome.VERIFIED
    assert vault.asked("DELETE", "/v1/sys/mounts/trading") == 2


def test_a_mount_whose_erasing_was_refused_and_that_was_renamed_is_never_called_erased(
    desk: Open,
) -> None:
    vault = desk()
    granted = vault.server.tokens.policies["killswitch"]
    right = 'path "sys/mounts/trading" { capabilities = ["delete"] }'
    assert right in granted
    vault.server.tokens.policies["killswitch"] = granted.replace(right, "")
    first = carried_out(vault.step(mounts=("trading/",)))
    assert of(first, vault.target()).attempts
    move(vault.server, "trading/", "elsewhere/")
    vault.server.tokens.policies["killswitch"] = granted
    again = vault.client(begun=mounts_named(past(first).tried()["vault", "main"]))
    known = past(first).seen()["vault", "main"]
    result = carried_out(vault.step(again, mounts=("trading/",)), known=known)
    assert not result.outcome.ended
    assert "no mount is at trading/" in result.targets[0].saw
    assert len(vault.server.mounts["elsewhere/"].names) == 8


class Moving(VaultServer):
    """A Vault in which, at the first request that `moves` tells, the mount is moved away."""

    remade = True
    done = False

    def moves(self, request: Request) -> bool:
        raise NotImplementedError

    def respond(self, request: Request) -> Response:
        if self.done or not self.moves(request):
            return super().respond(request)
        self.done = True
        move(self, "trading/", "elsewhere/")
        if self.remade:
            self.mounts["trading/"] = Mount("trading/", 2)
            self.put("trading/new", {"key": "made-up"})
        return Response('{"errors": ["too many requests"]}', 429)


@pytest.mark.parametrize("remade", [True, False])
def test_a_mount_that_is_moved_while_the_rate_limit_is_waited_out_is_not_called_erased(
    desk: Open,
    remade: bool,  # noqa: FBT001 (a table)
) -> None:
    class Moves(Moving):
        def moves(self, request: Request) -> bool:
            self.remade = remade
            return request.method == "DELETE" and request.path == "/v1/sys/mounts/trading"

    vault = desk(kind=Moves)
    target = vault.target()
    result = carried_out(vault.step(mounts=("trading/",)))
    assert not of(result, target).outcome.ended
    assert "was not told to go" in of(result, target).attempts[0].error
    assert len(vault.server.mounts["elsewhere/"].names) == 8
    if remade:
        assert of(result, target).saw == REPLACED
        assert "trading/" not in vault.server.mounts  # the other one was seen, and erased


def test_a_path_in_a_mount_that_is_moved_is_not_called_wiped(desk: Open) -> None:
    class Moves(Moving):
        def moves(self, request: Request) -> bool:
            return request.method == "DELETE" and request.path.startswith("/v1/trading/metadata/")

    vault = desk(kind=Moves)
    target = f"trading/ in {vault.server.mounts['trading/'].accessor}"
    result = carried_out(vault.step(paths=("trading/",)))
    assert not of(result, target).outcome.ended
    assert vault.server.mounts["elsewhere/"].names
    new = of(result, f"trading/ in {vault.server.mounts['trading/'].accessor}")
    assert new.outcome is Outcome.VERIFIED


def test_what_an_earlier_halt_erased_says_nothing_of_a_mount_that_was_moved_since(
    desk: Open,
) -> None:
    class Moves(Moving):
        remade = False

        def moves(self, request: Request) -> bool:
            return request.method == "DELETE" and request.path == "/v1/sys/mounts/trading"

    vault = desk(kind=Moves)
    earlier = {"trading/": "kv_of_an_earlier_halt"}
    for client in (vault.client(ended=earlier), vault.client(begun=earlier)):
        vault.server.done = False  # type: ignore[attr-defined]  # of this test's own server
        result = carried_out(vault.step(client, mounts=("trading/",)))
        assert not result.outcome.ended
        assert len(vault.server.mounts["elsewhere/"].names) == 8
        move(vault.server, "elsewhere/", "trading/")


def test_an_erasing_that_ends_within_the_deadline_is_waited_for(desk: Open) -> None:
    vault = desk(erase_s=0.2)
    brief = replace(LIMITS, act_s=0.5)
    result = carried_out(vault.step(mounts=("trading/",)), limits=brief)
    assert result.outcome is Outcome.VERIFIED
    assert vault.asked("DELETE", "/v1/sys/mounts/trading") == 1


def test_a_mount_that_an_earlier_halt_read_back_as_erased_is_already(desk: Open) -> None:
    vault = desk()
    target = vault.target()
    ended = carried_out(vault.step(mounts=("trading/",)))
    known = frozenset(each.target for each in ended.targets)
    client = vault.client(ended=mounts_named(known))
    assert isinstance(client.look_at("trading/"), Erased)
    result = carried_out(vault.step(client, mounts=("trading/",)), known=known)
    assert (result.outcome, of(result, target).outcome) == (Outcome.ALREADY, Outcome.ALREADY)
    assert vault.asked("DELETE", "/v1/sys/mounts/trading") == 1


def test_a_mount_that_is_enabled_again_is_erased_again(desk: Open) -> None:
    vault = desk()
    client = vault.client()
    carried_out(vault.step(client, mounts=("trading/",)))
    vault.server.mounts["trading/"] = Mount("trading/", 2)
    vault.server.put("trading/again", {"key": "made-up"})
    result = carried_out(vault.step(client, mounts=("trading/",)))
    assert result.outcome is Outcome.VERIFIED
    assert vault.server.live() == []


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ('path "trading/metadata/*" { capabilities = ["list"] }', "may not disable trading/"),
        ('path "sys/mounts/trading" { capabilities = ["delete"] }', "no right under it"),
    ],
)
def test_a_mount_without_the_rights_is_never_called_erased(
    desk: Open, policy: str, words: str
) -> None:
    vault = desk()
    vault.server.tokens.policies["killswitch"] = policy
    result = carried_out(vault.step(mounts=("trading/",)))
    assert result.outcome in {Outcome.FAILED, Outcome.UNKNOWN}
    assert any(words in target.saw for target in result.targets)
    assert len(vault.server.live()) == 8


def test_a_mount_that_may_not_be_listed_is_erased_and_not_called_verified(desk: Open) -> None:
    vault = desk()
    vault.server.tokens.policies["killswitch"] = (
        'path "trading/data/*" { capabilities = ["delete"] }\n'
        'path "sys/mounts/trading" { capabilities = ["delete"] }'
    )
    result = carried_out(vault.step(mounts=("trading/",)))
    assert not result.outcome.ended
    assert vault.server.live() == []


def test_a_drill_on_a_mount_names_the_right_that_is_missing(desk: Open) -> None:
    vault = desk()
    step = vault.step(vault.client(may_write=False), mounts=("trading/",))
    assert carried_out(step, Intent.REHEARSE).outcome is Outcome.REHEARSED
    assert vault.server.writes == []
    vault.server.tokens.policies["killswitch"] = (
        'path "trading/metadata/*" { capabilities = ["list", "delete"] }'
    )
    result = carried_out(step, Intent.REHEARSE)
    assert result.outcome is Outcome.FAILED
    assert of(result, vault.target()).saw == "the token may not delete sys/mounts/trading"


# Roles, and what they issued.


def test_roles_go_first_then_their_tokens_then_the_secrets(desk: Open) -> None:
    vault = desk()
    old = [vault.server.log_in(BOT) for _ in range(3)]
    step = vault.step(roles=(ESO, BOT), revoke_prefixes=(LOGIN,), mounts=("trading/",))
    phases = [(action.verb, action.phase, action.amount) for action in step.plan().live]
    assert phases == [
        ("delete role", 1, 1),
        ("delete role", 1, 1),
        ("revoke tokens", 2, 3),
        ("erase", 3, 8),
    ]
    result = carried_out(step)
    assert result.outcome is Outcome.VERIFIED
    assert vault.server.auth.roles == {}
    assert not any(vault.server.tokens.by_id[token].alive(time.time()) for token in old)
    order = [seen.path.split("/v1/")[1].split("/")[0] for seen in vault.server.writes]
    assert order == ["auth", "auth", "sys", "sys"]


def test_a_role_that_was_never_seen_is_unknown_and_one_that_was_is_already(desk: Open) -> None:
    vault = desk()
    typo = "auth/approle/role/bott"
    vault.server.tokens.policies["killswitch"] += (
        f'\npath "{typo}" {{ capabilities = ["read", "delete"] }}'
    )
    assert carried_out(vault.step(roles=(typo,))).outcome is Outcome.UNKNOWN
    result = carried_out(vault.step(roles=(typo,)), known=frozenset({typo}))
    assert result.outcome is Outcome.ALREADY
    assert vault.server.writes == []


def test_a_role_of_no_auth_method_is_unknown_also_where_it_was_seen(desk: Open) -> None:
    vault = desk()
    del vault.server.sys.auths["approle/"]  # disabled, or moved with all its roles
    result = carried_out(vault.step(roles=(BOT,)), known=frozenset({BOT}))
    assert result.outcome is Outcome.UNKNOWN
    assert "no auth method is there" in of(result, BOT).saw


def test_a_role_that_may_not_be_read_is_deleted_and_only_sent(desk: Open) -> None:
    vault = desk()
    vault.server.tokens.policies["killswitch"] = f'path "{BOT}" {{ capabilities = ["delete"] }}'
    result = carried_out(vault.step(roles=(BOT,)))
    assert result.outcome is Outcome.SENT
    assert of(result, BOT).saw.startswith("deleted, not read back: may not read auth/approle")
    assert BOT not in vault.server.auth.roles
    assert vault.asked("DELETE", f"/v1/{BOT}") == 1


def test_tokens_that_may_not_be_listed_are_revoked_and_only_sent(desk: Open) -> None:
    vault = desk()
    old = vault.server.log_in(BOT)
    vault.server.tokens.policies["killswitch"] = (
        f'path "sys/leases/revoke-prefix/{LOGIN}" {{ capabilities = ["update", "sudo"] }}'
    )
    result = carried_out(vault.step(revoke_prefixes=(LOGIN,)))
    assert result.outcome is Outcome.SENT
    assert "try one of the old tokens" in of(result, f"tokens of {LOGIN}").saw
    assert not vault.server.tokens.by_id[old].alive(time.time())


def test_no_token_under_the_login_of_a_method_that_is_there_is_ended(desk: Open) -> None:
    vault = desk()
    result = carried_out(vault.step(revoke_prefixes=(LOGIN,)))
    assert result.outcome is Outcome.ALREADY
    assert vault.server.writes == []


@pytest.mark.parametrize(
    "prefix",
    [
        "auth/approl/login",
        "auth/approle/logn",
        "auth/approle/login/bto",
        "auth/approle/create",
        "auth/token/create/rlo",
        "auth/token/login",
    ],
)
def test_a_prefix_that_is_a_typing_error_is_unknown(desk: Open, prefix: str) -> None:
    vault = desk()
    vault.server.tokens.policies["killswitch"] += (
        f'\npath "sys/leases/lookup/{prefix}/" {{ capabilities = ["list", "sudo"] }}'
    )
    result = carried_out(vault.step(revoke_prefixes=(prefix,)))
    assert result.outcome is Outcome.UNKNOWN
    assert vault.server.writes == []


def test_a_prefix_that_would_end_the_own_token_is_refused(desk: Open) -> None:
    vault = desk()
    prefix = "auth/token/create"
    vault.server.tokens.policies["killswitch"] += (
        f'\npath "sys/leases/lookup/{prefix}/" {{ capabilities = ["list", "sudo"] }}'
        f'\npath "sys/leases/revoke-prefix/{prefix}" {{ capabilities = ["update", "sudo"] }}'
    )
    result = carried_out(vault.step(revoke_prefixes=(prefix,), paths=("trading/",)))
    told = of(result, f"tokens of {prefix}")
    assert told.outcome is Outcome.FAILED
    assert "killswitch's own token was made under auth/token/create" in told.saw
    assert vault.server.live() == []


def test_batch_tokens_are_named_because_nothing_can_revoke_them(desk: Open) -> None:
    vault = desk(roles={BOT: {"token_type": "batch"}})
    vault.server.log_in(BOT)
    result = carried_out(vault.step(roles=(BOT,), revoke_prefixes=(LOGIN,)))
    assert result.outcome is Outcome.VERIFIED
    assert any("batch tokens: they cannot be revoked" in note.text for note in result.notes)


# The own token.


def test_the_own_token_lives_on_unless_told_otherwise_and_the_report_says_so(desk: Open) -> None:
    vault = desk()
    result = carried_out(vault.step(paths=("trading/",)))
    assert [note.text for note in result.notes] == [
        "the token that killswitch used for vault main is still valid"
    ]
    assert vault.server.tokens.by_id[TOKEN].alive(time.time())


def test_the_own_token_ends_last_after_two_clean_looks(desk: Open) -> None:
    vault = desk()
    step = vault.step(paths=("trading/",), roles=(BOT,), revoke_own_token=True)
    withheld = {action.verb: action.withheld for action in step.plan().live}
    assert withheld["revoke own token"] == "kept so that a second run can see and end what is left"
    result = carried_out(step)
    assert {target.outcome for target in result.targets} <= {Outcome.VERIFIED, Outcome.ALREADY}
    assert result.outcome.ended
    assert not vault.server.tokens.by_id[TOKEN].alive(time.time())
    assert vault.server.writes[-1].path == "/v1/auth/token/revoke-self"
    own = next(target for target in result.targets if target.target.startswith("own token"))
    assert own.saw.startswith("dead: vault answered 403")
    assert of(result, f"trading/ in {vault.server.mounts['trading/'].accessor}").saw == (
        "empty: LIST answers 404"
    )


def test_the_own_token_stays_while_anything_is_left(desk: Open) -> None:
    vault = desk("forbidden-delete")
    result = carried_out(vault.step(paths=("trading/",), revoke_own_token=True))
    assert result.outcome is Outcome.FAILED
    assert vault.server.tokens.by_id[TOKEN].alive(time.time())


@pytest.mark.parametrize("known", [True, False])
def test_the_own_token_stays_where_a_path_may_be_a_typing_error(
    desk: Open,
    known: bool,  # noqa: FBT001 (a table)
) -> None:
    vault = desk()
    vault.server.tokens.policies["killswitch"] += (
        '\npath "secret/metadata/*" { capabilities = ["list", "delete"] }'
    )
    typo = f"secret/bots/typo/ in {vault.server.mounts['secret/'].accessor}"
    seen = frozenset({typo}) if known else frozenset[str]()
    paths = ("trading/", "secret/bots/typo/")
    step = vault.step(vault.client(seen=seen), paths=paths, revoke_own_token=True)
    result = carried_out(step, known=seen)
    assert result.outcome.ended is known
    assert vault.server.tokens.by_id[TOKEN].alive(time.time()) is not known
    if not known:
        told = f"kept: nothing was seen at {typo}, which may be a typing error"
        assert of(result, "own token").saw == told


def test_a_second_run_with_a_dead_token_is_unknown_and_says_the_way_out(desk: Open) -> None:
    vault = desk()
    what = {"paths": ("trading/",), "roles": (BOT,), "revoke_own_token": True}
    first = carried_out(vault.step(**what))
    known = frozenset(target.target for target in first.targets)
    result = carried_out(vault.step(**what), known=known)
    assert result.outcome is Outcome.UNKNOWN
    assert all("a new one is needed to look" in of(result, it).saw for it in ("trading", BOT))


def answered(status: int) -> Response:
    """Return what a standby that redirects, a proxy or a firewall answers in Vault's place."""
    headers = {"Location": "https://vault-1.internal:8200/v1/"} if status == 307 else {}
    return Response("<html>no</html>", status, headers, content_type="text/html")


@pytest.mark.parametrize("status", [307, 401, 403])
@pytest.mark.parametrize("lost", [False, True])
def test_a_no_that_is_not_vaults_own_is_not_the_end_of_the_own_token(
    desk: Open,
    status: int,
    lost: bool,  # noqa: FBT001 (a table)
) -> None:
    class FailedOver(VaultServer):
        begun = False

        def respond(self, request: Request) -> Response:
            if request.path.endswith("/revoke-self") and not self.begun:
                self.begun = True
                if lost:
                    time.sleep(0.8)
            return answered(status) if self.begun else super().respond(request)

    vault = desk(kind=FailedOver)
    result = carried_out(vault.step(paths=("trading/",), revoke_own_token=True))
    assert any(seen.path.endswith("/revoke-self") for seen in vault.server.seen)
    assert vault.server.tokens.by_id[TOKEN].alive(time.time())
    own = next(target for target in result.targets if target.target.startswith("own token"))
    assert not own.outcome.ended
    assert not result.outcome.ended


def test_a_reply_to_revoke_self_that_is_lost_still_ends_the_own_token(desk: Open) -> None:
    class Slow(VaultServer):
        def respond(self, request: Request) -> Response:
            answer = super().respond(request)
            if request.path.endswith("/revoke-self"):
                time.sleep(0.8)
            return answer

    vault = desk(kind=Slow)
    result = carried_out(vault.step(paths=("trading/",), revoke_own_token=True))
    assert not vault.server.tokens.by_id[TOKEN].alive(time.time())
    assert result.outcome.ended


def test_a_batch_token_cannot_be_ended_and_a_drill_says_so(desk: Open) -> None:
    vault = desk()
    vault.server.tokens.by_id[TOKEN].batch = True
    step = vault.step(vault.client(may_write=False), paths=("trading/",), revoke_own_token=True)
    result = carried_out(step, Intent.REHEARSE)
    assert result.outcome is Outcome.FAILED
    assert any(
        "it is" not in target.saw and "batch token" in target.saw for target in result.targets
    )


def test_a_drill_rehearses_every_part_and_writes_nothing(desk: Open) -> None:
    vault = desk()
    vault.server.log_in(BOT)
    step = vault.step(
        vault.client(may_write=False),
        mounts=("trading/",),
        roles=(ESO, BOT),
        revoke_prefixes=(LOGIN,),
        revoke_own_token=True,
    )
    result = carried_out(step, Intent.REHEARSE)
    outcomes = {target.target: target.outcome for target in result.targets}
    assert outcomes.pop("trading") is Outcome.ALREADY
    assert set(outcomes.values()) == {Outcome.REHEARSED}
    assert vault.server.writes == []


# A path, and what gets in the way.


def test_a_secret_of_the_very_name_of_the_folder_is_told(desk: Open) -> None:
    names = ["trading/bots/freqtrade", "trading/bots/freqtrade/key"]
    vault = desk(secrets={name: {"k": "v"} for name in names})
    result = carried_out(vault.step(paths=("trading/bots/freqtrade/",)))
    assert vault.server.live() == ["trading/bots/freqtrade"]
    [told] = [note.text for note in result.notes if note.kind == "not wiped"]
    assert told == (
        "the secret trading/bots/freqtrade is beside the folder trading/bots/freqtrade/, "
        "not in it, and is not wiped"
    )


def test_a_rate_limit_is_waited_out_and_the_wipe_goes_on(desk: Open) -> None:
    secrets = {f"trading/{number}": {"k": "v"} for number in range(60)}
    vault = desk(secrets=secrets)
    root = VaultClient(address=vault.server.url)
    root.login(token=Secret(vault.server.root_token), may_write=True)
    root._write(
        lambda client: client.adapter.post(
            "/v1/sys/quotas/rate-limit/q", json={"rate": 20, "path": "trading/"}
        )
    )
    result = carried_out(vault.step(paths=("trading/",)), limits=replace(LIMITS, patience_s=5))
    assert result.outcome is Outcome.VERIFIED
    assert any(seen.status == 429 for seen in vault.server.seen)


def test_a_standby_that_passes_requests_on_is_no_obstacle(desk: Open) -> None:
    vault = desk("standby")
    client = vault.client()
    assert client.warm() == "unsealed, a standby node, 1.21.0"
    assert carried_out(vault.step(client, paths=("trading/",))).outcome is Outcome.VERIFIED


def test_a_writer_that_puts_a_key_back_all_the_time_is_never_called_halted(desk: Open) -> None:
    vault = desk()
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.02):
            vault.server.put("trading/back", {"key": "made-up"})

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    result = carried_out(vault.step(paths=("trading/",)))
    stop.set()
    writer.join()
    assert not result.outcome.ended


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", [".", "..", "", "bybit/.", "bybit//deeper", "./deeper"])
def test_an_oddly_named_key_does_not_save_the_others_and_is_never_called_wiped(
    desk: Open, name: str, version: int
) -> None:
    vault = desk(mounts={"trading/": version})
    vault.server.put(f"trading/{name}", {"key": "made-up"})
    result = carried_out(vault.step(paths=("trading/",)))
    assert vault.server.live() == [f"trading/{name}"]
    assert not result.outcome.ended
    left = of(result, f"trading/ in {vault.server.mounts['trading/'].accessor}")
    assert "which no client can address" in left.saw
    again = carried_out(vault.step(paths=("trading/",)))
    assert not again.outcome.ended


@pytest.mark.parametrize(
    "what",
    [
        {"paths": ("trading/x/",), "mounts": ("trading/",)},
        {"mounts": ("trading",)},
        {"roles": ("kubernetes/role/eso",)},
        {"roles": ("auth/kubernetes",)},
        {"roles": ("auth/kubernetes/role/",)},
        {"revoke_prefixes": ("kubernetes/login",)},
        {"revoke_prefixes": ("auth/../sys",)},
        {},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(
    desk: Open, what: dict[str, tuple[str, ...]]
) -> None:
    vault = desk()
    with pytest.raises(ValueError):
        vault.step(**what)
