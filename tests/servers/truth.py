"""Says from outside when the processes of a node's pods start and end (cgroups and pidfd).

Runs as a program of its own (standard library only): truth.py CGROUP LOGS OUT PAUSE. Looks for the
first process of every container below the folder CGROUP of one hierarchy, learns names from the
kubelet's folder LOGS, and appends JSON lines to OUT. Processes with PAUSE in their command line
are sandboxes and not told.
"""

import json
import os
import re
import select
import sys
import time
from pathlib import Path
from typing import TextIO

POLL_MS = 20
_POD = re.compile(r"pod([0-9a-f]{8}-[0-9a-f-]{27})$")


class Watcher:
    """Follows the first process of each container."""

    def __init__(self, cgroup: Path, logs: Path, out: TextIO, pause: bytes) -> None:
        self._cgroup, self._logs, self._out, self._pause = cgroup, logs, out, pause
        self._poll = select.poll()
        self._followed: dict[int, tuple[str, int]] = {}
        self._seen: set[tuple[str, int]] = set()
        self._names: dict[str, tuple[str, str]] = {}

    def run(self) -> None:
        """Look and tell, for ever."""
        while True:
            for descriptor, _ in self._poll.poll(POLL_MS):
                uid, pid = self._followed.pop(descriptor)
                self._poll.unregister(descriptor)
                os.close(descriptor)
                self._seen.discard((uid, pid))
                self._tell(uid, pid, "exited")
            for uid, pid in self._first_processes():
                if (uid, pid) not in self._seen:
                    self._meet(uid, pid)

    def _first_processes(self) -> list[tuple[str, int]]:
        found = []
        for folder, inner, files in os.walk(self._cgroup):
            pod = _POD.search(str(Path(folder).parent))
            if pod and "cgroup.procs" in files:
                inner.clear()
                try:
                    lines = Path(folder, "cgroup.procs").read_text().split()
                except OSError:
                    continue
                found += [(pod[1], int(line)) for line in lines]
        return found

    def _meet(self, uid: str, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        inner = re.search(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE)
        if command.split(b"\0")[:2] in ([b"runc", b"init"], [b""]) or not inner:
            os.close(descriptor)  # not the container's own program yet
            return
        self._seen.add((uid, pid))
        if inner[1] != "1" or self._pause in command:
            os.close(descriptor)
            return
        self._followed[descriptor] = (uid, pid)
        self._poll.register(descriptor, select.POLLIN)
        self._tell(uid, pid, "started")

    def _tell(self, uid: str, pid: int, event: str) -> None:
        namespace, pod = self._name(uid)
        line = {"t": time.time(), "namespace": namespace, "pod": pod, "uid": uid, "event": event}
        self._out.write(json.dumps(line | {"pid": pid}) + "\n")

    def _name(self, uid: str) -> tuple[str, str]:
        for folder in self._logs.iterdir():
            namespace, pod, found = (*folder.name.split("_"), "", "")[:3]
            self._names[found] = (namespace, pod)
        return self._names.get(uid, ("", ""))


def main() -> None:
    """Watch until killed."""
    cgroup, logs, out, pause = sys.argv[1:5]
    with Path(out).open("a", buffering=1) as file:
        Watcher(Path(cgroup), Path(logs), file, pause.encode()).run()


if __name__ == "__main__":
    main()
