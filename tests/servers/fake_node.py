"""The node for machines where a real one cannot run."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers.binaries import ROOT
from tests.servers.control_plane import ControlPlane, wait_for_node
from tests.servers.pods import ABRUPT_IMAGE, IMAGE, Event, pod_template, read_events
from tests.servers.processes import Program


class FakeNode:
    """Plays "node1" of a control plane, with the timing of a real kubelet; takes no root."""

    real = False
    image, abrupt_image = IMAGE, ABRUPT_IMAGE

    def __init__(self, control_plane: ControlPlane, folder: Path | None = None) -> None:
        self.control_plane = control_plane
        self.folder = folder or control_plane.folder / "fake-node"
        self._truth = self.folder / "truth.jsonl"
        self._program: Program | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        kubeconfig = self.control_plane.admin_kubeconfig
        words: list[str | Path] = [sys.executable, "-m", "tests.servers.fake_kubelet"]
        words += [kubeconfig, self._truth]
        self._program = Program(words, self.folder / "kubelet.log", cwd=ROOT)
        try:
            wait_for_node(self.control_plane, self._program)
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

    def truth(self) -> list[Event]:
        """Return what the processes did, in order."""
        return sorted(read_events(self._truth), key=lambda event: event.t)

    def pod_template(self, **arguments: Any) -> dict[str, Any]:
        """Return metadata and spec of a pod: see `pods.pod_template`."""
        return pod_template(**arguments)

    def pod_spec(self, **arguments: Any) -> dict[str, Any]:
        """Return just the spec of `pod_template`."""
        spec: dict[str, Any] = pod_template(**arguments)["spec"]
        return spec

    def stop(self) -> None:
        """End it."""
        if self._program:
            self._program.kill()
            self._program = None
