"""Every failure that killswitch expects, in two families.

KillswitchError            ends the command: what broke, what it changed, what to do next
├── UsageError             exit 2
├── NotAuthorizedError     exit 3, nothing was done
├── ConfigError            exit 4, nothing was done
└── AbortedError           exit 130, nothing was done

VendorError                one call to an outside system failed; the engine decides what follows
├── UnreachableError       no usable answer: it may or may not have been done, try again
├── RefusedError           the system said no and will say no again
└── GarbledError           an answer that cannot be understood: try again, never guess
"""

from typing import ClassVar

NOTHING_DONE = "nothing was revoked; trading is still live"


class KillswitchError(Exception):
    """An expected failure that ends the command.

    Args:
        problem: what broke, one line, lower case, no final stop.
        effect: what it changed.
        hint: what to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, *, effect: str = NOTHING_DONE, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.effect = effect
        self.hint = hint


class UsageError(KillswitchError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class NotAuthorizedError(KillswitchError):
    """No valid touch of an enrolled key on this very order."""

    exit_code = 3


class ConfigError(KillswitchError):
    """The configuration cannot be used as a whole."""

    exit_code = 4


class AbortedError(KillswitchError):
    """The operator stopped before the touch."""

    exit_code = 130


class VendorError(Exception):
    """One call to an outside system failed.

    Args:
        problem: what the system answered or did not answer, one line, without any secret.
    """

    lasting: ClassVar[bool] = False
    """True when trying the same call again cannot help."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class UnreachableError(VendorError):
    """No usable answer (refused, timed out, cut off, 429, 5xx): it may have been done or not."""


class RefusedError(VendorError):
    """The system answered no and will answer no again (401, 403, a wrong key, a missing right)."""

    lasting = True


class GarbledError(VendorError):
    """The answer cannot be understood: not JSON, cut off, too large, of another shape."""
