"""How Vault frames what it answers."""

import uuid
from datetime import UTC, datetime
from typing import Any, Final

Json = dict[str, Any]
Answer = tuple[int, Json | None]  # the status, and the body or None

DONE: Final[Answer] = (204, None)
NOTHING: Final[Answer] = (404, {"errors": []})


def envelope(
    data: Json | None, *, mount_type: str = "kv", warnings: list[str] | None = None
) -> Json:
    """Return Vault's frame around an answer."""
    return {
        "request_id": str(uuid.uuid4()),
        "lease_id": "",
        "renewable": False,
        "lease_duration": 0,
        "data": data,
        "wrap_info": None,
        "warnings": warnings,
        "auth": None,
        "mount_type": mount_type,
    }


def stamp(now: float) -> str:
    """Return RFC 3339 with nine digits, as Vault writes times."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def unsupported() -> Answer:
    """Return Vault's refusal of a method that a path does not have."""
    return 405, {"errors": ["1 error occurred:\n\t* unsupported operation\n\n"]}
