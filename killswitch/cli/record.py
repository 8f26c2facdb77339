"""Writing down what changed outside a halt: who may halt, and what the keys open."""

from collections.abc import Mapping

from killswitch.authority.changes import ring_trouble
from killswitch.authority.ring import KeyRing
from killswitch.cli.session import Session
from killswitch.config import Config
from killswitch.errors import ConfigError, KillswitchError, UnreachableError
from killswitch.journal.check import check
from killswitch.journal.store import Head, Journal, NewEvent
from killswitch.journal.verify import Finding


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


def demand_admitted(config: Config, ring: KeyRing, *, effect: str) -> None:
    """Raise ConfigError unless the journal is whole and admitted every key of `ring` as it stands.

    A ring is a file that others may write to. A halt does not ask; what gives rights away does.
    """
    try:
        checked = check(Journal(config.journal_file).events(), ring.keys)
    except UnreachableError as error:
        raise ConfigError(error.problem, effect=effect, hint="make the journal readable") from error
    verdict = checked.verdict
    if verdict.finding is Finding.TAMPERED:
        raise ConfigError(
            f"the journal was changed at event {verdict.bad_seq}: {verdict.problem}",
            effect=effect,
            hint="killswitch journal verify; put the file aside as evidence, and begin a new one",
        )
    if trouble := ring_trouble(ring.keys, checked.keys):
        raise ConfigError(trouble, effect=effect, hint="restore keys.json, or ask who wrote to it")


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
