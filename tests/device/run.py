"""Runs upstream's device tests with the plugin, and sums up in one line.

    python -m tests.device.run --floor NUMBER [PYTEST ARGUMENT]...

Run in the folder that holds them, by scripts/device-tests. Fails when a test fails or fewer than
the floor pass.
"""

import argparse
import re
import sys
from collections import Counter

import pytest

from tests.device import software_key


class Tally:
    """Counts outcomes, and why tests were skipped."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self.outcomes["skipped"] += 1
            assert isinstance(report.longrepr, tuple)
            self.reasons[_reason(report.longrepr[2])] += 1
        elif report.when == "call":
            self.outcomes[report.outcome] += 1
        elif report.failed:
            self.outcomes["errors"] += 1

    @property
    def line(self) -> str:
        counts = {name: self.outcomes[name] for name in ("passed", "skipped", "failed", "errors")}
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        reasons = "; ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
        return f"device tests: {said}" + (f" (skipped: {reasons})" if reasons else "")


def _reason(text: str) -> str:
    reason = text.removeprefix("Skipped: ")
    return re.sub(r"^Algorithms? .* not supported$", "algorithms other than ES256", reason)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--floor", type=int, required=True)
    options, rest = parser.parse_known_args()
    tally = Tally()
    arguments = ["-q", "--no-header", "-p", "no:randomly", "-p", "no:cacheprovider"]
    code = pytest.main([*arguments, *rest], plugins=[software_key, tally])
    print(tally.line)
    if tally.outcomes["passed"] < options.floor:
        print(f"fewer than the {options.floor} that passed before", file=sys.stderr)
        return 1
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
