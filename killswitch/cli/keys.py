"""`killswitch keys enroll, list, remove`: who may halt."""

import threading
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from killswitch.cli.session import Session
from killswitch.errors import NotAuthorizedError, UnreachableError, UsageError

if TYPE_CHECKING:
    from fido2.ctap import CtapDevice

    from killswitch.authority.ring import EnrolledKey
    from killswitch.config import Config

_POLL_S: Final = 0.2
_WAIT_S: Final = 60.0


def enroll(
    session: Session,
    *,
    label: Annotated[str, typer.Option("--label", help="What you call this key: its colour, say.")],
    operator: Annotated[str, typer.Option("--operator", help="Whose key it is.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Stand for the sandbox's software key.")
    ] = False,
) -> None:
    """Enrol the one security key that is plugged in: two touches, then it may halt.

    Enrol at least two keys, and keep one of them elsewhere.
    """
    from killswitch.authority.enrolment import enroll as enroll_key
    from killswitch.authority.ring import SANDBOX_RP_ID, KeyRing, update
    from killswitch.config import load_config
    from killswitch.journal.history import KEY_ENROLLED

    config = load_config(session.demand_config())
    ring = KeyRing.load(config.key_file) if config.key_file.exists() else KeyRing()
    ring.check_new(label, operator)
    device = _the_one_device(session, config, yes=yes)
    key = enroll_key(
        device,
        ring=ring,
        label=label,
        operator=operator,
        rp_id=SANDBOX_RP_ID if config.sandbox else config.keys.rp_id,
        now=session.now(),
        cancel=threading.Event(),
        on_touch=lambda number: session.terminal.ask("KEYS", f"touch the key, {number} of 2"),
    )
    ring = update(config.key_file, lambda keys: keys.add(key))
    _record(session, config, KEY_ENROLLED, key)
    session.terminal.document(
        {"schema_version": 1, "document": "key-enrolled", "label": label, "operator": operator}
    )
    session.terminal.result(f'enrolled "{label}" of {operator}; {len(ring.keys)} keys may halt')
    if len(ring.keys) < 2:  # noqa: PLR2004 (a lost key must not be the only one)
        session.terminal.hint("enrol a second key and keep it elsewhere: one key can be lost")


def list_keys(session: Session) -> None:
    """List the enrolled keys."""
    from killswitch.authority.ring import KeyRing
    from killswitch.config import load_config

    config = load_config(session.demand_config())
    ring = KeyRing.load(config.key_file)
    session.terminal.document(
        {
            "schema_version": 1,
            "document": "keys",
            "keys": [
                {
                    "label": key.label,
                    "operator": key.operator,
                    "role": key.role,
                    "rp_id": key.rp_id,
                    "aaguid": key.aaguid,
                    "counter": key.counter,
                    "enrolled_at": key.enrolled_at,
                    "credential_id": key.credential_id.hex(),
                }
                for key in ring.keys
            ],
        }
    )
    for key in ring.keys:
        session.terminal.result(
            f' "{key.label}"  {key.operator}, may {key.role}, enrolled {key.enrolled_at}, '
            f"counter {key.counter}, credential {key.credential_id.hex()[:8]}"
        )


def remove(
    session: Session, *, label: Annotated[str, typer.Argument(help="The key's label.")]
) -> None:
    """Remove a key: it can no longer halt."""
    from killswitch.authority.ring import KeyRing, update
    from killswitch.config import load_config
    from killswitch.journal.history import KEY_REMOVED

    config = load_config(session.demand_config())
    gone = next((key for key in KeyRing.load(config.key_file).keys if key.label == label), None)
    ring = update(config.key_file, lambda keys: keys.remove(label))
    if gone is not None:
        _record(session, config, KEY_REMOVED, gone)
    session.terminal.document(
        {"schema_version": 1, "document": "key-removed", "label": label, "left": len(ring.keys)}
    )
    session.terminal.result(f'removed "{label}"; {len(ring.keys)} keys may halt')


def _the_one_device(session: Session, config: "Config", *, yes: bool) -> "CtapDevice":
    """Return the only key that is plugged in, waiting for one for a minute."""
    from killswitch.authority.ring import UNCHANGED
    from killswitch.cli.devices import find_devices

    found = find_devices(config, yes=yes, no_input=session.no_input)
    end = time.monotonic() + _WAIT_S
    asked = False
    while time.monotonic() < end:
        devices = list(found.devices())
        if len(devices) == 1:
            return devices[0]
        if len(devices) > 1:
            raise UsageError(
                f"{len(devices)} security keys are plugged in",
                effect=UNCHANGED,
                hint="leave only the one that is to be enrolled",
            )
        if not asked:
            session.terminal.ask("KEYS", f"plug in the key to enrol ({found.diagnose()})")
            asked = True
        time.sleep(_POLL_S)
    raise NotAuthorizedError(
        f"no security key within {_WAIT_S:g} s: {found.diagnose()}", effect=UNCHANGED
    )


def _record(session: Session, config: "Config", kind: str, key: "EnrolledKey") -> None:
    """Write the change into the journal; that it could not be written is said."""
    import msgspec

    from killswitch.journal.store import Journal, NewEvent

    now = session.now()
    event = NewEvent(
        id=f"{kind}.{key.credential_id.hex()[:24]}.{now:%Y%m%d%H%M%S}",
        type=kind,
        time=f"{now:%Y-%m-%dT%H:%M:%S}Z",
        data={"key": msgspec.to_builtins(key)},
    )
    try:
        Journal(config.journal_file).append(event)
    except UnreachableError as error:
        session.terminal.hint(f"the change is not in the journal: {error.problem}")
