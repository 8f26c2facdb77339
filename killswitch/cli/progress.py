"""How a run is shown while it goes on: in place on a terminal, line by line in a pipe."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from rich.live import Live

from killswitch.answer import summary
from killswitch.cli.terminal import Progress, Terminal, shown_s
from killswitch.model import Outcome, StepResult


class LineProgress(Progress):
    """Each step once, as soon as it is well, and the rest at the end."""

    def __init__(self, terminal: Terminal, mode: str) -> None:
        self._terminal = terminal
        self._mode = mode
        self._said: dict[tuple[str, str], Outcome] = {}
        self._last: Sequence[StepResult] = ()

    def show(self, results: Sequence[StepResult]) -> None:
        """Print the steps that have become final."""
        self._last = results
        for result in results:
            # Also a step that was said to be well, and is so no longer.
            if result.outcome.good or (result.step, result.system) in self._said:
                self._say(result)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Print, at the end, the steps that never became well."""
        yield
        with contextlib.suppress(Exception):  # a broken screen must not cost the answer
            for result in self._last:
                self._say(result)

    def _say(self, result: StepResult) -> None:
        key = (result.step, result.system)
        if self._said.get(key) is not result.outcome:
            self._said[key] = result.outcome
            self._terminal.step_line(
                self._mode, result.step, result.outcome, summary(result), shown_s(result)
            )


class LiveProgress(Progress):
    """The same lines, drawn anew in their place."""

    def __init__(self, terminal: Terminal, mode: str) -> None:
        self._terminal = terminal
        self._mode = mode
        self._started = time.monotonic()
        # Made now, before the touch: after it nothing may wait for an import.
        self._live = Live(console=terminal.console(), auto_refresh=False, transient=False)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Draw until the block ends; what was drawn last stays."""
        self._started = time.monotonic()
        with contextlib.suppress(Exception):
            self._live.start()
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                self._live.stop()

    def show(self, results: Sequence[StepResult]) -> None:
        """Draw the results so far."""
        elapsed_s = time.monotonic() - self._started
        block = self._terminal.step_block(self._mode, results, elapsed_s)
        self._live.update(block, refresh=True)
