"""A container image made here from busybox, because no registry is asked."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from tests.servers.pods import ABRUPT_IMAGE, IMAGE

BUSYBOX = Path("/bin/busybox")
# How the truth tells a pod's sandbox from its containers.
PAUSE = "killswitch-pause"
_WAIT = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"
_LINKS = (
    "sh",
    "sleep",
    "date",
    "cat",
    "kill",
    "ps",
    "ls",
    "touch",
    "test",
    "true",
    "wget",
    "nc",
    "env",
)


def static_busybox() -> Path | None:
    """Return the busybox that runs without libraries, if it is installed."""
    if not BUSYBOX.exists():
        return None
    dynamic = subprocess.run(["ldd", BUSYBOX], check=False, capture_output=True).returncode == 0
    return None if dynamic else BUSYBOX


def write_images(path: Path) -> None:
    """Write an archive with `IMAGE` and `ABRUPT_IMAGE` (its STOPSIGNAL is SIGKILL)."""
    layer = _layer()
    manifest = []
    with tarfile.open(path, "w") as archive:
        _add(archive, "layer.tar", layer)
        for number, (image, stop) in enumerate(((IMAGE, ""), (ABRUPT_IMAGE, "SIGKILL"))):
            _add(archive, f"config{number}.json", _config(layer, stop))
            manifest.append(
                {"Config": f"config{number}.json", "RepoTags": [image], "Layers": ["layer.tar"]}
            )
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _config(layer: bytes, stop_signal: str) -> bytes:
    command = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh", "-c", _WAIT, PAUSE]}
    digest = "sha256:" + hashlib.sha256(layer).hexdigest()
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": command | ({"StopSignal": stop_signal} if stop_signal else {}),
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        }
    ).encode()


def _layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in ("bin", "tmp", "etc", "truth"):
            _add(archive, folder, None)
        _add(archive, "bin/busybox", BUSYBOX.read_bytes())
        for name in _LINKS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes | None) -> None:
    """Add a file, or a folder when there is no data."""
    entry = tarfile.TarInfo(name)
    entry.mode = 0o755
    entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
    entry.size = len(data or b"")
    archive.addfile(entry, io.BytesIO(data or b""))
