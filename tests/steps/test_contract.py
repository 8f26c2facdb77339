"""One contract for all steps, each with its real client against its sandbox server."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from killswitch.config import load_config
from killswitch.converge import Limits
from killswitch.halt import Assignment, carry_out
from killswitch.model import Mode, Outcome, Plan, Step, StepResult
from killswitch.runner import Runner
from killswitch.sandbox.server import VendorServer
from killswitch.sandbox.world import World
from killswitch.sources import Sources
from killswitch.steps.telegram import Message
from killswitch.verdict import Intent
from killswitch.wiring import units
from tests.engine.simulator import make_order
from tests.worlds import running_world

CONTAINMENT = ["kubernetes", "synced-secrets", "bybit", "kakunin", "vault"]
ALL = [*CONTAINMENT, "telegram"]
LIMITS = Limits(
    deadline_s=8, wrap_up_s=1, look_s=2.5, act_s=2.5, phase_s=1, patience_s=1, stay_down_s=0.4
)
MESSAGE = Message(title="test", lines=("a line",))

# How each vendor says no to whoever may not write.
REFUSALS = {
    "kubernetes": "forbidden",
    "synced-secrets": "forbidden",
    "bybit": "no-permission",
    "kakunin": "wrong-key",
    "vault": "forbidden-delete",
    "telegram": "blocked",
}

# The server of a step that has none of its own.
SERVED_BY = {"synced-secrets": "kubernetes"}

# What a step cannot read back in a later run: the first one used up the credential that saw it.
OUT_OF_SIGHT = {"bybit": {"sub accounts", "sub 101/orders"}}


class Make(Protocol):
    """Makes the step under test."""

    def __call__(self, *, may_write: bool) -> Step: ...


@dataclass(frozen=True, slots=True)
class Bench:
    """One vendor's server in a running world, and what makes its step."""

    kind: str
    world: World
    server: VendorServer
    make: Make

    def live(self) -> list[str]:
        return self.world.live().get(self.kind, [])


@pytest.fixture(params=ALL)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    kind: str = request.param
    with running_world(tmp_path) as world:
        config = load_config(world.config_file)
        host = SERVED_BY.get(kind, kind)
        server = next(server for server in world.servers if server.name == host)

        def make(*, may_write: bool) -> Step:
            parts = units(config, Sources(config.resolve, {}))
            unit = next(unit for unit in parts if unit.kind == kind)
            return unit.step(lambda: MESSAGE, may_write=may_write)

        yield Bench(kind, world, server, make)


def run(
    step: Step, intent: Intent, known: frozenset[str] = frozenset(), limits: Limits = LIMITS
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


def targets(plan: Plan) -> list[str]:
    named = [action.target for action in plan.live] + [clear.target for clear in plan.clear]
    return named + [blind.target for blind in plan.blind]


def test_planning_writes_nothing_and_names_each_live_thing_once(bench: Bench) -> None:
    step = bench.make(may_write=True)
    first, second = step.plan(), step.plan()
    assert bench.server.writes == []
    assert first.live
    assert first.blind == ()
    keys = [action.key for action in first.live]
    assert len(keys) == len(set(keys))
    assert targets(first) == targets(second)


def test_performing_empties_the_plan_and_the_servers_own_books(bench: Bench) -> None:
    result = run(bench.make(may_write=True), Intent.PERFORM)
    assert result.outcome is Outcome.VERIFIED
    assert result.left_live == ()
    assert bench.live() == []


def test_a_second_run_finds_it_already_done(bench: Bench) -> None:
    step = bench.make(may_write=True)
    first = run(step, Intent.PERFORM)
    ended = frozenset(target.target for target in first.targets)
    writes = len(bench.server.writes)
    # As another process would; but an alert, and its number, are one step's own.
    again = step if step.evidence else bench.make(may_write=True)
    second = run(again, Intent.PERFORM, known=ended)
    found = {target.target: target.outcome for target in second.targets}
    unseen = OUT_OF_SIGHT.get(bench.kind, set())
    assert {it for it, outcome in found.items() if outcome is Outcome.UNKNOWN} == unseen
    assert {outcome for it, outcome in found.items() if it not in unseen} == {Outcome.ALREADY}
    assert len(bench.server.writes) == writes


def test_rehearsing_writes_nothing_and_leaves_everything_live(bench: Bench) -> None:
    before = bench.live()
    result = run(bench.make(may_write=False), Intent.REHEARSE)
    assert result.outcome is Outcome.REHEARSED
    assert bench.server.writes == []
    assert bench.live() == before


def test_a_client_that_may_only_read_refuses_every_action(bench: Bench) -> None:
    before = bench.live()
    result = run(bench.make(may_write=False), Intent.PERFORM)
    assert result.outcome is Outcome.FAILED
    assert bench.server.writes == []
    assert bench.live() == before


def test_a_refusal_is_a_result_and_not_an_exception(bench: Bench) -> None:
    bench.server.traps.add(REFUSALS[bench.kind])
    result = run(bench.make(may_write=True), Intent.PERFORM)
    assert result.outcome in {Outcome.FAILED, Outcome.UNKNOWN}
    assert all(target.saw for target in result.targets)


@pytest.mark.parametrize("trap", ["hang", "drop", "garbage", "down"])
def test_a_server_that_makes_no_sense_is_never_taken_for_ended(bench: Bench, trap: str) -> None:
    bench.server.traps.add(trap)
    result = run(bench.make(may_write=True), Intent.PERFORM)
    assert result.outcome in {Outcome.FAILED, Outcome.UNKNOWN}
    assert not result.outcome.ended
