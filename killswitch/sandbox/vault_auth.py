"""Auth methods with their roles and logins, as Vault's sandbox keeps and answers them."""

import secrets
from typing import Final

from killswitch.sandbox.vault_answers import DONE, NOTHING, Answer, Json, envelope, unsupported
from killswitch.sandbox.vault_policy import Token, Tokens

LOGIN_TTL_S: Final = 2764800


class AuthMethods:
    """The roles of every auth method, and the tokens that they issue.

    Args:
        methods: the mounted methods, "approle/" to what it is; kept by sys/auth.
    """

    def __init__(self, methods: dict[str, Json], tokens: Tokens) -> None:
        self.methods = methods
        self.tokens = tokens
        self.roles: dict[str, Json] = {}
        self._secret_ids: dict[str, str] = {}

    def put(self, role: str, says: Json) -> None:
        """Make a role, "auth/approle/role/bot", with its method if need be."""
        method = role.split("/")[1]
        self.methods.setdefault(f"{method}/", {"type": method})
        self.roles[role] = {"token_type": "default", "token_policies": ["default"], **says}

    def issue(self, role: str, now: float) -> Token:
        """Make a token as a login to `role` would."""
        batch = self.roles[role]["token_type"] == "batch"
        name = f"{'hvb' if batch else 'hvs'}.{secrets.token_urlsafe(18)}"
        policies = tuple(self.roles[role]["token_policies"])
        token = Token(name, policies, now, LOGIN_TTL_S, path=login_of(role), batch=batch)
        self.tokens.add(token)
        return token

    def is_login(self, method: str, path: str) -> bool:
        """Return whether a request is a login, which needs no token."""
        known = path.startswith("auth/") and f"{path.split('/')[1]}/" in self.methods
        return known and method in {"POST", "PUT"} and path.split("/")[2:3] == ["login"]

    def log_in(self, path: str, body: object, now: float) -> Answer:
        """Answer a login: the sandbox takes AppRole's role and secret ID."""
        body = body if isinstance(body, dict) else {}
        role = str(body.get("role_id", "")).removeprefix("id of ")
        known = self._secret_ids.get(str(body.get("secret_id", ""))) == role
        if role not in self.roles or not known or login_of(role) != path:
            return 400, {"errors": ["invalid role or secret ID"]}
        token = self.issue(role, now)
        auth = {
            "client_token": token.id,
            "accessor": "" if token.batch else token.accessor,
            "policies": list(token.policies),
            "lease_duration": LOGIN_TTL_S,
            "token_type": "batch" if token.batch else "service",
        }
        return 200, {**envelope(None, mount_type=""), "auth": auth}

    def answer(  # noqa: PLR0911 (one return for each endpoint)
        self, method: str, path: str, body: Json
    ) -> Answer:
        """Answer a call under auth/ that the token may make: the roles of a mounted method."""
        name, _, rest = path.removeprefix("auth/").partition("/")
        if f"{name}/" not in self.methods:
            return 404, {"errors": [f'no handler for route "{path}". route entry not found.']}
        if not rest.startswith(("role/", "roles/")):
            return NOTHING
        if rest.endswith(("/role-id", "/secret-id")):
            return self._identity(path)
        match method:
            case "GET" if path in self.roles:
                return 200, envelope(self.roles[path], mount_type=name)
            case "GET":
                return NOTHING
            case "POST" | "PUT":
                self.put(path, body)
                return DONE
            case "DELETE":
                self.roles.pop(path, None)
                return DONE
            case _:
                return unsupported()

    def _identity(self, path: str) -> Answer:
        role, _, what = path.rpartition("/")
        if role not in self.roles:
            return 404, {"errors": [f'role "{role.rpartition("/")[2]}" does not exist']}
        if what == "role-id":
            return 200, envelope({"role_id": f"id of {role}"}, mount_type="approle")
        secret_id = secrets.token_hex(8)
        self._secret_ids[secret_id] = role
        return 200, envelope({"secret_id": secret_id}, mount_type="approle")


def login_of(role: str) -> str:
    """Return where tokens of a role are made: "auth/approle/login"."""
    method = role.split("/")[1]
    return f"auth/{method}/login" if method != "token" else "auth/token/create"
