"""A bucket of an object store is a mailbox: packets are objects, and nothing else is asked of it.

Rule 1: a packet is the object `<prefix>/<receiver>/<sha256 of it>.mp`, put by one request and asked
for by none before. Written twice it is one object.
Rule 2: an object counts when its content has the hash that its key says. What is foreign, or was
put in the place of another, is passed over, and read no second time. What cannot be read keeps no
other from being read, and is asked for again.
Rule 3: nobody asks a store over and over: soon while somebody speaks, else ever more seldom. What
is listed and read in one look is bounded, whatever lies there; the next look goes on from there.
Rule 4: nothing lies there for ever. The store removes what is old, where it does such things and
has no rules of its own; else whoever put something for a machine removes what is old of it.
"""

import asyncio
import contextlib
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from muster.channel import s3
from muster.channel.base import Packet, PostOptions, Visitor
from muster.channel.s3_answer import Listed
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
_PAGES_MAX: Final = 4
_READ_MAX: Final = 2 * POST_TAKEN_MAX
_PASSED_OVER_MAX: Final = 4096
_PUTS_MAX: Final = 4
# One of these has the whole line, so that it is there in time.
_LARGE_BYTES: Final = 64 * 1024
# What is older was offered again since, or nobody wants it; and what is removed at once, how often.
KEPT_DAYS: Final = 7
_TIDIED_S: Final = 86_400
_TIDIED_MAX: Final = 100
_PACKET: Final = re.compile(r"[0-9a-f]{64}\.mp")
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
        # The key where the last look ended, "" where it saw the end.
        self._looked_to = ""
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
        key = self._key(to, f"{hashlib.sha256(packet).hexdigest()}.mp")
        turn = self._large if len(packet) > _LARGE_BYTES else contextlib.nullcontext()
        async with turn, self._puts:
            await self._store.put(key, packet)
        self._put_for[to] = None
        self._idle_s = IDLE_S
        if self._dozes:
            # Whoever is answered soon looks soon, however long it was quiet.
            self._bell.set()

    async def take(self, most: int = POST_TAKEN_MAX) -> list[Packet]:
        begun, self._refused = self._looked_to, []
        found = await self._look(most)
        if begun and not found and not self._looked_to:
            # What lies before where the last look ended may still wait.
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
            if not _PACKET.fullmatch(name):
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
        if self._looked_to:
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
        """Packets for this machine, on from where the last look ended."""
        under = self._key(self._visitor.machine)
        found: list[Packet] = []
        left, self._marks = _READ_MAX, {}
        for _ in range(_PAGES_MAX):
            page = await self._store.list(under, self._looked_to)
            for each in page.objects:
                name = each.key.removeprefix(under)
                # Before it is read: where that fails the next look goes on behind it, and round.
                self._looked_to = each.key
                is_packet = _PACKET.fullmatch(name) and each.size <= PACKET_BYTES_MAX
                if is_packet and self._passed_over.get(name) != each.mark:
                    left -= 1
                    if await self._read(each, name, found):
                        return found
                if len(found) >= most or not left:
                    return found
            if not page.more:
                self._looked_to = ""
                return found
        return found

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
        if body is not None and hashlib.sha256(body).hexdigest() == name[:-3]:
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
            if _PACKET.fullmatch(name) and each.changed_s < before_s and left:
                left -= 1
                await self._store.delete(each.key)


def open_channel(options: Options, visitor: Visitor) -> CloudPost:
    """The mailbox of one machine in the bucket; that may be away now, and come back."""
    return CloudPost(options, visitor)
