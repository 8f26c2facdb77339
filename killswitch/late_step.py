"""A step that is built when it is first looked at, so that building costs only itself."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from killswitch.errors import ConfigError, RefusedError, VendorError
from killswitch.model import Plan, Step


@dataclass(slots=True)
class LateStep:
    """A step that is built when it is first looked at, so that building costs only itself."""

    name: str
    system: str
    evidence: bool
    build: Callable[[], Step]
    freeze_only: bool = False
    _step: Step | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self) -> Plan:
        """Build the step if need be, and look."""
        with self._lock:
            if self._step is None:
                self._step = self._built()
        plan = self._step.plan()
        return _frozen(plan) if self.freeze_only else plan

    def _built(self) -> Step:
        try:
            return self.build()
        except VendorError:
            raise
        except (ValueError, ImportError, OSError, ConfigError) as error:
            raise RefusedError(f"cannot be built: {error}") from None


def _frozen(plan: Plan) -> Plan:
    why = "freeze only: it could not be undone"
    live = (
        action if action.reversible else replace(action, withheld=action.withheld or why)
        for action in plan.live
    )
    return replace(plan, live=tuple(live))
