"""`killswitch journal verify`: is the evidence what it was; `killswitch report`: what it says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from killswitch.cli.session import Session
from killswitch.errors import KillswitchError, UsageError

if TYPE_CHECKING:
    from killswitch.authority.ring import EnrolledKey
    from killswitch.journal.store import Event

FileArgument = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="A journal; by default the configured one.")
]


def verify_journal(
    session: Session,
    *,
    file: FileArgument = None,
    head: Annotated[
        str, typer.Option("--head", metavar="SIZE:HASH", help="A head that was kept elsewhere.")
    ] = "",
) -> None:
    """Check every link of the journal's chain and every touch in it.

    Exit code 0 intact, 6 changed or cut off. That a tail was cut off shows only against a head
    that was kept elsewhere: every RESULT alert ends with one. Give it with --head.
    """
    import msgspec

    from killswitch.exit_codes import ExitCode
    from killswitch.journal.check import check
    from killswitch.journal.verify import Finding

    path = journal_path(session, file)
    if not path.exists():
        raise UsageError(
            f"there is no journal at {path}",
            effect="nothing was checked",
            hint="killswitch drill writes the first events",
        )
    events = read_events(path)
    verdict, touches, *_ = check(events, enrolled_keys(session), anchor=head)
    intact = verdict.finding is Finding.INTACT
    session.terminal.document(
        {
            "schema_version": 1,
            "document": "journal-verify",
            "file": str(path),
            "touches": touches,
            **msgspec.to_builtins(verdict),
        }
    )
    if not intact:
        session.terminal.verdict(
            f"TAMPERED  event {verdict.bad_seq}: {verdict.problem}", good=False
        )
        session.terminal.result(f" {'file':<11} {path}")
        session.end(ExitCode.JOURNAL_TAMPERED)
    session.terminal.verdict(f"INTACT  {verdict.size} events", good=True)
    session.terminal.result(f" {'file':<11} {path}")
    session.terminal.result(f" {'touches':<11} {touches}, each fits its order and its key")
    session.terminal.result(f" {'head':<11} {verdict.size}:{verdict.head}")
    kept = f"{head} is in the chain" if head else "compare: --head SIZE:HASH of the newest alert"
    session.terminal.result(f" {'elsewhere':<11} {kept}")


def enrolled_keys(session: Session) -> "tuple[EnrolledKey, ...]":
    """Return the keys in the configured ring, for orders of keys enrolled elsewhere; or none."""
    from killswitch.authority.ring import KeyRing
    from killswitch.config import load_config

    found = session.find_config()
    try:
        return KeyRing.load(load_config(found).key_file).keys if found else ()
    except KillswitchError:
        return ()


def journal_path(session: Session, file: Path | None) -> Path:
    """Return the journal that a command means: named, configured, or the sandbox's own."""
    if file is not None:
        return file
    from killswitch.config import load_config

    found = session.find_config()
    if found is not None:
        return load_config(found).journal_file
    import platformdirs

    folder = platformdirs.user_state_path("killswitch")
    real = folder / "journal.db"
    return real if real.exists() else folder / "sandbox-journal.db"


def read_events(path: Path) -> "list[Event]":
    """Return the events of a journal; raises KillswitchError with words."""
    from killswitch.errors import UnreachableError
    from killswitch.journal.store import Journal

    try:
        return Journal(path).events()
    except UnreachableError as error:
        raise KillswitchError(
            error.problem, effect="nothing was changed", hint="name another: --config, or FILE"
        ) from error


def repair(session: Session) -> None:
    """Take the events that had to go into the fallback file into the journal, as new events."""
    from killswitch.cli.record import take_if_good
    from killswitch.config import load_config
    from killswitch.errors import ConfigError, UnreachableError
    from killswitch.journal.fallback import FallbackLog
    from killswitch.journal.store import NewEvent

    config = load_config(session.demand_config())
    left: list[str] = []

    def take(event: NewEvent) -> None:
        try:
            problem = take_if_good(config, event)
        except (ValueError, RecursionError) as error:
            problem = f"it is no event: {type(error).__name__}"
        if problem:
            left.append(f"{event.id}: {problem}")

    try:
        waiting = FallbackLog(config.fallback_file).drain(session.now(), take)
    except UnreachableError as error:
        raise ConfigError(
            error.problem,
            effect="its events still wait in the fallback file",
            hint="make the journal writable, then run this again",
        ) from error
    merged = waiting - len(left)
    session.terminal.document(
        {"schema_version": 1, "document": "journal-repair", "merged": merged, "left_out": left}
    )
    many = "s" if merged != 1 else ""
    session.terminal.result(f"{merged} event{many} taken into {config.journal_file}")
    for why in left:
        session.terminal.result(f"left out, since the journal would not bear it: {why}")
    if left:
        session.terminal.hint(
            f"it is kept beside {config.fallback_file}, with .merged- in its name"
        )
