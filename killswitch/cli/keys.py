"""`killswitch keys enroll, list, remove`: who may halt, and who may let trading start again."""

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from killswitch.cli.revoke import Yes
from killswitch.cli.session import Session
from killswitch.cli.unwanted import Unwanted, refuse_words
from killswitch.errors import UsageError

if TYPE_CHECKING:
    from killswitch.authority.ring import EnrolledKey, KeyRing
    from killswitch.config import Config

UNCHANGED: Final = "the key ring is unchanged"
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
    recovery: Annotated[
        bool, typer.Option("--recovery", help="The recovery phrase admits it, typed or piped in.")
    ] = False,
    words: Unwanted = None,
    yes: Yes = False,
) -> None:
    """Enrol security keys, one after the other: some touches of each, then it may act.

    The first key is taken at its word. Every later one is admitted by the touch of a key that is
    enrolled already, or by the recovery phrase; that also seals the secrets to it. Each change is
    signed and written into the journal.
    """
    from killswitch.cli.enrolling import Enrolling
    from killswitch.cli.recovery import ring_and_record, say_that_it_was_used, take_phrase
    from killswitch.config import load_config

    refuse_words(words, effect="no key was enrolled", hint="type the phrase when it is asked for")
    config = load_config(session.demand_config())
    ring, record = ring_and_record(config) if recovery else (_ring_or_none(config), None)
    few = len(ring.keys) + len(label) < FEWEST and config.sandbox is None
    if few and not accept_single_key:
        raise UsageError(
            "one key alone can be lost, and with it the halt",
            effect="no key was enrolled",
            hint="--label FIRST --label SECOND enrols two, else: --accept-single-key",
        )
    if len(set(label)) < len(label):
        raise UsageError(
            "two keys cannot have one label", effect=UNCHANGED, hint="give each its own --label"
        )
    for one in label:
        ring.check_new(one, operator, role)
    phrase = take_phrase(session, record) if record else None
    enrolling = Enrolling(
        session, config, ring, operator=operator, role=role, yes=yes, recovery=phrase
    )
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
            "admitted_by_recovery": recovery,
        }
    )
    if recovery:
        say_that_it_was_used(session)
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
            f"counter {key.counter}, attestation {key.attestation}, "
            f"credential {key.credential_id.hex()[:8]}"
        )
    kept = "on paper or steel" if ring.recovery else "none; killswitch keys recovery makes one"
    session.terminal.result(f" recovery phrase: {kept}")


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
    import msgspec

    from killswitch.authority.changes import removal_scope
    from killswitch.authority.ring import KeyRing
    from killswitch.cli.authorise import remember_counter
    from killswitch.cli.changing import change_order, covering, reseal_for, touch_for_change
    from killswitch.cli.record import append, demand_admitted, ring_as_known
    from killswitch.config import load_config
    from killswitch.document import proof_document
    from killswitch.journal.history import KEY_REMOVED
    from killswitch.model import Mode

    config = load_config(session.demand_config())
    ring = KeyRing.load(config.key_file)
    left = ring.remove(label)
    gone = next(key for key in ring.keys if key.label == label)
    if not any(key.may(Mode.LIVE.value) for key in left.keys):
        raise UsageError(
            f'without "{label}" nobody may halt',
            effect=UNCHANGED,
            hint="enrol another one first: killswitch keys enroll",
        )
    demand_admitted(config, left, effect=UNCHANGED)
    order = change_order(session, config, removal_scope(gone))
    signers = covering(left, gone.role, effect=UNCHANGED)
    authority = touch_for_change(session, config, order, signers, yes=yes, effect=UNCHANGED)
    event = {
        "key": msgspec.to_builtins(gone),
        "order": order.to_bytes().decode(),
        "proof": proof_document(authority.proof),
    }
    with ring_as_known(config, ring, effect=UNCHANGED) as now:
        append(session, config, KEY_REMOVED, f"{order.id}.removed", event, effect=UNCHANGED)
        ring = now.remove(label)
        ring.save(config.key_file)
    opened = reseal_for(session, config, order, authority)
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

    ring = KeyRing.load(config.key_file) if config.key_file.exists() else KeyRing()
    known = check(read_events(config.journal_file)).keys
    if known and not ring.keys and config.sandbox is None:
        names = ", ".join(f'"{key.label}"' for key in known)
        raise ConfigError(
            f"there are no keys in {config.key_file}, but the journal knows {names}",
            effect="no key was enrolled",
            hint="take the ring from the journal: killswitch keys restore; with all keys lost: "
            "killswitch keys enroll --recovery",
        )
    return ring
