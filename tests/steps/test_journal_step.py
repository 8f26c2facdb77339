"""The journal's step: an event counts as recorded when it has been read back."""

from dataclasses import replace
from pathlib import Path

import pytest

from killswitch.converge import Limits
from killswitch.errors import UnreachableError
from killswitch.exit_codes import ExitCode, exit_code
from killswitch.halt import Assignment, carry_out
from killswitch.journal.fallback import FallbackLog
from killswitch.journal.store import Event, Journal, NewEvent
from killswitch.model import Clear, HaltReport, Outcome, StepResult
from killswitch.runner import Runner
from killswitch.steps.journal import AppendEvent
from tests.engine.simulator import Thing, WorldStep, make_assignment

LIMITS = Limits(deadline_s=10, wrap_up_s=3, intent_s=0.5, stay_down_s=0.02)
ORDERED = NewEvent("h1.ordered", "halt.ordered", "2026-11-21T03:14:07Z", {"order": "{}"})
DONE = NewEvent("h1.completed", "halt.completed", "2026-11-21T03:14:09Z", {"halted": True})


class ForgetfulLog:
    """Says that it has stored every event, and has not."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.appended = 0

    def find(self, event_id: str) -> Event | None:
        return self._journal.find(event_id)

    def append(self, event: NewEvent) -> Event:
        self.appended += 1
        return Event(7, bytes(32), event.to_bytes(), bytes(32))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


@pytest.fixture
def broken(tmp_path: Path) -> Journal:
    (tmp_path / "file").touch()
    return Journal(tmp_path / "file" / "journal.db")


@pytest.fixture
def fallback(tmp_path: Path) -> FallbackLog:
    return FallbackLog(tmp_path / "elsewhere" / "fallback.jsonl")


def run(assignment: Assignment) -> HaltReport:
    return Runner().run(lambda now: carry_out(assignment, LIMITS, now))


def halt_of_one() -> Assignment:
    return make_assignment((WorldStep("prod", [Thing("key 1")], lambda: 0.0),))


def told(report: HaltReport, system: str) -> StepResult:
    (result,) = [each for each in report.results if each.system == system]
    return result


def test_an_event_is_missing_until_it_is_read_back(journal: Journal) -> None:
    step = AppendEvent(journal, ORDERED, "ordered")
    assert (step.name, step.system, step.evidence) == ("journal", "ordered", True)
    plan = step.plan()
    (action,) = plan.live
    assert (action.verb, action.target, plan.clear) == ("append", "halt.ordered", ())
    receipt = action.perform()
    head = journal.head().hash
    assert receipt.summary == f"event 1, head {head[:4]} {head[4:8]}"
    after = step.plan()
    assert after.live == ()
    assert after.clear == (Clear("halt.ordered", receipt.summary),)


def test_appending_again_changes_nothing(journal: Journal) -> None:
    (action,) = AppendEvent(journal, ORDERED, "ordered").plan().live
    assert action.perform() == action.perform()
    assert journal.head().size == 1


def test_a_rehearsal_changes_nothing(journal: Journal) -> None:
    (action,) = AppendEvent(journal, ORDERED, "ordered").plan().live
    assert action.rehearse().summary == "journal readable"
    assert not journal.path.exists()


def test_the_fallback_file_is_named_as_what_it_is(fallback: FallbackLog) -> None:
    step = AppendEvent(fallback, ORDERED, "ordered, elsewhere")
    (action,) = step.plan().live
    assert action.perform().summary == "in the fallback file"
    assert step.plan().clear == (Clear("halt.ordered", "in the fallback file"),)


def test_a_broken_journal_is_an_error_and_not_an_empty_one(broken: Journal) -> None:
    with pytest.raises(UnreachableError):
        AppendEvent(broken, ORDERED, "ordered").plan()


def test_a_halt_is_recorded_before_and_after(journal: Journal) -> None:
    assignment = replace(
        halt_of_one(),
        record=AppendEvent(journal, ORDERED, "ordered"),
        conclude=lambda _: [AppendEvent(journal, DONE, "completed")],
    )
    report = run(assignment)
    assert report.halted
    assert exit_code(report) is ExitCode.OK
    assert [event.body.id for event in journal.events()] == ["h1.ordered", "h1.completed"]


def test_a_broken_journal_costs_the_record_and_never_the_halt(
    broken: Journal, fallback: FallbackLog
) -> None:
    assignment = replace(
        halt_of_one(),
        record=AppendEvent(broken, ORDERED, "ordered"),
        record_elsewhere=AppendEvent(fallback, ORDERED, "ordered, elsewhere"),
        conclude=lambda _: [AppendEvent(broken, DONE, "completed")],
        conclude_elsewhere=lambda _: [AppendEvent(fallback, DONE, "completed, elsewhere")],
    )
    report = run(assignment)
    assert report.halted
    assert exit_code(report) is ExitCode.EVIDENCE_DEGRADED
    assert len(fallback.lines()) == 2
    assert told(report, "ordered").outcome is Outcome.FAILED
    assert told(report, "ordered, elsewhere").outcome is Outcome.VERIFIED


def test_a_journal_that_forgets_is_found_out(journal: Journal) -> None:
    log = ForgetfulLog(journal)
    assignment = replace(halt_of_one(), conclude=lambda _: [AppendEvent(log, DONE, "completed")])
    report = run(assignment)
    assert report.halted
    assert report.degraded
    assert told(report, "completed").outcome is not Outcome.VERIFIED
    assert log.appended >= 1
