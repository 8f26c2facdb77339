"""Plain JSON over HTTP, with no client of ours in between."""

import http.client
import json
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MERGE_PATCH = "application/merge-patch+json"


class Http:
    """Sends JSON requests, each on a connection of its own."""

    def __init__(
        self, url: str, *, ca_file: Path | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self._url = urllib.parse.urlsplit(url)
        self._context = ssl.create_default_context(cafile=ca_file) if ca_file else None
        self._headers = dict(headers or {})

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10,
    ) -> tuple[int, Any]:
        """Return the status and the parsed answer (None when there is none).

        A body that is a string is sent as it is, anything else as JSON; a PATCH is a merge patch
        unless said otherwise. Raises OSError and HTTPException as they come: nothing is sent twice.
        """
        if query:
            path += "?" + urllib.parse.urlencode(query)
        content = content_type or (MERGE_PATCH if method == "PATCH" else "application/json")
        text = body if isinstance(body, str) else json.dumps(body)
        data = None if body is None else text.encode()
        sent = {**self._headers, "Content-Type": content, "Accept": "application/json"}
        connection = self._connection(timeout_s)
        try:
            connection.request(method, path, data, {**sent, **(headers or {})})
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        return answer.status, _parsed(raw)

    def lines(self, path: str, *, query: Mapping[str, object], timeout_s: float) -> Iterator[bytes]:
        """Yield the lines of an answer as they come, until the server ends it."""
        connection = self._connection(timeout_s)
        try:
            connection.request(
                "GET", f"{path}?{urllib.parse.urlencode(query)}", headers=self._headers
            )
            yield from connection.getresponse()
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._context is None:
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._context)


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw.decode(errors="replace")
