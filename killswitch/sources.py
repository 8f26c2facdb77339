"""Where a secret comes from: `sealed:`, `env:`, `file:` or `command:`, never the file itself.

Sealed secrets are opened by the touch itself. All others are read at once, in the background,
while the operator reaches for the key: a secret that lives in the Vault about to be wiped must be
in memory before the first action.
"""

import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from killswitch.errors import ConfigError, RefusedError, UnreachableError, VendorError
from killswitch.programs import run
from killswitch.secret import MASK, Secret

COMMAND_TIMEOUT_S: Final = 10.0
_LONGEST: Final = 64 * 1024
_LONGEST_NAME: Final = 32
_HOW: Final = "write sealed:NAME, env:NAME, file:PATH or command:WORDS"
_SEALED: Final = "sealed:"
SEALED_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
"""What a sealed secret may be called."""


@dataclass(slots=True)
class _Pending:
    done: threading.Event
    answer: Secret | VendorError | None = None


class Sources:
    """The secrets of one run, each read once.

    Args:
        resolve: turns a path as written in the configuration into an absolute one.
        environment: where `env:` looks.
        command_timeout_s: how long a `command:` may take.
    """

    def __init__(
        self,
        resolve: Callable[[str], Path],
        environment: Mapping[str, str] = os.environ,
        *,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        self._resolve = resolve
        self._environment = environment
        self._command_timeout_s = command_timeout_s
        self._pending: dict[str, _Pending] = {}
        self._opened: Mapping[str, Secret] = {}
        self._why_closed: Callable[[str], str] = _untouched

    def unseal(self, opened: Mapping[str, Secret], why_closed: Callable[[str], str]) -> None:
        """Take what the touch opened, by name, and what explains why a name is not there."""
        self._opened, self._why_closed = opened, why_closed

    def start(self, sources: Iterable[str]) -> None:
        """Begin to read `sources` in the background; a second start changes nothing."""
        for source in sources:
            if source.startswith(_SEALED):
                continue  # nothing to read before the touch
            mine = _Pending(threading.Event())
            if self._pending.setdefault(source, mine) is mine:
                threading.Thread(
                    target=self._fill, args=(source, mine), name="secret", daemon=True
                ).start()

    def settle(self, timeout_s: float) -> None:
        """Wait until every source was read, or failed, but at most `timeout_s`."""
        end = time.monotonic() + timeout_s
        for pending in list(self._pending.values()):
            pending.done.wait(max(end - time.monotonic(), 0))

    def get(self, source: str) -> Secret:
        """Return the secret; raises VendorError when it cannot be read."""
        if source.startswith(_SEALED):
            return self._unsealed(source.removeprefix(_SEALED))
        self.start([source])
        pending = self._pending[source]
        answer = pending.answer if pending.done.wait(self._command_timeout_s + 1) else None
        if isinstance(answer, Secret):
            return answer
        raise answer or UnreachableError(f"secret {name_of(source)}: not read in time")

    def _unsealed(self, name: str) -> Secret:
        if name in self._opened:
            return self._opened[name]
        raise RefusedError(f"secret sealed:{name}: {self._why_closed(name)}")

    def _fill(self, source: str, pending: _Pending) -> None:
        try:
            pending.answer = self._read(source)
        except VendorError as error:
            pending.answer = error
        except Exception as error:  # noqa: BLE001 (it costs this secret; its text is not vetted)
            text = f"secret {name_of(source)}: unexpected {type(error).__name__}"
            pending.answer = UnreachableError(text)
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
                value = _command(where, self._command_timeout_s)
            case _:
                raise RefusedError(f"a secret stands in the configuration itself: {_HOW}")
        value = value.strip()
        if len(value) > _LONGEST:
            raise RefusedError(f"secret {name_of(source)}: longer than {_LONGEST} characters")
        if not value:
            raise RefusedError(f"secret {name_of(source)}: empty or not set")
        return Secret(value)

    def _file(self, where: str) -> str:
        try:
            with self._resolve(where).open(encoding="utf-8") as handle:
                return handle.read(_LONGEST + 1)
        except ConfigError as error:
            raise RefusedError(f"secret file:{where}: not a path: {error.problem}") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text, or not a path"
            raise RefusedError(f"secret file:{where}: {reason}") from None


def check_source(source: str) -> None:
    """Raise ValueError unless `source` says where a secret is."""
    kind, _, where = source.partition(":")
    if kind not in {"sealed", "env", "file", "command"}:
        raise ValueError(f"a secret stands in the configuration itself: {_HOW}")
    if kind == "sealed" and not SEALED_NAME.fullmatch(where):
        raise ValueError(f"{_SEALED}NAME: a name has up to 40 of a-z, 0-9 and -, no - first")


def sealed_names(sources: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the sealed ones among `sources`, each once, in order."""
    names = (it.removeprefix(_SEALED) for it in sources if it.startswith(_SEALED))
    return tuple(dict.fromkeys(names))


def _untouched(_name: str) -> str:
    return "opens only with a touch"


def name_of(source: str) -> str:
    """Return what may be shown of a source: where it is, never what is in it."""
    kind, _, where = source.partition(":")
    if kind == "sealed":
        return source if SEALED_NAME.fullmatch(where) else f"{_SEALED}{MASK}"
    if kind in {"env", "file"}:
        # What is no name and no path may be the secret itself, written after the colon.
        plain = where.replace("_", "").isalnum() if kind == "env" else "/" in where
        shown = plain or len(where) <= _LONGEST_NAME
        return f"{kind}:{where if shown and '.' not in where[:4] else MASK}"
    if kind == "command":
        # Only the program's name: an argument may be a credential.
        return f"command:{where.split(maxsplit=1)[0] if where.split() else ''}"
    return "in clear"


def _command(line: str, timeout_s: float) -> str:
    name = name_of("command:" + line)
    try:
        ran = run(shlex.split(line), timeout_s=timeout_s, longest=_LONGEST)
    except (OSError, ValueError, IndexError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a command line"
        raise RefusedError(f"secret {name}: {reason}") from None
    if len(ran.output) > _LONGEST:
        raise RefusedError(f"secret {name}: longer than {_LONGEST} characters")
    if ran.code is None:
        raise UnreachableError(f"secret {name}: no answer within {timeout_s:g} s")
    if ran.code != 0:
        raise RefusedError(f"secret {name}: exit code {ran.code}")
    try:
        return ran.output.decode()
    except UnicodeDecodeError:
        raise RefusedError(f"secret {name}: its output is not text") from None
