"""Typing a security key's PIN: at the terminal, unseen, and never anywhere else."""

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from killswitch.cli.session import Session

if TYPE_CHECKING:
    from killswitch.authority.pin import PinPolicy

_POLL_S: Final = 0.1
_LONGEST: Final = 256


def pin_policy(session: Session, *, required: bool) -> "PinPolicy":
    """Return how the PIN of a key is asked for in this run: at the controlling terminal.

    With --no-input, or without a terminal, nobody is asked.
    """
    from killswitch.authority.pin import PinPolicy

    ended = threading.Event()

    def ask(label: str, tries_left: int, note: str) -> str | None:
        if session.no_input:
            return None
        tries = f"{tries_left} tries left" if tries_left != 1 else "the last try"
        session.terminal.ask("KEYS", " · ".join(filter(None, (note, tries))))
        return _typed(f'PIN of the key "{label}" (Enter alone: none): ', ended)

    return PinPolicy(ask, required=required, force=session.force_pin, ended=ended)


def _typed(prompt: str, ended: threading.Event) -> str | None:
    try:
        tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with _unseen(tty):
            os.write(tty, prompt.encode())
            return _line(tty, ended)
    finally:
        os.close(tty)


def _line(tty: int, ended: threading.Event) -> str | None:
    while not ended.is_set():
        ready, _, _ = select.select([tty], [], [], _POLL_S)
        if ready:
            typed = os.read(tty, _LONGEST)
            return typed.decode(errors="replace").rstrip("\r\n") or None
    return None


@contextmanager
def _unseen(tty: int) -> Iterator[None]:
    """Switch the echo off, and leave the terminal as it was."""
    import termios  # which Windows has not; nor has it a terminal of this name

    before = termios.tcgetattr(tty)
    silent = [*before]
    silent[3] = before[3] & ~termios.ECHO
    termios.tcsetattr(tty, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        with suppress(termios.error, OSError):
            termios.tcsetattr(tty, termios.TCSAFLUSH, before)
            os.write(tty, b"\n")
