"""What every test has: no secret of another test is known to it; and what tests tell at the end."""

from collections.abc import Iterator

import pytest

from killswitch import secret

pytest_plugins = ["tests.servers.fixtures"]


@pytest.fixture(autouse=True)
def no_secret_is_known() -> Iterator[None]:
    before = set(secret._known)
    yield
    secret._known.clear()
    secret._known.update(before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as "told", also from another process."""
    reports = [one for found in terminalreporter.stats.values() for one in found]
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == "told" and report.when == "call":
                terminalreporter.write_line(str(value))
