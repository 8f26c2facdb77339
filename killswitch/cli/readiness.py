"""Would a halt work today, and what is live: what `killswitch status` looks at and says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final

from killswitch.answer import summary
from killswitch.authority.ring import EnrolledKey, KeyRing
from killswitch.cli.session import Session
from killswitch.config import Config, load_config
from killswitch.converge import Limits
from killswitch.errors import KillswitchError, UnreachableError
from killswitch.exit_codes import ExitCode
from killswitch.halt import Assignment, carry_out
from killswitch.journal.check import check
from killswitch.journal.fallback import FallbackLog
from killswitch.journal.history import History
from killswitch.journal.store import Event, Head, Journal
from killswitch.journal.verify import Finding
from killswitch.model import HaltReport, Mode, Outcome, StepResult
from killswitch.orders import make_order
from killswitch.runner import Runner
from killswitch.sources import Sources
from killswitch.steps.telegram import Message
from killswitch.verdict import Intent
from killswitch.wiring import units

FEWEST_KEYS: Final = 2
_LIMITS: Final = replace(
    Limits(), deadline_s=8.0, wrap_up_s=0.5, look_s=6.0, act_s=6.0, phase_s=2.0
)


_MEND: Final = {
    "kubernetes": "kubectl get pods, with the same kubeconfig and context, names the reason",
    "bybit": "bybit web > API: is the key alive, a master's, and bound to this address?",
    "kakunin": "Kakunin console > API keys, and the agents' ids",
    "vault": "vault token lookup and vault kv list, with the same token and path",
    "telegram": "is the bot in the chat, and its token the right one?",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the status: what it is about, what is known, and how to mend it."""

    label: str
    text: str
    mend: str = ""

    @property
    def good(self) -> bool:
        """True when nothing is to be mended."""
        return not self.mend


def show(session: Session) -> ExitCode:
    """Look at everything that a halt needs, print it, and return the exit code."""
    config = load_config(session.demand_config())
    events, trouble = _events(config)
    past = History(events)
    rows = [_keys(config), _drill(session, config, past), _journal(config, events, trouble)]
    report = _look(session, config, past)
    rows += [_system(result) for result in report.results]
    if all(result.evidence for result in report.results):
        mend = "add a section for each: killswitch init shows how"
        rows.append(Row("systems", "none to halt is configured", mend))
    rows += _halts(past)
    bad = [row for row in rows if not row.good]
    word = "ARMED" if not bad else "NOT READY"
    count = (
        f"{len(bad)} thing{'s' if len(bad) != 1 else ''} to mend" if bad else "a halt would work"
    )
    digest = f"{config.path.name} ({config.sha256[:4]} {config.sha256[4:8]})"
    session.terminal.verdict(f"{word}  {count}    {digest}", good=not bad)
    for row in rows:
        session.terminal.result(f" {row.label:<11} {row.text}")
        if row.mend:
            session.terminal.result(f" {'':<11} mend: {row.mend}")
    session.terminal.document(_document(config, rows, report))
    return ExitCode.NOT_READY if bad else ExitCode.OK


def _keys(config: Config) -> Row:
    try:
        keys = KeyRing.load(config.key_file).keys
    except KillswitchError as error:
        return Row("keys", error.problem, error.hint or "killswitch keys enroll")
    names = ", ".join(f'"{key.label}" {key.operator}' for key in keys)
    text = f"{names}: {len(keys)} enrolled"
    if config.sandbox is None and len(keys) < FEWEST_KEYS:
        return Row("keys", text, "enrol a second key: killswitch keys enroll")
    return Row("keys", text)


def _ring(config: Config) -> tuple[EnrolledKey, ...]:
    try:
        return KeyRing.load(config.key_file).keys
    except KillswitchError:
        return ()


def _drill(session: Session, config: Config, past: History) -> Row:
    last = past.last_drill()
    if last is None:
        return Row("drill", "none in this journal", "killswitch drill")
    age = session.now() - last.at
    text = f"{age.days} days ago" if age.days else "today"
    if not last.passed:
        return Row("drill", f"{text}, not passed", "killswitch drill")
    due = timedelta(days=config.drill.every_days)
    if age > due:
        return Row("drill", f"{text}, overdue since {(age - due).days} days", "killswitch drill")
    return Row("drill", f"{text}, passed; the next is due in {(due - age).days} days")


def _journal(config: Config, events: Sequence[Event], trouble: str) -> Row:
    if trouble:
        return Row("journal", trouble, "make the file readable and writable")
    verdict, touches = check(events, _ring(config))
    if verdict.finding is Finding.TAMPERED:
        text = f"event {verdict.bad_seq}: {verdict.problem}"
        return Row("journal", text, "killswitch journal verify, then ask who wrote to it")
    waiting = len(FallbackLog(config.fallback_file).waiting())
    if waiting:
        return Row("journal", f"{waiting} events in the fallback file", "killswitch journal repair")
    return Row("journal", f"{verdict.size} events, intact, {touches} touches verified")


def _system(result: StepResult) -> Row:
    text = f"{result.system}: {_sight(result)}"
    trouble = result.outcome in {Outcome.FAILED, Outcome.UNKNOWN}
    mend = _MEND.get(result.step, "killswitch config check") if trouble else ""
    return Row(result.step, f"{'?' if trouble else 'ok'}  {text}", mend)


def _sight(result: StepResult) -> str:
    if result.outcome in {Outcome.FAILED, Outcome.UNKNOWN}:
        return summary(result).removeprefix(f"{result.system}: ")
    live = [target.target for target in result.left_live]
    if not live or result.evidence:
        return summary(result).removeprefix(f"{result.system}: ") if not live else "reachable"
    shown = ", ".join(live[:3])
    more = f" and {len(live) - 3} more" if len(live) > 3 else ""  # noqa: PLR2004 (three fit a line)
    return f"{len(live)} live: {shown}{more}"


def _halts(past: History) -> list[Row]:
    halts = [halt for halt in past.halts() if not halt.resolved]
    if not halts:
        return [Row("halts", "none unresolved")]
    return [
        Row(
            "halts",
            f"{halt.id} ordered {halt.ordered_at}, unresolved, "
            + {True: "halted", False: "NOT halted", None: "it never reported back"}[halt.halted]
            + f"; when trading may start again: killswitch resolve {halt.id}",
            "" if halt.halted else "killswitch --revoke, until it says HALTED",
        )
        for halt in halts
    ]


def _look(session: Session, config: Config, past: History) -> HaltReport:
    sources = Sources(config.resolve, session.environment)
    ended = past.ended(session.now())
    parts = units(config, sources, lambda step, system: ended.get((step, system), frozenset()))
    for unit in parts:
        sources.start(unit.sources)
    order = make_order(
        mode=Mode.DRILL,
        scope=(),
        config_sha256=config.sha256,
        head=Head(0, ""),
        now=session.now(),
        random_bytes=session.random_bytes,
    )
    nothing = partial(Message, title="status", lines=())
    assignment = Assignment(
        order=order,
        proof=None,
        intent=Intent.LOOK,
        steps=tuple(unit.step(nothing, may_write=False) for unit in parts),
        started_at=session.now(),
        known=past.seen(),
    )
    return Runner().run(lambda now: carry_out(assignment, _LIMITS, now))


def _events(config: Config) -> tuple[list[Event], str]:
    try:
        return Journal(config.journal_file).events(), ""
    except UnreachableError as error:
        return [], error.problem


def _document(config: Config, rows: Sequence[Row], report: HaltReport) -> dict[str, object]:
    from killswitch.document import SCHEMA_VERSION, report_document

    return {
        "schema_version": SCHEMA_VERSION,
        "document": "status",
        "armed": all(row.good for row in rows),
        "config": str(config.path),
        "config_sha256": config.sha256,
        "rows": [{"label": row.label, "text": row.text, "mend": row.mend} for row in rows],
        "results": report_document(report, sandbox=config.sandbox is not None)["results"],
    }
