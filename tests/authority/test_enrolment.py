"""Enrolment, through the real Fido2Client and Fido2Server, with a software key."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.hid import CAPABILITY, ConnectionFailure

from killswitch.authority.enrolment import enroll
from killswitch.authority.ring import SANDBOX_AAGUID, SANDBOX_RP_ID, EnrolledKey, KeyRing
from killswitch.errors import AbortedError, NotAuthorizedError, UsageError
from killswitch.sandbox.softkey import Answer, SoftKey, SoftKeyDevice, Touch

RP_ID = "killswitch.example"
NOW = datetime(2026, 11, 21, 4, 14, 7, tzinfo=timezone(timedelta(hours=1)))


def touched(_cancel: threading.Event) -> bool:
    return True


def real(touch: Touch = touched) -> SoftKey:
    """Return a software key that poses as a real one."""
    return SoftKey(touch=touch, rp_ids={RP_ID}, aaguid=bytes(16))


def enrol(
    device: CtapDevice,
    *,
    ring: KeyRing | None = None,
    label: str = "blue",
    operator: str = "anna",
    rp_id: str = RP_ID,
    cancel: threading.Event | None = None,
    on_touch: Callable[[int], None] = lambda _number: None,
) -> EnrolledKey:
    return enroll(
        device,
        ring=ring or KeyRing(),
        label=label,
        operator=operator,
        rp_id=rp_id,
        now=NOW,
        cancel=cancel or threading.Event(),
        on_touch=on_touch,
    )


def test_two_touches_enrol_a_key_and_the_second_one_tried_it(tmp_path: Path) -> None:
    soft, touches = real(), list[int]()
    key = enrol(SoftKeyDevice(soft), on_touch=touches.append)
    assert touches == [1, 2]
    assert (key.label, key.operator, key.role, key.rp_id) == ("blue", "anna", "halt", RP_ID)
    assert key.counter == soft.counter == 2
    assert key.enrolled_at == "2026-11-21T03:14:07Z"
    assert key.public_key.startswith("-----BEGIN PUBLIC KEY-----\n")
    KeyRing().add(key).save(tmp_path / "keys.json")
    assert KeyRing.load(tmp_path / "keys.json").keys == (key,)


def test_a_key_is_enrolled_once_whatever_its_label() -> None:
    device = SoftKeyDevice(real())
    ring = KeyRing((enrol(device),))
    with pytest.raises(NotAuthorizedError, match="already enrolled") as caught:
        enrol(device, ring=ring, label="black")
    assert caught.value.effect == "the key ring is unchanged"
    assert caught.value.hint == "use another key"


def test_a_taken_label_is_told_before_any_touch() -> None:
    asked = list[int]()
    ring = KeyRing((enrol(SoftKeyDevice(real())),))
    with pytest.raises(UsageError, match='"blue" is already enrolled'):
        enrol(SoftKeyDevice(real()), ring=ring, on_touch=asked.append)
    with pytest.raises(UsageError, match="cannot name a key or its operator"):
        enrol(SoftKeyDevice(real()), operator="", on_touch=asked.append)
    assert asked == []


def test_a_software_key_is_enrolled_for_the_sandbox_only() -> None:
    assert enrol(SoftKeyDevice(SoftKey(touch=touched)), rp_id=SANDBOX_RP_ID).sandbox
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


MAKE, SIGN = 1, 2
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


class Guarded(SoftKey):
    """A key that was set to ask for its PIN every time."""

    def get_info(self) -> Answer:
        options = {"clientPin": True, "alwaysUv": True, "plat": False, "rk": False, "up": True}
        return {**super().get_info(), 4: options, 6: [2]}


def test_a_key_that_demands_its_pin_is_told() -> None:
    guarded = Guarded(touch=touched, rp_ids={RP_ID}, aaguid=bytes(16))
    with pytest.raises(NotAuthorizedError, match="the key asks for its PIN"):
        enrol(SoftKeyDevice(guarded))


class Old(SoftKeyDevice):
    """A key from before CTAP2."""

    @property
    def capabilities(self) -> int:
        return CAPABILITY.WINK


def test_a_key_that_speaks_only_u2f_is_refused() -> None:
    with pytest.raises(NotAuthorizedError, match="speaks only U2F"):
        enrol(Old(real()))


def test_a_key_that_makes_a_credential_but_signs_wrongly_is_not_enrolled() -> None:
    soft = real()
    elsewhere = enrol(SoftKeyDevice(real()))

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

    assert elsewhere.counter == 2
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
