"""The whole voice of the tool.

Rules: the result goes to stdout, prompts and progress to stderr. Every line of a run begins with
its mode. A symbol and a word carry the meaning, colour only repeats it. Lower case, no final stop.
A terminal that has gone away is no reason to stop: what cannot be written is dropped.
"""

import contextlib
import io
import itertools
import json
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Final, cast

from killswitch.cli.later import Later
from killswitch.errors import KillswitchError
from killswitch.secret import redact

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from killswitch.answer import Line
    from killswitch.model import Outcome, StepResult

_SYMBOLS: Final = {
    "failed": ("XX", "bold red"),
    "unknown": ("??", "bold yellow"),
    "sent": ("..", "yellow"),
    "skipped": ("--", "yellow"),
    "rehearsed": ("ok", "green"),
    "verified": ("ok", "bold green"),
    "already": ("ok", "green"),
}
_MODE_STYLES: Final = {"LIVE": "bold red", "DRILL": "bold blue", "SANDBOX": "bold magenta"}
_WIDTH: Final = 80


class Terminal:
    """Everything killswitch says.

    Args:
        as_json: the result is one JSON document; progress still goes to stderr.
        quiet: no progress, only the result and errors.
        verbose: also what went well without being asked for.
        colour: None decides by the terminal and NO_COLOR.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        colour: bool | None = None,
        out: IO[str] | None = None,
        err: IO[str] | None = None,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._colour = colour
        # A stream that was closed before the start is None: then nobody listens there.
        self._out = out or sys.stdout or io.StringIO()
        self._err = err or sys.stderr or io.StringIO()
        self._err_console: Console | None = None
        self._later: Later | None = None

    @property
    def interactive(self) -> bool:
        """Whether a person watches stderr."""
        with contextlib.suppress(ValueError):
            return self._err.isatty() and os.environ.get("TERM") != "dumb"
        return False

    def say(self, mode: str, text: str = "") -> None:
        """Print one line of progress to stderr."""
        if not self.quiet:
            self._line(self._err, mode, text)

    def ask(self, mode: str, text: str) -> None:
        """Print one line that must be seen, also with --quiet."""
        self._line(self._err, mode, text)

    def hint(self, text: str) -> None:
        """Print one plain line to stderr."""
        if not self.quiet:
            self._write(self._err, f"{text}\n")

    def result(self, text: str) -> None:
        """Print one line of the result to stdout, unless it is a JSON document."""
        if not self.as_json:
            self._write(self._out, f"{text}\n")

    def verdict(self, text: str, *, good: bool) -> None:
        """Print the first line of the answer to stdout."""
        if self.as_json:
            return
        word, _, rest = text.partition("  ")
        with self._styled(self._out, "bold green" if good else "bold red") as (on, off):
            self._write(self._out, f"{on}{word}{off}  {rest}\n" if rest else f"{on}{word}{off}\n")

    def lines(self, lines: Sequence["Line"], *, width: int = 12) -> None:
        """Print labelled lines of the answer to stdout."""
        label = ""
        for line, following in itertools.zip_longest(lines, lines[1:]):
            shown = "" if line.label == label else line.label
            label = line.label
            self._folded(shown, line.text, width)
            if line.hint and (following is None or following.hint != line.hint):
                self.result(f" {'':<{width}} {line.hint}")

    def _folded(self, label: str, text: str, width: int) -> None:
        room = _WIDTH - width - 2
        for part in textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False):
            self.result(f" {label:<{width}} {part}")
            label = ""

    def document(self, document: Mapping[str, Any]) -> None:
        """Print the one JSON document of this run, if that was asked for."""
        if self.as_json:
            self._write(self._out, json.dumps(document, ensure_ascii=False, indent=2) + "\n")

    def error(self, error: KillswitchError) -> None:
        """Print an error in its three lines."""
        with self._styled(self._err, "bold red") as (on, off):
            self._write(self._err, f"{on}error:{off} {error.problem}\n")
        self._write(self._err, f"       {error.effect}\n")
        if error.hint:
            self._write(self._err, f"       {error.hint}\n")

    def progress(self, mode: str) -> "Progress":
        """Return what shows the steps while they run: in place, or a line each when final.

        A screen that cannot be drawn on shows nothing; it never stops a run.
        """
        if self.quiet:
            return Progress()
        try:
            from killswitch.cli.progress import LineProgress, LiveProgress

            return LiveProgress(self, mode) if self.interactive else LineProgress(self, mode)
        except Exception:  # noqa: BLE001 (a screen is no reason not to halt)
            return Progress()

    def step_line(self, mode: str, step: str, outcome: "Outcome", text: str, at_s: float) -> None:
        """Print one step's line to stderr."""
        symbol, style = _SYMBOLS[outcome.value]
        with self._styled(self._err, style) as (on, off):
            head = f"{on}{symbol} {outcome.value:<9}{off} {step:<14}"
            text = _fit(redact(text), _text_width(mode))
            self._line(self._err, mode, f"{head} {text} {at_s:5.1f} s")

    def console(self) -> "Console":
        """Return rich's console on stderr, for what is updated in place."""
        if self._err_console is None:
            from rich.console import Console

            self._err_console = Console(
                file=cast("IO[str]", _Through(self)),
                force_terminal=self.interactive,
                no_color=self._colour is False,
                highlight=False,
                soft_wrap=False,
            )
        return self._err_console

    def step_block(self, mode: str, results: Sequence["StepResult"], elapsed_s: float) -> "Text":
        """Return the steps' lines as one block, to be drawn in place."""
        from rich.text import Text

        from killswitch.answer import summary

        block = Text(no_wrap=True, overflow="crop")
        for result in results:
            symbol, style = _SYMBOLS[result.outcome.value]
            at_s = shown_s(result) if result.outcome.good else elapsed_s
            text = _fit(redact(summary(result)), _text_width(mode))
            block.append(mode, _MODE_STYLES.get(mode, "bold"))
            block.append(f"  {symbol} {result.outcome.value:<9}", style)
            block.append(f" {result.step:<14} {text} {at_s:5.1f} s\n")
        block.rstrip()
        return block

    def _line(self, stream: IO[str], mode: str, text: str) -> None:
        with self._styled(stream, _MODE_STYLES.get(mode, "bold")) as (on, off):
            self._write(stream, f"{on}{mode}{off}  {text}\n" if text else f"{on}{mode}{off}\n")

    @contextlib.contextmanager
    def detached(self) -> Iterator[None]:
        """Let a thread of its own do the writing: a screen that is held must hold nothing else.

        At the end it is waited for, as long as somebody still reads.
        """
        self._later = Later()
        try:
            yield
        finally:
            later, self._later = self._later, None
            later.drain()

    def _write(self, stream: IO[str], text: str) -> None:
        if self._later is not None:
            self._later.put(lambda: self._write_now(stream, text))
        else:
            self._write_now(stream, text)

    def _write_now(self, stream: IO[str], text: str) -> None:
        text = redact(text)
        try:
            stream.write(text)
            stream.flush()
        except UnicodeEncodeError:
            plain = text.encode("ascii", "replace").decode("ascii")
            with contextlib.suppress(OSError, ValueError):
                stream.write(plain)
                stream.flush()
        except (OSError, ValueError):
            # The reader is gone. A halt under way must not end because nobody watches it.
            return

    @contextlib.contextmanager
    def _styled(self, stream: IO[str], style: str) -> Iterator[tuple[str, str]]:
        if not self._coloured(stream):
            yield "", ""
            return
        codes = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "blue": "34"}
        codes["magenta"] = "35"
        numbers = ";".join(codes[word] for word in style.split())
        yield f"\x1b[{numbers}m", "\x1b[0m"

    def _coloured(self, stream: IO[str]) -> bool:
        if self._colour is not None:
            return self._colour
        if os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR"):
            return True
        wanted = os.environ.get("TERM") != "dumb"
        with contextlib.suppress(ValueError):
            return wanted and stream.isatty()
        return False


class _Through:
    """What rich writes to: the terminal's own way out, so that it never blocks a halt either."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self.encoding = "utf-8"

    def write(self, text: str) -> int:
        self._terminal._write(self._terminal._err, text)  # noqa: SLF001 (the same room)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back here."""

    def isatty(self) -> bool:
        return self._terminal.interactive


class Progress:
    """Takes the results so far and shows nothing."""

    def show(self, results: Sequence["StepResult"]) -> None:
        """Take the results so far."""

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Be on the screen until the block ends."""
        yield


def shown_s(result: "StepResult") -> float:
    """Return the time to show for a step: when it was first read back clean, else the latest."""
    return result.ended_s if result.verified_s is None else result.verified_s


def _text_width(mode: str) -> int:
    return _WIDTH - len(mode) - 38


def _fit(text: str, width: int) -> str:
    text = " ".join(text.split())
    return f"{text[: width - 1]}…" if len(text) > width else f"{text:<{width}}"
