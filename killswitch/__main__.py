"""The program: runs one command and ends, even when a call to an outside system never returns."""

import os
import sys


def main() -> None:
    """Run `killswitch` with the arguments of this process."""
    from killswitch.cli.app import main as run  # noqa: PLC0415 (a failure here is told below)

    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # whoever read it is gone
    # A stuck call lives in a daemon thread, but interpreters wait for some libraries' threads at
    # exit. The journal is durable by now: leave.
    os._exit(code)


if __name__ == "__main__":
    main()
