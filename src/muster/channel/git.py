"""A git repository that several machines reach is a mailbox: a host's, a server's, a bare folder.

Rule 1: what a machine leaves lies on a branch of its own, one commit without a past, made anew by
each push (git/mailbox.py). What others do to that branch is undone by the next push.
Rule 2: a push carries all that gathered, and there is no more than one in two seconds. What is left
counts as left when the push ended well, and as dealt with when its reader's branch says so.
Rule 3: nobody asks the repository over and over: soon while somebody speaks, else ever more seldom.
Rule 4: the repository is trusted with nothing, and waited for only so long.
"""

import asyncio
import contextlib
import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from muster import limits
from muster.channel import git_shelf as shelf
from muster.channel.base import Packet, PostOptions, Visitor
from muster.errors import (
    USED_UP,
    Conflict,
    Exhausted,
    Malformed,
    MusterError,
    Refused,
    Unreachable,
)
from muster.git import mailbox, source
from muster.git.fence import WRITER_CHARS
from muster.git.mailbox import Branch, Mailbox
from muster.git.objects import READER, Blob

NAME: Final = "git"

# Without news the repository is asked this often.
URGENT_S: Final = 3
_IDLE_S: Final = 30
_IDLE_S_MAX: Final = 600
# Our branch may be moved by others between two looks of ours, and not for ever.
_PUSHES_MAX: Final = 3
# What is read in one look.
_READ_BYTES_MAX: Final = 16 * 1024 * 1024
_WAYS: Final = ("file://", "ssh://", "https://", "muster::")
_WAY: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")


Terms = shelf.Terms
_TERMS: Final = Terms()


def check_place(address: str) -> str:
    """A repository, as `repo add` takes it, or with `~/`. Raises: Malformed, Refused."""
    source.check(os.path.expanduser(address) if address.startswith("~/") else address)
    way = _WAY.match(address)
    if way is not None and way[0] not in _WAYS:
        raise Malformed(
            f"{way[0]} is no way to a shared repository: take ssh://, https://, muster:: or a "
            "folder of this machine"
        )
    return address


class Options(PostOptions, frozen=True, forbid_unknown_fields=True):
    """`place` is the repository that the machines share: an address without a secret in it."""

    check_place = staticmethod(check_place)


class GitPost:
    """See the rules at the top of this file."""

    name = NAME

    def __init__(
        self, there: Mailbox, where: str, visitor: Visitor, deadline_s: int = 0,
        terms: Terms = _TERMS,
    ) -> None:  # fmt: skip
        self._there, self._where, self._machine = there, where, visitor.machine
        self._branch, self._members = visitor.machine[:WRITER_CHARS], visitor.secrets
        self._deadline_s, self.terms = deadline_s, terms
        self._lock = asyncio.Lock()
        self._begun = False
        # Our branch: in our copy, and in the repository as far as that is known.
        self._own = mailbox.Own("", {}, frozenset())
        self._pushed: str | None = None
        # What is to lie there and was not written down yet, and what is no more to.
        self._coming: dict[tuple[str, str], bytes] = {}
        self._left: dict[tuple[str, str], Blob] = {}
        self._acked: set[str] = set()
        # What others' branches have for us, as far as it was looked at; and what waits of it.
        self._branches: dict[str, Branch] = {}
        self._waiting: OrderedDict[str, Blob] = OrderedDict()
        self._turn: list[str] = []
        # Whose turn it was last, and whether the last take went on with what was seen before it.
        self._after, self._went_on = "", False
        # What was given to the caller, what was dealt with, and what is not what its name says.
        self._given: OrderedDict[str, None] = OrderedDict()
        self._dealt: OrderedDict[str, None] = OrderedDict()
        self._odd: OrderedDict[str, None] = OrderedDict()
        self._away = ""
        self._next: asyncio.Task[MusterError | None] | None = None
        self._pushes: set[asyncio.Task[MusterError | None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._bell, self._dozes = asyncio.Event(), False
        self._idle_s, self._again_s = _IDLE_S, URGENT_S
        self._pushed_s = self._rung_s = float("-inf")
        self._closed = False

    async def put(self, packet: bytes, *, to: str) -> None:
        if len(packet) > limits.PACKET_BYTES_MAX:
            most = limits.PACKET_BYTES_MAX
            raise Malformed(f"a packet has {len(packet)} bytes; at most {most} are left")
        assert READER.match(to), "a receiver is a machine, and becomes the name of a folder"
        key = (to, hashlib.sha256(packet).hexdigest() + shelf.SUFFIX)
        async with self._working():
            if self._lies_there(key):
                return
            full = self._full(key, len(packet))
            if not full:
                self._coming[key] = packet
                push = self._push_soon()
        if full:
            raise Exhausted(full)
        try:
            # Whoever stops waiting for it stops nobody else's.
            await asyncio.wait([push])
        finally:
            self._coming.pop(key, None)
        if error := self._closed_error() if push.cancelled() else push.result():
            raise type(error)(str(error))
        if self._dozes:
            # Whoever is answered soon looks soon, however long it was quiet.
            self._bell.set()

    async def take(self, most: int = limits.POST_TAKEN_MAX) -> list[Packet]:
        async with self._working():
            self._went_on = bool(self._waiting) and not self._went_on
            if not self._went_on:
                await self._look()
            found: list[Packet] = []
            while self._waiting and not found:
                found = await self._read(most)
            return found

    async def ack(self, ids: Sequence[str]) -> None:
        async with self._working():
            dealt = [id for id in ids if id in self._given or id in self._waiting]
            for id in dealt:
                self._waiting.pop(id, None)
                shelf.remember(self._dealt, id)
            if dealt:
                self._acked.update(dealt)
                await self._write()
                self._push_later(self.terms.ack_s)
        if self._away:
            raise Unreachable(self._away)

    async def news(self, *, urgent: bool) -> None:
        if self._closed:
            return
        deadline_s = self._deadline_s or (URGENT_S if urgent else self._idle_s)
        self._dozes = not urgent
        try:
            async with asyncio.timeout(deadline_s):
                await self._bell.wait()
        except TimeoutError:
            if not urgent:
                self._idle_s = min(2 * self._idle_s, _IDLE_S_MAX)
        finally:
            self._dozes = False
        self._bell.clear()

    def ring(self) -> None:
        """Something moved there, says who serves it: `news` returns, now and then at most."""
        loop = asyncio.get_running_loop()
        if self._rung_s <= loop.time():
            self._rung_s = max(loop.time(), self._rung_s + self.terms.gap_s)
            loop.call_at(self._rung_s, self._bell.set)

    async def close(self) -> None:
        self._closed = True
        self._bell.set()
        if self._later is not None:
            self._later.cancel()
        for push in self._pushes:
            push.cancel()
        if self._pushes:
            await asyncio.wait(self._pushes)

    # --- what comes --------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask the repository what moved, and read that."""
        heads = await self._heads()
        before, self._pushed = self._pushed, heads.pop(self._branch, "")
        self._away = ""
        if self._pushed and not self._own.commit:
            # Our copy is new, and what we left before may not have been taken yet.
            await self._adopt(self._pushed)
        if self._pushed not in (before, self._own.commit):
            # Somebody moved it, or we were ended before we did.
            self._push_later(0)
        if heads == {name: branch.commit for name, branch in self._branches.items()}:
            return
        there = await self._there.take_over(heads)
        known = {n: b for n, b in self._branches.items() if there.get(n) == b.commit}
        moved = {name: commit for name, commit in there.items() if name not in known}
        if moved or len(known) != len(self._branches):
            self._idle_s = _IDLE_S
            left = shelf.by_writer(self._left)
            self._branches = known | await self._there.branches(moved, self._machine, left)
            self._sort()

    async def _heads(self) -> dict[str, str]:
        """What stands there: of us, and of machines of the fleet."""
        members = [self._branch, *self._members()] if self._members() else []
        first = [
            self._branch,
            *(each[:WRITER_CHARS] for each in members),
            *shelf.by_writer(self._left),
        ]
        return shelf.of_fleet(await self._there.heads(first), members)

    async def _adopt(self, commit: str) -> None:
        found = await self._there.adopt(self._branch, commit)
        self._left, self._acked = {**found.files, **self._left}, self._acked | found.acks
        await self._write()

    def _sort(self) -> None:
        """What waits for us, of each machine in turn; what of ours and of theirs was dealt with."""
        there = shelf.in_turn(self._branches, self._after)
        self._turn = list(there)
        again = {id for id in there if id in self._dealt} - self._acked
        gone = {id for id in self._acked if id not in there}
        taken = shelf.dealt_with(self._left, self._branches)
        for key in taken:
            del self._left[key]
        self._acked = (self._acked - gone) | again
        if again:
            self._push_later(self.terms.ack_s)
        elif gone or taken:
            self._push_later(self.terms.gone_s)
        passed = self._acked | self._odd.keys()
        self._waiting = OrderedDict((id, blob) for id, blob in there.items() if id not in passed)

    async def _read(self, most: int) -> list[Packet]:
        """Some of what waits; what is not what its name says waits no more."""
        chosen, size = list[tuple[str, Blob]](), 0
        for id, blob in self._waiting.items():
            size += blob.size
            if len(chosen) == most or (chosen and size > _READ_BYTES_MAX):
                break
            chosen.append((id, blob))
        self._after = shelf.whose(self._branches, chosen[-1][0]) if chosen else self._after
        found = []
        bodies = await self._there.read([blob for _, blob in chosen])
        for (id, _), body in zip(chosen, bodies, strict=True):
            if hashlib.sha256(body).hexdigest() == id:
                shelf.remember(self._given, id)
                found.append(Packet(id, body))
            else:
                shelf.remember(self._odd, id)
                del self._waiting[id]
        return found

    # --- what goes ---------------------------------------------------------------------

    def _lies_there(self, key: tuple[str, str]) -> bool:
        written = bool(self._own.commit) and self._own.commit == self._pushed
        return written and key in self._left and key in self._own.files

    def _full(self, key: tuple[str, str], size: int) -> str:
        """Why there is no room for a packet, "" where there is."""
        sizes = {each: blob.size for each, blob in self._left.items()}
        sizes |= {each: len(held) for each, held in self._coming.items()} | {key: size}
        return shelf.why_full(self._where, sizes, key, self.terms.box_bytes_max)

    def _push_later(self, after_s: float) -> None:
        """Push in a while at the latest; with something that is left sooner it goes as well."""
        loop = asyncio.get_running_loop()
        at_s = loop.time() + after_s
        if self._later is not None and self._later.when() > at_s:
            self._later.cancel()
            self._later = None
        if self._later is None:
            self._later = loop.call_at(at_s, self._push_now)

    def _push_now(self) -> None:
        self._later = None
        self._push_soon()

    def _push_soon(self) -> "asyncio.Task[MusterError | None]":
        """The next push, which takes along all that is there by then."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._push_next())
            self._pushes.add(self._next)
            self._next.add_done_callback(self._pushes.discard)
        return self._next

    async def _push_next(self) -> MusterError | None:
        """Why it failed is for all that wait for it."""
        now_s = asyncio.get_running_loop().time()
        # Also after a quiet: what is left in the same turn of the loop goes along.
        await asyncio.sleep(max(0, self._pushed_s + self.terms.gap_s - now_s))
        try:
            async with self._working():
                self._next = None
                await self._push()
        except (Unreachable, Exhausted) as error:
            if not self._closed:
                # What was dealt with, or is put back, nobody else would push again.
                self._push_later(self._again_s)
                self._again_s = min(2 * self._again_s, _IDLE_S_MAX)
            return error
        finally:
            if self._next is asyncio.current_task():
                self._next = None
        self._again_s = URGENT_S
        return None

    async def _push(self) -> None:
        if self._pushed is None or not self._own.commit:
            await self._look()
        if self._coming or self._left != self._own.files or self._acked != self._own.acks:
            await self._write()
        for left in reversed(range(_PUSHES_MAX)):
            if self._own.commit == (self._pushed or ""):
                return
            self._pushed_s = asyncio.get_running_loop().time()
            try:
                await self._there.push(self._branch, self._own.commit, self._pushed or "")
            except Conflict:
                # Somebody else moved it; as it is now it is replaced.
                if not left:
                    raise
                self._pushed = (await self._heads()).get(self._branch, "")
            else:
                self._pushed, self._idle_s = self._own.commit, _IDLE_S

    async def _write(self) -> None:
        """Write down what is to lie there, before anything of it does."""
        files: dict[tuple[str, str], Blob | bytes] = {**self._left, **self._coming}
        acks = shelf.acks_first(self._acked, self._turn)
        self._own = await self._there.write(files, acks)
        self._left = dict(self._own.files)

    # --- the repository, and what comes in between -------------------------------------

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        """Our turn at the repository and our copy. Raises: Unreachable, Exhausted."""
        async with self._lock:
            if self._closed:
                raise self._closed_error()
            try:
                if not self._begun:
                    await self._begin()
                yield
            except (Unreachable, Exhausted) as error:
                self._forget(str(error))
                raise
            except MusterError as error:
                self._forget(f"the repository {self._where} cannot be used now: {error}")
                if not isinstance(error, Conflict | Refused):
                    await self._there.mend()
                raise Unreachable(self._away) from error
            except OSError as error:
                self._forget(f"the copy of {self._where} cannot be used ({error.strerror})")
                raise (Exhausted if error.errno in USED_UP else Unreachable)(self._away) from error
            except asyncio.CancelledError:
                # A git that was ended may have left half of something.
                self._forget("")
                raise

    async def _begin(self) -> None:
        self._own = await self._there.begin()
        self._left, self._acked = dict(self._own.files), set(self._own.acks)
        self._begun = True

    def _forget(self, why: str) -> None:
        """Something failed: what is known of both sides is looked at anew."""
        self._away, self._begun, self._pushed = why, False, None
        self._branches = {}
        self._waiting.clear()

    def _closed_error(self) -> Unreachable:
        return Unreachable(f"the mailbox in {self._where} is closed")


def open_channel(options: Options, visitor: Visitor) -> GitPost:
    """The mailbox of one machine in the repository; that may be away now, and come back."""
    place = options.place
    address = str(Path(place).expanduser()) if place.startswith("~/") else place
    there = Mailbox(visitor.home / "posts" / NAME, address, visitor.survived)
    return GitPost(there, place, visitor, options.deadline_s)
