"""One bounded HTTP line to an API server, through the official client's raw call.

Its typed classes cost a second at the start, and raise after the server has acted when an answer
is not to their taste; by default it has no time-outs, retries reads and honours proxies.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from killswitch.clients.kubeconfig import Access
from killswitch.clients.kubeconfig_credential import Credential
from killswitch.clients.kubernetes_faults import explain, explain_no_connection
from killswitch.clients.kubernetes_pool import CutError, make_pool
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.secret import redact

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
_SILENT_S: Final = 10.0
_PLAIN_TO_TLS: Final = b"HTTP request to an HTTPS server"
_LONGEST: Final = 300
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: any HTTP status. `date` is the server's own clock, to the second.

    `shown` names the credential that was shown, `shown_until` is when it says it ends.
    """

    code: int
    body: bytes = field(repr=False)  # of a DELETE it may be what was deleted
    date: datetime | None
    location: str = ""
    shown: str = "the token"
    shown_until: datetime | None = None


class _Details(msgspec.Struct):
    name: str = ""
    kind: str = ""


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    details: _Details | None = None


class Line:
    """Sends requests to one API server; safe to share between threads."""

    def __init__(self, access: Access, timeout_s: tuple[float, float]) -> None:
        self._access = access
        self._timeout_s = timeout_s
        self._host = urlsplit(access.server).netloc
        self._api = _api_client(access, timeout_s[1])
        self._no_line = ""
        self._no_line_until = 0.0
        self._answered_at = -_SILENT_S

    def use(self, credential: Credential) -> None:
        """Show this credential from now on, in place of the kubeconfig's."""
        self._access = replace(self._access, credential=credential)

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
        if show_credential:
            headers |= self._access.headers
            if shown := self._access.credential.header():
                headers["Authorization"] = shown
        request = self._api.param_serialize(
            method, path, dict(params), list(query.items()), headers, body
        )
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            reply = self._api.call_api(*request, _request_timeout=self._timeout_s)
            return self._read(reply.response)
        except CutError as error:
            problem: VendorError = GarbledError(f"the answer of {self._host} is {error}")
        except (HTTPError, ApiException, OSError) as error:
            problem = self._explain(error)
        # Outside the handler: the vendor's error holds the request, and with it the credential.
        raise problem

    def _read(self, response: "BaseHTTPResponse") -> Answer:
        deadline = time.monotonic() + self._timeout_s[1]
        self._answered_at = time.monotonic()
        body = bytearray()
        while chunk := response.read1(_CHUNK):
            body += chunk
            if len(body) > MAX_BODY or time.monotonic() > deadline:
                response.close()
                cause = "too large" if len(body) > MAX_BODY else "dripping in too slowly"
                raise CutError(cause)
        location = response.headers.get("Location", "").partition("?")[0]
        credential = self._access.credential
        return Answer(
            response.status,
            bytes(body),
            _date(response.headers),
            location,
            credential.what,
            credential.expires_at,
        )

    def _explain(self, error: Exception) -> VendorError:
        from urllib3.exceptions import ReadTimeoutError

        if no_line := explain_no_connection(error, self._host, self._timeout_s[0]):
            return self._remember(UnreachableError(no_line))
        problem = explain(error, self._host)
        # Silence of a host that answered a moment ago is that one question's; else it is the
        # host's, and each other question of the same look would wait as long.
        silent = time.monotonic() - self._answered_at > _SILENT_S
        if isinstance(error, ReadTimeoutError) and silent:
            return self._remember(UnreachableError(problem.problem))
        return problem

    def _remember(self, problem: UnreachableError) -> UnreachableError:
        self._no_line = problem.problem
        self._no_line_until = time.monotonic() + _NO_LINE_S
        return problem


def expect_ok(answer: Answer) -> Answer:
    """Return `answer` if it says yes; else raise what its status means, in words."""
    code = answer.code
    if 200 <= code < 300:
        return answer
    said = _message(answer)
    match code:
        case 401:
            raise RefusedError(f"{answer.shown} was not accepted (401): {_why_not(answer)}")
        case 403:
            raise RefusedError(f"not allowed (403){said}")
        case _ if 300 <= code < 400:
            raise RefusedError(redact(f"redirected ({code}) to {answer.location[:_LONGEST]}"))
        case 408 | 409 | 410 | 429:
            raise UnreachableError(f"not now ({code}){said}")
        case _ if code >= 500 or code < 200:
            raise UnreachableError(f"the server is not well ({code}){said}")
    if _PLAIN_TO_TLS in answer.body[:_LONGEST]:
        said = ": this port wants https"
    raise RefusedError(f"refused ({code}){said}")


def _why_not(answer: Answer) -> str:
    if answer.shown_until is not None and answer.shown_until <= (answer.date or datetime.now(UTC)):
        return f"expired at {answer.shown_until:%Y-%m-%d %H:%M} UTC"
    return "expired, or of another cluster"


def is_gone(answer: Answer, resource: str, name: str) -> bool:
    """Return whether the answer says that this very object is not there.

    A 404 alone may be of a group or a version that is not served, or of something between.
    """
    if answer.code != 404:
        return False
    try:
        status = msgspec.json.decode(answer.body, type=_Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    details = status.details or _Details()
    return (status.reason, details.kind, details.name) == ("NotFound", resource, name)


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


def _api_client(access: Access, read_s: float) -> "ApiClient":
    from kubernetes.client.api_client import ApiClient
    from kubernetes.client.configuration import Configuration

    # Set before the client is made: afterwards `retries` is ignored. No proxy of the environment.
    configuration = Configuration(host=access.server, retries=False, proxy="", no_proxy="")
    api = ApiClient(configuration)
    api.user_agent = "killswitch"
    api.rest_client.pool_manager = make_pool(access, read_s)
    return api
