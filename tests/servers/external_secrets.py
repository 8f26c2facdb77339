"""The real External Secrets Operator beside a control plane."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.binaries import binary
from tests.servers.control_plane import ControlPlane
from tests.servers.https import Http
from tests.servers.processes import Program, ServerError, free_port

START_S = 30.0
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class ExternalSecrets:
    """Installs its definitions and runs the operator; one for each control plane."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.control_plane = control_plane
        self.folder = folder
        self._metrics_port, self._live_port = free_port(), free_port()
        self._program: Program | None = None

    def __enter__(self) -> Self:
        try:
            self.install_definitions()
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def install_definitions(self) -> None:
        """Install its custom resource definitions, and wait until they are served."""
        files = sorted(binary("eso-crds").glob("*.yaml"))
        for path in files:
            status, body = self.control_plane.send(
                "POST", _CRDS, path.read_text(), content_type="application/yaml"
            )
            if status not in {201, 409}:
                raise ServerError(f"{path.name} was not taken: {status} {body}")
        deadline = time.monotonic() + START_S
        while not self._established(len(files)):
            if time.monotonic() > deadline:
                raise ServerError(f"its definitions are not served after {START_S} s")
            time.sleep(0.1)

    def start(self) -> None:
        """Start the operator (again), and wait until it is healthy."""
        flags = (
            f"--metrics-addr=127.0.0.1:{self._metrics_port}",
            f"--live-addr=127.0.0.1:{self._live_port}",
        )
        env = {"KUBECONFIG": str(self.control_plane.admin_kubeconfig), "HOME": str(self.folder)}
        program = Program(
            [binary("external-secrets"), *flags], self.folder / "operator.log", env=env
        )
        self._program = program
        health = Http(f"http://127.0.0.1:{self._live_port}")
        program.wait_until(lambda: healthy(health), START_S)

    def stop(self) -> None:
        """End the operator at once; what it synced stays."""
        if self._program:
            self._program.kill()
            self._program = None

    def _established(self, count: int) -> bool:
        items = self.control_plane.send("GET", _CRDS)[1]["items"]
        held = [
            condition["type"]
            for item in items
            if item["spec"]["group"].endswith("external-secrets.io")
            for condition in item.get("status", {}).get("conditions") or ()
            if condition["status"] == "True"
        ]
        return held.count("Established") >= count


def healthy(server: Http) -> bool:
    """Whether its liveness probe says so."""
    try:
        return server.send("GET", "/healthz", timeout_s=2)[0] == 200
    except OSError:
        return False
