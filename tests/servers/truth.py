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
        self._known: set[str] = set()
        self._names: dict[str, tuple[str, str]] = {}

    def run(self) -> None:
        """Look and tell, for ever."""
        while True:
            for descriptor, _ in self._poll.poll(POLL_MS):
                uid, pid = self._followed.pop(descriptor)
                self._poll.unregister(descriptor)
                os.close(descriptor)
                self._tell(uid, pid, "exited")
            for uid, container in self._containers():
                if container not in self._known:
                    self._meet(uid, container)

    def _containers(self) -> list[tuple[str, str]]:
        found = []
        for part in ("kubepods", "kubepods/burstable", "kubepods/besteffort"):
            for pod in _folders(f"{self._cgroup}/{part}"):
                named = _POD.search(pod)
                if named:
                    found += [(named[1], container) for container in _folders(pod)]
        return found

    def _meet(self, uid: str, container: str) -> None:
        try:
            pids = [int(line) for line in Path(container, "cgroup.procs").read_text().split()]
            first = next((pid for pid in pids if _is_first(pid)), None)
            if first is None:
                return
            descriptor = os.pidfd_open(first)
            command = Path(f"/proc/{first}/cmdline").read_bytes()
        except OSError:
            return
        if command.split(b"\0")[:2] in ([b"runc", b"init"], [b""]):
            os.close(descriptor)  # not the container's own program yet
            return
        self._known.add(container)
        if self._pause in command:
            os.close(descriptor)
            return
        self._followed[descriptor] = (uid, first)
        self._poll.register(descriptor, select.POLLIN)
        self._tell(uid, first, "started")

    def _tell(self, uid: str, pid: int, event: str) -> None:
        namespace, pod = self._name(uid)
        line = {"t": time.time(), "namespace": namespace, "pod": pod, "uid": uid, "event": event}
        self._out.write(json.dumps(line | {"pid": pid}) + "\n")

    def _name(self, uid: str) -> tuple[str, str]:
        for folder in self._logs.iterdir():
            namespace, pod, found = (*folder.name.split("_"), "", "")[:3]
            self._names[found] = (namespace, pod)
        return self._names.get(uid, ("", ""))


def _folders(path: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(path) if entry.is_dir()]
    except OSError:
        return []


def _is_first(pid: int) -> bool:
    """Whether this is process 1 of its own container."""
    status = Path(f"/proc/{pid}/status").read_text()
    return re.search(r"^NSpid:.*\s1$", status, re.MULTILINE) is not None


def main() -> None:
    """Watch until killed."""
    cgroup, logs, out, pause = sys.argv[1:5]
    with Path(out).open("a", buffering=1) as file:
        Watcher(Path(cgroup), Path(logs), file, pause.encode()).run()


if __name__ == "__main__":
    main()
