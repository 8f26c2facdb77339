"""Programs that run beside the test: what they say is kept, and can be waited for."""

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO


class WrongError(Exception):
    """Something is not as the check says; the text says what was seen instead."""


class SilenceError(WrongError):
    """What was waited for was not said."""


class Run:
    """One program, running; stdout and stderr are one text, in the order of arrival.

    `say` writes a line to its stdin, which otherwise stays open and silent.
    """

    def __init__(
        self, words: Sequence[str | Path], *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = " ".join(Path(word).name for word in map(str, words))
        self._text = ""
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [str(word) for word in words],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        assert self._process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
        self._reader = threading.Thread(
            target=self._listen, args=(self._process.stdout,), daemon=True
        )
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything said up to now."""
        with self._news:
            return self._text

    @property
    def over(self) -> bool:
        """Whether the program has ended."""
        return self._process.poll() is not None

    def say(self, line: str) -> None:
        """Write one line to the program."""
        assert self._process.stdin is not None  # noqa: S101 (as above)
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def wait_for(self, pattern: str, *, timeout_s: float, after: int = 0) -> int:
        """Wait until `pattern` was said after that many characters; return where it ended."""
        until = time.monotonic() + timeout_s
        with self._news:
            while True:
                found = re.compile(pattern).search(self._text, after)
                if found:
                    return found.end()
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise SilenceError(f"{self.name}: no {pattern!r} within {timeout_s:g} s")
                if self.over and not self._reader.is_alive():
                    raise SilenceError(f"{self.name}: ended without {pattern!r}")
                self._news.wait(min(0.2, left_s))

    def demand(self, code: int, *patterns: str, timeout_s: float) -> str:
        """Wait for the end; demand this exit code, these words and no traceback."""
        try:
            ended = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise WrongError(f"{self.name}: still running after {timeout_s:g} s") from None
        self._reader.join(5)
        if ended != code:
            raise WrongError(f"{self.name}: exit code {ended}, not {code}")
        for pattern in patterns:
            if not re.search(pattern, self.text):
                raise WrongError(f"{self.name}: ended without {pattern!r}")
        if "Traceback" in self.text:
            raise WrongError(f"{self.name}: a traceback")
        return self.text

    def wait(self, timeout_s: float) -> None:
        """Wait for the end, or for so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def end(self) -> None:
        """Kill the program if it still runs."""
        if not self.over:
            self._process.kill()
            self._process.wait()

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            with self._news:
                self._text += line
                self._news.notify_all()


def answer(words: Sequence[str | Path], *, code: int = 0, timeout_s: float = 60) -> str:
    """Run a program to its end and return what it said."""
    run = Run(words)
    try:
        return run.demand(code, timeout_s=timeout_s)
    except WrongError as error:
        raise WrongError(f"{error}\n{run.text}") from None
    finally:
        run.end()
