"""Security keys on a desk, and the people who touch them; shared by the tests of the authority."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from fido2.ctap import STATUS, CtapDevice
from fido2.hid import CAPABILITY

from killswitch.authority.asking import Touched
from killswitch.authority.enrolment import enroll
from killswitch.authority.pin import PinPolicy
from killswitch.authority.race import TouchState
from killswitch.authority.ring import EnrolledKey, KeyRing
from killswitch.authority.touch import ask_for_touch
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


class Loose(SoftKeyDevice):
    """A key whose next requests fail as a transport fails."""

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


class Old(SoftKeyDevice):
    """A key from before CTAP2."""

    @property
    def capabilities(self) -> int:
        return CAPABILITY.WINK


def desk(
    label: str = "blue",
    device: type[SoftKeyDevice] = SoftKeyDevice,
    *,
    pin: str | None = None,
    always_uv: bool = False,
) -> Desk:
    person = Person()
    soft = SoftKey(touch=person, rp_ids={RP_ID}, aaguid=bytes(16), pin=pin, always_uv=always_uv)
    plugged = device(soft)
    enrolled = enroll(
        plugged,
        ring=KeyRing(),
        label=label,
        operator="anna",
        rp_id=RP_ID,
        now=NOW,
        cancel=threading.Event(),
        on_touch=lambda _number, _of: None,
        challenge=lambda _key: CHALLENGE,
        ask_pin=lambda _label, _left, _note: pin,
    )
    person.asked = 0
    return Desk(person, plugged, enrolled.key)


def bare(found: Desk) -> EnrolledKey:
    """Return the key as it was enrolled before there were recipients."""
    return replace(found.key, recipients=())


class Screen:
    """Keeps what the operator would see."""

    def __init__(self) -> None:
        self.states: list[TouchState] = []

    def __call__(self, state: TouchState) -> None:
        self.states.append(state)

    @property
    def reasons(self) -> list[str]:
        """What stood in the way, one after the other."""
        found = [state.reason for state in self.states]
        return [one for one, before in zip(found, ["", *found], strict=False) if one != before]


class Keyboard:
    """Types PINs when it is asked to, and keeps what it was told."""

    def __init__(self, *typed: str | None) -> None:
        self.typed = list(typed)
        self.prompts: list[tuple[str, int, str]] = []
        self.open = 0

    def __call__(self, label: str, tries_left: int, note: str) -> str | None:
        self.open += 1
        assert self.open == 1, "two prompts at once"
        self.prompts.append((label, tries_left, note))
        typed = self.typed.pop(0)
        self.open -= 1
        return typed


def ask(
    keys: Sequence[EnrolledKey],
    devices: Callable[[], Sequence[CtapDevice]],
    *,
    timeout_s: float = 5,
    cancel: threading.Event | None = None,
    on_state: Callable[[TouchState], None] = lambda _state: None,
    diagnose: Callable[[], str] = lambda: "no security key is plugged in",
    unseal: bool = False,
    pin: PinPolicy | None = None,
) -> Touched:
    return ask_for_touch(
        challenge=CHALLENGE,
        keys=keys,
        rp_id=RP_ID,
        devices=devices,
        timeout_s=timeout_s,
        cancel=cancel or threading.Event(),
        on_state=on_state,
        diagnose=diagnose,
        unseal=unseal,
        pin=pin,
    )
