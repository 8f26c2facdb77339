"""What is left of the secrets: under a path, or in a mount that goes as a whole."""

import re
from functools import partial
from typing import Final, assert_never

from killswitch.errors import RefusedError, UnreachableError, VendorError
from killswitch.model import Action, Blind, Clear, Note, Plan, Receipt
from killswitch.steps.vault_port import (
    ERASING,
    V2,
    Erased,
    Erasing,
    Gone,
    HalfErased,
    SecretStore,
    Standing,
    Tree,
    first,
    join,
    secrets,
)

WIPE: Final = 3
MOUNT: Final = re.compile(r"(.+/) \(mount (\S+)\)")
"""The target of a whole mount: its path and its accessor."""
REPLACED: Final = "another mount took its place: look where this one is now"
_HALF: Final = "half erased: unreadable, but its data is still in storage"


def under_path(vault: SecretStore, path: str) -> Plan:
    """See what secrets are left under `path`; each path is one target.

    The mount is part of the name: what was seen in one mount says nothing of another that took
    its place.
    """
    place = path.removesuffix("/")
    try:
        tree = vault.walk(path)
    except VendorError as error:
        return Plan(blind=(Blind(place, error.problem, lasting=error.lasting),))
    target = f"{path} in {tree.accessor}"
    wipe = partial(_wipe, vault, path, tree.accessor)
    rehearse = partial(_rehearse_wipe, vault, path)
    blind = [Blind(f"{path} in {old}", REPLACED, lasting=True) for old in vault.replaced(path)]
    if isinstance(tree, HalfErased):
        why = f"{_HALF}; list {tree.mount} in mounts, or disable it again to the end"
        action = Action("delete", target, wipe, rehearse, WIPE, withheld=why)
        return Plan((action,), tuple(blind), (Clear(place, "a mount is there"),))
    clear, notes = [Clear(place, f"kv v{tree.version}")], _beside(tree)
    if tree.unseen:
        lasting = all(error.lasting for error in tree.unseen)
        blind.append(Blind(target, first([error.problem for error in tree.unseen]), lasting))
    if tree.names:
        live = (Action("delete", target, wipe, rehearse, WIPE, len(tree.names)),)
        return Plan(live, tuple(blind), tuple(clear), notes)
    if not tree.unseen:
        clear.append(Clear(target, "empty: LIST answers 404", only_if_known=True))
    return Plan((), tuple(blind), tuple(clear), notes)


def _beside(tree: Tree) -> tuple[Note, ...]:
    if not tree.beside:
        return ()
    leaf = tree.mount + tree.folder.removesuffix("/")
    text = f"the secret {leaf} is beside the folder {leaf}/, not in it, and is not wiped"
    return (Note("not wiped", text, "delete it by hand, or list the folder above it"),)


def in_mount(vault: SecretStore, mount: str) -> Plan:
    """See what is left of a whole mount: while it stands, or its data does, it is live."""
    place = mount.removesuffix("/")
    try:
        found = vault.look_at(mount)
    except VendorError as error:
        return Plan(blind=(Blind(place, error.problem, lasting=error.lasting),))
    lost = [
        Blind(f"{mount} (mount {old})", REPLACED, lasting=True) for old in vault.replaced(mount)
    ]
    return join(_of_mount(vault, mount, found), Plan(blind=tuple(lost)))


def _of_mount(vault: SecretStore, mount: str, found: Standing) -> Plan:
    place, target = mount.removesuffix("/"), f"{mount} (mount {found.accessor})"
    erase = partial(_erase, vault, mount, found.accessor)
    rehearse = partial(_rehearse_erase, vault, mount)
    match found:
        case Erased(saw=saw):
            gone = Clear(target, saw, only_if_known=True)
            return Plan(clear=(Clear(place, "no mount is there any more"), gone))
        case Erasing():
            # Asking once more would be a second erasing of the same data.
            return Plan(blind=(Blind(target, ERASING),), clear=(Clear(place, "being erased"),))
        case HalfErased():
            action = Action("erase the half-erased mount", target, erase, rehearse, WIPE)
            return Plan(live=(action,), clear=(Clear(place, "a mount is there"),))
        case Gone():
            # A second 204 says that nothing was left half erased; the first one was not heard.
            action = Action("erase again, to be sure", target, erase, rehearse, WIPE)
            return Plan(live=(action,), clear=(Clear(place, "no mount is there any more"),))
        case Tree():
            amount = max(1, len(found.names))
            live = Action("erase", target, erase, rehearse, WIPE, amount)
            clear = Clear(place, f"kv v{found.version}")
            return Plan(live=(live,), clear=(clear,), notes=_doubts(found))
        case _:
            assert_never(found)


def _doubts(tree: Tree) -> tuple[Note, ...]:
    if tree.unseen:
        return (Note("not seen", f"what {tree.mount} held: {tree.unseen[0].problem}"),)
    if not tree.names:
        hint = "is it the right mount?"
        return (Note("empty", f"{tree.mount} held no secret when it was looked at", hint),)
    return ()


def _wipe(vault: SecretStore, path: str, accessor: str) -> Receipt:
    tree = _readable(vault.walk(path))
    _demand_same(tree, accessor)
    deleted = vault.delete(tree)
    left = f" of {len(tree.names)} so far" if deleted < len(tree.names) else ""
    return Receipt(f"{secrets(deleted)}{left} deleted", {"kv_version": str(tree.version)})


def _rehearse_wipe(vault: SecretStore, path: str) -> Receipt:
    tree = _readable(vault.walk(path))
    if tree.unseen:
        raise tree.unseen[0]
    _demand(vault.missing_rights(tree))
    ttl_s = str(vault.own_token().ttl_s)
    return Receipt(f"may list and delete {secrets(len(tree.names))}", {"token_ttl_s": ttl_s})


def _erase(vault: SecretStore, mount: str, accessor: str) -> Receipt:
    found = vault.look_at(mount)
    _demand_same(found, accessor)
    if isinstance(found, Erased):
        return Receipt(f"{mount} was erased already")
    vault.erase(mount, found.accessor)
    told = f", at least {secrets(len(found.names))}" if isinstance(found, Tree) else ""
    return Receipt(f"DELETE answered 204: {mount} erased{told}", {"mount": found.accessor})


def _rehearse_erase(vault: SecretStore, mount: str) -> Receipt:
    found = vault.look_at(mount)
    if isinstance(found, Tree) and found.unseen:
        raise found.unseen[0]
    root = f"{mount}metadata/" if not isinstance(found, Tree) or found.version == V2 else mount
    _demand(vault.lacks(("delete", f"sys/mounts/{mount.removesuffix('/')}"), ("list", root)))
    ttl_s = str(vault.own_token().ttl_s)
    held = secrets(len(found.names)) if isinstance(found, Tree) else "what is left"
    return Receipt(f"may disable {mount}, with {held}", {"token_ttl_s": ttl_s})


def _demand(missing: tuple[str, ...]) -> None:
    if missing:
        raise RefusedError(f"the token may not {first(missing)}")


def _demand_same(found: Standing, accessor: str) -> None:
    if found.accessor != accessor:
        raise UnreachableError(REPLACED)


def _readable(tree: Tree | HalfErased) -> Tree:
    if isinstance(tree, HalfErased):
        raise UnreachableError(f"{tree.mount} is {_HALF}")
    return tree
