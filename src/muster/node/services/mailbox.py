"""Which messages are unread here, by reader: an index over what the folds wrote.

Rule 1: it is made of the changes of two tables since it last looked, a page with each tick, so that
a question costs what is new and not what there ever was; all of it can be made again.
Rule 2: it is asked before the asking call writes: what that call may take back was never in it.

Rule 3: what matters more comes first, then what is older. What has expired is unread no more.

A reader is an agent's name, or "" for whoever sits here, to whom everybody's readings count. Of an
agent what is for each of its live sessions lies apart; all of it together is what the agent has.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from muster.log.stream import FleetId, StreamName
from muster.message.fold import RANKS, READING, MessageFold, ReadingFold
from muster.message.state import Peer
from muster.node.part import Part
from muster.node.services import messages
from muster.node.services.speakers import Speakers
from muster.node.verb import Turns
from muster.store.schema import SEQ_BITS, pack, unpack
from muster.store.store import Store

if TYPE_CHECKING:
    from muster.node.core import Core

# Rows that are looked at between two questions to the database, and with one tick: some ten ms.
_PAGE: Final = 2_000
# So many are taken out one by one.
_FEW: Final = 100
# Each reader's index is a few words for each unread message; a daemon has few agents.
READERS_MAX: Final = 16
# A stream's number and a place in it; what is above is a time.
_PLACE_BITS: Final = 2 * SEQ_BITS
# Above a place a time, for which a stamp has so much room; above that how much it matters.
_TIME_BITS: Final = 48
_PLACE_MASK: Final = (1 << _PLACE_BITS) - 1

# The messages of a page of changes, each with whether it was read: a cut or a reading may have come
# before. What is no message any more has no id.
_MESSAGES: Final = """
with page as materialized (
  select id_, stream, seq from message_hist where id_ > ?1 order by id_ limit ?2)
select
  page.id_, page.stream, stream.name, page.seq, message.id, message.recipients, message.at_ms,
  message.rank, message.until_ms, message.session,
  exists(select 1 from reading where reading.message = message.id
  and reading.stream in (select id from stream where name >= ?3 || '/' and name < ?3 || '0')
  and (?4 = '' or reading.actor = ?4 or substr(reading.actor, 1, length(?4) + 1) = ?4 || '@'))
from page join stream on stream.id = page.stream
left join message on message.stream = page.stream and message.seq = page.seq order by page.id_
"""


# Whether what is for a live session of the agent counts; it is asked with "" for what is for none.
Wanted = Callable[[str], bool]
EVERY_SESSION: Final[Wanted] = lambda _session: True  # noqa: E731 - it is one of several


class Place(NamedTuple):
    """Where an unread message stands."""

    stream: StreamName
    seq: int


class Kind(NamedTuple):
    """Which session a message is for, "" for none, and whether it names the reader itself."""

    session: str = ""
    is_named: bool = False


class _View:
    """What one reader has not read."""

    def __init__(self, store: Store, me: Peer, agent: str) -> None:
        self.me = me
        self.streams: Counter[StreamName] = Counter()
        self._store = store
        self._agent = agent
        # By id, a number that sorts by the senders' clocks, then by stream and place; all of them
        # in order, those of each kind apart; and the streams. A tuple for each message would weigh
        # twice as much.
        self._unread: dict[bytes, int] = {}
        self._orders: dict[Kind, list[int]] = {Kind(): []}
        self._until: dict[bytes, int] = {}
        # Of those that are for no kind of reader at large, which it is.
        self._kinds: dict[bytes, Kind] = {}
        self._streams: dict[int, StreamName] = {}
        self._messages = -1
        # Readings of before are asked for with the message.
        ((last,),) = store.tables.query("select coalesce(max(id_), -1) from reading_hist")
        self._readings = int(last)  # type: ignore[arg-type]

    def look(self, now_ms: int) -> tuple[bool, bool]:
        """Take in a page; whether there is more, and whether all is to be made anew instead."""
        found = self._store.tables.changes(
            READING, ("message", "actor"), after=self._readings, limit=_PAGE
        )
        read: set[bytes] = set()
        for at, gone, stream, (message, actor) in found:
            self._readings = at
            if stream.machine == self.me.machine and (
                not self._agent or str(actor).partition("@")[0] == self._agent
            ):
                if gone:
                    return False, True
                read.add(message)
        rows: list[tuple[Any, ...]] = self._store.tables.query(
            _MESSAGES, (self._messages, _PAGE, self.me.machine, self._agent)
        )
        cut: set[int] = set()
        for at, number, name, seq, id, to, at_ms, rank, until_ms, session, was_read in rows:
            self._messages, stream, place = at, StreamName.parse(name), pack(number, seq)
            if id is None:
                cut.add(place)
                continue
            key = ((rank + 1) << _TIME_BITS | at_ms) << _PLACE_BITS | place
            known = self._unread.get(id)
            if was_read or not messages.is_for(self._agent, to, stream, self.me):
                continue
            if until_ms:
                self._until[id] = until_ms
            kind = Kind(session, f"{self._agent}@{self.me.machine}" in to.split("\n"))
            if known == key and self._kinds.get(id, Kind()) == kind:
                continue
            if known is None:
                self._streams[number] = stream
                self.streams[stream] += 1
            else:
                # Its terms came after it: it stands elsewhere now.
                self._take_from(self._kinds.pop(id, Kind()), {known})
            self._unread[id] = key
            if kind != Kind():
                self._kinds[id] = kind
            insort(self._orders.setdefault(kind, []), key)
        read |= {id for id, until_ms in self._until.items() if until_ms <= now_ms}
        self._take_out(read, cut)
        return max(len(found), len(rows)) == _PAGE, False

    def places(self, wanted: Wanted = EVERY_SESSION) -> Iterator[Place]:
        """What is unread and for sessions that are wanted: what matters more first, then by the
        senders' clocks, each sender's in its order.
        """
        found = (each for kind, each in self._orders.items() if wanted(kind.session))
        return map(self._place, merge(*found))

    def newest(self, wanted: Wanted, *, only_named: bool) -> Iterator[Place]:
        """The same, of what matters equally the newest first."""
        orders = [
            each
            for kind, each in self._orders.items()
            if wanted(kind.session) and (kind.is_named or not only_named)
        ]
        for rank in range(len(RANKS)):
            least, most = (each << _TIME_BITS << _PLACE_BITS for each in (rank, rank + 1))
            found = (_falling(each, least, most) for each in orders)
            yield from map(self._place, merge(*found, reverse=True))

    def count(self, wanted: Wanted) -> int:
        """How many those are."""
        return sum(len(each) for kind, each in self._orders.items() if wanted(kind.session))

    def _place(self, key: int) -> Place:
        number, seq = unpack(key & _PLACE_MASK)
        return Place(self._streams[number], seq)

    def _take_out(self, read: set[bytes], cut: set[int]) -> None:
        ids = self._unread.keys() & read
        if cut:
            ids |= {id for id, key in self._unread.items() if key & _PLACE_MASK in cut}
        if ids:
            out = {self._unread.pop(id) for id in ids}
            for id in ids:
                self._until.pop(id, None)
                self._kinds.pop(id, None)
            self.streams.subtract(self._place(key).stream for key in out)
            self.streams = +self.streams
            for kind in list(self._orders):
                self._take_from(kind, out)

    def _take_from(self, kind: Kind, out: set[int]) -> None:
        self._orders[kind] = _without(self._orders[kind], out)
        if kind != Kind() and not self._orders[kind]:
            del self._orders[kind]


def _falling(order: list[int], least: int, most: int) -> Iterator[int]:
    """What of a list in order is between these, from its end."""
    at, first = bisect_left(order, most), bisect_left(order, least)
    while at > first:
        at -= 1
        yield order[at]


def _without(order: list[int], out: set[int]) -> list[int]:
    """A list in order without some of it; where that is little, all the rest is not looked at."""
    if len(out) > _FEW:
        return [key for key in order if key not in out]
    for key in out:
        at = bisect_left(order, key)
        if at < len(order) and order[at] == key:
            del order[at]
    return order


class Mailbox(Part):
    """The unread messages of this machine."""

    name = "mailbox"

    def __init__(self, core: "Core") -> None:
        self._core, self._store = core, core.store
        self._views: dict[str, _View] = {}
        # Readers whose question is under way: their view is not given to another.
        self._asking: Counter[str] = Counter()
        # How much had come when all of it was looked at last.
        self._looked = 0

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (MessageFold(), ReadingFold())

    @property
    def needs_tick(self) -> bool:
        return self._store.log.admissions - self._looked >= _PAGE // 2

    def tick(self) -> None:
        """Look at some of what came, where it is much: a burst is known before anybody asks."""
        came = self._store.log.admissions
        if self.needs_tick and not sum([self._look(agent) for agent in {"", *self._views}]):
            self._looked = came

    def unread(self, agent: str = "", wanted: Wanted = EVERY_SESSION) -> Iterator[Place]:
        """What this reader has not read, as it is to be read; who speaks there was not asked."""
        return self._views[agent].places(wanted)

    def newest(self, agent: str, wanted: Wanted, *, only_named: bool = False) -> Iterator[Place]:
        """What an agent has not read, the newest first; who speaks there was not asked.

        `only_named`: of that, what is addressed to it and not to everybody or a role.
        """
        return self._views[agent].newest(wanted, only_named=only_named)

    def count(self, speakers: Speakers, agent: str = "", wanted: Wanted = EVERY_SESSION) -> int:
        """How many messages that were said to this reader it has not read."""
        view = self._views[agent]
        doubted = {stream for stream in view.streams if not speakers.is_heard(stream)}
        unsaid = sum(
            not speakers.speaks(each.stream, each.seq)
            for each in (view.places(wanted) if doubted else ())
            if each.stream in doubted
        )
        return view.count(wanted) - unsaid

    def whole(self, agent: str = "") -> Turns[None]:
        """Take in all that came, a page in each turn; what is asked below is asked after this."""
        while agent not in self._asking and len(self._asking) >= READERS_MAX:
            yield
        self._asking[agent] += 1
        try:
            if agent in self._views:
                self._views[agent] = self._views.pop(agent)
            while self._look(agent):
                yield
        finally:
            # Nobody who asks no more is kept in it.
            self._asking -= Counter([agent])

    def _look(self, agent: str) -> bool:
        """Whether there is more to look at."""
        me, view = messages.me(self._core), self._views.get(agent)
        if view is not None and view.me == me:
            more, spoiled = view.look(self._core.now.wall_ms)
            if not spoiled:
                return more
        elif view is None and len(self._views) >= READERS_MAX:
            for other in [name for name in self._views if name not in self._asking][:1]:
                del self._views[other]
        view = self._views[agent] = _View(self._store, me, agent)
        return view.look(self._core.now.wall_ms)[0]
