"""The last words of a halt, on the virtual clock: in the journal, or else elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from killswitch.converge import Limits
from killswitch.driving import Pressed
from killswitch.exit_codes import ExitCode, exit_code
from killswitch.halt import Assignment
from killswitch.model import HaltReport, Mode, Outcome, Step, StepResult
from killswitch.verdict import Intent
from tests.engine.simulator import (
    ORIGIN,
    Faults,
    Simulator,
    Thing,
    WorldStep,
    make_assignment,
    make_order,
)

LIMITS = Limits()
BRIEF_S = 4 * LIMITS.intent_s
JOURNAL = "completed"
ELSEWHERE = "completed, elsewhere"
WELL = Faults(slowest_s=0.01)
REFUSED = Faults(refused=1.0, slowest_s=0.01)
GARBLED = Faults(garbled=1.0, slowest_s=0.01)
CUT = Faults(lost_before=1.0, slowest_s=0.01)
BUG = Faults(bug=1.0, slowest_s=0.01)
HANGS = Faults(hang=1.0)


@dataclass
class Stage:
    """One system to halt, a journal and a file elsewhere for the last event, and their faults."""

    journal_faults: Faults = field(default_factory=lambda: WELL)
    elsewhere_faults: Faults = field(default_factory=lambda: WELL)
    system_faults: Faults = field(default_factory=lambda: WELL)
    seed: int = 7

    def __post_init__(self) -> None:
        self.simulator = Simulator(self.seed)
        self.system = WorldStep("s0", [Thing("key 1")], self.simulator.now)
        self.journal = self._log(JOURNAL)
        self.elsewhere = self._log(ELSEWHERE)
        self.simulator.faults = {
            "world s0": self.system_faults,
            f"journal {JOURNAL}": self.journal_faults,
            f"journal {ELSEWHERE}": self.elsewhere_faults,
        }

    def _log(self, system: str) -> WorldStep:
        things = [Thing("halt.completed")]
        return WorldStep(system, things, self.simulator.now, name="journal", evidence=True)

    def assignment(self) -> Assignment:
        return make_assignment(
            (self.system,), conclude=self.journal, conclude_elsewhere=self.elsewhere
        )

    def run(self, assignment: Assignment | None = None, limits: Limits = LIMITS) -> HaltReport:
        return self.simulator.run(assignment or self.assignment(), limits)


def told(report: HaltReport, system: str) -> StepResult:
    (result,) = [each for each in report.results if each.system == system]
    return result


def test_a_journal_that_takes_the_last_event_is_enough() -> None:
    stage = Stage()
    report = stage.run()
    assert exit_code(report) is ExitCode.OK
    assert told(report, JOURNAL).outcome is Outcome.VERIFIED
    assert [result.system for result in report.results] == ["s0", JOURNAL]
    assert stage.elsewhere.looked_at == []


@pytest.mark.parametrize("faults", [REFUSED, GARBLED, CUT, BUG, HANGS])
def test_what_the_journal_does_not_take_is_written_elsewhere(faults: Faults) -> None:
    stage = Stage(journal_faults=faults)
    report = stage.run()
    assert report.halted, "the record is lost, the halt is not"
    assert exit_code(report) is ExitCode.EVIDENCE_DEGRADED
    assert told(report, ELSEWHERE).outcome is Outcome.VERIFIED
    assert not stage.elsewhere.things[0].live
    assert [line.split(":")[0] for line in report.degraded] == [f"journal {JOURNAL}"]


def test_a_journal_that_says_yes_and_keeps_nothing_is_found_out() -> None:
    stage = Stage()
    stage.journal.things[0].deaf = 10_000
    report = stage.run()
    assert not told(report, JOURNAL).outcome.ended
    assert told(report, ELSEWHERE).outcome is Outcome.VERIFIED


def test_a_journal_that_hangs_costs_its_share_of_the_time_and_no_more() -> None:
    stage = Stage(journal_faults=HANGS)
    report = stage.run()
    assert min(stage.elsewhere.performed_at) - ORIGIN < LIMITS.stay_down_s + BRIEF_S + 0.5
    assert report.elapsed_s < LIMITS.stay_down_s + BRIEF_S + 1


def test_when_both_fail_both_are_said_and_it_ends() -> None:
    stage = Stage(journal_faults=CUT, elsewhere_faults=HANGS)
    report = stage.run()
    assert report.halted
    assert {line.split(":")[0] for line in report.degraded} == {
        f"journal {JOURNAL}",
        f"journal {ELSEWHERE}",
    }
    assert report.elapsed_s < LIMITS.stay_down_s + 2 * BRIEF_S + 1


def test_a_report_that_cannot_be_written_down_costs_only_that() -> None:
    def broken(_report: HaltReport) -> tuple[Step, ...]:
        raise RecursionError

    stage = Stage()
    report = stage.run(replace(stage.assignment(), conclude=broken))
    assert report.halted
    assert told(report, ELSEWHERE).outcome is Outcome.VERIFIED
    stage = Stage(journal_faults=REFUSED)
    assert stage.run(replace(stage.assignment(), conclude_elsewhere=broken)).halted


def test_what_is_written_elsewhere_tells_that_the_journal_failed() -> None:
    reports: list[HaltReport] = []

    def remember(step: Step) -> Callable[[HaltReport], tuple[Step, ...]]:
        def make(report: HaltReport) -> tuple[Step, ...]:
            reports.append(report)
            return (step,)

        return make

    stage = Stage(journal_faults=REFUSED)
    stage.run(
        replace(
            stage.assignment(),
            conclude=remember(stage.journal),
            conclude_elsewhere=remember(stage.elsewhere),
        )
    )
    before, after = reports
    assert before.degraded == ()
    assert [line.split(":")[0] for line in after.degraded] == [f"journal {JOURNAL}"]
    assert before.halted
    assert after.halted


@pytest.mark.parametrize("deadline_s", [5.0, 20.0, 60.0])
def test_time_is_left_to_write_elsewhere_when_all_else_took_too_long(deadline_s: float) -> None:
    limits = replace(LIMITS, deadline_s=deadline_s, wrap_up_s=LIMITS.intent_s * 2, patience_s=90)
    stage = Stage(system_faults=HANGS, journal_faults=HANGS)
    report = stage.run(limits=limits)
    assert not report.halted
    assert told(report, ELSEWHERE).outcome is Outcome.VERIFIED
    assert report.elapsed_s <= deadline_s + 1e-6


def test_whoever_leaves_at_once_still_leaves_a_record_elsewhere() -> None:
    stage = Stage(system_faults=HANGS, journal_faults=HANGS)
    stage.simulator.press_at(ORIGIN + 1, Pressed.ONCE)
    stage.simulator.press_at(ORIGIN + 2, Pressed.TWICE)
    report = stage.run()
    assert not report.halted
    assert told(report, ELSEWHERE).outcome is Outcome.VERIFIED
    assert report.elapsed_s < 2 + 2 * BRIEF_S


def test_a_drill_leaves_its_record_elsewhere_too() -> None:
    stage = Stage(journal_faults=CUT)
    drill = replace(stage.assignment(), order=make_order(Mode.DRILL), intent=Intent.REHEARSE)
    report = stage.run(drill)
    assert told(report, "s0").outcome is Outcome.REHEARSED
    assert told(report, ELSEWHERE).outcome is Outcome.VERIFIED
