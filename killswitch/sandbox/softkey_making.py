"""How the software key makes a credential: authenticatorMakeCredential (CTAP 2.1 section 6.1)."""

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from fido2 import cbor
from fido2.cose import ES256
from fido2.ctap import CtapError
from fido2.webauthn import Aaguid, AttestedCredentialData, AuthenticatorData

from killswitch.sandbox import softkey_credentials as credentials
from killswitch.sandbox import softkey_hmac as hmac_secret
from killswitch.sandbox.softkey_credentials import Chain, Credential
from killswitch.sandbox.softkey_pin import Answer, PinUv
from killswitch.sandbox.softkey_protocol import Permission
from killswitch.sandbox.softkey_requests import HmacSecret, MakeCredential, convert
from killswitch.sandbox.softkey_state import Resident, State, Store

MAX_RESIDENTS: Final = 25

_ERR = CtapError.ERR
_FLAG = AuthenticatorData.FLAG
_UV_REQUIRED: Final = 3
AwaitTouch = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Maker:
    """What makes credentials for some relying parties and attests them."""

    store: Store
    pin_uv: PinUv
    aaguid: bytes
    rp_ids: Collection[str]
    attestation: Chain | None
    hmac_secret_mc: bool

    def make(self, request: MakeCredential, await_touch: AwaitTouch) -> Answer:
        """Make a credential and attest it."""
        uv = self._check(request, await_touch)
        excluded = self._excluded(request, uv=uv)
        await_touch()
        if uv:
            self.pin_uv.used()
        if excluded:
            raise CtapError(_ERR.CREDENTIAL_EXCLUDED)
        if request.rp.id not in self.rp_ids:
            raise CtapError(_ERR.NOT_ALLOWED)
        credential = credentials.make(
            self.store.read().master,
            request.rp.id,
            resident=bool(request.options.rk),
            protection=request.extensions.protection or 1,
        )
        extensions = self._extensions(request, credential, uv=uv)
        if credential.resident:
            self._keep(request, credential)
        signed = self._authenticator_data(request, credential, extensions, uv=uv)
        statement = credentials.attest(credential, signed + request.digest, self.attestation)
        return {0x01: "packed", 0x02: signed, 0x03: statement}

    def _check(self, request: MakeCredential, await_touch: AwaitTouch) -> bool:
        permission = Permission.MAKE_CREDENTIAL
        uv = self.pin_uv.user_verified(request, permission, request.rp.id, await_touch)
        if ES256.ALGORITHM not in [one.get("alg") for one in request.parameters]:
            raise CtapError(_ERR.UNSUPPORTED_ALGORITHM)
        if (request.options.uv and not uv) or not request.options.up:
            raise CtapError(_ERR.INVALID_OPTION)
        guarded = self.store.read().always_uv or (request.options.rk and self.pin_uv.is_set)
        if guarded and not uv:
            raise CtapError(_ERR.PUAT_REQUIRED)
        if request.extensions.protection not in range(_UV_REQUIRED + 1):
            raise CtapError(_ERR.INVALID_OPTION)
        return uv

    def _excluded(self, request: MakeCredential, *, uv: bool) -> bool:
        found = (recognised(self.store, request.rp.id, one.id) for one in request.excluded)
        return any(one is not None and (uv or one.protection < _UV_REQUIRED) for one in found)

    def _extensions(
        self, request: MakeCredential, credential: Credential, *, uv: bool
    ) -> dict[str, object]:
        wanted, found = request.extensions, dict[str, object]()
        state = self.store.read()
        if wanted.hmac_secret:
            found[hmac_secret.NAME] = True
        if wanted.hmac_secret_mc is not None and self.hmac_secret_mc:
            salts = convert(wanted.hmac_secret_mc, HmacSecret)
            output = hmac_secret.evaluate(self.pin_uv, salts, credential, uv=uv)
            found[hmac_secret.NAME_WHEN_MADE] = output
        if wanted.protection:
            found["credProtect"] = wanted.protection
        if wanted.min_pin_length and request.rp.id in state.min_pin_rp_ids:
            found["minPinLength"] = state.min_pin_length
        return found

    def _keep(self, request: MakeCredential, credential: Credential) -> None:
        new = Resident(
            rp_id=request.rp.id,
            credential_id=credential.id,
            user_id=request.user.id,
            user_name=request.user.name,
            user_display_name=request.user.display_name,
        )

        def kept(state: State) -> State:
            others = tuple(one for one in state.residents if one.owner != new.owner)
            if len(others) >= MAX_RESIDENTS:
                raise CtapError(_ERR.KEY_STORE_FULL)
            return replace(state, residents=(*others, new))

        self.store.change(kept)

    def _authenticator_data(
        self,
        request: MakeCredential,
        credential: Credential,
        extensions: dict[str, object],
        *,
        uv: bool,
    ) -> bytes:
        attested = AttestedCredentialData.create(
            Aaguid(self.aaguid), credential.id, credential.public_key
        )
        flags = _FLAG.UP | _FLAG.AT
        return authenticator_data(
            request.rp.id, flags, advanced(self.store), extensions, uv=uv, attested=attested
        )


def recognised(store: Store, rp_id: str, credential_id: bytes) -> Credential | None:
    """Return this key's credential of that id; a discoverable one only until it is deleted."""
    state = store.read()
    credential = credentials.recognise(state.master, rp_id, credential_id)
    if credential is None or not credential.resident:
        return credential
    kept = {one.credential_id for one in state.residents}
    return credential if credential.id in kept else None


def advanced(store: Store) -> int:
    """Return the next value of the signature counter; none is given out twice."""
    return store.change(lambda state: replace(state, counter=state.counter + 1)).counter


def authenticator_data(
    rp_id: str,
    flags: int,
    counter: int,
    extensions: dict[str, object],
    *,
    uv: bool,
    attested: bytes = b"",
) -> bytes:
    """Return authenticatorData as WebAuthn lays it out."""
    flags |= (_FLAG.UV if uv else 0) | (_FLAG.ED if extensions else 0)
    head = sha256(rp_id.encode()).digest() + struct.pack(">BI", flags, counter)
    return head + attested + (cbor.encode(extensions) if extensions else b"")
