"""What the engine does with one step, in the order in which it does it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from killswitch.converge import Limits
from killswitch.errors import RefusedError, UnreachableError
from killswitch.ledger import Ledger, hides
from killswitch.model import Action, Blind, Clear, Mode, Note, Outcome, Plan, Receipt, StepResult
from killswitch.verdict import Intent
from tests.engine.simulator import Simulator, make_assignment

LIMITS = Limits()


@dataclass
class Scripted:
    """A step whose looks are written down one by one; the last one repeats."""

    looks: list[Plan | Exception]
    deeds: list[str] = field(default_factory=list)
    name: str = "scripted"
    system: str = "one"
    evidence: bool = False

    def plan(self) -> Plan:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, Exception):
            raise look
        return look

    def action(
        self, target: str, *, phase: int = 1, withheld: str = "", fails: Exception | None = None
    ) -> Action:
        def deed(kind: str) -> Callable[[], Receipt]:
            def do() -> Receipt:
                self.deeds.append(f"{kind} {target}")
                if fails is not None:
                    raise fails
                return Receipt(f"{target} {kind}ed")

            return do

        return Action(
            "end", target, deed("perform"), deed("rehears"), phase=phase, withheld=withheld
        )


GONE = Plan(clear=(Clear("a", "gone"),))


def carry_out(
    step: Scripted, intent: Intent = Intent.PERFORM, known: frozenset[str] = frozenset()
) -> tuple[StepResult, Simulator]:
    simulator = Simulator(seed=1)
    mode = Mode.LIVE if intent is Intent.PERFORM else Mode.DRILL
    assignment = make_assignment(
        (step,), intent=intent, mode=mode, known={("scripted", "one"): known}
    )
    report = simulator.run(assignment, LIMITS)
    return report.results[0], simulator


def test_what_has_ended_before_the_first_look_is_already_done() -> None:
    step = Scripted([GONE])
    result, _ = carry_out(step)
    assert result.outcome is Outcome.ALREADY
    assert step.deeds == []


def test_what_was_performed_is_verified_only_when_it_was_read_back_twice() -> None:
    step = Scripted([])
    step.looks = [Plan(live=(step.action("a"),)), GONE]
    result, _ = carry_out(step)
    assert result.outcome is Outcome.VERIFIED
    assert result.looks == 3


def test_the_lowest_phase_is_performed_first_and_all_of_it_at_once() -> None:
    step = Scripted([])
    late, early, twin = step.action("c", phase=2), step.action("a"), step.action("b")
    step.looks = [Plan(live=(late, early, twin)), Plan(live=(late,), clear=GONE.clear), GONE]
    carry_out(step)
    assert sorted(step.deeds[:2]) == ["perform a", "perform b"]
    assert step.deeds[2] == "perform c"


def test_a_refused_phase_does_not_hold_up_the_next_one() -> None:
    step = Scripted([])
    latch = step.action("a", phase=1, fails=RefusedError("not allowed"))
    both = Plan(live=(latch, step.action("b", phase=2)))
    step.looks = [both, both, Plan(live=(latch,))]
    result, simulator = carry_out(step)
    assert step.deeds[:2] == ["perform a", "perform b"]
    outcomes = {target.target: target.outcome for target in result.targets}
    assert outcomes == {"a": Outcome.FAILED, "b": Outcome.VERIFIED}
    assert simulator.time < 1_010, "nothing more could help, so nobody had to wait"


def test_a_phase_without_progress_is_given_up_after_its_budget() -> None:
    step = Scripted([])
    deaf = step.action("a", phase=1, fails=UnreachableError("no answer"))
    step.looks = [Plan(live=(deaf, step.action("b", phase=2)))]
    result, _ = carry_out(step)
    assert "perform b" in step.deeds
    assert result.outcome is Outcome.FAILED


def test_a_withheld_action_is_not_performed_and_still_counts_as_live() -> None:
    step = Scripted([])
    step.looks = [Plan(live=(step.action("a", withheld="kept for a second run"),))]
    result, _ = carry_out(step)
    assert step.deeds == []
    assert result.outcome is Outcome.SKIPPED
    assert [target.target for target in result.left_live] == ["a"]


def test_a_drill_rehearses_every_phase_and_performs_nothing() -> None:
    step = Scripted([])
    live = (step.action("a"), step.action("b", phase=2), step.action("c", phase=3, withheld="last"))
    step.looks = [Plan(live=live)]
    result, _ = carry_out(step, Intent.REHEARSE)
    assert sorted(step.deeds) == ["rehears a", "rehears b", "rehears c"]
    assert result.outcome is Outcome.REHEARSED


def test_a_refused_rehearsal_fails_the_drill_with_its_reason() -> None:
    step = Scripted([])
    step.looks = [Plan(live=(step.action("a", fails=RefusedError("may not delete")),))]
    result, _ = carry_out(step, Intent.REHEARSE)
    assert result.outcome is Outcome.FAILED
    assert result.targets[0].saw == "may not delete"


def test_status_looks_and_does_nothing() -> None:
    step = Scripted([])
    step.looks = [Plan(live=(step.action("a"),))]
    result, _ = carry_out(step, Intent.LOOK)
    assert step.deeds == []
    assert result.looks == 1


def test_a_look_that_is_refused_is_a_failure_not_nothing_to_do() -> None:
    result, simulator = carry_out(Scripted([RefusedError("401 unauthorized")]))
    assert result.outcome is Outcome.FAILED
    assert result.error == "401 unauthorized"
    assert simulator.time < 1_010


def test_a_look_that_finds_no_target_at_all_is_a_failure() -> None:
    result, _ = carry_out(Scripted([Plan()]))
    assert result.outcome is Outcome.FAILED


def test_an_unreachable_system_is_tried_again_until_it_answers() -> None:
    step = Scripted([])
    live = Plan(live=(step.action("a"),))
    step.looks = [UnreachableError("reset"), UnreachableError("reset"), live, GONE]
    result, _ = carry_out(step)
    assert result.outcome is Outcome.VERIFIED


def test_a_blind_part_withholds_the_verdict_until_it_is_seen() -> None:
    step = Scripted([])
    blind = Plan(clear=GONE.clear, blind=(Blind("b", "timed out"),))
    seen = Plan(clear=(*GONE.clear, Clear("b", "gone")))
    step.looks = [blind]
    assert carry_out(step)[0].outcome is Outcome.UNKNOWN
    step.looks = [blind, seen]
    assert carry_out(step)[0].outcome is Outcome.ALREADY


def test_a_blind_part_that_is_never_mentioned_again_stays_unknown() -> None:
    step = Scripted([Plan(clear=GONE.clear, blind=(Blind("b", "timed out"),)), GONE])
    assert carry_out(step)[0].outcome is Outcome.UNKNOWN


def test_an_absence_counts_only_for_what_was_seen_before() -> None:
    absent = Plan(clear=(Clear("a", "404", only_if_known=True),))
    assert carry_out(Scripted([absent]))[0].outcome is Outcome.UNKNOWN
    known, _ = carry_out(Scripted([absent]), known=frozenset({"a"}))
    assert known.outcome is Outcome.ALREADY
    step = Scripted([])
    step.looks = [Plan(live=(step.action("a"),)), absent]
    assert carry_out(step)[0].outcome is Outcome.VERIFIED


def test_what_comes_back_after_the_first_clean_look_is_ended_again() -> None:
    step = Scripted([])
    live = Plan(live=(step.action("a"),))
    step.looks = [live, GONE, live, GONE]
    result, _ = carry_out(step)
    assert result.outcome is Outcome.VERIFIED
    assert step.deeds == ["perform a", "perform a"]
    assert result.looks == 5


def test_a_bug_in_a_step_costs_only_that_step_and_its_text_is_not_shown() -> None:
    step = Scripted([KeyError("hunter2")])
    result, _ = carry_out(step)
    assert result.outcome is Outcome.FAILED
    assert "KeyError" in result.error
    assert "hunter2" not in result.error


def test_notes_are_kept_once_however_often_they_are_seen() -> None:
    note = Note("still open", "BTCUSDT long 0.40")
    step = Scripted([Plan(clear=GONE.clear, notes=(note,))])
    assert carry_out(step)[0].notes == (note,)


def test_a_late_look_is_not_evidence_but_a_late_receipt_is_kept() -> None:
    ledger = Ledger("s", "one", evidence=False, known=frozenset(), origin=0.0)
    action = Scripted([]).action("a")
    ledger.looked(Plan(live=(action,)), started=0, ended=1)
    ledger.act_failed(action, "no answer within 12.0 s", lasting=False, started=1, ended=13)
    ledger.acted(action, Receipt("ended"), started=1, ended=20)
    (target,) = ledger.result(Intent.PERFORM).targets
    assert [attempt.summary or attempt.error for attempt in target.attempts] == [
        "no answer within 12.0 s",
        "ended",
    ]
    assert target.outcome is Outcome.SENT


def test_a_blind_path_hides_itself_and_what_is_below_it() -> None:
    assert hides("sub 1", "sub 1")
    assert hides("sub 1", "sub 1/key …f3Qa")
    assert hides("", "anything")
    assert not hides("sub 1", "sub 12/key …f3Qa")
