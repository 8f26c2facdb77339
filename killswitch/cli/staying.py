"""After the report: the process stays while a call runs that must not be cut off."""

from killswitch.cli.terminal import Terminal
from killswitch.runner import Runner
from killswitch.unfinished import LONGEST_S, UNFINISHED, Call, Unfinished, outlast


def stay_for_unfinished(
    terminal: Terminal,
    word: str,
    runner: Runner,
    *,
    unfinished: Unfinished = UNFINISHED,
    longest_s: float = LONGEST_S,
) -> None:
    """Wait for what is under way, say once what that is, and how it ended; Ctrl-C leaves.

    It changes nothing about the report or the exit code.
    """
    calls = unfinished.under_way()
    for call in calls:
        terminal.ask(word, f"{call.told}; leave this window open (Ctrl-C ends it half done)")
    presses = runner.presses
    outlast(calls, longest_s, lambda: runner.presses != presses)
    for call in calls:
        terminal.ask(word, _ending(call))


def _ending(call: Call) -> str:
    if not call.done.is_set():
        return f"?? left behind after {call.took_s:.0f} s: {call.told}; running it again repairs it"
    if call.error is not None:
        return f"?? it broke off: {call.error}; running it again repairs it"
    return f"ok it was answered after {call.took_s:.0f} s; running it again verifies it"
