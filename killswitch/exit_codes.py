"""What the exit code says; one table for the program, the help and the documentation."""

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from killswitch.model import HaltReport


class ExitCode(IntEnum):
    """Every code killswitch ends with; the numbers between are reserved."""

    OK = 0
    BUG = 1
    USAGE = 2
    NOT_AUTHORISED = 3
    CONFIGURATION = 4
    EVIDENCE_DEGRADED = 5
    JOURNAL_TAMPERED = 6
    ANCHORS_PENDING = 7
    NOT_READY = 8
    NOT_ALL_VERIFIED = 10
    STILL_LIVE = 11
    ABORTED = 130

    @property
    def meaning(self) -> str:
        """One line for people."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "halted and verified; drill passed; status armed",
    ExitCode.BUG: "a bug in killswitch; a file with the details is named",
    ExitCode.USAGE: "the command line makes no sense; nothing was done",
    ExitCode.NOT_AUTHORISED: "no valid touch: nothing was done",
    ExitCode.CONFIGURATION: "the configuration cannot be used: nothing was done",
    ExitCode.EVIDENCE_DEGRADED: "halted and verified, but the record or an alert is missing",
    ExitCode.JOURNAL_TAMPERED: "the journal was changed or cut off",
    ExitCode.ANCHORS_PENDING: "the journal is intact, its newest events are not yet anchored",
    ExitCode.NOT_READY: "status: a halt would not work as it should; drill: it did not pass",
    ExitCode.NOT_ALL_VERIFIED: "everything was sent, not everything was read back",
    ExitCode.STILL_LIVE: "something is still live, or could not be reached",
    ExitCode.ABORTED: "stopped before the touch: nothing was done",
}


def exit_code(report: "HaltReport") -> ExitCode:
    """Return the code that says what `report` says; a function of the report and nothing else."""
    from killswitch.model import Mode, Outcome  # noqa: PLC0415 (the first line must not wait)

    if report.order.mode is Mode.DRILL:
        return ExitCode.OK if report.passed else ExitCode.NOT_READY
    if report.halted:
        return ExitCode.EVIDENCE_DEGRADED if report.degraded else ExitCode.OK
    outcomes = {result.outcome for result in report.results if not result.evidence}
    # Unknown is what was never seen or never answered: nothing says that it was sent.
    if outcomes & {Outcome.FAILED, Outcome.UNKNOWN, Outcome.SKIPPED} or not outcomes:
        return ExitCode.STILL_LIVE
    live = any(result.left_live for result in report.results if not result.evidence)
    return ExitCode.STILL_LIVE if live else ExitCode.NOT_ALL_VERIFIED
