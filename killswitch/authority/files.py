"""Small private files: read only if nobody else could have written them, replaced in one step."""

import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from killswitch.errors import ConfigError

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


_LARGEST_BYTES: Final = 1 << 20
_LOCK_POLL_S: Final = 0.02
_HELD: Final = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}


@contextmanager
def locked(path: Path, *, wait_s: float = 2.0) -> Iterator[None]:
    """Hold the advisory lock that belongs to `path`; raises ConfigError after `wait_s`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock")
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(handle, lock, time.monotonic() + wait_s)
        yield
    finally:
        os.close(handle)


def _take(handle: int, lock: Path, until: float) -> None:
    while True:
        try:
            return _lock(handle)
        except OSError as error:
            if error.errno not in _HELD:
                raise
            if time.monotonic() >= until:
                raise ConfigError(
                    f"another process holds {lock}", hint="end it, then run this again"
                ) from None
            time.sleep(_LOCK_POLL_S)


def read_guarded(path: Path, *, what: str) -> bytes:
    """Return the bytes of `path`; raises ConfigError when others could have written them.

    `what` names the file in words. Raises FileNotFoundError when there is none.
    """
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # reading a FIFO may never end
            raise ConfigError(f"the {what} {path} is not a plain file", hint="mend what is there")
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigError(
                    f"the {what} {path} can be changed by other users (mode {mode:04o})",
                    hint=f"see that its content is yours, then: chmod go-w {path}",
                )
            raw = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(
            f"the {what} {path} cannot be read: {error.strerror}", hint="mend the file's access"
        ) from error
    if len(raw) > _LARGEST_BYTES:
        raise ConfigError(f"the {what} {path} is too large", hint="restore it from a copy")
    return raw


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` in one step and durably, readable by its owner only (0600)."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file 0600.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", hint="mend the folder's access"
        ) from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # a folder cannot be opened there; the rename itself is journalled
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
