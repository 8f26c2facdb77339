"""Every certificate ends revoked and every agent suspended, or the step says what is live."""

from collections.abc import Iterator

import pytest

from killswitch.clients.kakunin import KakuninClient
from killswitch.errors import VendorError
from killswitch.model import Action, Blind, Plan, Receipt, Step
from killswitch.sandbox.kakunin import API_KEY, BOT_1, BOT_2, KakuninServer, SandboxAgent
from killswitch.secret import Secret
from killswitch.steps.kakunin import KEYS_SURVIVE, NOT_LISTED, RevokeCertificates

NOBODY = "00000000-0000-4000-8000-000000000000"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[KakuninServer]:
    server = KakuninServer(clock=clock)
    server.start()
    yield server
    server.stop()


def step_of(
    server: KakuninServer, *, agents: tuple[str, ...] = (BOT_1, BOT_2), may_write: bool = True
) -> RevokeCertificates:
    client = KakuninClient(base_url=server.base_url, timeout_s=(0.5, 0.5))
    client.login(api_key=Secret(API_KEY), may_write=may_write)
    return RevokeCertificates(registry=client, system="tenant", agents=agents, reason="test")


def do(action: Action) -> Receipt | VendorError:
    try:
        return action.perform()
    except VendorError as error:
        return error


def settle(step: Step, *, rounds: int = 8) -> tuple[Plan, list[Receipt | VendorError]]:
    """Do the lowest phase and look again, as the engine does; leave a phase after three tries."""
    answers: list[Receipt | VendorError] = []
    tries: dict[tuple[str, str], int] = {}
    for _ in range(rounds):
        plan = step.plan()
        worth = [action for action in plan.live if tries.get(action.key, 0) < 3]
        if not worth:
            return plan, answers
        for action in worth:
            if action.phase == min(one.phase for one in worth):
                tries[action.key] = tries.get(action.key, 0) + 1
                answers.append(do(action))
    return step.plan(), answers


def shape(plan: Plan) -> list[tuple[str, str, int]]:
    return [(action.verb, action.target, action.phase) for action in plan.live]


def test_certificates_come_first_then_the_agents(server: KakuninServer) -> None:
    plan = step_of(server).plan()
    assert shape(plan) == [
        ("revoke", f"agent {BOT_1}/certificate …6E9B7C15", 1),
        ("revoke", f"agent {BOT_1}/certificate …5D28A4F3", 1),
        ("halt", f"agent {BOT_1}", 2),
        ("revoke", f"agent {BOT_2}/certificate …04F6B29C", 1),
        ("halt", f"agent {BOT_2}", 2),
    ]
    assert (plan.blind, plan.clear) == ((), ())
    assert plan.notes == (KEYS_SURVIVE,)
    assert server.writes == []


def test_everything_ends_and_each_agent_leaves_a_signed_receipt(server: KakuninServer) -> None:
    plan, answers = settle(step_of(server))
    assert server.live() == []
    assert (plan.live, plan.blind) == ((), ())
    assert {clear.target: clear.saw for clear in plan.clear} == {
        f"agent {BOT_1}/certificate …6E9B7C15": "revoked",
        f"agent {BOT_1}/certificate …5D28A4F3": "revoked",
        f"agent {BOT_1}": "suspended, no active certificate",
        f"agent {BOT_2}/certificate …04F6B29C": "revoked",
        f"agent {BOT_2}": "suspended, no active certificate",
    }
    receipts = [one for one in answers if isinstance(one, Receipt) and "signature" in one.evidence]
    assert len(receipts) == 2
    assert len(server.told) == 3


def test_a_second_run_has_nothing_to_do(server: KakuninServer) -> None:
    settle(step_of(server))
    writes = len(server.writes)
    plan, answers = settle(step_of(server))
    assert (plan.live, plan.blind, answers) == ((), (), [])
    assert [clear.target for clear in plan.clear] == [f"agent {BOT_1}", f"agent {BOT_2}"]
    assert not any(clear.only_if_known for clear in plan.clear)
    assert len(server.writes) == writes


def test_agents_that_were_not_named_are_left_alone(server: KakuninServer) -> None:
    settle(step_of(server, agents=(BOT_2,)))
    assert server.agents[BOT_1].status == "active"
    assert len(server.agents[BOT_1].active) == 2


def test_an_unknown_agent_is_blind_and_the_others_are_still_halted(server: KakuninServer) -> None:
    plan, _ = settle(step_of(server, agents=(NOBODY, BOT_1, BOT_2)))
    assert [(blind.target, blind.lasting) for blind in plan.blind] == [(f"agent {NOBODY}", True)]
    assert plan.blind[0].reason.startswith("unknown agent")
    assert server.live() == []


@pytest.mark.parametrize(
    ("trap", "lasting"),
    [("wrong-key", True), ("down", False), ("garbage", False), ("redirect", True)],
)
def test_what_cannot_be_seen_is_blind_and_never_clear(
    server: KakuninServer, trap: str, *, lasting: bool
) -> None:
    server.traps = {trap}
    plan = step_of(server).plan()
    assert [(blind.target, blind.lasting) for blind in plan.blind] == [
        (f"agent {BOT_1}", lasting),
        (f"agent {BOT_2}", lasting),
    ]
    assert (plan.live, plan.clear) == ((), ())


def test_a_revocation_that_lies_stays_live(server: KakuninServer) -> None:
    server.traps = {"revoke-lies"}
    plan, _ = settle(step_of(server))
    # A halt ends the newest certificate of each agent; the other one of bot-1 is still there.
    assert [action.target for action in plan.live] == [f"agent {BOT_1}/certificate …5D28A4F3"]
    assert server.live() == ["certificate 3A7790C1E48D2F56B0179E6C5D28A4F3"]


def test_a_revocation_answered_500_is_seen_to_have_worked(server: KakuninServer) -> None:
    server.traps = {"revoke-500"}
    plan, answers = settle(step_of(server))
    assert (plan.live, plan.blind, server.live()) == ((), (), [])
    assert sum("audit log write failed" in str(answer) for answer in answers) == 3


def test_a_halt_that_lies_ends_in_a_suspension(server: KakuninServer) -> None:
    server.traps = {"suspend-ignored", "halt-lies"}
    plan, _ = settle(step_of(server))
    assert (plan.live, plan.blind, server.live()) == ((), (), [])
    assert "PATCH" in {seen.method for seen in server.writes}


def test_a_suspension_that_revoking_forgot_is_made_up_for_by_the_halt(
    server: KakuninServer,
) -> None:
    server.traps = {"suspend-ignored"}
    settle(step_of(server))
    assert server.live() == []
    assert "PATCH" not in {seen.method for seen in server.writes}


@pytest.mark.parametrize("trap", ["recertified", "reactivated"])
def test_what_comes_back_is_seen_by_the_next_look_and_ended(
    server: KakuninServer, clock: Clock, trap: str
) -> None:
    server.traps = {trap}
    step = step_of(server)
    assert settle(step)[0].live == ()
    clock.now += 0.5
    assert len(step.plan().live) == 1
    assert settle(step)[0].live == ()
    assert server.live() == []


def test_a_retired_agent_with_a_certificate_is_revoked(server: KakuninServer) -> None:
    server.traps = {"retired"}
    plan, _ = settle(step_of(server))
    assert (plan.live, server.live()) == ((), [])


def test_a_halt_answered_409_does_not_hold_up_what_is_seen_to_be_right(
    server: KakuninServer,
) -> None:
    server.traps = {"retired", "suspend-ignored"}
    plan, answers = settle(step_of(server, agents=(BOT_2,)))
    assert plan.live == ()
    assert plan.clear[-1].saw == "retired, no active certificate"
    assert any("409" in str(answer) for answer in answers)


def test_a_halt_that_breaks_does_not_hold_up_what_is_seen_to_be_right(
    server: KakuninServer,
) -> None:
    step = step_of(server, agents=(BOT_2,))
    do(step.plan().live[0])
    (halt,) = step.plan().live
    assert halt.verb == "halt"
    server.traps = {"down"}
    assert isinstance(do(halt), VendorError)
    server.traps = set()
    assert step.plan().live == ()


def test_certificates_that_are_not_listed_are_ended_by_halts_but_never_called_ended(
    server: KakuninServer,
) -> None:
    server.traps = {"empty-list"}
    step = step_of(server)
    plan, _ = settle(step)
    assert server.live() == []
    assert [blind.target for blind in plan.blind] == [f"agent {BOT_1}", f"agent {BOT_2}"]
    assert (plan.live, plan.clear) == ((), ())
    server.traps = set()
    assert step.plan().blind == ()
    assert len(step.plan().clear) == 2


def test_an_agent_that_never_had_a_certificate_is_halted_and_stays_unknown(
    server: KakuninServer,
) -> None:
    server.agents[NOBODY] = SandboxAgent(NOBODY, "new", status="pending")
    plan, _ = settle(step_of(server, agents=(NOBODY,)))
    assert server.agents[NOBODY].status == "suspended"
    assert plan.blind == (Blind(f"agent {NOBODY}", NOT_LISTED),)
    assert (plan.live, plan.clear) == ((), ())


def test_a_word_that_nobody_knows_counts_as_live(server: KakuninServer) -> None:
    settle(step_of(server))
    server.agents[BOT_2].status = "paused"
    server.agents[BOT_1].certificates[0].status = "renewed"
    assert shape(step_of(server).plan()) == [
        ("revoke", f"agent {BOT_1}/certificate …6E9B7C15", 1),
        ("halt", f"agent {BOT_2}", 2),
    ]


def test_a_rehearsal_changes_nothing_and_says_what_it_cannot_show(server: KakuninServer) -> None:
    step = step_of(server, may_write=False)
    told = {action.rehearse().summary for action in step.plan().live}
    assert all("was not tried" in text for text in told)
    assert server.writes == []
    assert len(server.live()) == 5
