"""An answer that comes back after it was given up, on the virtual clock: it is never evidence."""

import pytest

from killswitch.converge import Limits
from killswitch.exit_codes import ExitCode, exit_code
from killswitch.model import HaltReport, Outcome, TargetResult
from killswitch.task import Call
from tests.engine.simulator import ORIGIN, Simulator, Thing, WorldStep, make_assignment

LIMITS = Limits(look_s=2, act_s=2, phase_s=1, patience_s=1, stay_down_s=1)
NEVER = 1e9
QUICK = (0.02, 0.01)
SLOW = (1.9, 1.8)


class Timed(Simulator):
    """Every look as it is written down: how long it takes, and when within it the world is seen.

    What is not written down takes `QUICK`, or, for the system "slow", `SLOW`.
    """

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.looks: list[tuple[float, float]] = []

    def _start(self, call: Call) -> None:
        takes, seen = SLOW if call.label.startswith("world slow") else QUICK
        if call.label == "world s0: look" and self.looks:
            takes, seen = self.looks.pop(0)
        self._schedule(call, takes, None, seen=seen)


def comes_alive(simulator: Simulator, thing: Thing, after_s: float) -> None:
    def alive() -> None:
        thing.live = True

    simulator.at(ORIGIN + after_s, alive)


def told(report: HaltReport) -> TargetResult:
    (result,) = [each for each in report.results if each.system == "s0"]
    return next(each for each in result.targets if each.target == "key 1")


def halt(simulator: Timed, thing: Thing, *, beside: int) -> HaltReport:
    """Halt what holds `thing`, beside a system of so many pods, each of which takes 4 s."""
    pods = [Thing(f"pod {number}", phase=number) for number in range(beside)]
    steps = (WorldStep("s0", [thing], simulator.now), WorldStep("slow", pods, simulator.now))
    return simulator.run(make_assignment(steps if beside else steps[:1]), LIMITS)


@pytest.mark.parametrize("back_s", [3.05, 8.0, 49.5])
def test_a_late_look_does_not_hide_what_is_live(back_s: float) -> None:
    simulator = Timed()
    simulator.looks = [(back_s, 0.1)]
    thing = Thing("key 1", live=False, deaf=10_000)
    comes_alive(simulator, thing, 1.0)
    report = halt(simulator, thing, beside=20)
    assert report.elapsed_s >= 49.9, "the last word is spoken soon after the late answer"
    assert thing.live
    assert told(report).outcome is Outcome.FAILED
    assert told(report).live
    assert exit_code(report) is ExitCode.STILL_LIVE


@pytest.mark.parametrize("back_s", [3.05, 4.5, 8.0, 12.0])
def test_a_late_look_takes_nothing_back_that_was_read_back_since(back_s: float) -> None:
    simulator = Timed()
    simulator.looks = [(back_s, 0.1)]
    report = halt(simulator, Thing("key 1"), beside=4)
    assert report.elapsed_s > 12, "the other system is at work when the late answer comes"
    assert told(report).outcome is Outcome.VERIFIED
    assert exit_code(report) is ExitCode.OK


def test_late_looks_are_no_answers_to_the_looks_that_came_after_them() -> None:
    """Each comes back while a newer look is under way, and was clean; what is live now is not."""
    simulator = Timed()
    simulator.looks = [(2.5, 0.1), (2.2, 0.01), *[(NEVER, 0.1)] * 50]
    thing = Thing("key 1", live=False, deaf=10_000)
    comes_alive(simulator, thing, 3.0)
    report = halt(simulator, thing, beside=0)
    assert thing.live
    assert not report.halted
    assert exit_code(report) is ExitCode.STILL_LIVE
