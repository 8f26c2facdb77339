"""The exit code is a function of the report, and never better than the report."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch import errors
from killswitch.exit_codes import ExitCode, exit_code
from killswitch.model import HaltReport, Mode, Outcome, StepResult, TargetResult
from tests.engine.simulator import make_order

V, A, R = Outcome.VERIFIED, Outcome.ALREADY, Outcome.REHEARSED
F, U, S, K = Outcome.FAILED, Outcome.UNKNOWN, Outcome.SENT, Outcome.SKIPPED


def step(outcome: Outcome, *, live: bool = False, evidence: bool = False) -> StepResult:
    return StepResult(
        step="telegram" if evidence else "vault",
        system="prod",
        evidence=evidence,
        outcome=outcome,
        targets=(TargetResult("path", outcome, "seen", live=live),),
        error="",
        notes=(),
        looks=1,
        started_s=0.0,
        ended_s=1.0,
        verified_s=1.0 if outcome.ended else None,
    )


def report(
    results: Sequence[StepResult],
    *,
    mode: Mode = Mode.LIVE,
    degraded: tuple[str, ...] = (),
) -> HaltReport:
    contained = [result for result in results if not result.evidence]
    halted = mode is Mode.LIVE and bool(contained) and all(r.outcome.ended for r in contained)
    return HaltReport(
        order=make_order(mode),
        proof=None,
        results=tuple(results),
        halted=halted,
        degraded=degraded,
        started_at=datetime(2026, 11, 21, tzinfo=UTC),
        verified_s=1.0 if halted else None,
        elapsed_s=2.0,
    )


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([V], 0),
        ([V, A], 0),
        ([A, A], 0),
        ([S], 10),
        ([V, S], 10),
        ([V, U], 11),
        ([S, U], 11),
        ([V, F], 11),
        ([S, F], 11),
        ([V, K], 11),
        ([], 11),
    ],
    ids=str,
)
def test_a_halt_ends_with_what_is_worst(outcomes: list[Outcome], code: int) -> None:
    assert exit_code(report([step(outcome) for outcome in outcomes])) == code


def test_what_is_live_is_live_also_when_another_target_was_sent() -> None:
    assert exit_code(report([step(V), step(S, live=True)])) is ExitCode.STILL_LIVE


def test_a_halt_with_a_gap_in_its_record_is_still_a_halt() -> None:
    results = [step(V), step(F, evidence=True)]
    assert exit_code(report(results, degraded=("telegram prod: 403",))) is (
        ExitCode.EVIDENCE_DEGRADED
    )


@pytest.mark.parametrize("outcome", Outcome)
def test_an_alert_alone_never_makes_a_halt_better_or_worse(outcome: Outcome) -> None:
    alert = step(outcome, live=True, evidence=True)
    for halt in (V, S, F):
        assert exit_code(report([step(halt), alert])) == exit_code(report([step(halt)]))
    assert exit_code(report([alert])) is ExitCode.STILL_LIVE


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([R], 0),
        ([R, A, V], 0),
        ([R, U], 8),
        ([R, F], 8),
        ([R, S], 8),
        ([R, K], 8),
        ([], 8),
    ],
    ids=str,
)
def test_a_drill_passes_only_if_all_of_it_could_be_rehearsed(
    outcomes: list[Outcome], code: int
) -> None:
    results = [step(outcome) for outcome in outcomes]
    assert exit_code(report(results, mode=Mode.DRILL)) == code


@given(st.lists(st.tuples(st.sampled_from(Outcome), st.booleans(), st.booleans()), max_size=4))
def test_zero_means_that_every_system_was_read_back_as_ended(
    drawn: list[tuple[Outcome, bool, bool]],
) -> None:
    results = [step(outcome, live=live, evidence=ev) for outcome, live, ev in drawn]
    contained = [result for result in results if not result.evidence]
    ended = bool(contained) and all(result.outcome.ended for result in contained)
    assert (exit_code(report(results)) is ExitCode.OK) is ended


def test_every_code_has_a_meaning_of_its_own() -> None:
    meanings = [code.meaning for code in ExitCode]
    assert len(set(meanings)) == len(ExitCode)
    assert all(meaning and not meaning.endswith(".") for meaning in meanings)
    for code in (2, 3, 4, 130):
        assert "nothing was done" in ExitCode(code).meaning


def test_every_error_ends_with_a_code_of_the_table() -> None:
    kinds: list[type[errors.KillswitchError]] = [errors.KillswitchError]
    kinds += errors.KillswitchError.__subclasses__()
    codes = {kind.__name__: ExitCode(kind.exit_code).name for kind in kinds}
    assert codes == {
        "KillswitchError": "BUG",
        "UsageError": "USAGE",
        "NotAuthorizedError": "NOT_AUTHORISED",
        "ConfigError": "CONFIGURATION",
        "AbortedError": "ABORTED",
    }


def test_a_report_never_ends_with_a_code_that_says_that_nothing_was_done() -> None:
    seen = {
        exit_code(report([step(first), step(second, evidence=True)], mode=mode, degraded=why))
        for first, second, mode, why in product(Outcome, Outcome, Mode, ((), ("gap",)))
    }
    assert seen == {ExitCode(code) for code in (0, 5, 8, 10, 11)}
