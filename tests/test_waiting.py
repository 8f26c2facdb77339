"""Waiting for a call, but not for ever."""

import threading
import time

import pytest

from killswitch.errors import UnreachableError
from killswitch.waiting import within


def test_an_answer_in_time_is_returned_and_an_error_raised() -> None:
    assert within(5, "the journal", lambda: 7) == 7

    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        within(5, "the journal", fail)


def test_a_call_that_hangs_is_not_waited_for() -> None:
    release = threading.Event()
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"the journal: no answer within 0\.1 s"):
        within(0.1, "the journal", release.wait)
    assert time.monotonic() - began < 5
    release.set()
