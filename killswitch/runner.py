"""What carries out an order for real: daemon threads, one queue, the wall clock.

A vendor's own time-out covers neither DNS nor a slow drip, so no call is ever waited for: each
runs in a daemon thread of its own and may be left behind. The process therefore ends with
`os._exit` after a halt (see `killswitch.__main__`), or a stuck call would hold it.
"""

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from killswitch.driving import Event, Interrupt, Pressed, Tick
from killswitch.halt import Flow
from killswitch.model import HaltReport, StepResult
from killswitch.task import Call, Done

Clock = Callable[[], float]
Show = Callable[[tuple[StepResult, ...]], None]

REDRAW_S = 0.1
_AS_CTRL_C = ("SIGINT", "SIGTERM", "SIGQUIT")
# A terminal that goes away, Ctrl-Z, a stray timer: nothing of it may stop or suspend a halt.
_IGNORED = ("SIGHUP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2", "SIGALRM")


class Runner:
    """Runs one flow of the engine to its report.

    Args:
        clock: seconds, monotonic.
        show: called at most every `REDRAW_S` with the results so far; what it raises is dropped,
            because a broken screen is no reason to stop.
    """

    def __init__(self, *, clock: Clock = time.monotonic, show: Show | None = None) -> None:
        self._clock = clock
        self.show = show
        self.presses = 0
        """How often `interrupt` was called."""
        self._shown_at = 0.0
        # SimpleQueue.put may be called from a signal handler; Queue.put may not.
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def run(self, start: Callable[[float], Flow]) -> HaltReport:
        """Drive the flow that `start` makes from the current time, and return its report."""
        flow = start(self._clock())
        try:
            wait = next(flow)
            while True:
                for call in wait.calls:
                    self._spawn(call)
                self._draw(wait.progress)
                wait = flow.send(self._next_event(wait.until))
        except StopIteration as end:
            report: HaltReport = end.value
            return report

    def interrupt(self) -> None:
        """Take note of one Ctrl-C; safe in a signal handler."""
        self.presses += 1
        pressed = Pressed(min(self.presses, int(Pressed.TWICE)))
        self._events.put(Interrupt(self._clock(), pressed))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into events, and outlive the terminal, until the block ends.

        Begins with the touch: from then on nothing but the engine decides when to stop.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def pressed(_signal: int, _frame: FrameType | None) -> None:
            self.interrupt()

        with ExitStack() as handlers:
            for name in _AS_CTRL_C:
                if number := getattr(signal, name, None):
                    handlers.callback(signal.signal, number, signal.signal(number, pressed))
            for name in _IGNORED:
                if number := getattr(signal, name, None):
                    handlers.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
            yield

    def _next_event(self, until: float) -> Event:
        left = until - self._clock()
        if self.show is not None:
            left = min(left, REDRAW_S)
        try:
            return self._events.get(timeout=max(left, 0))
        except queue.Empty:
            return Tick(self._clock())

    def _spawn(self, call: Call) -> None:
        thread = threading.Thread(target=self._make, args=(call,), name=call.label, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads: it costs this call, not the halt
            now = self._clock()
            self._events.put(Done(call.id, None, error, now, now))

    def _make(self, call: Call) -> None:
        started = self._clock()
        value: object = None
        error: Exception | None = None
        try:
            value = call.run()
        except Exception as problem:  # noqa: BLE001 (the boundary that turns it into a result)
            error = problem
        self._events.put(Done(call.id, value, error, started, self._clock()))

    def _draw(self, progress: Callable[[], tuple[StepResult, ...]]) -> None:
        now = self._clock()
        if self.show is not None and now - self._shown_at >= REDRAW_S:
            self._shown_at = now
            with suppress(Exception):
                self.show(progress())
