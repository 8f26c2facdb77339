"""The bundle: the credentials of a halt, each sealed by itself to each recipient, in one file."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from killswitch.authority.files import locked, read_guarded, write_private
from killswitch.authority.sealing import (
    Identity,
    Recipient,
    SealError,
    open_secret,
    seal_secret,
)
from killswitch.errors import ConfigError, UsageError
from killswitch.secret import Secret
from killswitch.sources import SEALED_NAME

SCHEMA: Final = 1
UNCHANGED: Final = "the sealed secrets are unchanged"
LARGEST_FILE_BYTES: Final = 1 << 20
"""What `read_guarded` reads at most: nothing larger is ever written."""

_RECIPIENT_ID: Final = re.compile(r"[0-9a-f]{16}")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_INFO: Final = b"killswitch/secret/v1\n"
_LOCK_WAIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """One secret as the file holds it.

    `set_at` is when its value was set, RFC 3339 UTC. `sealed` has the base64 of what was sealed,
    by recipient id; it is decoded when it is opened, so that damage costs this secret only.
    """

    name: str
    set_at: str
    sealed: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """What one identity could open.

    `missing` names the secrets that are sealed to other recipients only. `damaged` has the names of
    those that are sealed to this identity and yet do not open, each with what is wrong.
    """

    secrets: Mapping[str, Secret]
    missing: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """All sealed secrets; every change returns a new bundle.

    `raw` is exactly what stands in the file, or will: empty when there is no file.
    """

    entries: tuple[SealedSecret, ...] = ()
    raw: bytes = field(default=b"", repr=False)

    @classmethod
    def load(cls, path: Path) -> "Bundle":
        """Read the bundle at `path`; raises ConfigError when it cannot be trusted or understood.

        A missing file is an empty bundle.
        """
        try:
            raw = read_guarded(path, what="bundle of secrets")
        except FileNotFoundError:
            return cls()
        return cls(_parse(raw, path), raw)

    def save(self, path: Path) -> None:
        """Replace the file at `path` in one step, readable by its owner only.

        A bundle that was never in a file and never changed has nothing to save.
        """
        if self.raw:
            write_private(path, self.raw)

    @property
    def sha256(self) -> str:
        """The hex SHA-256 of the file's bytes; empty when there is no file."""
        return hashlib.sha256(self.raw).hexdigest() if self.raw else ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all secrets."""
        return tuple(entry.name for entry in self.entries)

    def with_secret(
        self, name: str, secret: Secret, recipients: Iterable[Recipient], now: datetime
    ) -> "Bundle":
        """Return the bundle with `name` set to exactly this value; raises UsageError."""
        if not SEALED_NAME.fullmatch(name):
            # The name is not shown: it may be the secret itself, given in the wrong place.
            raise UsageError(
                "this cannot name a secret",
                effect=UNCHANGED,
                hint="use 1 to 40 of a-z, 0-9 and hyphens, a letter or digit first",
            )
        set_at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = SealedSecret(name, set_at, _sealed(name, secret, recipients))
        return _bundle((*(one for one in self.entries if one.name != name), entry))

    def without(self, name: str) -> "Bundle":
        """Return the bundle without this secret; raises UsageError when it has none of the name."""
        left = tuple(entry for entry in self.entries if entry.name != name)
        if len(left) == len(self.entries):
            raise UsageError(
                "no sealed secret has this name",
                effect=UNCHANGED,
                hint="see the names: killswitch secrets list",
            )
        return _bundle(left)

    def open(self, identity: Identity) -> Opened:
        """Open all that is sealed to `identity`; a damaged secret costs only itself."""
        secrets: dict[str, Secret] = {}
        damaged: dict[str, str] = {}
        slot = identity.recipient.id
        for entry in self.entries:
            if slot in entry.sealed:
                try:
                    info = _info(entry.name, slot)
                    secrets[entry.name] = open_secret(entry.sealed[slot], identity, info=info)
                except SealError as error:
                    damaged[entry.name] = error.problem
        missing = tuple(entry.name for entry in self.entries if slot not in entry.sealed)
        return Opened(secrets, missing, damaged)

    def why_closed(self, name: str, asked: Recipient, key: Collection[Recipient]) -> str:
        """Return why a key did not find the secret `name` sealed to it; empty when it did.

        `asked` is the recipient of the identity that the touch gave, `key` are the recipients that
        the same security key was enrolled with.
        """
        entry = next((entry for entry in self.entries if entry.name == name), None)
        if entry is None:
            return "no sealed secret has this name"
        if asked.id in entry.sealed:
            return ""
        if any(one.uv == asked.uv and one.id != asked.id for one in key):
            return (
                "the key gives another PRF output than at its enrolment, or keys.json was altered"
            )
        if any(one.uv != asked.uv and one.id in entry.sealed for one in key):
            return (
                "sealed for use without PIN; the key now verifies the user (alwaysUv?)"
                if asked.uv
                else "sealed for use with PIN; the key did not verify the user this time"
            )
        return "not sealed to this key" if key else "this key was enrolled without any recipient"

    def resealed(self, opened: Mapping[str, Secret], recipients: Iterable[Recipient]) -> "Bundle":
        """Return the bundle with every opened secret sealed to exactly `recipients`.

        What is not in `opened` stays as it is, and `set_at` stays. Open and re-seal in the same
        `update`, or a value that was set in between would be lost.
        """
        to = tuple(recipients)
        return _bundle(
            replace(entry, sealed=_sealed(entry.name, opened[entry.name], to))
            if entry.name in opened
            else entry
            for entry in self.entries
        )

    def not_for(self, recipients: Iterable[Recipient]) -> tuple[str, ...]:
        """Return the names of the secrets that lack one of `recipients`."""
        ids = {one.id for one in recipients}
        return tuple(entry.name for entry in self.entries if ids - set(entry.sealed))

    def strangers(self, recipients: Iterable[Recipient]) -> tuple[str, ...]:
        """Return the ids that something is sealed to and that none of `recipients` has."""
        ids = {one.id for one in recipients}
        return tuple(sorted({one for entry in self.entries for one in entry.sealed} - ids))


def update(
    path: Path, change: Callable[[Bundle], Bundle], *, wait_s: float = _LOCK_WAIT_S
) -> Bundle:
    """Load, change and save the bundle at `path` as one step between processes.

    A missing file counts as an empty bundle. Returns the bundle that stands in the file then.
    Raises ConfigError when another process holds the file for `wait_s`.
    """
    with locked(path, wait_s=wait_s):
        before = Bundle.load(path)
        after = change(before)
        if after != before:
            after.save(path)
        return after


def _sealed(name: str, secret: Secret, recipients: Iterable[Recipient]) -> dict[str, str]:
    try:
        sealed = {one.id: seal_secret(secret, one, info=_info(name, one.id)) for one in recipients}
    except SealError as error:
        raise UsageError(
            f"the secret cannot be sealed: {error.problem}",
            effect=UNCHANGED,
            hint="mend that, then run it again",
        ) from None
    if not sealed:
        raise UsageError(
            "there is no key to seal a secret to",
            effect=UNCHANGED,
            hint="enrol a security key: killswitch keys enroll",
        )
    return sealed


def _info(name: str, recipient_id: str) -> bytes:
    # What is sealed for one name and recipient opens in no other place.
    return _INFO + name.encode() + b"\n" + recipient_id.encode()


@dataclass(frozen=True, slots=True)
class _File:
    schema: int
    secrets: tuple[SealedSecret, ...]


@dataclass(frozen=True, slots=True)
class _Header:
    schema: int


def _bundle(entries: Iterable[SealedSecret]) -> Bundle:
    ordered = tuple(sorted(entries, key=lambda entry: entry.name))
    content = msgspec.json.encode(_File(SCHEMA, ordered), order="deterministic")
    raw = msgspec.json.format(content) + b"\n"
    if len(raw) > LARGEST_FILE_BYTES:
        raise UsageError(
            f"the sealed secrets would need more than {LARGEST_FILE_BYTES} bytes",
            effect=UNCHANGED,
            hint="seal shorter secrets, or remove those that no system uses",
        )
    return Bundle(ordered, raw)


def _parse(raw: bytes, path: Path) -> tuple[SealedSecret, ...]:
    hint = "restore the file from a copy, or set the secrets anew: killswitch secrets set"
    try:
        schema = msgspec.json.decode(raw, type=_Header).schema
        if schema != SCHEMA:
            raise ConfigError(
                f"the bundle of secrets {path} has schema {schema}, this killswitch reads {SCHEMA}",
                hint="use the version of killswitch that wrote it",
            )
        entries = msgspec.json.decode(raw, type=_File).secrets
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text = f"the bundle of secrets {path} is damaged: {error}"
        raise ConfigError(text, hint=hint) from None
    trouble = _trouble(entries)
    if trouble:
        raise ConfigError(f"the bundle of secrets {path} is damaged: {trouble}", hint=hint)
    return entries


def _trouble(entries: tuple[SealedSecret, ...]) -> str:
    for number, entry in enumerate(entries, 1):
        if not SEALED_NAME.fullmatch(entry.name):
            return f"secret {number} has no proper name"
        if not _TIME.fullmatch(entry.set_at):
            return f"secret {number} has no time in UTC"
        if not all(_RECIPIENT_ID.fullmatch(one) for one in entry.sealed):
            return f"secret {number} is sealed to something that is no recipient"
    if len({entry.name for entry in entries}) < len(entries):
        return "two secrets have the same name"
    return ""
