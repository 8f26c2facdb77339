"""How the owner looks after the software key: its discoverable credentials and its settings.

authenticatorCredentialManagement is CTAP 2.1 section 6.8, authenticatorConfig section 6.11.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import IntEnum
from hashlib import sha256
from typing import Final

import msgspec
from fido2.ctap import CtapError

from killswitch.sandbox import softkey_credentials as credentials
from killswitch.sandbox.softkey_making import MAX_RESIDENTS
from killswitch.sandbox.softkey_pin import Answer, PinUv
from killswitch.sandbox.softkey_protocol import Permission
from killswitch.sandbox.softkey_requests import Descriptor, Managed, User, convert
from killswitch.sandbox.softkey_state import Resident, State, Store

MAX_MIN_PIN_RP_IDS: Final = 4

_ERR = CtapError.ERR
_MAX_PIN_LENGTH: Final = 63
_CONFIGURE_HEAD: Final = b"\xff" * 32 + b"\x0d"


class _Manage(IntEnum):
    METADATA = 1
    RPS_BEGIN = 2
    RPS_NEXT = 3
    CREDENTIALS_BEGIN = 4
    CREDENTIALS_NEXT = 5
    DELETE = 6
    UPDATE = 7


class _Configure(IntEnum):
    TOGGLE_ALWAYS_UV = 2
    SET_MIN_PIN_LENGTH = 3


class _OfRelyingParty(msgspec.Struct, frozen=True):
    rp_id_hash: bytes = msgspec.field(name="1")


class _Chosen(msgspec.Struct, frozen=True):
    descriptor: Descriptor = msgspec.field(name="2")


class _Renamed(msgspec.Struct, frozen=True):
    descriptor: Descriptor = msgspec.field(name="2")
    user: User = msgspec.field(name="3")


class _MinPinLength(msgspec.Struct, frozen=True):
    length: int | None = msgspec.field(name="1", default=None)
    rp_ids: tuple[str, ...] | None = msgspec.field(name="2", default=None)
    force_change: bool = msgspec.field(name="3", default=False)


class Caretaker:
    """Lists, renames and deletes discoverable credentials, and changes the settings."""

    def __init__(self, store: Store, pin_uv: PinUv) -> None:
        self._store = store
        self._pin_uv = pin_uv
        self._listing: tuple[_Manage, Iterator[Answer]] | None = None

    def forget(self) -> None:
        """End a listing that was begun."""
        self._listing = None

    def manage(self, request: Managed) -> Answer:
        """Carry out one subcommand of authenticatorCredentialManagement."""
        if request.subcommand in {_Manage.RPS_NEXT, _Manage.CREDENTIALS_NEXT}:
            return self._next(request.subcommand)
        self.forget()
        self._authorise(request, request.signed, Permission.CREDENTIAL_MANAGEMENT)
        parameters = request.parameters or {}
        residents = self._store.read().residents
        match request.subcommand:
            case _Manage.METADATA:
                return {0x01: len(residents), 0x02: MAX_RESIDENTS - len(residents)}
            case _Manage.RPS_BEGIN:
                rp_ids = dict.fromkeys(one.rp_id for one in residents)
                found: Iterable[Answer] = ({0x03: {"id": one}, 0x04: _hash(one)} for one in rp_ids)
                return self._begin(_Manage.RPS_NEXT, found, 0x05)
            case _Manage.CREDENTIALS_BEGIN:
                wanted = convert(parameters, _OfRelyingParty).rp_id_hash
                of_rp = (self._described(one) for one in residents if _hash(one.rp_id) == wanted)
                return self._begin(_Manage.CREDENTIALS_NEXT, of_rp, 0x09)
            case _Manage.DELETE:
                return self._delete(convert(parameters, _Chosen).descriptor)
            case _Manage.UPDATE:
                return self._rename(convert(parameters, _Renamed))
            case _:
                raise CtapError(_ERR.INVALID_SUBCOMMAND)

    def configure(self, request: Managed) -> Answer:
        """Carry out one subcommand of authenticatorConfig."""
        if self._pin_uv.is_set:
            self._authorise(request, _CONFIGURE_HEAD + request.signed, Permission.CONFIGURE)
        match request.subcommand:
            case _Configure.TOGGLE_ALWAYS_UV:
                self._store.change(lambda state: replace(state, always_uv=not state.always_uv))
            case _Configure.SET_MIN_PIN_LENGTH:
                wanted = convert(request.parameters or {}, _MinPinLength)
                self._store.change(lambda state: _with_min_pin_length(state, wanted))
            case _:
                raise CtapError(_ERR.INVALID_SUBCOMMAND)
        return {}

    def _authorise(self, request: Managed, message: bytes, permission: Permission) -> None:
        if request.auth is None:
            raise CtapError(_ERR.PUAT_REQUIRED)
        self._pin_uv.verify(message, request.auth, request.protocol, permission=permission)

    def _begin(self, sequel: _Manage, found: Iterable[Answer], total: int) -> Answer:
        answers = list(found)
        if not answers:
            raise CtapError(_ERR.NO_CREDENTIALS)
        self._listing = sequel, iter(answers[1:])
        return {**answers[0], total: len(answers)}

    def _next(self, sequel: int) -> Answer:
        begun, rest = self._listing or (None, iter(()))
        answer = next(rest, None) if begun == sequel else None
        if answer is None:
            raise CtapError(_ERR.NOT_ALLOWED)
        return answer

    def _described(self, resident: Resident) -> Answer:
        master = self._store.read().master
        credential = credentials.recognise(master, resident.rp_id, resident.credential_id)
        if credential is None:
            raise CtapError(_ERR.OTHER)
        return {
            0x06: resident.user,
            0x07: {"id": credential.id, "type": "public-key"},
            0x08: credential.public_key,
            0x0A: credential.protection,
        }

    def _delete(self, descriptor: Descriptor) -> Answer:
        self._replace(descriptor, None)
        return {}

    def _rename(self, request: _Renamed) -> Answer:
        self._replace(request.descriptor, request.user)
        return {}

    def _replace(self, descriptor: Descriptor, user: User | None) -> None:
        def changed(state: State) -> State:
            residents = {one.credential_id: one for one in state.residents}
            chosen = residents.pop(descriptor.id, None)
            if chosen is None:
                raise CtapError(_ERR.NO_CREDENTIALS)
            if user is None:
                return replace(state, residents=tuple(residents.values()))
            if user.id != chosen.user_id:
                raise CtapError(_ERR.INVALID_PARAMETER)
            new = chosen.named(user.name, user.display_name)
            kept = tuple(new if one == chosen else one for one in state.residents)
            return replace(state, residents=kept)

        self._store.change(changed)


def _with_min_pin_length(state: State, wanted: _MinPinLength) -> State:
    length = state.min_pin_length if wanted.length is None else wanted.length
    if not state.min_pin_length <= length <= _MAX_PIN_LENGTH:
        raise CtapError(_ERR.PIN_POLICY_VIOLATION)  # it can only grow, until a reset
    if wanted.rp_ids is not None and len(wanted.rp_ids) > MAX_MIN_PIN_RP_IDS:
        raise CtapError(_ERR.KEY_STORE_FULL)
    if wanted.force_change and state.pin_hash is None:
        raise CtapError(_ERR.PIN_NOT_SET)
    too_short = state.pin_hash is not None and state.pin_length < length
    return replace(
        state,
        min_pin_length=length,
        min_pin_rp_ids=state.min_pin_rp_ids if wanted.rp_ids is None else wanted.rp_ids,
        force_pin_change=state.force_pin_change or wanted.force_change or too_short,
    )


def _hash(rp_id: str) -> bytes:
    return sha256(rp_id.encode()).digest()
