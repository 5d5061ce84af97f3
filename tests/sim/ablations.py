"""What the safeguards are for: each can be taken away here, and its loss must be noticed.

A removal patches one named function of the product (or of the world, where the safeguard is the
order of a write and a send) and nothing else. Its fault profile has the same name.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import msgspec

from muster.errors import Broken
from muster.fleet import parcel as parcels
from muster.fleet.document import Document, Form
from muster.git import fence as fences
from muster.limits import BODY_BYTES_MAX
from muster.log import admit, canon
from muster.log import entry as entries
from muster.log.post import Box, Posts
from muster.log.proofs import Proofs
from muster.log.refresh import Refresh
from muster.log.stream import StreamName
from muster.log.sync import Sync
from muster.node import event as ev
from muster.node import installation
from muster.node.incarnations import clone, own_incarnation, republish
from muster.node.links import parcel_desk
from muster.node.replica import forks
from muster.node.services.proving import Proving
from muster.node.tasks import ownership, run
from muster.store.folding import Folding
from muster.store.sqlite import Database
from muster.store.store import Store
from muster.task import adoption, approval, evidence, pot
from muster.task.budget import Amount
from muster.task.kinds import TaskAssign, TaskOpen, read
from tests.sim import machine as machines

Patch = tuple[Any, str, Any]


def _genuine_or_not(*_: Any) -> None:
    """Whoever signed it: fine."""


def _no_proof_needed(entry: Any, **_: Any) -> Any:
    """Whatever an owner assigns is run."""
    assign = read(TaskAssign, entry.body)
    return SimpleNamespace(certain=True, opened=TaskOpen(task=assign.task, template={}))


def _leaves_early(self: machines.Machine, effects: list[ev.Effect]) -> None:
    """What a step wants sent leaves before its fsync came back."""
    self.perform(effects)


def _stops(self: Any, *given: Any) -> None:
    """A fold that meets an entry it cannot use goes no further."""
    before = len(self._skipped)
    _fold_all(self, *given)
    if len(self._skipped) > before:
        raise Broken("an entry cannot be folded")


_fold_all = Folding.apply


def _believes_any_opening(_self: Any, _stream: Any, opening: Any) -> set[Any]:
    """Whatever a stream begins with is read as an opening."""
    body = canon.decode(opening.body or b"{}", "an opening", size_max=BODY_BYTES_MAX)
    return {StreamName.parse(head).incarnation for head in body["heads"]}


def _waits_for_nothing(self: Store, _waiting: Any) -> None:
    """The step that found no room is taken for done, and nothing of it is kept."""
    self._forget()
    self._database.begin()
    self.waits = True


def _settles(self: Posts, number: int, now_ms: int) -> None:
    """What lies in a mailbox is taken for received."""
    for box in self.boxes.values():
        for lane in box.session.lanes.values():
            lane.has = lane.sent
    _left(self, number, now_ms)


def _says_nothing_of_others(self: Posts, box: Box, now_ms: int) -> None:
    """The first parcel tells of no stream."""
    box.told, box.told_ms = True, now_ms


def _grew_here(self: Posts, box: Box, stream: StreamName, now_ms: int) -> None:
    """Nobody hears at a place what others wrote."""
    if stream.machine == self._sync.machine:
        _grew(self, box, stream, now_ms)


def _pushes_once(self: Posts, box: Box, until_ms: int, _again: bool, now_ms: int) -> Any:
    """What was left at a place is taken to come."""
    return _push(self, box, until_ms, False, now_ms)


def _any_body(raw: bytes, salt: bytes, body: bytes | None) -> entries.Entry:
    """Whatever comes with a header is what it names."""
    item = _parse(raw, b"", None)
    return entries.Entry(item.raw, item.header, item.id, salt, body)


_parse = entries.parse


class _Unproved(Document[Any]):
    """What it says is believed, whoever signed it."""

    __slots__ = ()

    def check(self, public: str) -> Any:
        return self.value


class _Believes(Form[Any]):
    __slots__ = ()

    def read(self, raw: bytes, fleet: str) -> Document[Any]:
        return _Unproved(*super().read(raw, fleet))


def _whoever_it_is_for(raw: bytes, fleet: Any, me: str, is_member: Any) -> Any:
    """A parcel is taken by whoever finds it."""
    to = msgspec.json.decode(raw.split(b"\n", 2)[1])["to"] if raw.count(b"\n") > 2 else me
    return _read_parcel(raw, fleet, to, is_member)


_read_parcel = parcels.read_parcel


def _offers_nothing(self: Sync, session: Any, streams: Any, link: int = 0) -> None:
    """In no mailbox it is said how far a stream goes."""
    if session.link not in self.posts.boxes:
        _send_heads(self, session, streams, link)


_send_heads = Sync._send_heads

_left, _grew, _push = Posts.left, Posts._grew, Posts._push


def _all(_self: Proofs, links: Iterable[int]) -> list[int]:
    """A link is believed because it stands."""
    return list(links)


def _no_ground_needed(_adopt: Any, of: str, *_: Any) -> str:
    """Whoever says that it goes on with another machine's work does."""
    return of


def _first_come(*given: Any, **more: Any) -> Any:
    """Of several who adopted the same work whoever was heard of first has it."""
    return _check_ordered(*given, **more)._replace(generation=0)


_check_ordered = evidence.check_ordered


def _holds_nothing(most: Amount, parts: Iterable[pot.Part]) -> pot.State:
    """What is reserved is forgotten until it was used."""
    return _state(most, (part for part in parts if part.settled is not None))


_state = pot.state


REMOVALS: dict[str, tuple[Patch, ...]] = {
    "adoption-ground": ((adoption, "check_ground", _no_ground_needed),),
    "adoption-epoch": ((ownership, "check_ordered", _first_come),),
    "approval-binding": ((approval, "binds", lambda *_: True),),
    "climb": ((Proving, "_doubt", lambda *_: None),),
    "proven-first": ((Proofs, "trusted", _all),),
    "incarnation-guard": ((installation, "doubts", lambda *_: []),),
    "own-head-first": ((own_incarnation.OwnIncarnation, "must_ask", lambda _self: False),),
    "cursor-in-the-transaction": ((machines.Machine, "crash", None),),
    "seal-check": ((admit, "check_seal", lambda *_: True),),
    "signer-check": ((admit, "check_signer", _genuine_or_not),),
    "middle-seal": ((admit, "check_seal", lambda *_: True),),
    "middle-signer": ((admit, "check_signer", _genuine_or_not),),
    "middle-body": ((entries, "parse", _any_body),),
    "relay-withholds": ((Refresh, "due", lambda *_: None),),
    "asked-again": (
        (Sync, "_retry", lambda *_: None),
        (Refresh, "due", lambda *_: None),
    ),
    "evidence-check": ((evidence, "check_evidence", _no_proof_needed),),
    "fence": ((fences, "may_commit", lambda *_: None),),
    "fork-gossip": (
        (Sync, "spread_fork", lambda *_: None),
        (forks.Forks, "proofs", lambda _self: {}),
    ),
    "money-reserved": ((pot, "state", _holds_nothing),),
    "orders-last": ((republish.Republisher, "publish", lambda *_: None),),
    "poison-is-skipped": ((Folding, "apply", _stops),),
    "mistakes-are-seen": ((clone.CloneDetector, "_note", _believes_any_opening),),
    "step-waits-for-room": ((Store, "_wait_for_room", _waits_for_nothing),),
    "receipt-rule": ((Posts, "left", _settles),),
    "offered-again": (
        (Posts, "_push", _pushes_once),
        (Posts, "_offered_anew", lambda *_: []),
    ),
    "parcel-signature": ((parcels, "_PARCEL", _Believes(*parcels._PARCEL)),),
    "parcel-receiver": ((parcel_desk, "read_parcel", _whoever_it_is_for),),
    "told-anew": ((Posts, "began_anew", lambda *_: None),),
    "heads-at-an-engine": ((Sync, "_send_heads", _offers_nothing),),
    "heads-exchange": (
        (Posts, "_tell_all", _says_nothing_of_others),
        (Posts, "_grew", _grew_here),
    ),
    "reviews": ((run.Run, "owners_word", lambda *_: {}),),
    "witness-persists": ((machines.Machine, "lost", _leaves_early),),
}


def _crash_with_tables_of_their_own(
    crash: Callable[..., None],
) -> Callable[..., None]:
    """The tables are written in another transaction than the entries: it came through, the
    entries did not."""

    def torn(self: machines.Machine, image: bytes | None = None) -> None:
        if image is not None and self.core is not None:
            store = self.core.store
            image = _with_tables_of(image, store.image(), list(store._folding.tables))
        crash(self, image)

    return torn


def _with_tables_of(older: bytes, newer: bytes, tables: list[str]) -> bytes:
    """The older database, with the tables of the newer one."""
    target, source = Database(":memory:", image=older), Database(":memory:", image=newer)
    try:
        target.begin()
        for name in (t for table in tables for t in (table, table + "_hist")):
            rows = source.query(f"select * from {name}")
            target.execute(f"delete from {name}")
            if rows:
                marks = ", ".join("?" * len(rows[0]))
                target.executemany(f"insert into {name} values({marks})", rows)
                # Rows of a stream that is not there at all could not be read, not even wrongly.
                target.execute(f"delete from {name} where stream not in (select id from stream)")
        target.commit()
        return target.image()
    finally:
        target.close()
        source.close()


@contextmanager
def removed(name: str) -> Iterator[None]:
    """Without this safeguard, as long as it lasts; no name removes nothing."""
    kept: list[Patch] = []
    try:
        for place, attribute, instead in REMOVALS.get(name, ()):
            before = getattr(place, attribute)
            kept.append((place, attribute, before))
            setattr(place, attribute, instead or _crash_with_tables_of_their_own(before))
        yield
    finally:
        for place, attribute, before in kept:
            setattr(place, attribute, before)


__all__ = ["REMOVALS", "removed"]
