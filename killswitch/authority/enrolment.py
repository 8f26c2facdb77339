"""Enrolment: make a credential on a security key, and see it sign and open before it is trusted."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from fido2.client import ClientError
from fido2.ctap import CtapDevice, CtapError
from fido2.hid import ConnectionFailure

from killswitch.authority.attestation import AttestationPolicy
from killswitch.authority.ceremony import begin, refusal
from killswitch.authority.pin import AskPin, PinPolicy, PinTroubleError
from killswitch.authority.proof import Assertion
from killswitch.authority.ring import SANDBOX_RP_ID, UNCHANGED, EnrolledKey, KeyRing
from killswitch.authority.sealing import SealError
from killswitch.errors import AbortedError, KillswitchError

_ERR = CtapError.ERR
# What the key answered, what that means, what to do next.
_WORDS: Final = {
    _ERR.CREDENTIAL_EXCLUDED: ("this security key is already enrolled", "use another key"),
    _ERR.OPERATION_DENIED: ("the touch was refused", "run it again and touch the key"),
    _ERR.NOT_ALLOWED: ("the key does not serve this relying party", "use a real security key"),
    _ERR.USER_ACTION_TIMEOUT: ("no touch on the key in its own time", "run it again, touch it"),
    _ERR.ACTION_TIMEOUT: ("no touch on the key in its own time", "run it again, touch it"),
    _ERR.PIN_NOT_SET: ("the key has no PIN", "set one: fido2-token -S, or the maker's tool"),
    _ERR.PUAT_REQUIRED: ("the key asks for its PIN", "run it where a PIN can be typed"),
    _ERR.PIN_INVALID: ("wrong PIN", "run it again"),
    _ERR.PIN_AUTH_BLOCKED: ("the PIN is blocked for now", "plug the key out and in again"),
    _ERR.PIN_BLOCKED: ("the PIN is blocked for good", "use another key, or reset this one"),
    _ERR.UNSUPPORTED_ALGORITHM: ("the key cannot do ES256", "use a FIDO2 key"),
    _ERR.KEY_STORE_FULL: ("the key has no room left", "use another key"),
}
_TRANSPORT: Final[tuple[tuple[type[Exception], tuple[str, str]], ...]] = (
    (TimeoutError, ("the key stopped answering", "plug it out and in again")),
    (ConnectionFailure, ("another program is using the key", "close it, then run this again")),
    (OSError, ("the key was pulled out", "plug it in and run this again")),
)
_EXPECTED: Final = (
    *(ClientError, CtapError, ConnectionFailure, OSError, ValueError),
    *(PinTroubleError, SealError),
)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A key as it goes into the ring, and what is worth keeping of how it got there.

    `assertion` is its signature over the challenge that it was enrolled with. The attestation
    object (CBOR) and the client data belong to the making of the credential: together they let
    anybody judge later what vouched for the key.
    """

    key: EnrolledKey
    assertion: Assertion
    attestation_object: bytes
    attestation_client_data_json: bytes


def enroll(
    device: CtapDevice,
    *,
    ring: KeyRing,
    label: str,
    operator: str,
    rp_id: str,
    now: datetime,
    cancel: threading.Event,
    on_touch: Callable[[int, int], None],
    challenge: Callable[[EnrolledKey], bytes],
    role: str = "halt",
    attestation: AttestationPolicy | None = None,
    ask_pin: AskPin | None = None,
    force_pin: bool = False,
) -> Enrolment:
    """Make a credential and return the key with what opens secrets for it; `ring` stays as it is.

    The key is touched once to make the credential, then twice for each of its PRF outputs: one
    without PIN (unless the key always wants it), one with PIN if it has one. The second touch has
    to give the same output. The last touch signs `challenge`, which is asked for the key as it
    will be enrolled, but for its counter. `on_touch` is told which touch comes, and of how many.

    Raises UsageError for a label that is taken, NotAuthorizedError for whatever the key did not
    do or the policy does not allow, AbortedError on `cancel`.
    """
    ring.check_new(label, operator, role)
    policy = attestation or AttestationPolicy()
    policy.anchors()
    try:
        ceremony = begin(
            device,
            label=label,
            rp_id=rp_id,
            cancel=cancel,
            on_touch=on_touch,
            pin=PinPolicy(ask_pin, force=force_pin) if ask_pin else None,
        )
        credential, made = ceremony.make(ring, operator)
        statement = made.response.attestation_object
        key = EnrolledKey(
            label=label,
            operator=operator,
            rp_id=rp_id,
            credential=bytes(credential),
            aaguid=bytes(credential.aaguid).hex(),
            counter=0,
            enrolled_at=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            role=role,
            attestation=policy.judge(statement, made.response.client_data.hash, now=now),
        )
        if key.sandbox and rp_id != SANDBOX_RP_ID:
            raise refusal(*_WORDS[_ERR.NOT_ALLOWED])
        key = replace(key, recipients=ceremony.learn(key))
        assertion = ceremony.prove(key, challenge)
    except _EXPECTED as error:
        raise _in_words(error, cancel) from error
    return Enrolment(
        key=replace(key, counter=assertion.counter),
        assertion=assertion,
        attestation_object=bytes(statement),
        attestation_client_data_json=bytes(made.response.client_data),
    )


def _in_words(error: Exception, cancel: threading.Event) -> KillswitchError:
    if cancel.is_set():
        return AbortedError("stopped before the touch", effect=UNCHANGED, hint="run it again")
    return refusal(*_words(error))


def _words(error: Exception) -> tuple[str, str]:
    """Return what happened, and what to do next."""
    cause = error.cause if isinstance(error, ClientError) else error
    code = cause.code if isinstance(cause, CtapError) else None
    if code in _WORDS:
        return _WORDS[code]
    match error:
        case PinTroubleError(problem=problem, hint=hint):
            return problem, hint or "run it again where a PIN can be typed"
        case SealError(problem=problem):
            return f"the key opens nothing: {problem}", "do not use this key"
        case _:
            found = (words for kind, words in _TRANSPORT if isinstance(error, kind))
            return next(found, (f"the key failed: {cause!r}", "try another key"))
