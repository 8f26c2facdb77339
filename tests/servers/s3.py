"""A real S3 server with versions and Object Lock: SeaweedFS."""

import http.client
import json
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.binaries import binary
from tests.servers.https import Http
from tests.servers.processes import Program, free_port

START_S = 40.0


class SeaweedFS:
    """One server with two users: an admin, and one that may only add to the bucket "audit"."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._ports = [free_port() for _ in range(4)]
        self.address = f"http://127.0.0.1:{self._ports[0]}"
        self.access_key, self.secret_key = "admin", secrets.token_hex(16)
        self.appender_access_key, self.appender_secret_key = "appender", secrets.token_hex(16)
        self._program: Program | None = None

    def __enter__(self) -> Self:
        try:
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

    def start(self) -> None:
        """Start it (again); the first write may still take some seconds."""
        identities = self.folder / "identities.json"
        identities.write_text(json.dumps({"identities": self._identities()}))
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        s3, master, volume, filer = self._ports
        flags = {
            "dir": data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": master,
            "master.port.grpc": free_port(),
            "master.volumeSizeLimitMB": 64,
            "volume.port": volume,
            "volume.port.grpc": free_port(),
            "volume.max": 20,
            "filer": "true",
            "filer.port": filer,
            "filer.port.grpc": free_port(),
            "s3": "true",
            "s3.port": s3,
            "s3.port.grpc": free_port(),
            "s3.config": identities,
        }
        words = [f"-{name}={value}" for name, value in flags.items()]
        log = self.folder / "weed.log"
        self._program = Program([binary("weed"), "server", *words], log, cwd=self.folder)
        self._program.wait_until(self._answers, START_S)

    def stop(self) -> None:
        """End it at once."""
        if self._program:
            self._program.kill()
            self._program = None

    def _identities(self) -> list[dict[str, object]]:
        everything = ["Admin", "Read", "List", "Tagging", "Write"]
        adding = ["Read:audit", "List:audit", "Write:audit"]
        users = (
            (self.access_key, self.secret_key, everything),
            (self.appender_access_key, self.appender_secret_key, adding),
        )
        return [
            {
                "name": access,
                "credentials": [{"accessKey": access, "secretKey": secret}],
                "actions": actions,
            }
            for access, secret, actions in users
        ]

    def _answers(self) -> bool:
        try:
            # Without a signature: refused, by a server that is there.
            return Http(self.address).send("GET", "/", timeout_s=2)[0] in {200, 403}
        except (OSError, http.client.HTTPException):
            return False
