"""An agent that speaks the Agent Client Protocol, driven through one turn.

Rule 1: what an agent answers is data: a stop reason, an update or a field that is new to us is
named or ignored, and never ends the driver. Only what is used is looked at.
Rule 2: no file and no terminal capability is offered: agents use their own tools, which the
permission requests, the sandbox and the shim can see. (With files offered, Gemini cannot create
a new one.)
Rule 3: the agent gets its own process group and nobody waits for it without a bound: agents
start themselves again as children, which hold the pipes open for ever.
Rule 4: standard error is always drained; an agent that fills an unread pipe hangs.
Rule 5: what fails before the agent was asked is this machine's fault, and said to be: nothing was
done, and another machine may do better. What fails later is the agent's, also what it calls a
missing login after it began to work.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from muster.agent import acp_program
from muster.agent.driver import Event
from muster.agent.lines import ORDER_BYTES_MAX, PROMPT_BYTES_MAX, Tail, cut, ended_by, last_line
from muster.agent.mask import Secrets, Stream
from muster.agent.opening import AUTH_REQUIRED, Unusable, open_session, until_it_loads
from muster.agent.permission import Permissions
from muster.agent.rpc import Peer, RpcError
from muster.agent.started import NotStartedError
from muster.agent.transcript import TITLE_BYTES_MAX, Transcript, mapping

# Cold Node programs on a small busy machine took up to 10 s.
HANDSHAKE_S_MAX: Final = 90.0
# A paragraph that pauses is shown unfinished.
FLUSH_AFTER_S: Final = 1.0
# After its input is closed an agent ends by itself, or it is ended.
FAREWELL_S: Final = 1.0
# The agent has ended: what it complained of is there, or comes at once.
DRAIN_S: Final = 0.2
# Chosen arbitrarily: a turn takes seconds to hours.
LOOK_S: Final = 0.5
SUMMARY_BYTES_MAX: Final = 2000

STATUS: Final = {
    "end_turn": "ok",
    "cancelled": "cancelled",
    "max_tokens": "failed",
    "max_turn_requests": "failed",
    "refusal": "failed",
}
# What an agent tells only when it was let in and has begun to work.
WORK: Final = frozenset(
    {"agent_message_chunk", "agent_thought_chunk", "tool_call", "tool_call_update", "plan"}
)


class DriverPipe:
    """The driver's own end of the shim's line format (shim.py): commands in, events out."""

    def __init__(self, commands: asyncio.StreamReader) -> None:
        self._commands = commands

    async def hear(self) -> dict[str, Any] | None:
        """The next message of the shim; None when there is none any more."""
        line = await self._commands.readline()
        message: dict[str, Any] | None = json.loads(line) if line else None
        return message

    def tell(self, events: list[Event]) -> None:
        for kind, fields in events:
            self.write({"event": [kind, fields]})

    def write(self, message: dict[str, Any]) -> None:
        # Blocking on purpose: a reader that is behind slows the agent down.
        data = json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(1, data) :]


class Session:
    """Our side of the conversation: records updates, answers permission requests."""

    def __init__(self, order: dict[str, Any], line: DriverPipe) -> None:
        self.order = order
        self.line = line
        self._flush: asyncio.TimerHandle | None = None
        # The session is opened with its whole past, which was told when it happened.
        self.replays = False
        # Whether it began to work: then it was let in, and no error of it undoes that.
        self.worked = False
        # What is asked, and whether the session is that of an attempt that was cut off.
        self.prompt, self.resumes, self.model = "", False, ""
        # What the agent is told next: its turn is cancelled for that, and another one begins.
        self.steering = ""
        # For good: nothing that it is told later undoes that.
        self.is_cancelled = False
        self.secrets = Secrets(order.get("secrets") or {})
        self.transcript = Transcript(self.secrets)
        self.permissions = Permissions(order, self.transcript, self.secrets, line.tell)

    def notice(self, method: str, params: Mapping[str, Any]) -> None:
        """Something that the agent tells; what is not an update is not ours to answer."""
        if method != "session/update" or self.replays:
            return
        update = mapping(params.get("update"))
        self.worked |= str(update.get("sessionUpdate")) in WORK
        self.line.tell(self.transcript.update(update))
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        self._flush = None
        self.line.tell(self.transcript.flush())

    async def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        if method != "session/request_permission":
            return None
        self.worked = True
        return await self.permissions.request(params)


async def attempt(order: dict[str, Any], line: DriverPipe) -> dict[str, Any]:
    """Run the whole attempt; what the agent does wrong is in the outcome, never raised."""
    await until_it_loads(order)
    try:
        agent = await acp_program.start(order)
    except NotStartedError as error:
        return {"status": "error", "fault": error.fault, "summary": str(error)}
    assert agent.stdin is not None
    assert agent.stdout is not None
    assert agent.stderr is not None
    session = Session(order, line)
    complaints = Tail()
    draining = asyncio.create_task(_drain(agent.stderr, complaints, session.secrets))
    peer = Peer(agent.stdout, agent.stdin, session.request, session.notice)
    listening = asyncio.create_task(peer.listen())
    watching = asyncio.create_task(_watch(agent, peer))
    outcome = await _conversation(session, peer)
    watching.cancel()
    code = await _end(agent, listening, order)
    line.tell(session.transcript.end())
    # What is in the pipe already is read; a child may hold it open for ever.
    await asyncio.wait([draining], timeout=DRAIN_S)
    draining.cancel()
    await asyncio.wait([draining])
    if outcome.pop("left", False) and code is not None:
        # How a program ended that should not have, and what it said last to people.
        outcome["summary"] += f" ({ended_by(code)})"
        if last := last_line(complaints.text()):
            outcome["summary"] += f": {cut(last, SUMMARY_BYTES_MAX // 2)}"
    said = session.transcript.tail.text()
    if outcome["status"] != "ok":
        said += complaints.text()
    used, masked = session.transcript.usage, sorted(session.secrets.found)
    outcome["summary"] = cut(session.secrets.text(outcome["summary"]), SUMMARY_BYTES_MAX)
    total = session.transcript.tail.total
    return {"tail": said, "said_bytes": total, "usage": used, "masked": masked, **outcome}


async def _conversation(session: Session, peer: Peer) -> dict[str, Any]:
    """The outcome of everything that is said, whatever the agent answers or does not."""
    number = ""
    try:
        async with asyncio.timeout(HANDSHAKE_S_MAX):
            opened = await open_session(session.order, peer, session)
            number = opened.number
        session.prompt = str(session.order["go_on" if opened.resumes else "prompt"])
        session.resumes = opened.resumes
        session.model = opened.model
        return await _turn(session, peer, number)
    except RpcError as error:
        # The number is also that of any failure of a server.
        out = error.code == AUTH_REQUIRED and not session.worked
        fault = "agent" if not number or out else ""
        summary = _explain(error, str(session.order.get("login") or ""), logged_out=out)
        return {"status": "error", "fault": fault, "summary": summary, "logged_out": out}
    except Unusable as error:
        return {"status": "error", "fault": "agent", "summary": str(error)}
    except TimeoutError:
        summary = "the agent did not answer the ACP handshake"
        return {"status": "error", "fault": "agent", "summary": summary}
    except (ConnectionError, EOFError) as error:
        fault, when = ("", "in the middle") if number else ("agent", "before it was asked")
        summary = f"the agent ended {when}: {error}"
        return {"status": "error", "fault": fault, "summary": summary, "left": True}


async def _turn(session: Session, peer: Peer, number: str) -> dict[str, Any]:
    order, line = session.order, session.line
    asked = cut(session.secrets.text(session.prompt), PROMPT_BYTES_MAX)
    shown = cut(session.secrets.text(number), TITLE_BYTES_MAX)
    prompt = {"agent": order["agent"], "text": asked, "session": shown}
    if session.resumes:
        prompt["resumes"] = shown
    line.tell([("agent.prompt", prompt)])
    line.tell(session.transcript.count({}, [session.model]))
    words = [{"type": "text", "text": session.prompt}]
    asked_of = {"sessionId": number}
    listening = asyncio.create_task(_listen(session, peer, number))
    try:
        while True:
            session.steering = ""
            response = mapping(await peer.ask("session/prompt", {**asked_of, "prompt": words}))
            line.tell(session.transcript.answered(response))
            line.tell(session.transcript.end())
            reason = response.get("stopReason")
            # It was told something, and had not ended by itself before it heard of that.
            if session.is_cancelled or not (session.steering and reason == "cancelled"):
                break
            words = [{"type": "text", "text": session.steering}]
            line.tell([("agent.prompt", {**prompt, "text": session.steering})])
    finally:
        listening.cancel()
    status, why = "failed", "the agent stopped for a reason that is not known here: "
    if isinstance(reason, str) and reason in STATUS:
        status, why = STATUS[reason], f"the agent stopped: {reason}"
    elif reason is None:
        why = "the agent ended its turn and did not say why"
    else:
        why += cut(str(session.secrets.fields(reason)), 200)
    said = cut(session.transcript.last_message, SUMMARY_BYTES_MAX // 2)
    summary = said if status == "ok" else f"{why}. {said}"
    return {"status": status, "exit_code": 0 if status == "ok" else 1, "summary": summary}


async def _listen(session: Session, peer: Peer, number: str) -> None:
    """Obey the shim during the turn: answers, what the agent is told, and the wish to end.

    Nobody has to take a prompt in the middle of a turn, and everybody ends one that is cancelled.
    """
    while (message := await session.line.hear()) is not None:
        match message:
            case {"answer": {"ask": str(ask), "answer": str(answer)}}:
                session.permissions.answer(ask, answer)
            case {"cancel": _}:
                session.is_cancelled = True
                session.permissions.end("muster: the attempt is ended")
                peer.tell("session/cancel", {"sessionId": number})
            case {"steer": str(words)} if not session.is_cancelled:
                session.steering = words
                session.permissions.drop("muster: the agent is told something else")
                peer.tell("session/cancel", {"sessionId": number})


async def _drain(stream: asyncio.StreamReader, into: Tail, secrets: Secrets) -> None:
    hidden = Stream(secrets)
    try:
        while data := await stream.read(65536):
            into.feed(hidden.feed(data))
    finally:
        into.feed(hidden.rest())


async def _watch(agent: asyncio.subprocess.Process, peer: Peer) -> None:
    """The agent's end is the end, also where a child of it keeps its output open."""
    # Not `wait`, which in some versions of Python waits for the pipes as well.
    while agent.returncode is None:  # noqa: ASYNC110 - there is no event for the process alone
        await asyncio.sleep(LOOK_S)
    await asyncio.sleep(FAREWELL_S)
    peer.end("its program ended")


async def _end(
    agent: asyncio.subprocess.Process, listening: asyncio.Task[None], order: Mapping[str, Any]
) -> int | None:
    """Let the agent go; its exit code. Whoever stays behind is the shim's to end."""
    assert agent.stdin is not None
    agent.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL_S):
            await agent.wait()
    code = agent.returncode
    if code is None:
        acp_program.ask_to_end(agent, order)
        if order.get("sandbox"):
            # Our own end would be the end of all that is inside.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await agent.wait()
    listening.cancel()
    await asyncio.wait([listening])
    return code


def _explain(error: RpcError, login: str, *, logged_out: bool) -> str:
    """One sentence out of a protocol error; agents hide the cause in `data`."""
    data = error.data
    if isinstance(data, dict):
        data = data.get("details") or data.get("message") or data
    detail = f": {data}" if data else ""
    if logged_out:
        advice = f"; {login} (in its daemon's environment or agents.env)" if login else ""
        words = str(error)
        if not detail and "auth" not in words.lower() and "log" not in words.lower():
            # A program that takes this number for something else says what is wrong.
            detail = f" or cannot be used: {words}"
        return f"the agent is not logged in{detail}{advice}"
    return f"the agent answered {str(error)!r}{detail}"


async def _drive() -> None:
    commands = asyncio.StreamReader(limit=ORDER_BYTES_MAX + 1024)
    protocol = asyncio.StreamReaderProtocol(commands)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    line = DriverPipe(commands)
    order = await line.hear()
    if order is not None:
        line.write({"outcome": await attempt(order, line)})


def main() -> None:
    """The program that the shim starts; standard input and output are those of the shim."""
    asyncio.run(_drive())
