"""`killswitch keys recovery`: a phrase on paper that admits a key when all others are lost."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from killswitch.cli.revoke import Yes
from killswitch.cli.session import Session
from killswitch.errors import ConfigError, NotAuthorizedError, UsageError

if TYPE_CHECKING:
    from killswitch.authority.recovery import Recovery, RecoveryRecord
    from killswitch.authority.ring import KeyRing
    from killswitch.config import Config

_UNCHANGED: Final = "the recovery phrase is unchanged"
_NOT_ENROLLED: Final = "no key was enrolled"
_REPLACE: Final = "killswitch keys recovery --replace"


def recovery(
    session: Session,
    *,
    replace_it: Annotated[
        bool, typer.Option("--replace", help="Make a new one; the old one admits nobody then.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Make a recovery phrase: shown once, at the terminal, to be kept on paper or steel.

    It opens the sealed secrets only to admit a new key: killswitch keys enroll --recovery. It
    halts nothing and releases nothing. It counts once it was typed back and a key was touched.
    """
    import msgspec

    from killswitch.authority.changes import recovery_scope
    from killswitch.authority.recovery import new_recovery
    from killswitch.cli.authorise import remember_counter
    from killswitch.cli.changing import change_order, covering, reseal_for, touch_for_change
    from killswitch.cli.devices import find_devices
    from killswitch.cli.paper import hand_over
    from killswitch.cli.record import append, ring_as_known
    from killswitch.config import load_config
    from killswitch.document import proof_document
    from killswitch.journal.history import RECOVERY_SET

    config = load_config(session.demand_config())
    _refuse_a_reader_that_is_no_person(session)
    ring = _ring_that_may_have_one(config, replace_it=replace_it)
    find_devices(config, yes=yes, no_input=session.no_input)  # refused before it is written down
    phrase, made = new_recovery()
    hand_over(phrase, made, effect=_UNCHANGED)
    order = change_order(session, config, recovery_scope(made.record))
    session.terminal.ask("KEYS", "now touch an enrolled key: then the phrase counts")
    signers = covering(ring, "both", effect=_UNCHANGED)
    authority = touch_for_change(session, config, order, signers, yes=yes, effect=_UNCHANGED)
    event = {
        "recovery": msgspec.to_builtins(made.record),
        "order": order.to_bytes().decode(),
        "proof": proof_document(authority.proof),
    }
    with ring_as_known(config, ring, effect=_UNCHANGED) as now:
        append(session, config, RECOVERY_SET, f"{order.id}.set", event, effect=_UNCHANGED)
        replace(now, recovery=made.record.recipient).save(config.key_file)
    reseal_for(session, config, order, authority)
    remember_counter(session, config, authority.proof)
    session.terminal.result(
        "the recovery phrase is set; the old one admits nobody any more"
        if replace_it
        else "the recovery phrase is set"
    )
    if replace_it:
        session.terminal.hint("the old one still opens older copies of the secrets: destroy it")
    session.terminal.hint("when the keys are lost: killswitch keys enroll --recovery")


def ring_and_record(config: "Config") -> "tuple[KeyRing, RecoveryRecord]":
    """Return the ring that a phrase may add a key to, and what the journal knows of the phrase.

    A ring that is lost begins anew with nobody in it: the keys that the journal tells of are not
    taken from there, for a journal that somebody forged would name keys of his own.

    Raises:
        ConfigError: there is no phrase that counts, or journal and ring do not hold.
    """
    from killswitch.authority.ring import KeyRing
    from killswitch.cli.record import checked_journal, demand_admitted

    ring = KeyRing.load(config.key_file) if config.key_file.exists() else KeyRing()
    # A ring that lost its keys or its phrase is no trouble here: this is how they come back.
    record = checked_journal(config, effect=_NOT_ENROLLED).recovery
    ring = replace(ring, recovery=record.recipient if record else None)
    if ring.keys:
        demand_admitted(config, ring, effect=_NOT_ENROLLED)
    if record is None or not record.verifying_key:
        raise ConfigError(
            "the journal tells of no recovery phrase",
            effect=_NOT_ENROLLED,
            hint='one is made while there is a key; without: docs/runbook.md "By hand"',
        )
    return ring, record


def take_phrase(session: Session, record: "RecoveryRecord") -> "Recovery":
    """Return what the phrase of `record` can do, read from the operator; raises KillswitchError."""
    from killswitch.cli.paper import read_phrase

    found = read_phrase(session, effect=_NOT_ENROLLED)
    if found.record != record:
        raise NotAuthorizedError(
            "this is not the recovery phrase that counts here",
            effect=_NOT_ENROLLED,
            hint="it was replaced, or it belongs to another laptop",
        )
    return found


def say_that_it_was_used(session: Session) -> None:
    """Say what is to be done once the phrase has left the drawer."""
    session.terminal.hint("the recovery phrase was used, and this laptop has seen it. Now:")
    session.terminal.hint(f"  make a new one:         {_REPLACE}")
    session.terminal.hint("  take lost keys out:     killswitch keys remove LABEL")
    session.terminal.hint("  make copies worthless:  killswitch secrets rotate NAME, for each")


def _refuse_a_reader_that_is_no_person(session: Session) -> None:
    problem = ""
    if session.terminal.as_json:
        problem = "a recovery phrase is never part of a document"
    elif session.no_input:
        problem = "a recovery phrase is typed back, which --no-input forbids"
    if problem:
        raise UsageError(problem, effect=_UNCHANGED, hint="killswitch keys recovery, at a terminal")


def _ring_that_may_have_one(config: "Config", *, replace_it: bool) -> "KeyRing":
    from killswitch.authority.ring import KeyRing
    from killswitch.cli.record import demand_admitted

    ring = KeyRing.load(config.key_file)
    demand_admitted(config, ring, effect=_UNCHANGED)
    if ring.recovery and not replace_it:
        raise UsageError(
            "there is a recovery phrase already",
            effect=_UNCHANGED,
            hint=f"make a new one in its place: {_REPLACE}",
        )
    return ring
