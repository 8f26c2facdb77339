"""HashiCorp Vault through hvac: find, delete and check rights on KV v1 and v2 secrets."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar
from urllib.parse import quote

import msgspec

from killswitch.address import checked_url
from killswitch.clients import vault_http as wire
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.secret import Secret
from killswitch.steps.vault import Tree

if TYPE_CHECKING:
    import hvac
    import requests

THREADS: Final = 8
MAX_ENTRIES: Final = 100_000
"""Folders and secrets that one walk takes in; what is beyond is left for the next walk."""
MAX_DEPTH: Final = 32
_PATHS_A_QUERY: Final = 250

T = TypeVar("T")
P = TypeVar("P")


class _Health(msgspec.Struct):
    sealed: bool
    standby: bool
    version: str


class _Mount(msgspec.Struct):
    path: str
    type: str
    accessor: str
    options: dict[str, str] | None = None


class _Keys(msgspec.Struct):
    keys: list[str]


class _Token(msgspec.Struct):
    ttl: int


class _Reply(msgspec.Struct, Generic[T]):
    data: T


class VaultClient:
    """One Vault, spoken to as narrowly as the wipe needs.

    Nothing is taken from the environment: no VAULT_* variable, no ~/.vault-token, no proxy, no
    .netrc. Redirects are refused, because the token would go with them.

    Args:
        address, namespace: "https://vault.internal:8200"; ValueError unless https or loopback.
        ca_file: the only certificate authority to trust, instead of the usual ones.
        timeout_s: to connect, and for each part of an answer.
    """

    def __init__(
        self,
        *,
        address: str,
        namespace: str | None = None,
        ca_file: str | None = None,
        timeout_s: tuple[float, float] = (3.0, 5.0),
    ) -> None:
        self._address = checked_url(address)
        self._namespace = namespace
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._session: requests.Session | None = None
        self._session_lock = threading.Lock()
        self._client: hvac.Client | None = None
        self._may_write = False

    def __repr__(self) -> str:
        return f"VaultClient({self._address!r})"

    def warm(self) -> str:
        """Return the state of the seal and the version, asked without a token."""
        anonymous = self._new_client("")
        status, body = wire.send(
            anonymous, lambda vault: vault.sys.read_health_status(method="GET")
        )
        # A standby (429, 473) forwards what it is asked: no obstacle, but worth saying.
        if status not in {200, 429, 473}:
            raise wire.not_ok(status, body)
        health = wire.parse(body, _Health)
        role = "unsealed, a standby node" if health.standby else "unsealed"
        return f"{role}, {wire.plain(health.version)}"

    def login(self, *, token: Secret, may_write: bool) -> None:
        """Take the token; with `may_write` false nothing can be deleted through this client."""
        value = token.reveal().strip()
        if not (value.isascii() and value.isprintable() and value.split() == [value]):
            raise RefusedError("the token is empty or has characters that no vault token has")
        self._client = self._new_client(value)
        self._may_write = may_write

    def walk(self, path: str) -> Tree:
        """Find every secret below `path`, level by level, `THREADS` folders at a time."""
        mount, accessor, version = self._mount(path)
        folder = path.removeprefix(mount)
        found = list(self._list(mount, version, folder))
        level, unseen = _only_folders(found), list[VendorError]()
        for _ in range(MAX_DEPTH):
            if not level or len(found) > MAX_ENTRIES:
                break
            listings = _each(partial(self._list, mount, version), level)
            unseen += [listing for listing in listings if isinstance(listing, VendorError)]
            inner = [key for keys in listings if not isinstance(keys, VendorError) for key in keys]
            level = _only_folders(inner)
            found += inner
        if level:
            unseen.append(GarbledError(f"{path} is too large or too deep to be seen at once"))
        names = tuple(name for name in found if not name.endswith("/"))
        if found and not names and not unseen:
            raise UnreachableError(f"folders of {path} were emptied during the look")
        return Tree(mount, accessor, version, folder, names, tuple(unseen))

    def delete(self, tree: Tree) -> None:
        """Delete all secrets of `tree`, `THREADS` at a time; v2 with all versions and metadata.

        One refusal does not keep the others; raises at the end, with how many were not deleted.
        """
        if not self._may_write:
            raise RefusedError("this client may only read: it deletes no secret")
        results = _each(partial(self._delete, tree.mount, tree.version), tree.names)
        errors = [result for result in results if result is not None]
        if errors:
            count = f"{len(errors)} of {len(results)} secrets not deleted"
            # One that is worth trying again comes first: it keeps the engine going.
            error = min(errors, key=lambda error: error.lasting)
            raise type(error)(f"{count}: {error.problem}")

    def missing_rights(self, tree: Tree) -> tuple[str, ...]:
        """Ask for the rights on exactly the paths that a wipe of `tree` lists and deletes."""
        prefix = f"{tree.mount}metadata/" if tree.version == 2 else tree.mount
        needed = {prefix + folder: "list" for folder in _folders(tree)}
        needed |= {prefix + name: "delete" for name in tree.names}
        granted = dict[str, list[str]]()
        for start in range(0, len(needed), _PATHS_A_QUERY):
            body = {"paths": list(needed)[start : start + _PATHS_A_QUERY]}
            ask = partial(_post, "/v1/sys/capabilities-self", body)
            granted |= self._read(ask, dict[str, list[str]])
        return tuple(
            f"{right} {wire.plain(path)}"
            for path, right in needed.items()
            if not {right, "root"} & set(granted.get(path, []))
        )

    def token_ttl_s(self) -> int:
        """Return how long the token will live; 0 for ever."""
        return self._read(lambda vault: vault.auth.token.lookup_self(), _Token).ttl

    def _mount(self, path: str) -> tuple[str, str, int]:
        """Return path, accessor and version of the KV mount that `path` is under."""
        url = f"/v1/sys/internal/ui/mounts/{quote(path)}"
        status, body = self._ask(lambda vault: vault.adapter.get(url))
        if status == 403:
            self.token_ttl_s()  # a dead token is told so here; the question above hides it
            raise RefusedError(f"{path}: no such mount, or no right under it")
        if status != 200:
            raise wire.not_ok(status, body)
        mount = wire.parse(body, _Reply[_Mount]).data
        version = (mount.options or {}).get("version", "1")
        if mount.type not in {"kv", "generic"}:
            raise RefusedError(f"{path} is in a mount of type {wire.plain(mount.type)}, not kv")
        inside = mount.path.endswith("/") and path.startswith(mount.path)
        if not inside or version not in {"1", "2"}:
            raise GarbledError(f"vault describes another mount than that of {path}")
        return mount.path, wire.plain(mount.accessor), int(version)

    def _list(self, mount: str, version: int, folder: str) -> tuple[str, ...]:
        """Return what `folder` holds, as paths inside the mount; folders end in "/"."""
        status, body = self._ask(
            lambda vault: (
                vault.secrets.kv.v2 if version == 2 else vault.secrets.kv.v1
            ).list_secrets(path=folder, mount_point=mount)
        )
        where = wire.plain(mount + folder)
        if status == 404:
            return _empty(body, where)
        if status == 403:
            raise RefusedError(f"may not list {where}: {wire.not_ok(status, body)}")
        if status != 200:
            raise wire.not_ok(status, body)
        keys = wire.parse(body, _Reply[_Keys]).data.keys
        # "..", "." and "" would reach another path than the one that was listed.
        if not keys or any({"", ".", ".."} & set(key.removesuffix("/").split("/")) for key in keys):
            raise GarbledError(f"vault lists {where} with no key, or with one that cannot be")
        return tuple(folder + key for key in keys)

    def _delete(self, mount: str, version: int, name: str) -> None:
        def ask(vault: "hvac.Client") -> object:
            kv = vault.secrets.kv
            if version == 2:
                return kv.v2.delete_metadata_and_all_versions(path=name, mount_point=mount)
            return kv.v1.delete_secret(path=name, mount_point=mount)

        status, body = self._ask(ask)
        if status not in {200, 204}:
            raise wire.not_ok(status, body)

    def _read(self, ask: wire.Ask, shape: type[T]) -> T:
        status, body = self._ask(ask)
        if status != 200:
            raise wire.not_ok(status, body)
        return wire.parse(body, _Reply[shape]).data  # type: ignore[valid-type]  # made at run time

    def _ask(self, ask: wire.Ask) -> tuple[int, bytes]:
        if self._client is None:
            raise RuntimeError("login comes first")
        return wire.send(self._client, ask)

    def _new_client(self, token: str) -> "hvac.Client":
        with self._session_lock:
            self._session = self._session or wire.new_session(self._ca_file)
        return wire.new_client(
            self._address,
            token=token,
            namespace=self._namespace,
            timeout_s=self._timeout_s,
            session=self._session,
        )


def _empty(body: bytes, where: str) -> tuple[str, ...]:
    """Tell the 404 of an empty folder from all others: it alone says ``"errors": []``.

    A known mount without a route is being erased (so the error is not lasting) or half erased; a
    KV version other than the mount's own is told in warnings.
    """
    if wire.parse(body, wire.Errors).errors == []:
        return ()
    error = wire.not_ok(404, body)
    if wire.parse(body, wire.Errors).errors:
        raise UnreachableError(f"{where} is half erased or being erased: {error}")
    raise GarbledError(f"{where} is not of the kv version that vault says: {error}")


def _post(url: str, body: object, vault: "hvac.Client") -> object:
    return vault.adapter.post(url, json=body)


def _only_folders(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith("/")]


def _folders(tree: Tree) -> list[str]:
    """Return every folder that a walk of `tree` lists."""
    folders = {tree.folder: None}
    for name in tree.names:
        for end, char in enumerate(name):
            if char == "/" and end >= len(tree.folder):
                folders[name[: end + 1]] = None
    return list(folders)


def _each(do: Callable[[P], T], items: Sequence[P]) -> list[T | VendorError]:
    """Return what `do` gives or raises for each item, in order; `THREADS` work side by side.

    After an UnreachableError nothing more is begun. Daemons: a hung one never blocks the exit.
    """
    results: list[T | VendorError] = [UnreachableError("vault did not answer")] * len(items)
    todo, lock = iter(range(len(items))), threading.Lock()
    stop: list[Exception] = []

    def work() -> None:
        while not stop:
            with lock:
                index = next(todo, None)
            if index is None:
                return
            try:
                results[index] = do(items[index])
            except VendorError as error:
                results[index] = error
                stop.extend([error] if isinstance(error, UnreachableError) else [])
            except Exception as error:  # noqa: BLE001  (a bug: raised again in the caller)
                stop.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(THREADS, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in stop:
        if not isinstance(error, VendorError):
            raise error
    return results
