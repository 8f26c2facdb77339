"""`killswitch keys adopt, restore`: when key ring and journal do not tell of the same keys."""

from typing import TYPE_CHECKING, Final

from killswitch.cli.revoke import Yes
from killswitch.cli.session import Session
from killswitch.errors import UsageError

if TYPE_CHECKING:
    from killswitch.authority.ring import KeyRing

_UNCHANGED: Final = "the key ring and the journal are unchanged"


def adopt(session: Session, *, yes: Yes = False) -> None:
    """Begin a new journal with the keys of the ring, by the touch of one of them.

    For a second laptop that was given keys.json, and for a journal that had to be begun anew.
    """
    import msgspec

    from killswitch.authority.changes import adoption_scope
    from killswitch.authority.recovery import RecoveryRecord
    from killswitch.authority.ring import KeyRing
    from killswitch.cli.authorise import remember_counter
    from killswitch.cli.changing import change_order, touch_for_change
    from killswitch.cli.record import append, checked_journal, ring_as_known
    from killswitch.config import load_config
    from killswitch.document import proof_document
    from killswitch.journal.history import KEYS_ADOPTED

    config = load_config(session.demand_config())
    ring = KeyRing.load(config.key_file)
    if checked_journal(config, effect=_UNCHANGED).keys:
        raise UsageError(
            "this journal has keys of its own",
            effect=_UNCHANGED,
            hint="compare them with the ring: killswitch status",
        )
    # What the phrase signs with is not in the ring: it opens the secrets here, and admits nobody.
    recovery = RecoveryRecord(ring.recovery, "") if ring.recovery else None
    _show(session, ring, "the touch says that these keys may act here, and no others:")
    order = change_order(session, config, adoption_scope(ring.keys, recovery))
    authority = touch_for_change(session, config, order, ring, yes=yes, effect=_UNCHANGED)
    data = {
        "keys": [msgspec.to_builtins(key) for key in ring.keys],
        "recovery": msgspec.to_builtins(recovery),
        "order": order.to_bytes().decode(),
        "proof": proof_document(authority.proof),
    }
    with ring_as_known(config, ring, effect=_UNCHANGED):
        append(session, config, KEYS_ADOPTED, f"{order.id}.adopted", data, effect=_UNCHANGED)
    remember_counter(session, config, authority.proof)
    _report(session, "keys-adopted", ring)
    session.terminal.result(f"the journal begins with the {len(ring.keys)} keys of the ring")


def restore(session: Session, *, yes: Yes = False) -> None:
    """Write keys.json anew from the journal, by the touch of one of the keys that it tells of.

    These are the keys that touches admitted, and no others.
    """
    from killswitch.authority.changes import adoption_scope
    from killswitch.authority.files import locked
    from killswitch.authority.ring import KeyRing
    from killswitch.cli.changing import change_order, touch_for_change
    from killswitch.cli.record import checked_journal
    from killswitch.config import load_config

    config = load_config(session.demand_config())
    checked = checked_journal(config, effect=_UNCHANGED)
    if not checked.keys:
        raise UsageError(
            "the journal tells of no key",
            effect=_UNCHANGED,
            hint="restore keys.json from a copy, or enrol the keys: killswitch keys enroll",
        )
    ring = KeyRing(checked.keys, checked.recovery.recipient if checked.recovery else None)
    _show(session, ring, "the journal says that these keys are enrolled; touch one of them:")
    # The touch leaves no event: it gives nobody anything that the journal did not give before.
    order = change_order(session, config, ("restore", *adoption_scope(ring.keys, None)))
    touch_for_change(session, config, order, ring, yes=yes, effect=_UNCHANGED)
    with locked(config.key_file):
        if checked_journal(config, effect=_UNCHANGED).verdict != checked.verdict:
            raise UsageError("the journal grew meanwhile", effect=_UNCHANGED, hint="run it again")
        ring.save(config.key_file)
    _report(session, "keys-restored", ring)
    session.terminal.result(f"{config.key_file} holds {len(ring.keys)} keys again")
    session.terminal.hint("seal the secrets to exactly these: killswitch secrets reseal")


def _show(session: Session, ring: "KeyRing", heading: str) -> None:
    from killswitch.authority.changes import fingerprint, may

    session.terminal.hint(heading)
    for key in ring.keys:
        told = f'"{key.label}" of {key.operator}, may {may(key)}, record {fingerprint(key)[:16]}'
        session.terminal.hint(f"  {told}")


def _report(session: Session, document: str, ring: "KeyRing") -> None:
    labels = [key.label for key in ring.keys]
    session.terminal.document({"schema_version": 1, "document": document, "labels": labels})
