"""The sandbox's security key: the Enter key stands for the touch."""

import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from killswitch.config import Config
from killswitch.errors import NotAuthorizedError, UsageError
from killswitch.priming import prime

if TYPE_CHECKING:
    from fido2.ctap import CtapDevice

_POLL_S = 0.1
_KEYS_OWN_TIME_S = 30.0


def software_key_devices(
    config: Config, *, yes: bool, no_input: bool
) -> "Callable[[], Sequence[CtapDevice]]":
    """Return what finds the software keys that a sandbox configuration names.

    Raises:
        UsageError: the sandbox's server library is missing, or nobody could press Enter.
    """
    if config.sandbox is None:
        raise UsageError("only a sandbox has a software key")
    if no_input and not yes:
        raise UsageError(
            "nobody can press Enter with --no-input", hint="--yes stands for the software key"
        )
    from killswitch.sandbox.softkey import SoftKey, SoftKeyDevice

    prime()  # two keys may be asked at once
    path = config.resolve(config.sandbox.software_key)
    if not path.is_file():
        raise NotAuthorizedError(
            f"the sandbox's software key {path} is gone", hint="start killswitch sandbox again"
        )
    spares = map(config.resolve, config.sandbox.spare_keys)
    devices = [
        SoftKeyDevice(SoftKey.load(it, touch=_always if yes else _enter))
        for it in (path, *spares)
        if it.is_file()
    ]
    return lambda: devices


def _always(_cancel: threading.Event) -> bool:
    return True


def _enter(cancel: threading.Event) -> bool | None:
    """Wait for a line on standard input, as long as a key waits for a touch; its end is none."""
    end = time.monotonic() + _KEYS_OWN_TIME_S
    while not cancel.is_set() and time.monotonic() < end:
        ready, _, _ = select.select([sys.stdin], [], [], _POLL_S)
        if ready and sys.stdin.readline():
            return True
        if ready:
            cancel.wait(end - time.monotonic())
    return None
