"""`killswitch keys enroll, list, remove`: who may halt, and who may let trading start again."""

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from killswitch.cli.revoke import Yes
from killswitch.cli.session import Session
from killswitch.errors import UsageError

if TYPE_CHECKING:
    from killswitch.authority.ring import EnrolledKey, KeyRing
    from killswitch.config import Config

FEWEST: Final = 2
"""A lost key must not be the only one."""

Role = Literal["halt", "release", "both"]


def enroll(
    session: Session,
    *,
    label: Annotated[
        list[str],
        typer.Option("--label", help="What you call the key: its colour, say. Once for each key."),
    ],
    operator: Annotated[str, typer.Option("--operator", help="Whose key it is.")],
    role: Annotated[
        Role, typer.Option("--role", help="What it may authorise: halt, release, or both.")
    ] = "both",
    accept_single_key: Annotated[
        bool, typer.Option("--accept-single-key", help="Leave it at one key, which can be lost.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Enrol security keys, one after the other: some touches of each, then it may act.

    The first key is taken at its word. Every later one is admitted by the touch of a key that is
    enrolled already; that touch also seals the secrets to it. Each change is signed and written
    into the journal.
    """
    from killswitch.cli.enrolling import Enrolling
    from killswitch.config import load_config

    config = load_config(session.demand_config())
    ring = _ring_or_none(config)
    few = len(ring.keys) + len(label) < FEWEST and config.sandbox is None
    if few and not accept_single_key:
        raise UsageError(
            "one key alone can be lost, and with it the halt",
            effect="no key was enrolled",
            hint="--label FIRST --label SECOND enrols two, else: --accept-single-key",
        )
    enrolling = Enrolling(session, config, ring, operator=operator, role=role, yes=yes)
    for one in label:
        enrolling.check(one)
    for one in label:
        enrolling.enrol(one)
    ring = enrolling.ring
    session.terminal.document(
        {
            "schema_version": 1,
            "document": "keys-enrolled",
            "labels": label,
            "operator": operator,
            "keys": len(ring.keys),
        }
    )
    if len(ring.keys) < FEWEST:
        session.terminal.hint("enrol a second key and keep it elsewhere: one key can be lost")


def list_keys(session: Session) -> None:
    """List the enrolled keys."""
    from killswitch.authority.changes import may
    from killswitch.authority.ring import KeyRing
    from killswitch.config import load_config

    config = load_config(session.demand_config())
    ring = KeyRing.load(config.key_file)
    session.terminal.document(
        {
            "schema_version": 1,
            "document": "keys",
            "recovery": ring.recovery is not None,
            "keys": [
                {
                    "label": key.label,
                    "operator": key.operator,
                    "role": key.role,
                    "rp_id": key.rp_id,
                    "aaguid": key.aaguid,
                    "attestation": key.attestation,
                    "counter": key.counter,
                    "enrolled_at": key.enrolled_at,
                    "credential_id": key.credential_id.hex(),
                    "opens_secrets": [("with PIN" if it.uv else "touch") for it in key.recipients],
                }
                for key in ring.keys
            ],
        }
    )
    for key in ring.keys:
        pin = "; PIN" if any(one.uv for one in key.recipients) else ""
        session.terminal.result(
            f' "{key.label}"  {key.operator}, may {may(key)}{pin}, enrolled {key.enrolled_at}, '
            f"counter {key.counter}, make {key.attestation}, "
            f"credential {key.credential_id.hex()[:8]}"
        )


def remove(
    session: Session,
    *,
    label: Annotated[str, typer.Argument(help="The key's label.")],
    yes: Yes = False,
) -> None:
    """Remove a key, by the touch of one that stays: it may do nothing from then on.

    The secrets are sealed anew to the keys that stay. Copies of the file that were made before
    still open with the removed key: rotate the secrets, too.
    """
    from killswitch.authority.changes import removal_scope
    from killswitch.authority.ring import KeyRing, update
    from killswitch.cli.authorise import remember_counter
    from killswitch.cli.enrolling import change_order, reseal_for, touch_for_change
    from killswitch.cli.record import append
    from killswitch.config import load_config
    from killswitch.document import proof_document
    from killswitch.journal.history import KEY_REMOVED

    config = load_config(session.demand_config())
    ring = KeyRing.load(config.key_file)
    left = ring.remove(label)
    gone = next(key for key in ring.keys if key.label == label)
    if not left.keys:
        raise UsageError(
            f'"{label}" is the last key: without it nobody may halt',
            effect="the key ring is unchanged",
            hint="enrol another one first: killswitch keys enroll",
        )
    order = change_order(session, config, removal_scope(gone))
    authority = touch_for_change(session, config, order, left, yes=yes)
    import msgspec

    event = {
        "key": msgspec.to_builtins(gone),
        "order": order.to_bytes().decode(),
        "proof": proof_document(authority.proof),
    }
    append(session, config, KEY_REMOVED, f"{order.id}.removed", event)
    ring = update(config.key_file, lambda keys: keys.remove(label))
    opened = reseal_for(session, config, ring, order, authority)
    remember_counter(session, config, authority.proof)
    session.terminal.document(
        {
            "schema_version": 1,
            "document": "key-removed",
            "label": label,
            "left": len(ring.keys),
            "rotate": list(opened),
        }
    )
    session.terminal.result(f'removed "{label}"; {_count(ring.keys)} left')
    if opened:
        names = ", ".join(f"sealed:{name}" for name in opened)
        session.terminal.hint(f"in older copies of the file it still opens {names}")
        session.terminal.hint("make those worthless: killswitch secrets rotate NAME, for each")
    if len(ring.keys) < FEWEST and config.sandbox is None:
        session.terminal.hint("enrol a second key: one key can be lost")


def _count(keys: "tuple[EnrolledKey, ...]") -> str:
    return f"{len(keys)} key{'s' if len(keys) != 1 else ''}"


def _ring_or_none(config: "Config") -> "KeyRing":
    """Return the ring; a missing one is empty, unless the journal knows better."""
    from killswitch.authority.ring import KeyRing
    from killswitch.cli.journal import read_events
    from killswitch.errors import ConfigError
    from killswitch.journal.check import check

    if config.key_file.exists():
        return KeyRing.load(config.key_file)
    known = [key for key in check(read_events(config.journal_file)).keys if not key.sandbox]
    if known:
        names = ", ".join(f'"{key.label}"' for key in known)
        raise ConfigError(
            f"there is no key ring at {config.key_file}, but the journal knows the keys {names}",
            effect="no key was enrolled",
            hint="restore the file from a copy; with none left, begin a new journal as well",
        )
    return KeyRing()
