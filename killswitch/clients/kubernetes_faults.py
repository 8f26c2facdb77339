"""What goes wrong on the way to an API server, and what its refusals mean, in words."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError

if TYPE_CHECKING:
    from urllib3.exceptions import HTTPError

_READ_TIMEOUT: Final = re.compile(r"read timeout=([0-9.]+)")
# What OpenSSL says, and what it means; the first that fits. {} is the host.
_TLS: Final[tuple[tuple[str, Callable[[str], VendorError], str], ...]] = (
    (
        "MISMATCH, CERTIFICATE IS NOT VALID FOR",
        RefusedError,
        "the certificate of {} does not verify: it is for another name (see tls-server-name)",
    ),
    (
        "VERIFY FAILED: CERTIFICATE HAS EXPIRED",
        RefusedError,
        "the certificate of {} does not verify: it has expired",
    ),
    (
        "VERIFY FAILED: CERTIFICATE IS NOT YET VALID",
        RefusedError,
        "the certificate of {} does not verify: it is not valid yet, or this clock is wrong",
    ),
    (
        "CERTIFICATE VERIFY FAILED",
        RefusedError,
        "the certificate of {} does not verify: not by the kubeconfig's certificate-authority",
    ),
    ("ALERT CERTIFICATE EXPIRED", RefusedError, "{} says that the client certificate has expired"),
    (
        "ALERT UNKNOWN CA",
        RefusedError,
        "{} says that the client certificate is of an authority that it does not know",
    ),
    ("ALERT CERTIFICATE REQUIRED", RefusedError, "{} wants a client certificate"),
    ("ALERT BAD CERTIFICATE", RefusedError, "{} does not take the client certificate"),
    ("ALERT CERTIFICATE REVOKED", RefusedError, "{} says that the client certificate is revoked"),
    ("ALERT HANDSHAKE FAILURE", RefusedError, "{} refuses the TLS handshake"),
    ("WRONG VERSION NUMBER", GarbledError, "{} does not answer in TLS: is this a plain http port?"),
    ("HTTP REQUEST", GarbledError, "{} does not answer in TLS: is this a plain http port?"),
    ("RECORD LAYER FAILURE", GarbledError, "{} does not answer in TLS: is this a plain http port?"),
)


def explain_no_connection(error: Exception, host: str, connect_s: float) -> str:
    """Return why `host` takes no connection; "" when that is not what `error` says."""
    from urllib3 import exceptions as http

    match error:
        case http.ProxyError():
            cause = error.original_error
            if isinstance(cause, http.NewConnectionError | http.ConnectTimeoutError):
                return f"the kubeconfig's proxy-url {explain_no_connection(cause, 'it', connect_s)}"
            return ""
        case http.NameResolutionError():
            return f"the name of {host} cannot be resolved"
        case http.NewConnectionError():
            return f"{host} takes no connection"
        case http.ConnectTimeoutError():
            return f"no connection to {host} within {connect_s:g} s"
        case _:
            return ""


def explain(error: Exception, host: str) -> VendorError:
    """Return what a broken request means, without any text that the vendor's error holds."""
    from urllib3 import exceptions as http

    match error:
        case http.ReadTimeoutError():
            limit = _READ_TIMEOUT.search(str(error))
            return UnreachableError(
                f"{host} did not answer within {float(limit[1]):g} s"
                if limit
                else f"{host} did not answer in time"
            )
        case http.ProxyError():
            return UnreachableError(f"the kubeconfig's proxy-url does not lead to {host}")
        case http.ProtocolError() if _holds(error, "IncompleteRead"):
            return GarbledError(f"the answer of {host} was cut off")
        case http.ProtocolError() | http.InvalidHeader() if _holds(
            error,
            "BadStatusLine",
            "LineTooLong",
            "UnknownProtocol",
            "HTTPException",
            "InvalidHeader",
        ):
            return GarbledError(f"what {host} answers is not HTTP")
        case _:
            return _tls_fault(error, host) or UnreachableError(f"the connection to {host} was cut")


def _tls_fault(error: Exception, host: str) -> VendorError | None:
    said = str(error).upper().replace("_", " ")
    for sign, kind, words in _TLS:
        if sign in said:
            return kind(words.format(host))
    return None


def _holds(error: "HTTPError", *names: str) -> bool:
    """Return whether `error` is, or wraps, an error of exactly one of these names."""
    return any(type(part).__name__ in names for part in (error, *error.args))
