"""Takes away what a node leaves behind: shims, mounts, cgroups, its bridge, changed settings.

Standard library only, because it also runs as a program of its own when the tests were killed:
node_cleanup.py FOLDER NAME.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# What the kubelet changes on the whole machine.
SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
SHARED = Path("/run/killswitch-test-nodes")


def clean(folder: Path, name: str) -> None:
    """End what is left of the node `name` whose files are in `folder`; safe to repeat."""
    for pid in _shims(folder):
        for child in _children(pid):
            _kill(child)
        _kill(pid)
    for group in cgroups(name):
        for path in _tree(group):
            _kill_group(path)
    _wait_until_empty(name)
    for mount in sorted(_mounts(folder), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
    subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
    for group in cgroups(name):
        _remove(group)


def save_settings() -> int:
    """Note the machine's settings before the first node changes them; return the shared lock."""
    SHARED.mkdir(exist_ok=True)
    lock = os.open(SHARED / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _restore()
        for setting in SETTINGS:
            value = Path("/proc/sys", setting)
            if value.exists():
                (SHARED / setting.replace("/", ".")).write_text(value.read_text())
    except BlockingIOError:
        pass  # another node runs, and noted them before it changed them
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def restore_settings(lock: int | None = None) -> None:
    """Set them back if no other node of this machine runs any more; release the lock."""
    SHARED.mkdir(exist_ok=True)
    held = lock if lock is not None else os.open(SHARED / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _restore()
    os.close(held)


def _restore() -> None:
    for setting in SETTINGS:
        noted = SHARED / setting.replace("/", ".")
        if noted.exists():
            with contextlib.suppress(OSError):
                Path("/proc/sys", setting).write_text(noted.read_text())
            noted.unlink()


def hierarchies() -> list[Path]:
    """Return where cgroups are used: one folder (version 2), or one for each controller."""
    return _mounted("cgroup") or _mounted("cgroup2")


def cgroups(name: str) -> list[Path]:
    """Return the node's own cgroups that exist; runc makes one in every hierarchy."""
    mounted = (*_mounted("cgroup"), *_mounted("cgroup2"))
    return [path / name for path in mounted if (path / name).is_dir()]


def _mounted(kind: str) -> list[Path]:
    rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(row[1]) for row in rows if row[2] == kind]


def _shims(folder: Path) -> Iterator[int]:
    socket = str(folder / "run/containerd.sock").encode()
    for pid in _pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and socket in words:
                yield pid


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def _kill_group(group: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (group / "cgroup.procs").read_text().split():
            _kill(int(pid))


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _wait_until_empty(name: str) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not any(_members(group) for group in cgroups(name)):
            return
        time.sleep(0.02)


def _members(group: Path) -> bool:
    for path in _tree(group):
        with contextlib.suppress(OSError):
            if path.is_dir() and (path / "cgroup.procs").read_text().strip():
                return True
    return False


def _tree(group: Path) -> list[Path]:
    """Return a group and all below it; `rglob` fails when groups come and go meanwhile."""
    return [Path(inner) for inner, _, _ in os.walk(group)]


def _mounts(folder: Path) -> list[str]:
    rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [row[1] for row in rows if row[1].startswith(f"{folder}/")]


def _remove(group: Path) -> None:
    for inner, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(inner).rmdir()


if __name__ == "__main__":
    clean(Path(sys.argv[1]), sys.argv[2])
    restore_settings()
