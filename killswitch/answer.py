"""The answer of a run in words: the same lines on the screen, in the alert and in reports."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from killswitch.model import VANISHED, HaltReport, Mode, Outcome, StepResult, TargetResult

_BY_HAND: Final = {
    "kubernetes": "in its context and namespace: kubectl delete pods, the trader's, with"
    " --grace-period=1; then scale to 0",
    "synced-secrets": "in its context and namespace: kubectl delete pushsecrets and"
    " externalsecrets, then the Secrets by name",
    "bybit": "https://www.bybit.com/app/user/api-management: delete the keys, cancel the orders",
    "kakunin": "Kakunin console > Agents: halt them, revoke their certificates",
    "vault": "vault kv metadata delete, path by path; a whole mount: vault secrets disable",
}
_MOST_TARGETS: Final = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the answer: a short label, what it says, and perhaps what to do about it."""

    label: str
    text: str
    hint: str = ""


def mode_word(mode: Mode, *, sandbox: bool) -> str:
    """Return the word that begins every line of a run."""
    return "SANDBOX" if sandbox else mode.value.upper()


def headline(report: HaltReport, *, stay_down_s: float) -> str:
    """Return the first line: the verdict and how long it took."""
    if report.order.mode is Mode.DRILL:
        return _drill_headline(report)
    if not report.halted:
        return f"NOT HALTED  {_count(report)}, after {report.elapsed_s:.1f} s"
    verified_s = report.verified_s or 0.0
    return f"HALTED  verified in {verified_s:.1f} s, looked at again after {stay_down_s:g} s"


def answer_lines(report: HaltReport) -> list[Line]:
    """Return what follows the headline, most important first."""
    lines = list(_trouble(report))
    lines += [Line("evidence", reason) for reason in report.degraded]
    lines += [Line(note.kind, note.text, note.hint) for note in report.not_done]
    if report.proof and report.proof.counter_regressed:
        lines.append(
            Line("warning", f'the counter of key "{report.proof.key_label}" went back: a copy?')
        )
    return lines


def touched_by(report: HaltReport) -> str:
    """Return who ordered it, with which key, when."""
    name = "drill" if report.order.mode is Mode.DRILL else "halt"
    if report.proof is None:
        return f"{name} {report.order.id}"
    at = f"{report.started_at:%H:%M:%S} UTC"
    key, operator = report.proof.key_label, report.proof.operator
    return f'{name} {report.order.id}, key "{key}" ({operator}), {at}'


def summary(result: StepResult) -> str:
    """Return one step in one line: what is wrong, or what was done and what is seen now."""
    if result.error and not result.outcome.ended:
        return f"{result.system}: {result.error}"
    worst = [target for target in result.targets if target.outcome is result.outcome]
    if not result.outcome.good:
        first = worst[0]
        if result.outcome is Outcome.SENT and len(worst) > 1:
            return f"{result.system}: {len(worst)} targets {first.saw}"
        more = f" (and {len(worst) - 1} more)" if len(worst) > 1 else ""
        return f"{result.system}: {_target(first)}{more}"
    if result.outcome is Outcome.REHEARSED:
        return f"{result.system}: may {_done(result)}"
    acted = [target for target in result.targets if target.attempts]
    shown = sorted(acted or result.targets, key=lambda target: -len(target.attempts))
    seen = [target.saw for target in shown if target.saw not in {"", VANISHED}]
    parts = list(dict.fromkeys(seen))
    if not result.evidence:
        parts.append(_done(result))
    return f"{result.system}: {'; '.join(filter(None, parts))}"


def _done(result: StepResult) -> str:
    """Name each kind of action that was answered well, and on how many targets."""
    done = Counter(
        verb
        for target in result.targets
        for verb in dict.fromkeys(each.verb for each in target.attempts if not each.error)
    )
    return ", ".join(verb if count == 1 else f"{verb} x{count}" for verb, count in done.items())


def _drill_headline(report: HaltReport) -> str:
    if report.passed:
        targets = [target for result in report.results for target in result.targets]
        count = sum(target.outcome is Outcome.REHEARSED for target in targets)
        ended = f", {len(targets) - count} already ended" if count < len(targets) else ""
        many = "s" if count != 1 else ""
        return f"DRILL PASSED  {count} target{many} rehearsed{ended}, nothing changed"
    if all(result.evidence for result in report.results):
        return "DRILL NOT PASSED  no system is configured"
    bad = [result for result in report.results if not result.outcome.good]
    if not bad and report.degraded:
        return "DRILL NOT PASSED  all was rehearsed, but the evidence or the keys are in doubt"
    if not bad:
        return "DRILL NOT PASSED  nothing was live, so nothing could be rehearsed"
    return f"DRILL NOT PASSED  {len(bad)} of {len(report.results)} steps"


def _count(report: HaltReport) -> str:
    steps = [result for result in report.results if not result.evidence]
    counted = Counter(result.outcome for result in steps if not result.outcome.ended)
    if not steps:
        return "no system is configured"
    if not counted:
        return "nothing was performed"
    (first, count), *others = counted.items()
    words = [f"{count} of {len(steps)} steps {first.value}"]
    return ", ".join([*words, *(f"{count} {outcome.value}" for outcome, count in others)])


def _trouble(report: HaltReport) -> Iterator[Line]:
    for result in report.results:
        if result.evidence and report.order.mode is not Mode.DRILL:
            continue
        if result.outcome.good:
            continue
        bad = sorted((t for t in result.targets if not t.outcome.good), key=_urgency)
        for target in bad[:_MOST_TARGETS]:
            label = "live" if target.live else target.outcome.value
            yield Line(label, f"{result.step} {result.system}: {_target(target)}")
        if len(bad) > _MOST_TARGETS:
            yield Line("", f"and {len(bad) - _MOST_TARGETS} more in {result.step} {result.system}")
        if report.order.mode is Mode.LIVE and result.step in _BY_HAND:
            yield Line("by hand", _BY_HAND[result.step])


def _urgency(target: TargetResult) -> tuple[bool, int]:
    # What is cut off at the end of a long list must be the least of it.
    return (not target.live, list(Outcome).index(target.outcome))


def _target(target: TargetResult) -> str:
    return f"{target.target}: {target.saw}" if target.saw else target.target
