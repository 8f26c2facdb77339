"""The touch: every enrolled key that is plugged in blinks, and the first one touched signs."""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from killswitch.authority.proof import Assertion
from killswitch.authority.ring import EnrolledKey
from killswitch.errors import AbortedError, NotAuthorizedError

if TYPE_CHECKING:
    from fido2.ctap import CtapDevice

POLL_S: Final = 0.2
_PAUSE_S: Final = 0.05
_AGAIN_S: Final = 1.0  # a key that failed is asked again after this long
_LAST_WORD_S: Final = 0.5  # how long the losers get to stop blinking when nothing was touched


@dataclass(frozen=True, slots=True)
class TouchState:
    """What the operator has to know while we wait.

    `touch` are the labels of the keys that blink now; with none of them, one has to be plugged
    in. `strangers` counts plugged-in keys that are not enrolled. `trouble` names the last key
    that failed, and why. `left_s` is the time left.
    """

    touch: tuple[str, ...]
    strangers: int
    trouble: str
    left_s: float


def ask_for_touch(
    *,
    challenge: bytes,
    keys: Sequence[EnrolledKey],
    rp_id: str,
    devices: "Callable[[], Sequence[CtapDevice]]",
    timeout_s: float,
    cancel: threading.Event,
    on_state: Callable[[TouchState], None],
    diagnose: Callable[[], str] = lambda: "no security key is plugged in",
) -> Assertion:
    """Return the answer of the first enrolled key that is touched.

    `devices` is asked every 200 ms for the keys plugged in, and gives the same object for the
    same key. `diagnose` says why none may be seen. The answer is not yet verified: see `proof`.

    Raises NotAuthorizedError when nobody touches or somebody refuses, AbortedError on `cancel`.
    """
    ours = tuple(key for key in keys if key.rp_id == rp_id)
    if not ours:
        raise NotAuthorizedError(
            f"no security key is enrolled for {rp_id}",
            hint="enrol one: killswitch keys enroll",
        )
    race = _Race(challenge, ours, rp_id)
    try:
        return _wait(race, devices, timeout_s, cancel, on_state, diagnose)
    except BaseException as error:
        race.end(_LAST_WORD_S)
        if isinstance(error, KeyboardInterrupt):
            raise AbortedError("stopped before the touch", hint="nothing to undo") from None
        raise
    finally:
        race.end(0)


def _wait(
    race: "_Race",
    devices: "Callable[[], Sequence[CtapDevice]]",
    timeout_s: float,
    cancel: threading.Event,
    on_state: Callable[[TouchState], None],
    diagnose: Callable[[], str],
) -> Assertion:
    until = time.monotonic() + timeout_s
    shown: tuple[object, ...] = ()
    while True:
        left_s = until - time.monotonic()
        if cancel.is_set():
            raise AbortedError("stopped before the touch", hint="nothing to undo")
        if left_s <= 0:
            raise _too_late(race, timeout_s, diagnose)
        race.invite(devices())
        state = race.state(left_s)
        if (state.touch, state.strangers, state.trouble, int(left_s)) != shown:
            shown = (state.touch, state.strangers, state.trouble, int(left_s))
            on_state(state)
        assertion = race.news(min(POLL_S, left_s))
        if assertion:
            return assertion


def _too_late(race: "_Race", timeout_s: float, diagnose: Callable[[], str]) -> NotAuthorizedError:
    labels = " or ".join(f'"{key.label}"' for key in race.keys)
    state = race.state(0)
    if state.touch:
        blinking = " or ".join(f'"{label}"' for label in state.touch)
        hint = f"run it again and touch the key that blinks: {blinking}"
    elif state.trouble:
        hint = f"{state.trouble}; plug it in again, or use another of {labels}"
    elif state.strangers:
        hint = f"the key that is plugged in is not enrolled: plug in {labels}"
    else:
        hint = diagnose() or "the key that is plugged in did not answer: plug it in again"
    return NotAuthorizedError(f"no touch on a security key within {timeout_s:g} s", hint=hint)


@dataclass(slots=True)
class _Guest:
    """One plugged-in key: what is known of it so far."""

    device: "CtapDevice"
    thread: threading.Thread | None = None
    label: str = ""
    stranger: bool = False
    trouble: str = ""
    again_at: float = 0.0


@dataclass(frozen=True, slots=True)
class _News:
    """What a key's thread found out, for the one thread that decides."""

    guest: _Guest
    label: str = ""
    stranger: bool = False
    trouble: str = ""
    refused: bool = False
    assertion: Assertion | None = None


@dataclass(slots=True)
class _Race:
    """The keys that are asked at the same time; all but `_serve` runs in the caller's thread."""

    challenge: bytes
    keys: tuple[EnrolledKey, ...]
    rp_id: str
    _guests: dict[int, _Guest] = field(default_factory=dict)
    _news: "queue.SimpleQueue[_News]" = field(default_factory=queue.SimpleQueue)
    _over: threading.Event = field(default_factory=threading.Event)

    def invite(self, devices: "Sequence[CtapDevice]") -> None:
        """Start a thread for every key that has none, forget those that were pulled out."""
        present = {id(device): device for device in devices}
        for gone in [one for one in self._guests if one not in present]:
            del self._guests[gone]  # its thread ends by itself: the key answers no more
        for one, device in present.items():
            guest = self._guests.setdefault(one, _Guest(device))
            if guest.thread is None and not guest.stranger and time.monotonic() >= guest.again_at:
                guest.thread = threading.Thread(target=self._serve, args=(guest,), daemon=True)
                guest.thread.start()

    def state(self, left_s: float) -> TouchState:
        """Return what the operator should see."""
        guests = list(self._guests.values())
        return TouchState(
            touch=tuple(guest.label for guest in guests if guest.label),
            strangers=sum(guest.stranger for guest in guests),
            trouble=next((guest.trouble for guest in guests if guest.trouble), ""),
            left_s=max(0.0, left_s),
        )

    def news(self, wait_s: float) -> Assertion | None:
        """Wait for news from a key; raises NotAuthorizedError when somebody refused."""
        try:
            news = self._news.get(timeout=wait_s)
        except queue.Empty:
            return None
        guest = news.guest
        guest.label, guest.stranger, guest.trouble = news.label, news.stranger, news.trouble
        if not news.label:
            guest.thread = None
            guest.again_at = time.monotonic() + _AGAIN_S
        if news.refused:
            raise NotAuthorizedError(
                "the touch was refused", hint="run it again and touch a key to go on"
            )
        return news.assertion

    def end(self, wait_s: float) -> None:
        """Tell every key to stop blinking, and give them `wait_s` for it."""
        self._over.set()
        until = time.monotonic() + wait_s
        for thread in [guest.thread for guest in self._guests.values() if guest.thread]:
            thread.join(max(0.0, until - time.monotonic()))

    def _serve(self, guest: _Guest) -> None:
        key: EnrolledKey | None = None
        try:
            key = _enrolled_on(guest.device, self.keys, self._over)
            if key is None:
                self._news.put(_News(guest, stranger=True))
                return
            self._news.put(_News(guest, label=key.label))
            assertion = _answer(guest.device, key, self.challenge, self._over)
            if assertion:
                self._news.put(_News(guest, label=key.label, assertion=assertion))
        # A thread's failure has to become news: else we would wait for a key that nobody asks.
        except Exception as error:  # noqa: BLE001
            self._news.put(_failure(guest, key, error))


def _enrolled_on(
    device: "CtapDevice", keys: Sequence[EnrolledKey], over: threading.Event
) -> EnrolledKey | None:
    """Ask without a touch which of `keys` this device is; only then may it blink."""
    from fido2.ctap import CtapError  # noqa: PLC0415 (all of fido2 is loaded while we wait)
    from fido2.ctap2.base import Ctap2  # noqa: PLC0415
    from fido2.hid import CAPABILITY  # noqa: PLC0415

    if not device.capabilities & CAPABILITY.CBOR:
        return None  # it speaks U2F only, so it was never enrolled
    ctap2 = Ctap2(device)
    longest = ctap2.info.max_cred_id_length
    for key in keys:
        if longest and len(key.credential_id) > longest:
            continue
        listed: list[Mapping[str, object]] = [{"type": "public-key", "id": key.credential_id}]
        try:
            ctap2.get_assertion(key.rp_id, bytes(32), listed, None, {"up": False}, event=over)
        except CtapError as error:
            if error.code not in {CtapError.ERR.NO_CREDENTIALS, CtapError.ERR.INVALID_CREDENTIAL}:
                raise
        else:
            return key
    return None


def _answer(
    device: "CtapDevice", key: EnrolledKey, challenge: bytes, over: threading.Event
) -> Assertion | None:
    """Let the key blink until it is touched; None when the race is over."""
    from fido2.client import (  # noqa: PLC0415 (as above)
        ClientError,
        DefaultClientDataCollector,
        Fido2Client,
    )
    from fido2.webauthn import (  # noqa: PLC0415
        PublicKeyCredentialDescriptor,
        PublicKeyCredentialRequestOptions,
        PublicKeyCredentialType,
        UserVerificationRequirement,
    )

    client = Fido2Client(device, DefaultClientDataCollector(f"https://{key.rp_id}"))
    options = PublicKeyCredentialRequestOptions(
        challenge=challenge,
        rp_id=key.rp_id,
        allow_credentials=[
            PublicKeyCredentialDescriptor(
                type=PublicKeyCredentialType.PUBLIC_KEY, id=key.credential_id
            )
        ],
        user_verification=UserVerificationRequirement.DISCOURAGED,
    )
    while not over.is_set():
        try:
            response = client.get_assertion(options, over).get_response(0)
        except ClientError as error:
            if error.code != ClientError.ERR.TIMEOUT:
                raise
            over.wait(_PAUSE_S)  # the key's own time is up, not ours: ask it again
        else:
            return Assertion.of(response)
    return None


def _failure(guest: _Guest, key: EnrolledKey | None, error: Exception) -> _News:
    from fido2.client import ClientError, PinRequiredError  # noqa: PLC0415 (as above)
    from fido2.ctap import CtapError  # noqa: PLC0415
    from fido2.hid import ConnectionFailure  # noqa: PLC0415

    cause = error.cause if isinstance(error, ClientError) else error
    code = cause.code if isinstance(cause, CtapError) else None
    if isinstance(error, (OSError, ConnectionFailure)):
        guest.device.close()  # a key that was pulled out, or is dead: open it afresh
    name = f'the key "{key.label}"' if key else "a security key"
    trouble = f"{name} failed: {cause or error!r}"
    if code in {CtapError.ERR.OPERATION_DENIED, CtapError.ERR.NO_CREDENTIALS}:
        denied = code == CtapError.ERR.OPERATION_DENIED
        return _News(guest, refused=denied, stranger=not denied)
    if isinstance(error, PinRequiredError) or code == CtapError.ERR.PUAT_REQUIRED:
        trouble = f"{name} asks for its PIN"
    elif isinstance(error, TimeoutError):
        trouble = f"{name} stopped answering"
    elif isinstance(error, ConnectionFailure):
        trouble = f"{name} is in use by another program"
    elif isinstance(error, OSError) or code == CtapError.ERR.KEEPALIVE_CANCEL:
        trouble = ""  # pulled out, or called off: there is nothing to mend
    return _News(guest, trouble=trouble)
