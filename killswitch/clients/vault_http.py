"""How to speak with Vault and no further: bounded answers, no redirect, no word of a library."""

import io
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec

from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.secret import redact

if TYPE_CHECKING:
    import hvac
    import requests

MAX_BODY: Final = 4 * 1024 * 1024
_POOL: Final = 16
_WORDS: Final = {
    429: "too many requests",
    472: "a disaster recovery secondary, which serves no requests",
    473: "a performance standby that does not forward",
    501: "not initialised",
    503: "sealed or down",
}

# After 15 s of silence a probe, every 15 s; after two minutes without any answer it is cut.
_PROBES: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPALIVE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 8}
_KEPT_ALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in _PROBES.items()
        if hasattr(socket, name)
    ),
]

T = TypeVar("T")
Ask = Callable[["hvac.Client"], object]


class Errors(msgspec.Struct):
    """Vault's body for what went wrong; an empty folder has no errors, but says so."""

    errors: list[str] | None = None


def new_client(
    address: str,
    *,
    token: str,
    namespace: str | None,
    timeout_s: tuple[float, float],
    session: "requests.Session",
) -> "hvac.Client":
    """Return an hvac client that takes nothing from the environment and raises no status."""
    import hvac

    return hvac.Client(
        url=address,
        token=token,  # never None: hvac would look for one in the environment
        cert=(),  # type: ignore[arg-type]  # None would let in VAULT_CLIENT_CERT
        timeout=timeout_s,  # type: ignore[arg-type]  # handed on to requests
        allow_redirects=False,
        session=session,
        adapter=hvac.adapters.RawAdapter,
        namespace=namespace,
        ignore_exceptions=True,
    )


def new_session(ca_file: str | None, *, keep_alive: bool = False) -> "requests.Session":
    """Return a session without proxies and .netrc that reads bounded answers.

    `keep_alive`: what lies between forgets a connection that is silent for minutes.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **more: Any) -> None:
            more["socket_options"] = [
                *HTTPConnection.default_socket_options,
                *(_KEPT_ALIVE if keep_alive else ()),
            ]
            super().init_poolmanager(*args, **more)

    session = requests.Session()
    session.trust_env = False
    session.verify = _checked(ca_file) or True
    session.hooks["response"] = [_bounded]
    for scheme in ("https://", "http://"):
        session.mount(scheme, Adapter(pool_maxsize=_POOL, max_retries=0))
    return session


def _checked(ca_file: str | None) -> str | None:
    """Return the file, if certificates can be read from it."""
    if ca_file is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError is one
        why = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else ""
        raise RefusedError(
            f"the ca_file holds no certificate that can be read{': ' if why else ''}{why}"
        ) from None
    return ca_file


def _bounded(response: "requests.Response", **_: Any) -> None:
    """Read at most `MAX_BODY` of an answer before anyone else reads all of it."""
    body = response.raw.read(MAX_BODY + 1, decode_content=True)
    if len(body) > MAX_BODY:
        response.close()
        raise GarbledError(f"vault answered more than {MAX_BODY} bytes")
    response.raw = io.BytesIO(body)


def send(vault: "hvac.Client", ask: Ask) -> tuple[int, bytes]:
    """Return status and body. What the libraries say is not repeated: it may hold the token."""
    import requests
    import urllib3

    try:
        response = cast("requests.Response", ask(vault))  # what hvac's RawAdapter returns
    except requests.ConnectTimeout:
        raise UnreachableError("no connection to vault in time") from None
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise UnreachableError("vault did not answer in time") from None
    except requests.exceptions.SSLError as error:
        raise UnreachableError(
            f"the TLS certificate of vault is not accepted{_why(error)}"
        ) from None
    except requests.ConnectionError as error:
        # What was never sent cannot have been done; a later halt relies on these words.
        reason = getattr(error.args[0], "reason", None) if error.args else None
        never = isinstance(reason, urllib3.exceptions.NewConnectionError)
        cut = "" if never else ", or it was cut"
        raise UnreachableError(f"no connection to vault{cut}") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise GarbledError(f"no whole answer from vault ({type(error).__name__})") from None
    except OSError as error:
        raise UnreachableError(f"no connection to vault ({type(error).__name__})") from None
    return response.status_code, response.content


def _why(error: Exception) -> str:
    """Return what OpenSSL holds against a certificate, which is all that is repeated of it."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    inner = reason.args[0] if reason is not None and reason.args else None
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f": {plain(inner.verify_message).rstrip('.')}"
    return ""


def not_ok(status: int, body: bytes) -> VendorError:
    """Return the error that a status stands for, with Vault's own words."""
    try:
        said = parse(body, Errors)
        lines = [line.strip(" \t*") for text in said.errors or [] for line in text.splitlines()]
    except GarbledError:
        lines = []
    text = ", ".join(line for line in lines if line and "occurred:" not in line)
    text = plain(text) or _WORDS.get(status, "")
    problem = f"vault answered {status}" + (f": {text}" if text else "")
    if 300 <= status < 400:
        hint = "a redirect, which is not followed: give the address of the active node"
        return RefusedError(f"{problem}: {hint}")
    if status in {401, 403}:
        return RefusedError(problem)
    if status in {412, 429, 472, 473} or status >= 500:
        return UnreachableError(problem)
    return GarbledError(problem)


def parse(body: bytes, shape: type[T]) -> T:
    """Return the JSON `body` as `shape`, or raise GarbledError."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise GarbledError("vault answered something that is not its api's json") from None


def plain(text: str) -> str:
    """Return `text` as one short printable line without secrets."""
    return redact("".join(char if char.isprintable() else "?" for char in text))[:300]
