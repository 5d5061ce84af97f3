"""The doorway: a port that this machine holds, and the door that is started when somebody knocks.

Rule 1: the port is the daemon's as long as the daemon lives, on loopback alone: nobody else can
listen there and be taken for Muster. It is chosen once and kept in the home, so that what names it
goes on to be right.
Rule 2: what speaks over it is a process of its own, and is there only while it is used. It gets the
listening socket and the path of ours, and none of the secrets in our environment.
Rule 3: a door that fails is started again by the next knock, after a pause that grows; a person is
told, and told when it is over. It ends with its daemon, however that ends: its standard input does.
"""

import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Final

from muster import child_process
from muster.channel.backoff import Backoff
from muster.errors import USED_UP, Broken, Conflict
from muster.limits import BACKOFF_STABLE_MS, DOOR_PORTS
from muster.node.core import Core
from muster.node.counter import DECLARED
from muster.node.host.home import Home
from muster.node.incidents import Noticed
from muster.node.supervisor import say

DECLARED[__name__] = {
    "door-started": "Somebody knocked, and the door was started.",
    "door-failed": "The door ended by a mistake, or did not begin.",
}

# The key of its incident.
DOOR: Final = "door"
LOOPBACK: Final = "127.0.0.1"
# As many as one loop of accepting takes before it looks again; a person's agents are few.
KNOCKS_WAITING_MAX: Final = 64
# It imports half of what a web server is, on a machine that may be busy.
READY_S_MAX: Final = 60.0
# It gives what it serves a second to end, and then goes.
END_S_MAX: Final = 5.0
# A door of before us, whose daemon was killed, is gone before this.
TAKEN_S: Final = 10.0
TAKEN_PAUSE_S: Final = 0.2
TAKEN_PAUSE_S_MAX: Final = 5.0
PORTS_TRIED_MAX: Final = 64
# One that ends sooner was idle for nothing, and would be started again and again.
LIVED_MS_MIN: Final = 1_000
# One that fails so often in a row does not mend itself.
FAILED_TOLD: Final = 3
# It says by this code that a package is missing, and does not need three tries to be believed.
MISSING: Final = 69
_SAID_BYTES_MAX: Final = 4096
# What an interpreter and a web server need, and nothing that an agent's key may stand in.
_PASSED: Final = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "TZ",
)  # fmt: skip


class Doorway:
    """The port of one daemon, and the door behind it."""

    def __init__(self, home: Home, core: Core, notice: Callable[[Noticed], None]) -> None:
        self._home, self._core, self._notice = home, core, notice
        self._backoff = Backoff(random.SystemRandom().random)
        self._failed = 0
        # What it said last, for whoever is told that it failed.
        self._last = ""
        # The last one could not speak to agents: that the next one begins proves nothing.
        self._mute = False
        # The port that is held, 0 while none is; whether a door is behind it.
        self.port, self.runs = 0, False

    async def keep(self) -> None:
        """Hold the port and start the door at each knock, until cancelled."""
        with contextlib.closing(await self._hold()) as listening:
            self.port = listening.getsockname()[1]
            try:
                while True:
                    await _knock(listening)
                    pause_ms = await self._door(listening)
                    await asyncio.sleep(pause_ms / 1000)
            finally:
                self.port = 0

    # --- the port -------------------------------------------------------------------------

    async def _hold(self) -> socket.socket:
        """The listening socket of this home, as soon as it is to be had."""
        home, loop = self._home, asyncio.get_running_loop()
        began, pause_s = loop.time(), TAKEN_PAUSE_S
        while kept := home.door_port:
            try:
                listening = _listen(kept)
            except Conflict as error:
                if loop.time() - began > TAKEN_S:
                    self._tell(str(error))
            else:
                self._well()
                return listening
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, TAKEN_PAUSE_S_MAX)
        listening = _any_port()
        home.keep_door_port(listening.getsockname()[1])
        self._well()
        return listening

    # --- the process ----------------------------------------------------------------------

    async def _door(self, listening: socket.socket) -> int:
        """The life of one door; how many milliseconds to wait before the next."""
        loop, counters = asyncio.get_running_loop(), self._core.counters
        counters["door-started"] += 1
        began, self._last = loop.time(), ""
        code = await self._live(listening)
        lived_ms = int((loop.time() - began) * 1000)
        if code == 0 and lived_ms >= LIVED_MS_MIN:
            self._failed = 0
            return 0
        counters["door-failed"] += 1
        self._failed = 1 if lived_ms >= BACKOFF_STABLE_MS else self._failed + 1
        if self._failed >= FAILED_TOLD or code == MISSING:
            why = self._last or f"it ended with exit code {code}"
            self._tell(f"the door of this machine fails, and agents do not reach it: {why}")
        return self._backoff.lost(lived_ms)

    async def _live(self, listening: socket.socket) -> int:
        """Start it and stay until it has ended; its exit code."""
        process = await self._start(listening)
        assert process.stdout is not None
        assert process.stderr is not None
        lines = asyncio.ensure_future(self._relate(process.stderr))
        try:
            async with asyncio.timeout(READY_S_MAX):
                ready = await process.stdout.readline()
            if ready:
                self.runs = True
                if not self._mute:
                    self._well()
            if ready and await process.stdout.readline():
                self._mute = False
                self._well()
            code = await process.wait()
            self._mute = self._mute or (bool(ready) and code == MISSING)
            return code
        except TimeoutError:
            self._last = f"it did not begin within {READY_S_MAX:.0f} s"
            return 1
        finally:
            self.runs = False
            await _let_end(process)
            # What a grandchild holds open says nothing more that counts.
            await asyncio.wait([lines], timeout=1)
            lines.cancel()
            await process.end()

    async def _start(self, listening: socket.socket) -> child_process.ChildProcess:
        home, number = self._home, listening.fileno()
        argv = ["-P", "-m", "muster.door", home.socket_of_session, str(number), str(self.port)]
        try:
            return await child_process.start(
                sys.executable,
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(number,),
                cwd="/",
                env={name: os.environ[name] for name in _PASSED if name in os.environ},
            )
        except OSError as error:
            raise Broken(f"the door cannot be started: {error.strerror}") from error

    async def _relate(self, errors: asyncio.StreamReader) -> None:
        """What it says, as lines of our own log."""
        async for line in _lines(errors):
            self._last = line[:300]
            say(f"door: {line}")

    # --- what a person sees ---------------------------------------------------------------

    def _tell(self, title: str) -> None:
        if not self._core.incidents.is_open(DOOR):
            self._notice(Noticed(DOOR, title))

    def _well(self) -> None:
        if self._core.incidents.is_open(DOOR):
            self._notice(Noticed(DOOR))


async def _knock(listening: socket.socket) -> None:
    """Returns when somebody waits to be let in."""
    loop, number = asyncio.get_running_loop(), listening.fileno()
    knocked: asyncio.Future[None] = loop.create_future()

    def heard() -> None:
        loop.remove_reader(number)
        if not knocked.done():
            knocked.set_result(None)

    loop.add_reader(number, heard)
    try:
        await knocked
    finally:
        loop.remove_reader(number)


async def _let_end(process: asyncio.subprocess.Process) -> None:
    """Take its life line away, and give it time to go by itself."""
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S_MAX):
            await process.wait()


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines that come, however long one is: what is beyond the bound is a line of its own."""
    rest = b""
    while piece := await reader.read(_SAID_BYTES_MAX):
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > _SAID_BYTES_MAX:
            whole, rest = [*whole, rest], b""
        for each in whole:
            if text := each.decode("utf-8", "replace").strip():
                yield text


def _any_port() -> socket.socket:
    """A port that nobody listens at, below those that systems give to outgoing connections."""
    draw = random.SystemRandom()
    for _ in range(PORTS_TRIED_MAX):
        # This port is somebody else's: the next one is tried, so often.
        with contextlib.suppress(Conflict):
            return _listen(draw.choice(DOOR_PORTS))
    raise Broken(f"no port from {DOOR_PORTS[0]} to {DOOR_PORTS[-1]} is free on {LOOPBACK}")


def _listen(port: int) -> socket.socket:
    """Raises: Conflict where the port is somebody else's."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
        listening.listen(KNOCKS_WAITING_MAX)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        if error.errno in USED_UP:
            raise
        raise Conflict(
            f"agents cannot reach this machine: port {port} of {LOOPBACK}, which they know, cannot "
            f"be had ({error.strerror}); end what listens there, or remove `door.port` from the "
            "home for another one"
        ) from error
    return listening
