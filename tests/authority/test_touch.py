"""The touch, through the real Fido2Client, with software keys."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from fido2.ctap import STATUS, CtapDevice
from fido2.hid import CAPABILITY, ConnectionFailure

from killswitch.authority.enrolment import enroll
from killswitch.authority.proof import Assertion, mismatch
from killswitch.authority.ring import EnrolledKey, KeyRing
from killswitch.authority.touch import TouchState, ask_for_touch
from killswitch.errors import AbortedError, NotAuthorizedError
from killswitch.sandbox.softkey import SoftKey, SoftKeyDevice

RP_ID = "killswitch.example"
CHALLENGE = bytes(range(32))
NOW = datetime(2026, 11, 21, 3, 14, tzinfo=UTC)


@dataclass(slots=True)
class Person:
    """Sits at one key: touches it at every request unless told to behave otherwise."""

    gestures: list[bool | None] = field(default_factory=list)
    away: bool = False
    asked: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __call__(self, cancel: threading.Event) -> bool | None:
        self.asked += 1
        if self.away:
            assert cancel.wait(5), "nobody called the key off"
            self.cancelled.set()
            return None
        return self.gestures.pop(0) if self.gestures else True


@dataclass(slots=True)
class Desk:
    """An enrolled key that is plugged in, and the person at it."""

    person: Person
    device: SoftKeyDevice
    key: EnrolledKey


def desk(label: str = "blue", device: type[SoftKeyDevice] = SoftKeyDevice) -> Desk:
    person = Person()
    plugged = device(SoftKey(touch=person, rp_ids={RP_ID}, aaguid=bytes(16)))
    key = enroll(
        plugged,
        ring=KeyRing(),
        label=label,
        operator="anna",
        rp_id=RP_ID,
        now=NOW,
        cancel=threading.Event(),
        on_touch=lambda _number: None,
    )
    person.asked = 0
    return Desk(person, plugged, key)


class Screen:
    """Keeps what the operator would see."""

    def __init__(self) -> None:
        self.states: list[TouchState] = []

    def __call__(self, state: TouchState) -> None:
        self.states.append(state)


def ask(
    keys: Sequence[EnrolledKey],
    devices: Callable[[], Sequence[CtapDevice]],
    *,
    timeout_s: float = 5,
    cancel: threading.Event | None = None,
    on_state: Callable[[TouchState], None] = lambda _state: None,
    diagnose: Callable[[], str] = lambda: "no security key is plugged in",
) -> Assertion:
    return ask_for_touch(
        challenge=CHALLENGE,
        keys=keys,
        rp_id=RP_ID,
        devices=devices,
        timeout_s=timeout_s,
        cancel=cancel or threading.Event(),
        on_state=on_state,
        diagnose=diagnose,
    )


def test_a_touch_on_the_enrolled_key_signs_the_challenge() -> None:
    blue = desk()
    assertion = ask([blue.key], lambda: [blue.device])
    assert mismatch(CHALLENGE, assertion, [blue.key], RP_ID) == ""
    assert blue.person.asked == 1


def test_the_first_of_two_keys_wins_and_the_other_stops_blinking() -> None:
    blue, black = desk("blue"), desk("black")
    black.person.away = True
    screen = Screen()
    assertion = ask([blue.key, black.key], lambda: [black.device, blue.device], on_state=screen)
    assert assertion.credential_id == blue.key.credential_id
    if black.person.asked:
        assert black.person.cancelled.wait(5)


def test_both_keys_blink_until_one_is_touched() -> None:
    blue, black = desk("blue"), desk("black")
    blue.person.away = black.person.away = True
    cancel = threading.Event()
    screen = Screen()

    def devices() -> list[CtapDevice]:
        if blue.person.asked and black.person.asked:
            cancel.set()
        return [blue.device, black.device]

    with pytest.raises(AbortedError):
        ask([blue.key, black.key], devices, cancel=cancel, on_state=screen)
    assert blue.person.cancelled.wait(5)
    assert black.person.cancelled.wait(5)
    assert screen.states[-1].touch == ("blue", "black")


def test_a_key_that_is_not_enrolled_is_never_asked_to_blink() -> None:
    blue, stranger = desk("blue"), desk("stranger")
    screen = Screen()
    with pytest.raises(NotAuthorizedError, match=r"within 0\.6 s") as no:
        ask([blue.key], lambda: [stranger.device], timeout_s=0.6, on_state=screen)
    assert stranger.person.asked == 0
    assert screen.states[-1].strangers == 1
    assert no.value.hint == 'the key that is plugged in is not enrolled: plug in "blue"'


def test_a_stranger_beside_an_enrolled_key_is_no_hindrance() -> None:
    blue, stranger = desk("blue"), desk("stranger")
    assertion = ask([blue.key], lambda: [stranger.device, blue.device])
    assert assertion.credential_id == blue.key.credential_id
    assert stranger.person.asked == 0


def test_a_refused_touch_authorises_nothing() -> None:
    blue = desk()
    blue.person.gestures = [False]
    with pytest.raises(NotAuthorizedError, match="the touch was refused") as caught:
        ask([blue.key], lambda: [blue.device])
    assert caught.value.exit_code == 3
    assert caught.value.effect == "nothing was revoked; trading is still live"


def test_the_keys_own_time_out_is_not_ours() -> None:
    blue = desk()
    blue.person.gestures = [None, None, True]
    ask([blue.key], lambda: [blue.device])
    assert blue.person.asked == 3


def test_no_touch_in_time_names_the_key_that_blinks() -> None:
    blue = desk()
    blue.person.away = True
    with pytest.raises(NotAuthorizedError) as caught:
        ask([blue.key], lambda: [blue.device], timeout_s=0.6)
    assert caught.value.hint == 'run it again and touch the key that blinks: "blue"'
    assert blue.person.cancelled.wait(5)


def test_without_a_key_the_reason_is_looked_up() -> None:
    blue = desk()
    with pytest.raises(NotAuthorizedError) as caught:
        ask([blue.key], list, timeout_s=0.1, diagnose=lambda: "you may not open it")
    assert caught.value.hint == "you may not open it"


def test_a_key_that_is_plugged_in_late_is_found() -> None:
    blue = desk()
    looks: Iterator[list[CtapDevice]] = iter([[], []])
    screen = Screen()
    ask([blue.key], lambda: next(looks, [blue.device]), on_state=screen)
    assert screen.states[0].touch == ()
    assert blue.person.asked == 1


def test_nobody_enrolled_for_this_relying_party_is_told_at_once() -> None:
    with pytest.raises(NotAuthorizedError, match="no security key is enrolled for"):
        ask([], list)


def test_a_cancel_before_the_touch_ends_it() -> None:
    blue = desk()
    blue.person.away = True
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(AbortedError) as caught:
        ask([blue.key], lambda: [blue.device], cancel=cancel)
    assert caught.value.exit_code == 130
    assert blue.person.cancelled.is_set()


def test_an_interrupt_from_the_keyboard_stops_the_blinking() -> None:
    blue = desk()
    blue.person.away = True

    def devices() -> list[CtapDevice]:
        if blue.person.asked:
            raise KeyboardInterrupt
        return [blue.device]

    with pytest.raises(AbortedError):
        ask([blue.key], devices)
    assert blue.person.cancelled.is_set()


class Loose(SoftKeyDevice):
    """A key whose first requests after the enrolment fail as a transport fails."""

    def __init__(self, key: SoftKey) -> None:
        super().__init__(key)
        self.failures: list[Exception] = []
        self.closed = 0

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        if self.failures:
            raise self.failures.pop(0)
        return super().call(cmd, data, event, on_keepalive)

    def close(self) -> None:
        self.closed += 1


def loose(*failures: Exception) -> tuple[Desk, Loose]:
    found = desk(device=Loose)
    assert isinstance(found.device, Loose)
    found.device.failures = list(failures)
    return found, found.device


def test_a_key_that_was_pulled_out_is_waited_for() -> None:
    blue, device = loose(OSError(5, "Input/output error"))
    assertion = ask([blue.key], lambda: [device])
    assert mismatch(CHALLENGE, assertion, [blue.key], RP_ID) == ""
    assert device.closed == 1


def test_a_key_that_asks_for_its_pin_is_named_and_the_others_go_on() -> None:
    blue, black = desk("blue"), desk("black")
    plain = black.device.key.get_info()
    options = {"clientPin": True, "alwaysUv": True, "plat": False, "rk": False, "up": True}
    black.device.key.get_info = lambda: {**plain, 4: options, 6: [2]}  # type: ignore[method-assign]  # its owner changed it
    screen = Screen()
    with pytest.raises(NotAuthorizedError) as caught:
        ask([black.key, blue.key], lambda: [black.device], timeout_s=0.6, on_state=screen)
    assert screen.states[-1].trouble == 'the key "black" asks for its PIN'
    assert caught.value.hint.startswith('the key "black" asks for its PIN')
    assertion = ask([black.key, blue.key], lambda: [black.device, blue.device])
    assert assertion.credential_id == blue.key.credential_id


class Old(SoftKeyDevice):
    """A key from before CTAP2."""

    @property
    def capabilities(self) -> int:
        return CAPABILITY.WINK


def test_a_key_that_speaks_only_u2f_is_a_stranger() -> None:
    blue, screen = desk(), Screen()
    old = Old(blue.device.key)
    with pytest.raises(NotAuthorizedError, match="no touch"):
        ask([blue.key], lambda: [old], timeout_s=0.4, on_state=screen)
    assert screen.states[-1].strangers == 1
    assert blue.person.asked == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError("silence"), "a security key stopped answering"),
        (ConnectionFailure("Wrong channel"), "a security key is in use by another program"),
        (RuntimeError("broken driver"), "a security key failed: RuntimeError('broken driver')"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(error: Exception, words: str) -> None:
    blue, device = loose(error)
    screen = Screen()
    with pytest.raises(NotAuthorizedError) as caught:
        ask([blue.key], lambda: [device], timeout_s=0.5, on_state=screen)
    assert screen.states[-1].trouble == words
    assert caught.value.hint.startswith(words)


def test_a_dead_key_does_not_delay_a_good_one() -> None:
    blue, black = desk("blue"), desk("black")
    silence = threading.Event()
    black.device.key.touch = Person()
    black.device.key.handle = lambda *_: bytes([silence.wait(5)])  # type: ignore[method-assign]  # it hangs
    started = time.monotonic()
    ask([blue.key, black.key], lambda: [black.device, blue.device])
    assert time.monotonic() - started < 2
    silence.set()


def test_the_time_left_is_counted_down() -> None:
    blue = desk()
    screen = Screen()
    with pytest.raises(NotAuthorizedError):
        ask([blue.key], list, timeout_s=1.2, on_state=screen)
    assert [int(state.left_s) for state in screen.states] == [1, 0]


def test_importing_the_touch_loads_no_security_key_library() -> None:
    code = "import sys, killswitch.authority.touch; print([m for m in sys.modules if 'fido2' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
