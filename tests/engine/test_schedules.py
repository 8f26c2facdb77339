"""Random schedules through the engine: no order of events makes it say what it has not seen.

`KILLSWITCH_SCHEDULES` sets how many (default 20,000), `KILLSWITCH_SEED` where they begin; both
are printed, and a failing run names its own seed.
"""

import os
import random
import secrets
from collections.abc import Callable

import pytest

from killswitch.converge import Limits
from killswitch.driving import Pressed
from killswitch.model import HaltReport, Plan, Receipt
from tests.engine.simulator import ORIGIN, Faults, Simulator, Thing, WorldStep, make_assignment

SCHEDULES = int(os.environ.get("KILLSWITCH_SCHEDULES", "20000"))
SEED = int(os.environ.get("KILLSWITCH_SEED", str(secrets.randbelow(2**32))))
LIMITS = Limits()


class Run:
    """One random schedule: a world, its troubles, and the engine's report about it."""

    def __init__(self, seed: int) -> None:
        self.simulator = simulator = Simulator(seed)
        rng = simulator.rng
        self.steps = [self._system(rng, f"s{number}") for number in range(rng.randint(1, 4))]
        self.journal = self._evidence("journal", "ordered", rng)
        self.spare = self._evidence("journal", "elsewhere", rng)
        self.alert = self._evidence("telegram", "result", rng)
        self.last = self._evidence("journal", "completed", rng)
        self.last_spare = self._evidence("journal", "completed, elsewhere", rng)
        for step in self.steps:
            for thing in step.things:
                while rng.random() < 0.2:
                    self._comes_back(thing, ORIGIN + rng.random() * 40)
        if rng.random() < 0.1:
            when = ORIGIN + rng.random() * 20
            simulator.press_at(when, Pressed.ONCE)
            if rng.random() < 0.5:
                simulator.press_at(when + rng.random() * 3, Pressed.TWICE)
        self.report: HaltReport = simulator.run(
            make_assignment(
                tuple(self.steps),
                record=self.journal,
                record_elsewhere=self.spare,
                tell=self.alert,
                conclude=self.last,
                conclude_elsewhere=self.last_spare,
            ),
            LIMITS,
        )

    def _system(self, rng: random.Random, system: str) -> WorldStep:
        self.simulator.faults[f"world {system}"] = Faults.draw(rng)
        things = [
            Thing(
                target=f"thing {number}",
                phase=rng.randint(1, 4),
                live=rng.random() < 0.8,
                deaf=rng.choice([0, 0, 0, 1, 3, 10_000]) if rng.random() < 0.2 else 0,
            )
            for number in range(rng.randint(1, 4))
        ]
        return WorldStep(
            system,
            things,
            self.simulator.now,
            vanishing=rng.random() < 0.3,
            doubtful=rng.random() < 0.2,
            blind_looks=rng.choice([0, 0, 0, 1, 2, 10_000]) if rng.random() < 0.2 else 0,
        )

    def _evidence(self, name: str, system: str, rng: random.Random) -> WorldStep:
        self.simulator.faults[f"{name} {system}"] = Faults.draw(rng)
        things = [Thing("message")]
        return WorldStep(system, things, self.simulator.now, name=name, evidence=True)

    def _comes_back(self, thing: Thing, when: float) -> None:
        def again() -> None:
            thing.live = True

        self.simulator.at(when, again)


def halted_is_only_said_after_a_clean_read_back(run: Run) -> None:
    if not run.report.halted:
        return
    receipts = [moment for step in run.steps for moment in run.simulator.receipts(step.system)]
    for step in run.steps:
        # A look that was given up is not evidence, for or against.
        last_look = max(run.simulator.answered[f"world {step.system}: look"])
        assert last_look in step.clean_looks, "the newest look saw something live"
        assert len(step.clean_looks) >= 2, "seen clean only once"
        assert last_look >= max(receipts, default=0.0), "not looked at after the last action of all"
        for other in run.steps:
            seen = max(run.simulator.answered[f"world {other.system}: look"])
            moments = [thing.ended_at or 0.0 for thing in other.things]
            ends = [moment for moment in moments if moment < seen]
            assert last_look >= max(ends, default=0.0), "not looked at after the last had ended"
        if any(thing.live for thing in step.things):
            assert run.simulator.time > last_look, "live at the newest look"


def nothing_is_performed_before_the_order_is_written_down(run: Run) -> None:
    moments = run.journal.performed_at + run.spare.performed_at
    written = min(moments, default=float("inf"))
    allowed_from = min(written, ORIGIN + LIMITS.intent_s)
    for step in run.steps:
        assert all(moment >= allowed_from for moment in step.performed_at)


def every_target_is_accounted_for_exactly_once(run: Run) -> None:
    systems = [result.system for result in run.report.results if result.step == "world"]
    assert systems == [step.system for step in run.steps]
    for step in run.steps:
        (result,) = [r for r in run.report.results if r.system == step.system]
        names = [target.target for target in result.targets]
        assert len(names) == len(set(names))
        acted_on = {target.target for target in result.targets if target.attempts}
        assert acted_on <= {thing.target for thing in step.things}
        if step.blind_looks == 0 and result.looks and not result.error and not step.vanishing:
            assert {thing.target for thing in step.things} <= set(names)


def it_always_ends_by_the_deadline(run: Run) -> None:
    assert run.simulator.time <= ORIGIN + LIMITS.deadline_s + 1e-6
    assert run.report.elapsed_s <= LIMITS.deadline_s + 1e-6


def no_step_waits_for_another_to_begin(run: Run) -> None:
    # A look is made within its call; no call of the wave may start later than the record's budget.
    for result in run.report.results:
        if result.step == "world" and result.looks:
            assert result.started_s <= LIMITS.intent_s + 1e-6


def a_target_is_told_as_it_was_seen_last(run: Run) -> None:
    # A look that was given up, or comes back after the last word, says nothing: for or against.
    begun = run.simulator.first_started
    last_words = ("telegram result", "journal completed")
    closed = min(at for label, at in begun.items() if label.startswith(last_words))
    for step in run.steps:
        own = [one for one in run.simulator.taken if one.label.startswith(f"world {step.system}:")]
        looks = [one for one in own if one.label.endswith(": look") and one.at <= closed]
        if not looks:
            continue
        plan = looks[-1].value
        seen_live = {action.target for action in plan.live} if isinstance(plan, Plan) else set()
        acted_on = {
            one.value.evidence.get("target", "")
            for one in own[own.index(looks[-1]) :]
            if isinstance(one.value, Receipt)
        }
        (result,) = [one for one in run.report.results if one.system == step.system]
        for target in result.targets:
            if target.target in seen_live:
                assert not target.outcome.ended, "ended, and it was live when last seen"
            assert target.live is (target.target in seen_live - acted_on), "not as it was seen last"
        if not isinstance(plan, Plan):
            assert not any(target.outcome.ended for target in result.targets), "nobody saw it end"


def what_the_journal_did_not_take_goes_elsewhere(run: Run) -> None:
    results = {result.system: result for result in run.report.results if result.step == "journal"}
    if not results["completed"].outcome.ended:
        assert "completed, elsewhere" in results


INVARIANTS = (
    halted_is_only_said_after_a_clean_read_back,
    nothing_is_performed_before_the_order_is_written_down,
    every_target_is_accounted_for_exactly_once,
    it_always_ends_by_the_deadline,
    no_step_waits_for_another_to_begin,
    a_target_is_told_as_it_was_seen_last,
    what_the_journal_did_not_take_goes_elsewhere,
)


@pytest.mark.timeout(600)
def test_no_random_schedule_breaks_a_promise(
    record_property: Callable[[str, object], None],
) -> None:
    halted = 0
    for seed in range(SEED, SEED + SCHEDULES):
        run = Run(seed)
        halted += run.report.halted
        for invariant in INVARIANTS:
            try:
                invariant(run)
            except AssertionError as broken:
                raise AssertionError(
                    f"{invariant.__name__}: {broken}; KILLSWITCH_SEED={seed} KILLSWITCH_SCHEDULES=1"
                ) from broken
    record_property("told", f"schedules: {SCHEDULES} from seed {SEED}, {halted} ended halted")
    # A simulator in which nothing ever goes well, or ever goes wrong, would prove nothing.
    if SCHEDULES >= 1000:
        assert SCHEDULES * 0.15 < halted < SCHEDULES * 0.85
