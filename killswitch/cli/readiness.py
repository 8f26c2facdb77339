"""Would a halt work today, and what is live: what `killswitch status` looks at and says."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from killswitch.answer import summary
from killswitch.authority.changes import admitted, ring_trouble
from killswitch.authority.ring import KeyRing
from killswitch.cli.looking import Look
from killswitch.cli.sealed import Sealed, find_sealed
from killswitch.cli.session import Session
from killswitch.config import Config, load_config
from killswitch.errors import KillswitchError, UnreachableError
from killswitch.exit_codes import ExitCode
from killswitch.journal.check import Checked, check
from killswitch.journal.fallback import FallbackLog
from killswitch.journal.history import History
from killswitch.journal.store import Event, Head, Journal
from killswitch.journal.verify import Finding
from killswitch.model import HaltReport, Mode, Outcome, StepResult
from killswitch.sources import name_of, sealed_names
from killswitch.unit import Unit

FEWEST_KEYS: Final = 2
_MEND: Final = {
    "kubernetes": "kubectl get pods, with the same kubeconfig and context, names the reason",
    "synced-secrets": "kubectl auth can-i --list, with the same kubeconfig, context and namespace",
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


def show(session: Session, *, touch: bool = False, yes: bool = False) -> ExitCode:
    """Look at everything that a halt needs, print it, and return the exit code.

    With `touch` the sealed secrets are opened by one, and all is seen that a halt would see.
    """
    config = load_config(session.demand_config())
    events, trouble = _events(config)
    past = History(events)
    ring = _ring(config)
    checked = check(events, ring.keys)
    sealed = find_sealed(config)
    look = Look(session, config, past, sealed, touched=touch)
    rows = [_keys(config, checked), _drill(session, config, past)]
    rows.append(_journal(config, checked, trouble))
    rows += _secrets(config, ring, sealed, look.sources, past, good_ring=rows[0].good)
    if touch:
        look.unseal(
            admitted(ring, checked.keys), Head(checked.verdict.size, checked.verdict.head), yes=yes
        )
    report = look.report()
    rows += [_system(result) for result in report.results]
    rows += [_unseen(unit) for unit in look.unseen]
    if all(unit.evidence for unit in look.units):
        mend = "add a section for each: killswitch init shows how"
        rows.append(Row("systems", "none to halt is configured", mend))
    rows += _halts(past)
    bad = [row for row in rows if not row.good]
    word = "ARMED" if not bad else "NOT READY"
    count = (
        f"{len(bad)} thing{'s' if len(bad) != 1 else ''} to mend" if bad else "a halt would work"
    )
    if look.unseen and not bad:
        count = f"as far as can be seen without a touch: {len(look.unseen)} not looked at"
    digest = f"{config.path.name} ({config.sha256[:4]} {config.sha256[4:8]})"
    session.terminal.verdict(f"{word}  {count}    {digest}", good=not bad)
    for row in rows:
        session.terminal.result(f" {row.label:<14} {row.text}")
        if row.mend:
            session.terminal.result(f" {'':<14} mend: {row.mend}")
    session.terminal.document(_document(config, rows, report))
    return ExitCode.NOT_READY if bad else ExitCode.OK


def _keys(config: Config, checked: Checked) -> Row:
    try:
        ring = KeyRing.load(config.key_file)
    except KillswitchError as error:
        return Row("keys", error.problem, error.hint or "killswitch keys enroll")
    keys = ring.keys
    names = ", ".join(f'"{key.label}" {key.operator}' for key in keys)
    phrase = "a recovery phrase" if ring.recovery else "no recovery phrase"
    text = f"{names}: {len(keys)} enrolled, {phrase}"
    if trouble := ring_trouble(ring, checked.keys, checked.recovery):
        return Row("keys", trouble.problem, trouble.mend)
    if not any(key.may(Mode.LIVE.value) for key in keys):
        return Row("keys", f"{text}, none may halt", "killswitch keys enroll --role halt")
    if config.sandbox is None and len(keys) < FEWEST_KEYS:
        return Row("keys", text, "enrol a second key: killswitch keys enroll")
    return Row("keys", text)


def _ring(config: Config) -> KeyRing:
    try:
        return KeyRing.load(config.key_file)
    except KillswitchError:
        return KeyRing()


def _secrets(
    config: Config,
    ring: KeyRing,
    sealed: Sealed,
    sources: Sequence[str],
    past: History,
    *,
    good_ring: bool,
) -> list[Row]:
    """Say which secrets are sealed, which are not, and what is wrong with the sealed ones."""
    names = sealed_names(sources)
    bare = sorted({name_of(source) for source in sources if not sealed_names([source])})
    text = f"{len(names)} sealed, {len(bare)} not sealed"
    if bare:
        shown = ", ".join(bare[:2])
        text += f": {shown}{f' and {len(bare) - 2} more' if len(bare) > 2 else ''}"  # noqa: PLR2004 (two fit a line)
    rows = [Row("secrets", text)] if sources else []
    doubts = sealed.doubts(sources, config, ring, past)
    first = "" if good_ring else "the keys come first: see there"
    return rows + [Row("secrets", doubt.problem, first or doubt.mend) for doubt in doubts]


def _unseen(unit: Unit) -> Row:
    return Row(unit.kind, f"?   {unit.system}: sealed, not looked at; killswitch status --touch")


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


def _journal(config: Config, checked: Checked, trouble: str) -> Row:
    if trouble:
        return Row("journal", trouble, "make the file readable and writable")
    verdict = checked.verdict
    if verdict.finding is Finding.TAMPERED:
        text = f"event {verdict.bad_seq}: {verdict.problem}"
        return Row("journal", text, "killswitch journal verify, then ask who wrote to it")
    waiting = len(FallbackLog(config.fallback_file).waiting())
    if waiting:
        text = f"{waiting} event{'s' if waiting != 1 else ''} in the fallback file"
        return Row("journal", text, "killswitch journal repair")
    return Row("journal", f"{verdict.size} events, intact, {checked.touches} touches verified")


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
