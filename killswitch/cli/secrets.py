"""`killswitch secrets set, rotate, list, remove, reseal`: what the security keys open."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from killswitch.cli.revoke import Yes
from killswitch.cli.session import Session
from killswitch.cli.unwanted import Unwanted, refuse_words
from killswitch.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from killswitch.authority.bundle import Bundle, SealedSecret
    from killswitch.authority.ring import KeyRing
    from killswitch.authority.sealing import Recipient
    from killswitch.config import Config

_UNCHANGED: Final = "the sealed secrets are unchanged"
_SET: Final = "killswitch secrets set NAME"
_AGAIN: Final = "run it again"

Name = Annotated[str, typer.Argument(metavar="NAME", help='As in "sealed:NAME".')]
Command = Annotated[
    str,
    typer.Option(
        "--command", metavar="WORDS", help="Take it from this program's standard output; no shell."
    ),
]


def set_secret(
    session: Session, *, name: Name, value: Unwanted = None, command: Command = ""
) -> None:
    """Seal a secret to every enrolled key: typed unseen, piped in, or from a program.

    It takes no touch: sealing needs public keys only. Opening takes the touch of a halt.
    """
    refuse_words(value, effect=_UNCHANGED, hint=f"type it or pipe it in: {_SET}")
    _seal(session, name, command, new=None)


def rotate(session: Session, *, name: Name, value: Unwanted = None, command: Command = "") -> None:
    """Seal a new value of a secret that is there already.

    The old value stays good wherever it came from until it is revoked there.
    """
    refuse_words(value, effect=_UNCHANGED, hint=f"type it or pipe it in: {_SET}")
    _seal(session, name, command, new=False)


def list_secrets(session: Session) -> None:
    """List the sealed secrets: names, ages, and which keys open them. No value is ever shown."""
    import msgspec

    from killswitch.cli.sealed import recipients_of

    config, ring = _context(session)
    bundle = _bundle(config)
    owners = {one.id: key.label for key in ring.keys for one in key.recipients}
    if ring.recovery:
        owners[ring.recovery.id] = "recovery phrase"
    rows = [
        _Row.of(entry, owners, {one.id for one in recipients_of(config, ring)})
        for entry in bundle.entries
    ]
    session.terminal.document(
        {
            "schema_version": 1,
            "document": "secrets",
            "file": str(config.bundle_file),
            "sha256": bundle.sha256,
            "secrets": [msgspec.to_builtins(row) for row in rows],
        }
    )
    for row in rows:
        session.terminal.result(f" {row.name:<24} set {row.set_at}, {row.opened}")
    if not rows:
        session.terminal.hint("none yet: killswitch secrets set NAME")


@dataclass(frozen=True, slots=True)
class _Row:
    """One sealed secret, and whose touch opens it."""

    name: str
    set_at: str
    opened_by: tuple[str, ...]
    strangers: tuple[str, ...]
    complete: bool

    @classmethod
    def of(cls, entry: "SealedSecret", owners: Mapping[str, str], wanted: set[str]) -> "_Row":
        ids = set(entry.sealed)
        opened_by = sorted({owners[one] for one in ids if one in owners})
        strangers = sorted(ids - set(owners))
        return cls(entry.name, entry.set_at, tuple(opened_by), tuple(strangers), wanted <= ids)

    @property
    def opened(self) -> str:
        """Who opens it, in words."""
        parts = [
            "opened by " + (", ".join(f'"{it}"' for it in self.opened_by) or "no enrolled key")
        ]
        if not self.complete:
            parts.append("not by every key: killswitch secrets reseal")
        if self.strangers:
            parts.append(f"and by strangers: {', '.join(self.strangers)}")
        return "; ".join(parts)


def remove(session: Session, *, name: Name) -> None:
    """Take a secret out of the bundle. It stays good at the vendor until it is revoked there."""
    from killswitch.cli.sealed import change_bundle
    from killswitch.journal.history import SECRETS_REMOVED

    config, _ = _context(session)
    bundle = change_bundle(
        session,
        config,
        lambda before, _recipients: before.without(name),
        SECRETS_REMOVED,
        _event_id(session, SECRETS_REMOVED, name),
        {"name": name},
    )
    session.terminal.document(
        {"schema_version": 1, "document": "secret-removed", "name": name, "sha256": bundle.sha256}
    )
    session.terminal.result(f"removed sealed:{name}; older copies of the file still hold it")


def reseal(session: Session, *, yes: Yes = False) -> None:
    """Open all with one touch, and seal it anew to exactly the keys that are enrolled now."""
    from killswitch.authority.changes import reseal_scope
    from killswitch.cli.authorise import remember_counter
    from killswitch.cli.changing import change_order, touch_for_change
    from killswitch.cli.record import demand_admitted
    from killswitch.cli.sealed import change_bundle, recipients_of
    from killswitch.document import proof_document
    from killswitch.journal.history import SECRETS_RESEALED

    config, ring = _context(session)
    before = _bundle(config)
    if not before.entries:
        raise UsageError("there are no sealed secrets", effect=_UNCHANGED, hint=_SET)
    demand_admitted(config, ring, effect=_UNCHANGED)
    to = recipients_of(config, ring)
    data: dict[str, object] = {"names": before.names, "recipients": [one.id for one in to]}
    order = change_order(session, config, reseal_scope(data))
    authority = touch_for_change(session, config, order, ring, yes=yes, effect=_UNCHANGED)
    identity = authority.unsealed.identity
    closed = [name for name in before.names if name not in authority.unsealed.secrets]
    if identity is None or len(closed) == len(before.names):
        raise ConfigError(
            f"the touched key opens none: {authority.unsealed.why_closed(before.names[0])}",
            effect=_UNCHANGED,
            hint="touch another key, or set them anew: killswitch secrets set NAME",
        )

    def change(now: "Bundle", recipients: "tuple[Recipient, ...]") -> "Bundle":
        if recipients != to:
            raise ConfigError("the key ring was changed meanwhile", effect=_UNCHANGED, hint=_AGAIN)
        return now.resealed(now.open(identity).secrets, to)

    data |= {"order": order.to_bytes().decode(), "proof": proof_document(authority.proof)}
    event_id = f"{order.id}.resealed"
    bundle = change_bundle(
        session, config, change, SECRETS_RESEALED, event_id, data, accept_foreign=True
    )
    remember_counter(session, config, authority.proof)
    session.terminal.document(
        {
            "schema_version": 1,
            "document": "secrets-resealed",
            "names": list(bundle.names),
            "closed": closed,
            "sha256": bundle.sha256,
        }
    )
    labels = ", ".join(f'"{key.label}"' for key in ring.keys)
    count = len(bundle.names) - len(closed)
    many = "s" if count != 1 else ""
    session.terminal.result(f"{count} secret{many} sealed anew to {labels}")
    for name in closed:
        why = authority.unsealed.why_closed(name)
        session.terminal.hint(f"sealed:{name} stays as it was: {why}")


def _seal(session: Session, name: str, command: str, *, new: bool | None) -> None:
    from killswitch.cli.record import demand_admitted
    from killswitch.cli.sealed import change_bundle
    from killswitch.cli.secret_value import read_value
    from killswitch.journal.history import SECRETS_SET
    from killswitch.sources import SEALED_NAME, sealed_names

    config, ring = _context(session)
    if not SEALED_NAME.fullmatch(name):
        raise UsageError(
            "this cannot name a secret",  # and is not shown: it may be the secret itself
            effect=_UNCHANGED,
            hint="use 1 to 40 of a-z, 0-9 and hyphens, a letter or digit first",
        )
    demand_admitted(config, ring, effect=_UNCHANGED)
    there = name in _bundle(config).names
    if new is False and not there:
        raise UsageError(f"there is no sealed:{name}", effect=_UNCHANGED, hint=_SET)
    secret = read_value(session, name, command)
    bundle = change_bundle(
        session,
        config,
        lambda before, recipients: before.with_secret(name, secret, recipients, session.now()),
        SECRETS_SET,
        _event_id(session, SECRETS_SET, name),
        {"name": name},
    )
    sealed = next(entry.sealed for entry in bundle.entries if entry.name == name)
    keys = [key.label for key in ring.keys if any(one.id in sealed for one in key.recipients)]
    session.terminal.document(
        {
            "schema_version": 1,
            "document": "secret-set",
            "name": name,
            "opened_by": keys,
            "sha256": bundle.sha256,
        }
    )
    opened = ", ".join(f'"{label}"' for label in keys)
    session.terminal.result(
        f"sealed:{name} is {'replaced' if there else 'set'}, opened by {opened}"
    )
    if there:
        session.terminal.hint("revoke the old value where it came from; older copies still hold it")
    if name not in sealed_names(_sources_of(config)):
        session.terminal.hint(f'no system uses it yet: write "sealed:{name}" in {config.path.name}')


def _context(session: Session) -> "tuple[Config, KeyRing]":
    from killswitch.authority.ring import KeyRing
    from killswitch.config import load_config

    config = load_config(session.demand_config())
    return config, KeyRing.load(config.key_file)


def _bundle(config: "Config") -> "Bundle":
    from killswitch.authority.bundle import Bundle

    return Bundle.load(config.bundle_file)


def _sources_of(config: "Config") -> list[str]:
    from killswitch.sources import Sources
    from killswitch.wiring import units

    return [it for unit in units(config, Sources(config.resolve, {})) for it in unit.sources]


def _event_id(session: Session, kind: str, name: str) -> str:
    return f"{kind}.{name}.{session.random_bytes(8).hex()}"
