"""Running another program: no shell, no terminal, bounded in time and in what it may print."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final, cast

_PART: Final = 64 * 1024
# A program may end and leave a child that holds its output open: its own end is what counts.
_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program printed; `code` is None for one that was ended because time was up.

    `output` is a little longer than the bound at most; then the program was ended, too.
    """

    code: int | None
    output: bytes


def run(
    arguments: Sequence[str],
    *,
    timeout_s: float,
    longest: int,
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """Run a program to its end, or end it and its children after `timeout_s`.

    It reads an empty input. `longest` bounds what it may print, in bytes. `environment` replaces
    this process's own.

    Raises:
        OSError: it cannot be started. ValueError, IndexError: this is no command line.
    """
    process = subprocess.Popen(  # noqa: S603 (the operator's own configuration; no shell)
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # What it prints there may hold a credential.
        stderr=subprocess.DEVNULL,
        env=None if environment is None else dict(environment),
        start_new_session=True,  # Ctrl-C after the touch is for killswitch, not for it
    )
    with process:
        try:
            return _read(process, time.monotonic() + timeout_s, longest)
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()


def _read(process: "subprocess.Popen[bytes]", end: float, longest: int) -> Ran:
    printed = b""
    stream = cast("IO[bytes]", process.stdout)
    os.set_blocking(stream.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            left_s = end - time.monotonic()
            if left_s <= 0:
                return Ran(None, printed)
            ended = process.poll() is not None
            ready = selector.select(0 if ended else min(left_s, _LOOK_S))
            if ended and not ready:
                break
            part = os.read(stream.fileno(), _PART) if ready else b""
            if ready and not part:
                break
            printed = (printed + part)[: longest + 1]
            if len(printed) > longest:
                return Ran(process.poll(), printed)
    try:
        return Ran(process.wait(max(0.0, end - time.monotonic())), printed)
    except subprocess.TimeoutExpired:
        return Ran(None, printed)
