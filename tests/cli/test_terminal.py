"""The voice of the tool: what it prints, how wide, and that it never stops a run."""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import product

import pytest

from killswitch.answer import Line
from killswitch.cli.progress import LineProgress, LiveProgress
from killswitch.cli.terminal import Terminal
from killswitch.errors import ConfigError
from killswitch.model import Outcome, StepResult, TargetResult
from killswitch.secret import MASK, Secret

MODES = ["LIVE", "DRILL", "SANDBOX"]
PASSWORD = "correct-horse-battery-staple"


class Screen(io.StringIO):
    """A terminal that keeps what was written on it."""

    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, _text: str, /) -> int:
        raise BrokenPipeError(32, "Broken pipe")


class BrokenScreen(Screen, Broken):
    """A terminal that has gone."""


class ClosedScreen(Screen):
    """A terminal whose file was closed; it still says that it is one."""

    def __init__(self) -> None:
        super().__init__()
        self.close()


class Full(io.StringIO):
    """A file that takes text, on a disk that is full."""

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


class Heard:
    """A terminal on two plain files, and what was written to them."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._out = io.StringIO()
        self._err = io.StringIO()
        self.terminal = Terminal(
            quiet=quiet, as_json=as_json, colour=False, out=self._out, err=self._err
        )

    @property
    def out(self) -> list[str]:
        return self._out.getvalue().splitlines()

    @property
    def err(self) -> list[str]:
        return self._err.getvalue().splitlines()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


def result(outcome: Outcome, *, system: str = "main", saw: str = "as it was seen") -> StepResult:
    return StepResult(
        step="kubernetes",
        system=system,
        evidence=False,
        outcome=outcome,
        targets=(TargetResult("key 1", outcome, saw, live=not outcome.ended),),
        error="",
        notes=(),
        looks=2,
        started_s=0.0,
        ended_s=1.5,
        verified_s=1.2 if outcome.good else None,
    )


def speak(terminal: Terminal) -> None:
    """Say everything that a terminal can say."""
    terminal.say("LIVE", "a line — with a dash…")
    terminal.say("LIVE")
    terminal.ask("LIVE", "touch the key…")
    terminal.hint("do this…")
    terminal.result("the result…")
    terminal.verdict("HALTED  verified…", good=True)
    terminal.lines([Line("live", "a key…", "delete it…")])
    terminal.document({"halted": "…"})
    terminal.error(ConfigError("it is broken…", hint="mend it…"))
    terminal.step_line("LIVE", "bybit", Outcome.FAILED, "no answer…" * 9, 1.0)
    progress = terminal.progress("LIVE")
    with progress.shown():
        progress.show([result(Outcome.VERIFIED), result(Outcome.FAILED, system="other")])


# The lines of the answer.


def test_no_lines_print_nothing(heard: Heard) -> None:
    heard.terminal.lines([])
    assert heard.out == []


def test_a_label_and_a_hint_are_said_once_for_lines_that_share_them(heard: Heard) -> None:
    heard.terminal.lines(
        [
            Line("live", "key 1", "delete them"),
            Line("live", "key 2", "delete them"),
            Line("live", "key 3", "call the desk"),
            Line("evidence", "no journal"),
        ]
    )
    assert heard.out == [
        " live         key 1",
        "              key 2",
        "              delete them",
        "              key 3",
        "              call the desk",
        " evidence     no journal",
    ]


def test_a_hint_is_said_again_when_another_line_stood_between(heard: Heard) -> None:
    heard.terminal.lines([Line("a", "1", "do"), Line("b", "2"), Line("c", "3", "do")])
    assert [line.strip() for line in heard.out].count("do") == 2


def test_long_text_is_folded_at_80_columns(heard: Heard) -> None:
    words = " ".join(f"word-{number}" for number in range(40))
    heard.terminal.lines([Line("live", words)])
    assert len(heard.out) > 3
    assert all(len(line) <= 80 for line in heard.out)
    assert heard.out[0].startswith(" live         word-0 word-1")
    assert all(line.startswith(" " * 14 + "word-") for line in heard.out[1:])
    assert " ".join("".join(heard.out).split()).removeprefix("live ") == words


def test_what_is_copied_and_pasted_is_never_cut(heard: Heard) -> None:
    url = "https://host.example/" + "a-long-path/" * 9
    heard.terminal.lines([Line("by hand", f"open {url} and look")])
    assert url in "\n".join(heard.out)


def test_a_json_run_prints_one_document_and_nothing_else_as_its_result() -> None:
    heard = Heard(as_json=True)
    speak(heard.terminal)
    assert json.loads("\n".join(heard.out)) == {"halted": "…"}


# Nobody listens.


@contextlib.contextmanager
def _closed() -> Iterator[Terminal]:
    stream = io.StringIO()
    stream.close()
    yield Terminal(out=stream, err=stream)


@contextlib.contextmanager
def _none() -> Iterator[Terminal]:
    with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        yield Terminal()


@contextlib.contextmanager
def _broken_pipe() -> Iterator[Terminal]:
    yield Terminal(out=Broken(), err=Broken())


@contextlib.contextmanager
def _full_disk() -> Iterator[Terminal]:
    yield Terminal(out=Full(), err=Full())


@contextlib.contextmanager
def _ascii_only() -> Iterator[Terminal]:
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stream:
        yield Terminal(out=stream, err=stream)


@pytest.mark.parametrize("streams", [_closed, _none, _broken_pipe, _full_disk, _ascii_only])
def test_a_stream_that_takes_nothing_stops_nothing(
    streams: Callable[[], contextlib.AbstractContextManager[Terminal]],
) -> None:
    with streams() as terminal:
        speak(terminal)
        assert not terminal.interactive


@pytest.mark.parametrize("gone", [BrokenScreen, ClosedScreen])
def test_a_screen_that_goes_away_while_it_is_drawn_on_stops_nothing(gone: type[Screen]) -> None:
    # Drawing may raise an Exception, which the runner drops, but nothing that ends the process:
    # rich turns a broken pipe into SystemExit.
    progress = Terminal(out=io.StringIO(), err=gone()).progress("LIVE")
    with progress.shown():
        for _ in range(2):
            with contextlib.suppress(Exception):
                progress.show([result(Outcome.VERIFIED)])


def test_a_stream_without_the_letters_still_gets_the_line() -> None:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii", newline="\n") as stream:
        Terminal(out=stream).result("halted — all…")
        assert raw.getvalue() == b"halted ? all?\n"


# Secrets.


def test_a_known_secret_is_masked_on_both_streams() -> None:
    Secret(PASSWORD)
    heard = Heard()
    text = f"it said {PASSWORD} twice"
    heard.terminal.say("LIVE", text)
    heard.terminal.ask("LIVE", text)
    heard.terminal.hint(text)
    heard.terminal.result(text)
    heard.terminal.verdict(f"HALTED  {text}", good=True)
    heard.terminal.lines([Line("live", text, text)])
    heard.terminal.error(ConfigError(text, effect=text, hint=text))
    said = heard.out + heard.err
    assert PASSWORD not in "\n".join(said)
    assert len([line for line in said if f"it said {MASK} twice" in line]) == 10


def test_a_known_secret_in_a_document_is_masked() -> None:
    Secret(PASSWORD)
    heard = Heard(as_json=True)
    heard.terminal.document({"said": PASSWORD})
    assert json.loads("\n".join(heard.out)) == {"said": MASK}


@pytest.mark.parametrize("before", [0, 12, 24, 33, 48])
def test_a_secret_that_does_not_fit_is_masked_before_it_is_cut(before: int) -> None:
    Secret(PASSWORD)
    heard = Heard()
    text = "x" * before + f" {PASSWORD} " + "y" * 60
    heard.terminal.step_line("LIVE", "vault", Outcome.FAILED, text, 1.0)
    (line,) = heard.err
    assert PASSWORD[:4] not in line
    block = heard.terminal.step_block("LIVE", [result(Outcome.FAILED, saw=text)], 1.0)
    assert PASSWORD[:4] not in block.plain


# Colour.


@pytest.mark.parametrize(
    ("environment", "on_screen", "in_file"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
    ],
)
def test_the_environment_decides_about_colour(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    *,
    on_screen: bool,
    in_file: bool,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for stream, coloured in ((Screen(), on_screen), (io.StringIO(), in_file)):
        Terminal(out=stream).verdict("HALTED  verified", good=True)
        assert ("\x1b[" in stream.getvalue()) is coloured


@pytest.mark.parametrize("colour", [True, False])
def test_being_told_about_colour_beats_the_environment(
    monkeypatch: pytest.MonkeyPatch, *, colour: bool
) -> None:
    monkeypatch.setenv("NO_COLOR" if colour else "FORCE_COLOR", "1")
    stream = io.StringIO()
    Terminal(colour=colour, err=stream).say("LIVE", "text")
    assert ("\x1b[" in stream.getvalue()) is colour


def test_colour_only_repeats_what_the_words_say() -> None:
    plain, coloured = io.StringIO(), io.StringIO()
    for stream, colour in ((plain, False), (coloured, True)):
        speak(Terminal(colour=colour, out=stream, err=stream))
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured.getvalue()) == plain.getvalue()


def test_a_dumb_terminal_is_not_drawn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Terminal(err=Screen()).interactive
    assert isinstance(Terminal(err=Screen()).progress("LIVE"), LiveProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert not Terminal(err=Screen()).interactive
    assert isinstance(Terminal(err=Screen()).progress("LIVE"), LineProgress)


# The steps.


@pytest.mark.parametrize(("mode", "outcome"), list(product(MODES, Outcome)))
def test_a_step_s_line_is_80_columns_wide(mode: str, outcome: Outcome) -> None:
    for text in ("", "short", "a long text " * 20, "two\nlines"):
        heard = Heard()
        heard.terminal.step_line(mode, "kubernetes", outcome, text, 12.3)
        (line,) = heard.err
        assert line.startswith(f"{mode}  ")
        assert f" {outcome.value} " in line
        assert line.endswith(" 12.3 s")
        assert len(line) == 80


@pytest.mark.parametrize(("mode", "outcome"), list(product(MODES, Outcome)))
def test_a_step_looks_the_same_in_place_and_line_by_line(mode: str, outcome: Outcome) -> None:
    heard = Heard()
    step = result(outcome)
    progress = LineProgress(heard.terminal, mode)
    with progress.shown():
        progress.show([step])
    block = heard.terminal.step_block(mode, [step], elapsed_s=1.5)
    assert heard.err == block.plain.splitlines()


def test_a_quiet_run_shows_no_progress_but_still_asks() -> None:
    heard = Heard(quiet=True)
    terminal = heard.terminal
    terminal.say("LIVE", "warming up")
    terminal.hint("a hint")
    progress = terminal.progress("LIVE")
    with progress.shown():
        progress.show([result(Outcome.VERIFIED), result(Outcome.FAILED)])
    assert heard.err == []
    terminal.ask("LIVE", "touch the key")
    terminal.result("HALTED")
    assert heard.err == ["LIVE  touch the key"]
    assert heard.out == ["HALTED"]


def shown(heard: Heard) -> list[str]:
    """Return the outcomes that were printed, in their order."""
    return [line.split()[2] for line in heard.err]


def test_a_step_is_printed_once_when_it_is_well(heard: Heard) -> None:
    progress = LineProgress(heard.terminal, "LIVE")
    with progress.shown():
        progress.show([result(Outcome.SENT)])
        assert heard.err == []
        for _ in range(3):
            progress.show([result(Outcome.VERIFIED)])
    assert shown(heard) == ["verified"]


def test_a_step_that_was_well_and_is_so_no_longer_is_printed_again(heard: Heard) -> None:
    progress = LineProgress(heard.terminal, "LIVE")
    with progress.shown():
        progress.show([result(Outcome.VERIFIED)])
        progress.show([result(Outcome.FAILED)])
        progress.show([result(Outcome.FAILED)])
        assert shown(heard) == ["verified", "failed"]
        progress.show([result(Outcome.VERIFIED)])
    assert shown(heard) == ["verified", "failed", "verified"]


def test_the_steps_that_never_became_well_are_printed_at_the_end(heard: Heard) -> None:
    progress = LineProgress(heard.terminal, "LIVE")
    with progress.shown():
        progress.show([result(Outcome.UNKNOWN, system="a"), result(Outcome.ALREADY, system="b")])
        progress.show([result(Outcome.FAILED, system="a"), result(Outcome.ALREADY, system="b")])
        assert shown(heard) == ["already"]
    assert shown(heard) == ["already", "failed"]


def test_two_systems_of_one_kind_are_two_steps(heard: Heard) -> None:
    progress = LineProgress(heard.terminal, "LIVE")
    with progress.shown():
        progress.show([result(Outcome.VERIFIED, system="a"), result(Outcome.VERIFIED, system="b")])
    assert shown(heard) == ["verified", "verified"]


def test_what_was_drawn_last_stays_on_the_screen() -> None:
    screen = Screen()
    progress = Terminal(err=screen, colour=False).progress("LIVE")
    with progress.shown():
        progress.show([result(Outcome.SENT, system="a")])
        progress.show([result(Outcome.VERIFIED, system="a")])
    assert screen.getvalue().rindex("verified") > screen.getvalue().rindex("sent")
