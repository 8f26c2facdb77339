"""How a run is shown while it goes on: in place on a terminal, line by line in a pipe."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from killswitch.answer import summary
from killswitch.cli.terminal import Progress, Terminal, shown_s
from killswitch.model import StepResult

if TYPE_CHECKING:
    from rich.live import Live


class LineProgress(Progress):
    """Each step once, as soon as it is well, and the rest at the end."""

    def __init__(self, terminal: Terminal, mode: str) -> None:
        self._terminal = terminal
        self._mode = mode
        self._said: set[tuple[str, str]] = set()
        self._last: Sequence[StepResult] = ()

    def show(self, results: Sequence[StepResult]) -> None:
        """Print the steps that have become final."""
        self._last = results
        for result in results:
            if result.outcome.good:
                self._say(result)

    def end(self) -> None:
        """Print the steps that never became well."""
        for result in self._last:
            self._say(result)

    def _say(self, result: StepResult) -> None:
        key = (result.step, result.system)
        if key not in self._said:
            self._said.add(key)
            self._terminal.step_line(
                self._mode, result.step, result.outcome, summary(result), shown_s(result)
            )


class LiveProgress(Progress):
    """The same lines, drawn anew in their place."""

    def __init__(self, terminal: Terminal, mode: str) -> None:
        self._terminal = terminal
        self._mode = mode
        self._started = time.monotonic()
        self._live: Live | None = None

    @contextlib.contextmanager
    def shown(self) -> Iterator["LiveProgress"]:
        """Draw until the block ends; what was drawn last stays."""
        from rich.live import Live

        live = Live(console=self._terminal.console(), auto_refresh=False, transient=False)
        with contextlib.suppress(Exception):
            live.start()
        self._live = live
        try:
            yield self
        finally:
            with contextlib.suppress(Exception):
                live.stop()

    def show(self, results: Sequence[StepResult]) -> None:
        """Draw the results so far."""
        elapsed_s = time.monotonic() - self._started
        block = self._terminal.step_block(self._mode, results, elapsed_s)
        if self._live is not None:
            with contextlib.suppress(Exception):
                self._live.update(block, refresh=True)
