"""Kakunin over its REST API: agents and their certificates, and nothing else of a tenant."""

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import msgspec

from killswitch.address import checked_url
from killswitch.clients.httpx_wire import (
    MAX_BODY_BYTES,
    describe,
    one_line,
    quieten,
    trust,
)
from killswitch.clients.kakunin_wire import Answer, Halted, Listed, Revoked, halted
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.model import Receipt
from killswitch.secret import Secret
from killswitch.steps.kakunin import Agent, Certificate, Tried

if TYPE_CHECKING:
    import httpx

SIDE_BY_SIDE: Final = 25
HALT_REASON: Final = "kill_switch_activated"


class KakuninClient:
    """One Kakunin API key of one tenant. It never sleeps and never retries.

    Args:
        base_url: the authenticated API, with its version: ``https://…/api/v1``.
        timeout_s: seconds to connect, and to wait for each part of an answer.
        ca_file: PEM file of the only CAs to trust, instead of the public ones.
    """

    def __init__(
        self,
        *,
        base_url: str,
        timeout_s: tuple[float, float] = (3.0, 5.0),
        ca_file: str | Path | None = None,
    ) -> None:
        self._base_url = checked_url(base_url)
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._api_key: Secret | None = None
        self._may_write = False
        self._http: httpx.Client | None = None
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}

    def __repr__(self) -> str:
        return f"KakuninClient(base_url={self._base_url!r})"

    def warm(self) -> str:
        """Open a connection without any credential; return which host answered."""
        parts = urlsplit(self._base_url)
        answer = self._send("GET", f"{parts.scheme}://{parts.netloc}/api/health", api_key="")
        return f"{parts.hostname} answers ({answer.status})"

    def login(self, *, api_key: Secret, may_write: bool) -> None:
        """Take the credential; without `may_write` nothing can be changed."""
        self._api_key = api_key
        self._may_write = may_write

    def agents(self, agent_ids: tuple[str, ...]) -> Mapping[str, Agent | VendorError]:
        """Return each agent, or why it could not be seen; looks at several side by side."""
        self._key()
        late = UnreachableError("kakunin: no answer in time")
        seen: dict[str, Agent | VendorError] = dict.fromkeys(agent_ids, late)
        waiting = iter(tuple(seen))  # shared: each thread takes the next one

        def look() -> None:
            for agent_id in waiting:
                seen[agent_id] = self._look(agent_id)

        width = min(SIDE_BY_SIDE, len(seen))
        threads = [threading.Thread(target=look, daemon=True) for _ in range(width)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + sum(self._timeout_s) + 1
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return dict(seen)

    def tried(self, agent_id: str) -> Tried:
        """Return what this client has already asked for that agent."""
        with self._lock:
            run = self._run(agent_id)
            return Tried(frozenset(run.certificates), run.halt_tried, run.serial is None)

    def revoke(self, agent_id: str, certificate_id: str, reason: str) -> Receipt:
        """Ask to revoke one certificate; already revoked or expired is an answer, not an error."""
        self._writable("revoke a certificate")
        path = f"/certificates/{_path_part(certificate_id)}/revoke"
        with self._lock:
            self._run(agent_id).certificates.add(certificate_id)
        answer = self._call("POST", path, {"reason": _clip(reason, 500)})
        if answer.status in {409, 422}:
            return Receipt(answer.said(), {"status": str(answer.status)})
        revoked = answer.data(Revoked)
        return Receipt(
            f"revoked at {one_line(revoked.revoked_at)}",
            {"certificate_id": certificate_id, "revoked_at": one_line(revoked.revoked_at)},
        )

    def halt(self, agent_id: str, reason: str) -> Receipt:
        """Ask to halt the agent; after a halt that could do nothing, suspend it instead."""
        self._writable("halt an agent")
        path = f"/agents/{_path_part(agent_id)}"
        with self._lock:
            run = self._run(agent_id)
            run.halt_tried = True
            futile, run.futile = run.futile, False
        if futile:
            self._call("PATCH", path, {"status": "suspended"}).data(msgspec.Raw)
            return Receipt("suspended, because halting it again had nothing left to end")
        note = {"reason": HALT_REASON, "operator_note": _clip(reason, 1000)}
        answer = self._call("POST", f"{path}/halt", note)
        run.futile = answer.status == 500
        if answer.status == 409:
            return Receipt(answer.said(), {"status": "409"})
        receipt = answer.data(Halted).halt_receipt
        # It found no certificate, or the one that it had ended before: a halt does no more.
        run.futile = receipt.certificate_serial in {None, run.serial}
        run.serial = receipt.certificate_serial
        return halted(receipt)

    def rehearse(self, agent_id: str) -> Receipt:
        """Read the agent with the key: keys have no scopes, so one that reads may write."""
        seen = self._look(agent_id)
        if isinstance(seen, VendorError):
            raise seen
        return Receipt(
            f"the key reads the agent ({one_line(seen.status)}); keys have no scopes, "
            "but that it may revoke and halt was not tried"
        )

    def _look(self, agent_id: str) -> Agent | VendorError:
        try:
            answer = self._call("GET", f"/agents/{_path_part(agent_id)}")
            if answer.status == 404 and answer.error_text():
                return RefusedError(f"unknown agent: {answer.said()}")
            return self._believed(agent_id, answer.data(Listed))
        except VendorError as error:
            return error

    def _believed(self, agent_id: str, listed: Listed) -> Agent:
        if listed.id.lower() != agent_id.strip().lower():
            raise GarbledError("kakunin answered about another agent")
        certificates = (Certificate(c.id, c.serial_number, c.status) for c in listed.certificates)
        return Agent(listed.status, tuple(certificates))

    def _run(self, agent_id: str) -> "_Run":
        return self._runs.setdefault(agent_id, _Run())

    def _writable(self, what: str) -> None:
        self._key()
        if not self._may_write:
            raise RefusedError(f"this client may only read: it will not {what}")

    def _key(self) -> str:
        if self._api_key is None:
            raise RuntimeError("login comes first")
        return self._api_key.reveal().strip()

    def _call(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Answer:
        key = self._key()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise RefusedError("the kakunin api key holds a character that no header can carry")
        return self._send(method, self._base_url + path, api_key=key, body=body)

    def _send(
        self, method: str, url: str, *, api_key: str, body: Mapping[str, str] | None = None
    ) -> Answer:
        client = self._connected()
        import httpx

        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            with client.stream(method, url, headers=headers, json=body) as response:
                hint = response.headers.get("location") or response.headers.get("retry-after", "")
                return Answer(response.status_code, self._read(response), hint)
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            problem = describe(error, "kakunin")
        # Raised out here, so that the vendor's error and its request are not in the chain.
        raise UnreachableError(problem)

    def _read(self, response: "httpx.Response") -> bytes:
        end = time.monotonic() + sum(self._timeout_s)
        body = bytearray()
        for part in response.iter_raw():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise GarbledError("kakunin's answer is too large")
            if time.monotonic() > end:
                raise UnreachableError("kakunin's answer drips too slowly")
        return bytes(body)

    def _connected(self) -> "httpx.Client":
        with self._lock:
            if self._http is None:
                self._http = self._connect()
            return self._http

    def _connect(self) -> "httpx.Client":
        import httpx

        quieten("httpx", "httpcore")
        connect_s, read_s = self._timeout_s
        return httpx.Client(
            verify=trust(self._ca_file),
            timeout=httpx.Timeout(read_s, connect=connect_s),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
        )


@dataclass(slots=True)
class _Run:
    """What one run did with one agent."""

    certificates: set[str] = field(default_factory=set)
    halt_tried: bool = False
    futile: bool = False
    serial: str | None = ""
    """Of the certificate that the newest halt found, None when it found none."""


def _clip(text: str, units: int) -> str:
    """Cut `text` to what the server counts: UTF-16 units, and at least one of them."""
    cut = text.strip().encode("utf-16-le", "replace")[: 2 * units]
    return cut.decode("utf-16-le", "ignore") or "killswitch"


def _path_part(name: str) -> str:
    try:
        return quote(str(uuid.UUID(name.strip())), safe="")
    except ValueError:
        raise RefusedError(f"not a UUID: {one_line(name, 60)}") from None
