"""A bucket of an object store is a mailbox: packets are objects, and nothing else is asked of it.

Rule 1: a packet is the object `<prefix>/<receiver>/<name>`, put by one request and asked for by
none before; its sha256 ends the name, which tells the writer where the receiver reads that
(channel/turn.py). Written twice it is one object.
Rule 2: an object counts when its content has the hash that its key says. What is foreign, or was
put in the place of another, is passed over, and read no second time. What cannot be read keeps no
other from being read, and is asked for again.
Rule 3: nobody asks a store over and over: soon while somebody speaks, else ever more seldom. What
is listed and read in one look is bounded, whatever lies there; the next look goes on from there.
Where more lies there than one list holds, each machine of the fleet has a list of its own in turn.
Rule 4: nothing lies there for ever. The store removes what is old, where it does such things and
has no rules of its own; else whoever put something for a machine removes what is old of it.
"""

import asyncio
import contextlib
import hashlib
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from muster.channel import s3
from muster.channel.base import Packet, PostOptions, Visitor
from muster.channel.s3_answer import Listed
from muster.channel.turn import NAME as PACKET
from muster.channel.turn import NAMED, Looks, Lying, sha256_of, writer_of
from muster.errors import Broken, Malformed, MusterError
from muster.limits import PACKET_BYTES_MAX, POST_TAKEN_MAX

NAME: Final = "cloud"
# The file of the keys, in the home of the machine.
KEYS: Final = "cloud.env"

# Without news the store is asked so often: while somebody waits; at first; when nothing comes.
URGENT_S: Final = 3
IDLE_S: Final = 20
IDLE_S_MAX: Final = 600
# In one look.
_PAGES_MAX: Final = 6
_READ_MAX: Final = 2 * POST_TAKEN_MAX
_PASSED_OVER_MAX: Final = 4096
_PUTS_MAX: Final = 4
# One of these has the whole line, so that it is there in time.
_LARGE_BYTES: Final = 64 * 1024
# What is older was offered again since, or nobody wants it; and what is removed at once, how often.
KEPT_DAYS: Final = 7
_TIDIED_S: Final = 86_400
_TIDIED_MAX: Final = 100
_MACHINE: Final = re.compile(r"[0-9a-z-]{1,64}")
_REGION: Final = re.compile(r"[a-z0-9-]{1,32}")
_KEY: Final = re.compile(r"[!-~]{1,4096}")
_RULE: Final = "muster"


class Options(PostOptions, frozen=True, forbid_unknown_fields=True):
    """`place` is `https://host/bucket/prefix`; the keys are in cloud.env beside config.toml.

    `plain` lets http go to an address that is not private.
    """

    region: str = "us-east-1"
    plain: bool = False

    @staticmethod
    def check_place(address: str) -> str:
        s3.where(address)
        return address


def keys_of(variables: Mapping[str, str]) -> s3.Keys:
    """The keys that cloud.env gives. Raises: Broken naming what it does not give."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    values = [variables.get(name, "") for name in names]
    for name, value in zip(names, values, strict=True):
        if not _KEY.fullmatch(value) and (value or name != names[2]):
            raise Broken(
                f"{KEYS}, beside config.toml, gives no {name} of use: write {name}=… there, and "
                f"`chmod 600 {KEYS}`"
            )
    return s3.Keys(*values)


class CloudPost:
    """See the rules at the top of this file."""

    name = NAME

    def __init__(self, options: Options, visitor: Visitor) -> None:
        if not _REGION.fullmatch(options.region):
            raise Broken(f"`channel.cloud.region`: {options.region[:40]!r} is no region")
        at = s3.where(options.place)
        self._visitor, self._prefix = visitor, at.prefix
        self._store = s3.Bucket(
            at, options.region, self._keys, visitor.wall_ms, plain=options.plain
        )
        self._deadline_s = options.deadline_s
        self._puts, self._large = asyncio.Semaphore(_PUTS_MAX), asyncio.Lock()
        # What is no packet, as it was listed; and what was taken last, as it was then.
        self._passed_over: OrderedDict[str, str] = OrderedDict()
        self._marks: dict[str, str] = {}
        # In which order objects are read; and whether the last look did not see all.
        self._names, self._looks = visitor.names, Looks[Listed]()
        self._goes_further = False
        # Who was the last to have a list of its own; and where those ended that are longer.
        self._listed_to = ""
        self._ended: dict[str, str] = {}
        # What the store refused to give of what it had listed.
        self._refused: list[Broken] = []
        self._idle_s = IDLE_S
        # For whom something was put; when it is looked at what of it is old, None: at once.
        self._put_for: dict[str, None] = {}
        # And of whom what is old goes yet: of one after each look.
        self._old_of: list[str] = []
        self._tidy_s: float | None = None
        self._bell = asyncio.Event()
        self._dozes = False
        self._closed = False

    async def put(self, packet: bytes, *, to: str) -> None:
        if len(packet) > PACKET_BYTES_MAX:
            raise Malformed(
                f"a packet has {len(packet)} bytes; at most {PACKET_BYTES_MAX} are left"
            )
        assert _MACHINE.fullmatch(to), "a receiver is a machine, and becomes a part of a key"
        key = self._key(to, self._names.name(to, hashlib.sha256(packet).hexdigest()))
        turn = self._large if len(packet) > _LARGE_BYTES else contextlib.nullcontext()
        async with turn, self._puts:
            await self._store.put(key, packet)
        self._put_for[to] = None
        self._idle_s = IDLE_S
        if self._dozes:
            # Whoever is answered soon looks soon, however long it was quiet.
            self._bell.set()

    async def take(self, most: int = POST_TAKEN_MAX) -> list[Packet]:
        self._refused = []
        found = await self._look(most)
        if found:
            self._idle_s = IDLE_S
        elif self._put_for:
            await self._tidy()
        if self._refused and not found:
            raise self._refused[0]
        return found

    async def ack(self, ids: Sequence[str]) -> None:
        for id in ids:
            name = f"{id}.mp"
            if not PACKET.match(name):
                continue
            try:
                await self._store.delete(self._key(self._visitor.machine, name))
            except Broken as error:
                # It was dealt with: where it may not be removed it is not dealt with again.
                self._visitor.survived("unremoved", error)
                self._pass_over(name, self._marks.get(name, ""))

    async def news(self, *, urgent: bool) -> None:
        if self._closed:
            return
        wait_s = self._deadline_s or (URGENT_S if urgent else self._idle_s)
        if not urgent:
            self._idle_s = min(2 * self._idle_s, IDLE_S_MAX)
        if self._goes_further:
            wait_s = min(wait_s, URGENT_S)
        self._dozes = not urgent
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._bell.wait()
        finally:
            self._dozes = False
        self._bell.clear()

    async def close(self) -> None:
        self._closed = True
        self._bell.set()
        self._store.close()

    def _keys(self) -> s3.Keys:
        return keys_of(self._visitor.variables(KEYS))

    def _key(self, machine: str, name: str = "") -> str:
        return f"{self._prefix}/{machine}/{name}"

    async def _look(self, most: int) -> list[Packet]:
        """Packets for this machine, of each writer in turn."""
        under = self._key(self._visitor.machine)
        self._goes_further, self._marks = True, {}
        listed, is_all = await self._listed(under)
        hints = self._names.hints()
        lying = [
            Lying(writer_of(name, hints), (each.changed_s, each.key), each.key, each)
            for each in listed
            if self._is_new(name := each.key.removeprefix(under), each)
        ]
        found: list[Packet] = []
        left = _READ_MAX
        for each in self._looks.order(lying, is_all=is_all):
            left -= 1
            if await self._read(each, each.key.removeprefix(under), found):
                return found
            if len(found) >= most or not left:
                return found
        self._goes_further = not is_all
        return found

    async def _listed(self, under: str) -> tuple[Iterable[Listed], bool]:
        """What lies there, as much of it as is asked for in one look; and whether that is all."""
        page = await self._store.list(under)
        if not page.more:
            self._ended.clear()
            return page.objects, True
        found, ranges = {each.key: each for each in page.objects}, [(under, page.objects[-1].key)]
        # What has a name of old goes on where the last look of it ended: any number lies there.
        old_to = max(ranges[0][1], self._looks.ended or "")
        if old_to < under + NAMED:
            page = await self._store.list(under, old_to)
            found |= {each.key: each for each in page.objects}
            if not page.objects or page.objects[0].key >= under + NAMED:
                self._looks.restart()
        hints = sorted(self._names.hints())
        begin, pages = bisect_right(hints, self._listed_to), _PAGES_MAX - 2
        for hint in hints[begin:] + hints[:begin]:
            of = f"{under}{NAMED}{hint}"
            if self._is_seen(under, of, found, ranges):
                continue
            if not pages:
                break
            pages -= 1
            self._listed_to = hint
            page = await self._store.list(under, self._ended.pop(hint, of))
            found |= {each.key: each for each in page.objects}
            last = page.objects[-1].key if page.more else f"{under}~"
            ranges.append((of, last))
            if last.startswith(of):
                self._ended[hint] = last
        return found.values(), False

    def _is_seen(
        self, under: str, of: str, found: dict[str, Listed], ranges: list[tuple[str, str]]
    ) -> bool:
        """Whether a machine needs no list of its own: all it left was listed, or something new."""
        if any(first <= of and f"{of}~" <= last for first, last in ranges):
            return True
        return any(
            key.startswith(of) and self._is_new(key.removeprefix(under), each)
            for key, each in found.items()
        )

    def _is_new(self, name: str, each: Listed) -> bool:
        """Whether it may be a packet, and is not known to be none."""
        is_small = each.size <= PACKET_BYTES_MAX
        return bool(PACKET.match(name)) and is_small and self._passed_over.get(name) != each.mark

    async def _read(self, each: Listed, name: str, found: list[Packet]) -> bool:
        """Read one object into what was found; whether what failed ends the look."""
        try:
            body = await self._store.get(each.key, PACKET_BYTES_MAX)
        except Malformed as error:
            self._visitor.survived("unread", error)
            self._pass_over(name, each.mark)
            return False
        except Broken as error:
            # A key that may not, or this object alone: encrypted, archived, another owner's.
            self._visitor.survived("unread", error)
            self._refused.append(error)
            return False
        except MusterError as error:
            # What was read is dealt with first; the rest is read by the next look.
            if not found:
                raise
            self._visitor.survived("unread", error)
            return True
        if body is not None and hashlib.sha256(body).hexdigest() == sha256_of(name):
            found.append(Packet(name[:-3], body))
            self._marks[name] = each.mark
        elif body is not None:
            self._pass_over(name, each.mark)
        return False

    def _pass_over(self, name: str, mark: str) -> None:
        self._passed_over[name] = mark
        if len(self._passed_over) > _PASSED_OVER_MAX:
            self._passed_over.popitem(last=False)

    # --- what is old ------------------------------------------------------------------

    async def _tidy(self) -> None:
        """See to it that what this machine put there does not lie there for ever."""
        now_s = asyncio.get_running_loop().time()
        try:
            if self._tidy_s is None or now_s >= self._tidy_s:
                self._tidy_s = now_s + _TIDIED_S
                if not await self._is_tidied_by_the_store():
                    self._old_of = list(self._put_for)
            if self._old_of:
                await self._remove_old(self._old_of.pop())
        except MusterError as error:
            # It carries all the same.
            self._visitor.survived("untidied", error)

    async def _is_tidied_by_the_store(self) -> bool:
        """Whether the store removes what is old; it is asked to where it has no rules at all.

        To say a rule is to replace all there are, so rules of somebody else are left as they are.
        """
        try:
            said = await self._store.ask_lifecycle()
            if said is None:
                await self._store.put_lifecycle(self._rule())
                said = await self._store.ask_lifecycle()
        except (Broken, Malformed):
            # A store that knows no such thing, or keys that may not: no fault, and the reason to do
            # it here.
            return False
        # Another fleet's rule is not for what lies here.
        return (_RULE, f"{self._prefix}/", "Enabled") in (said or ())

    def _rule(self) -> bytes:
        return (
            f'<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule>'
            f"<ID>{_RULE}</ID><Filter><Prefix>{self._prefix}/</Prefix></Filter>"
            f"<Status>Enabled</Status><Expiration><Days>{KEPT_DAYS}</Days></Expiration>"
            f"</Rule></LifecycleConfiguration>"
        ).encode()

    async def _remove_old(self, machine: str) -> None:
        under, left = self._key(machine), _TIDIED_MAX
        before_s = self._visitor.wall_ms() // 1000 - KEPT_DAYS * 86_400
        page = await self._store.list(under)
        for each in page.objects:
            name = each.key.removeprefix(under)
            if PACKET.match(name) and each.changed_s < before_s and left:
                left -= 1
                await self._store.delete(each.key)


def open_channel(options: Options, visitor: Visitor) -> CloudPost:
    """The mailbox of one machine in the bucket; that may be away now, and come back."""
    return CloudPost(options, visitor)
