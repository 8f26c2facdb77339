"""A real Kubernetes control plane on loopback: etcd, kube-apiserver, kube-controller-manager."""

import http.client
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers.binaries import binary
from tests.servers.certificates import Authority, key_pair
from tests.servers.https import Http
from tests.servers.processes import Program, ServerError, free_port

START_S = 40.0
USERS = ("admin", "killswitch", "other", "reader", "third")


class ControlPlane:
    """The control plane of one folder; no node, so pods stay Pending until one joins.

    Every name in `USERS` and `users` has a token; only admin has rights.
    """

    def __init__(
        self,
        folder: Path,
        *,
        api_flags: Sequence[str] = (),
        controller_flags: Sequence[str] = (),
        users: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.authority = Authority(folder, "killswitch-test-ca")
        self.ca_file = self.authority.file
        self._api_flags, self._controller_flags = tuple(api_flags), tuple(controller_flags)
        self._tokens = {user: secrets.token_hex(16) for user in dict.fromkeys((*USERS, *users))}
        self._etcd_port, self._peer_port, self._api_port = free_port(), free_port(), free_port()
        self._controller_port = free_port()
        self.url = f"https://127.0.0.1:{self._api_port}"
        self._http = Http(self.url, ca_file=self.ca_file)
        self._programs: dict[str, Program] = {}
        self.admin_kubeconfig = self.kubeconfig("admin")

    def __enter__(self) -> Self:
        try:
            self._write_identities()
            self._start_etcd()
            self.start_api()
            self.start_controllers()
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

    def token(self, user: str) -> str:
        """Return the bearer token of a user, who has no rights until bound (but admin)."""
        try:
            return self._tokens[user]
        except KeyError:
            raise ServerError(f"no user {user} here; name it in ControlPlane(users=...)") from None

    def kubeconfig(self, user: str = "killswitch") -> Path:
        """Write a kubeconfig with the user's token, context "real", and return its path."""
        path = self.folder / f"{user}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "real", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.token(user)}}],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": user}}],
            "current-context": "real",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(content, indent=1))
        return path

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        user: str = "admin",
        content_type: str | None = None,
    ) -> tuple[int, Any]:
        """Send one request as `user`; return the status and the parsed answer."""
        return self._http.send(
            method,
            path,
            body,
            query=query,
            content_type=content_type,
            headers={"Authorization": f"Bearer {self.token(user)}"},
        )

    def start_api(self) -> None:
        """Start the API server (again) on its own port, and wait until it is ready."""
        arguments = [f"--{name}={value}" for name, value in self._api_arguments().items()]
        program = Program(
            [binary("kube-apiserver"), *arguments, *self._api_flags], self.folder / "api.log"
        )
        self._programs["api"] = program
        program.wait_until(self._api_ready, START_S)

    def kill_api(self) -> None:
        """End the API server at once, as a crash would."""
        self._programs.pop("api").kill()

    def start_controllers(self) -> None:
        """Start the controller manager, and wait until it is healthy."""
        admin = self.admin_kubeconfig
        arguments = {
            "kubeconfig": admin,
            "authentication-kubeconfig": admin,
            "authorization-kubeconfig": admin,
            "bind-address": "127.0.0.1",
            "secure-port": self._controller_port,
            "tls-cert-file": self.folder / "kube-apiserver.crt",
            "tls-private-key-file": self.folder / "kube-apiserver.key",
            "leader-elect": "false",
            "service-account-private-key-file": self.folder / "accounts.key",
            "root-ca-file": self.ca_file,
        }
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        program = Program(
            [binary("kube-controller-manager"), *flags, *self._controller_flags],
            self.folder / "controllers.log",
        )
        self._programs["controllers"] = program
        health = Http(f"https://127.0.0.1:{self._controller_port}", ca_file=self.ca_file)
        program.wait_until(lambda: answers(health, "/healthz", "ok"), START_S)

    def stop(self) -> None:
        """End everything; the API server hard and before etcd, without which it would hang."""
        for name in ("controllers", "api", "etcd"):
            if name in self._programs:
                self._programs.pop(name).kill()

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{p}" for p in (self._etcd_port, self._peer_port))
        arguments = {
            "data-dir": self.folder / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",
        }
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        self._programs["etcd"] = etcd = Program([binary("etcd"), *flags], self.folder / "etcd.log")
        health = Http(client)
        etcd.wait_until(
            lambda: answers(health, "/health", {"health": "true", "reason": ""}), START_S
        )

    def _write_identities(self) -> None:
        self.authority.server("kube-apiserver", ips=("127.0.0.1", "10.0.0.1"))
        key_pair(self.folder, "accounts")
        groups = {"admin": "system:masters"}
        lines = [
            f'{token},{user},uid-{user},"{groups.get(user, "tests")}"'
            for user, token in self._tokens.items()
        ]
        tokens = self.folder / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text("\n".join(lines) + "\n")

    def _api_arguments(self) -> dict[str, object]:
        return {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "bind-address": "127.0.0.1",
            "secure-port": self._api_port,
            "cert-dir": self.folder,
            "tls-cert-file": self.folder / "kube-apiserver.crt",
            "tls-private-key-file": self.folder / "kube-apiserver.key",
            "token-auth-file": self.folder / "tokens.csv",
            "client-ca-file": self.ca_file,
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self.folder / "accounts.pub",
            "service-account-signing-key-file": self.folder / "accounts.key",
            "service-cluster-ip-range": "10.0.0.0/24",
            "disable-admission-plugins": "ServiceAccount",
            "allow-privileged": "true",
        }

    def _api_ready(self) -> bool:
        try:
            return (
                self.send("GET", "/readyz") == (200, "ok")
                and self.send("GET", "/api/v1/namespaces/kube-system")[0] == 200
                and self.send("GET", "/api/v1/namespaces/default")[0] == 200
            )
        except (OSError, http.client.HTTPException):
            return False


def answers(server: Http, path: str, expected: object) -> bool:
    """Whether GET of `path` gives 200 and just this."""
    try:
        return server.send("GET", path, timeout_s=2) == (200, expected)
    except (OSError, http.client.HTTPException):
        return False


def wait_for_node(control_plane: ControlPlane, program: Program) -> None:
    """Wait until a node of the control plane is Ready."""

    def ready() -> bool:
        nodes = control_plane.send("GET", "/api/v1/nodes")[1]["items"]
        return any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for node in nodes
            for condition in node["status"].get("conditions", ())
        )

    program.wait_until(ready, START_S)
