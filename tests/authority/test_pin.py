"""The PIN: asked for only when it is needed, checked before any touch, never tried to the end."""

import threading
import time
from collections.abc import Iterator

import pytest
from fido2.ctap import CtapDevice, CtapError
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin

from killswitch.authority.pin import PinDesk, PinPolicy
from killswitch.errors import AbortedError, NotAuthorizedError
from tests.authority.desks import Desk, Keyboard, Screen, ask, desk

PIN = "2468"


def required(keyboard: Keyboard, *, force: bool = False) -> PinPolicy:
    return PinPolicy(keyboard, required=True, force=force)


def spoil(blue: Desk, wrong: int) -> None:
    """Type `wrong` wrong PINs, pulling the key out as often as it wants."""
    for _ in range(wrong):
        with pytest.raises(CtapError):
            ClientPin(Ctap2(blue.device)).get_pin_token("0000")
        blue.device.key.replug()


def test_a_required_pin_is_asked_for_once_and_the_touch_says_so() -> None:
    blue, keyboard, screen = desk(pin=PIN), Keyboard(PIN), Screen()
    touched = ask([blue.key], lambda: [blue.device], pin=required(keyboard), on_state=screen)
    assert touched.uv
    assert touched.assertion.user_verified
    assert keyboard.prompts == [("blue", 8, "")]
    assert blue.person.asked == 1


def test_a_key_that_does_not_insist_is_touched_without_its_pin() -> None:
    blue, keyboard = desk(pin=PIN), Keyboard()
    touched = ask([blue.key], lambda: [blue.device], pin=PinPolicy(keyboard))
    assert not touched.uv
    assert keyboard.prompts == []


def test_with_and_without_pin_a_key_opens_as_one_of_its_two_recipients() -> None:
    blue = desk(pin=PIN)
    plain = ask([blue.key], lambda: [blue.device], unseal=True).identity()
    keyboard = Keyboard(PIN)
    verified = ask([blue.key], lambda: [blue.device], unseal=True, pin=required(keyboard))
    identity = verified.identity()
    assert plain is not None
    assert identity is not None
    assert (plain.recipient, identity.recipient) == blue.key.recipients
    assert [one.uv for one in blue.key.recipients] == [False, True]


def test_a_key_that_was_switched_to_always_want_its_pin_still_opens_what_is_sealed_to_it() -> None:
    blue = desk(pin=PIN)
    blue.device.key.always_uv = True
    keyboard = Keyboard(PIN)
    touched = ask([blue.key], lambda: [blue.device], unseal=True, pin=PinPolicy(keyboard))
    identity = touched.identity()
    assert identity is not None
    assert identity.recipient in blue.key.recipients
    assert keyboard.prompts == [("blue", 8, "")]


def test_a_wrong_pin_is_told_before_any_touch_and_asked_for_again() -> None:
    blue = desk(pin=PIN)
    touches = list[int]()
    keyboard = Keyboard("1357", PIN)

    def type_(label: str, left: int, note: str) -> str | None:
        touches.append(blue.person.asked)
        return keyboard(label, left, note)

    ask([blue.key], lambda: [blue.device], pin=PinPolicy(type_, required=True))
    assert keyboard.prompts == [("blue", 8, ""), ("blue", 7, "wrong PIN")]
    assert touches == [0, 0]


@pytest.mark.parametrize("typed", ["123", "x" * 64, "é" * 32])
def test_what_can_be_no_pin_costs_no_try(typed: str) -> None:
    blue, keyboard = desk(pin=PIN), Keyboard(typed, PIN)
    ask([blue.key], lambda: [blue.device], pin=required(keyboard))
    assert keyboard.prompts == [("blue", 8, ""), ("blue", 8, "no PIN is that short or long")]


def test_the_pin_is_not_asked_for_again_when_the_keys_own_time_is_up() -> None:
    blue, keyboard = desk(pin=PIN), Keyboard(PIN)
    blue.person.gestures = [None, True]
    ask([blue.key], lambda: [blue.device], pin=required(keyboard))
    assert blue.person.asked == 2
    assert len(keyboard.prompts) == 1


def test_while_a_pin_is_asked_for_its_key_is_named_and_nothing_is_said_to_blink() -> None:
    blue, screen = desk(pin=PIN), Screen()

    def type_(_label: str, _left: int, _note: str) -> str | None:
        time.sleep(0.3)
        return PIN

    policy = PinPolicy(type_, required=True)
    ask([blue.key], lambda: [blue.device], pin=policy, on_state=screen)
    assert 'the key "blue" asks for its PIN' in screen.reasons
    asked = next(state for state in screen.states if state.pin)
    assert asked.touch == ()


def test_a_key_without_a_pin_is_named_and_another_one_answers() -> None:
    blue, black, keyboard, screen = desk("blue"), desk("black", pin=PIN), Keyboard(PIN), Screen()
    words = 'the key "blue" has no PIN: set one with fido2-token -S, or the maker\'s tool'
    with pytest.raises(NotAuthorizedError) as caught:
        ask([blue.key], lambda: [blue.device], timeout_s=0.8, pin=required(Keyboard()))
    assert caught.value.hint == words
    looks: Iterator[list[CtapDevice]] = iter([[blue.device]] * 3)
    touched = ask(
        [blue.key, black.key],
        lambda: next(looks, [blue.device, black.device]),
        pin=required(keyboard),
        on_state=screen,
    )
    assert words in screen.reasons
    assert touched.assertion.credential_id == black.key.credential_id
    assert blue.person.asked == 0


def test_a_key_whose_pin_is_not_given_is_left_out_and_another_one_answers() -> None:
    blue, black = desk("blue", pin=PIN, always_uv=True), desk("black")
    keyboard = Keyboard(None)
    looks: Iterator[list[CtapDevice]] = iter([[blue.device]] * 3)
    touched = ask(
        [blue.key, black.key],
        lambda: next(looks, [blue.device, black.device]),
        pin=PinPolicy(keyboard),
    )
    assert touched.assertion.credential_id == black.key.credential_id
    assert keyboard.prompts == [("blue", 8, "")]


def test_a_key_that_insists_is_named_when_nobody_can_be_asked() -> None:
    blue, screen = desk("blue", pin=PIN, always_uv=True), Screen()
    with pytest.raises(NotAuthorizedError) as caught:
        ask([blue.key], lambda: [blue.device], timeout_s=0.8, on_state=screen)
    assert screen.reasons[-1] == caught.value.hint == 'the key "blue" asks for its PIN'


def test_several_keys_are_asked_for_their_pins_one_after_the_other() -> None:
    blue, black = desk("blue", pin=PIN), desk("black", pin=PIN)
    blue.person.away = black.person.away = True
    keyboard, cancel = Keyboard(PIN, PIN), threading.Event()

    def devices() -> list[CtapDevice]:
        if blue.person.asked and black.person.asked:
            cancel.set()
        return [blue.device, black.device]

    with pytest.raises(AbortedError):
        ask([blue.key, black.key], devices, pin=required(keyboard), cancel=cancel)
    assert sorted(label for label, _, _ in keyboard.prompts) == ["black", "blue"]


def test_a_touch_ends_the_prompt_that_is_open_for_another_key() -> None:
    blue, black = desk("blue", pin=PIN, always_uv=True), desk("black")
    closed = list[str]()

    def patient(label: str, _left: int, _note: str) -> str | None:
        opened.set()
        assert policy.ended.wait(5)
        closed.append(label)
        return None

    opened, policy = threading.Event(), PinPolicy(patient)

    def devices() -> list[CtapDevice]:
        return [blue.device, black.device] if opened.is_set() else [blue.device]

    started = time.monotonic()
    touched = ask([blue.key, black.key], devices, pin=policy)
    assert touched.assertion.credential_id == black.key.credential_id
    assert closed == ["blue"]
    assert time.monotonic() - started < 3


def test_with_three_tries_left_nobody_is_asked_unless_it_is_forced() -> None:
    blue, keyboard = desk(pin=PIN), Keyboard(PIN)
    spoil(blue, 5)
    with pytest.raises(NotAuthorizedError) as caught:
        ask([blue.key], lambda: [blue.device], timeout_s=0.8, pin=required(Keyboard()))
    assert caught.value.hint == (
        'the key "blue" has only 3 PIN tries left: use another key, or spend them with --force-pin'
    )
    assert blue.person.asked == 0
    ask([blue.key], lambda: [blue.device], pin=required(keyboard, force=True))
    assert keyboard.prompts == [("blue", 3, "")]


def test_the_third_wrong_pin_in_a_row_asks_to_plug_the_key_in_again() -> None:
    blue, screen = desk(pin=PIN), Screen()
    keyboard = Keyboard("1111", "2222", "3333", PIN)
    words = 'the PIN of the key "blue" is blocked for now: take the key out and plug it in again'
    looks = list[int]()

    def devices() -> list[CtapDevice]:
        if words not in screen.reasons:
            return [blue.device]
        looks.append(1)
        if len(looks) == 1:
            blue.device.key.replug()
            return []
        return [blue.device]

    touched = ask([blue.key], devices, pin=required(keyboard), on_state=screen)
    assert touched.uv
    assert [left for _, left, _ in keyboard.prompts] == [8, 7, 6, 5]


def test_a_pin_that_is_blocked_for_good_is_told() -> None:
    blue = desk(pin=PIN)
    spoil(blue, 7)
    keyboard = Keyboard("0000")
    with pytest.raises(NotAuthorizedError) as caught:
        ask(
            [blue.key],
            lambda: [blue.device],
            timeout_s=0.8,
            pin=required(keyboard, force=True),
        )
    assert caught.value.hint.startswith('the PIN of the key "blue" is blocked for good')
    assert keyboard.prompts == [("blue", 1, "")]
    with pytest.raises(NotAuthorizedError) as caught:
        ask([blue.key], lambda: [blue.device], timeout_s=0.8, pin=required(Keyboard(), force=True))
    assert "is blocked for good" in caught.value.hint


def test_a_pin_appears_in_no_error_and_no_repr() -> None:
    blue, keyboard = desk(pin=PIN), Keyboard("97531", None)
    with pytest.raises(NotAuthorizedError) as caught:
        ask([blue.key], lambda: [blue.device], timeout_s=0.8, pin=required(keyboard))
    assert "97531" not in str(caught.value) + caught.value.hint + repr(caught.value)
    shown = PinDesk(None, label="blue", rp_id="x", policy=None)  # type: ignore[arg-type]  # unused
    shown._pin = "97531"
    assert repr(shown) == "PinDesk('blue')"


def test_a_key_that_turns_out_to_insist_is_asked_for_its_pin_then() -> None:
    blue, keyboard, screen = desk("blue", pin=PIN), Keyboard(PIN), Screen()
    plain = blue.device.key.get_info()
    blue.device.key.always_uv = True
    blue.device.key.get_info = lambda: plain  # type: ignore[method-assign]  # it keeps that back
    touched = ask([blue.key], lambda: [blue.device], pin=PinPolicy(keyboard), on_state=screen)
    assert touched.uv
    assert keyboard.prompts == [("blue", 8, "")]
