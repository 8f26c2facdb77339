"""A small Kakunin: agents, certificates, halts and what its REST API really answers about them."""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import ClassVar, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from werkzeug.wrappers import Request, Response

from killswitch.sandbox.kakunin_books import (
    API_KEY,
    BOT_1,
    BOT_2,
    HALT_REASONS,
    STATUSES,
    Limiter,
    SandboxAgent,
    SandboxCertificate,
    agent_row,
    answer,
    certificate_row,
    failure,
    halt_receipt,
    invalid,
    limited,
    no_route,
    sent_body,
    two_bots,
    units,
    verified,
)
from killswitch.sandbox.server import VendorServer

__all__ = ["API_KEY", "BOT_1", "BOT_2", "KakuninServer", "SandboxAgent", "SandboxCertificate"]

A_MONTH_S: Final = 30 * 24 * 3600
COMES_BACK_S: Final = 0.4


class KakuninServer(VendorServer):
    """Kakunin's `/api/v1` for one tenant with one API key.

    Edit `agents` like the real thing. `scope` holds the agent ids that `live` answers for;
    `told` is what was sent to webhooks, `audit` the audit log, newest last.
    """

    name: ClassVar[str] = "kakunin"
    TRAPS: ClassVar[Mapping[str, str]] = {
        "revoke-lies": "answers 200 to a revocation and changes nothing",
        "revoke-500": "revokes, and answers 500 because its audit log could not be written",
        "halt-lies": "answers 200 to a halt, and agent and certificate stay as they are",
        "suspend-ignored": "revoking ends the certificate, but the agent stays active",
        "recertified": "the bot gets itself a new certificate just after it was suspended, once",
        "reactivated": "the bot sets its agent active again just after it was suspended, once",
        "retired": "the last agent is retired and still has an active certificate",
        "empty-list": "its look-up of certificates fails: agents are listed without any",
        "stale-verify": "the public verify page still says active after a revocation",
        "unsigned-receipt": "halts without a signature and without an entry in the audit log",
        "long-retry-after": "answers 429 once and asks to wait a month",
        "redirect": "sends every call to another host with 308",
        "wrong-key": "answers 401: the key was revoked",
        "html-error": "answers 500 with a page of HTML",
    }

    def __init__(
        self,
        *,
        api_key: str = API_KEY,
        agents: Iterable[SandboxAgent] | None = None,
        traps: Iterable[str] = (),
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(traps=traps, port=port, clock=clock)
        self.api_key = api_key
        seeded = two_bots() if agents is None else list(agents)
        self.agents = {agent.id: agent for agent in seeded}
        self.scope = set(self.agents)
        self.audit: list[dict[str, str]] = []
        self.told: list[tuple[str, str]] = []
        self._limiter = Limiter(self.clock)
        self._sprung: set[str] = set()
        self._due: list[tuple[float, Callable[[], object]]] = []

    @property
    def base_url(self) -> str:
        """The address that a client is configured with."""
        return f"{self.url}/api/v1"

    @cached_property
    def ca_key(self) -> rsa.RSAPrivateKey:
        """The root CA's key, which signs the receipts of halts."""
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def live(self) -> list[str]:
        """Name every agent that is not stopped and every active certificate, in scope."""
        with self.lock:
            self._catch_up()
            names = []
            for agent in (self.agents[one] for one in sorted(self.scope)):
                if agent.status not in {"suspended", "retired"}:
                    names.append(f"agent {agent.id}")
                names += [f"certificate {one.serial_number}" for one in agent.active]
            return names

    def respond(self, request: Request) -> Response:
        """Answer as the deployed source does: limits and key first, then the route."""
        with self.lock:
            self._catch_up()
            if request.path == "/api/health":
                return answer({"status": "ok", "db": "ok", "latency_ms": 1, "ts": self._now()})
            parts = request.path.strip("/").split("/")
            if parts[:3] == ["api", "v1", "verify"] and len(parts) == 4:
                return self._verify(request, parts[3])
            return self._trap_before() or self._refuse(request) or self._route(request, parts[2:])

    def certify(self, agent: SandboxAgent) -> SandboxCertificate:
        """Issue a certificate; a suspended agent gets one too, and stays suspended."""
        certificate = SandboxCertificate(secrets.token_hex(16).upper(), issued_at=self._now())
        agent.certificates.insert(0, certificate)
        if agent.status == "pending":
            agent.status = "active"
        self._record("certificate.issued", certificate.id)
        return certificate

    def _trap_before(self) -> Response | None:
        if "html-error" in self.traps:
            return Response("<html>Application error</html>", status=500, mimetype="text/html")
        if "redirect" in self.traps:
            return Response("", 308, {"Location": "https://elsewhere.example/api/v1"})
        if "wrong-key" in self.traps:
            return failure(401, "Invalid or revoked API key")
        if "long-retry-after" in self.traps and self._once("long-retry-after"):
            return limited(100, self.clock() + A_MONTH_S, A_MONTH_S)
        return None

    def _refuse(self, request: Request) -> Response | None:
        """Refuse what the proxy in front of every route refuses."""
        if not request.path.startswith("/api/v1/"):
            return no_route()
        header = request.headers.get("Authorization", "")
        if not header.startswith("Bearer "):
            return failure(401, "Missing or invalid Authorization header")
        key = header.removeprefix("Bearer ")
        if over := self._limiter.over(f"key {key}", 100, 10):
            return over
        if key != self.api_key:
            return failure(401, "Invalid or revoked API key")
        if key.startswith("kak_test_") and not request.host.endswith("staging.kakunin.ai"):
            return failure(401, "Sandbox API key is not valid on this host")
        return None

    def _route(self, request: Request, parts: list[str]) -> Response:
        match request.method, parts:
            case "GET", ["agents"]:
                rows = [agent_row(agent) for agent in self.agents.values()][:20]
                return answer({"data": rows, "meta": {"total": len(self.agents), "limit": 20}})
            case method, ["agents", agent_id, *rest]:
                agent = self.agents.get(agent_id)
                if agent is None:
                    return failure(404, "Agent not found")
                return self._agent(request, agent, (method, *rest))
            case "POST", ["certificates", certificate_id, "revoke"]:
                return self._revoke(request, certificate_id)
            case _:
                return no_route()

    def _agent(self, request: Request, agent: SandboxAgent, call: tuple[str, ...]) -> Response:
        match call:
            case ("GET",):
                listed = [] if "empty-list" in self.traps else agent.certificates
                rows = [certificate_row(one) for one in listed]
                return answer({"data": {**agent_row(agent), "certificates": rows}})
            case ("PATCH",):
                return self._patch(request, agent)
            case ("POST", "halt"):
                return self._halt(request, agent)
            case ("POST", "certify"):
                return self._certify(agent)
            case _:
                return no_route()

    def _certify(self, agent: SandboxAgent) -> Response:
        if agent.status == "retired":
            return failure(422, "Cannot certify a retired agent")
        if len(agent.active) == 1:  # with two of them its own look-up fails, and it goes on
            return failure(409, "Agent already has an active certificate")
        return answer({"data": asdict(self.certify(agent))}, 201)

    def _patch(self, request: Request, agent: SandboxAgent) -> Response:
        body = sent_body(request)
        if body is None:
            return failure(500, "Internal server error")
        status = body.get("status", agent.status)
        if status not in STATUSES:
            return invalid("status", f"Invalid option: expected one of {'|'.join(STATUSES)}")
        # No rule forbids any change of status, not even out of retirement.
        agent.status = str(status)
        self._record("agent.updated", agent.id)
        return answer({"data": agent_row(agent)})

    def _revoke(self, request: Request, certificate_id: str) -> Response:
        reason = (sent_body(request) or {}).get("reason")
        if not isinstance(reason, str) or not 1 <= units(reason) <= 500:
            return invalid("reason", "Invalid input: expected string of 1 to 500 characters")
        for agent in self.agents.values():
            for certificate in agent.certificates:
                if certificate.id == certificate_id:
                    return self._revoke_found(agent, certificate, reason)
        return failure(404, "Certificate not found")

    def _revoke_found(
        self, agent: SandboxAgent, certificate: SandboxCertificate, reason: str
    ) -> Response:
        if certificate.status == "revoked":
            return failure(409, "Certificate already revoked")
        if certificate.status == "expired":
            return failure(422, "Cannot revoke an expired certificate")
        now = self._now()
        if "revoke-lies" not in self.traps:
            certificate.status = "revoked"
            certificate.revoked_at, certificate.revocation_reason = now, reason
            if "suspend-ignored" not in self.traps:
                self._suspend(agent)  # whatever its status was, retired too
            if "revoke-500" in self.traps:
                return failure(500, "Certificate was revoked but the audit log write failed")
            self._record("certificate.revoked", certificate.id)
            self.told.append(("certificate.revoked", certificate.id))
        data = {"certificate_id": certificate.id, "status": "revoked", "revoked_at": now}
        return answer({"data": {**data, "reason": reason}})

    def _halt(self, request: Request, agent: SandboxAgent) -> Response:
        body = sent_body(request)
        if body is None:
            return failure(500, "Internal server error")
        if body.get("reason") not in HALT_REASONS:
            return invalid("reason", f"Invalid option: expected one of {'|'.join(HALT_REASONS)}")
        note = body.get("operator_note", "")
        if not isinstance(note, str) or units(note) > 1000:
            return invalid("operator_note", "Too big: expected string to have <=1000 characters")
        if agent.status == "retired":
            return failure(409, "Agent is already retired")
        newest = agent.active[0] if agent.active else None
        signer = None if "unsigned-receipt" in self.traps else self.ca_key
        receipt = halt_receipt(agent, newest, str(body["reason"]), self._now(), signer)
        if signer:
            self._record("agent.halted", agent.id)
        if "halt-lies" not in self.traps:
            if newest:
                newest.status, newest.revoked_at = "revoked", str(receipt["halted_at"])
                newest.revocation_reason = f"kill_switch: {body['reason']}"
            self._suspend(agent)
        return answer({"data": {"halt_receipt": receipt}})

    def _verify(self, request: Request, serial: str) -> Response:
        if over := self._limiter.over(f"verify {request.remote_addr}", 100, 60):
            return over
        if len(serial) < 8:
            return failure(400, "Invalid serial number")
        for agent in self.agents.values():
            for one in agent.certificates:
                if one.serial_number == serial.upper():
                    return verified(agent, one, stale="stale-verify" in self.traps)
        return failure(404, "Certificate not found")

    def _suspend(self, agent: SandboxAgent) -> None:
        agent.status = "suspended"
        at = self.clock() + COMES_BACK_S
        if "recertified" in self.traps and self._once("recertified"):
            self._due.append((at, partial(self.certify, agent)))
        if "reactivated" in self.traps and self._once("reactivated"):
            self._due.append((at, partial(setattr, agent, "status", "active")))

    def _catch_up(self) -> None:
        """Let happen what has become due, as the world does without being asked."""
        if "retired" in self.traps and self._once("retired"):
            list(self.agents.values())[-1].status = "retired"
        now = self.clock()
        due = [happen for at, happen in self._due if at <= now]
        self._due = [(at, happen) for at, happen in self._due if at > now]
        for happen in due:
            happen()

    def _once(self, trap: str) -> bool:
        fresh = trap not in self._sprung
        self._sprung.add(trap)
        return fresh

    def _record(self, event_type: str, affected_id: str) -> None:
        event = {"event_type": event_type, "affected_id": affected_id, "actor_type": "user"}
        self.audit.append({**event, "created_at": self._now()})

    def _now(self) -> str:
        now = datetime.fromtimestamp(self.clock(), UTC)
        return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
