"""What the sandbox's Vault holds at first, and the policy that can end it."""

import socket
from collections.abc import Iterable, Mapping
from typing import Final

from werkzeug.wrappers import Request

from killswitch.sandbox.vault_auth import login_of

WORLD: Final[Mapping[str, Mapping[str, str]]] = {
    "trading/bybit/main-desk": {"key": "made-up", "secret": "made-up"},
    "trading/bybit/held/101": {"key": "made-up", "secret": "made-up"},
    "trading/bybit/held/102": {"key": "made-up", "secret": "made-up"},
    "trading/kakunin": {"api_key": "made-up"},
    "trading/kakunin/bot-1": {"certificate": "made-up"},
    "trading/freqtrade/config": {"jwt_secret": "made-up"},
    "trading/freqtrade/api 100% ü;&+#?": {"password": "made-up"},
    "trading/telegram/ops": {"bot": "made-up"},
}


ROLES: Final[Mapping[str, Mapping[str, str]]] = {
    "auth/kubernetes/role/eso": {"token_type": "default"},
    "auth/approle/role/bot": {"token_type": "default"},
}


def minimal_policy(mounts: Mapping[str, int], roles: Iterable[str] = ()) -> str:
    """Return the least that lets a token wipe the mounts and end the roles; it reads no secret."""
    rules = []
    for path, version in mounts.items():
        keys = f"{path}metadata/*" if version == 2 else f"{path}*"
        rules += [
            f'path "{keys}" {{ capabilities = ["list", "delete"] }}',
            f'path "sys/mounts/{path.rstrip("/")}" {{ capabilities = ["delete"] }}',
        ]
    rules += [f'path "{role}" {{ capabilities = ["read", "delete"] }}' for role in roles]
    for login in sorted({login_of(role) for role in roles}):
        rules += [
            f'path "sys/leases/revoke-prefix/{login}" {{ capabilities = ["update", "sudo"] }}',
            f'path "sys/leases/lookup/{login}/" {{ capabilities = ["list", "sudo"] }}',
        ]
    return "\n".join(rules)


def hung_up(request: Request) -> bool:
    """Return whether the caller has closed its side of the connection."""
    connection: socket.socket = request.environ["werkzeug.socket"]
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except (BlockingIOError, ValueError):  # ValueError: TLS, which cannot be peeked into
        return False
    except OSError:
        return True
