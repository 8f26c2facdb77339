"""How the Kubernetes API reads a request: options, selectors, bodies, patches; and its refusals."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from werkzeug.wrappers import Request

from killswitch.sandbox.kubernetes_controllers import Namespace

Json = dict[str, Any]
Reply = tuple[int, Json]
_SCALED: Final = {"deployments", "statefulsets", "replicasets", "replicationcontrollers"}
KNOWN_GROUPS: Final = frozenset({"", "apps", "autoscaling", "batch"})
_PATH: Final = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[^/]+))?)?"
)
_COMMA: Final = re.compile(r",(?![^(]*\))")
_TERM: Final = re.compile(
    r"\s*(?:(!?)([\w./-]+)|([\w./-]+)\s*(==|=|!=|in|notin)\s*([\w.-]*|\([^()]*\)))\s*"
)
_ALWAYS_DETAILED: Final = (404, 405)
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
    grace_s: int | None


@dataclass(frozen=True, slots=True)
class What:
    """What a path is about, whether or not there is such a thing."""

    group: str
    namespace: str
    resource: str
    name: str = ""
    part: str = ""

    @classmethod
    def of(cls, path: str) -> "What | None":
        """Read a path of the API, or return None for another one."""
        match = _PATH.fullmatch(path)
        return (
            cls(**{key: text or "" for key, text in match.groupdict().items()}) if match else None
        )

    def served(self, groups: Mapping[str, str]) -> bool:
        """Return whether it is in a namespace, below its group in `groups`, or its scale."""
        known = groups.get(self.resource) == self.group and bool(self.namespace)
        return known and (not self.part or (self.part == "scale" and self.resource in _SCALED))


class StatusError(Exception):
    """A refusal, as the API's Status object."""

    def __init__(self, code: int, reason: str, message: str, **details: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = {key: value for key, value in details.items() if value}

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
        if self.details or self.code in _ALWAYS_DETAILED:
            status["details"] = self.details
        return status | {"code": self.code}


class NoSuchGroupError(Exception):
    """A path below no group that is installed: the API server answers it in plain text."""


def not_found(resource: str, name: str) -> StatusError:
    """Return the 404 for one object of a `resource` with its group: "deployments.apps"."""
    kind, _, group = resource.partition(".")
    message = f'{resource} "{name}" not found'
    return StatusError(404, "NotFound", message, name=name, group=group, kind=kind)


def forbidden(user: str, verb: str, what: What) -> StatusError:
    """Return the 403 of a `user` who may not do it, whether or not the thing exists."""
    full = f"{what.resource}.{what.group}" if what.group else what.resource
    named = f' "{what.name}"' if what.name and verb != "create" else ""
    below = f"{what.resource}/{what.part}" if what.part else what.resource
    message = (
        f'{full}{named} is forbidden: User "{user}" cannot {verb} resource "{below}" '
        f'in API group "{what.group}"'
    )
    if what.namespace:
        message += f' in the namespace "{what.namespace}"'
    details = {"name": what.name if named else "", "group": what.group, "kind": what.resource}
    return StatusError(403, "Forbidden", message, **details)


def nothing_at(what: What | None) -> Exception:
    """Return the 404 for a path that leads nowhere, which is a Status only below a known group."""
    if what is None or what.group not in KNOWN_GROUPS:
        return NoSuchGroupError()
    message = "the server could not find the requested resource"
    return StatusError(404, "NotFound", message)


def new_name(ask: Ask, kind: str, there: Mapping[str, object]) -> str:
    """Return the name that the body, of `kind`, gives to an object that is not `there` yet."""
    body = read_json(ask.request)
    if body.get("kind", kind) != kind:
        message = f'{body["kind"]} in version "v1" cannot be handled as a {kind}'
        raise StatusError(400, "BadRequest", message)
    if ask.space.missing:
        raise not_found("namespaces", ask.space.name)
    meta = body.get("metadata")
    name = str(meta.get("name") or "") if isinstance(meta, dict) else ""
    if not name:
        message = f'{kind} "" is invalid: metadata.name: Required value: name is required'
        raise StatusError(422, "Invalid", message)
    if name in there:
        message = f'{ask.resource} "{name}" already exists'
        raise StatusError(409, "AlreadyExists", message, name=name, kind=ask.resource)
    return name


def selected(request: Request, item: Json) -> bool:
    """Return whether the request's selectors choose `item`: its labels, or its name."""
    labels = item["metadata"].get("labels", {})
    if not all(chosen(labels) for chosen in _terms(request.args.get("labelSelector", ""))):
        return False
    named = item["metadata"]["name"]
    return all(_chooses(term, named) for term in request.args.get("fieldSelector", "").split(","))


def _chooses(term: str, name: str) -> bool:
    if term.startswith("metadata.name!="):
        return name != term.removeprefix("metadata.name!=")
    return not term or name == term.removeprefix("metadata.name=")


def _terms(selector: str) -> Iterator[Callable[[Mapping[str, str]], bool]]:
    for term in filter(None, _COMMA.split(selector)):
        match = _TERM.fullmatch(term)
        if match is None:
            message = f"unable to parse requirement: found {term!r}"
            raise StatusError(400, "BadRequest", message)
        absent, alone, key, sign, values = match.groups()
        wanted = {value.strip() for value in (values or "").strip("()").split(",")}
        if alone:
            yield partial(_has, alone, wish=not absent)
        else:
            yield partial(_is_in, key, wanted, wish=sign not in {"!=", "notin"})


def _has(key: str, labels: Mapping[str, str], *, wish: bool) -> bool:
    return (key in labels) is wish


def _is_in(key: str, values: set[str], labels: Mapping[str, str], *, wish: bool) -> bool:
    return (labels.get(key) in values) is wish


def options(request: Request) -> tuple[bool, int | None]:
    """Return whether it is a dry run, and the grace if one is asked for, also in a body."""
    body = read_json(request) if request.get_data() and request.method == "DELETE" else {}
    dry = request.args.getlist("dryRun") or body.get("dryRun") or []
    if any(value != "All" for value in dry):
        message = f'Invalid value: {dry}: supported values: "All"'
        raise StatusError(422, "Invalid", message)
    grace = request.args.get("gracePeriodSeconds", body.get("gracePeriodSeconds"))
    try:
        return bool(dry), None if grace is None else int(grace)
    except (TypeError, ValueError):
        raise StatusError(400, "BadRequest", "gracePeriodSeconds is not a number") from None


def read_json(request: Request) -> Json:
    """Return the body, which must be a JSON object, and say so."""
    if request.mimetype not in {"application/json", *_PATCH_TYPES, ""}:
        message = (
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
        raise StatusError(415, "UnsupportedMediaType", message)
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
