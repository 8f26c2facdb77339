"""KV secrets through hvac, versions 1 and 2: find and delete them, and ask for the rights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from killswitch.clients import vault_http as wire
from killswitch.clients.vault_line import Line, Reply
from killswitch.clients.vault_pool import NotBegunError, each
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.steps.vault_port import HalfErased, Tree

if TYPE_CHECKING:
    import hvac

MAX_ENTRIES: Final = 100_000
"""Folders and secrets that one walk takes in; what is beyond is left for the next walk."""
MAX_DEPTH: Final = 32
WIPE_S: Final = 8.0
"""How long one call of `delete` begins new deletes; the next look tells what is left."""


class Mount(msgspec.Struct):
    """What sys/internal/ui/mounts says of the mount that a path is in."""

    path: str
    type: str
    accessor: str
    options: dict[str, str] | None = None


class _Keys(msgspec.Struct):
    keys: list[str]


@dataclass(frozen=True, slots=True)
class _Folder:
    """What a folder holds: `names` as paths inside the mount; `odd` says which have no path."""

    names: tuple[str, ...] = ()
    odd: tuple[VendorError, ...] = ()


class _NoRouteError(UnreachableError):
    """Nothing handles this path: its mount is gone, or only its entry is left."""


class Secrets(Line):
    """The secrets of one Vault."""

    def walk(self, path: str) -> Tree | HalfErased:
        """Find every secret below `path`, level by level, several folders at a time.

        Empty only if the mount is there, and said so.
        """
        found = self._see(self._mount(path), path)
        self._stands(path, found)
        if isinstance(found, Tree) and found.folder and self._is_beside(found):
            return replace(found, beside=True)
        return found

    def _is_beside(self, tree: Tree) -> bool:
        """Tell whether a secret has the very name of the folder, as far as that may be listed."""
        name = tree.folder.removesuffix("/")
        parent = name[: name.rfind("/") + 1]
        try:
            return name in self._list(tree.mount, tree.version, parent).names
        except VendorError:
            return False

    def replaced(self, path: str) -> tuple[str, ...]:
        """Return the mounts that were seen at `path` in this run, and were moved or taken away."""
        return self._memory.lost.get(path, ())

    def _stands(self, path: str, found: Tree | HalfErased) -> None:
        """Remember which mount is at `path` now, and which one was."""
        known, now = self._memory, found.accessor
        before, most = known.stood.get(path, ("", 0))
        lost = known.lost.get(path, ())
        if before not in {"", now, known.erased.get(path)}:
            lost = (*lost, before)
        known.lost[path] = tuple(accessor for accessor in lost if accessor != now)
        count = len(found.names) if isinstance(found, Tree) else 0
        known.stood[path] = (now, max(count, most))

    def delete(self, tree: Tree) -> int:
        """Delete secrets of `tree`, several at a time; v2 with all versions and metadata.

        Returns how many were deleted in the time of one call. One refusal does not keep the
        others; raises at the end, with how many were not deleted.
        """
        self._writing("deletes no secret")
        results = each(partial(self._delete, tree.mount, tree.version), tree.names, seconds=WIPE_S)
        errors = [result for result in results if isinstance(result, VendorError)]
        failed = [error for error in errors if not isinstance(error, NotBegunError)]
        if failed:
            count = f"{len(errors)} of {len(results)} secrets not deleted"
            # One that is worth trying again comes first: it keeps the engine going.
            error = min(failed, key=lambda error: error.lasting)
            raise type(error)(f"{count}: {error.problem}")
        return len(results) - len(errors)

    def missing_rights(self, tree: Tree) -> tuple[str, ...]:
        """Ask for the rights on exactly the paths that a wipe of `tree` lists and deletes."""
        prefix = f"{tree.mount}metadata/" if tree.version == 2 else tree.mount
        needed = [("list", prefix + folder) for folder in _folders(tree)]
        needed += [("delete", prefix + name) for name in tree.names]
        return self.lacks(*needed)

    def _mount(self, path: str) -> Mount:
        """Return the KV mount that `path` is under."""
        status, body = self._mount_question(path)
        if status == 403:
            raise self._refusal(f"{path}: no such mount, or no right under it")
        return self._as_mount(path, status, body)

    def _mount_question(self, path: str) -> tuple[int, bytes]:
        url = f"/v1/sys/internal/ui/mounts/{quote(path)}"
        return self._ask(lambda vault: vault.adapter.get(url))

    def _as_mount(self, path: str, status: int, body: bytes) -> Mount:
        if status != 200:
            raise wire.not_ok(status, body)
        mount = wire.parse(body, Reply[Mount]).data
        if mount.type not in {"kv", "generic"}:
            raise RefusedError(f"{path} is in a mount of type {wire.plain(mount.type)}, not kv")
        inside = mount.path.endswith("/") and path.startswith(mount.path)
        if not inside or version_of(mount) not in {1, 2}:
            raise GarbledError(f"vault describes another mount than that of {path}")
        return mount

    def _see(self, mount: Mount, path: str) -> Tree | HalfErased:
        try:
            return self._walk(mount, path)
        except _NoRouteError as error:
            # Listed, and without a route: half erased. Asked once more, it may be gone by now.
            if self._mount_question(path)[0] == 200:
                return HalfErased(mount.path, wire.plain(mount.accessor))
            raise UnreachableError(f"{path} changed during the look: {error}") from None

    def _walk(self, mount: Mount, path: str) -> Tree:
        version, folder = version_of(mount), path.removeprefix(mount.path)
        top = self._list(mount.path, version, folder)
        found, unseen = list(top.names), list(top.odd)
        level = _only_folders(found)
        for _ in range(MAX_DEPTH):
            if not level or len(found) > MAX_ENTRIES:
                break
            listings = each(partial(self._list, mount.path, version), level)
            inner = list[str]()
            for listing in listings:
                seen = _Folder((), (listing,)) if isinstance(listing, VendorError) else listing
                inner += seen.names
                unseen += seen.odd
            level = _only_folders(inner)
            found += inner
        if level:
            unseen.append(GarbledError(f"{path} is too large or too deep to be seen at once"))
        names = tuple(name for name in found if not name.endswith("/"))
        if found and not names and not unseen:
            raise UnreachableError(f"folders of {path} were emptied during the look")
        accessor = wire.plain(mount.accessor)
        return Tree(mount.path, accessor, version, folder, names, tuple(unseen))

    def _list(self, mount: str, version: int, folder: str) -> _Folder:
        """Return what `folder` holds; folders in it end in "/"."""
        status, body = self._ask(
            lambda vault: (
                vault.secrets.kv.v2 if version == 2 else vault.secrets.kv.v1
            ).list_secrets(path=folder, mount_point=mount)
        )
        where = wire.plain(mount + folder)
        if status == 404:
            return _empty(body, where)
        if status == 403:
            raise self._refusal(f"may not list {where}: {wire.not_ok(status, body)}")
        if status != 200:
            raise wire.not_ok(status, body)
        keys = wire.parse(body, Reply[_Keys]).data.keys
        if not keys:
            raise GarbledError(f"vault lists {where} with no key")
        # One odd key must not keep the others: who can write one could save them all.
        names = tuple(folder + key for key in keys if not _is_odd(key))
        return _Folder(names, tuple(_no_address(where, key) for key in keys if _is_odd(key)))

    def _delete(self, mount: str, version: int, name: str) -> None:
        def ask(vault: "hvac.Client") -> object:
            kv = vault.secrets.kv
            if version == 2:
                return kv.v2.delete_metadata_and_all_versions(path=name, mount_point=mount)
            return kv.v1.delete_secret(path=name, mount_point=mount)

        self._write(ask)


def has_no_route(status: int, body: bytes) -> bool:
    """Tell the 404 of a path that nothing handles from that of an empty folder."""
    return status == 404 and bool(wire.parse(body, wire.Errors).errors)


def version_of(mount: Mount) -> int:
    """Return the KV version of a mount; 0 for one that cannot be."""
    text = (mount.options or {}).get("version", "1")
    return int(text) if text.isdecimal() else 0


def _is_odd(key: str) -> bool:
    """Tell a key whose path, as a client sends it, would be another one's."""
    return bool({"", ".", ".."} & set(key.removesuffix("/").split("/")))


def _no_address(where: str, key: str) -> VendorError:
    mend = "delete it in the storage or disable the mount"
    return RefusedError(
        f"{where} holds a key named '{wire.plain(key)}', which no client can address: {mend}"
    )


def _empty(body: bytes, where: str) -> _Folder:
    """Tell the 404 of an empty folder from all others: it alone says ``"errors": []``.

    A KV version other than the mount's own is told in warnings.
    """
    if wire.parse(body, wire.Errors).errors == []:
        return _Folder()
    error = wire.not_ok(404, body)
    if has_no_route(404, body):
        raise _NoRouteError(f"{where}: {error}")
    raise GarbledError(f"{where} is not of the kv version that vault says: {error}")


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
