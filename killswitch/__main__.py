"""The program: runs one command and ends, even when a call to an outside system never returns."""

import contextlib
import os
import sys


def main() -> None:
    """Run `killswitch` with the arguments of this process."""
    from killswitch.cli.app import main as run  # noqa: PLC0415 (nothing may run before `main`)

    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody reads it any more
            stream.flush()
    # A stuck call lives in a daemon thread, but interpreters wait for some libraries' threads at
    # exit. The journal is durable by now: leave.
    os._exit(code)


if __name__ == "__main__":
    main()
