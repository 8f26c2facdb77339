"""How a client may ask to be shown less: only the metadata of what there is."""

from typing import Final

from werkzeug.wrappers import Request

from killswitch.sandbox.kubernetes_requests import Json, Reply, StatusError

_ONE: Final = "PartialObjectMetadata"
_MANY: Final = "PartialObjectMetadataList"


def shown(request: Request, code: int, body: Json) -> Reply:
    """Return `body` as the request's Accept header asks for it."""
    wanted = _wanted(request.headers.get("Accept", ""))
    if not wanted or body.get("kind") in {None, "Status"}:
        return code, body
    if (wanted == _MANY) != ("items" in body):
        message = f"you requested {wanted}, but the requested object is a {body['kind']}"
        raise StatusError(406, "NotAcceptable", message)
    if wanted == _ONE:
        return code, _metadata(body)
    head = {"kind": _MANY, "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}
    return code, head | {"items": [_metadata(item) for item in body["items"]]}


def _wanted(accept: str) -> str:
    """Return the first kind that is asked for, if it is one of these."""
    for part in accept.partition(",")[0].split(";"):
        name, _, value = part.strip().partition("=")
        if name == "as" and value in {_ONE, _MANY}:
            return value
    return ""


def _metadata(item: Json) -> Json:
    return {"kind": _ONE, "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}
