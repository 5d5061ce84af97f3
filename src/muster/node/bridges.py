"""The bridges of this machine: a process for each chat service that `config.toml` names.

Rule 1: a bridge gets its token over a pipe, in the first line, and none of our environment beyond
what an interpreter needs. It holds no key of the fleet, and ends when its standard input does.
Rule 2: what it says is read in bounded lines, and is an event of the core; what is not a line ends
it, and so does more than a few things that wait to be kept. It is told that something is kept after
the commit, never before.
Rule 3: one that ends is begun again after a pause that grows. Where that does not help (its token
is not accepted, its client is not installed) a person is told at once, else after three times.
Those are forgotten once it ran for a while: one that always ends is told, however long it lived.
Rule 4: no secret that this machine keeps leaves it in a post.
"""

import asyncio
import contextlib
import itertools
import os
import random
import sys
from typing import Any, Final

from msgspec.structs import replace

from muster import child_process
from muster.bridge import wire
from muster.bridge.base import Passed
from muster.channel.backoff import Backoff
from muster.errors import Broken, Malformed, MusterError
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.host.chat_config import ChatConfig
from muster.node.host.secret_mask import SecretMask
from muster.node.host.secret_store import SecretStore
from muster.node.incidents import Noticed
from muster.node.runtime import Runtime
from muster.node.services.chat import BridgeHeard, BridgeKept, Chats
from muster.node.services.chat_posts import (
    OF_BRIDGE,
    BridgeDown,
    BridgeShow,
    BridgeShown,
    BridgeUp,
)
from muster.node.supervisor import say

DECLARED[__name__] = {
    "bridge-started": "The process of a chat bridge was started.",
    "bridge-failed": "The process of a chat bridge ended by itself.",
    "bridge-odd": "Something came over a chat bridge that could not be read, and was passed over.",
}

# What an interpreter is told to run.
ARGV: Final = ("-P", "-m", "muster.bridge")
END_S_MAX: Final = 5.0
FAILED_TOLD: Final = 3
# So long it runs before what failed is forgotten: longer than a service lets a question wait.
STEADY_S: Final = 120.0
# So long before one is begun again whose failure lasts.
LASTING_MS: Final = 60_000
# So much that was heard waits to be kept. A bridge waits for each.
UNKEPT_MAX: Final = 16
# So long a process may leave unread what it is told.
READS_S_MAX: Final = 60.0
# What an interpreter needs and how it gets out, and nothing that a key may stand in.
PASSED: Final = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONHOME", "PYTHONPATH", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "TMPDIR", "TZ", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy",
)  # fmt: skip


class Bridges:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon = daemon
        self._of: dict[str, _Keeper] = {}

    def begin(self) -> None:
        """Keep a process for each service."""
        mask = SecretMask(SecretStore(self._daemon.home.path, self._daemon.effects.environ))
        for service, config in self._daemon.machine.config.chat.items():
            keeper = self._of[service] = _Keeper(self._daemon, service, config, mask)
            self._daemon.supervisor.keep(f"chat-{service}", keeper.keep)

    @ev.effect(BridgeKept)
    def _kept(self, effect: BridgeKept) -> None:
        if effect.service in self._of:
            self._of[effect.service].kept(effect.number)

    @ev.effect(BridgeShow)
    def _show(self, effect: BridgeShow) -> None:
        if effect.service in self._of:
            show = wire.Show(effect.number, effect.key, effect.post, effect.ref)
            self._of[effect.service].tell(show)


class _Keeper:
    """The bridge to one service: its process, begun again and again."""

    def __init__(self, daemon: Runtime, service: str, config: ChatConfig, mask: SecretMask) -> None:
        self._daemon, self._service, self._config, self._mask = daemon, service, config, mask
        self._backoff = Backoff(random.SystemRandom().random)
        self._failed = 0
        # Of the process that lives now: what it is told; the posts that it was told of and did not
        # speak of yet; and, by our numbers, what of its own numbers waits to be kept. What an
        # earlier one said has other numbers.
        self._lines: asyncio.Queue[wire.Durable | wire.Show] | None = None
        self._posts: set[int] = set()
        self._unkept: dict[int, int] = {}
        self._numbers = itertools.count(1)
        self._steady: asyncio.TimerHandle | None = None
        self._why, self._lasting = "", False

    def kept(self, number: int) -> None:
        """What was heard under this number is durable."""
        theirs = self._unkept.pop(number, None)
        if theirs is not None:
            self.tell(wire.Durable(theirs))

    def tell(self, message: wire.Durable | wire.Show) -> None:
        """Let its process know; one that begins later is told what is wanted then."""
        if self._lines is not None:
            self._lines.put_nowait(message)

    async def keep(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began, self._why, self._lasting = loop.time(), "", False
            try:
                await self._live()
            except MusterError as error:
                self._why, self._lasting = str(error), True
            finally:
                self._over()
            self._daemon.core.counters["bridge-failed"] += 1
            # What lasts is told by itself, and is over once it runs.
            self._failed += not self._lasting
            if self._lasting or self._failed >= FAILED_TOLD:
                why = self._why or "it ends, and says nothing"
                self._tell(f"the chat bridge to {self._service} does not work: {why}")
            lived_ms = int((loop.time() - began) * 1000)
            pause_ms = max(self._backoff.lost(lived_ms), LASTING_MS if self._lasting else 0)
            await asyncio.sleep(pause_ms / 1000)

    def _over(self) -> None:
        if self._steady is not None:
            self._steady.cancel()
        self._lines, self._steady = None, None
        self._posts.clear()
        self._unkept.clear()
        self._daemon.post(BridgeDown(self._service))

    async def _live(self) -> None:
        """One process, until it has ended. Raises: Broken, Exhausted, NotFound, Unreachable."""
        token, options = await self._tokens()
        cursor = self._daemon.core.part(Chats).cursor(self._service)
        begin = wire.line(wire.Begin(self._service, token, options, cursor))
        self._daemon.core.counters["bridge-started"] += 1
        process = await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(begin)
        self._lines = asyncio.Queue()
        errors = asyncio.ensure_future(self._relate(process.stderr))
        reading = asyncio.ensure_future(self._read(process.stdout))
        writing = asyncio.ensure_future(self._write(process.stdin, self._lines))
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            process.stdin.close()
            # What it still says is why it reads no more.
            await asyncio.wait({reading}, timeout=END_S_MAX)
            for task in (writing, reading):
                if task.done():
                    task.result()
        finally:
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S_MAX):
                    await process.wait()
            for task in (errors, reading, writing):
                task.cancel()
            await process.end()

    async def _tokens(self) -> tuple[str, dict[str, Any]]:
        """Its token, and what it is told beside: Slack wants a second one."""
        token, options = self._config.token, self._config.options()
        if second := self._config.app_token:
            options["app_token"] = await self._mask.take(f"{self._service} app", second)
        return await self._mask.take(self._service, token), options

    async def _start(self) -> child_process.ChildProcess:
        try:
            return await child_process.start(
                sys.executable, *ARGV,
                limit=wire.LINE_BYTES_MAX,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE, cwd="/",
                env={name: os.environ[name] for name in PASSED if name in os.environ},
            )  # fmt: skip
        except OSError as error:
            raise Broken(f"its process cannot be started: {error.strerror}") from error

    # --- what it is told ------------------------------------------------------------------

    async def _write(
        self, writer: asyncio.StreamWriter, lines: "asyncio.Queue[wire.Durable | wire.Show]"
    ) -> None:
        """Say it all, until it reads no more. Raises: Broken, Exhausted."""
        while True:
            message = await lines.get()
            if isinstance(message, wire.Show):
                raw = await self._masked(message)
            else:
                raw = wire.line(message)
            try:
                writer.write(raw)
                async with asyncio.timeout(READS_S_MAX):
                    await writer.drain()
            except TimeoutError:
                # It is ended for that, and the incident of its service says so.
                self._why = "it does not read what it is told"
                return
            except OSError:
                # It is ending, and its last words say why.
                return

    async def _masked(self, show: wire.Show) -> bytes:
        """A post as a line, without what is secret; b"" where it has no room in one."""
        hidden = await self._mask.now()
        masked = replace(show, post=replace(show.post, text=hidden.text(show.post.text)))
        try:
            raw = wire.line(masked)
        except Malformed as error:
            self._daemon.post(BridgeShown(self._service, show.number, refused=str(error)))
            return b""
        self._posts.add(show.number)
        return raw

    # --- what it says ---------------------------------------------------------------------

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """What it says, until it ends, or says what is no line of ours."""
        while True:
            try:
                raw = await reader.readline()
            except ValueError:
                # Said where its end is told, and counted there.
                self._why = "it said a line that is longer than any can be"
                return
            if not raw:
                return
            try:
                self._hear(wire.read_word(raw))
            except Malformed as error:
                self._why = str(error)
                return

    def _hear(self, word: wire.ToDaemon) -> None:
        """Raises: Malformed: too much, or of what it was not told."""
        service, post = self._service, self._daemon.post
        if isinstance(word, wire.Heed):
            if isinstance(word.heard, Passed) and word.heard.odd:
                self._daemon.core.counters["bridge-odd"] += 1
            if len(self._unkept) >= UNKEPT_MAX:
                raise Malformed("it does not wait until what it heard is kept")
            number = next(self._numbers)
            self._unkept[number] = word.number
            post(BridgeHeard(service, number, word.heard, word.cursor))
        elif isinstance(word, wire.Shown):
            if word.number not in self._posts:
                raise Malformed("it speaks of a post that it was not told of")
            self._posts.discard(word.number)
            # A client may quote the address that it asked, with the token.
            refused = self._mask.last.text(word.refused)
            post(BridgeShown(service, word.number, word.ref, refused))
        elif isinstance(word, wire.Runs):
            self._runs()
        else:
            self._why, self._lasting = self._mask.last.text(word.why), word.lasting

    async def _relate(self, errors: asyncio.StreamReader) -> None:
        """What it says beside that, as lines of our own log, without what is secret."""
        rest = b""
        while piece := await errors.read(4096):
            *whole, rest = (rest + piece).split(b"\n")
            rest = rest[-4096:]
            for each in whole:
                if text := each.decode("utf-8", "replace").strip():
                    say(f"chat {self._service}: {self._mask.last.text(text)[:500]}")

    # --- what a person sees ---------------------------------------------------------------

    @property
    def _key(self) -> str:
        return f"{OF_BRIDGE}{self._service}"

    def _tell(self, title: str) -> None:
        if not self._daemon.core.incidents.is_open(self._key):
            self._daemon.post(Noticed(self._key, title))

    def _runs(self) -> None:
        if self._steady is None:
            loop = asyncio.get_running_loop()
            self._steady = loop.call_later(STEADY_S, self._well)
            self._daemon.post(BridgeUp(self._service))
            if self._failed < FAILED_TOLD:
                # What was told is what does not pass by itself, such as a token: it did.
                self._close()

    def _well(self) -> None:
        self._failed = 0
        self._close()

    def _close(self) -> None:
        if self._daemon.core.incidents.is_open(self._key):
            self._daemon.post(Noticed(self._key))
