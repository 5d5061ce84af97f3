"""The bridges of this machine: a process for each chat service that `config.toml` names.

Rule 1: a bridge gets its token over a pipe, in the first line, and none of our environment beyond
what an interpreter needs. It holds no key of the fleet, and ends when its standard input does.
Rule 2: what it says is read in bounded lines, and is an event of the core; what is not a line ends
it. It is told that something is kept after the commit, never before.
Rule 3: one that ends is begun again after a pause that grows. Where that does not help (its token
is not accepted, its client is not installed) a person is told at once, else after three times.
Rule 4: no secret that this machine keeps leaves it in a post.
"""

import asyncio
import contextlib
import os
import random
import sys
from typing import Final

from muster import child_process
from muster.agent.mask import Secrets
from muster.bridge import wire
from muster.bridge.base import Passed, Post
from muster.channel.backoff import Backoff
from muster.errors import Broken, Malformed, MusterError
from muster.limits import BACKOFF_STABLE_MS
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.host.chat_config import ChatConfig
from muster.node.host.secret_store import SecretStore
from muster.node.incidents import Noticed
from muster.node.runtime import Runtime
from muster.node.services.chat import BridgeHeard, BridgeKept, Chats
from muster.node.services.chat_posts import BridgeDown, BridgeShow, BridgeShown, BridgeUp
from muster.node.services.chat_topics import OF_BRIDGE
from muster.node.supervisor import say

DECLARED[__name__] = {
    "bridge-started": "The process of a chat bridge was started.",
    "bridge-failed": "The process of a chat bridge ended by itself.",
    "bridge-odd": "Something came over a chat bridge that could not be read, and was passed over.",
}

END_S_MAX: Final = 5.0
FAILED_TOLD: Final = 3
# So long before one is begun again whose failure lasts.
LASTING_MS: Final = 60_000
# What an interpreter needs and how it gets out, and nothing that a key may stand in.
PASSED: Final = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONHOME", "PYTHONPATH", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "TMPDIR", "TZ", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy",
)  # fmt: skip


class Bridges:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon = daemon
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._hidden = Secrets({})
        # Replaced in tests.
        self.argv: list[str] = ["-P", "-m", "muster.bridge"]

    def begin(self) -> None:
        """Keep a process for each service."""
        for service, config in self._daemon.machine.config.chat.items():
            self._daemon.supervisor.keep(f"chat-{service}", _Keeper(self, service, config).keep)

    @ev.effect(BridgeKept)
    def _kept(self, effect: BridgeKept) -> None:
        self._write(effect.service, wire.Durable(effect.number))

    @ev.effect(BridgeShow)
    def _show(self, effect: BridgeShow) -> None:
        post = effect.post
        text = self._hidden.text(post.text)
        masked = Post(post.room, text, post.buttons, post.thread)
        self._write(effect.service, wire.Show(effect.number, effect.key, masked, effect.ref))

    def _write(self, service: str, message: wire.ToBridge) -> None:
        writer = self._writers.get(service)
        if writer is None or writer.is_closing():
            return
        if writer.transport.get_write_buffer_size() > 16 * wire.LINE_BYTES_MAX:
            # It reads nothing: it ends, and what it was told is wanted still.
            writer.transport.abort()
            return
        try:
            writer.write(wire.line(message))
        except Malformed as error:
            say(f"chat {service}: {error}")


class _Keeper:
    """One service, begun again and again."""

    def __init__(self, bridges: Bridges, service: str, config: ChatConfig) -> None:
        self._bridges, self._service, self._config = bridges, service, config
        self._daemon = bridges._daemon
        self._backoff = Backoff(random.SystemRandom().random)
        self._failed = 0
        self._why, self._lasting = "", False

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
                self._bridges._writers.pop(self._service, None)
                self._daemon.post(BridgeDown(self._service))
            lived_ms = int((loop.time() - began) * 1000)
            self._daemon.core.counters["bridge-failed"] += 1
            self._failed = 1 if lived_ms >= BACKOFF_STABLE_MS else self._failed + 1
            if self._lasting or self._failed >= FAILED_TOLD:
                why = self._why or "it ends, and says nothing"
                self._tell(f"the chat bridge to {self._service} does not work: {why}")
            pause_ms = max(self._backoff.lost(lived_ms), LASTING_MS if self._lasting else 0)
            await asyncio.sleep(pause_ms / 1000)

    async def _live(self) -> None:
        """One process, until it has ended. Raises: Broken, NotFound, Unreachable."""
        home, environ = self._daemon.home.path, self._daemon.effects.environ
        store = SecretStore(home, environ)
        options = self._config.options()
        token = await asyncio.to_thread(store.value, self._config.token)
        hidden = await asyncio.to_thread(store.hidden)
        self._bridges._hidden = Secrets({**hidden, self._config.token: token})
        begin = wire.Begin(
            self._service, token, options, self._daemon.core.part(Chats).cursor(self._service)
        )
        self._daemon.core.counters["bridge-started"] += 1
        process = await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.ensure_future(self._relate(process.stderr))
        try:
            process.stdin.write(wire.line(begin))
            self._bridges._writers[self._service] = process.stdin
            await self._read(process.stdout)
        finally:
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S_MAX):
                    await process.wait()
            errors.cancel()
            await process.end()

    async def _start(self) -> child_process.ChildProcess:
        try:
            return await child_process.start(
                sys.executable, *self._bridges.argv,
                limit=wire.LINE_BYTES_MAX,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE, cwd="/",
                env={name: os.environ[name] for name in PASSED if name in os.environ},
            )  # fmt: skip
        except OSError as error:
            raise Broken(f"its process cannot be started: {error.strerror}") from error

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
        service, post = self._service, self._daemon.post
        if isinstance(word, wire.Heed):
            self._well()
            if isinstance(word.heard, Passed) and word.heard.odd:
                self._daemon.core.counters["bridge-odd"] += 1
            post(BridgeHeard(service, word.number, word.heard, word.cursor))
        elif isinstance(word, wire.Shown):
            # That it hears or posts is that it works.
            self._well()
            post(BridgeShown(service, word.number, word.ref, word.refused))
        elif isinstance(word, wire.Runs):
            post(BridgeUp(service))
        else:
            self._why, self._lasting = self._bridges._hidden.text(word.why), word.lasting

    async def _relate(self, errors: asyncio.StreamReader) -> None:
        """What it says beside that, as lines of our own log, without what is secret."""
        rest = b""
        while piece := await errors.read(4096):
            *whole, rest = (rest + piece).split(b"\n")
            rest = rest[-4096:]
            for each in whole:
                if text := each.decode("utf-8", "replace").strip():
                    say(f"chat {self._service}: {self._bridges._hidden.text(text)[:500]}")

    # --- what a person sees ---------------------------------------------------------------

    @property
    def _key(self) -> str:
        return f"{OF_BRIDGE}{self._service}"

    def _tell(self, title: str) -> None:
        if not self._daemon.core.incidents.is_open(self._key):
            self._daemon.post(Noticed(self._key, title))

    def _well(self) -> None:
        self._failed = 0
        if self._daemon.core.incidents.is_open(self._key):
            self._daemon.post(Noticed(self._key))
