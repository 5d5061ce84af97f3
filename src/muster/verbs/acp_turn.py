"""One turn of an editor: what a person asks for becomes a plan, and with their yes a run.

Rule 1: nothing runs before the person said yes in the editor to what they could read whole. What a
phase asks is answered by their yes or their no alone; a dialog that is closed leaves it open.
Rule 2: what the editor is shown is what the log says: the phases as a plan, each task as a tool
call, and at the end what came of it.
Rule 3: a cancel of the editor cancels what it began, the planning too. An editor that goes away
cancels nothing but the planning: its run goes on, and the next session shows it. A cancel that
nobody could be told is said again until it is heard, also after the editor was closed, and the
person reads so meanwhile.
Rule 4: a daemon that is started anew is waited for; the run was not its process.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from muster.agent.rpc import RpcError
from muster.errors import Conflict, Exhausted, MusterError, NotFound, Unreachable, Unsettled
from muster.node.host import clock
from muster.node.host.home import Home
from muster.verbs import acp_session, acp_stop, plan
from muster.verbs.acp_session import Session, Turn
from muster.verbs.acp_words import TITLE_CHARS, chunk, fenced, phases_of, said, slot, standing
from muster.verbs.client import Context

# A daemon that is started anew answers long before.
DAEMON_MS_MAX: Final = 60_000
_LOOK_S: Final = 0.5
# How long a cancel that was not heard waits at most before it is said again.
_AGAIN_S_MAX: Final = 15.0
_STATUS: Final = {
    "queued": "pending", "waiting": "pending", "leased": "in_progress", "done": "completed",
}  # fmt: skip
_YES: Final = {"optionId": "yes", "name": "Yes", "kind": "allow_once"}
_NO: Final = {"optionId": "no", "name": "No", "kind": "reject_once"}


class Editor(Protocol):
    """The other side, as a turn sees it."""

    def tell(self, update: Mapping[str, Any]) -> None:
        """Something happened in the session."""

    def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Its answer. Raises: EOFError where it is gone, RpcError."""


class Cancelled(Exception):
    """The person ended the turn."""


class Spoken:
    """The command as verbs inside it see it, whose words reach the editor."""

    def __init__(self, context: Context, work: "Work") -> None:
        self._context, self._work = context, work
        self.on, self.json = "", False

    @property
    def home(self) -> Home:
        return self._context.home

    def ask(self, verb: str, args: Mapping[str, Any], **how: Any) -> Any:
        self._work.check()
        # Asked before it is signed: nothing that can fail stands between a run and its id here.
        here = str(self._context.ask("status", {})["name"]) if verb == "run" else ""
        answer = self._context.ask(verb, args, **how)
        if verb == "run":
            owner = str(answer["owner"])
            self._work.began(str(answer["run"]), "" if owner == here else owner)
        return answer

    def stream(self, verb: str, args: Mapping[str, Any], *, on: str = "") -> Iterator[Any]:
        return self._context.stream(verb, args, on=on)

    def running(self) -> bool:
        return self._context.running()

    def question(self, what: str, default: str) -> str:  # noqa: ARG002 - nobody is at a terminal
        return default

    def say(self, text: str, *, whole: bool = False) -> None:  # noqa: ARG002 - all is whole here
        self._work.editor.tell(chunk("agent_thought_chunk", f"{text}\n"))

    def note(self, text: str) -> None:
        """Nobody waits at a terminal here."""

    def show(self, value: Any) -> None:
        """The answer of a turn is what it tells."""


class Work:
    """What one session does at this moment, in a thread of its own."""

    def __init__(self, context: Context, editor: Editor, session: Session) -> None:
        self.context, self.editor, self.session = context, editor, session
        self._cancelled, self._left = threading.Event(), threading.Event()
        # The run that is followed, and the machine that owns it.
        self._run: tuple[str, str] | None = None
        self._plans = False
        # A cancel was wished for, and its machine has not heard it.
        self._unheard = False
        self._kept = True
        # What has a cancel that was not heard said again when we are gone.
        self.unheard: Callable[[], None] = lambda: None

    # --- from outside -------------------------------------------------------------------------

    def cancel(self) -> None:
        """The person does not want it any more. Waits for nothing."""
        self._unheard = True
        self._cancelled.set()
        threading.Thread(target=self._stop, daemon=True).start()

    def leave(self) -> None:
        """Nobody looks any more: a plan that nobody waits for is not made, a run goes on."""
        self._left.set()
        if self._plans:
            self._end_run("the editor went away")

    def _stop(self) -> None:
        if self._end_run("cancelled in the editor"):
            self._unheard = False

    def _end_run(self, reason: str) -> bool:
        """Whether its machine heard that it is to end: asked again for as long as that takes."""
        what, told, wait_s = self._run, False, _LOOK_S
        if what is None:
            return False
        run, on = what
        # Before it is said: whoever is killed meanwhile has said it all the same.
        kept = self._noted(acp_stop.Stop(run, on, reason))
        while True:
            try:
                self.context.ask("cancel", {"what": run, "reason": reason}, on=on)
                break
            except (Unreachable, Exhausted, Unsettled) as error:
                if not told:
                    goes_on = "also when your editor is closed" if kept else "while it is open"
                    self._tell(
                        f"Not stopped yet: {error}. It is asked again, {goes_on}; "
                        f"`muster cancel {run[:12]}` does it elsewhere."
                    )
                    self.unheard()
                told = True
            except Conflict:
                # It has ended by itself.
                break
            except MusterError as error:
                acp_stop.heard(self.context.home, run)
                self._tell(f"It could not be stopped: {error}.")
                return False
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, _AGAIN_S_MAX)
        acp_stop.heard(self.context.home, run)
        if told:
            self._tell(f"Run {run[:12]} was told to stop.")
        return True

    def _noted(self, stop: acp_stop.Stop) -> bool:
        """Whether it outlives this process. A disk that refuses keeps nobody from saying it."""
        try:
            acp_stop.note(self.context.home, stop)
        except MusterError:
            return False
        return True

    def _tell(self, text: str) -> None:
        """Something beside the answer of a turn, unless nobody reads it any more."""
        if not self._left.is_set():
            self.say(f"{text}\n")

    def check(self) -> None:
        """Raises: Cancelled where the person has ended it."""
        if self._cancelled.is_set():
            raise Cancelled

    def began(self, run: str, on: str) -> None:
        """A run was signed, whose machine is `on`, "" for this one."""
        self._run = run, on
        if self._cancelled.is_set():
            threading.Thread(target=self._stop, daemon=True).start()

    # --- a turn -------------------------------------------------------------------------------

    def prompt(self, asked: str) -> str:
        """Why the turn ended, as ACP says it. Raises: MusterError, EOFError."""
        turn = Turn(asked[: acp_session.ASKED_CHARS_MAX])
        self.session.turns.append(turn)
        try:
            self._plan(turn, asked)
            self._keep()
            if not self._agreed(turn):
                self.check()
                turn.said = "Nothing was run."
                self.say(turn.said)
                return "end_turn"
            wanted = {"base": "", "repo": turn.repo, "spec": turn.spec, "values": {}}
            self._begin(turn, wanted)
            self._keep()
            self.follow(turn)
        except Cancelled:
            turn.said = turn.said or "Cancelled."
            return "cancelled"
        except (MusterError, RpcError):
            # Whatever it says, it said so because the person had ended it.
            if not self._cancelled.is_set():
                raise
            # A run that did not hear it goes on, and the next session follows it.
            turn.said = turn.said or ("" if turn.run and self._unheard else "Cancelled.")
        finally:
            self._run = None
            self._keep()
        return "cancelled" if self._cancelled.is_set() else "end_turn"

    def _begin(self, turn: Turn, wanted: Mapping[str, Any]) -> None:
        """Raises: MusterError; Unreachable where nobody knows whether it began."""
        # Written down before it is signed: whoever is killed in between did not say it never ran.
        turn.said = f"Nobody answered whether {turn.name} began; `muster runs` tells."
        self._keep()
        try:
            Spoken(self.context, self).ask("run", wanted, options={"object": turn.name})
        except Unreachable:
            raise
        except (MusterError, Cancelled):
            turn.said = ""
            raise
        turn.run, turn.owner = self._run or ("", "")
        turn.said = ""

    def _plan(self, turn: Turn, asked: str) -> None:
        """Raises: NotFound without an agent that could, Refused where no plan came."""
        spoken = Spoken(self.context, self)
        machines = spoken.ask("machines", {})
        turn.repo = repository_of(self.session.cwd, machines, self.context.home)
        self._plans = True
        try:
            made = plan.planned(spoken, machines, asked, turn.repo)
        finally:
            self._plans, self._run = False, None
        self.check()
        if made is None:
            raise NotFound(str(plan.skeleton(machines, asked, turn.repo)["text"]))
        turn.spec, turn.name, turn.repo = made.spec, made.name, turn.repo or made.repo
        self.say(fenced(made.spec, "yaml"))
        self._show_plan(turn, {})

    def _agreed(self, turn: Turn) -> bool:
        where = f" in {turn.repo}" if turn.repo else ""
        title = f"Run {turn.name}{where} on the fleet"
        return self._answered(f"plan-{turn.name}", title, fenced(turn.spec, "yaml")) == "yes"

    def _answered(self, call: str, title: str, text: str) -> str:
        """The person's "yes" or "no" to what they were shown; "" where they said neither."""
        content = [{"type": "content", "content": {"type": "text", "text": text}}]
        shown = {
            "toolCallId": call,
            "title": title[:TITLE_CHARS],
            "kind": "execute",
            "status": "pending",
            "content": content,
        }
        asked = {"sessionId": self.session.id, "toolCall": shown, "options": [_YES, _NO]}
        answer = self.editor.ask("session/request_permission", asked)
        outcome = answer.get("outcome") if isinstance(answer, dict) else None
        if not isinstance(outcome, dict) or outcome.get("outcome") != "selected":
            return ""
        chosen = outcome.get("optionId")
        return str(chosen) if chosen in (_YES["optionId"], _NO["optionId"]) else ""

    # --- a run --------------------------------------------------------------------------------

    def follow(self, turn: Turn) -> None:
        """Show a run until it has ended, and say what came of it. Raises: MusterError."""
        self._run = turn.run, turn.owner
        seen: dict[str, dict[str, Any]] = {}
        end: Mapping[str, Any] = {}
        until_ms = clock.read().boot_ms + DAEMON_MS_MAX
        while not end and not self._left.is_set():
            try:
                for change in self.context.stream("watch", {"run": turn.run}, on=turn.owner):
                    until_ms = clock.read().boot_ms + DAEMON_MS_MAX
                    end = change if "settled" in change else end
                    if self._left.is_set():
                        return
                    if change.get("task"):
                        self._changed(turn, seen, change)
            except Unreachable:
                if clock.read().boot_ms > until_ms:
                    raise
            time.sleep(0 if end else _LOOK_S)
        if end:
            turn.said = said(turn, end, seen)
            # What was heard is kept: the editor may go as soon as it has heard it.
            self._keep()
            self.say(turn.said)

    def _changed(
        self, turn: Turn, seen: dict[str, dict[str, Any]], change: Mapping[str, Any]
    ) -> None:
        """A task moved: its tool call, the plan, and what a person is asked."""
        task, before = str(change["task"]), seen.get(str(change["task"]))
        if before is not None and all(before.get(k) == v for k, v in change.items()):
            return
        seen[task] = {**(before or {}), **change}
        state = str(seen[task].get("state", ""))
        where = str(seen[task].get("machine") or "")
        title = f"{slot(seen[task])}{f' on {where}' if where else ''}"
        text = str(seen[task].get("summary") or seen[task].get("reason") or "")
        update: dict[str, Any] = {
            "sessionUpdate": "tool_call" if before is None else "tool_call_update",
            "toolCallId": task,
            "title": title[:TITLE_CHARS],
            "kind": "execute",
            "status": _STATUS.get(state, "failed"),
        }
        if text:
            update["content"] = [{"type": "content", "content": {"type": "text", "text": text}}]
        self.editor.tell(update)
        self._show_plan(turn, seen)
        if state == "waiting" and (before or {}).get("state") != "waiting":
            # In a thread of its own: others may answer first, and the run goes on meanwhile.
            threading.Thread(target=self._decide, args=(turn, task), daemon=True).start()

    def _decide(self, turn: Turn, task: str) -> None:
        """Ask the person what a phase asks."""
        try:
            why = self.context.ask("why", {"task": task}, on=turn.owner)
            question = str(why.get("question") or "")
            title = f"{turn.name}: {question}"
            answer = self._answered(f"decide-{task}", title, fenced(question))
            if self._cancelled.is_set() or self._left.is_set():
                return
            if answer:
                self.context.ask("decide", {"task": task, "answer": answer})
            else:
                self._tell(f"{turn.name} still waits for you: {_decides(task)}.")
        except (EOFError, Conflict):
            # The editor is gone, or somebody else has answered.
            return
        except RpcError as error:
            self._tell(f"Your editor could not ask you ({error}): {_decides(task)}.")
        except MusterError as error:
            self._tell(f"{error}")

    def _show_plan(self, turn: Turn, seen: Mapping[str, Mapping[str, Any]]) -> None:
        states: dict[str, list[str]] = {}
        for task in seen.values():
            states.setdefault(str(task.get("phase")), []).append(str(task.get("state")))
        entries = [
            {"content": text, "priority": "medium", "status": standing(states.get(name, []))}
            for name, text in phases_of(turn.spec).items()
        ]
        self.editor.tell({"sessionUpdate": "plan", "entries": entries})

    def replay(self) -> Turn | None:
        """Tell the editor what was said before; the turn whose run nobody saw end."""
        for turn in self.session.turns:
            self.editor.tell(chunk("user_message_chunk", turn.asked))
            if turn.spec:
                self.say(fenced(turn.spec, "yaml"))
            if turn.said or not turn.run:
                self.say(turn.said or "It was not run.")
        last = self.session.turns[-1] if self.session.turns else None
        return last if last is not None and last.run and not last.said else None

    def say(self, text: str) -> None:
        self.editor.tell(chunk("agent_message_chunk", text))

    def _keep(self) -> None:
        """Write the session down. A disk that refuses ends no run: the person reads so, once."""
        try:
            acp_session.keep(self.context.home, self.session)
        except MusterError as error:
            if self._kept:
                self._tell(f"This session cannot be kept, so it ends with your editor: {error}.")
            self._kept = False


def repository_of(cwd: str, machines: list[dict[str, Any]], home: Home) -> str:
    """The fleet's repository that a folder is of, by its name; else the one that is the default."""
    known = {name for m in machines if m["facts"] for name in m["facts"]["repositories"]}
    for folder in (Path(cwd), *Path(cwd).parents):
        if (folder / ".git").exists():
            return folder.name if folder.name in known else home.default_repository()
    return home.default_repository()


def _decides(task: str) -> str:
    return f"`muster decide {task[:12]} yes` or `no` answers it"
