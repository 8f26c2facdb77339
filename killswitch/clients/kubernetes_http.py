"""One bounded HTTP line to an API server, through the official client's raw call.

Its typed classes cost a second at the start, and raise after the server has acted when an answer
is not to their taste; by default it has no time-outs, retries reads and honours proxies.
"""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from killswitch.clients.kubeconfig import Access
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.secret import Secret, redact

if TYPE_CHECKING:
    from kubernetes.client.api_client import ApiClient
    from urllib3 import BaseHTTPResponse

MAX_BODY: Final = 4 << 20
JSON: Final = "application/json"
ONLY_METADATA: Final = f"{JSON};as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
"""What to accept so that an object's own content is left out of the answer."""
_CHUNK: Final = 1 << 16
_MERGE_PATCH: Final = "application/merge-patch+json"
_NO_LINE_S: Final = 1.0
_LONGEST: Final = 300
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: any HTTP status. `date` is the server's own clock, to the second."""

    code: int
    body: bytes = field(repr=False)  # of a DELETE it may be what was deleted
    date: datetime | None
    location: str = ""


class _Status(msgspec.Struct):
    message: str = ""


class Line:
    """Sends requests to one API server; safe to share between threads."""

    def __init__(self, access: Access, timeout_s: tuple[float, float]) -> None:
        self._access = access
        self._timeout_s = timeout_s
        self._host = urlsplit(access.server).netloc
        self._api = _api_client(access)
        self._no_line = ""
        self._no_line_until = 0.0

    def use(self, authorization: Secret) -> None:
        """Show this credential from now on, in place of the kubeconfig's."""
        self._access = replace(self._access, authorization=authorization)

    def send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        query: Mapping[str, str],
        body: Mapping[str, object] | None = None,
        *,
        accept: str = JSON,
        show_credential: bool = True,
    ) -> Answer:
        """Send one request, once; `params` fill the braces of `path`.

        Raises UnreachableError without an HTTP answer, RefusedError for a certificate that does
        not verify, GarbledError for an answer that was cut off or is too large.
        """
        # A host that takes no connection takes none for the next question of the same look.
        if method == "GET" and self._no_line and time.monotonic() < self._no_line_until:
            raise UnreachableError(self._no_line)
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = _MERGE_PATCH if method == "PATCH" else JSON
        if show_credential and self._access.authorization:
            headers["Authorization"] = self._access.authorization.reveal()
        request = self._api.param_serialize(
            method, path, dict(params), list(query.items()), headers, body
        )
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            reply = self._api.call_api(*request, _request_timeout=self._timeout_s)
            return self._read(reply.response)
        except _CutError as error:
            problem: VendorError = GarbledError(f"the answer of {self._host} is {error}")
        except (HTTPError, ApiException, OSError) as error:
            problem = self._explain(error)
        # Outside the handler: the vendor's error holds the request, and with it the credential.
        raise problem

    def _read(self, response: "BaseHTTPResponse") -> Answer:
        deadline = time.monotonic() + self._timeout_s[1]
        body = bytearray()
        while chunk := response.read1(_CHUNK):
            body += chunk
            if len(body) > MAX_BODY or time.monotonic() > deadline:
                response.close()
                cause = "too large" if len(body) > MAX_BODY else "dripping in too slowly"
                raise _CutError(cause)
        location = response.headers.get("Location", "").partition("?")[0]
        return Answer(response.status, bytes(body), _date(response.headers), location)

    def _explain(self, error: Exception) -> VendorError:
        from urllib3 import exceptions as http

        host = self._host
        connect_s, read_s = self._timeout_s
        problem: VendorError = UnreachableError(f"the connection to {host} was cut")
        match error:
            case http.NewConnectionError() | http.ConnectTimeoutError():
                self._no_line = f"{host} takes no connection"
                if isinstance(error, http.NameResolutionError):
                    self._no_line = f"the name of {host} cannot be resolved"
                elif not isinstance(error, http.NewConnectionError):
                    self._no_line = f"no connection to {host} within {connect_s:g} s"
                self._no_line_until = time.monotonic() + _NO_LINE_S
                problem = UnreachableError(self._no_line)
            case http.ReadTimeoutError():
                problem = UnreachableError(f"{host} did not answer within {read_s:g} s")
            case http.ProtocolError() if _cut_short(error):
                problem = GarbledError(f"the answer of {host} was cut off")
            case _ if "CERTIFICATE_VERIFY_FAILED" in str(error):
                problem = RefusedError(f"the certificate of {host} does not verify")
            case _:
                pass
        return problem


class _CutError(Exception):
    """We stopped reading."""


def expect_ok(answer: Answer) -> Answer:
    """Return `answer` if it says yes; else raise what its status means, in words."""
    code = answer.code
    if 200 <= code < 300:
        return answer
    said = _message(answer)
    match code:
        case 401:
            raise RefusedError("the token was not accepted (401): expired, or of another cluster")
        case 403:
            raise RefusedError(f"not allowed (403){said}")
        case _ if 300 <= code < 400:
            raise RefusedError(redact(f"redirected ({code}) to {answer.location[:_LONGEST]}"))
        case 408 | 409 | 410 | 429:
            raise UnreachableError(f"not now ({code}){said}")
        case _ if code >= 500 or code < 200:
            raise UnreachableError(f"the server is not well ({code}){said}")
    raise RefusedError(f"refused ({code}){said}")


def parse(answer: Answer, kind: type[_T]) -> _T:
    """Return the body as `kind`; GarbledError if it is not."""
    try:
        return msgspec.json.decode(answer.body, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise GarbledError(f"the answer ({answer.code}) is not what the API sends") from None


def _date(headers: Mapping[str, str]) -> datetime | None:
    try:
        date = parsedate_to_datetime(headers["Date"])
    except (KeyError, ValueError):
        return None
    return date if date.tzinfo else None


def _message(answer: Answer) -> str:
    try:
        said = msgspec.json.decode(answer.body, type=_Status).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    line = " ".join(redact(said).split())
    return f": {line[:_LONGEST]}" if line else ""


def _cut_short(error: Exception) -> bool:
    from urllib3.exceptions import IncompleteRead

    return any(isinstance(part, IncompleteRead) for part in (error, *error.args))


def _api_client(access: Access) -> "ApiClient":
    import urllib3
    from kubernetes.client.api_client import ApiClient
    from kubernetes.client.configuration import Configuration

    # Set before the client is made: afterwards `retries` is ignored. No proxy of the environment.
    configuration = Configuration(host=access.server, retries=False, proxy="", no_proxy="")
    api = ApiClient(configuration)
    api.user_agent = "killswitch"
    # Our own pool: the client's wants the key as a file, for as long as it lives.
    pool = urllib3.PoolManager(maxsize=8, retries=False)
    if access.tls is not None:
        pool.connection_pool_kw["ssl_context"] = access.tls
        if access.tls.verify_mode is ssl.CERT_NONE:  # loopback only; the library warns each time
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    if access.tls_server_name:
        pool.connection_pool_kw["server_hostname"] = access.tls_server_name
    api.rest_client.pool_manager = pool
    return api
