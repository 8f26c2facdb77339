"""Writing later: whoever has something written never waits, and at the end it is waited for."""

import contextlib
import io
import os
import threading
import time
from collections.abc import Iterator

import pytest

from killswitch.cli import later as later_module
from killswitch.cli.later import Later
from killswitch.cli.terminal import Terminal
from killswitch.model import Outcome, StepResult

PATIENCE_S = 0.2


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Return what holds a write until it is set; it is set when the test is over."""
    gate = threading.Event()
    yield gate
    gate.set()


def took_s(began: float) -> float:
    return time.monotonic() - began


def test_everything_is_written_in_its_order_by_one_other_thread() -> None:
    later, written, threads = Later(), list[int](), set[int]()

    def write(number: int) -> None:
        threads.add(threading.get_ident())
        written.append(number)

    for number in range(500):
        later.put(lambda number=number: write(number))  # type: ignore[misc]  # bound now
    later.drain()
    assert written == list(range(500))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_nothing_to_write_is_not_waited_for() -> None:
    began = time.monotonic()
    Later().drain()
    assert took_s(began) < 0.1


def test_whoever_puts_never_waits_for_a_write_that_is_held(gate: threading.Event) -> None:
    later, written = Later(), list[int]()
    later.put(gate.wait)
    began = time.monotonic()
    for number in range(100):
        later.put(lambda number=number: written.append(number))  # type: ignore[misc]  # bound now
    assert took_s(began) < 0.1
    assert written == []
    gate.set()
    later.drain()
    assert written == list(range(100))


def test_a_write_that_is_held_is_waited_for_only_so_long(gate: threading.Event) -> None:
    later = Later()
    later.put(gate.wait)
    began = time.monotonic()
    later.drain(PATIENCE_S)
    assert PATIENCE_S <= took_s(began) < PATIENCE_S + 1


def test_a_slow_reader_is_waited_for_as_long_as_it_reads() -> None:
    later, written = Later(), list[int]()

    def write() -> None:
        time.sleep(PATIENCE_S / 2)
        written.append(1)

    for _ in range(6):
        later.put(write)
    later.drain(PATIENCE_S)
    assert len(written) == 6, "it took three times the patience, and went on all the time"


def test_what_is_put_while_the_end_is_waited_for_is_written_too() -> None:
    later, written = Later(), list[str]()

    def first() -> None:
        time.sleep(0.05)
        later.put(lambda: written.append("second"))
        written.append("first")

    later.put(first)
    later.drain(PATIENCE_S)
    assert written == ["first", "second"]


def test_a_write_that_fails_costs_itself_alone() -> None:
    later, written = Later(), list[str]()

    def fails() -> None:
        raise RuntimeError("the screen is broken")

    later.put(fails)
    later.put(lambda: written.append("after it"))
    began = time.monotonic()
    later.drain()
    assert written == ["after it"]
    assert took_s(began) < 1


def test_a_screen_that_is_held_for_very_long_takes_no_more_memory(gate: threading.Event) -> None:
    later, written = Later(), list[int]()
    later.put(gate.wait)
    most = later_module._MOST
    for number in range(most + 50):
        later.put(lambda number=number: written.append(number))  # type: ignore[misc]  # bound now
    gate.set()
    later.drain()
    assert written == list(range(most - 1)), "what came first is kept, and the rest dropped"
    later.put(lambda: written.append(-1))
    later.drain()
    assert written[-1] == -1, "once the screen is read again, it is written to again"


# The terminal.


class Held(io.StringIO):
    """A screen that takes nothing until `gate` is set, as after Ctrl-S."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__()
        self._gate = gate
        self.by: set[int] = set()

    def write(self, text: str, /) -> int:
        self.by.add(threading.get_ident())
        self._gate.wait(20)
        return super().write(text)


def result() -> StepResult:
    return StepResult(
        step="vault",
        system="prod",
        evidence=False,
        outcome=Outcome.UNKNOWN,
        targets=(),
        error="no answer",
        notes=(),
        looks=1,
        started_s=0,
        ended_s=1,
        verified_s=None,
    )


def speak(terminal: Terminal) -> None:
    progress = terminal.progress("LIVE")
    with progress.shown():
        progress.show([result()])
    terminal.say("LIVE", "a line")
    terminal.verdict("HALTED  verified", good=True)
    terminal.result("the result")
    terminal.document({"halted": True})


@pytest.mark.parametrize("as_json", [True, False])
def test_a_detached_terminal_is_never_waited_for(gate: threading.Event, *, as_json: bool) -> None:
    out, err = Held(gate), Held(gate)
    terminal = Terminal(out=out, err=err, as_json=as_json)
    began = time.monotonic()
    with terminal.detached():
        speak(terminal)
        assert took_s(began) < 1
        assert out.getvalue() + err.getvalue() == ""
        gate.set()
    assert ('"halted": true' if as_json else "HALTED  verified") in out.getvalue()
    assert "a line" in err.getvalue()
    assert threading.get_ident() not in out.by | err.by


def test_a_detached_terminal_that_nobody_reads_is_left_at_the_end(gate: threading.Event) -> None:
    terminal = Terminal(out=Held(gate), err=Held(gate))
    began = time.monotonic()
    with terminal.detached():
        speak(terminal)
    assert later_module.PATIENCE_S <= took_s(began) < later_module.PATIENCE_S + 1


def test_a_detached_terminal_says_the_same_in_the_same_order() -> None:
    texts = []
    for detached in (False, True):
        both = io.StringIO()
        terminal = Terminal(out=both, err=both, colour=False)
        with terminal.detached() if detached else contextlib.nullcontext():
            speak(terminal)
        texts.append(both.getvalue())
    assert texts[0] == texts[1]


def test_after_it_the_terminal_writes_at_once_again() -> None:
    def breaks_off() -> None:
        with terminal.detached():
            terminal.result("during")
            raise KeyError

    out = io.StringIO()
    terminal = Terminal(out=out)
    with pytest.raises(KeyError):
        breaks_off()
    terminal.result("after")
    assert out.getvalue() == "during\nafter\n"


def test_a_full_pipe_holds_the_writing_thread_and_nobody_else() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"." * 4096)
        os.set_blocking(writing, True)
        terminal = Terminal(out=stream, err=stream)
        began = time.monotonic()
        with terminal.detached():
            speak(terminal)
            assert took_s(began) < 1
            reader = threading.Thread(target=_read_all, args=(reading, b"the result\n"))
            reader.start()
        reader.join(timeout=10)
        assert not reader.is_alive(), "all of it was read"
    os.close(reading)


def _read_all(reading: int, last: bytes) -> None:
    seen = b""
    while last not in seen:
        seen = seen[-100:] + os.read(reading, 4096)
