"""Who waits for the receipt of a letter to another fleet, and what they are told.

Rule 1: whoever waits hears one thing: that the letter is stored, or why that is not to be waited
for. What is said is of the moment: a letter that was refused is shown again all the same.
Rule 2: a wait ends with its caller's link, and leaves nothing behind.
"""

from typing import TYPE_CHECKING, Any

from muster.errors import Denied, MusterError, NotFound, Silent, Unreachable
from muster.log.entry import Entry
from muster.log.fold import body_as
from muster.log.stream import StreamName
from muster.message.letter import SENT, PeerSettle, SentRow
from muster.node import event as ev
from muster.node.call.answers import Answers, Call
from muster.node.link import Answer, failure
from muster.node.part import Part
from muster.node.services.letters import Letters

if TYPE_CHECKING:
    from muster.node.core import Core


class LetterRefused(ev.Event, frozen=True):
    """A door refused a letter just now; it is shown it again."""

    letter: str


class LetterWaits(Part):
    """See the rules at the top of this file."""

    name = "letter-waits"

    def __init__(self, core: "Core") -> None:
        self._core, self._letters = core, core.part(Letters)
        # By letter and by link and channel: what is answered when it is stored.
        self._waits: dict[str, dict[tuple[int, int], Any]] = {}
        core.on("peer.settle", self._settled)
        core.on(LetterRefused, self._refused)
        core.on(ev.RosterChanged, lambda _event: self.tick())

    def wait(self, call: Call, letter: str, stored: Any) -> None:
        """Answer the call when there is something to say of this letter, which is not stored yet.

        Raises: MusterError where that is known already.
        """
        call.check_streaming()
        if why := self._why(letter):
            raise why
        place = (call.link, call.channel)
        self._waits.setdefault(letter, {})[place] = stored
        self._core.part(Answers).open[place] = lambda: self._forget(letter, place)

    def _forget(self, letter: str, place: tuple[int, int]) -> None:
        waits = self._waits[letter]
        del waits[place]
        if not waits:
            del self._waits[letter]

    def tick(self) -> None:
        """Letters grow too old, and fleets are removed."""
        for letter in list(self._waits):
            if why := self._why(letter):
                self._fail(letter, why)

    def _settled(self, stream: StreamName, entry: Entry) -> None:
        if stream.machine == self._core.machine:
            letter = body_as(entry, PeerSettle).letter
            for place, stored in list(self._waits.get(letter, {}).items()):
                self._end(letter, place, {"ok": True, "value": stored})

    def _refused(self, event: LetterRefused) -> None:
        for row in self._rows(event.letter):
            if not self._letters.is_settled(row.letter):
                self._fail(row.letter, Denied(
                    f"fleet {self._letters.name_of(row.fleet)} refuses the letter: it grants that "
                    "nobody here, has no such machine, or has enough for now; the letter is shown "
                    "there again until it is a week old, and `muster letters` shows how far it came"
                ))  # fmt: skip

    def _rows(self, letter: str) -> list[SentRow]:
        return list(self._core.tables.rows(SENT, writer=self._core.machine, letter=letter, limit=1))

    def _why(self, letter: str) -> MusterError | None:
        """Why it is not to be waited for any more. Of one that this step wrote there is no row."""
        for row in self._rows(letter):
            state, fleet = self._letters.state(row), self._letters.name_of(row.fleet)
            if state == "removed":
                return NotFound(
                    f"fleet {fleet} was removed here: the letter is shown to nobody any more"
                )
            if state == "expired":
                return Unreachable(
                    f"no door of fleet {fleet} took the letter within a week: it has expired, and "
                    "is shown to nobody any more; send it again"
                )
            if state == "taken" and not self._letters.is_young(row):
                return Silent(
                    f"fleet {fleet} took the letter, and did not say within a week that its reader "
                    "has it: it may come there yet, and nobody is asked for a receipt any more"
                )
        return None

    def _fail(self, letter: str, why: MusterError) -> None:
        for place in list(self._waits.get(letter, {})):
            self._end(letter, place, failure(why))

    def _end(self, letter: str, place: tuple[int, int], answer: Answer) -> None:
        answers = self._core.part(Answers)
        answers.open.pop(place, None)
        self._forget(letter, place)
        answers.answer(*place, answer)
