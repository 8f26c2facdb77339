"""One look at every system, as far as its credentials can be had: nothing is changed by it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from killswitch.authority.ring import KeyRing
from killswitch.cli.sealed import Sealed
from killswitch.cli.session import Session
from killswitch.config import Config
from killswitch.converge import Limits
from killswitch.halt import Assignment, carry_out
from killswitch.journal.history import History
from killswitch.journal.store import Head
from killswitch.model import HaltReport, Mode, Order
from killswitch.orders import make_order
from killswitch.priming import prime
from killswitch.runner import Runner
from killswitch.sources import Sources, sealed_names
from killswitch.steps.telegram import Message
from killswitch.unit import Past, Unit
from killswitch.verdict import Intent
from killswitch.wiring import units

_LIMITS: Final = replace(
    Limits(), deadline_s=8.0, wrap_up_s=0.5, look_s=6.0, act_s=6.0, phase_s=2.0
)
_UNSEEN: Final = "nothing was looked at or changed"


class Look:
    """Plans every system once, and performs nothing.

    Args:
        touched: open the sealed secrets by a touch, see `unseal`; without it the systems that
            need one are not looked at, and stand in `unseen`.
    """

    def __init__(
        self, session: Session, config: Config, past: History, sealed: Sealed, *, touched: bool
    ) -> None:
        self._session = session
        self._config = config
        self._past = past
        self._bundle = sealed.bundle
        self._sources = Sources(config.resolve, session.environment)
        ended, tried, mentioned = past.ended(session.now()), past.tried(), past.mentioned()
        self.units = units(
            config,
            self._sources,
            Past(
                lambda step, system: ended.get((step, system), frozenset()),
                lambda step, system: tried.get((step, system), frozenset()),
                lambda step, system: mentioned.get((step, system), frozenset()),
            ),
        )
        prime()
        for unit in self.units:
            self._sources.start(unit.sources)
        self.unseen: Sequence[Unit] = (
            () if touched else [unit for unit in self.units if sealed_names(unit.sources)]
        )

    @property
    def sources(self) -> list[str]:
        """Where all secrets come from, as the configuration says."""
        return [source for unit in self.units for source in unit.sources]

    def unseal(self, ring: KeyRing, head: Head, *, yes: bool) -> None:
        """Take a touch on an order that allows nothing but to look, and write it down.

        Raises KillswitchError: then nothing was opened for use.
        """
        from killswitch.cli.authorise import remember_counter, take_touch
        from killswitch.cli.record import append
        from killswitch.document import proof_document
        from killswitch.journal.history import LOOK_ORDERED

        order = self._order(head, [f"look at {unit.kind} {unit.system}" for unit in self.units])
        authority = take_touch(
            self._session,
            self._config,
            order,
            ring,
            bundle=self._bundle,
            yes=yes,
            effect=_UNSEEN,
        )
        data = {
            "order": order.to_bytes().decode(),
            "proof": proof_document(authority.proof),
        }
        append(
            self._session, self._config, LOOK_ORDERED, f"{order.id}.ordered", data, effect=_UNSEEN
        )
        remember_counter(self._session, self._config, authority.proof)
        self._sources.unseal(authority.unsealed.secrets, authority.unsealed.why_closed)

    def report(self) -> HaltReport:
        """Look at every system that can be looked at, side by side, within some seconds."""
        nothing = partial(Message, title="status", lines=())
        assignment = Assignment(
            order=self._order(Head(0, ""), ()),
            proof=None,
            intent=Intent.LOOK,
            steps=tuple(
                unit.step(nothing, may_write=False)
                for unit in self.units
                if unit not in self.unseen
            ),
            started_at=self._session.now(),
            known=self._past.seen(),
        )
        return Runner().run(lambda now: carry_out(assignment, _LIMITS, now))

    def _order(self, head: Head, scope: Sequence[str]) -> Order:
        return make_order(
            mode=Mode.LOOK,
            scope=scope,
            config_sha256=self._config.sha256,
            head=head,
            now=self._session.now(),
            random_bytes=self._session.random_bytes,
            bundle_sha256=self._bundle.sha256,
        )
