"""The agent that does nothing, in no process: for measuring the fleet itself.

`command` may hold JSON options: {"sleep_ms": 20} and {"fail": true}.
"""

import asyncio

import msgspec

from muster.agent.base import AgentEvent, Attempt, AttemptOrder, OnEvent, Outcome
from muster.errors import Malformed


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the empty agent can be told."""

    sleep_ms: int = 0
    fail: bool = False


class NoopAttempt:
    """An attempt that is over at once, or after its sleep."""

    def __init__(self, options: Options, on_event: OnEvent, timeout_s: float) -> None:
        self._options = options
        self._on_event = on_event
        self._timeout_s = timeout_s
        self._cancelled = asyncio.Event()
        self._reason = ""
        self._outcome: Outcome | None = None
        self._lock = asyncio.Lock()

    async def wait(self) -> Outcome:
        async with self._lock:
            if self._outcome is None:
                self._outcome = await self._run()
                end = {"status": self._outcome.status, "exit_code": self._outcome.exit_code}
                self._on_event(AgentEvent("agent.end", {"stop": "done", **end}))
        return self._outcome

    def cancel(self, reason: str) -> None:
        self._reason = self._reason or reason or "cancelled"
        self._cancelled.set()

    def answer(self, ask: str, allow: bool) -> None:
        """It never asks."""

    async def _run(self) -> Outcome:
        sleep_s = self._options.sleep_ms / 1000
        if sleep_s and not self._cancelled.is_set():
            try:
                async with asyncio.timeout(min(sleep_s, self._timeout_s)):
                    await self._cancelled.wait()
            except TimeoutError:
                if sleep_s > self._timeout_s:
                    return Outcome(status="timeout", summary="the attempt took longer than allowed")
        if self._cancelled.is_set():
            return Outcome(status="cancelled", summary=self._reason)
        if self._options.fail:
            return Outcome(status="failed", exit_code=1, summary="told to fail")
        return Outcome(status="ok", exit_code=0, summary="nothing to do, done")


class NoopRunner:
    """Starts empty attempts."""

    async def start(self, order: AttemptOrder, on_event: OnEvent) -> Attempt:
        try:
            options = msgspec.json.decode(order.command or "{}", type=Options)
        except msgspec.MsgspecError as error:
            raise Malformed(f"The options of the noop agent are wrong: {error}.") from error
        on_event(AgentEvent("agent.prompt", {"agent": order.agent, "text": order.command}))
        return NoopAttempt(options, on_event, order.timeout_s)
