"""How the Kubernetes API reads a request: options, selectors, bodies, patches; and its refusals."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from werkzeug.wrappers import Request

from killswitch.sandbox.kubernetes_controllers import Namespace

Json = dict[str, Any]
Reply = tuple[int, Json]
DEFAULT_GRACE_S: Final = 30
_PATCH_TYPES: Final = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request that was let in, taken apart."""

    request: Request
    space: Namespace
    resource: str
    name: str
    dry_run: bool
    grace_s: int


class StatusError(Exception):
    """A refusal, as the API's Status object."""

    def __init__(self, code: int, reason: str, message: str, **details: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def body(self) -> Json:
        """Return the Status object."""
        status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}


def not_found(resource: str, name: str) -> StatusError:
    """Return the 404 for one object."""
    message = f'{resource} "{name}" not found'
    return StatusError(404, "NotFound", message, name=name, kind=resource.partition(".")[0])


def new_name(request: Request, kind: str) -> str:
    """Return the name that a body of `kind` gives to a new object."""
    body = read_json(request)
    if body.get("kind", kind) != kind:
        raise StatusError(400, "BadRequest", f"the kind is not {kind}")
    meta = body.get("metadata")
    if not isinstance(meta, dict) or not meta.get("name"):
        raise StatusError(422, "Invalid", "name or generateName is required")
    return str(meta["name"])


def selected(request: Request, item: Json) -> bool:
    """Return whether the request's selectors choose `item`: labels by equality, or the name."""
    labels = item["metadata"].get("labels", {})
    for term in filter(None, request.args.get("labelSelector", "").split(",")):
        key, equals, value = term.replace("==", "=").partition("=")
        wanted = key.rstrip("!")
        same = labels.get(wanted) == value if equals else wanted in labels
        if same == (equals != "" and key.endswith("!")):
            return False
    name = request.args.get("fieldSelector", "").removeprefix("metadata.name=")
    return not name or item["metadata"]["name"] == name


def options(request: Request) -> tuple[bool, int]:
    """Return whether it is a dry run, and the grace: from the query, or a DELETE's body."""
    body = read_json(request) if request.get_data() and request.method == "DELETE" else {}
    dry = request.args.getlist("dryRun") or body.get("dryRun") or []
    if any(value != "All" for value in dry):
        message = f'Invalid value: {dry}: supported values: "All"'
        raise StatusError(422, "Invalid", message)
    grace = request.args.get("gracePeriodSeconds", body.get("gracePeriodSeconds"))
    try:
        return bool(dry), DEFAULT_GRACE_S if grace is None else int(grace)
    except (TypeError, ValueError):
        raise StatusError(400, "BadRequest", "gracePeriodSeconds is not a number") from None


def read_json(request: Request) -> Json:
    """Return the body, which must be a JSON object."""
    try:
        body = json.loads(request.get_data())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise StatusError(400, "BadRequest", "the object provided is unrecognized")
    return body


def patched(request: Request, current: Mapping[str, Any]) -> Json:
    """Apply the request's patch to `current`: JSON patch, merge patch or strategic merge."""
    if request.mimetype not in _PATCH_TYPES:
        accepted = ", ".join(_PATCH_TYPES)
        message = (
            "the body of the request was in an unknown format - "
            f"accepted media types include: {accepted}"
        )
        raise StatusError(415, "UnsupportedMediaType", message)
    if request.mimetype == _PATCH_TYPES[0]:
        return _json_patched(request, json.loads(json.dumps(current)))
    return _merged(current, read_json(request))


def _merged(current: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    merged = dict(current)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = _merged(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _json_patched(request: Request, result: Json) -> Json:
    try:
        for step in json.loads(request.get_data()):
            *path, last = step["path"].strip("/").split("/")
            below = result
            for part in path:
                below = below[part]
            if step["op"] == "remove":
                del below[last]
            else:
                below[last] = step["value"]
    except (ValueError, KeyError, TypeError):
        raise StatusError(422, "Invalid", "the patch cannot be applied") from None
    return result
