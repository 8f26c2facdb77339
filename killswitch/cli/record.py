"""Writing down what changed outside a halt: who may halt, and what the keys open."""

from collections.abc import Mapping

from killswitch.cli.session import Session
from killswitch.config import Config
from killswitch.errors import KillswitchError, UnreachableError
from killswitch.journal.store import Head, Journal, NewEvent


def head_of(config: Config) -> Head:
    """Return the journal's head, for an order to sign; raises KillswitchError.

    A change that could not be written down is not begun.
    """
    try:
        return Journal(config.journal_file).head()
    except UnreachableError as error:
        raise KillswitchError(
            error.problem, effect="nothing was changed", hint="make the journal readable"
        ) from error


def append(
    session: Session, config: Config, kind: str, event_id: str, data: Mapping[str, object]
) -> None:
    """Append an event before what it tells of is done; raises KillswitchError."""
    event = NewEvent(event_id, kind, f"{session.now():%Y-%m-%dT%H:%M:%S}Z", data)
    try:
        Journal(config.journal_file).append(event)
    except UnreachableError as error:
        raise KillswitchError(
            error.problem, effect="nothing was changed", hint="make the journal writable"
        ) from error


def record(
    session: Session, config: Config, kind: str, event_id: str, data: Mapping[str, object]
) -> None:
    """Append an event of what is done already; that it could not be appended is said."""
    try:
        append(session, config, kind, event_id, data)
    except KillswitchError as error:
        session.terminal.hint(f"the change is made, but not in the journal: {error.problem}")
