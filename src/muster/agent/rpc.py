"""JSON-RPC with a program over its pipes, one message a line, whatever else the program prints.

Rule 1: what comes is data. A line that holds no message is skipped, and so is what stands around
one: loaders, update notices and titles of terminals are printed by programs that should not.
Rule 2: memory is bounded: of a line that is too long nothing is kept, nor of one that nests deep or
holds too many values.
Rule 3: an answer that nobody waits for, a second one or one of no known form changes nothing.
Rule 4: when the program's output ends, every open question ends with EOFError.
Rule 5: every question of the program is answered, at the latest when it is over; also where what
answers it fails. A program that waits for an answer waits for ever.
"""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from muster.agent.lines import Splitter, is_shallow, is_small

# Agents send whole files in one message.
MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
# What a program prints before a message on its line has few braces; a log of braces is no message.
BRACES_TRIED_MAX: Final = 32
# Questions of the program that are still open; more at once is a program gone wild.
REQUESTS_OPEN_MAX: Final = 64
READ_BYTES: Final = 64 * 1024

METHOD_NOT_FOUND: Final = -32601
BUSY: Final = -32603
FAILED: Final = -32603

_read_at: Final = json.JSONDecoder().raw_decode


class RpcError(Exception):
    """The other side's answer was an error; `code` is 0 where it gave none."""

    def __init__(self, error: Any) -> None:
        known = error if isinstance(error, dict) else {"message": str(error)}
        code = known.get("code")
        self.code = code if isinstance(code, int) else 0
        self.data = known.get("data")
        super().__init__(str(known.get("message") or "an error without a message"))


# A question of the other side by its method; the answer, or None where the method is not known.
# An RpcError that it raises is the answer.
OnRequest = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any] | None]]
OnNotice = Callable[[str, Mapping[str, Any]], None]


class Peer:
    """Our end. `listen` runs as long as the program writes."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_request: OnRequest,
        on_notice: OnNotice,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._on_request, self._on_notice = on_request, on_notice
        self._numbers = itertools.count(1)
        self._open: dict[str, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._ended = ""

    async def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """The result.

        Raises: RpcError for an error as the answer, EOFError when the program ended before it.
        """
        if self._ended:
            raise EOFError(self._ended)
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open[str(number)] = answer
        try:
            self.tell(method, params, id=number)
            await self._writer.drain()
            return await answer
        finally:
            self._open.pop(str(number), None)

    def tell(self, method: str, params: Mapping[str, Any], **more: Any) -> None:
        self._send({"method": method, "params": params, **more})

    async def listen(self) -> None:
        """Take messages until there are no more."""
        lines = Splitter(MESSAGE_BYTES_MAX)
        try:
            while data := await self._reader.read(READ_BYTES):
                for line, dropped in lines.feed(data):
                    for message in () if dropped else messages(line):
                        self._take(message)
            # A program that ends at once may leave its last line without an end.
            for line, dropped in lines.rest():
                for message in () if dropped else messages(line):
                    self._take(message)
        finally:
            self.end("its output ended")

    def end(self, why: str) -> None:
        """Nobody answers any more: whoever waits is told."""
        self._ended = self._ended or why
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(EOFError(self._ended))
        for task in self._answering:
            task.cancel()

    def _take(self, message: dict[str, Any]) -> None:
        method, number = message.get("method"), message.get("id")
        params = message.get("params")
        known = params if isinstance(params, dict) else {}
        if not isinstance(method, str):
            # Some programs give a number back as text.
            answer = self._open.get(str(number))
            if answer is None or answer.done():
                return
            if message.get("error") is not None:
                answer.set_exception(RpcError(message["error"]))
            else:
                answer.set_result(message.get("result"))
        elif number is None:
            self._on_notice(method, known)
        elif len(self._answering) >= REQUESTS_OPEN_MAX:
            self._send({"id": number, "error": {"code": BUSY, "message": "too many at once"}})
        else:
            task = asyncio.create_task(self._answer(number, method, known))
            self._answering.add(task)
            task.add_done_callback(partial(self._answered, number))

    async def _answer(self, number: Any, method: str, params: Mapping[str, Any]) -> None:
        try:
            result = await self._on_request(method, params)
        except RpcError as refused:
            error = {"code": refused.code, "message": str(refused), "data": refused.data}
            self._send({"id": number, "error": error})
            return
        if result is None:
            error = {"code": METHOD_NOT_FOUND, "message": f"there is no {method[:100]} here"}
            self._send({"id": number, "error": error})
        else:
            self._send({"id": number, "result": result})

    def _answered(self, number: Any, task: asyncio.Task[None]) -> None:
        """Whoever answered is done; where it failed, that is the answer."""
        self._answering.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            failed = {"code": FAILED, "message": f"it failed here ({type(error).__name__})"}
            self._send({"id": number, "error": failed})

    def _send(self, message: dict[str, Any]) -> None:
        raw = json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode()
        if not self._writer.is_closing():
            self._writer.write(raw + b"\n")


def messages(line: bytes) -> Iterator[dict[str, Any]]:
    """Every message in a line: the line itself, a batch, or what stands between other things."""
    if not is_small(line):
        return
    text = line.decode("utf-8", "replace")
    at = 0
    for _ in range(BRACES_TRIED_MAX):
        at = min((found for c in "{[" if (found := text.find(c, at)) >= 0), default=-1)
        if at < 0:
            return
        try:
            value, at = _read_at(text, at)
        except (ValueError, RecursionError):
            # It begins no value here: the next character may begin one.
            at += 1
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and each.keys() & {"method", "result", "error", "jsonrpc"}:
                yield from [each] if is_shallow(each) else []
