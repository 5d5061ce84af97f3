"""The small program around one attempt; when it ends, nothing of the attempt is left.

Rule 1: everything below the shim is ended when the command is done, a cancel line arrives, the
shim's own deadline passes, a signal asks for it, or standard input ends. The daemon holds the
other end of that pipe, so a daemon that was killed ends its attempts by dying.
Rule 2: first ask (where the driver can be asked), then TERM, then KILL until nobody is left. What
a sandbox stands and falls with is spared by TERM: what is inside ends by itself where it can.
Rule 3: the shim never blocks on anybody: its reader may be slow, its child may not read. What no
journal could hold any more is not told, but for a question, a decision and the end.
Rule 4: standard library only, and little of it; the start of every attempt waits for this.

Standard input, one JSON object a line: the order, then `{"cancel": reason}`, with `"hurry": true`
where nobody there listens any more, `{"steer": text}` and
`{"answer": {"ask": id, "answer": "allow" | "deny" | "use" | "again"}}`.
Standard output, one JSON object a line: `{"begun": true}` just before the command is started,
`{"ready": {...}}` just after it, `{"event": [kind, fields]}`, and at the end `{"outcome": {...}}`.
"""

import json
import os
import resource
import selectors
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from muster import umask
from muster.agent import cgroup, process_tree, started
from muster.agent.driver import Event
from muster.agent.drivers import DRIVERS
from muster.agent.lines import EVENTS_MAX, ORDER_BYTES_MAX, Splitter
from muster.agent.waited import Waited

# A reader that is this far behind stops the agent's output, never its deadline or cancel.
UNSENT_BYTES_MAX: Final = 256 * 1024
READ_BYTES: Final = 64 * 1024
# A program that has said that it is done, and then says nothing for so many graces, hangs.
OVER_GRACES: Final = 12
# Output that pauses this long is sent on, full or not.
FLUSH_AFTER_S: Final = 0.2
# The deadline counts sleep; a timer does not, so the clock is looked at this often at least.
LOOK_S_MAX: Final = 15.0
KILL_AGAIN_S: Final = 0.05
# As long as each step takes where a program was silent before: it is gone within 5 s.
HURRY_S: Final = 1.0
# A process stuck in the kernel cannot be killed; say so instead of waiting for ever.
KILLS_MAX: Final = 100
FAREWELL_S: Final = 5.0
# A pipe holds 1 MiB at most; more than that comes from a writer that escaped.
READS_LAST_MAX: Final = 16
# Also beyond what the journal has room for.
ALWAYS_TOLD: Final = frozenset({"agent.ask", "agent.use", "agent.decision", "agent.end"})


# The clock that counts the machine's sleep: BOOTTIME on Linux; on macOS MONOTONIC does.
CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock_s() -> float:
    return time.clock_gettime(CLOCK)


class Unsent:
    """Bytes on their way into a pipe whose reader may be slow or gone."""

    def __init__(self, fd: int, selector: selectors.BaseSelector, gone: Callable[[], None]) -> None:
        os.set_blocking(fd, False)
        self._fd, self._selector, self._gone = fd, selector, gone
        self.waiting = bytearray()
        self._watched = False
        self._ends = False
        self.broken = False

    def end(self) -> None:
        """Close the pipe once everything is written."""
        self._ends = True
        self.push()

    def put(self, data: bytes) -> None:
        if not self.broken:
            self.waiting += data
            self.push()

    def push(self) -> None:
        try:
            while self.waiting:
                del self.waiting[: os.write(self._fd, self.waiting)]
        except BlockingIOError:
            pass
        except OSError:
            # Whoever read it is gone; the shim itself ends by that.
            self.broken = True
            self.waiting.clear()
        if self._watched != bool(self.waiting):
            self._watched = bool(self.waiting)
            if self._watched:
                self._selector.register(self._fd, selectors.EVENT_WRITE, self.push)
            else:
                self._selector.unregister(self._fd)
        if self._ends and not self.waiting:
            self._ends, self.broken = False, True
            os.close(self._fd)
        elif self.broken:
            self._gone()


class Shim:
    """One attempt from order to outcome."""

    def __init__(self, order: dict[str, Any], commands: bytes, subreaper: bool) -> None:
        self._order = order
        self._driver = DRIVERS[order["driver"]](order)
        self._grace_s = float(order["grace_s"])
        self._deadline = clock_s() + float(order["timeout_s"])
        self._waited = Waited(clock_s)
        self._brood = process_tree.ProcessTree(subreaper)
        self._subreaper = subreaper
        self._group = cgroup.make(str(order["env"].get(process_tree.MARKER, "")))
        if self._group is not None and (sandbox := order.get("sandbox")):
            self._group.limit(sandbox.get("processes", 0), sandbox.get("memory_bytes", 0))
        self._selector = selectors.DefaultSelector()
        self._out = Unsent(1, self._selector, lambda: self._stop("orphaned"))
        self._commands = Splitter(ORDER_BYTES_MAX)
        self._commands_early = commands
        self._to_child: Unsent | None = None
        self._pipes: dict[str, int] = {}
        self._child = 0
        self._code: int | None = None
        self._why = ""
        self._said = ""
        self._steps: list[tuple[Callable[[], None], float]] = []
        self._step_at = 0.0
        self._flush_at: float | None = None
        self._heard_at = clock_s()
        self._over_s_max = OVER_GRACES * self._grace_s
        self._any_children = True
        self._kills = self._told = 0
        self._survivors: set[int] = set()

    def run(self) -> None:
        if not self._start():
            return
        while not self._over():
            for key, _ in self._selector.select(self._pause_s()):
                key.data()
            self._tick()
        # Nobody writes any more: what the pipes still hold is the end of the output.
        for name in tuple(self._pipes):
            for _ in range(READS_LAST_MAX):
                if name not in self._pipes or not self._read_output(name):
                    break
        self._send_events(self._driver.closing())
        outcome = self._driver.outcome(self._code)
        if self._why != "done":
            # Whoever was ended from outside shows nothing of what it lacked.
            outcome |= {"fault": "", "logged_out": False}
        if self._why == "cancelled":
            outcome |= {"status": "cancelled", "summary": self._said or "cancelled"}
        elif self._why == "timeout":
            summary = "the attempt took longer than allowed"
            outcome |= {"status": "timeout", "summary": summary}
        if self._survivors:
            outcome["survivors"] = sorted(self._survivors)
        sandbox = self._order.get("sandbox") or {}
        started.release(self._driver.cwd, sandbox, goes_on=bool(self._survivors))
        end = {"status": outcome["status"], "exit_code": outcome.get("exit_code")}
        self._send_events([("agent.end", {"stop": self._why, **end})])
        self._send_outcome(outcome)

    # --- starting

    def _start(self) -> bool:
        driver = self._driver
        reading, waking = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, lambda *_: self._stop("cancelled", "the shim was told to end"))
        self._selector.register(reading, selectors.EVENT_READ, lambda: os.read(reading, 512))
        # Said before: the command may end its shim as the first thing it does.
        self._send({"begun": True})
        try:
            child = started.start(driver, self._order, self._group)
        except started.NotStartedError as error:
            self._send_outcome({"status": "error", "fault": error.fault, "summary": str(error)})
            return False
        # The shim reaps for everybody, so Popen must not wait for its child by itself.
        child.returncode = 0
        self._child = child.pid
        self._brood.groups.add(child.pid)
        if child.stdin is not None:
            self._to_child = Unsent(os.dup(child.stdin.fileno()), self._selector, lambda: None)
            child.stdin.close()
            self._to_child.put(driver.stdin or b"")
            if driver.stdin_ends:
                self._to_child.end()
        for name, pipe in (("stdout", child.stdout), ("stderr", child.stderr)):
            assert pipe is not None
            self._pipes[name] = os.dup(pipe.fileno())
            pipe.close()
            os.set_blocking(self._pipes[name], False)
            self._listen(name)
        os.set_blocking(0, False)
        self._selector.register(0, selectors.EVENT_READ, self._read_commands)
        self._send({"ready": {"pid": child.pid, "subreaper": self._subreaper}})
        self._send_events(driver.opening())
        self._obey(self._commands_early)
        return True

    def _listen(self, name: str) -> None:
        fd = self._pipes[name]
        self._selector.register(fd, selectors.EVENT_READ, lambda: self._read_output(name))

    def _hang_up(self, name: str) -> None:
        if self._pipes[name] in self._selector.get_map():
            self._selector.unregister(self._pipes[name])

    # --- the loop's work

    def _read_commands(self) -> None:
        try:
            data = os.read(0, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(0)
            self._stop("orphaned")
            return
        self._obey(data)

    def _obey(self, data: bytes) -> None:
        for line, dropped in self._commands.feed(data):
            try:
                command = None if dropped else json.loads(line)
            except ValueError:
                # Only the daemon writes here: a line that is none was cut off by its end.
                continue
            match command:
                case {"cancel": str(reason), **more}:
                    if more.get("hurry") is True:
                        self._grace_s = min(self._grace_s, HURRY_S)
                    self._stop("cancelled", reason)
                case {"steer": str()} if self._why:
                    # Who is being ended is told nothing more.
                    pass
                case {"answer": dict()} | {"steer": str()} if self._to_child is not None:
                    self._to_child.put(line + b"\n")

    def _read_output(self, name: str) -> bool:
        """Whether there was something."""
        try:
            data = os.read(self._pipes[name], READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._hang_up(name)
            del self._pipes[name]
            return False
        self._heard_at = clock_s()
        self._send_events(self._driver.output(name, data))
        if self._flush_at is None:
            self._flush_at = clock_s() + FLUSH_AFTER_S
        return True

    def _tick(self) -> None:
        ended, self._any_children = process_tree.reap()
        if self._child in ended:
            self._code = ended[self._child]
            self._child = 0
            self._stop("done")
            # Nobody is there to be asked any more; go on with those it left behind.
            if any(step == self._ask for step, _ in self._steps):
                self._steps = [each for each in self._steps if each[0] != self._ask]
                self._step_at = 0.0
        now = clock_s()
        if self._flush_at is not None and now >= self._flush_at:
            self._flush_at = None
            self._send_events(self._driver.flush())
        full = len(self._out.waiting) > UNSENT_BYTES_MAX
        for name in tuple(self._pipes):
            if full:
                self._hang_up(name)
            elif self._pipes[name] not in self._selector.get_map():
                self._listen(name)
        if not self._why and now >= self._deadline + self._waited.seconds:
            self._stop("timeout")
        if not self._why and self._driver.is_over and now >= self._heard_at + self._over_s_max:
            self._driver.outlived = True
            self._stop("done")
        if self._why and self._steps and now >= self._step_at:
            step, pause_s = self._steps[0]
            if len(self._steps) > 1:
                self._steps.pop(0)
            self._step_at = now + pause_s
            step()

    def _pause_s(self) -> float:
        now = clock_s()
        until = [now + LOOK_S_MAX if self._subreaper else now + 1.0]
        until.append(self._step_at if self._why else self._deadline + self._waited.seconds)
        if self._flush_at is not None:
            until.append(self._flush_at)
        if not self._why and self._driver.is_over:
            until.append(self._heard_at + self._over_s_max)
        if self._why and not self._subreaper:
            until.append(now + KILL_AGAIN_S)
        if not self._subreaper:
            self._brood.look()
        return max(0.0, min(until) - now)

    # --- ending

    def _stop(self, why: str, said: str = "") -> None:
        """Begin to end everything; the first reason counts, except that an orphan hurries."""
        if not self._why:
            self._why, self._said = why, said
            ask = [(self._ask, self._grace_s)] if self._driver.asks_before_kill else []
            self._steps = [
                *(ask if why != "done" else []),
                (self._terminate, self._grace_s),
                (self._kill, KILL_AGAIN_S),
            ]
            self._step_at = 0.0

    def _ask(self) -> None:
        if self._to_child is not None:
            self._to_child.put(json.dumps({"cancel": self._said or self._why}).encode() + b"\n")

    def _terminate(self) -> None:
        left = self._brood.look()
        # The sandbox falls with those: whoever is inside is asked first.
        spared = process_tree.enclosing(left) if self._order.get("sandbox") else set()
        process_tree.send(left - spared, signal.SIGTERM)
        # A stopped process sees TERM only when it goes on.
        process_tree.send(left, signal.SIGCONT)

    def _kill(self) -> None:
        self._kills += 1
        if self._group is not None:
            self._group.write("cgroup.kill", "1")
        self._survivors = self._brood.look()
        process_tree.send(self._survivors, signal.SIGKILL)

    def _over(self) -> bool:
        if not self._why or self._child:
            return self._kills > KILLS_MAX
        if self._subreaper and self._any_children:
            return self._kills > KILLS_MAX
        self._survivors = set() if self._subreaper else self._brood.look()
        return not self._survivors or self._kills > KILLS_MAX

    # --- telling the daemon

    def _send(self, message: dict[str, Any]) -> None:
        self._out.put(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def _send_events(self, events: list[Event]) -> None:
        for kind, fields in events:
            self._waited.heard(kind, fields)
            self._told += 1
            if self._told <= EVENTS_MAX or kind in ALWAYS_TOLD:
                self._send({"event": [kind, fields]})

    def _send_outcome(self, outcome: dict[str, Any]) -> None:
        if self._group is not None:
            self._group.remove()
        self._send({"outcome": outcome})
        until = clock_s() + FAREWELL_S
        while self._out.waiting and clock_s() < until:
            self._selector.select(KILL_AGAIN_S)
            self._out.push()


def main() -> None:
    """Run the attempt whose order is the first line of standard input; exits without one."""
    os.umask(umask.of_attempts())
    # What it is given stands in its memory, and in that of all that it starts.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raw = bytearray()
    while b"\n" not in raw:
        data = os.read(0, READ_BYTES)
        if not data or len(raw) > ORDER_BYTES_MAX:
            raise SystemExit("the shim got no order on its standard input")
        raw += data
    line, _, rest = bytes(raw).partition(b"\n")
    order = json.loads(line)
    assert isinstance(order, dict)
    # From now on orphans below this process become its own children.
    subreaper = process_tree.prctl(process_tree.PR_SET_CHILD_SUBREAPER, 1)
    Shim(order, rest, subreaper).run()


if __name__ == "__main__":
    main()
