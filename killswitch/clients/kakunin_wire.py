"""Kakunin's answers as types: what each status means, and what of a body is kept."""

from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from killswitch.clients.httpx_wire import one_line
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.model import Receipt

_Shape = TypeVar("_Shape")


class ListedCertificate(msgspec.Struct):
    """One item of an agent's certificates; `status` is active, revoked or expired."""

    id: str
    serial_number: str
    status: str


class Listed(msgspec.Struct):
    """GET of one agent; `status` is pending, active, suspended or retired."""

    id: str
    status: str
    certificates: list[ListedCertificate]


class Revoked(msgspec.Struct):
    """A revocation as answered."""

    revoked_at: str


class HaltReceipt(msgspec.Struct):
    """The receipt of a halt: the signature and the books may both be missing from it."""

    agent_id: str = ""
    certificate_serial: str | None = None
    halted_at: str = ""
    halt_event_id: str = ""
    receipt_signature: str | None = None
    signed_by_ca: bool = False
    audit_logged: bool = False


class Halted(msgspec.Struct):
    """A halt as answered."""

    halt_receipt: HaltReceipt


class _Envelope(msgspec.Struct):
    data: msgspec.Raw


class _Failure(msgspec.Struct):
    error: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; `hint` is its Location or its Retry-After."""

    status: int
    body: bytes
    hint: str

    def data(self, shape: type[_Shape]) -> _Shape:
        """Return the data of a good answer, or raise what the status means."""
        if not 200 <= self.status < 300:
            raise self._failure()
        return _decode(_decode(self.body, _Envelope).data, shape)

    def error_text(self) -> str:
        """Return the API's own words about a failure, or nothing."""
        with suppress(GarbledError):
            return one_line(_decode(self.body, _Failure).error)
        return ""

    def said(self) -> str:
        """Return the status and the API's own words, one line."""
        text = self.error_text() or "no error text, is base_url right?"
        return f"kakunin answered {self.status}: {text}"

    def _failure(self) -> VendorError:
        if 300 <= self.status < 400:
            where = one_line(self.hint, 120) or "nowhere"
            return RefusedError(f"kakunin answered {self.status}, a redirect to {where}: refused")
        if self.status == 429:
            return UnreachableError(
                f"{self.said()}, asks to wait {one_line(self.hint, 20) or '?'} s"
            )
        if self.status >= 500 or self.status == 408:
            return UnreachableError(self.said())
        return RefusedError(self.said())


def halted(receipt: HaltReceipt) -> Receipt:
    """Keep everything that a later check of the signature needs."""
    evidence = {
        "agent_id": receipt.agent_id,
        "certificate_serial": receipt.certificate_serial or "no-cert",
        "halt_event_id": receipt.halt_event_id,
        "halted_at": receipt.halted_at,
        "signature": receipt.receipt_signature or "",
        "signed_by_ca": str(receipt.signed_by_ca).lower(),
        "audit_logged": str(receipt.audit_logged).lower(),
    }
    signed = "signed" if receipt.signed_by_ca else "not signed"
    logged = "" if receipt.audit_logged else ", missing from kakunin's audit log"
    return Receipt(
        f"halted at {one_line(receipt.halted_at, 40)}, receipt {signed}{logged}",
        {name: one_line(value, 2048) for name, value in evidence.items()},
    )


def _decode(body: bytes | msgspec.Raw, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.json.decode(body, type=shape, strict=False)
    except (ValueError, RecursionError) as error:
        problem = one_line(str(error))
    raise GarbledError(f"kakunin's answer is not what its API promises: {problem}")
