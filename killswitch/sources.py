"""Where a secret comes from: `env:NAME`, `file:PATH` or `command:WORDS`, never the file itself.

All sources are read at once, in the background, while the operator reaches for the key: a secret
that lives in the Vault about to be wiped must be in memory before the first action.
"""

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from killswitch.errors import RefusedError, UnreachableError, VendorError
from killswitch.secret import Secret

COMMAND_TIMEOUT_S: Final = 10.0
_LONGEST: Final = 64 * 1024
_HOW: Final = "write env:NAME, file:PATH or command:WORDS"


@dataclass(slots=True)
class _Pending:
    done: threading.Event
    secret: Secret | None = None
    error: VendorError | None = None


class Sources:
    """The secrets of one run, each read once.

    Args:
        resolve: turns a path as written in the configuration into an absolute one.
        environment: where `env:` looks.
    """

    def __init__(
        self, resolve: Callable[[str], Path], environment: Mapping[str, str] = os.environ
    ) -> None:
        self._resolve = resolve
        self._environment = environment
        self._pending: dict[str, _Pending] = {}

    def start(self, sources: Iterable[str]) -> None:
        """Begin to read `sources` in the background; a second start changes nothing."""
        for source in sources:
            if source in self._pending:
                continue
            pending = self._pending[source] = _Pending(threading.Event())
            threading.Thread(
                target=self._fill, args=(source, pending), name="secret", daemon=True
            ).start()

    def settle(self, timeout_s: float) -> None:
        """Wait until every source was read, or failed, but at most `timeout_s`."""
        end = time.monotonic() + timeout_s
        for pending in self._pending.values():
            pending.done.wait(max(end - time.monotonic(), 0))

    def get(self, source: str) -> Secret:
        """Return the secret; raises VendorError when it cannot be read."""
        self.start([source])
        pending = self._pending[source]
        if not pending.done.wait(COMMAND_TIMEOUT_S + 1):
            raise UnreachableError(f"secret {name_of(source)}: not read in time")
        if pending.error is not None:
            raise pending.error
        if pending.secret is None:
            raise UnreachableError(f"secret {name_of(source)}: not read")
        return pending.secret

    def _fill(self, source: str, pending: _Pending) -> None:
        try:
            pending.secret = self._read(source)
        except VendorError as error:
            pending.error = error
        finally:
            pending.done.set()

    def _read(self, source: str) -> Secret:
        kind, _, where = source.partition(":")
        match kind:
            case "env":
                value = self._environment.get(where, "")
            case "file":
                value = self._file(where)
            case "command":
                value = _command(where)
            case _:
                raise RefusedError(f"a secret stands in the configuration itself: {_HOW}")
        value = value.strip()
        if not value:
            raise RefusedError(f"secret {name_of(source)}: empty or not set")
        return Secret(value)

    def _file(self, where: str) -> str:
        path = self._resolve(where)
        try:
            with path.open(encoding="utf-8") as handle:
                return handle.read(_LONGEST)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise RefusedError(f"secret file:{where}: {reason}") from None


def name_of(source: str) -> str:
    """Return what may be shown of a source: where it is, never what is in it."""
    kind, _, where = source.partition(":")
    if kind in {"env", "file"}:
        return f"{kind}:{where}"
    if kind == "command":
        # Only the program's name: an argument may be a credential.
        return f"command:{where.split(maxsplit=1)[0] if where.split() else ''}"
    return "in clear"


def _command(line: str) -> str:
    try:
        words = shlex.split(line)
        done = subprocess.run(  # noqa: S603 (the operator's own configuration; no shell)
            words,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        text = f"secret {name_of('command:' + line)}: no answer within {COMMAND_TIMEOUT_S:g} s"
        raise UnreachableError(text) from None
    except (OSError, ValueError, IndexError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a command line"
        raise RefusedError(f"secret {name_of('command:' + line)}: {reason}") from None
    if done.returncode != 0:
        # What it printed may hold a credential, so only its exit code is told.
        raise RefusedError(f"secret {name_of('command:' + line)}: exit code {done.returncode}")
    return done.stdout[:_LONGEST]
