"""Permissions that an agent asks for over ACP: by the policy, else by a person, once for each.

Rule 1: a person's yes is about the action as it was when they were asked (action.py). Before it is
used the action is looked at again and its number told; who took the yes says whether it is the
same (`use`), or another one that is asked about anew (`again`).
Rule 2: anything but a plain word is a no, and so is silence, an agent that gave up, and the end.
Rule 3: what is told to people holds no secret, and is cut so that both its ends are seen.
"""

import asyncio
import itertools
import json
import re
import secrets as randomness
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from muster.agent.action import class_of, digest
from muster.agent.driver import Event
from muster.agent.lines import cut, middle
from muster.agent.mask import Secrets
from muster.agent.policy import Decision, Policy, decide
from muster.agent.transcript import (
    FINAL,
    TITLE_BYTES_MAX,
    Transcript,
    mapping,
    mappings,
    paths,
    shown_paths,
)

# Never the "always" options: a decision holds once and is recorded (policy.py, rule 3).
OPTIONS: Final = {"allow": ("allow_once",), "deny": ("reject_once", "reject_always")}
# What a person reads of an action: as much as fits into an entry of the journal with the rest.
ASKED_BYTES_MAX: Final = 16 * 1024
# Our own daemon answers at once, or is gone; its entry may wait for room on the disk.
USE_S_MAX: Final = 120.0
# Which Gemini offers for a tool of a server, and for no other; it starts those of the task alone.
_OF_SERVER: Final = "proceed_always_server"
# The name of a tool behind a separator of two underscores, of which it has none itself.
_TOOL: Final = r"[A-Za-z0-9.-]+(?:_[A-Za-z0-9.-]+)*_?"
LATE: Final = "nobody answered in time"
CHANGED: Final = "it, or who was to take the answer, changed since it was asked"


class Permissions:
    """The requests of one session."""

    def __init__(
        self,
        order: Mapping[str, Any],
        transcript: Transcript,
        secrets: Secrets,
        tell: Callable[[list[Event]], None],
    ) -> None:
        self._order, self._transcript = order, transcript
        self._secrets, self._tell = secrets, tell
        self._policy = msgspec.convert(order.get("policy") or {}, type=Policy)
        # Words, and whose they are.
        self._asks: dict[str, asyncio.Queue[tuple[str, str]]] = {}
        self._numbers = itertools.count(1)
        # Why nobody is asked any more.
        self._over = ""

    async def request(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request, in the words of the protocol."""
        options = mappings(params.get("options"))
        self._tell(self._transcript.flush())
        asked = mapping(params.get("toolCall"))
        call = self._transcript.tool(asked)
        session = str(params.get("sessionId", ""))
        while True:
            decision = self._decide(call, {str(each.get("optionId")) for each in options})
            question = self._question(call, decision)
            if decision.answer != "ask":
                answer, by = str(decision.answer), "policy"
                break
            question, answer, by = await self._person(session, call, question)
            if answer != "changed":
                break
            self._tell([("agent.decision", {**question, "answer": answer, "by": by})])
            # As it stands by now, and by the policy first.
            call = self._transcript.tool({"toolCallId": asked.get("toolCallId", "")})
            if str(call.get("status")) in FINAL:
                answer, by = "deny", "the agent gave it up while a person was asked"
                question = self._question(call, decision)
                break
        option = next((o for k in OPTIONS[answer] for o in options if o.get("kind") == k), None)
        if answer == "allow" and option is None:
            answer, by = "deny", "policy: the agent offers no permission for once"
        taken = option.get("optionId") if option else None
        shown = cut(self._secrets.fields(str(taken or "")), 300)
        chosen = {"answer": answer, "by": by, "option": shown}
        self._tell([("agent.decision", {**question, **chosen})])
        outcome = {"outcome": "selected", "optionId": taken}
        return {"outcome": outcome if option else {"outcome": "cancelled"}}

    def answer(self, ask: str, word: str) -> None:
        """A word about a question; of one that nobody waits for it is nothing."""
        if (waiting := self._asks.get(ask)) is not None:
            waiting.put_nowait((word, "person"))

    def drop(self, why: str) -> None:
        """What is asked now is a no, and no person's; what is asked later is asked."""
        for waiting in self._asks.values():
            waiting.put_nowait(("deny", why))

    def end(self, why: str) -> None:
        """Everything that is asked, now and later, is a no, and no person's."""
        self._over = why
        self.drop(why)

    def _decide(self, call: Mapping[str, Any], ids: set[str]) -> Decision:
        kind = str(call.get("kind") or "other")
        decision = decide(self._policy, kind, paths(call), self._order["cwd"])
        title, servers = str(call.get("title", "")), mappings(self._order.get("mcp"))
        server = server_of(title, servers, of_server=_OF_SERVER in ids)
        if decision.answer == "ask" and kind == "other" and server:
            # Who signed the order named the server, and the machine's owner offers it.
            return Decision("allow", f"a tool of {server}, which the task names")
        return decision

    def _question(self, call: Mapping[str, Any], decision: Decision) -> dict[str, Any]:
        """What is written down of a request. The policy decides on what was asked itself."""
        shown = self._secrets.fields
        return {
            "call": cut(shown(str(call.get("toolCallId", ""))), TITLE_BYTES_MAX),
            "kind": cut(shown(str(call.get("kind") or "other")), TITLE_BYTES_MAX),
            "title": middle(shown(str(call.get("title", ""))), TITLE_BYTES_MAX),
            "paths": shown_paths(shown(paths(call))),
            "because": cut(shown(decision.because), TITLE_BYTES_MAX * 2),
        }

    async def _person(
        self, session: str, call: Mapping[str, Any], question: dict[str, Any]
    ) -> tuple[dict[str, Any], str, str]:
        """The question as it was put to a person, what came of it, and by whom."""
        if self._over:
            # Nobody hears of a question that nobody can answer.
            return question, "deny", self._over
        ask, nonce = str(next(self._numbers)), randomness.token_hex(16)
        asked_as = mapping(call).get("toolCallId", "")
        question = {"ask": ask, **question}
        within_s = float(self._order["ask_timeout_s"])
        words = self._asks[ask] = asyncio.Queue()
        about = {
            "class": class_of(question["kind"]), "input": self._input(call),
            "within_ms": round(within_s * 1000),
        }  # fmt: skip
        action = digest(self._order, session, call, paths(call), nonce)
        self._tell([("agent.ask", {**question, **about, "action": action})])
        try:
            async with asyncio.timeout(within_s):
                word, by = await words.get()
            if word == "again":
                return question, "changed", CHANGED
            if word != "allow":
                return question, "deny", by
            now = self._now(session, asked_as, nonce)
            self._tell([("agent.use", {"ask": ask, "action": now})])
            async with asyncio.timeout(USE_S_MAX):
                word, by = await words.get()
            if word == "again" or (word == "use" and self._now(session, asked_as, nonce) != now):
                return question, "changed", CHANGED
            return question, "allow" if word == "use" else "deny", by
        except TimeoutError:
            return question, "deny", LATE
        finally:
            del self._asks[ask]

    def _now(self, session: str, asked_as: Any, nonce: str) -> str:
        """The number of the action as it stands at this moment."""
        call = self._transcript.tool({"toolCallId": asked_as})
        return digest(self._order, session, call, paths(call), nonce)

    def _input(self, call: Mapping[str, Any]) -> str:
        """All that the tool is given, as a person reads it."""
        found = {name: call[name] for name in ("rawInput", "content") if call.get(name)}
        said = self._secrets.fields(found)
        alone = said.get("rawInput") if set(said) == {"rawInput"} else said or ""
        text = alone if isinstance(alone, str) else json.dumps(alone, ensure_ascii=False)
        return middle(text, ASKED_BYTES_MAX)


def server_of(title: str, servers: Sequence[Mapping[str, Any]], *, of_server: bool = False) -> str:
    """The server of the task whose tool is called so, as programs call them; "" for none.

    The whole title is read, and one with two readings is of nobody: in `mcp__db__x__y` the server
    may also be `db__x`, which is another one's. Of Gemini the words of a title may be its model's:
    they count where the program offers what it does for tools of servers alone, `of_server`.
    """
    for name in (str(each.get("name")) for each in servers):
        own = re.escape(name)
        if re.fullmatch(rf"mcp__{own}__{_TOOL}", title, re.ASCII):
            return name
        if of_server and re.fullmatch(rf"[\w-]+ \({own} MCP Server\)", title, re.ASCII):
            return name
    return ""
