"""Opening the sealed secrets with a touch: it never fails, it says per secret why one is closed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from killswitch.authority.asking import Touched
from killswitch.authority.bundle import Bundle
from killswitch.authority.ring import EnrolledKey
from killswitch.authority.sealing import Identity, SealError
from killswitch.secret import Secret


@dataclass(frozen=True, slots=True)
class Unsealed:
    """What one touch opened, by name; `why_closed` explains any other name.

    `identity` is what opened it, kept only for sealing it anew.
    """

    secrets: Mapping[str, Secret]
    why_closed: Callable[[str], str]
    identity: Identity | None = field(default=None, repr=False)


def unseal(
    bundle: Bundle, touched: Touched, key: EnrolledKey, *, keep_identity: bool = False
) -> Unsealed:
    """Open all of `bundle` that is sealed to the touched key, as it was touched."""
    try:
        identity = touched.identity()
    except SealError as error:
        problem = error.problem
        return Unsealed({}, lambda _name: problem)
    if identity is None:
        return Unsealed({}, lambda _name: _without_output(key))
    opened, asked = bundle.open(identity), identity.recipient

    def why_closed(name: str) -> str:
        return opened.damaged.get(name) or bundle.why_closed(name, asked, key.recipients)

    return Unsealed(opened.secrets, why_closed, identity if keep_identity else None)


def _without_output(key: EnrolledKey) -> str:
    if key.recipients:
        return "the key gave nothing to open it with"
    return "this key was enrolled without any recipient"
