"""The recovery phrase on its way to paper and back: at the controlling terminal, nowhere else.

It is never written to standard output or error: those may be kept in a file.
"""

import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from killswitch.cli.session import Session
from killswitch.errors import UsageError

if TYPE_CHECKING:
    from killswitch.authority.recovery import Recovery
    from killswitch.secret import Secret

_LONGEST: Final = 4096
_GROUPS_A_ROW: Final = 5
_TRIES: Final = 3
# A page of its own (xterm's alternate screen): what stood on it is in no scrollback.
_TURN_TO, _CLEARED, _TURN_BACK = "\x1b[?1049h", "\x1b[2J\x1b[H", "\x1b[?1049l"
_SHOWN: Final = """\
KEYS  the recovery phrase, shown this once

{rows}

Write all 15 groups on paper or steel. Keep it away from this laptop, and from the keys.
It opens the sealed secrets, and it admits a new security key. It halts nothing by itself.

press Enter when it is written down: """
_TYPED_BACK: Final = (
    "type it back from what you wrote, the spaces do not matter (Enter alone shows it again):\n"
)


def hand_over(phrase: "Secret", recovery: "Recovery", *, effect: str) -> None:
    """Show a new phrase, and return when it was typed back from what was written down.

    Raises UsageError where there is no terminal, or when it is closed.
    """
    from killswitch.authority.recovery import PhraseError, recovery_from_phrase

    with _Page.opened(effect) as page:
        while True:
            page.line(_SHOWN.format(rows=_rows(phrase.reveal())))
            note = ""
            while typed := page.line(f"{note}{_TYPED_BACK}"):
                try:
                    if recovery_from_phrase(typed).record == recovery.record:
                        return
                    note = "that is another phrase; "
                except PhraseError as error:
                    note = f"{error.problem}; "


def read_phrase(session: Session, *, effect: str) -> "Recovery":
    """Return what the phrase can do that is typed unseen, or piped in; it never stood in argv.

    Raises UsageError when it is none.
    """
    from killswitch.authority.recovery import PhraseError, recovery_from_phrase

    if sys.stdin is None or not sys.stdin.isatty():
        raw = sys.stdin.buffer.read(_LONGEST) if sys.stdin is not None else b""
        return recovery_from_phrase(raw.decode(errors="replace"))
    if session.no_input:
        raise UsageError("nobody can type it with --no-input", effect=effect, hint="pipe it in")
    with _Page.opened(effect, own_screen=False) as page:
        for left in reversed(range(_TRIES)):
            try:
                return recovery_from_phrase(page.unseen("recovery phrase (not shown): "))
            except PhraseError as error:
                if not left:
                    raise
                page.write(f"{error.problem}\n")
    raise AssertionError("the last try returns or raises")


def _rows(phrase: str) -> str:
    groups = phrase.split("-")
    rows = (groups[at : at + _GROUPS_A_ROW] for at in range(0, len(groups), _GROUPS_A_ROW))
    return "\n".join(
        f"  {number * _GROUPS_A_ROW + 1:>2}-{(number + 1) * _GROUPS_A_ROW:<2}  {'  '.join(row)}"
        for number, row in enumerate(rows)
    )


class _Page:
    """The controlling terminal, whatever standard input and output are."""

    def __init__(self, tty: int, effect: str, *, own_screen: bool) -> None:
        self._tty = tty
        self._effect = effect
        self._own_screen = own_screen and os.environ.get("TERM", "dumb") != "dumb"

    @classmethod
    @contextmanager
    def opened(cls, effect: str, *, own_screen: bool = True) -> Iterator["_Page"]:
        try:
            tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            raise UsageError(
                "there is no terminal for the recovery phrase",
                effect=effect,
                hint="run it where a person can read and type",
            ) from None
        page = cls(tty, effect, own_screen=own_screen)
        try:
            page._control(_TURN_TO)
            yield page
        finally:
            with suppress(OSError):
                page._control(_CLEARED + _TURN_BACK)
            os.close(tty)

    def write(self, text: str) -> None:
        """Put text on the page, as it is: here alone nothing is masked."""
        os.write(self._tty, text.encode())

    def line(self, prompt: str) -> str:
        """Clear the page, write a prompt, and return the line that is typed."""
        self._control(_CLEARED)
        self.write(prompt)
        typed = os.read(self._tty, _LONGEST)
        if not typed:
            raise UsageError("the terminal was closed", effect=self._effect, hint="run it again")
        return typed.decode(errors="replace").strip()

    def unseen(self, prompt: str) -> str:
        """Write a prompt and return the line that is typed without being shown."""
        before = termios.tcgetattr(self._tty)
        silent = [*before]
        silent[3] = before[3] & ~termios.ECHO
        termios.tcsetattr(self._tty, termios.TCSAFLUSH, silent)
        try:
            return self.line(prompt)
        finally:
            with suppress(termios.error, OSError):
                termios.tcsetattr(self._tty, termios.TCSAFLUSH, before)
                self.write("\n")

    def _control(self, sequence: str) -> None:
        if self._own_screen:
            self.write(sequence)
