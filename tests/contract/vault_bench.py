"""The Vault under test: the sandbox's, or a real one; both spoken to in plain HTTP by root."""

import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from killswitch.clients.vault import VaultClient
from killswitch.sandbox.vault import VaultServer
from killswitch.secret import Secret
from killswitch.unfinished import Unfinished

_numbers = itertools.count(1)


@dataclass(slots=True)
class VaultBench:
    """One Vault. `many` is how many secrets take it long enough to erase to hang up on it."""

    address: str
    root_token: str
    many: int = 0
    hang_up_s: float = 0.0
    unfinished: Unfinished = field(default_factory=Unfinished)

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        timeout_s: float = 30,
    ) -> tuple[int, Any]:
        """Send one request, as root unless a token is given ("" for none)."""
        used = self.root_token if token is None else token
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                method,
                f"{self.address}/v1/{path}",
                headers={"X-Vault-Token": used} if used else {},
                json=body,
                timeout=timeout_s,
                allow_redirects=False,
            )
        return answer.status_code, answer.json() if answer.content else None

    def mount(self, version: int = 2, secrets: Iterable[str] = ()) -> str:
        """Enable a fresh KV mount with these secrets; return its path, "kv7/"."""
        name = f"kv{next(_numbers)}/"
        options = {"version": str(version)}
        self.good("POST", f"sys/mounts/{name.rstrip('/')}", {"type": "kv", "options": options})
        self.fill(name, list(secrets) or ["seed"], version)
        if not list(secrets):
            self.good("DELETE", f"{name}metadata/seed" if version == 2 else f"{name}seed")
        return name

    def fill(self, mount: str, names: list[str], version: int = 2) -> None:
        """Write secrets, several at a time; a fresh version 2 mount takes a while to be ready."""
        path = f"{mount}data/" if version == 2 else mount
        body = {"data": {"k": "v"}} if version == 2 else {"k": "v"}
        end = time.monotonic() + 10
        while self.send("POST", f"{path}{names[0]}", body)[0] >= 300:
            assert time.monotonic() < end, "the mount never became ready"
            time.sleep(0.05)
        todo = iter(names[1:])
        lock = threading.Lock()

        def write() -> None:
            with requests.Session() as session:
                session.trust_env = False
                session.headers["X-Vault-Token"] = self.root_token
                while True:
                    with lock:
                        name = next(todo, None)
                    if name is None:
                        return
                    session.post(f"{self.address}/v1/{path}{name}", json=body, timeout=30)

        threads = [threading.Thread(target=write) for _ in range(min(16, len(names)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def good(self, method: str, path: str, body: object = None) -> Any:
        """Send as root what must work; return the answer's data."""
        status, answer = self.send(method, path, body)
        assert status < 300, (method, path, status, answer)
        return (answer or {}).get("data")

    def token(self, rules: str) -> str:
        """Return a token with exactly these rules, and the default policy."""
        name = f"p{next(_numbers)}"
        self.good("PUT", f"sys/policies/acl/{name}", {"policy": rules})
        status, answer = self.send("POST", "auth/token/create", {"policies": [name], "ttl": "10m"})
        assert status == 200
        return str(answer["auth"]["client_token"])

    def client(self, token: str | None = None, *, may_write: bool = True) -> VaultClient:
        """Return our client, as root unless a token is given."""
        client = VaultClient(
            address=self.address, timeout_s=(2.0, 5.0), steady_s=0.5, unfinished=self.unfinished
        )
        client.login(token=Secret(token or self.root_token), may_write=may_write)
        return client

    def approle(self, role: str = "bot", **more: str) -> str:
        """Enable a fresh AppRole method with one role; return its path, "approle7"."""
        method = f"approle{next(_numbers)}"
        self.good("POST", f"sys/auth/{method}", {"type": "approle"})
        self.good("POST", f"auth/{method}/role/{role}", {"token_policies": ["default"], **more})
        return method

    def log_in(self, method: str, role: str = "bot") -> tuple[int, str]:
        """Log in with a fresh secret ID; return the status and the token."""
        path = f"auth/{method}/role/{role}"
        role_id = self.good("GET", f"{path}/role-id")["role_id"]
        secret_id = self.good("POST", f"{path}/secret-id")["secret_id"]
        return self.log_in_with(method, role_id, secret_id)

    def log_in_with(self, method: str, role_id: str, secret_id: str) -> tuple[int, str]:
        """Log in with what a bot holds."""
        body = {"role_id": role_id, "secret_id": secret_id}
        status, answer = self.send("POST", f"auth/{method}/login", body, token="")
        return status, answer["auth"]["client_token"] if status == 200 else ""


@contextmanager
def sandbox(**more: Any) -> Iterator[VaultBench]:
    """Run the sandbox's Vault."""
    server = VaultServer(mounts={}, **more)
    server.start()
    try:
        yield VaultBench(server.url, server.root_token, many=100, hang_up_s=0.3)
    finally:
        server.stop()
