"""What this machine does not know of its own past, and what it leaves alone until it does.

Rule 1: a machine that was set back, or may be a copy, obeys no order, takes no task and takes no
work up: it may have done so already. It lets nobody join and binds no device: what is to be used
once (an invitation, a ticket) may have been used. It waits until everybody who may hold more of its
own log has told so, and all that they hold is here again.
Rule 2: alone it says what it waits for. An operator's word lets it go on without; from then on no
order counts that was signed before the doubt began, since whether it was obeyed cannot be known.
Rule 3: only our own key's signature proves that we wrote more than is here. What a machine merely
claims neither begins a doubt nor keeps one up.
Rule 4: a doubt outlasts a restart, is an incident of ours, and stands in the first line of `status`
and `doctor`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from muster.errors import Conflict, Unsettled
from muster.fleet.statement import Statement
from muster.limits import COMPANY_MS, CONFIRM_MS, DOUBT_REASONS_MAX
from muster.log import canon
from muster.log.stream import FLEET, StreamName
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.incarnations.lives import Lives
from muster.node.link import sentence
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {"doubts": "This machine began to doubt that its log is whole and its own."}

# The settings that keep a doubt, and the moment before which no order may have been signed.
KEPT: Final = "doubt"
FLOOR: Final = "orders-from"
INCIDENT: Final = "set-back"
# The verb whose statement ends a doubt; its object is the doubt.
RESUME: Final = "doubt.end"
_KEPT_BYTES_MAX: Final = 64 * 1024


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A doubt as the store keeps it; `awaited` is how much of our own streams there was."""

    id: str
    reasons: tuple[str, ...]
    since_ms: int
    awaited: dict[str, int] = {}
    waits: bool = True


class Doubt(Part):
    """The doubt of this machine about itself, if it has one."""

    name = "doubt"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._lives = core.part(Lives)
        self.kept: Kept | None = None
        # What the start found, and how much there was of our streams; see `Installation`.
        self.reasons: Sequence[str] = ()
        self.awaited: Mapping[str, int] = {}
        self._began_ms = 0
        # Up to then (ms) what became of what was made may be lost for good; 0 for never.
        self.floor_ms = 0

    def start(self) -> None:
        """Take up what an earlier start left; the incarnation is there by then."""
        core = self.core
        raw, floor = core.store.recall(KEPT), core.store.recall(FLOOR)
        self.floor_ms = floor if isinstance(floor, int) else 0
        self._began_ms = core.now.boot_ms
        if isinstance(raw, str) and raw:
            self.kept = canon.decode_as(raw.encode(), Kept, "a doubt", size_max=_KEPT_BYTES_MAX)
        if self.reasons:
            self.begin(self.reasons, self.awaited)

    def begin(self, reasons: Sequence[str], awaited: Mapping[str, int] | None = None) -> None:
        """There is a sign that a part of our log is elsewhere, or nowhere any more."""
        core, before = self.core, self.kept
        every = dict.fromkeys((*(before.reasons if before else ()), *map(sentence, reasons)))
        sizes = dict(before.awaited) if before else {}
        for stream, size in (awaited or {}).items():
            sizes[stream] = max(size, sizes.get(stream, 0))
        self._began_ms = core.now.boot_ms
        kept = Kept(
            id=core.draw(16).hex(),
            reasons=tuple(every)[:DOUBT_REASONS_MAX],
            since_ms=core.now.wall_ms,
            awaited=sizes,
        )
        self._keep(kept)
        core.counters["doubts"] += 1
        # How much is not here of what the mark remembers.
        found = {StreamName.parse(name): size for name, size in kept.awaited.items()}
        gone = sum(max(0, size - core.log.size(stream)) for stream, size in found.items())
        missing = f"{gone} of the {sum(found.values())} entries it had are not here."
        title = (
            f"{core.name} lost a part of its log or is a copy: {missing if gone else reasons[-1]}"
        )
        if before is None or before.reasons != kept.reasons:
            core.note(title)
            detail = " ".join(kept.reasons)
            core.incidents.open(INCIDENT, "critical", title, detail)
        if not self._others():
            # Nobody else can hold more: there is nothing to wait for, and a person is told.
            self._go_on(whole=False)

    def _keep(self, kept: Kept | None) -> None:
        self.kept = kept
        raw = "" if kept is None else canon.encode(msgspec.to_builtins(kept)).decode()
        self.core.store.remember(KEPT, raw)

    @property
    def waits(self) -> bool:
        """Whether orders, tasks and earlier work are left alone now."""
        return (self.kept is not None and self.kept.waits) or self._lives.beside is not None

    def check(self, statement: Statement) -> None:
        """Raises: Unsettled for a moment at the beginning; Conflict while no order counts."""
        kept = self.kept
        if self._lives.beside is not None and statement.verb != RESUME:
            raise Conflict(
                f"another copy of {self.core.name} runs with the same key, and an order might be "
                "obeyed twice: stop one of them; `muster doctor` says when it is over"
            )
        if kept is not None and kept.waits and statement.verb != RESUME:
            if self.core.now.boot_ms - self._began_ms < CONFIRM_MS:
                raise Unsettled("this machine asks the others how far its own log goes")
            raise Conflict(self.sentence())
        if statement.issued_ms <= self.floor_ms:
            raise Conflict(
                "this order was signed before this machine lost a part of its log, and whether it "
                "was obeyed then cannot be known: sign it anew"
            )

    def check_once(self, what: str) -> None:
        """Raises, as `check`, where it may have been forgotten that something was used before.

        Who asks may be a stranger, and hears of nobody.
        """
        if not self.waits:
            return
        if self.core.now.boot_ms - self._began_ms < CONFIRM_MS:
            raise Unsettled("this machine asks the others how far its own log goes")
        raise Conflict(
            f"this machine does not know all of its own past, or runs twice: {what} until a person "
            "has seen to that; `muster doctor` there says how"
        )

    def sentence(self) -> str:
        """What is wrong, what is waited for, and how to go on without."""
        if self.kept is None:
            return ""
        why = self.kept.reasons[-1].rstrip(".")
        return (
            f"this machine does not know all of its own past ({why}), and an order might be obeyed "
            f"twice: it waits for {self.awaits()}; `muster vouch` goes on without, as the operator"
        )

    def awaits(self) -> str:
        """For whom or what."""
        names = sorted(map(self.core.membership.name_of, self._silent()))
        if names:
            return f"{', '.join(names[:6])} to say how far its log goes"
        return "entries of its own log that others saw and nobody here holds"

    @property
    def needs_tick(self) -> bool:
        return self.waits

    def tick(self) -> None:
        """Go on when all who may know more have said so, and what they hold is here."""
        kept, core = self.kept, self.core
        if kept is None or not kept.waits:
            return
        waited_ms = core.now.boot_ms - self._began_ms
        if waited_ms < COMPANY_MS and self._silent():
            return
        if not self._others():
            self._go_on(whole=False)
            return
        # All spoke, or one did and the mark, which told how much there was, says that nothing is
        # missing; and we hold what our own seals, shown by others, say that there was.
        told = any(session.greeted for session in core.sync.sessions.values())
        told = told and all(self._has(s, n) for s, n in core.replication.longer.items())
        if told and (not self._silent() or (kept.awaited and self._reached())):
            self._go_on(whole=self._reached())
        elif waited_ms >= CONFIRM_MS:
            core.tell(ev.DoubtLasts())

    def end(self, doubt: str) -> None:
        """An operator's word. Raises: Conflict where it was about another doubt."""
        if self.kept is None or self.kept.id != doubt:
            raise Conflict("there is no such doubt any more; `muster doctor` says how it is now")
        self._go_on(whole=False, by="an operator said to go on without what is lost")

    def _go_on(self, *, whole: bool, by: str = "") -> None:
        core, kept = self.core, self.kept
        assert kept is not None, "only a doubt can end"
        waited = kept.waits
        if whole or by:
            self._keep(None)
            core.incidents.close(INCIDENT, by or "all that others hold of its log is here")
        else:
            # Nothing more will come: that it is lost stays an incident until a person looked.
            self._keep(msgspec.structs.replace(kept, waits=False))
        if not whole:
            self.floor_ms = max(self.floor_ms, kept.since_ms)
            core.store.remember(FLOOR, self.floor_ms)
        if waited:
            core.tell(ev.DoubtOver())

    def _others(self) -> set[str]:
        return {str(m) for m in self.core.roster.machines} - {str(self.core.machine)}

    def _silent(self) -> set[str]:
        """The machines that have not said yet what they hold."""
        told = {str(s.peer) for s in self.core.sync.sessions.values() if s.greeted}
        return self._others() - told

    def _has(self, stream: StreamName, size: int) -> bool:
        store = self.core.store
        frozen = store.log.frozen_at(stream)
        return store.log.size(stream) >= (size if frozen is None else min(size, frozen))

    def _reached(self) -> bool:
        """Whether all of it is here that anything remembers; a journal is with nobody else."""
        kept = self.kept
        found = {StreamName.parse(name): n for name, n in (kept.awaited if kept else {}).items()}
        return all(self._has(s, n) for s, n in found.items() if s.scope == FLEET)
