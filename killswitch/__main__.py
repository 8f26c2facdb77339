"""The program: runs one command and ends, even when a call to an outside system never returns."""

import contextlib
import os
import sys
import threading


def main() -> None:
    """Run `killswitch` with the arguments of this process."""
    from killswitch.cli.app import main as run  # noqa: PLC0415 (nothing may run before `main`)

    code = run(sys.argv[1:])
    # A screen that is held (Ctrl-S, a full pipe) would hold us here, and so would a stuck call in
    # a library's own thread. The journal is durable by now: leave.
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(timeout=1)
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # nobody reads it any more
            stream.flush()


if __name__ == "__main__":
    main()
