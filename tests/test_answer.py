"""The answer in words: what is wrong comes first, and nothing sounds better than it is."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from killswitch.answer import Line, answer_lines, headline, mode_word, summary, touched_by
from killswitch.model import (
    Attempt,
    HaltReport,
    Mode,
    Note,
    Outcome,
    Proof,
    StepResult,
    TargetResult,
    worst,
)
from tests.engine.simulator import make_order

V, A, R = Outcome.VERIFIED, Outcome.ALREADY, Outcome.REHEARSED
F, U, S, K = Outcome.FAILED, Outcome.UNKNOWN, Outcome.SENT, Outcome.SKIPPED
PROOF = Proof(
    credential_id=b"id",
    client_data_json=b"{}",
    authenticator_data=bytes(37),
    signature=b"signature",
    key_label="blue",
    operator="anna",
    user_verified=False,
    counter=7,
    flags=1,
)


def attempt(verb: str, summary: str = "", error: str = "") -> Attempt:
    return Attempt(verb, 0.1, 0.2, summary=summary, error=error)


def target(
    name: str,
    outcome: Outcome,
    saw: str = "",
    *attempts: Attempt,
    live: bool = False,
) -> TargetResult:
    return TargetResult(name, outcome, saw, live=live, attempts=attempts)


def step(
    *targets: TargetResult,
    name: str = "vault",
    evidence: bool = False,
    error: str = "",
    notes: tuple[Note, ...] = (),
) -> StepResult:
    outcome = worst([each.outcome for each in targets])
    return StepResult(
        step=name,
        system="prod",
        evidence=evidence,
        outcome=outcome,
        targets=targets,
        error=error,
        notes=notes,
        looks=2,
        started_s=0.0,
        ended_s=1.0,
        verified_s=1.0 if outcome.ended else None,
    )


def report(
    results: Sequence[StepResult],
    *,
    mode: Mode = Mode.LIVE,
    degraded: tuple[str, ...] = (),
    proof: Proof | None = PROOF,
) -> HaltReport:
    contained = [result for result in results if not result.evidence]
    halted = mode is Mode.LIVE and bool(contained) and all(r.outcome.ended for r in contained)
    return HaltReport(
        order=make_order(mode),
        proof=proof,
        results=tuple(results),
        halted=halted,
        degraded=degraded,
        started_at=datetime(2026, 11, 21, 3, 14, 7, tzinfo=UTC),
        verified_s=2.345 if halted else None,
        elapsed_s=8.0,
    )


def first_line(results: Sequence[StepResult], mode: Mode = Mode.LIVE) -> str:
    return headline(report(results, mode=mode), stay_down_s=5.0)


def one(outcome: Outcome) -> StepResult:
    return step(target("path", outcome))


@pytest.mark.parametrize(
    ("mode", "sandbox", "word"),
    [
        (Mode.LIVE, False, "LIVE"),
        (Mode.DRILL, False, "DRILL"),
        (Mode.RELEASE, False, "RELEASE"),
        (Mode.LIVE, True, "SANDBOX"),
        (Mode.DRILL, True, "SANDBOX"),
    ],
)
def test_every_line_begins_with_what_it_is_about(
    mode: Mode,
    sandbox: bool,  # noqa: FBT001 (a table)
    word: str,
) -> None:
    assert mode_word(mode, sandbox=sandbox) == word


# The headline.


def test_halted_is_said_with_how_long_it_took() -> None:
    assert first_line([one(V), one(A)]) == "HALTED  verified in 2.3 s, looked at again after 5 s"


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        ([V, F], "1 of 2 steps failed"),
        ([F, V, F, U], "2 of 4 steps failed, 1 unknown"),
        ([S], "1 of 1 steps sent"),
        ([K, S, U], "1 of 3 steps skipped, 1 sent, 1 unknown"),
        ([], "no system is configured"),
    ],
    ids=str,
)
def test_not_halted_is_said_with_what_is_missing(outcomes: list[Outcome], words: str) -> None:
    line = first_line([one(outcome) for outcome in outcomes])
    assert line == f"NOT HALTED  {words}, after 8.0 s"


def test_what_only_tells_or_records_is_not_counted() -> None:
    alert = step(target("chat", F), name="telegram", evidence=True)
    assert first_line([one(F), alert]).startswith("NOT HALTED  1 of 1 steps failed,")
    assert first_line([alert]).startswith("NOT HALTED  no system is configured")


def test_an_order_that_performed_nothing_is_no_halt() -> None:
    looked = replace(report([one(A)]), halted=False)
    line = headline(looked, stay_down_s=5.0)
    assert line == "NOT HALTED  nothing was performed, after 8.0 s"


def test_a_drill_that_passed_counts_its_targets() -> None:
    two = step(target("a", R), target("b", A))
    assert first_line([two, one(R)], Mode.DRILL) == (
        "DRILL PASSED  2 targets rehearsed, 1 already ended, nothing changed"
    )
    assert first_line([one(R)], Mode.DRILL) == "DRILL PASSED  1 target rehearsed, nothing changed"


def test_a_drill_that_did_not_pass_counts_its_steps() -> None:
    assert first_line([one(R), one(U), one(F)], Mode.DRILL) == "DRILL NOT PASSED  2 of 3 steps"
    assert first_line([], Mode.DRILL) == "DRILL NOT PASSED  no system is configured"
    assert first_line([one(A)], Mode.DRILL).endswith(
        "nothing was live, so nothing could be rehearsed"
    )


# What follows it.


def test_a_good_halt_has_nothing_to_add() -> None:
    assert answer_lines(report([one(V)])) == []


def test_what_is_live_is_told_first_with_what_to_do_by_hand() -> None:
    note = Note("positions", "2 positions stay open", "close them by hand")
    bad = step(
        target("key 1", V, "gone"),
        target("key 2", F, "still live: delete", live=True),
        target("orders", U, "no answer"),
        target("mount", S),
        name="bybit",
        notes=(note,),
    )
    lines = answer_lines(report([one(V), bad], degraded=("telegram ops: 403",)))
    assert lines[:3] == [
        Line("live", "bybit prod: key 2: still live: delete"),
        Line("unknown", "bybit prod: orders: no answer"),
        Line("sent", "bybit prod: mount"),
    ]
    assert lines[3].label == "by hand"
    assert "bybit.com" in lines[3].text
    assert lines[4:] == [
        Line("evidence", "telegram ops: 403"),
        Line("positions", "2 positions stay open", "close them by hand"),
    ]


@pytest.mark.parametrize("name", ["kubernetes", "synced-secrets", "bybit", "kakunin", "vault"])
def test_every_system_can_be_ended_by_hand(name: str) -> None:
    bad = step(target("x", F), name=name)
    assert [line.label for line in answer_lines(report([bad]))] == ["failed", "by hand"]


def test_a_long_list_is_cut_and_counted() -> None:
    bad = step(*(target(f"pod {number}", F, live=True) for number in range(9)), name="other")
    lines = answer_lines(report([bad]))
    assert [line.label for line in lines] == ["live"] * 6 + [""]
    assert lines[-1].text == "and 3 more in other prod"


def test_in_a_drill_alerts_count_and_nothing_is_to_be_done_by_hand() -> None:
    alert = step(target("chat", F, "403"), name="telegram", evidence=True)
    bad = step(target("path", U, "no answer"))
    lines = answer_lines(report([bad, alert], mode=Mode.DRILL))
    assert lines == [
        Line("unknown", "vault prod: path: no answer"),
        Line("failed", "telegram prod: chat: 403"),
    ]
    assert answer_lines(report([one(V), alert])) == [], "a halt tells it as evidence"


def test_a_key_whose_counter_went_back_is_told() -> None:
    lines = answer_lines(report([one(V)], proof=replace(PROOF, counter_regressed=True)))
    assert lines == [Line("warning", 'the counter of key "blue" went back: a copy?')]
    assert answer_lines(report([one(V)], proof=None)) == []


# Who.


@pytest.mark.parametrize(
    ("mode", "proof", "words"),
    [
        (Mode.LIVE, PROOF, 'halt 20261121-0314-k7q2, key "blue" (anna), 03:14:07 UTC'),
        (Mode.DRILL, PROOF, 'drill 20261121-0314-k7q2, key "blue" (anna), 03:14:07 UTC'),
        (Mode.LIVE, None, "halt 20261121-0314-k7q2"),
    ],
)
def test_who_ordered_it_is_told(mode: Mode, proof: Proof | None, words: str) -> None:
    assert touched_by(report([one(V)], mode=mode, proof=proof)) == words


# One step in one line.


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (step(target("prod", F, "refused"), error="connection refused"), "connection refused"),
        (step(target("a", F, "still live: wipe"), target("b", V)), "a: still live: wipe"),
        (step(target("a", U, "cut"), target("b", U), target("c", S)), "a: cut (and 1 more)"),
        (step(target("a", A, "no key left")), "no key left"),
        (step(target("a", V, "gone", attempt("wipe", "204"))), "gone; wipe"),
        (
            step(
                target("a", V, "gone", attempt("wipe", "204")),
                target("b", V, "gone", attempt("wipe", error="cut"), attempt("wipe", "204")),
            ),
            "gone; wipe x2",
        ),
        (
            step(target("a", V, "no longer there", attempt("cut", "ok"), attempt("wipe", "204"))),
            "cut, wipe",
        ),
        (step(target("a", V, "gone", attempt("wipe", error="cut"))), "gone"),
        (step(target("a", A, "whole"), target("b", V, "gone", attempt("wipe"))), "gone; wipe"),
        (step(target("m", V, "event 7", attempt("append", "ok")), evidence=True), "event 7"),
        (step(target("a", R, "may delete", attempt("wipe", "may delete"))), "may wipe"),
    ],
)
def test_a_step_is_told_in_one_line(result: StepResult, line: str) -> None:
    assert summary(result) == f"prod: {line}"


def test_an_error_that_is_over_is_not_told() -> None:
    assert summary(step(target("a", V, "gone"), error="connection refused")) == "prod: gone"


@pytest.mark.parametrize("outcome", [F, U, S, K])
def test_no_line_of_a_step_that_is_not_well_sounds_as_if_it_were(outcome: Outcome) -> None:
    result = step(target("a", outcome, "why", attempt("wipe", "204")), target("b", V, "gone"))
    assert summary(result) == "prod: a: why"


def test_several_targets_that_were_only_sent_are_told_by_their_number() -> None:
    result = step(target("a", S, "ended, not yet looked at again"), target("b", S, "ended"))
    assert summary(result) == "prod: 2 targets ended, not yet looked at again"
