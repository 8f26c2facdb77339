"""A report as a JSON document: printed with --json, kept in the journal, read by other tools.

The published schema is `killswitch/schemas/report-v1.json`; a test holds every document to it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from fido2.utils import websafe_encode

from killswitch import __version__
from killswitch.exit_codes import exit_code
from killswitch.model import HaltReport, Order, Proof

if TYPE_CHECKING:
    from killswitch.authority.enrolment import Enrolment

SCHEMA_VERSION: Final = 1


def report_document(report: HaltReport, *, sandbox: bool) -> dict[str, Any]:
    """Return the whole report as plain JSON values, without any secret."""
    return {
        "schema_version": SCHEMA_VERSION,
        "document": "report",
        "killswitch": __version__,
        "sandbox": sandbox,
        "order": order_document(report.order),
        "proof": proof_document(report.proof) if report.proof else None,
        "halted": report.halted,
        "passed": report.passed,
        "exit_code": int(exit_code(report)),
        "degraded": list(report.degraded),
        "started_at": report.started_at.isoformat(timespec="milliseconds"),
        "verified_s": _rounded(report.verified_s),
        "elapsed_s": _rounded(report.elapsed_s),
        "results": [_result(msgspec.to_builtins(result)) for result in report.results],
        "not_done": [msgspec.to_builtins(note) for note in report.not_done],
    }


def order_document(order: Order) -> dict[str, Any]:
    """Return an order's fields, as they were signed."""
    fields: dict[str, Any] = msgspec.to_builtins(order)
    return fields


def proof_document(proof: Proof) -> dict[str, Any]:
    """Return a WebAuthn assertion with its binary fields as base64url."""
    return {
        "credential_id": websafe_encode(proof.credential_id),
        "client_data_json": websafe_encode(proof.client_data_json),
        "authenticator_data": websafe_encode(proof.authenticator_data),
        "signature": websafe_encode(proof.signature),
        "key_label": proof.key_label,
        "operator": proof.operator,
        "user_verified": proof.user_verified,
        "counter": proof.counter,
        "flags": proof.flags,
        "counter_regressed": proof.counter_regressed,
    }


def enrolment_document(
    enrolment: "Enrolment",
    order: Order,
    proof: Proof,
    admitted_by: Proof | None,
    admitted_by_recovery: bytes | None = None,
) -> dict[str, Any]:
    """Return what the journal keeps of an enrolment: the key, and the touches that admitted it.

    `proof` is the new key's own, `admitted_by` an enrolled key's, both on the same order.
    `admitted_by_recovery` is the recovery phrase's signature over that order, in its place.
    """
    return {
        "key": msgspec.to_builtins(enrolment.key),
        "order": order.to_bytes().decode(),
        "proof": proof_document(proof),
        "admitted_by": proof_document(admitted_by) if admitted_by else None,
        "admitted_by_recovery": (
            websafe_encode(admitted_by_recovery) if admitted_by_recovery else None
        ),
        "attestation_object": websafe_encode(enrolment.attestation_object),
        "attestation_client_data_json": websafe_encode(enrolment.attestation_client_data_json),
    }


def _result(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _times(key, value) for key, value in fields.items()}


def _times(key: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_result(item) if isinstance(item, dict) else item for item in value]
    return _rounded(value) if key.endswith("_s") else value


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
