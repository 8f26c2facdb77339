"""Writing down what changed outside a halt: who may halt, and what the keys open."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from killswitch.authority.changes import ring_trouble
from killswitch.authority.files import locked
from killswitch.authority.ring import EnrolledKey, KeyRing
from killswitch.cli.session import Session
from killswitch.config import Config
from killswitch.errors import ConfigError, KillswitchError, UnreachableError
from killswitch.journal.check import Checked, check
from killswitch.journal.store import GENESIS, Event, Head, Journal, NewEvent, chained
from killswitch.journal.verify import Finding


def head_of(config: Config) -> Head:
    """Return the journal's head, for an order to sign; raises ConfigError.

    A change that could not be written down is not begun.
    """
    try:
        return Journal(config.journal_file).head()
    except UnreachableError as error:
        raise ConfigError(
            error.problem, effect="nothing was changed", hint="make the journal readable"
        ) from error


def demand_admitted(config: Config, ring: KeyRing, *, effect: str) -> Checked:
    """Return the journal as checked, when it is whole and admitted `ring` just as it stands.

    A ring is a file that others may write to. A halt does not ask; what gives rights away does.
    Raises ConfigError.
    """
    checked = checked_journal(config, effect=effect)
    if trouble := ring_trouble(ring, checked.keys, checked.recovery):
        raise ConfigError(trouble.problem, effect=effect, hint=trouble.mend)
    return checked


def checked_journal(config: Config, *, effect: str) -> Checked:
    """Return the journal as checked; raises ConfigError unless it is whole."""
    try:
        checked = check(Journal(config.journal_file).events(), _in_ring(config))
    except UnreachableError as error:
        raise ConfigError(error.problem, effect=effect, hint="make the journal readable") from error
    verdict = checked.verdict
    if verdict.finding is Finding.TAMPERED:
        raise ConfigError(
            f"the journal was changed at event {verdict.bad_seq}: {verdict.problem}",
            effect=effect,
            hint="killswitch journal verify; put the file aside as evidence, and begin a new one",
        )
    return checked


def append(
    session: Session,
    config: Config,
    kind: str,
    event_id: str,
    data: Mapping[str, object],
    *,
    effect: str = "nothing was changed",
) -> None:
    """Append an event before what it tells of is done, if `journal verify` will accept it.

    Raises KillswitchError.
    """
    event = NewEvent(event_id, kind, f"{session.now():%Y-%m-%dT%H:%M:%S}Z", data)
    try:
        problem = take_if_good(config, event)
    except UnreachableError as error:
        raise ConfigError(error.problem, effect=effect, hint="make the journal writable") from error
    if problem:
        raise ConfigError(
            f"the journal would not bear it: {problem}",
            effect=effect,
            hint="if the keys were changed meanwhile: killswitch keys restore, then run it again",
        )


def take_if_good(config: Config, event: NewEvent) -> str:
    """Append an event that `journal verify` will accept, or return why it would not.

    An event that stands there already is taken. Raises UnreachableError.
    """
    journal = Journal(config.journal_file)
    events = journal.events()
    raw, prev = event.to_bytes(), events[-1].hash if events else GENESIS
    if any(one.raw == raw for one in events):
        return ""
    new = Event(len(events) + 1, prev, raw, chained(prev, raw))
    verdict = check([*events, new], _in_ring(config)).verdict
    if verdict.finding is Finding.TAMPERED:
        return verdict.problem
    journal.append(event)
    return ""


def _in_ring(config: Config) -> tuple[EnrolledKey, ...]:
    """Return the keys of the ring; of one that is gone or damaged, none."""
    try:
        return KeyRing.load(config.key_file).keys
    except KillswitchError:
        return ()


@contextmanager
def ring_as_known(config: Config, ring: KeyRing, *, effect: str) -> Iterator[KeyRing]:
    """Hold the ring's file, and yield the ring in it, which has to be `ring` but for counters.

    Raises ConfigError when somebody changed it meanwhile.
    """
    with locked(config.key_file):
        now = KeyRing.load(config.key_file) if config.key_file.exists() else KeyRing()
        same = [key.credential for key in now.keys] == [key.credential for key in ring.keys]
        if not same or (now.keys and now.recovery != ring.recovery):
            raise ConfigError(
                "the key ring was changed meanwhile", effect=effect, hint="run it again"
            )
        yield now


def record(
    session: Session, config: Config, kind: str, event_id: str, data: Mapping[str, object]
) -> None:
    """Append an event of what is done already; that it could not be appended is said."""
    try:
        append(session, config, kind, event_id, data)
    except KillswitchError as error:
        session.terminal.hint(f"the change is made, but not in the journal: {error.problem}")
