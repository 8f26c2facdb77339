"""From an order to its answer: what `revoke` and `drill` share."""

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from killswitch.answer import answer_lines, headline, mode_word, touched_by
from killswitch.authority.ring import KeyRing
from killswitch.cli.authorise import remember_counter, take_touch
from killswitch.cli.memory import recall
from killswitch.cli.sealed import find_sealed
from killswitch.cli.session import Session
from killswitch.cli.staying import stay_for_unfinished
from killswitch.cli.terminal import Progress, Terminal
from killswitch.config import Config
from killswitch.converge import Limits
from killswitch.errors import ConfigError, UnreachableError, VendorError
from killswitch.exit_codes import ExitCode, exit_code
from killswitch.halt import Assignment, carry_out
from killswitch.journal.fallback import FallbackLog
from killswitch.journal.history import History
from killswitch.journal.store import GENESIS, Head, Journal, NewEvent
from killswitch.model import HaltReport, Mode, Order, Proof, Step
from killswitch.orders import make_order
from killswitch.priming import prime
from killswitch.runner import Runner
from killswitch.sources import Sources
from killswitch.steps.journal import AppendEvent
from killswitch.steps.telegram import Message
from killswitch.unit import Past, Unit
from killswitch.verdict import Intent
from killswitch.wiring import units

SETTLE_S = 2.0
"""How long a halt waits, after the touch, for secrets that are still being read."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked for on the command line."""

    mode: Mode
    reason: str = ""
    trigger_value: str = ""
    incident: str = ""
    touch_timeout_s: float | None = None
    deadline_s: float | None = None
    freeze_only: bool = False
    yes: bool = False


class Run:
    """One order, from its plan on the screen to its exit code."""

    def __init__(self, session: Session, config: Config, wish: Wish) -> None:
        self._session = session
        self._terminal: Terminal = session.terminal
        self._config = config
        self._wish = wish
        self._sandbox = config.sandbox is not None
        self._word = mode_word(wish.mode, sandbox=self._sandbox)
        self._journal = Journal(config.journal_file)
        self._fallback = FallbackLog(config.fallback_file)
        self._limits = limits_for(config, wish)
        self._past = History(())
        self._runner = Runner()
        self._touched = False
        self._progress = Progress()
        self._ring = KeyRing()
        self._sealed = find_sealed(config)
        self._degraded: tuple[str, ...] = ()
        self._touched_at: float | None = None

    def carry_out(self) -> HaltReport:
        """Show the plan, take the touch, carry out the order, and give the answer."""
        sources = Sources(self._config.resolve, self._session.environment)
        parts = units(self._config, sources, Past(self._ended, self._tried, self._mentioned))
        prime()  # before the first thread, and after the clients were imported
        self._show_plan(parts)
        self._ring = KeyRing.load(self._config.key_file)
        for unit in parts:
            sources.start(unit.sources)
        self._warm(parts)
        self._progress = self._terminal.progress(self._word)
        head = self._recall()
        self._doubt_the_sealed(parts)
        order = self._order(parts, head)
        with ExitStack() as stack:
            authority = take_touch(
                self._session,
                self._config,
                order,
                self._ring,
                bundle=self._sealed.bundle,
                timeout_s=self._wish.touch_timeout_s,
                yes=self._wish.yes,
                on_touched=lambda: self._begin(stack),
            )
            sources.unseal(authority.unsealed.secrets, authority.unsealed.why_closed)
            sources.settle(SETTLE_S)
            report = self._run(order, authority.proof, parts)
            self._answer(report)
            remember_counter(self._session, self._config, authority.proof)
            stay_for_unfinished(self._terminal, self._word, self._runner)
        return report

    def _begin(self, stack: ExitStack) -> None:
        """Take over, at the moment of the touch: signals, screen and clock are the halt's now."""
        self._touched_at = time.monotonic()
        stack.enter_context(self._runner.listening())
        stack.enter_context(self._terminal.detached())

    # Before the touch.

    def _show_plan(self, parts: Sequence[Unit]) -> None:
        for unit in parts:
            line = f"   {unit.does:<8} {unit.kind:<14} {unit.system}"
            self._terminal.say(self._word, f"{line}: {unit.scope}" if unit.scope else line)

    def _warm(self, parts: Sequence[Unit]) -> None:
        """Import vendors and open connections while the operator reaches for the key."""
        for unit in parts:
            threading.Thread(target=self._warm_one, args=(unit,), daemon=True).start()

    def _warm_one(self, unit: Unit) -> None:
        try:
            text, trouble = f"ok reached  {unit.kind} {unit.system}: {unit.warm()}", False
        except VendorError as error:
            text, trouble = f"?? not reached  {unit.kind} {unit.system}: {error.problem}", True
        except Exception as error:  # noqa: BLE001 (warming up must never cost the halt)
            name = type(error).__name__
            text, trouble = f"?? not reached  {unit.kind} {unit.system}: {name}", True
        if (trouble or self._terminal.verbose) and not self._touched:
            self._terminal.say(self._word, text)

    def _ended(self, step: str, system: str) -> frozenset[str]:
        return self._past.ended(self._session.now()).get((step, system), frozenset())

    def _tried(self, step: str, system: str) -> frozenset[str]:
        return self._past.tried().get((step, system), frozenset())

    def _mentioned(self, step: str, system: str) -> frozenset[str]:
        return self._past.mentioned().get((step, system), frozenset())

    def _recall(self) -> Head:
        """Read the journal; what is wrong with it is told, and flagged, and no reason to stop."""
        memory = recall(self._journal, self._ring)
        if memory.unread and self._wish.mode is Mode.DRILL:
            raise ConfigError(
                f"the journal: {memory.unread}",
                effect="nothing was changed",
                hint="make it readable: a drill without evidence proves nothing later",
            )
        for doubt in memory.doubts:
            self._terminal.ask(self._word, f"?? {doubt}")
        self._past, self._ring, self._degraded = memory.past, memory.ring, memory.doubts
        return memory.head

    def _doubt_the_sealed(self, parts: Sequence[Unit]) -> None:
        """Tell what is wrong with the sealed secrets: a drill fails for it, a halt goes on."""
        sources = [source for unit in parts for source in unit.sources]
        doubts = self._sealed.doubts(sources, self._config, self._ring, self._past)
        for doubt in doubts:
            told = f"sealed secrets: {doubt.problem}"
            self._terminal.ask(self._word, f"?? {told}")
            if doubt.foreign or self._wish.mode is Mode.DRILL:
                self._degraded = (*self._degraded, told)

    def _order(self, parts: Sequence[Unit], head: Head) -> Order:
        return make_order(
            mode=self._wish.mode,
            scope=[f"{unit.does} {unit.kind} {unit.system}: {unit.scope}" for unit in parts],
            config_sha256=self._config.sha256,
            head=head,
            now=self._session.now(),
            random_bytes=self._session.random_bytes,
            reason=self._wish.reason,
            trigger_value=self._wish.trigger_value,
            incident=self._wish.incident,
            bundle_sha256=self._sealed.bundle.sha256,
        )

    # After the touch.

    def _run(self, order: Order, proof: Proof, parts: Sequence[Unit]) -> HaltReport:
        from killswitch.document import proof_document

        self._touched = True
        live = order.mode is Mode.LIVE
        kind = "halt" if live else "drill"
        ordered = NewEvent(
            id=f"{order.id}.ordered",
            type=f"{kind}.ordered",
            time=order.issued_at,
            data={
                "order": order.to_bytes().decode(),
                "proof": proof_document(proof),
                "sandbox": self._sandbox,
            },
        )
        triggered = Message(
            title=f"{self._word}: {kind} ordered by {proof.operator}",
            lines=(f"{kind} {order.id}, deployment {self._config.name}", *order.scope),
            key="triggered",
        )
        assignment = Assignment(
            order=order,
            proof=proof,
            intent=Intent.PERFORM if live else Intent.REHEARSE,
            steps=tuple(
                unit.step(lambda: triggered, may_write=live, freeze_only=self._wish.freeze_only)
                for unit in parts
            ),
            started_at=self._session.now(),
            record=AppendEvent(self._journal, ordered, "ordered"),
            record_elsewhere=AppendEvent(self._fallback, ordered, "ordered, elsewhere"),
            tell=lambda report: self._result_alerts(report, parts) if live else (),
            conclude=lambda report: self._conclusion(report, self._journal, "completed"),
            conclude_elsewhere=lambda report: self._conclusion(
                report, self._fallback, "completed, elsewhere"
            ),
            known=self._past.seen(),
            degraded=self._degraded,
        )
        self._runner.show = self._progress.show
        with self._progress.shown():
            # Seconds count from the touch, also those in which secrets were still being read.
            report = self._runner.run(
                lambda now: carry_out(assignment, self._limits, self._touched_at or now)
            )
            with suppress(Exception):  # a broken screen must not cost the answer
                self._progress.show(report.results)
        return report

    def _result_alerts(self, report: HaltReport, parts: Sequence[Unit]) -> list[Step]:
        return [
            unit.step(
                lambda: self._result_message(report),
                may_write=True,
                system=f"{unit.system}, result",
            )
            for unit in parts
            if unit.evidence
        ]

    def _result_message(self, report: HaltReport) -> Message:
        """Return the second alert; made in the alert's own thread, since it reads the journal."""
        lines = [touched_by(report)]
        lines += [f"{line.label}: {line.text}" for line in answer_lines(report)]
        head = self._head()
        lines.append(f"journal {head.size}:{head.hash[:16]}")
        title = headline(report, stay_down_s=self._limits.stay_down_s)
        return Message(f"{self._word}: {title}", tuple(lines), "result")

    def _head(self) -> Head:
        try:
            return self._journal.head()
        except UnreachableError:
            return Head(0, GENESIS.hex())

    def _conclusion(
        self, report: HaltReport, log: Journal | FallbackLog, system: str
    ) -> list[Step]:
        from killswitch.document import report_document

        kind = "halt" if report.order.mode is Mode.LIVE else "drill"
        event = NewEvent(
            id=f"{report.order.id}.completed",
            type=f"{kind}.completed",
            time=f"{self._session.now():%Y-%m-%dT%H:%M:%S}Z",
            data=report_document(report, sandbox=self._sandbox),
        )
        return [AppendEvent(log, event, system)]

    def _answer(self, report: HaltReport) -> None:
        from killswitch.document import report_document

        terminal = self._terminal
        title = headline(report, stay_down_s=self._limits.stay_down_s)
        terminal.hint("")
        terminal.verdict(title, good=exit_code(report) is ExitCode.OK)
        terminal.result(f"        {touched_by(report)}")
        if self._sandbox:
            terminal.result("        a sandbox: nothing real was touched")
        terminal.lines(answer_lines(report))
        terminal.document(report_document(report, sandbox=self._sandbox))


def limits_for(config: Config, wish: Wish) -> Limits:
    """Return the bounds that the configuration and the command line set."""
    halt = config.halt
    return replace(
        Limits(),
        deadline_s=wish.deadline_s or halt.deadline_s,
        stay_down_s=halt.stay_down_s,
        patience_s=halt.patience_s,
    )
