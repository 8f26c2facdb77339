"""KV secrets engines, versions 1 and 2, as Vault's sandbox keeps and answers them."""

import secrets
import uuid
from dataclasses import dataclass, field, replace
from typing import Final

from killswitch.sandbox.vault_answers import (
    DONE,
    NOTHING,
    Answer,
    Json,
    envelope,
    stamp,
    unsupported,
)

MAX_VERSIONS: Final = 10
_WRONG_VERSION: Final = (
    "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API "
    "endpoints to use. If using the Vault CLI, use 'vault kv {}' for this operation."
)
_WRITES: Final = {"POST", "PUT"}
_VERBS: Final = {"GET": "get", "LIST": "list", "DELETE": "delete", "POST": "put", "PUT": "put"}


@dataclass(slots=True)
class Version:
    """One version of a KV v2 secret; `deleted_at` is empty unless it is soft-deleted."""

    data: Json | None
    created_at: str
    created_by: Json
    deleted_at: str = ""
    deleted_by: Json | None = None
    destroyed: bool = False


@dataclass(slots=True)
class Entry:
    """One KV v2 secret: its metadata and versions by number."""

    created_at: str
    versions: dict[int, Version] = field(default_factory=dict)
    current: int = 0
    max_versions: int = 0
    custom: Json | None = None


@dataclass(slots=True)
class Mount:
    """One KV mount. `v1` or `v2` holds the secrets, by path; `ready_at` ends its upgrade."""

    path: str
    version: int
    description: str = ""
    ready_at: float = 0.0
    moved_to: str = ""  # the trap of a renamed mount
    claims: int = 0  # the trap of another version than the one it was made with
    unmounted: bool = False  # told to go; listed until its data is erased
    tainted: bool = False  # unreadable: unmounted, or the trap of a mount that is half erased
    v1: dict[str, Json] = field(default_factory=dict)
    v2: dict[str, Entry] = field(default_factory=dict)
    accessor: str = field(default_factory=lambda: f"kv_{secrets.token_hex(4)}")
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def where(self) -> str:
        """Return the path that requests find the mount under."""
        return self.moved_to or self.path

    @property
    def names(self) -> list[str]:
        """Return the paths of all secrets in the mount."""
        return sorted(self.v1 if self.version == 1 else self.v2)

    def put(self, name: str, data: Json, *, now: float = 0.0, client_id: str = "") -> None:
        """Write a secret as the books' owner, past tokens and policies."""
        if self.version == 1:
            self.v1[name] = data
        else:
            _add_version(self, name, data, now=now, client_id=client_id)

    def drop(self, name: str) -> None:
        """Erase a secret from storage."""
        self.v1.pop(name, None)
        self.v2.pop(name, None)

    def has(self, inner: str) -> bool:
        """Return whether a write to `inner`, a path inside the mount, is an update."""
        return inner in self.v1 or inner.removeprefix("data/") in self.v2

    def downgrade(self) -> None:
        """Turn a version 2 mount into a version 1 mount with the same secrets."""
        for name, entry in self.v2.items():
            newest = entry.versions.get(entry.current)
            self.v1[name] = (newest.data if newest else None) or {}
        self.version, self.v2 = 1, {}


@dataclass(frozen=True, slots=True)
class Call:
    """One request inside a mount; `path` has no mount, and ends in "/" for a LIST."""

    method: str
    path: str
    body: Json
    version: int
    now: float
    client_id: str


def answer_kv(mount: Mount, call: Call) -> Answer:
    """Answer one request inside `mount`, by its version."""
    if mount.claims and mount.version == 2:
        mount.downgrade()
    if call.now < mount.ready_at:
        text = "Upgrading from non-versioned to versioned data. This backend will be unavailable "
        return 400, {"errors": [text + "for a brief period and will resume service shortly."]}
    return _answer_v1(mount, call) if mount.version == 1 else _answer_v2(mount, call)


def _answer_v1(mount: Mount, call: Call) -> Answer:
    match call.method:
        case "LIST":
            return _listing(sorted(mount.v1), call.path)
        case "GET":
            data = mount.v1.get(call.path)
            answer = {**envelope(data), "lease_duration": 2764800}
            return NOTHING if data is None else (200, answer)
        case "DELETE":
            mount.v1.pop(call.path, None)
            return DONE
        case "POST" | "PUT" if call.body:
            mount.v1[call.path] = call.body
            return DONE
        case "POST" | "PUT":
            return 400, {"errors": ["missing data fields"]}
        case _:
            return unsupported()


def _answer_v2(mount: Mount, call: Call) -> Answer:
    area, _, name = call.path.partition("/")
    inner = replace(call, path=name)
    match area:
        case "data":
            return _data(mount, inner)
        case "metadata":
            return _metadata(mount, inner)
        case "delete" | "undelete" | "destroy":
            return _versions(mount, area, inner) if call.method in _WRITES else unsupported()
        case _:
            text = _WRONG_VERSION.format(_VERBS.get(call.method, "get"))
            return 404, envelope(None, mount_type="", warnings=[text])


def _listing(names: list[str], folder: str) -> Answer:
    rests = [name.removeprefix(folder) for name in names if name.startswith(folder)]
    keys = {rest.split("/", 1)[0] + ("/" if "/" in rest else "") for rest in rests}
    return (200, envelope({"keys": sorted(keys)})) if keys else NOTHING


def _data(mount: Mount, call: Call) -> Answer:
    match call.method:
        case "GET":
            return _read(mount.v2.get(call.path), call.version)
        case "POST" | "PUT" if isinstance(call.body.get("data"), dict):
            data = call.body["data"]
            number = _add_version(mount, call.path, data, now=call.now, client_id=call.client_id)
            return 200, envelope(_about(mount.v2[call.path], number))
        case "POST" | "PUT":
            return 400, {"errors": ["no data provided"]}
        case "DELETE":
            found = mount.v2.get(call.path)
            if found and found.current in found.versions:
                _soft_delete(found.versions[found.current], call)
            return DONE
        case _:
            return unsupported()


def _read(entry: Entry | None, number: int) -> Answer:
    number = number or (entry.current if entry else 0)
    if entry is None or number not in entry.versions:
        return NOTHING
    version = entry.versions[number]
    gone = bool(version.deleted_at) or version.destroyed
    data = {"data": None if gone else version.data, "metadata": _about(entry, number)}
    return (404, envelope(data, mount_type="")) if gone else (200, envelope(data))


def _about(entry: Entry, number: int) -> Json:
    version = entry.versions[number]
    return {
        "created_time": version.created_at,
        "custom_metadata": entry.custom,
        "deletion_time": version.deleted_at,
        "destroyed": version.destroyed,
        "version": number,
    }


def _metadata(mount: Mount, call: Call) -> Answer:
    entry = mount.v2.get(call.path)
    match call.method:
        case "LIST":
            return _listing(sorted(mount.v2), call.path)
        case "GET":
            return NOTHING if entry is None else (200, envelope(_all_about(entry)))
        case "POST" | "PUT":
            entry = mount.v2.setdefault(call.path, Entry(stamp(call.now)))
            entry.custom = call.body.get("custom_metadata", entry.custom)
            entry.max_versions = int(call.body.get("max_versions", entry.max_versions))
            return DONE
        case "DELETE":
            mount.v2.pop(call.path, None)
            return DONE
        case _:
            return unsupported()


def _all_about(entry: Entry) -> Json:
    newest = entry.versions.get(entry.current)
    return {
        "cas_required": False,
        "created_time": entry.created_at,
        "current_version": entry.current,
        "custom_metadata": entry.custom,
        "delete_version_after": "0s",
        "last_updated_by": newest.created_by if newest else None,
        "max_versions": entry.max_versions,
        "oldest_version": min(entry.versions) if 1 not in entry.versions else 0,
        "updated_time": newest.created_at if newest else entry.created_at,
        "versions": {
            str(number): {
                "created_by": version.created_by,
                "created_time": version.created_at,
                "deleted_by": version.deleted_by,
                "deletion_time": version.deleted_at,
                "destroyed": version.destroyed,
            }
            for number, version in entry.versions.items()
        },
    }


def _versions(mount: Mount, area: str, call: Call) -> Answer:
    numbers = call.body.get("versions") or []
    if not numbers:
        return 400, {"errors": ["No version number provided"]}
    entry = mount.v2.get(call.path)
    kept = entry.versions if entry else {}
    for version in [kept[int(number)] for number in numbers if int(number) in kept]:
        if area == "destroy":
            version.destroyed, version.data = True, None
        elif area == "undelete":
            version.deleted_at, version.deleted_by = "", None
        else:
            _soft_delete(version, call)
    return DONE


def _soft_delete(version: Version, call: Call) -> None:
    if not version.destroyed and not version.deleted_at:
        version.deleted_at = stamp(call.now)
        version.deleted_by = _actor("delete", call.client_id)


def _add_version(mount: Mount, name: str, data: Json, *, now: float, client_id: str) -> int:
    entry = mount.v2.setdefault(name, Entry(stamp(now)))
    operation = "update" if entry.versions else "create"
    entry.current += 1
    entry.versions[entry.current] = Version(data, stamp(now), _actor(operation, client_id))
    for number in sorted(entry.versions)[: -(entry.max_versions or MAX_VERSIONS)]:
        del entry.versions[number]
    return entry.current


def _actor(operation: str, client_id: str) -> Json:
    return {"actor": "token", "operation": operation, "client_id": client_id}
