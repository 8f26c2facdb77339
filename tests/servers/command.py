"""The work of `scripts/servers`: build the real servers, start them by hand, stop them."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers.binaries import RECIPE, ROOT, binary, cache, folder
from tests.servers.control_plane import ControlPlane
from tests.servers.external_secrets import ExternalSecrets
from tests.servers.fake_node import FakeNode
from tests.servers.node import Node, missing_packages, why_no_node
from tests.servers.pods import IMAGE
from tests.servers.processes import ServerError
from tests.servers.s3 import SeaweedFS
from tests.servers.vault_server import DevVault

PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "vault",
    "external-secrets",
    "eso-crds",
    "weed",
    "helm",
)
OLD_S = 30 * 24 * 3600.0
START_S = 120.0
STOP_S = 40.0


def build() -> None:
    """Build what is missing, and install what the node needs where that is possible."""
    install_packages()
    out = folder()
    if not out.exists() and "KILLSWITCH_SERVERS" not in os.environ:
        cache().mkdir(parents=True, exist_ok=True)
        with _alone():
            if not out.exists():
                _build_into(out)
    for name in PROGRAMS:
        binary(name)
    print(f"servers: built, in {out}")
    print(f"servers: the node is {f'played, because {why_no_node()}' if why_no_node() else 'real'}")


def install_packages() -> None:
    """Install Debian's containerd and what else a real node needs, if it can run here."""
    missing = missing_packages()
    if not missing or why_no_node():
        return
    if shutil.which("apt-get") is None:
        raise ServerError(f"a real node needs {', '.join(missing)}; install them")
    print(f"servers: installing {', '.join(missing)}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    quiet = ["apt-get", "-qq", "-y"]
    for words in (["update"], ["install", "--no-install-recommends", *missing]):
        subprocess.run([*quiet, *words], check=True, env=env, stdout=subprocess.DEVNULL)


def up(place: Path) -> None:
    """Start everything in a folder, and leave it running."""
    if _running(place):
        raise ServerError(f"servers run in {place}; stop them: scripts/servers down {place}")
    if place.exists() and any(place.iterdir()) and not (place / "log").is_file():
        raise ServerError(f"{place} holds something else; name an empty folder, or a new one")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    with (place / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.command", "run", place],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_S
    while not (place / "use").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise ServerError(f"they did not start:\n{(place / 'log').read_text()[-3000:]}")
        time.sleep(0.1)
    print((place / "use").read_text(), end="")
    print(f"# stop them: scripts/servers down {place}")


def run(place: Path) -> None:
    """Run everything in a folder until told to end."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    (place / "pid").write_text(str(os.getpid()))
    with contextlib.ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(place / "control-plane"))
        stack.enter_context(FakeNode(plane) if why_no_node() else Node(plane))
        vault = stack.enter_context(DevVault(place / "vault"))
        stack.enter_context(ExternalSecrets(plane, place / "external-secrets"))
        s3 = stack.enter_context(SeaweedFS(place / "s3"))
        lines = {
            "KUBECONFIG": plane.admin_kubeconfig,
            "KILLSWITCH_KUBECONFIG": plane.kubeconfig("killswitch"),
            "VAULT_ADDR": vault.address,
            "VAULT_TOKEN": vault.root_token,
            "AWS_ENDPOINT_URL": s3.address,
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "POD_IMAGE": IMAGE,
        }
        text = "".join(f"export {name}={value}\n" for name, value in lines.items())
        unfinished = place / "use.new"
        unfinished.touch(mode=0o600)
        unfinished.write_text(text)
        unfinished.rename(place / "use")
        told.wait()


def down(place: Path) -> None:
    """Stop what `up` started in a folder."""
    pid = _running(place)
    if pid is None:
        print(f"servers: none run in {place}")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while _running(place):
        if time.monotonic() > deadline:
            raise ServerError(f"process {pid} does not end; see {place / 'log'}")
        time.sleep(0.05)
    print("servers: stopped")


def status(place: Path) -> None:
    """Say what is built, what would run the pods, and what runs."""
    out = folder()
    there = [name for name in PROGRAMS if (out / name).exists()]
    missing = [name for name in PROGRAMS if name not in there]
    print(f"built:   {', '.join(there) or 'nothing'} (in {out})")
    if missing:
        print(f"missing: {', '.join(missing)}; scripts/servers build")
    lacking = missing_packages()
    why = why_no_node() or (f"it needs the packages {', '.join(lacking)}" if lacking else "")
    print(f"node:    {f'played: {why}' if why else 'real'}")
    pid = _running(place)
    print(f"running: {f'process {pid} in {place}' if pid else f'nothing in {place}'}")


def _build_into(out: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(dir=cache(), prefix="building-"))
    try:
        print(f"servers: building, about a quarter of an hour, once: {out}", flush=True)
        script = ROOT / RECIPE[0]
        subprocess.run([sys.executable, script, unfinished], check=True)
        unfinished.chmod(0o755)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for old in cache().glob("bin-*"):
        if old != out and time.time() - old.stat().st_mtime > OLD_S:
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one process build at a time."""
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _running(place: Path) -> int | None:
    try:
        pid = int((place / "pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if str(place).encode() in words else None


def main() -> None:
    """Do what the first argument says."""
    what, *rest = sys.argv[1:] or [""]
    place = Path(rest[0] if rest else ROOT / ".cache/servers").resolve()
    commands = {"up": up, "run": run, "down": down, "status": status}
    if what != "build" and what not in commands:
        sys.exit("usage: scripts/servers build | up [FOLDER] | down [FOLDER] | status [FOLDER]")
    try:
        if what == "build":
            build()
        else:
            commands[what](place)
    except (ServerError, subprocess.CalledProcessError, FileNotFoundError) as error:
        sys.exit(f"servers: {error}")


if __name__ == "__main__":
    main()
