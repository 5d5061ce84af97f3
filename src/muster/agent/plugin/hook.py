"""What a program's hook says, and what it is answered: a table of events and one of shapes.

Rule 1: what a program says is a prefix of JSON of any origin: only whole members of it count, and
what cannot be read says nothing.
Rule 2: an answer is the finished text that the program reads; "" says nothing to it.

    SessionStart ─ UserPromptSubmit ─ PostToolUse … ─ Stop     and Gemini's, Cursor's names of them
"""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from muster.errors import Malformed

Event = Literal["start", "prompt", "tool", "stop", "end"]
# By the names that programs give them, in small letters.
EVENTS: Final[dict[str, Event]] = {
    "sessionstart": "start",
    "userpromptsubmit": "prompt",
    "userpromptsubmitted": "prompt",
    "beforeagent": "prompt",
    "beforesubmitprompt": "prompt",
    "posttooluse": "tool",
    "aftertool": "tool",
    "stop": "stop",
    "afteragent": "stop",
    "agentstop": "stop",
    "sessionend": "end",
}
HOOK: Final = "muster.agent.plugin.hook_script"
WAIT: Final = "muster.agent.plugin.wait_script"
# Written into a hook's file in place of what that imports of it.
_SHARED: Final = "muster.agent.plugin.hook_bytes"
_IMPORT: Final = re.compile(
    r"^from muster\.agent\.plugin\.hook_bytes import \([^)]*\)\n", re.MULTILINE
)
# What wakes a program by a prompt, which stands where others of the machine can read it: not who
# said what. The messages come in with the prompt.
NOTICE: Final = "[muster] Messages of the fleet came in while this session rested. They follow."
NOTICED: Final = frozenset({"codex"})
# A prompt that no person gave begins so: with ours, or Claude's own word for what woke it.
_NO_PERSON: Final = ("<task-notification>", NOTICE)
# Members that hold the program's own id of its session.
_OWN: Final = ("session_id", "sessionId", "conversation_id")
_PATHS: Final = ("file_path", "filePath", "path", "absolute_path", "notebook_path")
# A tool whose name has one of these writes the file that it names.
_WRITING: Final = re.compile("write|edit|patch|replace|create|update|delete", re.IGNORECASE)
_PATCHED: Final = re.compile(r"^\*\*\* (?:Add|Update|Delete) File: (.{1,1000})$", re.MULTILINE)
_TEXTS: Final = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKETS: Final = re.compile(r"[\[{\]}]")
_FILES_MAX: Final = 20
_DEPTH_MAX: Final = 64


class Said(NamedTuple):
    """What a hook was told: by the program's name of the event, in which session and folder.

    `files` are those that a tool wrote; `again` is a turn that went on because of a hook already,
    None where the program does not say it. A prompt that is `woken` comes from no person. A start
    `within` is that of a context which was made shorter: neither a person's word nor a rest.
    """

    event: Event
    name: str
    own: str
    folder: str = ""
    files: tuple[str, ...] = ()
    again: bool | None = None
    woken: bool = False
    within: bool = False


def read(raw: bytes) -> Said | None:
    """What the beginning of a hook's input says; None where it says nothing that is known."""
    found = _members(raw.decode(errors="replace"))
    name = found.get("hook_event_name")
    event = EVENTS.get(name.lower()) if isinstance(name, str) else None
    own = next((found[key] for key in _OWN if isinstance(found.get(key), str)), "")
    # What a tool of an agent below it did belongs to that one's context.
    below = event == "tool" and bool(found.get("agent_id"))
    if event is None or not isinstance(name, str) or not own or below:
        return None
    folder, again = found.get("cwd"), found.get("stop_hook_active")
    prompt = found.get("prompt")
    files = _files(found) if event == "tool" else ()
    return Said(
        event, name, own, folder if isinstance(folder, str) else "", files,
        again if isinstance(again, bool) else None,
        event == "prompt" and isinstance(prompt, str) and prompt.startswith(_NO_PERSON),
        event == "start" and found.get("source") == "compact",
    )  # fmt: skip


def _members(text: str) -> dict[str, Any]:
    """The members of an object that are whole in this beginning of its text."""
    found: dict[str, Any] = {}
    decoder, at = json.JSONDecoder(), text.find("{") + 1
    if not at or _depth(text) > _DEPTH_MAX:
        return found
    try:
        while True:
            key, at = decoder.raw_decode(text, _blank(text, at))
            at = _blank(text, at)
            if not isinstance(key, str) or text[at : at + 1] != ":":
                return found
            value, at = decoder.raw_decode(text, _blank(text, at + 1))
            at = _blank(text, at)
            # A number that is cut is another number: a member is whole with what follows it.
            if text[at : at + 1] not in (",", "}"):
                return found
            found.setdefault(key, value)
            if text[at] == "}":
                return found
            at += 1
    except ValueError:
        return found


def _blank(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at


def _depth(text: str) -> int:
    """How deep it nests; found without recursion."""
    deepest = now = 0
    for bracket in _BRACKETS.findall(_TEXTS.sub("", text)):
        now += 1 if bracket in "[{" else -1
        deepest = max(deepest, now)
    return deepest


def _files(found: dict[str, Any]) -> tuple[str, ...]:
    """The files that a tool says it wrote."""
    tool, given = found.get("tool_name"), found.get("tool_input")
    if not isinstance(tool, str) or not _WRITING.search(tool):
        return ()
    texts = list(given.values()) if isinstance(given, dict) else [given]
    named = [given[key] for key in _PATHS if key in given] if isinstance(given, dict) else []
    patched = [p for text in texts if isinstance(text, str) for p in _PATCHED.findall(text)]
    return tuple(each for each in [*named, *patched] if isinstance(each, str))[:_FILES_MAX]


def script(agent: str, socket: str, module: str = HOOK, waiter: str = "") -> str:
    """The hook of this agent's program, or that of this `module`, as a file of Python; `socket` is
    where its daemon listens, and `waiter` the file that it starts to wait beside the session.

    Raises: Malformed where a path cannot stand in one.
    """
    for path in (socket, waiter):
        if not path.isprintable() or '"' in path or "\\" in path:
            raise Malformed(f"no hook can name the path {path!r}; choose a plainer MUSTER_HOME")
    shared = _source(_SHARED).partition('"""\n\n')[2]
    text = _IMPORT.sub(lambda _: shared, _source(module))
    for word, value in (("@SOCKET@", socket), ("@AGENT@", agent), ("@WAITER@", waiter)):
        text = text.replace(word, value)
    return text


def _source(module: str) -> str:
    found = find_spec(module)
    assert found is not None, "it lies beside this file"
    assert found.origin is not None, "it is a file"
    return Path(found.origin).read_text(encoding="utf-8")


def _nested(said: Said, text: str) -> dict[str, Any]:
    return {"hookSpecificOutput": {"hookEventName": said.name, "additionalContext": text}}


def _blocking(_said: Said, text: str) -> dict[str, Any]:
    return {"decision": "block", "reason": text}


def answer(agent: str, said: Said, text: str) -> str:
    """What the program of this agent is to read, so that its model reads `text`.

    At the end of a turn that is what makes it go on. Copilot wants its context at the top, where
    Codex drops all of an answer that has it there; Cursor has words of its own, and our plugin for
    opencode takes the text as it is.
    """
    if not text:
        return ""
    if agent == "opencode":
        return text
    if agent == "cursor":
        word = "followup_message" if said.event == "stop" else "additional_context"
        shape: dict[str, Any] = {word: text}
    elif said.event == "stop":
        shape = _blocking(said, text)
    else:
        shape = {"additionalContext": text} if agent == "copilot" else _nested(said, text)
    return json.dumps(shape, ensure_ascii=False)
