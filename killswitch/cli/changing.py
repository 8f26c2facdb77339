"""A change of who may halt or of what the keys open: its order, its touch, and the sealing anew."""

from collections.abc import Sequence
from dataclasses import replace

from killswitch.authority.bundle import Bundle
from killswitch.authority.changes import covers
from killswitch.authority.ring import KeyRing
from killswitch.authority.sealing import Recipient
from killswitch.cli.authorise import Authority, refuse_regressed, take_touch
from killswitch.cli.record import head_of
from killswitch.cli.sealed import change_bundle, find_sealed, recipients_of
from killswitch.cli.session import Session
from killswitch.config import Config
from killswitch.errors import KillswitchError, NotAuthorizedError
from killswitch.journal.history import SECRETS_SET
from killswitch.model import Mode, Order
from killswitch.orders import make_order


def change_order(session: Session, config: Config, scope: Sequence[str]) -> Order:
    """Return an order to change who may halt, or what the keys open."""
    return make_order(
        mode=Mode.KEYS,
        scope=scope,
        config_sha256=config.sha256,
        head=head_of(config),
        now=session.now(),
        random_bytes=session.random_bytes,
        bundle_sha256=find_sealed(config).bundle.sha256,
    )


def covering(ring: KeyRing, role: str, *, effect: str) -> KeyRing:
    """Return the keys that may give or take away `role`; raises NotAuthorizedError without any."""
    keys = tuple(key for key in ring.keys if covers(key.role, role))
    if not keys:
        roles = " or ".join(dict.fromkeys((role, "both")))
        raise NotAuthorizedError(
            f"it takes the touch of a key with the role {roles}",
            effect=effect,
            hint="see the roles: killswitch keys list",
        )
    return replace(ring, keys=keys)


def touch_for_change(
    session: Session, config: Config, order: Order, ring: KeyRing, *, yes: bool, effect: str
) -> Authority:
    """Take the touch of one of `ring` on a change; a key that may have been copied is refused."""
    authority = take_touch(
        session,
        config,
        order,
        ring,
        bundle=find_sealed(config).bundle,
        yes=yes,
        effect=effect,
        keep_identity=True,
    )
    refuse_regressed(authority.proof, effect=effect)
    return authority


def reseal_for(
    session: Session, config: Config, order: Order, authority: Authority
) -> tuple[str, ...]:
    """Seal what the touch opened to the ring as it is now; return all names that were sealed.

    What is not sealed anew, and why, is told: the change of the ring is made already.
    """
    sealed = find_sealed(config)
    identity = authority.unsealed.identity
    names = sealed.bundle.names
    if not names and not sealed.problem:
        return ()
    if identity is None or sealed.problem:
        why = sealed.problem or authority.unsealed.why_closed(names[0])
        session.terminal.hint(f"the secrets stay sealed as they were: {why}")
        session.terminal.hint("mend that, then seal them anew: killswitch secrets reseal")
        return names

    def change(now: Bundle, to: tuple[Recipient, ...]) -> Bundle:
        return now.resealed(now.open(identity).secrets, to)

    event_id = f"{order.id}.sealed"
    try:
        bundle = change_bundle(session, config, change, SECRETS_SET, event_id, {"for": order.id})
    except KillswitchError as error:
        session.terminal.hint(f"the secrets stay sealed as they were: {error.problem}")
        session.terminal.hint("seal them anew: killswitch secrets reseal")
        return names
    for name in bundle.not_for(recipients_of(config, KeyRing.load(config.key_file))):
        session.terminal.hint(
            f"sealed:{name} stays as it was: {authority.unsealed.why_closed(name)}"
        )
    return names
