"""What the journal remembers, as a halt or drill takes it in before the touch."""

from dataclasses import dataclass
from typing import Final

from killswitch.authority.changes import admitted, ring_trouble
from killswitch.authority.ring import KeyRing
from killswitch.errors import UnreachableError
from killswitch.journal.check import check
from killswitch.journal.history import History
from killswitch.journal.store import GENESIS, Head, Journal
from killswitch.journal.verify import Finding
from killswitch.model import Mode
from killswitch.waiting import within

JOURNAL_S: Final = 5.0
"""How long a halt reads and checks the journal before the touch: a dead disk must not hold it."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The journal's head and past; `ring` has only the keys that the journal admitted.

    `doubts` are differences that degrade the evidence. `unread` says why nothing could be read.
    """

    head: Head
    past: History
    ring: KeyRing
    doubts: tuple[str, ...] = ()
    unread: str = ""


def recall(journal: Journal, ring: KeyRing) -> Memory:
    """Read and check the journal; never raises: whatever is wrong with it, a halt goes on."""
    try:
        return within(JOURNAL_S, "the journal", lambda: _read(journal, ring))
    except UnreachableError as error:
        why = error.problem
    except Exception as error:  # noqa: BLE001 (its bytes may be anybody's; a halt needs none of them)
        why = f"it cannot be checked: {type(error).__name__}"
    doubt = f"journal: not read before the touch: {why}"
    return Memory(Head(0, GENESIS.hex()), History(()), ring, (doubt,), unread=why)


def _read(journal: Journal, ring: KeyRing) -> Memory:
    events = journal.events()
    checked = check(events, ring.keys)
    verdict = checked.verdict
    head = Head(verdict.size, verdict.head)
    if verdict.finding is not Finding.INTACT:
        # What was changed is no memory: nothing in it counts as seen before, or as admitted.
        problem = f"journal: event {verdict.bad_seq}: {verdict.problem}"
        return Memory(head, History(()), ring, doubts=(problem,))
    # A journal that tells of no key is a new one, or of another laptop: no reason not to halt.
    trouble = ring_trouble(ring, checked.keys, checked.recovery) if checked.keys else None
    doubts = (f"key ring: {trouble.problem}",) if trouble else ()
    known = admitted(ring, checked.keys)
    if not any(key.may(Mode.LIVE.value) for key in known.keys):
        known = ring  # a journal of strangers must not keep a person with a key from halting
    return Memory(head, History(events), known, doubts)
