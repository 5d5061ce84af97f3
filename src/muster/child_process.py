"""A program that we start and that leaves nothing open in us when we are done with it.

Rule 1: it leads a session of its own, and what it left in its process group ends with it.
Rule 2: it has ended when it has ended, whoever has its pipes: the loop of Python 3.11 waits for
those, too, and a grandchild in another session may have them for ever.
Rule 3: our ends of its pipes are closed by us, for the same reason.
"""

import asyncio
import asyncio.subprocess
import contextlib
import os
import signal
from typing import Any, Final

# Whoever is not gone so long after SIGKILL waits in the kernel; it goes when that lets it.
GONE_S_MAX: Final = 5.0
# How often it is looked whether somebody is gone.
LOOK_S: Final = 0.02


class _Protocol(asyncio.subprocess.SubprocessStreamProtocol):
    """Tells also when the program has ended."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=limit, loop=loop)
        self.exited: asyncio.Future[None] = loop.create_future()

    def process_exited(self) -> None:
        super().process_exited()
        if not self.exited.done():
            self.exited.set_result(None)


class ChildProcess(asyncio.subprocess.Process):
    """See the rules at the top of this file; `start` makes one."""

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        protocol: _Protocol,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(transport, protocol, loop)
        self._ours, self._exited = transport, protocol.exited

    async def wait(self) -> int:
        """The exit code, when it has ended."""
        await asyncio.shield(self._exited)
        code = self.returncode
        assert code is not None
        return code

    async def end(self) -> None:
        """Kill it, and what is left of its group, where they run; harmless when they ended."""
        try:
            # It has ended by itself, or became another user's, which the shim ends.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.name == "posix":
                    os.killpg(self.pid, signal.SIGKILL)
                else:
                    self.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GONE_S_MAX):
                    await self.wait()
        finally:
            await self.close()

    async def hang_up(self, within_s: float) -> None:
        """End it as a terminal that closes does, which lets it tidy up; then as `end`."""
        try:
            if os.name == "posix":
                async with asyncio.timeout(within_s):
                    # Below `nohup` nobody hears the first; shells at terminals ignore the other.
                    for each in (signal.SIGHUP, signal.SIGTERM):
                        os.killpg(self.pid, each)
                    while True:
                        await asyncio.sleep(LOOK_S)
                        os.killpg(self.pid, 0)
        except (TimeoutError, ProcessLookupError, PermissionError):
            # Its time is over, or nothing of the group is left to wait for.
            pass
        finally:
            await self.end()

    async def close(self) -> None:
        """Close our ends of its pipes. It has ended by now, or is killed."""
        self._ours.close()
        # The loop closes them in its next turn; one that is closed before never does.
        await asyncio.sleep(0)


async def start(*argv: str, limit: int = 64 * 1024, **how: Any) -> ChildProcess:
    """Start a program; `how` and what it raises are those of `asyncio.create_subprocess_exec`."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        lambda: _Protocol(limit, loop), *argv, start_new_session=True, **how
    )
    return ChildProcess(transport, protocol, loop)
