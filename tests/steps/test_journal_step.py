"""The journal's step: an event counts as recorded when it has been read back."""

from dataclasses import replace
from pathlib import Path

import pytest

from killswitch.converge import Limits
from killswitch.errors import RefusedError, UnreachableError
from killswitch.exit_codes import ExitCode, exit_code
from killswitch.halt import Assignment, carry_out
from killswitch.journal.fallback import FallbackLog
from killswitch.journal.store import Event, Journal, NewEvent
from killswitch.model import Clear, HaltReport, Mode, Outcome, Step, StepResult
from killswitch.runner import Runner
from killswitch.steps.journal import AppendEvent, EventLog
from killswitch.verdict import Intent
from tests.engine.simulator import Thing, WorldStep, make_assignment

LIMITS = Limits(deadline_s=10, wrap_up_s=3, intent_s=0.5, phase_s=1, patience_s=1, stay_down_s=0.02)
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


class ReadOnlyLog:
    """May be read, and says no to every event."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def find(self, event_id: str) -> Event | None:
        return self._journal.find(event_id)

    def append(self, event: NewEvent) -> Event:
        raise RefusedError(f"the journal takes no {event.type}")


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


def run_alone(step: Step, intent: Intent, known: frozenset[str] = frozenset()) -> StepResult:
    """Perform the step where a halt does, at its end, or rehearse it as a drill does."""
    known_of = {(step.name, step.system): known}
    if intent is Intent.PERFORM:
        job = make_assignment((), conclude=step, known=known_of)
    else:
        job = make_assignment((step,), intent=intent, mode=Mode.DRILL, known=known_of)
    return told(run(job), step.system)


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


# The contract of every step, driven by the engine.


@pytest.fixture(params=["journal", "fallback"])
def log(request: pytest.FixtureRequest, journal: Journal, fallback: FallbackLog) -> EventLog:
    return journal if request.param == "journal" else fallback


def test_planning_writes_nothing_and_names_the_event_once(log: EventLog, tmp_path: Path) -> None:
    step = AppendEvent(log, ORDERED, "ordered")
    first, second = step.plan(), step.plan()
    assert [action.key for action in first.live] == [("halt.ordered", "append")]
    assert first == second
    assert (first.blind, first.clear) == ((), ())
    assert list(tmp_path.iterdir()) == []


def test_performing_empties_the_plan_and_the_log_holds_the_event(log: EventLog) -> None:
    step = AppendEvent(log, ORDERED, "ordered")
    result = run_alone(step, Intent.PERFORM)
    assert result.outcome is Outcome.VERIFIED
    assert result.left_live == ()
    assert step.plan().live == ()
    kept = log.find(ORDERED.id)
    assert kept is not None
    assert kept.raw == ORDERED.to_bytes()


def test_a_second_run_finds_the_event_already_there(journal: Journal) -> None:
    step = AppendEvent(journal, ORDERED, "ordered")
    first = run_alone(step, Intent.PERFORM)
    ended = frozenset(target.target for target in first.targets)
    second = run_alone(step, Intent.PERFORM, known=ended)
    assert second.outcome is Outcome.ALREADY
    assert second.targets[0].attempts == ()
    assert journal.head().size == 1


def test_rehearsing_writes_nothing_and_leaves_the_event_missing(
    log: EventLog, tmp_path: Path
) -> None:
    step = AppendEvent(log, ORDERED, "ordered")
    result = run_alone(step, Intent.REHEARSE)
    assert result.outcome is Outcome.REHEARSED
    assert [action.target for action in step.plan().live] == ["halt.ordered"]
    assert log.find(ORDERED.id) is None
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_a_result_and_not_an_exception(journal: Journal) -> None:
    result = run_alone(AppendEvent(ReadOnlyLog(journal), ORDERED, "ordered"), Intent.PERFORM)
    assert result.outcome is Outcome.FAILED
    (target,) = result.targets
    assert target.live
    assert "the journal takes no halt.ordered" in target.saw
    assert not journal.path.exists()


@pytest.mark.parametrize("intent", [Intent.PERFORM, Intent.REHEARSE])
def test_a_log_that_cannot_be_read_is_never_taken_for_written(
    broken: Journal, intent: Intent
) -> None:
    result = run_alone(AppendEvent(broken, ORDERED, "ordered"), intent)
    assert result.outcome in {Outcome.FAILED, Outcome.UNKNOWN}
    assert result.error


def test_another_event_of_the_same_id_is_not_this_one(journal: Journal) -> None:
    journal.append(replace(ORDERED, data={"order": "another"}))
    result = run_alone(AppendEvent(journal, ORDERED, "ordered"), Intent.PERFORM)
    assert not result.outcome.ended
    assert journal.head().size == 1
