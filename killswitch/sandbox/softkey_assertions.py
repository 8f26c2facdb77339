"""How the software key signs: authenticatorGetAssertion and its sequel (CTAP 2.1 section 6.2)."""

from collections.abc import Iterator
from dataclasses import dataclass

from fido2.ctap import CtapError
from fido2.webauthn import AuthenticatorData

from killswitch.sandbox import softkey_hmac as hmac_secret
from killswitch.sandbox.softkey_credentials import Credential
from killswitch.sandbox.softkey_making import (
    AwaitTouch,
    advanced,
    authenticator_data,
    recognised,
)
from killswitch.sandbox.softkey_pin import Answer, PinUv
from killswitch.sandbox.softkey_protocol import Permission
from killswitch.sandbox.softkey_requests import GetAssertion, HmacSecret, convert
from killswitch.sandbox.softkey_state import Store

_ERR = CtapError.ERR


@dataclass(frozen=True, slots=True)
class _Pending:
    request: GetAssertion
    uv: bool
    rest: Iterator[Credential]


class Signer:
    """What signs with the credentials of a key."""

    def __init__(self, store: Store, pin_uv: PinUv) -> None:
        self._store = store
        self._pin_uv = pin_uv
        self._pending: _Pending | None = None

    def sign(self, request: GetAssertion, await_touch: AwaitTouch) -> Answer:
        """Sign for one of the listed credentials, or for the discoverable ones without a list.

        With `up` false nobody is asked, and the presence flag stays unset.
        """
        self.forget()
        permission = Permission.GET_ASSERTION
        uv = self._pin_uv.user_verified(request, permission, request.rp_id, await_touch)
        self._check(request, uv=uv)
        found = self._found(request, uv=uv)
        if request.options.up:
            await_touch()  # even for a stranger's credential: otherwise it tells who owns what
            if uv:
                self._pin_uv.used()
        if not found:
            raise CtapError(_ERR.NO_CREDENTIALS)
        answer = self._assertion(request, found[0], uv=uv)
        if len(found) > 1:
            self._pending = _Pending(request, uv, iter(found[1:]))
            answer[0x05] = len(found)
        return answer

    def sign_next(self) -> Answer:
        """Sign with the next discoverable credential (section 6.3)."""
        pending = self._pending
        credential = next(pending.rest, None) if pending else None
        if pending is None or credential is None:
            raise CtapError(_ERR.NOT_ALLOWED)
        return self._assertion(pending.request, credential, uv=pending.uv)

    def forget(self) -> None:
        """Have nothing more to sign for the last request."""
        self._pending = None

    def _check(self, request: GetAssertion, *, uv: bool) -> None:
        options = request.options
        if options.rk is not None:
            raise CtapError(_ERR.UNSUPPORTED_OPTION)
        if options.uv and not uv:
            raise CtapError(_ERR.INVALID_OPTION)
        if options.up and not uv and self._store.read().always_uv:
            raise CtapError(_ERR.PUAT_REQUIRED)
        if request.extensions.hmac_secret is not None and not options.up:
            raise CtapError(_ERR.UNSUPPORTED_OPTION)  # a secret is never given without a touch

    def _found(self, request: GetAssertion, *, uv: bool) -> list[Credential]:
        highest = 3 if uv else 2 if request.allowed else 1  # credProtect, section 12.1
        listed = [one.id for one in request.allowed]
        residents = reversed(self._store.read().residents)
        ids = listed or [one.credential_id for one in residents if one.rp_id == request.rp_id]
        known = (recognised(self._store, request.rp_id, one) for one in ids)
        found = [one for one in known if one is not None and one.protection <= highest]
        return found[:1] if listed else found

    def _assertion(self, request: GetAssertion, credential: Credential, *, uv: bool) -> Answer:
        extensions: dict[str, object] = {}
        if request.extensions.hmac_secret is not None:
            salts = convert(request.extensions.hmac_secret, HmacSecret)
            output = hmac_secret.evaluate(self._pin_uv, salts, credential, uv=uv)
            extensions[hmac_secret.NAME] = output
        present = request.options.up
        counter = advanced(self._store) if present else self._store.read().counter
        flags = AuthenticatorData.FLAG.UP if present else 0
        signed = authenticator_data(request.rp_id, flags, counter, extensions, uv=uv)
        answer: Answer = {
            0x01: {"id": credential.id, "type": "public-key"},
            0x02: signed,
            0x03: credential.sign(signed + request.digest),
        }
        if credential.resident:
            answer[0x04] = self._user(credential, uv=uv)
        return answer

    def _user(self, credential: Credential, *, uv: bool) -> dict[str, object]:
        kept = self._store.read().residents
        resident = next(one for one in kept if one.credential_id == credential.id)
        return resident.user if uv else {"id": resident.user_id}  # names only for who is known
