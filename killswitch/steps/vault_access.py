"""Who could write a secret back: roles, what was issued by them, and killswitch's own token."""

from functools import partial
from typing import Final

from killswitch.errors import RefusedError, VendorError
from killswitch.model import Action, Blind, Clear, Note, Plan, Receipt
from killswitch.steps.vault_port import (
    DeadTokenError,
    NoRightError,
    SecretStore,
    first,
    join,
)

ROLES: Final = 1
TOKENS: Final = 2
OWN: Final = 4
_OWN: Final = "own token"
"""One name, whichever token it is, so that a look that cannot see it hides what was seen of it."""


def of_role(vault: SecretStore, path: str) -> Plan:
    """See whether a role is left. Whoever may not read it may delete it, and not prove it."""
    try:
        role = vault.role(path)
    except NoRightError as error:
        if path in vault.asked:
            sent = f"deleted, not read back: {error.problem}"
            return Plan(blind=(Blind(path, sent, lasting=True),))
        return Plan(live=(_delete_role(vault, path),))
    except VendorError as error:
        return Plan(blind=(Blind(path, error.problem, lasting=error.lasting),))
    if role is None:
        return Plan(clear=(Clear(path, "GET answers 404", only_if_known=True),))
    batch = f"tokens that {path} issued are batch tokens: they cannot be revoked and run out"
    notes = (Note("still valid", batch),) if role.batch else ()
    return Plan(live=(_delete_role(vault, path),), notes=notes)


def _delete_role(vault: SecretStore, path: str) -> Action:
    def perform() -> Receipt:
        vault.delete_role(path)
        return Receipt("DELETE answered 204")

    needed = (("delete", path), ("read", path))
    return Action("delete role", path, perform, partial(_rehearse, vault, needed), ROLES)


def of_prefix(vault: SecretStore, prefix: str) -> Plan:
    """See what is still leased under a prefix: tokens that a role issued outlive the role."""
    target = f"tokens of {prefix}"
    try:
        count = vault.leases(prefix)
    except NoRightError as error:
        if prefix in vault.asked:
            sent = f"revoked, not read back: {error.problem}; try one of the old tokens"
            return Plan(blind=(Blind(target, sent, lasting=True),))
        return Plan(live=(_revoke(vault, prefix, target, 1),))
    except VendorError as error:
        return Plan(blind=(Blind(target, error.problem, lasting=error.lasting),))
    if count:
        return Plan(live=(_revoke(vault, prefix, target, count),))
    saw = "the auth method is gone" if count is None else "no lease: LIST answers 404"
    unsure = count is None or not _is_where_tokens_are_made(prefix)
    return Plan(clear=(Clear(target, saw, only_if_known=unsure),))


def _is_where_tokens_are_made(prefix: str) -> bool:
    """Tell the prefixes that no typing error looks like, if their auth method is there."""
    match prefix.split("/"):
        case ["auth", "token", last]:
            return last == "create"
        case ["auth", _, last]:
            return last == "login"
        case _:
            return False


def _revoke(vault: SecretStore, prefix: str, target: str, amount: int) -> Action:
    def perform() -> Receipt:
        _spare_own(vault, prefix)
        vault.revoke_prefix(prefix)
        return Receipt("revoke-prefix answered 204")

    def rehearse() -> Receipt:
        _spare_own(vault, prefix)
        return _rehearse(vault, needed)

    path = f"sys/leases/revoke-prefix/{prefix}"
    listed = f"sys/leases/lookup/{prefix}/"
    needed = (("update", path), ("sudo", path), ("list", listed), ("sudo", listed))
    return Action("revoke tokens", target, perform, rehearse, TOKENS, amount)


def _spare_own(vault: SecretStore, prefix: str) -> None:
    own = vault.own_token().path
    if own == prefix or own.startswith(f"{prefix}/"):
        raise RefusedError(f"killswitch's own token was made under {prefix}: it would end first")


def _rehearse(vault: SecretStore, needed: tuple[tuple[str, str], ...]) -> Receipt:
    missing = vault.lacks(*needed)
    if missing:
        raise RefusedError(f"the token may not {first(missing)}")
    return Receipt("may do it, and may read it back")


def kept_token(system: str) -> Plan:
    """Say that the own token lives on, as configured."""
    text = f"the token that killswitch used for vault {system} is still valid"
    return Plan(
        notes=(
            Note("still valid", text, "end it, with it in VAULT_TOKEN: vault token revoke -self"),
        )
    )


def doubts(vault: SecretStore) -> Plan:
    """Say what is doubtful of the Vault as a whole."""
    doubt = vault.namespace_doubt
    return Plan(notes=(Note("namespace", doubt, "look what is at the paths"),) if doubt else ())


def own_token(vault: SecretStore, rest: Plan) -> Plan:
    """End the own token, once all `rest` was seen ended for long enough.

    It is what the rest is seen with: after it nothing can be looked at, or mended.
    """
    try:
        vault.own_token()
    except VendorError as error:
        return join(rest, Plan(blind=(Blind(_OWN, error.problem, error.lasting),)))
    seen = vault.seen(action.target for action in rest.live)
    never = [each.target for each in rest.clear if each.only_if_known and each.target not in seen]
    clean = not rest.live and not rest.blind and not never
    steady = vault.steady(clean=clean)
    if clean and not steady:
        again = "all else was seen ended once, and is to be looked at again"
        return join(rest, Plan(blind=(Blind(_OWN, again),)))
    why = "" if clean else "kept so that a second run can see and end what is left"
    if never:
        why = f"kept: nothing was seen at {first(never)}, which may be a typing error"
    perform = partial(_end_own, vault, rest.clear)
    rehearse = partial(_rehearse_own, vault)
    own = Action("revoke own token", _OWN, perform, rehearse, OWN, withheld=why)
    return join(rest, Plan(live=(own,)))


def after_own_token(vault: SecretStore, seen: tuple[Clear, ...]) -> Plan | None:
    """Return what was seen before the own token was told to end, if it is dead; else None.

    Raises:
        VendorError: no answer to that, or not one of Vault.
    """
    try:
        vault.own_token()
    except DeadTokenError as error:
        return Plan(clear=(*seen, Clear(_OWN, f"dead: {error.problem}")))
    return None


def _end_own(vault: SecretStore, seen: tuple[Clear, ...]) -> Receipt:
    token = vault.own_token()
    vault.revoke_own_token(seen)
    return Receipt("revoke-self answered 204", {"token_accessor": token.accessor})


def _rehearse_own(vault: SecretStore) -> Receipt:
    if vault.own_token().batch:
        raise RefusedError("the own token is a batch token: it cannot be revoked, only run out")
    return _rehearse(vault, (("update", "auth/token/revoke-self"),))
