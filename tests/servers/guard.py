"""Ends what a test process started, when that process dies without doing so itself.

Runs as a program of its own (standard library only). Reads lines from its standard input:
`+PID` and `-PID` for a process to end, `!NAME ARGUMENT` for what to run after that (a JSON list),
`?NAME` to forget it. When the input ends, it kills and runs what is left.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys


def main() -> None:
    """Follow the input to its end, then clear up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pids: dict[str, None] = {}
    last: dict[str, list[str]] = {}
    for raw in sys.stdin:
        kind, line = raw[0], raw[1:].rstrip("\n")
        if kind == "+":
            pids[line] = None
        elif kind == "-":
            pids.pop(line, None)
        elif kind == "!":
            name, _, command = line.partition(" ")
            last[name] = json.loads(command)
        elif kind == "?":
            last.pop(line, None)
    for pid in reversed(pids):
        with contextlib.suppress(OSError):
            os.killpg(int(pid), signal.SIGKILL)
    for command in reversed(last.values()):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, check=False, timeout=30)


if __name__ == "__main__":
    main()
