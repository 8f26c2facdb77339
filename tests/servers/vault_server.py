"""Real HashiCorp Vault servers on loopback: one for development, one that stores on disk."""

import http.client
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers.binaries import binary
from tests.servers.https import Http
from tests.servers.processes import Program, ServerError, free_port

START_S = 30.0


class _Vault:
    """What both kinds share. `root_token` and `unseal_key` are set once it was started."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._port = free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self.root_token = ""
        self.unseal_key = ""
        self._http = Http(self.address)
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
        """Start the server, usable."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if self._program:
            self._program.kill()
            self._program = None

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        namespace: str = "",
    ) -> tuple[int, Any]:
        """Send one request, as root unless a token is given ("" for none); path after /v1/."""
        used = self.root_token if token is None else token
        headers: Mapping[str, str] = {"X-Vault-Token": used} if used else {}
        if namespace:
            headers = {**headers, "X-Vault-Namespace": namespace}
        return self._http.send(method, f"/v1/{path.lstrip('/')}", body, headers=headers)

    def seal(self) -> None:
        """Seal it; every request is then answered 503."""
        self._demand(self.send("PUT", "sys/seal"))

    def unseal(self) -> None:
        """Unseal it with its one key, and wait until it serves."""
        self._demand(self.send("PUT", "sys/unseal", {"key": self.unseal_key}, token=""))
        self._wait_for(self._serves)

    def _run(self, *words: str | Path) -> None:
        env = {"VAULT_LOG_LEVEL": "warn", "HOME": str(self.folder)}
        self._program = Program([binary("vault"), *words], self.folder / "vault.log", env=env)
        self._wait_for(self._answers)

    def _wait_for(self, ready: Any) -> None:
        if self._program is None:
            raise ServerError("this vault was stopped")
        self._program.wait_until(ready, START_S)

    def _answers(self) -> bool:
        try:
            return self._http.send("GET", "/v1/sys/health")[0] in {200, 429, 501, 503}
        except (OSError, http.client.HTTPException):
            return False

    def _serves(self) -> bool:
        # 200: initialised, unsealed and active.
        return self._http.send("GET", "/v1/sys/health")[0] == 200

    def _demand(self, answer: tuple[int, Any]) -> Any:
        status, body = answer
        if status >= 300:
            raise ServerError(f"vault answered {status}: {body}")
        return body


class DevVault(_Vault):
    """A dev server: unsealed, in memory, KV version 2 at secret/; a stop loses everything."""

    def start(self) -> None:
        """Start it anew, empty."""
        self.root_token = "root"
        log = self.folder / "vault.log"
        log.unlink(missing_ok=True)
        self._run(
            "server",
            "-dev",
            f"-dev-root-token-id={self.root_token}",
            "-dev-no-store-token",
            f"-dev-listen-address=127.0.0.1:{self._port}",
        )
        self._wait_for(lambda: "Unseal Key: " in log.read_text() and self._serves())
        found = re.search(r"Unseal Key: (\S+)", log.read_text())
        self.unseal_key = found[1] if found else ""


class RaftVault(_Vault):
    """A configured server with raft storage in its folder: what it holds outlives a stop."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._cluster_port = free_port()

    def start(self) -> None:
        """Start it, initialise it the first time, unseal it."""
        self._run("server", f"-config={self._config()}")
        if not self.unseal_key:
            shares = {"secret_shares": 1, "secret_threshold": 1}
            made = self._demand(self.send("PUT", "sys/init", shares, token=""))
            self.unseal_key, self.root_token = made["keys"][0], made["root_token"]
        self.unseal()

    def start_sealed(self) -> None:
        """Start it again after a stop, and leave it sealed, as after a crash."""
        self._run("server", f"-config={self._config()}")

    def _config(self) -> Path:
        data = self.folder / "raft"
        data.mkdir(exist_ok=True)
        path = self.folder / "vault.hcl"
        path.write_text(
            f'storage "raft" {{\n  path = "{data}"\n  node_id = "n1"\n'
            "  performance_multiplier = 1\n}\n"  # else the first start waits for its own vote
            f'listener "tcp" {{\n  address = "127.0.0.1:{self._port}"\n'
            f'  cluster_address = "127.0.0.1:{self._cluster_port}"\n  tls_disable = true\n}}\n'
            f'api_addr = "{self.address}"\ncluster_addr = "http://127.0.0.1:{self._cluster_port}"\n'
            "disable_mlock = true\n"
        )
        return path
