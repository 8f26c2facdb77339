"""What every test has: no secret of another test is known to it."""

from collections.abc import Iterator

import pytest

from killswitch import secret


@pytest.fixture(autouse=True)
def no_secret_is_known() -> Iterator[None]:
    before = set(secret._known)
    yield
    secret._known.clear()
    secret._known.update(before)
