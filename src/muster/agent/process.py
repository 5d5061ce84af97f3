"""The daemon's end of an attempt: one shim process each, fed with the order, read line by line.

Rule 1: never a shell string; the shim is an argument list, the order travels on its stdin.
Rule 2: the pipe into the shim stays open as long as the attempt may live: closing it ends it.
Rule 3: a shim that dies still gives an outcome, and what it left behind is killed by its marker.
Rule 4: the command can stop its shim, or end it. One that does not obey in time is killed, and what
happens after the command has begun is the command's doing, not this machine's.
Rule 5: who comes after a daemon that died knows what that one left running (marks.py).
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from muster import child_process, umask
from muster.agent import process_tree, started
from muster.agent.base import AgentEvent, AttemptOrder, OnEvent, Outcome
from muster.agent.catalogue import HEADLESS
from muster.agent.discovery import Discovery
from muster.agent.drivers import DRIVERS
from muster.agent.invocation import invocation
from muster.agent.lines import (
    EVENT_FRAME_BYTES,
    EVENTS_MAX,
    ORDER_BYTES_MAX,
    OUTCOME_BYTES_MAX,
    cut,
    ended_by,
)
from muster.agent.marks import Marks
from muster.agent.mask import Secrets, Stream
from muster.agent.policy import Policy
from muster.agent.relay import boot
from muster.agent.sandbox.handover import Handover, OnListeners
from muster.agent.waited import Waited
from muster.errors import Broken, Malformed, NotFound
from muster.limits import ATTEMPT_JOURNAL_BYTES_MAX, BODY_BYTES_MAX

# The shim's lines are at most its outcome; longer ones mean that it is not our shim.
SHIM_LINE_BYTES_MAX: Final = OUTCOME_BYTES_MAX + 64 * 1024
# Chosen arbitrarily: the start costs 50 ms on a quiet machine, and machines are not quiet.
READY_S_MAX: Final = 30.0
# The shim gives up on its processes long before; then something is wrong with the shim itself.
END_SLACK_S: Final = 60.0
# Less than an owner waits for the end (limits.ATTEMPT_GRACE_MS): it is told how it ended.
OBEY_SLACK_S: Final = 10.0
# How often a time limit is looked at that stands still.
LOOK_S: Final = 5.0
COMPLAINT_BYTES_MAX: Final = 2000
# An entry's body holds 64 KiB; the rest is for what the daemon adds.
EVENT_FIELDS_BYTES_MAX: Final = BODY_BYTES_MAX - 8 * 1024
CUT_BYTES_MAX: Final = 1000


class _Line(msgspec.Struct, frozen=True):
    """One line of the shim; exactly one of these is set."""

    begun: bool = False
    ready: dict[str, Any] | None = None
    event: tuple[str, dict[str, Any]] | None = None
    outcome: Outcome | None = None


_decode: Final = msgspec.json.Decoder(_Line).decode


class ShimAttempt:
    """A running attempt, behind its shim."""

    def __init__(
        self, shim: child_process.ChildProcess, marker: str, order: AttemptOrder, on_event: OnEvent
    ) -> None:
        assert shim.stdin is not None
        assert shim.stdout is not None
        assert shim.stderr is not None
        self._stdin, self._stdout, self._errors = shim.stdin, shim.stdout, shim.stderr
        self._shim = shim
        self._marker, self._order = marker, order
        self._begun = False
        # Whether it is an agent's, and whether that can be told something in the middle.
        self.is_agent = self.is_steered = False
        # The shim may ask and then TERM, each for the grace, before it kills.
        self._end_s_max = 2 * order.grace_s + END_SLACK_S
        self._obeys_s_max = 2 * order.grace_s + OBEY_SLACK_S
        self._loop = asyncio.get_running_loop()
        self._waited, self._paused_s = Waited(self._loop.time), 0.0
        self._watches = [self._loop.call_later(order.timeout_s + self._obeys_s_max, self._late)]
        self._on_event = on_event
        self._journal_bytes, self._journal_full = 0, False
        self._listener: OnEvent | None = None
        self._heard = 0
        self._stderr = Stream(Secrets(order.secrets))
        self._outcome: Outcome | None = None
        self._complaint = b""
        self.ready: asyncio.Future[int] = self._loop.create_future()
        self._ended = asyncio.create_task(self._follow())

    async def wait(self) -> Outcome:
        """The outcome, once nothing of the attempt is left running; may be awaited twice."""
        return await asyncio.shield(self._ended)

    def when_over(self, then: Callable[[], None]) -> None:
        """Call it once nothing of the attempt is left; never where something is, or may be."""

        def ended(task: asyncio.Task[Outcome]) -> None:
            if not task.cancelled() and task.exception() is None and not task.result().survivors:
                then()

        self._ended.add_done_callback(ended)

    def when_ended(self, then: Callable[[], None]) -> None:
        """Call it once it has ended, however it did."""
        self._ended.add_done_callback(lambda _task: then())

    def cancel(self, reason: str, *, hurry: bool = False) -> None:
        """Begin to end it; harmless when it has ended or was cancelled before.

        `hurry`: nothing there listened for long, and is given no more than a moment.
        """
        self.send(msgspec.json.encode({"cancel": reason, "hurry": hurry}) + b"\n")
        self._watches.append(self._loop.call_later(self._obeys_s_max, self._force))

    def _late(self) -> None:
        """Its time is up, but for what it waited for people meanwhile."""
        more_s, self._paused_s = self._waited.seconds - self._paused_s, self._waited.seconds
        if more_s > 0 or self._waited.goes_on:
            self._watches.append(self._loop.call_later(max(more_s, LOOK_S), self._late))
            return
        self._force()

    def _force(self) -> None:
        """A shim that was stopped hears nothing; what it held is found by its marker."""
        if self._outcome is None and self._shim.returncode is None:
            self._shim.kill()

    def answer(self, ask: str, word: str) -> None:
        """Answer the `agent.ask` or `agent.use` event with this id; an unknown id is ignored."""
        said = {"ask": ask, "answer": word}
        self.send(msgspec.json.encode({"answer": said}) + b"\n")

    def steer(self, text: str) -> None:
        """Tell its agent this in the middle of its work, where it `is_steered`."""
        self.send(msgspec.json.encode({"steer": text}) + b"\n")

    def hears(self, listener: OnEvent) -> None:
        """Call it with each event from now on, also where the journal has no room for it."""
        self._listener = listener

    @property
    def is_mute(self) -> bool:
        """Whether its shim tells no more of what happens, for it told as much as it may."""
        return self._heard >= EVENTS_MAX

    def cpu_ms(self) -> int | None:
        """The processors' time of all its processes since the start; None: nobody can tell."""
        return process_tree.cpu_ms(self._shim.pid)

    def abandon(self) -> None:
        """Close the pipe: the shim takes it for the daemon's death and ends everything."""
        self._stdin.close()

    def send(self, line: bytes) -> None:
        """To a shim that may be killed at any moment: uvloop raises on a pipe that is closed."""
        if not self._stdin.is_closing():
            self._stdin.write(line)

    async def _follow(self) -> Outcome:
        complaints = asyncio.create_task(self._drain_stderr())
        try:
            await self._read_lines()
        finally:
            # Also when the daemon's own event handler failed: no attempt goes on unobserved.
            # The shim ends everything when its pipe is closed, and itself at last.
            self.abandon()
            rest = asyncio.create_task(self._discard_rest())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._end_s_max):
                    await self._shim.wait()
            if self._shim.returncode is None:
                self._shim.kill()
                await self._shim.wait()
            rest.cancel()
            complaints.cancel()
            await self._shim.close()
            for watch in self._watches:
                watch.cancel()
            if not self.ready.done():
                self.ready.set_result(0)
        return await self._settle()

    async def _read_lines(self) -> None:
        while self._outcome is None:
            try:
                raw = await self._stdout.readline()
                if not raw:
                    return
                line = _decode(raw)
            except (ValueError, msgspec.MsgspecError) as error:
                self._complaint += f"unreadable line: {error}".encode()
                return
            if line.event is not None:
                self._heard += 1
                self._waited.heard(*line.event)
                if self._listener is not None:
                    self._listener(AgentEvent(*line.event))
                self._write_down(*line.event)
            elif line.begun:
                self._begun = True
            elif line.ready is not None and not self.ready.done():
                self.ready.set_result(int(line.ready.get("pid", 0)))
            elif line.outcome is not None:
                self._outcome = line.outcome

    async def _discard_rest(self) -> None:
        while await self._stdout.read(SHIM_LINE_BYTES_MAX):
            pass

    async def _settle(self) -> Outcome:
        """The shim's outcome, or one for a shim that died, with a cleaning behind it."""
        if self._outcome is not None and self._shim.returncode == 0:
            return self._outcome
        left = await asyncio.to_thread(process_tree.sweep, self._marker)
        # What the shim would have done last.
        await asyncio.to_thread(started.release, self._order.cwd, self._order.sandbox)
        if self._outcome is not None:
            return self._outcome
        raw = (self._complaint + self._stderr.rest())[-COMPLAINT_BYTES_MAX:]
        said = raw.decode("utf-8", "replace").strip()
        return Outcome(
            status="error",
            # It says so before the command runs: who never did has run nothing.
            fault="" if self._begun else "machine",
            exit_code=self._shim.returncode,
            summary=f"the shim of the attempt died ({ended_by(self._shim.returncode)})",
            tail=said,
            survivors=tuple(sorted(left)),
        )

    async def _drain_stderr(self) -> None:
        while data := await self._errors.read(4096):
            self._complaint = (self._complaint + self._stderr.feed(data))[-COMPLAINT_BYTES_MAX:]

    def _write_down(self, kind: str, fields: dict[str, Any]) -> None:
        """An event as far as the journal has room for it, however much the program says."""
        size = len(msgspec.json.encode(fields))
        if size > EVENT_FIELDS_BYTES_MAX:
            # It would not fit into an entry; a driver cuts by itself before that.
            texts = {name: v if isinstance(v, int | str) else repr(v) for name, v in fields.items()}
            fields = {
                n: cut(v, CUT_BYTES_MAX) if isinstance(v, str) else v for n, v in texts.items()
            }
            size = len(msgspec.json.encode(fields))
        self._journal_bytes += size + EVENT_FRAME_BYTES
        # How it ended is always said, and what was permitted as long as possible.
        most = {"agent.end": self._journal_bytes, "agent.ask": 2 * ATTEMPT_JOURNAL_BYTES_MAX}
        most["agent.decision"] = most["agent.use"] = most["agent.ask"]
        if self._journal_bytes <= most.get(kind, ATTEMPT_JOURNAL_BYTES_MAX):
            self._on_event(AgentEvent(kind, fields))
        elif not self._journal_full:
            self._journal_full = True
            text = "…[the journal of this attempt is full; what follows is not kept]"
            self._on_event(AgentEvent("agent.output", {"stream": "stderr", "text": text}))


async def _spawn(
    raw: bytes, order: AttemptOrder, marker: str, on_event: OnEvent, inherited: tuple[int, ...]
) -> ShimAttempt:
    shim = await child_process.start(
        # No site-packages: the shim needs none, and a .pth file can cost more than itself.
        *boot("muster.agent.shim", "-S"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": order.env.get("PATH", os.defpath),
            umask.VARIABLE: f"{umask.of_attempts():03o}",
        },
        cwd="/",
        limit=SHIM_LINE_BYTES_MAX,
        pass_fds=inherited,
    )
    attempt = ShimAttempt(shim, marker, order, on_event)
    attempt.send(raw)
    try:
        async with asyncio.timeout(READY_S_MAX):
            await asyncio.shield(attempt.ready)
    except TimeoutError:
        # Its end is reported like any other: whoever never said so has run nothing.
        shim.kill()
    return attempt


class Runner:
    """Starts any agent of the catalogue, each attempt under its own shim."""

    def __init__(self, discovery: Discovery, marks: Marks | None = None) -> None:
        self._discovery = discovery
        self._marks = marks

    async def start(
        self, order: AttemptOrder, on_event: OnEvent, on_listeners: OnListeners | None = None
    ) -> ShimAttempt:
        """Start it; `on_event` is called in the loop's thread, in order, until `wait` returns.

        `on_listeners` is called so too, once, before the command begins, where the order's sandbox
        has ports.

        Raises: NotFound when the agent is not installed, Broken when it cannot be started.
        """
        if os.name != "posix":
            raise Broken("Attempts run on Linux and macOS only; give the task to such a machine.")
        known = self._discovery.agents
        entry = known.get(order.agent)
        if entry is None:
            raise NotFound(
                f"No agent named {order.agent!r} is in the catalogue of this machine; "
                f"it knows {', '.join(sorted(known))}."
            )
        start = await self._discovery.start_of(order.agent, order.env.get("PATH", os.defpath))
        if start.driver == HEADLESS and order.policy != Policy():
            raise Broken(
                f"{order.agent} is driven by its headless mode here, which asks nobody; the task "
                f"has a policy of its own, and needs the adapter {' or '.join(entry.command[:1])}"
            )
        marker, counter = uuid.uuid4().hex, f"{order.epoch[0]}.{order.epoch[1]}"
        own = {"MUSTER_TASK": order.task, "MUSTER_EPOCH": counter, process_tree.MARKER: marker}
        # The order as the shim reads it.
        message: dict[str, Any] = msgspec.to_builtins(order) | invocation(order, entry, start)
        message["env"] |= own
        handover = None
        if order.sandbox.get("ports"):
            if on_listeners is None:
                raise Broken("nobody serves the ports of the sandbox; nothing was started")
            handover = Handover(on_listeners)
            message["sandbox"] = {**order.sandbox, started.HANDOVER: handover.theirs}
        raw = msgspec.json.encode(message) + b"\n"
        if len(raw) > ORDER_BYTES_MAX:
            raise Malformed(
                f"The order of task {order.task} has {len(raw)} bytes and {ORDER_BYTES_MAX} are "
                "allowed; put long texts into a file that the task names."
            )
        starting = asyncio.create_task(self._marked(raw, order, marker, on_event, handover))
        try:
            attempt = await asyncio.shield(starting)
            driver = DRIVERS[start.driver]
            attempt.is_agent, attempt.is_steered = not driver.is_plain, driver.is_steered
            return attempt
        except asyncio.CancelledError:
            # A start cannot be undone halfway, and nobody else could end what it started.
            attempt = await starting
            attempt.abandon()
            await attempt.wait()
            raise

    async def _marked(
        self,
        raw: bytes,
        order: AttemptOrder,
        marker: str,
        on_event: OnEvent,
        handover: Handover | None,
    ) -> ShimAttempt:
        """Start it under its mark, which goes when nothing of it is left."""
        marks = self._marks
        held = None if marks is None else marks.put(marker, order.cwd, order.sandbox)
        inherited = [] if held is None else [held]
        inherited += [] if handover is None else [handover.theirs]
        try:
            attempt = await _spawn(raw, order, marker, on_event, tuple(inherited))
        except OSError:
            if marks is not None:
                marks.remove(marker)
            if handover is not None:
                handover.close()
            raise
        finally:
            if held is not None:
                os.close(held)
            if handover is not None:
                handover.passed()
        if handover is not None:
            attempt.when_ended(handover.close)
        if marks is not None:
            attempt.when_over(lambda: marks.remove(marker))
        return attempt
