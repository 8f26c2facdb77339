"""Programs that run beside the tests: started within a time, ended for certain."""

import atexit
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

POLL_S = 0.02
SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_GUARD = Path(__file__).with_name("guard.py")
_ports = random.SystemRandom()
_given: set[int] = set()


class ServerError(Exception):
    """A server did not start, or did not answer as it should."""


class Program:
    """One process with its log; it does not outlive the tests, however they end."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches the tests, which then stop it in order.
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": SEARCH, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        tell_guard(f"+{self.pid}")

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait_until(self, ready: Callable[[], bool], timeout_s: float = 30) -> None:
        """Wait until `ready` says so. Raises ServerError with the end of the log."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running:
                code = self._process.returncode
                raise ServerError(f"{self.name} ended with {code}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} is not ready after {timeout_s} s:\n{self.tail()}")
            time.sleep(POLL_S)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, with what it started itself."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(10)
        tell_guard(f"-{self.pid}")

    def stop(self, timeout_s: float = 5) -> None:
        """Ask it to end, and end it when it does not."""
        if self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        self.kill()

    def tail(self, lines: int = 15) -> str:
        """Return the end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(line[:400] for line in text.splitlines()[-lines:])


def free_port() -> int:
    """Return a port of loopback that nobody listens on.

    Below the range from which outgoing connections take theirs, so that a server that was killed
    finds its own port free again.
    """
    for _ in range(200):
        port = _ports.randint(15000, 32000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise ServerError("no free port between 15000 and 32000")


def listening(port: int) -> bool:
    """Whether somebody takes connections on this port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def finally_run(name: str, command: Sequence[str | Path]) -> None:
    """Have `command` run if this process dies before `forget(name)`."""
    tell_guard(f"!{name} {json.dumps([str(word) for word in command])}")


def forget(name: str) -> None:
    """Take back what `finally_run` asked for."""
    tell_guard(f"?{name}")


_guard: subprocess.Popen[bytes] | None = None
_guard_lock = threading.Lock()


def tell_guard(line: str) -> None:
    """Tell the process that clears up after us; starts it when it is not there."""
    global _guard  # noqa: PLW0603 (one guard for this process, like its life)
    with _guard_lock:
        if _guard is None or _guard.poll() is not None:
            _guard = subprocess.Popen(
                [sys.executable, "-I", str(_GUARD)], stdin=subprocess.PIPE, start_new_session=True
            )
            atexit.register(_dismiss, _guard)
        assert _guard.stdin is not None
        _guard.stdin.write(line.encode() + b"\n")
        _guard.stdin.flush()


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    """Let the guard do what is left, and end."""
    assert guard.stdin is not None
    guard.stdin.close()
    guard.wait(60)
