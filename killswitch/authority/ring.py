"""The key ring: which security keys may authorise an order, in one small private file."""

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from killswitch.errors import ConfigError, UsageError

SANDBOX_RP_ID: Final = "sandbox.killswitch.localhost"
SANDBOX_AAGUID: Final = b"killswitch-sandb"
"""The make and model that the sandbox's software key claims: nobody's product."""

SCHEMA: Final = 1
UNCHANGED: Final = "the key ring is unchanged"
_LARGEST_BYTES: Final = 1 << 20
_LONGEST_NAME: Final = 40
_LOCK_POLL_S: Final = 0.02
# AttestedCredentialData: AAGUID, two bytes of length, credential id, COSE key (WebAuthn 6.5.1).
_AAGUID_END: Final = 16
_LENGTH_END: Final = 18


@dataclass(frozen=True, slots=True)
class EnrolledKey:
    """One security key, and whose it is.

    `credential` is WebAuthn's AttestedCredentialData, as bytes: AAGUID, credential id and public
    key. `counter` is the highest signature counter seen. `enrolled_at` is RFC 3339 UTC.
    """

    label: str
    operator: str
    rp_id: str
    credential: bytes
    aaguid: str
    counter: int
    enrolled_at: str
    role: str = "halt"

    @property
    def credential_id(self) -> bytes:
        """The id that the key knows this credential by."""
        length = int.from_bytes(self.credential[_AAGUID_END:_LENGTH_END], "big")
        return self.credential[_LENGTH_END : _LENGTH_END + length]

    @property
    def public_key(self) -> str:
        """The public key as PEM, as `openssl dgst -verify` reads it; raises ValueError."""
        return _pem(self.credential)

    @property
    def sandbox(self) -> bool:
        """True for a software key: it never authorises anything outside the sandbox."""
        return self.rp_id == SANDBOX_RP_ID or self.credential[:_AAGUID_END] == SANDBOX_AAGUID


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The enrolled keys, in the order of their enrolment."""

    keys: tuple[EnrolledKey, ...] = ()

    @classmethod
    def load(cls, path: Path) -> "KeyRing":
        """Read the ring at `path`; raises ConfigError when it cannot be trusted or understood."""
        try:
            raw = read_guarded(path, what="key ring")
        except FileNotFoundError:
            raise ConfigError(
                f"there is no key ring at {path}",
                hint="enrol a security key: killswitch keys enroll",
            ) from None
        return _parse(raw, path)

    def save(self, path: Path) -> None:
        """Replace the file at `path` in one step, readable by its owner only."""
        content = msgspec.json.encode(_File(schema=SCHEMA, keys=self.keys), order="deterministic")
        write_private(path, msgspec.json.format(content) + b"\n")

    def find(self, credential_id: bytes) -> EnrolledKey | None:
        """Return the key that knows `credential_id`, if it is enrolled."""
        return next((key for key in self.keys if key.credential_id == credential_id), None)

    def add(self, key: EnrolledKey) -> "KeyRing":
        """Return the ring with `key`; raises UsageError for a label or credential it has."""
        self.check_new(key.label, key.operator)
        if self.find(key.credential_id):
            raise UsageError(
                "this security key is already enrolled", effect=UNCHANGED, hint="use another key"
            )
        return KeyRing((*self.keys, key))

    def check_new(self, label: str, operator: str) -> None:
        """Raise UsageError unless a new key may have this label and this operator."""
        for name in (label, operator):
            if not _is_name(name):
                raise UsageError(
                    f"{name!r} cannot name a key or its operator",
                    effect=UNCHANGED,
                    hint=f"use 1 to {_LONGEST_NAME} printable characters, no space at either end",
                )
        if any(key.label == label for key in self.keys):
            raise UsageError(
                f'a key with the label "{label}" is already enrolled',
                effect=UNCHANGED,
                hint=f"choose another label, or first: killswitch keys remove {label}",
            )

    def remove(self, label: str) -> "KeyRing":
        """Return the ring without the key of this label; raises UsageError when there is none."""
        left = tuple(key for key in self.keys if key.label != label)
        if len(left) == len(self.keys):
            raise UsageError(
                f'no key has the label "{label}"',
                effect=UNCHANGED,
                hint="see the labels: killswitch keys list",
            )
        return KeyRing(left)

    def with_counter(self, credential_id: bytes, counter: int) -> "KeyRing":
        """Return the ring with the counter of one key raised; it never goes down.

        A key whose counter once went backwards stays suspicious until it is enrolled anew.
        """
        return KeyRing(
            tuple(
                replace(key, counter=max(key.counter, counter))
                if key.credential_id == credential_id
                else key
                for key in self.keys
            )
        )


def update(path: Path, change: Callable[[KeyRing], KeyRing]) -> KeyRing:
    """Load, change and save the ring at `path` as one step between processes.

    A missing file counts as an empty ring. Returns the ring that was saved.
    """
    with locked(path):
        ring = change(KeyRing.load(path) if path.exists() else KeyRing())
        ring.save(path)
        return ring


@contextmanager
def locked(path: Path, *, wait_s: float = 2.0) -> Iterator[None]:
    """Hold the advisory lock that belongs to `path`; raises ConfigError after `wait_s`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock")
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(handle, lock, time.monotonic() + wait_s)
        yield
    finally:
        os.close(handle)


def _take(handle: int, lock: Path, until: float) -> None:
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise ConfigError(
                    f"another process holds {lock}", hint="end it, then run this again"
                ) from None
            time.sleep(_LOCK_POLL_S)


def read_guarded(path: Path, *, what: str) -> bytes:
    """Return the bytes of `path`; raises ConfigError when others could have written them.

    `what` names the file in words. Raises FileNotFoundError when there is none.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigError(
                    f"the {what} {path} can be changed by other users (mode {mode:04o})",
                    hint=f"see that its content is yours, then: chmod go-w {path}",
                )
            raw = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(
            f"the {what} {path} cannot be read: {error.strerror}", hint="mend the file's access"
        ) from error
    if len(raw) > _LARGEST_BYTES:
        raise ConfigError(f"the {what} {path} is too large", hint="restore it from a copy")
    return raw


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` in one step and durably, readable by its owner only (0600)."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file 0600.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", hint="mend the folder's access"
        ) from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class _File:
    schema: int
    keys: tuple[EnrolledKey, ...]


@dataclass(frozen=True, slots=True)
class _Header:
    schema: int


def _parse(raw: bytes, path: Path) -> KeyRing:
    hint = "restore the file from a copy, or enrol the keys anew: killswitch keys enroll"
    try:
        schema = msgspec.json.decode(raw, type=_Header).schema
        if schema != SCHEMA:
            raise ConfigError(
                f"the key ring {path} has schema {schema}, this killswitch reads {SCHEMA}",
                hint="use the version of killswitch that wrote it",
            )
        keys = msgspec.json.decode(raw, type=_File).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the key ring {path} is damaged: {error}", hint=hint) from None
    trouble = _trouble(keys)
    if trouble:
        raise ConfigError(f"the key ring {path} is damaged: {trouble}", hint=hint)
    return KeyRing(keys)


def _trouble(keys: tuple[EnrolledKey, ...]) -> str:
    for number, key in enumerate(keys, 1):
        if not (_is_name(key.label) and _is_name(key.operator)):
            return f"key {number} has no printable label and operator"
        if not key.credential_id or key.credential[:_AAGUID_END].hex() != key.aaguid:
            return f"key {number} has no whole credential"
    if len({key.label for key in keys}) < len(keys):
        return "two keys have the same label"
    if len({key.credential_id for key in keys}) < len(keys):
        return "two keys have the same credential"
    return ""


def _is_name(text: str) -> bool:
    # Names are shown on a terminal: an escape sequence in one could rewrite the screen.
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable() and text == text.strip()


def _pem(credential: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 (slow)
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 (slow)
        Encoding,
        PublicFormat,
    )
    from fido2.cose import ES256  # noqa: PLC0415 (slow, and only this needs it)
    from fido2.webauthn import AttestedCredentialData  # noqa: PLC0415 (slow)

    cose = AttestedCredentialData(credential).public_key
    if not isinstance(cose, ES256):
        raise ValueError("the credential is not ES256")  # noqa: TRY004 (its value, not its type)
    x, y = (int.from_bytes(cose[coordinate], "big") for coordinate in (-2, -3))
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
