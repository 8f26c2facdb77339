"""The race behind a touch: one thread for each key that is plugged in, one that decides."""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from killswitch.authority.asking import Question, Touched, U2fOnlyError, meet, options, signed
from killswitch.authority.pin import PinDesk, PinTroubleError
from killswitch.authority.ring import EnrolledKey
from killswitch.errors import NotAuthorizedError

if TYPE_CHECKING:
    from fido2.ctap import CtapDevice
    from fido2.ctap2.base import Ctap2

_AGAIN_S: Final = 1.0  # a key that failed is asked again after this long
_PROMPT_S: Final = 0.5  # how long an open prompt gets to put the terminal in order


@dataclass(frozen=True, slots=True)
class TouchState:
    """What the operator has to know while we wait.

    `touch` are the labels of the keys that blink now; with none of them, `reason` says what to
    do. `strangers` counts plugged-in keys that are not enrolled, `u2f_only` those too old to be.
    `trouble` names the last key that failed, and why. `pin` is the key whose PIN is asked for
    now. `absent` says why no key can be seen or opened. `left_s` is the time left. `enrolled` are
    the labels of all keys that could answer.
    """

    touch: tuple[str, ...]
    strangers: int
    trouble: str
    left_s: float
    pin: str = ""
    u2f_only: int = 0
    absent: str = ""
    enrolled: tuple[str, ...] = ()

    @property
    def names(self) -> str:
        """The enrolled keys, as a person reads them."""
        return " or ".join(f'"{label}"' for label in self.enrolled)

    @property
    def reason(self) -> str:
        """What stands in the way of a touch, in one line; "" while a key blinks."""
        if self.touch:
            return ""
        if self.pin:
            return f'the key "{self.pin}" asks for its PIN'
        if self.trouble:
            return self.trouble
        if self.strangers:
            return f"the key that is plugged in is not enrolled: plug in {self.names}"
        if self.u2f_only:
            return f"the key that is plugged in speaks only U2F: plug in {self.names}"
        return self.absent or "the key that is plugged in has not answered yet"


class _Stage(Enum):
    """How far a key has come."""

    MEETING = auto()
    PIN = auto()
    BLINKING = auto()
    FAILED = auto()  # asked again in a moment
    GIVEN_UP = auto()  # until it is plugged in again, as are the next two
    STRANGER = auto()
    U2F_ONLY = auto()


_KNOWN: Final = {_Stage.BLINKING, _Stage.STRANGER, _Stage.U2F_ONLY}
_ASKED: Final = {_Stage.MEETING, _Stage.PIN, _Stage.BLINKING}


@dataclass(slots=True)
class _Guest:
    """One plugged-in key: what is known of it so far."""

    device: "CtapDevice"
    thread: threading.Thread | None = None
    stage: _Stage = _Stage.MEETING
    label: str = ""
    trouble: str = ""
    again_at: float = 0.0
    desk: PinDesk | None = None


@dataclass(frozen=True, slots=True)
class _News:
    """What a key's thread found out, for the one thread that decides."""

    guest: _Guest
    stage: _Stage
    label: str = ""
    trouble: str = ""
    refused: bool = False
    touched: Touched | None = None


@dataclass(slots=True)
class Race:
    """The keys that are asked at the same time; all but `_serve` runs in the caller's thread."""

    question: Question
    _guests: dict[int, _Guest] = field(default_factory=dict)
    _news: "queue.SimpleQueue[_News]" = field(default_factory=queue.SimpleQueue)
    _over: threading.Event = field(default_factory=threading.Event)
    _trouble: str = ""

    def invite(self, devices: "Sequence[CtapDevice]") -> None:
        """Start a thread for every key that has none, forget those that were pulled out."""
        present = {id(device): device for device in devices}
        gone = [self._guests.pop(one) for one in list(self._guests) if one not in present]
        if gone and not present:
            self._trouble = ""  # whatever ailed them, now they are away
        for guest in gone:  # its thread ends by itself: the key answers no more
            if guest.stage in {_Stage.PIN, _Stage.BLINKING}:
                self._trouble = _pulled_out(guest.label)
        for one, device in present.items():
            guest = self._guests.setdefault(one, _Guest(device))
            if guest.thread is None and time.monotonic() >= guest.again_at:
                guest.thread = threading.Thread(target=self._serve, args=(guest,), daemon=True)
                guest.thread.start()

    def state(self, left_s: float, diagnose: Callable[[], str]) -> TouchState:
        """Return what the operator should see."""
        guests = list(self._guests.values())
        stages = [guest.stage for guest in guests]
        troubles = (guest.trouble for guest in guests if guest.trouble)
        return TouchState(
            touch=tuple(guest.label for guest in guests if guest.stage is _Stage.BLINKING),
            strangers=stages.count(_Stage.STRANGER),
            trouble=next(troubles, self._trouble),
            left_s=max(0.0, left_s),
            pin=next((guest.label for guest in guests if guest.stage is _Stage.PIN), ""),
            u2f_only=stages.count(_Stage.U2F_ONLY),
            absent="" if any(map(_explained, guests)) else diagnose(),
            enrolled=tuple(key.label for key in self.question.keys),
        )

    def news(self, wait_s: float) -> Touched | None:
        """Wait for news from a key; raises NotAuthorizedError when somebody refused."""
        try:
            news = self._news.get(timeout=wait_s)
        except queue.Empty:
            return None
        guest = news.guest
        guest.stage, guest.label, guest.trouble = news.stage, news.label, news.trouble
        if news.stage in _KNOWN:
            self._trouble = ""
        elif news.trouble:
            self._trouble = news.trouble  # the key may come back as another device
        if news.stage not in _ASKED:
            again = _AGAIN_S if news.stage is _Stage.FAILED else math.inf
            guest.thread, guest.again_at = None, time.monotonic() + again
        if news.refused:
            raise NotAuthorizedError(
                "the touch was refused", hint="run it again and touch a key to go on"
            )
        return news.touched

    def end(self, wait_s: float) -> None:
        """Tell every key to stop blinking, and give them `wait_s` for it."""
        self._over.set()
        pin = self.question.pin
        if pin:
            pin.ended.set()
            if pin.turn.acquire(timeout=_PROMPT_S):
                pin.turn.release()
        until = time.monotonic() + wait_s
        for thread in [guest.thread for guest in self._guests.values() if guest.thread]:
            thread.join(max(0.0, until - time.monotonic()))

    def _serve(self, guest: _Guest) -> None:
        keys: tuple[EnrolledKey, ...] = ()
        try:
            keys = meet(guest.device, self.question.keys, self._over)
            if not keys:
                self._news.put(_News(guest, _Stage.STRANGER))
                return
            touched = self._ask(guest, keys)
            if touched:
                label = _label(keys)
                self._news.put(_News(guest, _Stage.BLINKING, label, touched=touched))
        # A thread's failure has to become news: else we would wait for a key that nobody asks.
        except Exception as error:  # noqa: BLE001
            self._news.put(_failure(guest, keys, error))

    def _ask(self, guest: _Guest, keys: tuple[EnrolledKey, ...]) -> Touched | None:
        """Let the key blink until it is touched; None when the race is over."""
        from fido2.client import (  # noqa: PLC0415 (all of fido2 is loaded while we wait)
            DefaultClientDataCollector,
        )
        from fido2.ctap2.base import Ctap2  # noqa: PLC0415

        from killswitch.authority.system_key import SystemKey, client_for  # noqa: PLC0415

        question = self.question
        collector = DefaultClientDataCollector(f"https://{question.rp_id}")
        verify = question.pin is not None and question.pin.required
        if isinstance(guest.device, SystemKey):
            client = guest.device.client(collector)
        else:
            ctap2 = Ctap2(guest.device)
            guest.desk = guest.desk or self._desk(guest, keys, ctap2)
            verify = guest.desk.prepare(ctap2.info)
            client = client_for(guest.device, collector, guest.desk.as_interaction())
        self._news.put(_News(guest, _Stage.BLINKING, _label(keys)))
        request = options(
            question.challenge,
            question.rp_id,
            [key.credential_id for key in keys],
            verify=verify,
            unseal=question.unseal and any(key.recipients for key in keys),
        )
        return signed(client, request, self._over)

    def _desk(self, guest: _Guest, keys: tuple[EnrolledKey, ...], ctap2: "Ctap2") -> PinDesk:
        policy, label = self.question.pin, _label(keys)

        def ask(label: str, tries_left: int, note: str) -> str | None:
            self._news.put(_News(guest, _Stage.PIN, label))
            return policy.ask(label, tries_left, note) if policy else None

        return PinDesk(
            ctap2,
            label=label,
            rp_id=self.question.rp_id,
            policy=replace(policy, ask=ask) if policy else None,
            on_blink=lambda: self._news.put(_News(guest, _Stage.BLINKING, label)),
        )


def _label(keys: Sequence[EnrolledKey]) -> str:
    return " or ".join(key.label for key in keys)


def _explained(guest: _Guest) -> bool:
    # A key that could not even be opened is as good as none: permissions are looked up elsewhere.
    return guest.stage is not _Stage.FAILED or bool(guest.trouble)


def _pulled_out(label: str) -> str:
    return f'the key "{label}" was pulled out: plug it in again'


def _failure(guest: _Guest, keys: Sequence[EnrolledKey], error: Exception) -> _News:
    from fido2.client import ClientError  # noqa: PLC0415 (as above)
    from fido2.ctap import CtapError  # noqa: PLC0415
    from fido2.hid import ConnectionFailure  # noqa: PLC0415

    from killswitch.authority.system_key import SystemKey  # noqa: PLC0415

    cause = error.cause if isinstance(error, ClientError) else error
    code = cause.code if isinstance(cause, CtapError) else None
    if isinstance(error, (OSError, ConnectionFailure)):
        guest.device.close()  # a key that was pulled out, or is dead: open it afresh
    name = f'the key "{_label(keys)}"' if keys else "a security key"
    if isinstance(error, U2fOnlyError):
        return _News(guest, _Stage.U2F_ONLY)
    if isinstance(error, PinTroubleError):
        return _News(guest, _Stage.GIVEN_UP, trouble=str(error))
    if code == CtapError.ERR.NO_CREDENTIALS:
        return _News(guest, _Stage.STRANGER)
    # Of a key that only the operating system may ask we hear no more than that it was no touch.
    if code == CtapError.ERR.OPERATION_DENIED or isinstance(guest.device, SystemKey):
        return _News(guest, _Stage.FAILED, refused=True)
    trouble = f"{name} failed: {cause or error!r}"
    if isinstance(error, TimeoutError):
        trouble = f"{name} stopped answering: plug it in again"
    elif isinstance(error, ConnectionFailure):
        trouble = f"{name} is in use by another program: trying again"
    elif isinstance(error, OSError):
        trouble = _pulled_out(_label(keys)) if keys else ""
    elif code == CtapError.ERR.KEEPALIVE_CANCEL:
        trouble = ""  # called off: there is nothing to mend
    return _News(guest, _Stage.FAILED, trouble=trouble)
