"""`muster acp`: Muster as an agent of an editor, over the Agent Client Protocol on standard input.

Rule 1: what comes is data: bounded, and of a known form, or an error that says what is wrong. A
line that is no message changes nothing.
Rule 2: standard output is the protocol's alone.
Rule 3: the fleet does the work: what a prompt asks for is planned and run as by `muster ask`, with
the person's yes in the editor. Nothing that the editor offers (files, terminals, servers) is used.
"""

import asyncio
import os
import stat
import sys
import threading
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final, TextIO

import muster
from muster.agent.rpc import Peer, RpcError
from muster.errors import MusterError, Refused
from muster.verbs import acp_session, acp_stop
from muster.verbs.acp_turn import Work
from muster.verbs.declaration import Context, Request, opt, verb

PROTOCOL_VERSION: Final = 1
PROMPT_BYTES_MAX: Final = 64 * 1024
SESSIONS_MAX: Final = 32
_INVALID, _FAILED, _UNKNOWN = -32602, -32603, -32002


class Acp(Request, frozen=True):
    stops: Annotated[bool, opt("say again what a Stop said and nobody heard, then end")] = False


@verb("acp", auth="local", runs="client", group="Work", on="none", harmless=True)
def acp(context: Context, wish: Acp) -> None:
    """Be an agent of your editor: what you ask for there is planned and run by the fleet.

    For editors that speak the Agent Client Protocol (Zed, JetBrains, Neovim …), which start it.
    The plan is shown, and runs when you say yes. A session goes on after a restart.

        muster acp
    """
    if wish.stops:
        acp_stop.deliver(context)
        return
    if not (_speaks(sys.stdin) and _speaks(sys.stdout)):
        raise Refused("`muster acp` speaks with an editor over pipes; let it start it")
    asyncio.run(_serve(context))


def _speaks(file: TextIO) -> bool:
    """Whether somebody can be at the other end."""
    try:
        mode = os.fstat(file.fileno()).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or file.isatty()
    except (OSError, ValueError):
        return False


async def _serve(context: Context) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, sys.stdout
    )
    context.note("an editor speaks here, a line of JSON each; Ctrl-D ends it")
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    agent = Agent(context, reader, writer)
    await asyncio.to_thread(acp_stop.begin, context.home)
    await agent.listen()


class Agent:
    """The agent's side of one connection."""

    def __init__(
        self, context: Context, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._peer = Peer(reader, writer, self._asked, self._told)
        # The one that was used last stands last.
        self._sessions: dict[str, acp_session.Session] = {}
        self._held = acp_session.Held(context.home)
        # What a session is at: a turn, or a run of before that it follows.
        self._turns: dict[str, Work] = {}
        self._follows: dict[str, Work] = {}

    async def listen(self) -> None:
        """Answer until the editor closes its end; what it began goes on without it."""
        await self._peer.listen()
        left = [*self._turns.values(), *self._follows.values()]
        threads = [threading.Thread(target=work.leave, daemon=True) for work in left]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join, 5.0)

    async def _asked(self, method: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        match method:
            case "initialize":
                return _hello()
            case "authenticate":
                return {}
            case "session/new":
                return await self._new(params)
            case "session/load":
                return await self._load(params)
            case "session/prompt":
                return await self._prompt(params)
        return None

    def _told(self, method: str, params: Mapping[str, Any]) -> None:
        if method != "session/cancel":
            return
        session = str(params.get("sessionId"))
        for works in (self._turns, self._follows):
            if (work := works.get(session)) is not None:
                work.cancel()

    async def _new(self, params: Mapping[str, Any]) -> dict[str, Any]:
        session = acp_session.opened(_folder(params))
        await self._require_daemon()
        self._begin(session)
        return {"sessionId": session.id}

    async def _load(self, params: Mapping[str, Any]) -> dict[str, Any]:
        id, cwd = str(params.get("sessionId")), _folder(params)
        # All that is waited for comes first: of two that load one session, the second is told.
        await self._require_daemon()
        if id in self._turns or id in self._follows:
            raise _error(_INVALID, "this session is open already")
        # Found, then taken, then read: what another editor wrote before it was closed counts.
        self._begin(self._known(id))
        session = self._sessions[id] = self._known(id)
        session.cwd = cwd
        work = self._work(id, session)
        if (turn := work.replay()) is not None:
            self._follows[id] = work

            def follow() -> None:
                try:
                    work.follow(turn)
                except MusterError as error:
                    work.say(f"{error}\n")
                except EOFError:
                    # The editor is gone: there is nobody to tell.
                    return
                finally:
                    self._loop.call_soon_threadsafe(self._unfollow, id, work)

            threading.Thread(target=follow, daemon=True).start()
        return {}

    def _work(self, id: str, session: acp_session.Session) -> Work:
        work = Work(self._context, _Session(self, id), session)
        work.unheard = partial(acp_stop.begin, self._context.home)
        return work

    def _unfollow(self, id: str, work: Work) -> None:
        if self._follows.get(id) is work:
            del self._follows[id]

    def _known(self, id: str) -> acp_session.Session:
        try:
            return acp_session.known(self._context.home, id)
        except MusterError as error:
            raise RpcError({"code": _UNKNOWN, "message": str(error)}) from error

    async def _require_daemon(self) -> None:
        if not await asyncio.to_thread(self._context.running):
            raise _error(_FAILED, "no daemon answers here; `muster up --detach` starts it")

    def _begin(self, session: acp_session.Session) -> None:
        """Open it; where that is one too many, the one that was idle longest is closed.

        Raises: RpcError where all of them work, or another process has it open.
        """
        full = session.id not in self._sessions and len(self._sessions) >= SESSIONS_MAX
        idle = [id for id in self._sessions if id not in {*self._turns, *self._follows}]
        if full and not idle:
            raise _error(_INVALID, f"{SESSIONS_MAX} sessions work, which is the most; end one")
        try:
            self._held.take(session.id)
        except MusterError as error:
            raise _error(_INVALID, str(error)) from error
        if full:
            del self._sessions[idle[0]]
            self._held.leave(idle[0])
        self._sessions[session.id] = session

    async def _prompt(self, params: Mapping[str, Any]) -> dict[str, Any]:
        id = str(params.get("sessionId"))
        session = self._sessions.get(id)
        if session is None:
            raise _error(
                _UNKNOWN, f"no session {id[:40]!r} is open here; load it, or begin another"
            )
        if id in self._turns:
            raise _error(_INVALID, "this session answers a prompt already; cancel it first")
        asked = text_of(params.get("prompt"))
        self._sessions[id] = self._sessions.pop(id)
        if (before := self._follows.pop(id, None)) is not None:
            before.leave()
        work = self._turns[id] = self._work(id, session)
        over: asyncio.Future[str] = self._loop.create_future()

        def turn() -> None:
            # However the turn ends, the editor hears that it has.
            answer: str | RpcError = _error(
                _FAILED, "it failed here; `muster runs` tells what runs"
            )
            try:
                answer = work.prompt(asked)
            except MusterError as error:
                data = {"exit": error.exit_code}
                answer = RpcError({"code": _FAILED, "message": str(error), "data": data})
            except (EOFError, RpcError) as error:
                answer = _error(_FAILED, f"the editor did not answer: {error}")
            finally:
                self._loop.call_soon_threadsafe(_settle, over, answer)

        threading.Thread(target=turn, daemon=True).start()
        try:
            return {"stopReason": await over}
        finally:
            self._turns.pop(id, None)

    # --- from the threads of sessions ---------------------------------------------------------

    def tell(self, session: str, update: Mapping[str, Any]) -> None:
        said = {"sessionId": session, "update": dict(update)}
        self._loop.call_soon_threadsafe(self._peer.tell, "session/update", said)

    def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Raises: EOFError, RpcError."""
        return asyncio.run_coroutine_threadsafe(self._peer.ask(method, params), self._loop).result()


class _Session:
    """The editor, as one session sees it."""

    def __init__(self, agent: Agent, session: str) -> None:
        self._agent, self._id = agent, session

    def tell(self, update: Mapping[str, Any]) -> None:
        self._agent.tell(self._id, update)

    def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        return self._agent.ask(method, params)


def text_of(prompt: Any) -> str:
    """What a prompt says: its texts, and the names of what it points at.

    Raises: RpcError where it says nothing, or too much.
    """
    parts = []
    for block in prompt if isinstance(prompt, list) else ():
        if isinstance(block, dict):
            resource = block.get("resource")
            held = resource if isinstance(resource, dict) else {}
            said = block.get("text") or held.get("text") or block.get("uri") or held.get("uri")
            parts += [said] if isinstance(said, str) else []
    text = "\n".join(parts).strip()
    if not text:
        raise _error(_INVALID, "a prompt needs a text")
    if len(text.encode()) > PROMPT_BYTES_MAX:
        raise _error(_INVALID, f"a prompt has at most {PROMPT_BYTES_MAX} bytes")
    return text


def _folder(params: Mapping[str, Any]) -> str:
    cwd = params.get("cwd")
    if not isinstance(cwd, str) or not cwd.startswith("/") or "\0" in cwd or len(cwd) > 4096:
        raise _error(_INVALID, "cwd must be the whole path of a folder")
    return cwd


def _hello() -> dict[str, Any]:
    said = {"image": False, "audio": False, "embeddedContext": True}
    return {
        "protocolVersion": PROTOCOL_VERSION,
        "agentCapabilities": {"loadSession": True, "promptCapabilities": said},
        "agentInfo": {"name": "muster", "title": "Muster", "version": muster.__version__},
        "authMethods": [],
    }


def _error(code: int, message: str) -> RpcError:
    return RpcError({"code": code, "message": message})


def _settle(over: asyncio.Future[str], answer: str | RpcError) -> None:
    if over.done():
        return
    if isinstance(answer, RpcError):
        over.set_exception(answer)
    else:
        over.set_result(answer)
