"""How the API server answers for the objects it keeps as they came: list, get, patch."""

from werkzeug.wrappers import Request

from killswitch.sandbox.kubernetes_controllers import World
from killswitch.sandbox.kubernetes_objects import OPEN
from killswitch.sandbox.kubernetes_requests import (
    Json,
    NoSuchGroupError,
    Reply,
    StatusError,
    What,
    not_found,
    nothing_at,
    options,
    patched,
)


def opened(world: World, what: What, verb: str, request: Request) -> Reply:
    """Answer one request; a kind that is not installed is not there."""
    group, version, kind = OPEN[what.resource]
    if group not in world.objects.installed:
        raise NoSuchGroupError
    if what.group != group or f"/{version}/" not in request.path or what.part:
        raise nothing_at(what)
    if verb == "list":
        listed = {"kind": f"{kind}List", "apiVersion": f"{group}/{version}"}
        items = world.objects.listed(what.resource, what.namespace)
        return 200, listed | {"metadata": {"resourceVersion": "1000"}, "items": items}
    body = world.objects.there.get((what.resource, what.namespace, what.name))
    if body is None:
        raise not_found(f"{what.resource}.{group}", what.name)
    if verb == "get":
        return 200, body
    if verb == "patch":
        return 200, _patched(body, request)
    message = "the server does not allow this method on the requested resource"
    raise StatusError(405, "MethodNotAllowed", message)


def _patched(body: Json, request: Request) -> Json:
    if request.mimetype == "application/strategic-merge-patch+json":
        message = (
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json-patch+json, application/merge-patch+json"
        )
        raise StatusError(415, "UnsupportedMediaType", message)
    after = patched(request, body)
    if not options(request)[0]:
        body.update(after)
    return after
