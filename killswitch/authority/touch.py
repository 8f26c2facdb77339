"""The touch: every enrolled key that is plugged in blinks, and the first one touched signs."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from killswitch.authority.asking import Question, Touched
from killswitch.authority.pin import PinPolicy
from killswitch.authority.race import Race, TouchState
from killswitch.authority.ring import EnrolledKey
from killswitch.errors import AbortedError, NotAuthorizedError

if TYPE_CHECKING:
    from fido2.ctap import CtapDevice

__all__ = ["POLL_S", "TouchState", "Touched", "ask_for_touch"]

POLL_S: Final = 0.2
_LAST_WORD_S: Final = 0.5  # how long the losers get to stop blinking when nothing was touched


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
    unseal: bool = False,
    pin: PinPolicy | None = None,
) -> Touched:
    """Return the answer of the first enrolled key that is touched.

    `devices` is asked every 200 ms for the keys plugged in, and gives the same object for the
    same key. `diagnose` says why none may be seen. With `unseal` the same touch also gives the
    PRF output that opens what is sealed to this key, if anything is. Without `pin` a key that
    insists on its PIN cannot answer. The answer is not yet verified: see `proof`.

    Raises NotAuthorizedError when nobody touches or somebody refuses, AbortedError on `cancel`.
    """
    ours = tuple(key for key in keys if key.rp_id == rp_id)
    if not ours:
        raise NotAuthorizedError(
            f"no security key is enrolled for {rp_id}",
            hint="enrol one: killswitch keys enroll",
        )
    # What the library logs without being asked (a busy key, again and again) is told by `on_state`.
    logging.getLogger("fido2").addHandler(logging.NullHandler())
    race = Race(Question(challenge, ours, rp_id, unseal=unseal, pin=pin))
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
    race: Race,
    devices: "Callable[[], Sequence[CtapDevice]]",
    timeout_s: float,
    cancel: threading.Event,
    on_state: Callable[[TouchState], None],
    diagnose: Callable[[], str],
) -> Touched:
    until = time.monotonic() + timeout_s
    shown: TouchState | None = None
    while True:
        left_s = until - time.monotonic()
        if cancel.is_set():
            raise AbortedError("stopped before the touch", hint="nothing to undo")
        if left_s <= 0:
            raise _too_late(race.state(0, diagnose), timeout_s)
        race.invite(devices())
        state = race.state(left_s, diagnose)
        if replace(state, left_s=int(left_s)) != shown:
            shown = replace(state, left_s=int(left_s))
            on_state(state)
        touched = race.news(min(POLL_S, left_s))
        if touched:
            return touched


def _too_late(state: TouchState, timeout_s: float) -> NotAuthorizedError:
    if state.touch:
        blinking = " or ".join(f'"{label}"' for label in state.touch)
        hint = f"run it again and touch the key that blinks: {blinking}"
    elif state.trouble and len(state.enrolled) > 1:
        hint = f"{state.trouble}; or use another of {state.names}"
    else:
        hint = state.reason
    return NotAuthorizedError(f"no touch on a security key within {timeout_s:g} s", hint=hint)
