"""One command of a person elsewhere: its shim, what it is told and says, and what is written of it.

Rule 1: a command is a list of words, and no shell reads them.
Rule 2: it stands in the home of this machine's person, with that person's PATH and umask, and has
of the daemon's environment what a login would have given it: no key of any agent, nothing of
`agents.env`.
Rule 3: it ends with whoever asked: a stream that is cut ends all that it started.
Rule 4: that it begins and how it ended are entries, with digests and never with what went.
"""

import asyncio
import contextlib
import json
import os
import pwd
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from muster import umask
from muster.agent import process_tree
from muster.agent.command_shim import CONTROL, GRACE_S, SIGNALS
from muster.agent.lines import ORDER_BYTES_MAX
from muster.agent.relay import boot
from muster.channel import strand
from muster.errors import Broken, Malformed, MusterError, NotFound, Unreachable
from muster.fleet.remote import ExecBegin, ExecEnd, Went
from muster.log import canon
from muster.node.attempts.terminal import Terminal
from muster.node.host.environment import NETWORK
from muster.node.services.remote import Remote
from muster.printable import visible

if TYPE_CHECKING:
    from muster.node import event as ev
    from muster.node.call.streams import Served
    from muster.node.runtime import Runtime

# Chosen arbitrarily, as for attempts: machines are not quiet.
BEGUN_S_MAX: Final = 30.0
# What holds the streams open and could not be killed is not waited for longer.
LAST_WORDS_S: Final = 5.0
_READ_BYTES: Final = 32 * 1024
_PERSON: Final = (
    *("HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "MUSTER_STATE"),
)


def surroundings(daemon: "Runtime", known: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The folder in which a command stands, and its environment; `known` is the daemon's."""
    person = pwd.getpwuid(os.getuid())
    names: tuple[str, ...] = (*_PERSON, *NETWORK, "PATH")
    env = {name: known[name] for name in names if name in known}
    usual = {"HOME": person.pw_dir, "USER": person.pw_name, "LOGNAME": person.pw_name}
    env = {"SHELL": person.pw_shell or "/bin/sh", "PATH": os.defpath, **usual, **env}
    env["MUSTER_HOME"] = str(daemon.home.path)
    return env["HOME"] if os.path.isdir(env["HOME"]) else "/", env


class _Counted:
    """What went over one strand."""

    def __init__(self) -> None:
        self.size, self._hash = 0, sha256()

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self._hash.update(data)

    def went(self) -> Went:
        return Went(self._hash.hexdigest(), self.size)


class _Typed:
    """What is typed for a command and waits until that reads it; nothing else waits behind it.

    `say` tells whoever types how much was taken, so what waits is bounded.
    """

    def __init__(
        self, command: "Command", counted: _Counted, say: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self._command, self._counted, self._say = command, counted, say
        self._pieces = asyncio.Queue[bytes]()
        self._bytes, self._ended = 0, False

    def put(self, piece: bytes) -> None:
        """Raises: Malformed for more than was granted, or after its end."""
        self._bytes += strand.HEAD_BYTES + len(piece)
        if self._ended or self._bytes > strand.INPUT_BYTES_MAX:
            raise Malformed("more was typed for a command than it had granted")
        self._ended = not piece
        self._pieces.put_nowait(piece)

    async def hand_over(self) -> int:
        """Never returns."""
        taken = 0
        while True:
            piece = await self._pieces.get()
            self._counted.add(piece)
            # It may have ended, or never read: uvloop says so by a RuntimeError.
            with contextlib.suppress(ConnectionError, RuntimeError):
                if piece:
                    self._command.input.write(piece)
                    await self._command.input.drain()
                elif not isinstance(self._command.input, Terminal):
                    self._command.input.close()
            taken += strand.HEAD_BYTES + len(piece)
            if taken >= strand.INPUT_BYTES_MAX // 4:
                self._bytes -= taken
                await self._say(strand.taken(taken))
                taken = 0


class Command:
    """A command under its shim. `said` are its streams by their strands, `input` what it reads."""

    def __init__(
        self,
        shim: asyncio.subprocess.Process,
        control: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        marker: str,
        *,
        input: asyncio.StreamWriter | Terminal,
        said: dict[int, asyncio.StreamReader | Terminal],
        closes: Sequence[Callable[[], None]],
    ) -> None:
        self.input, self.said, self._closes = input, said, closes
        self._shim, self._marker = shim, marker
        self._says, self._control = control

    async def begun(self, order: dict[str, Any]) -> None:
        """Hand it its order. Raises: NotFound, Broken where it does not begin."""
        self._tell(order)
        try:
            async with asyncio.timeout(BEGUN_S_MAX):
                said = await self._line()
        except TimeoutError:
            said = None
        if said is None:
            raise Broken("the shim of the command did not begin; `daemon.log` there may say why")
        if "lacks" in said:
            program = visible(str(order["argv"][0]))[:80]
            raise NotFound(f"{program} cannot be started there: {said['lacks']}")

    async def ended(self) -> int:
        """Its exit code as shells say it, once nothing of it is left."""
        said = await self._line()
        code = int(said["code"]) if said and "code" in said else -9
        return code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        if number in SIGNALS:
            self._tell({"signal": number})

    async def stop(self) -> None:
        """End what is left of it, for certain; harmless when it has ended."""
        self._control.close()
        # Nobody reads them any more: whoever writes is told so, and waits for nothing.
        for close in self._closes:
            # Their reader ended before: they are closed already.
            with contextlib.suppress(ConnectionError, RuntimeError):
                close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S + LAST_WORDS_S):
                await self._shim.wait()
        if self._shim.returncode != 0:
            with contextlib.suppress(ProcessLookupError):
                self._shim.kill()
            await asyncio.to_thread(process_tree.sweep, self._marker)
            await self._shim.wait()

    def _tell(self, what: dict[str, Any]) -> None:
        if not self._control.is_closing():
            self._control.write(json.dumps(what).encode() + b"\n")

    async def _line(self) -> Any:
        # A shim that was killed ends in the middle of a line: then it said nothing.
        with contextlib.suppress(ValueError, ConnectionError):
            if line := await self._says.readline():
                return json.loads(line)
        return None


async def _shimmed(env: dict[str, str], terminal: Terminal | None) -> Command:
    """A shim that waits for its order. Its streams are the terminal's, or pipes, as programs
    expect: the loop's own may be sockets, which have no /dev/stdin.
    """
    marker = uuid.uuid4().hex
    env[process_tree.MARKER] = marker
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as its:
        control, other = socket.socketpair()
        ours.callback(control.close)
        its.callback(other.close)
        files, far = list[Any](), [terminal.other] * 3 if terminal else list[int]()
        for mode in () if terminal else ("wb", "rb", "rb"):
            reads, writes = os.pipe()
            near, its_end = (writes, reads) if mode == "wb" else (reads, writes)
            files.append(ours.enter_context(os.fdopen(near, mode, 0)))
            its.callback(os.close, its_end)
            far.append(its_end)
        shim = await asyncio.create_subprocess_exec(
            # No site-packages: the shim needs none, and a .pth file can cost more than itself.
            *boot("muster.agent.command_shim", "-S"),
            stdin=far[0],
            stdout=far[1],
            stderr=far[2],
            env={
                "PATH": env["PATH"], CONTROL: str(other.fileno()),
                umask.VARIABLE: f"{umask.of_attempts():03o}",
            },
            cwd="/",
            start_new_session=True,
            pass_fds=(other.fileno(),),
        )  # fmt: skip
        control.setblocking(False)
        talk = await asyncio.open_connection(sock=control, limit=ORDER_BYTES_MAX)
        if terminal:
            ours.pop_all()
            said_there = {strand.OUTPUT: terminal}
            streams: dict[str, Any] = {"said": said_there, "closes": [terminal.close]}
            return Command(shim, talk, marker, input=terminal, **streams)
        loop = asyncio.get_running_loop()
        into, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, files[0])
        writer = asyncio.StreamWriter(into, protocol, None, loop)
        said, closes = dict[int, Any](), [into.close]
        for name, file in zip((strand.OUTPUT, strand.ERRORS), files[1:], strict=True):
            said[name] = asyncio.StreamReader(_READ_BYTES)
            protocol_of = partial(asyncio.StreamReaderProtocol, said[name])
            transport, _ = await loop.connect_read_pipe(protocol_of, file)
            closes.append(transport.close)
        # The loop closes them from here on.
        ours.pop_all()
        return Command(shim, talk, marker, input=writer, said=said, closes=closes)


class Session:
    """A command and whoever asked for it, from the order to the last byte."""

    def __init__(self, daemon: "Runtime", call: "ev.Perform", stream: "Served") -> None:
        self._daemon, self._call, self._stream = daemon, call, stream
        self._actor = f"op:{daemon.core.roster.speaker(call.operator)}"
        self._sends = asyncio.Lock()
        # Those of which the next bytes are waited for.
        self._silent: set[int] = set()
        self._counted = {each: _Counted() for each in (strand.INPUT, strand.OUTPUT, strand.ERRORS)}

    async def login(self, rows: int, columns: int, term: str, environ: Mapping[str, str]) -> None:
        """The person's own shell at a terminal. Raises: as `run`."""
        terminal = Terminal(rows, columns)
        try:
            shell = surroundings(self._daemon, environ)[1]["SHELL"]
            await self.run([shell, "-l"], environ, terminal, term)
        finally:
            terminal.close()

    async def run(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        terminal: Terminal | None = None,
        term: str = "dumb",
    ) -> None:
        """All of it. Raises: what is wrong before it begins, and what ends it before its end."""
        if not argv or any("\0" in word for word in argv):
            raise Malformed("a command is a program and its words, and none of them has a NUL")
        said = canon.encode({"argv": list(argv), "pad": self._call.args.get("pad", "")})
        if len(said) > ORDER_BYTES_MAX // 2:
            raise Malformed("this command has more words than fit into an order")
        folder, env = surroundings(self._daemon, environ)
        env["TERM"] = term
        # Whoever is refused may ask again: nothing has begun by then.
        self._stream.reserve()
        program = visible(argv[0])[:200]
        self._write(ExecBegin(program, sha256(said).hexdigest(), len(argv), terminal is not None))
        code, why = 255, "it did not begin"
        try:
            command = await _shimmed(env, terminal)
            try:
                order = {"argv": list(argv), "cwd": folder, "env": env}
                await command.begun(order | {"terminal": terminal is not None})
                if terminal:
                    terminal.handed_over()
                self._stream.accept()
                why = "whoever asked left, or this machine stopped"
                code = await self._carried(command)
                why = ""
            finally:
                await command.stop()
        except MusterError as error:
            why = why or visible(str(error))[:200]
            raise
        finally:
            went = self._counted
            self._write(ExecEnd(
                code, went[strand.ERRORS].went(), went[strand.INPUT].went(),
                went[strand.OUTPUT].went(), why,
            ))  # fmt: skip

    def _write(self, body: ExecBegin | ExecEnd) -> None:
        self._daemon.post(Remote(body, self._actor, self._call.cites))

    async def _carried(self, command: Command) -> int:
        say = partial(self._send, strand.TAKEN)
        typed = _Typed(command, self._counted[strand.INPUT], say)
        works = self._ran(command), self._heard(command, typed), typed.hand_over(), self._left()
        every = [asyncio.ensure_future(each) for each in works]
        try:
            await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
            first = next(each for each in every if each.done())
        finally:
            for each in every:
                each.cancel()
            await asyncio.gather(*every, return_exceptions=True)
        code = first.result()
        # Whoever is slow still reads what was said, and an end of ours would cut that short.
        await self._stream.gone()
        return code

    async def _ran(self, command: Command) -> int:
        said = {each[0]: asyncio.ensure_future(self._said(*each)) for each in command.said.items()}
        try:
            code = await command.ended()
            waits = set(said.values())
            while waits:
                _, waits = await asyncio.wait(waits, timeout=LAST_WORDS_S)
                # Somebody who could not be killed may hold a stream open: no more comes of it.
                # Whoever waits for the reader instead has something that is still to come.
                for name in self._silent:
                    said[name].cancel()
        finally:
            for each in said.values():
                each.cancel()
            ends = await asyncio.gather(*said.values(), return_exceptions=True)
        for end in ends:
            if isinstance(end, MusterError):
                raise end
        await self._send(strand.END, json.dumps({"code": code}).encode())
        return code

    async def _said(self, name: int, reader: asyncio.StreamReader | Terminal) -> None:
        while data := await self._next(name, reader):
            self._counted[name].add(data)
            await self._send(name, data)

    async def _next(self, name: int, reader: asyncio.StreamReader | Terminal) -> bytes:
        self._silent.add(name)
        try:
            return await reader.read(_READ_BYTES)
        finally:
            self._silent.discard(name)

    async def _send(self, name: int, data: bytes) -> None:
        # A piece is sent whole before the next one begins.
        async with self._sends:
            await self._stream.send(strand.pack(name, data))

    async def _heard(self, command: Command, typed: _Typed) -> int:
        """What whoever asked says; never returns. Raises: as `_left`."""
        pieces = strand.Splitter()
        while data := await self._stream.receive():
            for name, piece in pieces.feed(data):
                if name == strand.INPUT:
                    typed.put(piece)
                elif name == strand.SIGNAL and piece:
                    command.signal(piece[0])
                elif name == strand.SIZE and isinstance(command.input, Terminal):
                    command.input.resize(*strand.size_in(piece))
        return await self._left()

    async def _left(self) -> int:
        """Never returns. Raises: Unreachable when nobody is there any more."""
        await self._stream.gone()
        raise Unreachable("whoever asked for the command left")
