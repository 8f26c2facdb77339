"""The books of the small Kakunin: its agents and certificates, and the forms of its answers."""

import base64
import json
import math
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from werkzeug.wrappers import Request, Response

API_KEY: Final = "kak_live_5f1e0c9a7b3d42688e21d4a6b9c07f35"
HALT_REASONS: Final = (
    "kill_switch_activated",
    "risk_threshold_exceeded",
    "regulatory_order",
    "operator_initiated",
)
STATUSES: Final = ("pending", "active", "suspended", "retired")
BOT_1: Final = "7c2f0b1e-5d1a-4f0e-9a57-0d3b6c1f2a41"
BOT_2: Final = "b81d9c34-2e67-4c8b-8f10-6a5e4d3c2b12"


@dataclass(slots=True)
class SandboxCertificate:
    """One certificate in the server's books; `status` is active, revoked or expired."""

    serial_number: str
    status: str = "active"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    issued_at: str = "2026-01-05T08:00:00.000Z"
    expires_at: str = "2027-01-05T08:00:00.000Z"
    revoked_at: str = ""
    revocation_reason: str = ""


@dataclass(slots=True)
class SandboxAgent:
    """One agent in the server's books, its newest certificate first."""

    id: str
    name: str
    status: str = "active"
    certificates: list[SandboxCertificate] = field(default_factory=list)

    @property
    def active(self) -> list[SandboxCertificate]:
        """The certificates that are active by the books."""
        return [one for one in self.certificates if one.status == "active"]


def two_bots() -> list[SandboxAgent]:
    """Return the small world: bot-1 with two active certificates, bot-2 with one."""
    return [
        SandboxAgent(
            BOT_1,
            "bot-1",
            certificates=[
                SandboxCertificate("F1D40A93C7E25B6881D3A0426E9B7C15"),
                SandboxCertificate("3A7790C1E48D2F56B0179E6C5D28A4F3"),
                SandboxCertificate("0BB6E1D27F934A58C6E0127D9A35F4C8", status="expired"),
            ],
        ),
        SandboxAgent(
            BOT_2,
            "bot-2",
            certificates=[SandboxCertificate("9E02D5B8136F4C7AA5D18E3704F6B29C")],
        ),
    ]


def agent_row(agent: SandboxAgent) -> dict[str, object]:
    """Return an agent as lists have it: without its certificates."""
    return {
        "id": agent.id,
        "name": agent.name,
        "model": None,
        "model_hash": "sha256:" + "0" * 64,
        "version": None,
        "status": agent.status,
        "metadata": {},
    }


def certificate_row(certificate: SandboxCertificate) -> dict[str, object]:
    """Return a certificate as its agent lists it."""
    shown = ("id", "serial_number", "status", "issued_at", "expires_at")
    return {name: getattr(certificate, name) for name in shown}


def halt_receipt(
    agent: SandboxAgent,
    certificate: SandboxCertificate | None,
    reason: str,
    now: str,
    signer: rsa.RSAPrivateKey | None,
) -> dict[str, object]:
    """Return the receipt of a halt; without a signer it is degraded, which is normal."""
    serial = certificate.serial_number if certificate else None
    event_id, signature = str(uuid.uuid4()), None
    if signer:
        text = f"{agent.id}:{serial or 'no-cert'}:{now}:{event_id}".encode()
        raw = signer.sign(text, padding.PKCS1v15(), hashes.SHA256())
        signature = base64.b64encode(raw).decode()
    return {
        "agent_id": agent.id,
        "certificate_serial": serial,
        "halted_at": now,
        "halt_event_id": event_id,
        "reason": reason,
        "receipt_signature": signature,
        "signed_by_ca": signature is not None,
        "audit_logged": signature is not None,
    }


def verified(agent: SandboxAgent, certificate: SandboxCertificate, *, stale: bool) -> Response:
    """Return the public page about a certificate; a cache may keep it for an hour."""
    status = "active" if stale else certificate.status
    valid = status == "active"
    row = certificate_row(certificate)
    row |= {"status": status, "valid": valid, "agent": {"id": agent.id, "name": agent.name}}
    del row["id"]
    if certificate.revoked_at and not stale:
        row["revoked_at"] = certificate.revoked_at
        row["revocation_reason"] = certificate.revocation_reason
    response = answer({"data": row})
    age_s = 300 if valid else 60
    response.headers["Cache-Control"] = f"public, s-maxage={age_s}, stale-while-revalidate=3600"
    return response


def answer(body: object, status: int = 200) -> Response:
    """Return any answer of the API."""
    return Response(json.dumps(body), status=status, mimetype="application/json")


def failure(status: int, text: str) -> Response:
    """Return an error of the API."""
    return answer({"error": text}, status)


def invalid(field_name: str, message: str) -> Response:
    """Return a 400, whose text is itself JSON: the list of what is wrong with the body."""
    issues = [{"code": "invalid_value", "path": [field_name], "message": message}]
    return failure(400, json.dumps(issues, indent=2))


def no_route() -> Response:
    """Return what the web server in front says to an unknown address."""
    return Response("<html>404</html>", status=404, mimetype="text/html")


def limited(limit: int, reset_at: float, wait_s: float) -> Response:
    """Return a 429; only this one has headers about limits, its reset in milliseconds."""
    response = failure(429, "Rate limit exceeded")
    response.headers["X-RateLimit-Limit"] = str(limit)
    response.headers["X-RateLimit-Remaining"] = "0"
    response.headers["X-RateLimit-Reset"] = str(int(reset_at * 1000))
    response.headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    return response


def sent_body(request: Request) -> dict[str, object] | None:
    """Return the JSON object that was sent, or None where the real one would fail on it."""
    try:
        body = json.loads(request.get_data())
    except ValueError:
        return None
    return body if isinstance(body, dict) else {}


def units(text: str) -> int:
    """Return the length of `text` as the server counts: in UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


class Limiter:
    """Counts calls in a sliding window."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._calls: dict[str, deque[float]] = {}

    def over(self, who: str, limit: int, window_s: float) -> Response | None:
        """Count one call of `who`; return the 429 if it is one too many."""
        now = self._clock()
        calls = self._calls.setdefault(who, deque())
        while calls and calls[0] <= now - window_s:
            calls.popleft()
        if len(calls) >= limit:
            return limited(limit, calls[0] + window_s, calls[0] + window_s - now)
        calls.append(now)
        return None
