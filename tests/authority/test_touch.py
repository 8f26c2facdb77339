"""The touch, through the real Fido2Client, with software keys."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from fido2.client import (
    AssertionSelection,
    ClientDataCollector,
    ClientError,
    Fido2Client,
    WebAuthnClient,
)
from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.ctap2.base import Ctap2
from fido2.hid import ConnectionFailure
from fido2.webauthn import (
    PublicKeyCredentialCreationOptions,
    PublicKeyCredentialRequestOptions,
    RegistrationResponse,
)

from killswitch.authority.proof import mismatch
from killswitch.authority.system_key import SystemKey
from killswitch.errors import AbortedError, NotAuthorizedError
from killswitch.sandbox.softkey import SoftKeyDevice
from tests.authority.desks import (
    CHALLENGE,
    RP_ID,
    Desk,
    Loose,
    Old,
    Person,
    Screen,
    ask,
    bare,
    desk,
)


def test_a_touch_on_the_enrolled_key_signs_the_challenge() -> None:
    blue = desk()
    assertion = ask([blue.key], lambda: [blue.device]).assertion
    assert mismatch(CHALLENGE, assertion, [blue.key], RP_ID) == ""
    assert blue.person.asked == 1


def test_the_first_of_two_keys_wins_and_the_other_stops_blinking() -> None:
    blue, black = desk("blue"), desk("black")
    black.person.away = True
    screen = Screen()
    assertion = ask(
        [blue.key, black.key], lambda: [black.device, blue.device], on_state=screen
    ).assertion
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
    assertion = ask([blue.key], lambda: [stranger.device, blue.device]).assertion
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


def loose(*failures: Exception) -> tuple[Desk, Loose]:
    found = desk(device=Loose)
    assert isinstance(found.device, Loose)
    found.device.failures = list(failures)
    return found, found.device


def test_a_key_that_was_pulled_out_is_waited_for() -> None:
    blue, device = loose(OSError(5, "Input/output error"))
    assertion = ask([blue.key], lambda: [device]).assertion
    assert mismatch(CHALLENGE, assertion, [blue.key], RP_ID) == ""
    assert device.closed == 1


def test_a_key_that_speaks_only_u2f_is_told_apart_from_a_stranger() -> None:
    blue, screen = desk(), Screen()
    old = Old(blue.device.key)
    with pytest.raises(NotAuthorizedError, match="no touch") as caught:
        ask([blue.key], lambda: [old], timeout_s=0.8, on_state=screen)
    assert (screen.states[-1].strangers, screen.states[-1].u2f_only) == (0, 1)
    words = 'the key that is plugged in speaks only U2F: plug in "blue"'
    assert screen.states[-1].reason == caught.value.hint == words
    assert blue.person.asked == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError("silence"), "a security key stopped answering: plug it in again"),
        (
            ConnectionFailure("Wrong channel"),
            "a security key is in use by another program: trying again",
        ),
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


def test_a_key_that_another_program_uses_is_tried_again() -> None:
    blue, device = loose(ConnectionFailure("Wrong channel"))
    screen = Screen()
    ask([blue.key], lambda: [device], on_state=screen)
    assert "a security key is in use by another program: trying again" in screen.reasons


def test_a_key_that_was_busy_and_turns_out_to_be_a_stranger_is_called_one() -> None:
    blue, screen = desk(), Screen()
    stranger, device = loose(ConnectionFailure("Wrong channel"))
    with pytest.raises(NotAuthorizedError) as caught:
        ask([blue.key], lambda: [device], timeout_s=2.5, on_state=screen)
    words = 'the key that is plugged in is not enrolled: plug in "blue"'
    assert screen.reasons[-1] == caught.value.hint == words
    assert stranger.person.asked == 0


def test_a_key_that_is_unplugged_while_it_blinks_is_asked_back_by_its_name() -> None:
    blue, screen = desk(), Screen()
    blue.person.away = True
    cancel = threading.Event()

    def devices() -> list[CtapDevice]:
        if blue.person.asked and not screen.states[-1].touch:
            cancel.set()
        return [] if blue.person.asked else [blue.device]

    with pytest.raises(AbortedError):
        ask([blue.key], devices, cancel=cancel, on_state=screen)
    assert screen.reasons[-1] == 'the key "blue" was pulled out: plug it in again'


def test_a_key_that_is_pulled_out_and_plugged_in_again_is_touched_then() -> None:
    blue, screen = desk(), Screen()
    person, pulled = blue.device.key.touch, list[bool]()

    def touch(cancel: threading.Event) -> bool | None:
        if not pulled:
            pulled.append(True)
            raise OSError(5, "Input/output error")
        return person(cancel)

    blue.device.key.touch = touch
    ask([blue.key], lambda: [blue.device], on_state=screen)
    assert 'the key "blue" was pulled out: plug it in again' in screen.reasons
    assert screen.states[-1].touch == ("blue",)


def test_a_dead_key_that_comes_back_as_another_device_is_still_explained() -> None:
    blue, screen = desk(), Screen()

    def devices() -> list[CtapDevice]:
        dead = Loose(blue.device.key)
        dead.failures = [TimeoutError("silence")]
        kept.append(dead)
        return [dead]

    kept: list[CtapDevice] = []
    with pytest.raises(NotAuthorizedError) as caught:
        ask([blue.key], devices, timeout_s=0.9, on_state=screen)
    words = "a security key stopped answering: plug it in again"
    assert screen.reasons[-1] == caught.value.hint == words


def test_without_permission_the_reason_is_shown_while_we_wait() -> None:
    blue, screen = desk(), Screen()
    with pytest.raises(NotAuthorizedError):
        ask([blue.key], list, timeout_s=0.1, on_state=screen, diagnose=lambda: "you may not open")
    assert screen.reasons == ["you may not open"]


def test_a_key_that_may_be_seen_and_not_opened_is_looked_into() -> None:
    blue, device = loose(PermissionError(13, "Permission denied"))
    screen = Screen()
    ask([blue.key], lambda: [device], on_state=screen, diagnose=lambda: "you may not open it")
    assert "you may not open it" in screen.reasons


def test_one_touch_signs_and_gives_what_opens_the_secrets() -> None:
    blue = desk()
    touched = ask([blue.key], lambda: [blue.device], unseal=True)
    identity = touched.identity()
    assert identity is not None
    assert blue.key.recipients == (identity.recipient,)
    assert blue.person.asked == 1
    assert not touched.uv


def test_the_output_that_opens_secrets_is_not_shown() -> None:
    blue = desk()
    touched = ask([blue.key], lambda: [blue.device], unseal=True)
    assert touched.prf is not None
    assert touched.prf.hex() not in repr(touched)
    assert repr(touched.prf) not in repr(touched)


def test_a_drill_or_a_key_without_recipients_is_touched_without_opening_anything() -> None:
    blue = desk()
    assert ask([blue.key], lambda: [blue.device]).prf is None
    plain = ask([bare(blue)], lambda: [blue.device], unseal=True)
    assert plain.prf is None
    assert plain.identity() is None


class Shy(SoftKeyDevice):
    """A key that wants its PIN even to be asked what it knows."""

    shy = False

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        if self.shy and data[:1] == bytes([Ctap2.CMD.GET_ASSERTION]):
            self.shy = False
            return bytes([CtapError.ERR.PUAT_REQUIRED])
        return super().call(cmd, data, event, on_keepalive)


def test_a_key_that_will_not_say_whose_it_is_may_still_answer() -> None:
    blue, black = desk("blue", Shy), desk("black")
    assert isinstance(blue.device, Shy)
    blue.device.shy = True
    touched = ask([black.key, blue.key], lambda: [blue.device])
    assert touched.assertion.credential_id == blue.key.credential_id


class Window(WebAuthnClient):
    """Stands for the operating system: asks for the touch in its own way."""

    def __init__(self, client: WebAuthnClient | None) -> None:
        self.client = client

    def make_credential(
        self, options: PublicKeyCredentialCreationOptions, event: threading.Event | None = None
    ) -> RegistrationResponse:
        raise NotImplementedError

    def get_assertion(
        self, options: PublicKeyCredentialRequestOptions, event: threading.Event | None = None
    ) -> AssertionSelection:
        if self.client is None:
            raise ClientError(  # type: ignore[no-untyped-call]  # upstream's
                ClientError.ERR.OTHER_ERROR, OSError("cancelled")
            )
        return self.client.get_assertion(options, event)


def test_a_key_that_only_the_operating_system_may_ask_signs_through_it() -> None:
    blue, black = desk("blue"), desk("black")

    def window(collector: ClientDataCollector) -> WebAuthnClient:
        return Window(Fido2Client(black.device, collector))

    keys = [SystemKey(window)]
    touched = ask([blue.key, black.key], lambda: keys, unseal=True)
    assert mismatch(CHALLENGE, touched.assertion, [blue.key, black.key], RP_ID) == ""
    identity = touched.identity()
    assert identity is not None
    assert black.key.recipients == (identity.recipient,)


def test_a_closed_window_of_the_operating_system_is_a_refusal() -> None:
    blue = desk()
    keys = [SystemKey(lambda _collector: Window(None))]
    with pytest.raises(NotAuthorizedError, match="the touch was refused"):
        ask([blue.key], lambda: keys)


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
