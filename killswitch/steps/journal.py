"""Leave the evidence: append one event, and read it back."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from killswitch.journal.store import Event, NewEvent
from killswitch.model import Action, Clear, Plan, Receipt


class EventLog(Protocol):
    """All that this step needs from a journal, or from the file that stands in for it."""

    def find(self, event_id: str) -> Event | None:
        """Read the event back, or None."""
        ...

    def append(self, event: NewEvent) -> Event:
        """Store the event durably."""
        ...


@dataclass(frozen=True, slots=True)
class AppendEvent:
    """One event is in one log. `system` says which: "ordered", "completed", "fallback"."""

    log: EventLog
    event: NewEvent
    system: str

    name: ClassVar[str] = "journal"
    evidence: ClassVar[bool] = True

    def plan(self) -> Plan:
        """Look for the event: it is missing until it has been read back."""
        found = self.log.find(self.event.id)
        if found is not None and found.raw == self.event.to_bytes():
            return Plan(clear=(Clear(self.event.type, _where(found)),))
        return Plan(
            live=(
                Action(
                    verb="append",
                    target=self.event.type,
                    perform=self._append,
                    rehearse=self._rehearse,
                ),
            )
        )

    def _append(self) -> Receipt:
        return Receipt(_where(self.log.append(self.event)))

    def _rehearse(self) -> Receipt:
        return Receipt("journal readable")


def _where(event: Event) -> str:
    if not event.seq:
        return "in the fallback file"
    head = event.hash.hex()
    return f"event {event.seq}, head {head[:4]} {head[4:8]}"
