"""Where the value of a secret that is to be sealed comes from."""

import sys
from pathlib import Path
from typing import Final

from killswitch.cli.session import Session
from killswitch.errors import UsageError, VendorError
from killswitch.secret import Secret
from killswitch.sources import Sources

SET: Final = "killswitch secrets set NAME"
_UNCHANGED: Final = "the sealed secrets are unchanged"
_LONGEST: Final = 64 * 1024


def read_value(session: Session, name: str, command: str) -> Secret:
    """Return a value that never stood in argv: from a program, a pipe, or typed unseen.

    Raises:
        UsageError: there is none, it is no text, or it is too long.
    """
    if command:
        try:
            return Sources(Path, {}).get(f"command:{command}")
        except VendorError as error:
            raise UsageError(error.problem, effect=_UNCHANGED, hint="mend the program") from None
    if sys.stdin is not None and sys.stdin.isatty():
        if session.no_input:
            raise UsageError(
                "nobody can type it with --no-input", effect=_UNCHANGED, hint="pipe it in"
            )
        from getpass import getpass

        text = getpass(f"value of sealed:{name} (not shown): ", stream=sys.stderr)
    else:
        raw = sys.stdin.buffer.read(_LONGEST + 1) if sys.stdin is not None else b""
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise UsageError("what was piped in is no text", effect=_UNCHANGED, hint=SET) from None
    text = text.removeprefix("\ufeff").strip()
    if not text or len(text) > _LONGEST:
        what = "nothing was given" if not text else f"it is longer than {_LONGEST} characters"
        raise UsageError(what, effect=_UNCHANGED, hint=f"type it, or: some-program | {SET}")
    return Secret(text)
