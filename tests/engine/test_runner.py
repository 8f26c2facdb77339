"""The runner: real threads, the wall clock and real signals, over services that keep state."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from killswitch.converge import Limits
from killswitch.errors import GarbledError, RefusedError, UnreachableError
from killswitch.halt import Assignment, carry_out
from killswitch.model import Action, Clear, HaltReport, Outcome, Plan, Receipt, Step, StepResult
from killswitch.runner import Runner
from tests.engine.simulator import make_assignment

ROOT = Path(__file__).parents[2]
QUICK = Limits(
    deadline_s=5,
    wrap_up_s=1,
    intent_s=0.2,
    look_s=0.4,
    act_s=0.4,
    phase_s=0.3,
    patience_s=0.3,
    stay_down_s=0.02,
    first_pause_s=0.01,
    longest_pause_s=0.05,
)
MISTAKES: Final = {
    "refuses": RefusedError("403: not allowed"),
    "unreachable": UnreachableError("connection refused"),
    "garbled": GarbledError("not JSON"),
    "a bug": KeyError("retCode"),
}
BROKEN: Final = (*MISTAKES, "deaf", "hangs", "not seen")
HEALTHY: Final = ("well", "slow", "lost once", "reply lost once", "ended before")


@dataclass
class Service:
    """One live thing, and how its system answers; it is its own step."""

    system: str
    style: str = "well"
    during: Callable[[], None] | None = None
    """Called within each request, as by something else that happens meanwhile."""
    release: threading.Event = field(default_factory=threading.Event)
    """Lets a hanging request go, when the test is over."""
    name: str = "service"
    evidence: bool = False
    live: bool = True
    requests: int = 0
    looks: int = 0

    def __post_init__(self) -> None:
        if self.style == "ended before":
            self.live = False

    def plan(self) -> Plan:
        self.looks += 1
        if self.style == "not seen":
            raise UnreachableError("connection refused")
        if not self.live:
            return Plan(clear=(Clear("thing", "gone"),))
        return Plan(live=(Action("end", "thing", perform=self.end, rehearse=self.end),))

    def end(self) -> Receipt:
        self.requests += 1
        if self.during is not None:
            self.during()
        if self.style == "hangs":
            self.release.wait(30)
            raise UnreachableError("gave up")
        if self.style in MISTAKES:
            raise MISTAKES[self.style]
        lost = self.requests == 1 and self.style.startswith(("lost", "reply lost"))
        if self.style == "slow":
            time.sleep(0.05)
        self.live = self.style == "deaf" or (lost and self.style == "lost once")
        if lost:
            raise UnreachableError("connection cut")
        return Receipt("200")


Make = Callable[..., Service]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Service] = []

    def make(*args: object, **kwargs: object) -> Service:
        made.append(Service(*args, **kwargs))  # type: ignore[arg-type]  # handed through
        return made[-1]

    yield make
    for service in made:
        service.release.set()


def run(
    runner: Runner, *steps: Step, limits: Limits = QUICK, assignment: Assignment | None = None
) -> HaltReport:
    job = assignment or make_assignment(steps)
    with runner.listening():
        return runner.run(lambda now: carry_out(job, limits, now))


def told(report: HaltReport, system: str) -> StepResult:
    (result,) = [each for each in report.results if each.system == system]
    return result


# What becomes of each.


@given(styles=st.lists(st.sampled_from(BROKEN + HEALTHY), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_exactly_the_broken_services_stay_live(styles: list[str]) -> None:
    services = [Service(f"s{number}", style) for number, style in enumerate(styles)]
    try:
        report = run(Runner(), *services)
    finally:
        for service in services:
            service.release.set()
    for service in services:
        broken = service.style in BROKEN
        assert service.live is broken, service.style
        assert told(report, service.system).outcome.ended is not broken, service.style
    assert report.halted is not any(style in BROKEN for style in styles)


@pytest.mark.parametrize(
    ("style", "outcome", "words"),
    [
        ("well", Outcome.VERIFIED, "gone"),
        ("ended before", Outcome.ALREADY, "gone"),
        ("refuses", Outcome.FAILED, "403: not allowed"),
        ("a bug", Outcome.FAILED, "unexpected KeyError in killswitch itself"),
        ("hangs", Outcome.FAILED, "no answer within 0.4 s"),
        ("not seen", Outcome.FAILED, "connection refused"),
    ],
)
def test_each_is_told_as_what_it_is(make: Make, style: str, outcome: Outcome, words: str) -> None:
    report = run(Runner(), make("s", style))
    (target,) = told(report, "s").targets
    assert target.outcome is outcome
    assert words in target.saw


def test_a_hung_call_costs_its_budget_and_holds_up_nobody(make: Make) -> None:
    hung, well = make("hung", "hangs"), make("well")
    began = time.monotonic()
    report = run(Runner(), hung, well)
    assert time.monotonic() - began < 3
    assert report.elapsed_s < 3
    assert not report.halted
    assert hung.live
    assert told(report, "well").outcome is Outcome.VERIFIED
    assert told(report, "well").ended_s < 1


def test_a_call_that_never_returns_ends_with_the_deadline(make: Make) -> None:
    limits = replace(QUICK, deadline_s=0.6, wrap_up_s=0.1, act_s=30, patience_s=30)
    began = time.monotonic()
    report = run(Runner(), make("hung", "hangs"), limits=limits)
    assert 0.4 < time.monotonic() - began < 2
    assert not report.halted
    # That it was begun is in the report: a later run may have to know it.
    [target] = told(report, "hung").targets
    assert [attempt.error[:16] for attempt in target.attempts] == ["no answer within"]


def test_steps_run_side_by_side(make: Make) -> None:
    together = threading.Barrier(5)
    services = [make(f"s{n}", during=lambda: void(together.wait(5))) for n in range(5)]
    assert run(Runner(), *services).halted


def void(_value: object) -> None:
    """Drop a value where a callback returns none."""


def test_when_no_thread_can_be_started_it_still_reports(make: Make) -> None:
    service = make("s")
    threading.stack_size(1 << 47)  # more than any address space
    try:
        report = run(Runner(), service)
    finally:
        threading.stack_size(0)
    assert not report.halted
    assert service.live
    assert told(report, "s").error == "unexpected RuntimeError in killswitch itself"


# Ctrl-C.


def test_once_means_no_more_attempts_and_still_a_second_look(make: Make) -> None:
    runner = Runner()
    service = make("s", during=runner.interrupt)
    report = run(runner, service, limits=replace(QUICK, stay_down_s=0.2))
    assert report.halted
    assert service.requests == 1
    assert service.looks >= 3, "before, after, and again after the pause"
    assert report.elapsed_s >= 0.2


def test_once_ends_the_attempts_on_what_does_not_end(make: Make) -> None:
    runner = Runner()
    service = make("s", "deaf")
    service.during = lambda: runner.interrupt() if service.requests == 1 else None
    began = time.monotonic()
    report = run(runner, service, limits=replace(QUICK, deadline_s=30, patience_s=20))
    assert time.monotonic() - began < 2
    assert not report.halted
    assert told(report, "s").left_live
    assert service.requests == 1


def test_twice_means_leave_now_but_leave_a_record(make: Make) -> None:
    runner = Runner()

    def twice() -> None:
        runner.interrupt()
        runner.interrupt()

    hung, well = make("hung", "hangs", during=twice), make("well")
    record = make("completed", name="journal", evidence=True)
    assignment = replace(make_assignment((hung, well)), conclude=lambda _: [record])
    began = time.monotonic()
    limits = replace(QUICK, deadline_s=30, look_s=20, act_s=20, stay_down_s=20)
    report = run(runner, assignment=assignment, limits=limits)
    assert time.monotonic() - began < 2
    assert not report.halted
    assert not record.live, "what was done is written down"


def test_more_than_twice_is_twice(make: Make) -> None:
    runner = Runner()
    for _ in range(5):
        runner.interrupt()
    assert not run(runner, make("s")).halted


# Signals.


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_is_a_ctrl_c_and_the_old_handlers_come_back(make: Make, name: str) -> None:
    number = signal.Signals[name]
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    service = make("s", "deaf")
    service.during = lambda: os.kill(os.getpid(), number) if service.requests == 1 else None
    report = run(Runner(), service, limits=replace(QUICK, deadline_s=30, patience_s=20))
    assert not report.halted
    assert report.elapsed_s < 5
    after = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before


HANGING_UP = """
import os, signal, sys
sys.path.insert(0, ".")
from killswitch.runner import Runner
from tests.engine.test_runner import Service, run
def hang_up():
    os.kill(os.getpid(), signal.SIGHUP)
report = run(Runner(), Service("s", during=hang_up))
print("halted" if report.halted else "not halted", flush=True)
if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
    os.kill(os.getpid(), signal.SIGHUP)
print("still here")
"""


def test_a_terminal_that_closes_does_not_stop_a_halt() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGING_UP],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout == "halted\n", done.stderr
    assert done.returncode == -signal.SIGHUP, "and afterwards it is as before"


def test_a_run_in_another_thread_leaves_the_signals_alone(make: Make) -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []
    reports: list[HaltReport] = []
    service = make("s", during=lambda: seen.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=lambda: reports.append(run(Runner(), service)))
    thread.start()
    thread.join(10)
    assert [report.halted for report in reports] == [True]
    assert seen == [before]


# The screen.


def test_results_are_shown_while_it_goes_on_and_not_too_often(make: Make) -> None:
    shown: list[tuple[float, tuple[StepResult, ...]]] = []
    runner = Runner(show=lambda results: shown.append((time.monotonic(), results)))
    report = run(runner, make("s"), limits=replace(QUICK, stay_down_s=0.5))
    assert report.halted
    assert 3 <= len(shown) <= 8
    times = [moment for moment, _ in shown]
    assert all(later - sooner >= 0.09 for sooner, later in itertools.pairwise(times))
    assert all(result.system == "s" for _, results in shown for result in results)
    assert any(results for _, results in shown)


@pytest.mark.parametrize("mistake", [OSError("no terminal"), KeyError("a bug"), ValueError("io")])
def test_a_broken_screen_does_not_stop_a_halt(make: Make, mistake: Exception) -> None:
    drawn: list[int] = []

    def show(results: tuple[StepResult, ...]) -> None:
        drawn.append(len(results))
        raise mistake

    assert run(Runner(show=show), make("s"), limits=replace(QUICK, stay_down_s=0.3)).halted
    assert len(drawn) >= 2, "it is tried again: a screen may come back"
