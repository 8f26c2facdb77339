"""Enrolment: make a credential on a security key, and see it sign before it is trusted."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client, PinRequiredError
from fido2.cose import ES256
from fido2.ctap import CtapDevice, CtapError
from fido2.hid import ConnectionFailure
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestedCredentialData,
    PublicKeyCredentialParameters,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from killswitch.authority.proof import Assertion, mismatch
from killswitch.authority.ring import SANDBOX_RP_ID, UNCHANGED, EnrolledKey, KeyRing
from killswitch.errors import AbortedError, KillswitchError, NotAuthorizedError

TOUCHES: Final = 2
"""How often a key is touched to enrol it: once to make the credential, once to try it."""

_ERR = CtapError.ERR
_DISCOURAGED = UserVerificationRequirement.DISCOURAGED
# What the key answered, what that means, what to do next.
_WORDS: Final = {
    _ERR.CREDENTIAL_EXCLUDED: ("this security key is already enrolled", "use another key"),
    _ERR.OPERATION_DENIED: ("the touch was refused", "run it again and touch the key"),
    _ERR.NOT_ALLOWED: ("the key does not serve this relying party", "use a real security key"),
    _ERR.USER_ACTION_TIMEOUT: ("no touch on the key in its own time", "run it again, touch it"),
    _ERR.ACTION_TIMEOUT: ("no touch on the key in its own time", "run it again, touch it"),
    _ERR.PIN_NOT_SET: ("the key has no PIN", "set one: fido2-token -S, or the maker's tool"),
    _ERR.PUAT_REQUIRED: ("the key asks for its PIN", "use a key that does not"),
    _ERR.PIN_INVALID: ("wrong PIN", "run it again"),
    _ERR.PIN_AUTH_BLOCKED: ("the PIN is blocked for now", "plug the key out and in again"),
    _ERR.PIN_BLOCKED: ("the PIN is blocked for good", "use another key, or reset this one"),
    _ERR.UNSUPPORTED_ALGORITHM: ("the key cannot do ES256", "use a FIDO2 key"),
    _ERR.KEY_STORE_FULL: ("the key has no room left", "use another key"),
}


def enroll(
    device: CtapDevice,
    *,
    ring: KeyRing,
    label: str,
    operator: str,
    rp_id: str,
    now: datetime,
    cancel: threading.Event,
    on_touch: Callable[[int], None],
    role: str = "halt",
) -> EnrolledKey:
    """Return the key as it goes into `ring`, after two touches; the ring itself is not changed.

    `on_touch` is told the number of the touch that is about to be asked for, 1 or 2. Raises
    UsageError for a label that is taken, NotAuthorizedError for whatever the key did not do,
    AbortedError on `cancel`.
    """
    ring.check_new(label, operator)
    try:
        client = Fido2Client(device, DefaultClientDataCollector(f"https://{rp_id}"))
        if not any(version.startswith("FIDO_2") for version in client.info.versions):
            raise _refusal("the key speaks only U2F", "use a FIDO2 key")
        server = Fido2Server(PublicKeyCredentialRpEntity(id=rp_id, name="killswitch"))
        on_touch(1)
        credential = _make(client, server, ring, _user(operator, label), cancel)
        key = EnrolledKey(
            label=label,
            operator=operator,
            rp_id=rp_id,
            credential=bytes(credential),
            aaguid=bytes(credential.aaguid).hex(),
            counter=0,
            enrolled_at=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            role=role,
        )
        if key.sandbox and rp_id != SANDBOX_RP_ID:
            raise _refusal(*_WORDS[_ERR.NOT_ALLOWED])
        on_touch(TOUCHES)
        return _tried(client, server, key, cancel)
    except (ClientError, CtapError, ConnectionFailure, OSError, ValueError) as error:
        raise _in_words(error, cancel) from error


def _user(operator: str, label: str) -> PublicKeyCredentialUserEntity:
    # Keys that list their credentials tell them apart by this id; it has to hold no name.
    handle = hashlib.sha256(f"{operator}\n{label}".encode()).digest()
    return PublicKeyCredentialUserEntity(id=handle, name=operator, display_name=label)


def _make(
    client: Fido2Client,
    server: Fido2Server,
    ring: KeyRing,
    user: PublicKeyCredentialUserEntity,
    cancel: threading.Event,
) -> AttestedCredentialData:
    # ES256 only: every FIDO2 key has it, and `openssl dgst` can verify it years later.
    server.allowed_algorithms = [
        PublicKeyCredentialParameters(type=PublicKeyCredentialType.PUBLIC_KEY, alg=ES256.ALGORITHM)
    ]
    options, state = server.register_begin(
        user,
        credentials=[
            AttestedCredentialData(key.credential) for key in ring.keys if key.rp_id == server.rp.id
        ],
        resident_key_requirement=ResidentKeyRequirement.DISCOURAGED,
        user_verification=_DISCOURAGED,
    )
    made = client.make_credential(options.public_key, cancel)
    credential = server.register_complete(state, made).credential_data
    if credential is None or not isinstance(credential.public_key, ES256):
        raise _refusal("the key made no ES256 credential", "use a FIDO2 key")
    return credential


def _tried(
    client: Fido2Client, server: Fido2Server, key: EnrolledKey, cancel: threading.Event
) -> EnrolledKey:
    options, _ = server.authenticate_begin(
        [AttestedCredentialData(key.credential)], user_verification=_DISCOURAGED
    )
    response = client.get_assertion(options.public_key, cancel).get_response(0)
    assertion = Assertion.of(response)
    why = mismatch(options.public_key.challenge, assertion, [key], key.rp_id)
    if why:
        raise _refusal(f"the key's test signature is wrong: {why}", "do not use this key")
    return replace(key, counter=assertion.counter)


def _in_words(error: Exception, cancel: threading.Event) -> KillswitchError:
    if cancel.is_set():
        return AbortedError("stopped before the touch", effect=UNCHANGED, hint="run it again")
    cause = error.cause if isinstance(error, ClientError) else error
    code = cause.code if isinstance(cause, CtapError) else None
    if isinstance(error, PinRequiredError):
        code = _ERR.PUAT_REQUIRED
    if code in _WORDS:
        return _refusal(*_WORDS[code])
    if isinstance(error, TimeoutError):
        return _refusal("the key stopped answering", "plug it out and in again")
    if isinstance(error, ConnectionFailure):
        return _refusal("another program is using the key", "close it, then run this again")
    if isinstance(error, OSError):
        return _refusal("the key was pulled out", "plug it in and run this again")
    return _refusal(f"the key failed: {cause!r}", "try another key")


def _refusal(problem: str, hint: str) -> NotAuthorizedError:
    return NotAuthorizedError(problem, effect=UNCHANGED, hint=hint)
