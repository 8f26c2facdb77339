"""`killswitch report` and `killswitch resolve`: what a halt did, and that it is over."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from killswitch.cli.journal import journal_path, read_events
from killswitch.cli.session import Session
from killswitch.errors import NotAuthorizedError, UsageError

if TYPE_CHECKING:
    from killswitch.authority.ring import KeyRing
    from killswitch.config import Config
    from killswitch.journal.history import PastHalt
    from killswitch.journal.store import Body

_UNRESOLVED: Final = "the halt is not resolved"
RECOVERY: Final = (
    "find the cause; write the report that is due (killswitch report)",
    "make new credentials at every vendor; the old ones stay revoked",
    "seal them: killswitch secrets rotate NAME, for each",
    "put secrets and certificates back in place, by hand, system by system",
    "prove it while no pod runs: killswitch status --touch, then killswitch drill",
    "only then let it trade: kubectl delete resourcequota, then scale up",
)
"""What a person does after the release, in this order."""

IdArgument = Annotated[
    str, typer.Argument(metavar="[ID]", help="The halt or drill; by default the newest.")
]


def report(
    session: Session,
    *,
    order_id: IdArgument = "",
    journal: Annotated[
        Path | None, typer.Option("--journal", metavar="FILE", help="Read this journal.")
    ] = None,
) -> None:
    """Print what the journal holds about a halt or drill: step by step, with times."""
    path = journal_path(session, journal)
    body = _completed(path, order_id)
    data: dict[str, Any] = body.data
    session.terminal.document(data)
    order, proof = data["order"], data["proof"] or {}
    word = "SANDBOX" if data["sandbox"] else str(order["mode"]).upper()
    drill = order["mode"] == "drill"
    good = bool(data["passed"] if drill else data["halted"])
    ended = ("PASSED" if good else "NOT PASSED") if drill else ("HALTED" if good else "NOT HALTED")
    session.terminal.verdict(f"{ended}  {word.lower()} {order['id']}", good=good)
    say = session.terminal.result
    say(f" {'ordered':<11} {order['issued_at']} by {proof.get('operator', 'nobody')}")
    for key in ("reason", "trigger_value", "incident"):
        if order[key]:
            say(f" {key.replace('_', ' '):<11} {order[key]}")
    say(f" {'took':<11} {data['elapsed_s']} s, first read back clean after {data['verified_s']} s")
    for result in data["results"]:
        say("")
        say(f" {result['outcome']:<11} {result['step']} {result['system']}  {result['error']}")
        for target in result["targets"]:
            say(f"   {target['outcome']:<11} {target['target']}: {target['saw']}")
            for attempt in target["attempts"]:
                said = attempt["summary"] or f"failed: {attempt['error']}"
                say(f"     {attempt['started_s']:7.3f} s  {attempt['verb']}: {said}")
    for note in data["not_done"]:
        say(f" {note['kind']:<11} {note['text']}  {note['hint']}")


def resolve(
    session: Session,
    *,
    halt: Annotated[str, typer.Argument(metavar="HALT", help="The halt's id.")],
    note: Annotated[str, typer.Option("--note", help="What was found and done.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Stand for the sandbox's software key.")
    ] = False,
) -> None:
    """Write down, with a touch, that a halt is over. It restarts nothing.

    It takes a key whose role may release, its PIN, and, where the configuration says so, another
    operator than the one who halted. The event is appended; the halt's own stay as they are.
    """
    from killswitch.authority.ring import KeyRing
    from killswitch.cli.authorise import refuse_regressed, remember_counter, take_touch
    from killswitch.cli.record import append, demand_admitted
    from killswitch.cli.sealed import find_sealed
    from killswitch.config import load_config
    from killswitch.document import proof_document
    from killswitch.journal.history import RESOLVED, History
    from killswitch.journal.store import Journal
    from killswitch.model import Mode
    from killswitch.orders import make_order

    config = load_config(session.demand_config())
    past = {item.id: item for item in History(read_events(config.journal_file)).halts()}
    if halt not in past or past[halt].resolved:
        known = [item.id for item in past.values() if not item.resolved]
        raise UsageError(
            f"there is no unresolved halt {halt}",
            effect="nothing was written",
            hint=f"unresolved: {', '.join(known) or 'none'}",
        )
    log = Journal(config.journal_file)
    order = make_order(
        mode=Mode.RELEASE,
        scope=[f"resolve {halt}"],
        config_sha256=config.sha256,
        head=log.head(),
        now=session.now(),
        random_bytes=session.random_bytes,
        reason=note,
        incident=halt,
        bundle_sha256=find_sealed(config).bundle.sha256,
    )
    ring = KeyRing.load(config.key_file)
    demand_admitted(config, ring, effect=_UNRESOLVED)
    releasers = _releasers(config, ring, past[halt])
    proof = take_touch(session, config, order, releasers, yes=yes, effect=_UNRESOLVED).proof
    refuse_regressed(proof, effect=_UNRESOLVED)
    data = {
        "halt": halt,
        "note": note,
        "order": order.to_bytes().decode(),
        "proof": proof_document(proof),
    }
    append(session, config, RESOLVED, f"{order.id}.resolved", data, effect=_UNRESOLVED)
    remember_counter(session, config, proof)
    session.terminal.document({"schema_version": 1, "document": "resolved", "halt": halt})
    session.terminal.result(f"halt {halt} is resolved; nothing was started again")
    for number, step in enumerate(RECOVERY, 1):
        session.terminal.result(f" {number}. {step}")
    session.terminal.hint('in full: docs/runbook.md, "After"')


def _releasers(config: "Config", ring: "KeyRing", halt: "PastHalt") -> "KeyRing":
    """Return the keys that may release this halt; raises NotAuthorizedError when none may."""
    from killswitch.authority.ring import KeyRing

    if not config.keys.release_by_another:
        return ring
    others = tuple(key for key in ring.keys if key.operator != halt.operator)
    if not others:
        raise NotAuthorizedError(
            f"{halt.operator} ordered this halt, and another operator has to release it",
            effect=_UNRESOLVED,
            hint="enrol a key of another operator: killswitch keys enroll --role release",
        )
    return KeyRing(others)


def _completed(path: Path, order_id: str) -> "Body":
    from killswitch.journal.history import History

    bodies = History(read_events(path)).reports()
    found = [body for body in bodies if not order_id or body.id == f"{order_id}.completed"]
    if not found:
        raise UsageError(
            f"no report of {order_id}" if order_id else f"no halt or drill in {path}",
            effect="nothing was changed",
            hint="killswitch status names the halts that never reported back",
        )
    return found[-1]
