"""Enrolment, through the real Fido2Client and Fido2Server, with a software key."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from fido2 import cbor
from fido2.client import AssertionSelection, ClientDataCollector, Fido2Client, WebAuthnClient
from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.ctap2.extensions import (
    AuthenticatorExtensionsPRFOutputs,
    AuthenticatorExtensionsPRFValues,
)
from fido2.hid import ConnectionFailure
from fido2.webauthn import (
    AttestationObject,
    CollectedClientData,
    PublicKeyCredentialRequestOptions,
)

from killswitch.authority.attestation import AttestationPolicy
from killswitch.authority.enrolment import Enrolment, enroll
from killswitch.authority.pin import AskPin
from killswitch.authority.proof import mismatch
from killswitch.authority.ring import SANDBOX_AAGUID, SANDBOX_RP_ID, EnrolledKey, KeyRing
from killswitch.authority.system_key import SystemKey
from killswitch.errors import AbortedError, NotAuthorizedError, UsageError
from killswitch.sandbox.softkey import SoftKey, SoftKeyDevice, Touch
from tests.authority.desks import CHALLENGE, Keyboard, Old

RP_ID = "killswitch.example"
NOW = datetime(2026, 11, 21, 4, 14, 7, tzinfo=timezone(timedelta(hours=1)))


MAKE, SIGN, INFO = 1, 2, 4


def touched(_cancel: threading.Event) -> bool:
    return True


def real(
    touch: Touch = touched,
    *,
    pin: str | None = None,
    always_uv: bool = False,
    hmac_secret_mc: bool = False,
) -> SoftKey:
    """Return a software key that poses as a real one."""
    return SoftKey(
        touch=touch,
        rp_ids={RP_ID},
        aaguid=bytes(16),
        pin=pin,
        always_uv=always_uv,
        hmac_secret_mc=hmac_secret_mc,
    )


def enrol(
    device: CtapDevice,
    *,
    ring: KeyRing | None = None,
    label: str = "blue",
    operator: str = "anna",
    rp_id: str = RP_ID,
    cancel: threading.Event | None = None,
    on_touch: Callable[[int, int], None] = lambda _number, _of: None,
    challenge: Callable[[EnrolledKey], bytes] = lambda _key: CHALLENGE,
    role: str = "halt",
    attestation: AttestationPolicy | None = None,
    ask_pin: AskPin | None = None,
) -> Enrolment:
    return enroll(
        device,
        ring=ring or KeyRing(),
        label=label,
        operator=operator,
        rp_id=rp_id,
        now=NOW,
        cancel=cancel or threading.Event(),
        on_touch=on_touch,
        challenge=challenge,
        role=role,
        attestation=attestation,
        ask_pin=ask_pin,
    )


class Counted:
    """Keeps which touches were announced, and of how many."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    def __call__(self, number: int, of: int) -> None:
        self.heard.append((number, of))


def test_three_touches_enrol_a_key_the_last_one_signs_what_it_is_asked_to(tmp_path: Path) -> None:
    soft, touches = real(), Counted()
    done = enrol(SoftKeyDevice(soft), on_touch=touches)
    key = done.key
    assert touches.heard == [(1, 3), (2, 3), (3, 3)]
    assert (key.label, key.operator, key.role, key.rp_id) == ("blue", "anna", "halt", RP_ID)
    assert key.counter == soft.counter == done.assertion.counter == 3
    assert key.enrolled_at == "2026-11-21T03:14:07Z"
    assert key.public_key.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert mismatch(CHALLENGE, done.assertion, [key], RP_ID) == ""
    assert [one.uv for one in key.recipients] == [False]
    KeyRing().add(key).save(tmp_path / "keys.json")
    assert KeyRing.load(tmp_path / "keys.json").keys == (key,)


def test_what_the_last_touch_signs_is_made_from_the_key_as_it_will_be_enrolled() -> None:
    seen = list[EnrolledKey]()

    def digest(key: EnrolledKey) -> bytes:
        seen.append(key)
        return hashlib.sha256(key.credential).digest()

    done = enrol(SoftKeyDevice(real()), challenge=digest, role="both")
    assert seen == [replace(done.key, counter=0)]
    assert seen[0].role == "both"
    expected = hashlib.sha256(done.key.credential).digest()
    assert mismatch(expected, done.assertion, [done.key], RP_ID) == ""


def test_what_vouched_for_the_key_is_handed_over_to_be_kept() -> None:
    done = enrol(SoftKeyDevice(real()))
    statement = AttestationObject(done.attestation_object)
    client_data = CollectedClientData(done.attestation_client_data_json)
    assert done.key.attestation == "self"
    assert AttestationPolicy().judge(statement, client_data.hash, now=NOW) == "self"
    assert statement.auth_data.credential_data == done.key.credential


def test_a_key_with_a_pin_gets_a_recipient_for_each_of_its_outputs_and_is_asked_once() -> None:
    soft, touches, keyboard = real(pin="2468"), Counted(), Keyboard("2468")
    done = enrol(SoftKeyDevice(soft), on_touch=touches, ask_pin=keyboard)
    assert touches.heard == [(number, 5) for number in range(1, 6)]
    assert [one.uv for one in done.key.recipients] == [False, True]
    assert len({one.public_key for one in done.key.recipients}) == 2
    assert done.assertion.user_verified
    assert keyboard.prompts == [("blue", 8, "")]


def test_a_key_that_always_wants_its_pin_gets_the_one_recipient_that_it_can_have() -> None:
    soft, touches = real(pin="2468", always_uv=True), Counted()
    done = enrol(SoftKeyDevice(soft), on_touch=touches, ask_pin=Keyboard("2468"))
    assert touches.heard == [(1, 3), (2, 3), (3, 3)]
    assert [one.uv for one in done.key.recipients] == [True]


@pytest.mark.parametrize(("pin", "touches"), [(None, 2), ("2468", 4)])
def test_a_key_that_gives_its_output_when_made_saves_a_touch(pin: str | None, touches: int) -> None:
    counted = Counted()
    soft = real(pin=pin, hmac_secret_mc=True)
    done = enrol(SoftKeyDevice(soft), on_touch=counted, ask_pin=Keyboard(pin))
    assert counted.heard == [(number, touches) for number in range(1, touches + 1)]
    assert [one.uv for one in done.key.recipients] == [False, True][: 1 + bool(pin)]


def test_a_wrong_pin_costs_no_touch_at_an_enrolment() -> None:
    counted, keyboard = Counted(), Keyboard("0000", "2468")
    enrol(SoftKeyDevice(real(pin="2468")), on_touch=counted, ask_pin=keyboard)
    assert keyboard.prompts == [("blue", 8, ""), ("blue", 7, "wrong PIN")]
    assert counted.heard[0] == (1, 5)


@pytest.mark.parametrize(
    ("ask_pin", "problem"),
    [
        (None, 'the key "blue" asks for its PIN'),
        (Keyboard(None), 'the PIN of the key "blue" was not given'),
    ],
)
@pytest.mark.parametrize("always_uv", [False, True])
def test_a_key_with_a_pin_is_not_enrolled_without_it(
    ask_pin: Keyboard | None, problem: str, *, always_uv: bool
) -> None:
    if ask_pin:
        ask_pin.typed = [None]
    soft = real(pin="2468", always_uv=always_uv)
    with pytest.raises(NotAuthorizedError) as caught:
        enrol(SoftKeyDevice(soft), ask_pin=ask_pin)
    assert caught.value.problem == problem
    assert caught.value.effect == "the key ring is unchanged"
    assert soft.counter == 0


def test_a_key_that_always_wants_a_pin_and_has_none_is_refused() -> None:
    soft = real(always_uv=True)
    with pytest.raises(NotAuthorizedError, match='the key "blue" has no PIN') as caught:
        enrol(SoftKeyDevice(soft), ask_pin=Keyboard())
    assert caught.value.hint.startswith("set one with")
    assert soft.counter == 0


class Altered(SoftKeyDevice):
    """A key whose answers to one command are changed on the way."""

    def __init__(
        self, soft: SoftKey, command: int, change: Callable[[dict[int, object]], object]
    ) -> None:
        super().__init__(soft)
        self.command = command
        self.change = change

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        answer = super().call(cmd, data, event, on_keepalive)
        if data[0] != self.command:
            return answer
        fields = cbor_map(answer[1:])
        self.change(fields)
        return answer[:1] + cbor.encode(fields)


def cbor_map(raw: bytes) -> dict[int, object]:
    decoded = cbor.decode(raw)
    assert isinstance(decoded, dict)
    return decoded


@pytest.mark.parametrize("extensions", [[], ["credProtect"]])
def test_a_key_without_prf_is_refused_by_the_name_of_what_it_lacks(extensions: list[str]) -> None:
    soft = real()
    with pytest.raises(NotAuthorizedError, match=r"lacks PRF \(the extension hmac-secret\)") as no:
        enrol(Altered(soft, INFO, lambda fields: fields.update({2: extensions})))
    assert soft.counter == 0
    assert no.value.hint == "use a FIDO2 key that has it"


class Fickle(Fido2Client):
    """Gives another secret from the second signature on."""

    signed = 0

    def get_assertion(
        self, options: PublicKeyCredentialRequestOptions, event: threading.Event | None = None
    ) -> AssertionSelection:
        found = super().get_assertion(options, event)
        self.signed += 1
        if self.signed > 1:
            other = AuthenticatorExtensionsPRFValues(bytes([self.signed]) * 32)
            outputs = {"prf": AuthenticatorExtensionsPRFOutputs(results=other)}
            found._get_extension_results = lambda _assertion: outputs  # type: ignore[assignment,method-assign]  # its whim
        return found


def test_a_key_whose_secret_changes_from_touch_to_touch_is_not_enrolled() -> None:
    soft = SoftKeyDevice(real())
    with pytest.raises(NotAuthorizedError, match="gave another secret at its second touch") as no:
        enrol(SystemKey(lambda collector: Fickle(soft, collector)))
    assert no.value.hint == "do not use this key: it opens nothing"


def test_a_key_that_signs_without_giving_its_secret_is_not_enrolled() -> None:
    def forget(fields: dict[int, object]) -> None:
        signed = fields[2]
        assert isinstance(signed, bytes)
        fields[2] = signed[:32] + bytes([signed[32] & 0x7F]) + signed[33:37]

    with pytest.raises(NotAuthorizedError, match="test signature is wrong"):
        enrol(Altered(real(), SIGN, forget))


def test_a_key_whose_counter_goes_back_during_its_enrolment_is_refused() -> None:
    touches = list[int]()

    def touch(_cancel: threading.Event) -> bool:
        touches.append(1)
        if len(touches) == 3:
            soft._store.change(lambda state: replace(state, counter=0))
        return True

    soft = real(touch)
    with pytest.raises(NotAuthorizedError, match="counter went back"):
        enrol(SoftKeyDevice(soft))


def test_a_credential_that_may_be_copied_to_other_devices_is_refused() -> None:
    def eligible(fields: dict[int, object]) -> None:
        made = fields[2]
        assert isinstance(made, bytes)
        fields[2] = made[:32] + bytes([made[32] | 0x08]) + made[33:]

    with pytest.raises(NotAuthorizedError, match="may be copied to other devices"):
        enrol(Altered(real(), MAKE, eligible))


def test_a_forged_self_attestation_is_refused_whatever_the_policy() -> None:
    def forge(fields: dict[int, object]) -> None:
        made = fields[2]
        assert isinstance(made, bytes)
        fields[2] = made[:37] + b"\x01" * 16 + made[53:]  # another AAGUID than was signed

    with pytest.raises(NotAuthorizedError, match="the key's attestation does not hold"):
        enrol(Altered(real(), MAKE, forge))


def test_a_key_is_not_enrolled_for_a_role_that_there_is_not() -> None:
    counted = Counted()
    with pytest.raises(UsageError, match='there is no role "root"'):
        enrol(SoftKeyDevice(real()), role="root", on_touch=counted)
    assert counted.heard == []


def test_a_key_is_enrolled_once_whatever_its_label() -> None:
    device = SoftKeyDevice(real())
    ring = KeyRing((enrol(device).key,))
    with pytest.raises(NotAuthorizedError, match="already enrolled") as caught:
        enrol(device, ring=ring, label="black")
    assert caught.value.effect == "the key ring is unchanged"
    assert caught.value.hint == "use another key"


def test_a_taken_label_is_told_before_any_touch() -> None:
    asked = Counted()
    ring = KeyRing((enrol(SoftKeyDevice(real())).key,))
    with pytest.raises(UsageError, match='"blue" is already enrolled'):
        enrol(SoftKeyDevice(real()), ring=ring, on_touch=asked)
    with pytest.raises(UsageError, match="cannot name a key or its operator"):
        enrol(SoftKeyDevice(real()), operator="", on_touch=asked)
    assert asked.heard == []


def test_a_software_key_is_enrolled_for_the_sandbox_only() -> None:
    assert enrol(SoftKeyDevice(SoftKey(touch=touched)), rp_id=SANDBOX_RP_ID).key.sandbox
    with pytest.raises(NotAuthorizedError, match="does not serve this relying party"):
        enrol(SoftKeyDevice(SoftKey(touch=touched)))
    careless = SoftKey(touch=touched, rp_ids={RP_ID}, aaguid=SANDBOX_AAGUID)
    with pytest.raises(NotAuthorizedError, match="does not serve this relying party"):
        enrol(SoftKeyDevice(careless))


class Answering(SoftKeyDevice):
    """A key that answers one command in its own way."""

    def __init__(self, command: int, answer: bytes | Exception) -> None:
        super().__init__(real())
        self.command = command
        self.answer = answer

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        if data[:1] != bytes([self.command]):
            return super().call(cmd, data, event, on_keepalive)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


ERR = CtapError.ERR


@pytest.mark.parametrize("command", [MAKE, SIGN])
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (ERR.OPERATION_DENIED, "the touch was refused"),
        (ERR.USER_ACTION_TIMEOUT, "no touch on the key in its own time"),
        (ERR.ACTION_TIMEOUT, "no touch on the key in its own time"),
        (ERR.PIN_NOT_SET, "the key has no PIN"),
        (ERR.PIN_INVALID, "wrong PIN"),
        (ERR.PIN_AUTH_BLOCKED, "the PIN is blocked for now"),
        (ERR.PIN_BLOCKED, "the PIN is blocked for good"),
        (ERR.UNSUPPORTED_ALGORITHM, "the key cannot do ES256"),
        (ERR.KEY_STORE_FULL, "the key has no room left"),
        (OSError(5, "Input/output error"), "the key was pulled out"),
        (TimeoutError("silence"), "the key stopped answering"),
        (ConnectionFailure("Wrong channel"), "another program is using the key"),
        (b"\x00\xff\xff", "the key failed"),
    ],
)
def test_what_the_key_did_not_do_is_said_in_words(
    command: int, answer: int | bytes | Exception, problem: str
) -> None:
    reply = bytes([answer]) if isinstance(answer, int) else answer
    with pytest.raises(NotAuthorizedError) as caught:
        enrol(Answering(command, reply))
    assert caught.value.problem.startswith(problem)
    assert caught.value.effect == "the key ring is unchanged"
    assert caught.value.hint


def test_a_key_that_speaks_only_u2f_is_refused() -> None:
    with pytest.raises(NotAuthorizedError, match="speaks only U2F"):
        enrol(Old(real()))


def test_a_key_that_makes_a_credential_but_signs_wrongly_is_not_enrolled() -> None:
    soft = real()

    class Forger(SoftKeyDevice):
        def call(
            self,
            cmd: int,
            data: bytes = b"",
            event: threading.Event | None = None,
            on_keepalive: Callable[[STATUS], None] | None = None,
        ) -> bytes:
            answer = super().call(cmd, data, event, on_keepalive)
            return answer[:-1] + bytes([answer[-1] ^ 1]) if data[0] == SIGN else answer

    with pytest.raises(NotAuthorizedError, match="test signature is wrong: invalid signature"):
        enrol(Forger(soft))


def test_a_cancel_leaves_the_ring_as_it_was() -> None:
    cancel = threading.Event()

    def leave(_cancel: threading.Event) -> bool:
        cancel.set()
        return True

    with pytest.raises(AbortedError) as caught:
        enrol(SoftKeyDevice(real(leave)), cancel=cancel)
    assert caught.value.effect == "the key ring is unchanged"


def test_a_key_that_only_the_operating_system_may_ask_is_enrolled_through_it() -> None:
    soft = SoftKeyDevice(real())

    def window(collector: ClientDataCollector) -> WebAuthnClient:
        return Fido2Client(soft, collector)

    counted = Counted()
    done = enrol(SystemKey(window), on_touch=counted)
    assert counted.heard == [(1, 3), (2, 3), (3, 3)]
    assert [one.uv for one in done.key.recipients] == [False]
