"""An agent that speaks the Agent Client Protocol, driven through one turn.

Rule 1: the only file that imports `acp`; it runs in a process of its own below the shim.
Rule 2: no file and no terminal capability is offered: agents use their own tools, which the
permission requests, the sandbox and the shim can see. (With files offered, Gemini cannot create
a new one.)
Rule 3: the agent gets its own process group and nobody waits for it without a bound: agents
start themselves again as children, which hold the pipes open for ever.
Rule 4: standard error is always drained; an agent that fills an unread pipe hangs.
"""

import asyncio
import contextlib
import itertools
import os
import signal
from typing import Any, Final, cast

import acp
import msgspec
from acp.schema import (
    AllowedOutcome,
    ClientCapabilities,
    DeniedOutcome,
    FileSystemCapabilities,
    Implementation,
    PermissionOption,
    RequestPermissionResponse,
)

import muster
from muster.agent.lines import PROMPT_BYTES_MAX, Tail, cut
from muster.agent.policy import Decision, Policy, decide
from muster.agent.transcript import TITLE_BYTES_MAX, Transcript, paths, shown_paths
from muster.agent.wire import Line

# Cold Node programs on a small busy machine took up to 10 s.
HANDSHAKE_S_MAX: Final = 90.0
# Agents send whole files in one message.
MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
# A paragraph that pauses is shown unfinished.
FLUSH_AFTER_S: Final = 1.0
# After its input is closed an agent ends by itself, or it is ended.
FAREWELL_S: Final = 1.0
SUMMARY_BYTES_MAX: Final = 2000

AUTH_REQUIRED: Final = -32000
STATUS: Final = {
    "end_turn": "ok",
    "cancelled": "cancelled",
    "max_tokens": "failed",
    "max_turn_requests": "failed",
    "refusal": "failed",
}
# Never the "always" options: a decision holds once and is recorded (policy.py, rule 3).
OPTIONS: Final = {"allow": ("allow_once",), "deny": ("reject_once", "reject_always")}


class Session:
    """Our side of the conversation: records updates, answers permission requests."""

    def __init__(self, order: dict[str, Any], line: Line) -> None:
        self._order = order
        self._line = line
        self._policy = msgspec.convert(order.get("policy") or {}, type=Policy)
        self._asks: dict[str, asyncio.Future[str]] = {}
        self._ask_ids = itertools.count(1)
        self._flush: asyncio.TimerHandle | None = None
        self.transcript = Transcript()

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        del session_id
        said = update.model_dump(by_alias=True, exclude_none=True, mode="json")
        self._line.tell(self.transcript.update(said))
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        self._flush = None
        self._line.tell(self.transcript.flush())

    async def request_permission(
        self, session_id: str, tool_call: Any, options: list[PermissionOption], **_: Any
    ) -> RequestPermissionResponse:
        del session_id
        self._line.tell(self.transcript.flush())
        asked = tool_call.model_dump(by_alias=True, exclude_none=True, mode="json")
        call = self.transcript.tool(asked)
        kind, named = str(call.get("kind") or "other"), paths(call)
        decision = decide(self._policy, kind, named, self._order["cwd"])
        question = {
            "call": cut(str(call.get("toolCallId", "")), TITLE_BYTES_MAX),
            "kind": kind,
            "title": cut(str(call.get("title", "")), TITLE_BYTES_MAX),
            "paths": shown_paths(named),
            "because": cut(decision.because, TITLE_BYTES_MAX * 2),
        }
        ask = str(next(self._ask_ids)) if decision.answer == "ask" else ""
        if ask:
            question = {"ask": ask, **question}
        answer, by = await self._settle(decision, ask, question)
        option = next((o for k in OPTIONS[answer] for o in options if o.kind == k), None)
        if answer == "allow" and option is None:
            answer, by = "deny", "policy: the agent offers no permission for once"
        chosen = {"answer": answer, "by": by, "option": option.option_id if option else ""}
        self._line.tell([("agent.decision", {**question, **chosen})])
        if option is None:
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        selected = AllowedOutcome(outcome="selected", option_id=option.option_id)
        return RequestPermissionResponse(outcome=selected)

    async def _settle(
        self, decision: Decision, ask: str, question: dict[str, Any]
    ) -> tuple[str, str]:
        """The final answer to a request, and who gave it."""
        if not ask:
            return decision.answer, "policy"
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asks[ask] = answer
        self._line.tell([("agent.ask", question)])
        try:
            async with asyncio.timeout(float(self._order["ask_timeout_s"])):
                return await answer, "person"
        except TimeoutError:
            return "deny", "nobody answered in time"
        finally:
            del self._asks[ask]

    def answer(self, ask: str, answer: str) -> None:
        """Take a person's answer; anything but a plain yes is a no."""
        waiting = self._asks.get(ask)
        if waiting is not None and not waiting.done():
            waiting.set_result("allow" if answer == "allow" else "deny")

    def withdraw_asks(self) -> None:
        for ask in tuple(self._asks):
            self.answer(ask, "deny")

    async def write_text_file(self, **_: Any) -> None:
        raise acp.RequestError.method_not_found("fs/write_text_file")

    async def read_text_file(self, **_: Any) -> None:
        raise acp.RequestError.method_not_found("fs/read_text_file")

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        del params
        raise acp.RequestError.method_not_found(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """An extension that we do not know is not ours to answer."""

    def on_connect(self, conn: Any) -> None:
        """Nothing is sent before `turn` does."""


async def attempt(order: dict[str, Any], line: Line) -> dict[str, Any]:
    """Run the whole attempt; what the agent does wrong is in the outcome, never raised."""
    try:
        agent = await asyncio.create_subprocess_exec(
            *order["argv"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=order["env"],
            cwd=order["cwd"],
            limit=MESSAGE_BYTES_MAX,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return {"status": "error", "summary": f"could not start {order['argv'][0]}: {error}"}
    complaints = Tail()
    assert agent.stderr is not None
    draining = asyncio.create_task(_drain(agent.stderr, complaints))
    session = Session(order, line)
    connection = acp.connect_to_agent(
        cast("acp.Client", session), agent.stdin, agent.stdout, use_unstable_protocol=True
    )
    try:
        outcome = await _turn(order, line, session, connection)
    except acp.RequestError as error:
        outcome = {"status": "error", "summary": _explain(error, str(order.get("login") or ""))}
    except TimeoutError:
        outcome = {"status": "error", "summary": "the agent did not answer the ACP handshake"}
    except (ConnectionError, EOFError) as error:
        outcome = {"status": "error", "summary": f"the agent ended in the middle: {error}"}
    session.flush()
    await _end(agent, connection)
    draining.cancel()
    said = session.transcript.tail.text()
    if outcome["status"] != "ok":
        said += complaints.text()
    return {"tail": said, "usage": session.transcript.usage, **outcome}


async def _turn(
    order: dict[str, Any], line: Line, session: Session, connection: acp.ClientSideConnection
) -> dict[str, Any]:
    async with asyncio.timeout(HANDSHAKE_S_MAX):
        await connection.initialize(
            acp.PROTOCOL_VERSION,
            client_capabilities=ClientCapabilities(
                fs=FileSystemCapabilities(read_text_file=False, write_text_file=False),
                terminal=False,
            ),
            client_info=Implementation(name="muster", version=muster.__version__),
        )
        opened = await connection.new_session(cwd=order["cwd"], mcp_servers=[])
        wanted = order.get("mode")
        modes = [mode.id for mode in opened.modes.available_modes] if opened.modes else []
        if wanted and opened.modes and wanted != opened.modes.current_mode_id:
            if wanted not in modes:
                summary = f"the agent has no mode {wanted!r}; it has {', '.join(modes)}"
                return {"status": "error", "summary": summary}
            await connection.set_session_mode(mode_id=wanted, session_id=opened.session_id)
    asked = cut(order["prompt"], PROMPT_BYTES_MAX)
    prompt = {"agent": order["agent"], "text": asked, "session": opened.session_id}
    line.tell([("agent.prompt", prompt)])
    turn = asyncio.create_task(
        connection.prompt(session_id=opened.session_id, prompt=[acp.text_block(order["prompt"])])
    )
    listening = asyncio.create_task(_listen(line, session, connection, opened.session_id))
    try:
        response = await turn
    finally:
        listening.cancel()
        turn.cancel()
    if response.usage is not None:
        used = response.usage.model_dump(by_alias=True, exclude_none=True, mode="json")
        line.tell(session.transcript.count(used))
    session.flush()
    status = STATUS.get(response.stop_reason, "failed")
    said = cut(session.transcript.last_message, SUMMARY_BYTES_MAX)
    summary = said if status == "ok" else f"the agent stopped: {response.stop_reason}. {said}"
    return {"status": status, "exit_code": 0 if status == "ok" else 1, "summary": summary}


async def _listen(
    line: Line, session: Session, connection: acp.ClientSideConnection, session_id: str
) -> None:
    """Obey the shim during the turn: answers, and the wish to end."""
    while (message := await line.hear()) is not None:
        match message:
            case {"answer": {"ask": str(ask), "answer": str(answer)}}:
                session.answer(ask, answer)
            case {"cancel": _}:
                session.withdraw_asks()
                await connection.cancel(session_id=session_id)


async def _drain(stream: asyncio.StreamReader, into: Tail) -> None:
    while data := await stream.read(65536):
        into.feed(data)


async def _end(agent: asyncio.subprocess.Process, connection: acp.ClientSideConnection) -> None:
    """Let the agent go; whoever stays behind is the shim's to end."""
    assert agent.stdin is not None
    agent.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL_S):
            await agent.wait()
    if agent.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(agent.pid, signal.SIGTERM)
    await connection.close()


def _explain(error: acp.RequestError, login: str) -> str:
    """One sentence out of a protocol error; agents hide the cause in `data`."""
    data = error.data
    if isinstance(data, dict):
        data = data.get("details") or data.get("message") or data
    detail = f": {data}" if data else ""
    if error.code == AUTH_REQUIRED:
        advice = f"; {login} (in its daemon's environment or agents.env)" if login else ""
        return cut(f"the agent is not logged in{detail}{advice}", SUMMARY_BYTES_MAX)
    return cut(f"the agent answered {str(error)!r}{detail}", SUMMARY_BYTES_MAX)
