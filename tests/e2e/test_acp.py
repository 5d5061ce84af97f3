"""`muster acp`, as an editor starts it: real daemons, and our own ACP client at the other end."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys

import pytest

from muster.agent.rpc import Peer, RpcError
from tests.e2e import agents
from tests.e2e.fleet import ROOT, Fleet, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PLAN = """\
muster: 1
name: planned
repo: main
phases:
  write:
    agent: shell
    do: echo "as $MUSTER_RUN_NAME said" > planned.txt
    deliver: [planned.txt]
"""
# It waits for a file that the test makes.
HELD = PLAN.replace("name: planned", "name: held").replace(
    "    do: echo", "    do: while ! test -e {gate}; do sleep 0.2; done; echo"
)
ASKS = (
    PLAN.replace("name: planned", "name: asks")
    + "  word:\n    after: [write]\n    by: human\n    do: Is it good?\n"
)


def intention(plan):
    text = f"Here is the plan.\n\n```yaml\n{plan}```\nGood luck!"
    return f"Write a file. @@script {json.dumps([{'text': text}])}"


@pytest.fixture(scope="module")
def fleet():
    with agents.planning(repository=True) as made:
        yield made


@pytest.fixture
def desk(tmp_path):
    """A folder of a person, of the fleet's repository `main` by its name."""
    folder = tmp_path / "main"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


class Editor:
    """An editor with one agent, which answers what it is asked with these words."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.updates, self.asked = [], []
        self.came = asyncio.Event()

    def of(self, kind):
        return [each for each in self.updates if each["sessionUpdate"] == kind]

    def text(self, kind="agent_message_chunk"):
        return "".join(each["content"]["text"] for each in self.of(kind))

    def works(self):
        return any(each["status"] == "in_progress" for each in self.of("tool_call_update"))

    def _told(self, method, params):
        assert method == "session/update", method
        self.updates.append(params["update"])
        self.came.set()

    async def _permission(self, method, params):
        assert method == "session/request_permission", method
        self.asked.append(params)
        self.came.set()
        if not self.answers:
            await asyncio.sleep(600)
        return {"outcome": {"outcome": "selected", "optionId": self.answers.pop(0)}}

    async def until(self, true):
        async with asyncio.timeout(90):
            while not true():
                self.came.clear()
                await self.came.wait()


@contextlib.asynccontextmanager
async def connected(fleet, editor):
    """The agent's end of `muster acp`, and its process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "muster", "acp",
        env=agents.typing_environment(fleet, fleet.hub), cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    peer = Peer(process.stdout, process.stdin, editor._permission, editor._told)
    listening = asyncio.create_task(peer.listen())
    try:
        asked = {"protocolVersion": 1, "clientCapabilities": {}}
        said = await peer.ask("initialize", asked)
        assert said["protocolVersion"] == 1
        assert said["agentCapabilities"]["loadSession"] is True
        yield peer, process
    finally:
        with contextlib.suppress(ProcessLookupError, ConnectionError):
            process.stdin.close()
        async with asyncio.timeout(30):
            code = await process.wait()
        listening.cancel()
        assert code in (0, -9), code


async def opened(peer, folder):
    return (await peer.ask("session/new", {"cwd": str(folder), "mcpServers": []}))["sessionId"]


def asks(session, text):
    return {"sessionId": session, "prompt": [{"type": "text", "text": text}]}


def runs(fleet, name):
    return [r for r in fleet.hub.ask("runs") if r["name"] == name]


@proves("cli.acp")
def test_an_editor_sees_the_plan_says_yes_and_is_told_what_came_of_it(fleet, desk):
    async def talk():
        editor = Editor("yes")
        async with connected(fleet, editor) as (peer, _):
            session = await opened(peer, desk)
            answer = await peer.ask("session/prompt", asks(session, intention(PLAN)))
            return editor, answer

    before = len(runs(fleet, "planned"))
    editor, answer = asyncio.run(talk())
    assert answer == {"stopReason": "end_turn"}
    assert PLAN in editor.text()
    (asked,) = editor.asked
    assert asked["toolCall"]["title"] == "Run planned in main on the fleet"
    assert PLAN in json.dumps(asked).encode().decode("unicode_escape")
    assert len(runs(fleet, "planned")) == before + 1
    first, *_, last = editor.of("plan")
    assert first["entries"][0]["content"].startswith("write (shell): echo")
    assert (first["entries"][0]["status"], last["entries"][0]["status"]) == ("pending", "completed")
    calls = editor.of("tool_call") + editor.of("tool_call_update")
    assert calls[-1]["status"] == "completed"
    assert "planned is done" in editor.text()
    assert "muster land" in editor.text()
    assert "planner is planning" in editor.text("agent_thought_chunk")


@proves("cli.acp")
def test_a_no_in_the_editor_runs_nothing_and_a_persons_word_is_asked_there(fleet, desk):
    async def talk():
        editor = Editor("no", "yes", "no")
        async with connected(fleet, editor) as (peer, _):
            session = await opened(peer, desk)
            first = await peer.ask("session/prompt", asks(session, intention(ASKS)))
            count = len(runs(fleet, "asks"))
            second = await peer.ask("session/prompt", asks(session, intention(ASKS)))
            return editor, first, count, second

    editor, first, count, second = asyncio.run(talk())
    assert (first["stopReason"], count, second["stopReason"]) == ("end_turn", 0, "end_turn")
    assert "Nothing was run." in editor.text()
    assert "Is it good?" in editor.asked[2]["toolCall"]["title"]
    (run,) = runs(fleet, "asks")
    assert run["state"] == "failed", "the person said no to what the phase asked"
    assert "asks is failed" in editor.text()


@proves("cli.acp")
def test_a_cancel_in_the_editor_cancels_the_run(fleet, desk, tmp_path):
    async def talk():
        editor = Editor("yes")
        async with connected(fleet, editor) as (peer, _):
            session = await opened(peer, desk)
            plan = HELD.format(gate=tmp_path / "never").replace("name: held", "name: unwanted")
            turn = asyncio.create_task(peer.ask("session/prompt", asks(session, intention(plan))))
            await editor.until(editor.works)
            peer.tell("session/cancel", {"sessionId": session})
            return await turn

    assert asyncio.run(talk()) == {"stopReason": "cancelled"}
    (run,) = runs(fleet, "unwanted")
    assert run["state"] == "cancelled"


@proves("cli.acp-stop-outlives-its-editor")
def test_a_stop_that_nobody_heard_is_heard_when_the_editor_is_gone(fleet, desk, tmp_path):
    stops = fleet.hub.home.path / "acp" / "stops"

    async def talk():
        editor = Editor("yes")
        async with connected(fleet, editor) as (peer, process):
            session = await opened(peer, desk)
            plan = HELD.format(gate=tmp_path / "never").replace("name: held", "name: unheard")
            turn = asyncio.create_task(peer.ask("session/prompt", asks(session, intention(plan))))
            await editor.until(editor.works)
            await asyncio.to_thread(fleet.hub.stop)
            peer.tell("session/cancel", {"sessionId": session})
            await editor.until(lambda: "also when your editor is closed" in editor.text())
            await asyncio.to_thread(until, (stops / "lock").exists, "another process says it")
            process.kill()
            with contextlib.suppress(EOFError, RpcError):
                await turn

    asyncio.run(talk())
    fleet.hub.start()
    until(lambda: runs(fleet, "unheard")[0]["state"] == "cancelled", "the Stop is heard")
    until(lambda: not list(stops.glob("*.json")), "it is struck out")


@proves("cli.acp")
def test_a_cancel_while_an_agent_plans_ends_the_planning(fleet, desk, tmp_path):
    async def talk():
        editor = Editor()
        async with connected(fleet, editor) as (peer, _):
            session = await opened(peer, desk)
            words = f"Plan. @@script {json.dumps([{'hold': str(tmp_path / 'held')}])}"
            turn = asyncio.create_task(peer.ask("session/prompt", asks(session, words)))
            await asyncio.to_thread(until, (tmp_path / "held").exists, "it plans")
            peer.tell("session/cancel", {"sessionId": session})
            return await turn

    assert asyncio.run(talk()) == {"stopReason": "cancelled"}
    planned = max(runs(fleet, "plan"), key=lambda run: run["opened_ms"])
    assert planned["state"] == "cancelled"


@proves("cli.acp-goes-on")
def test_a_session_goes_on_after_its_editor_and_the_daemon_were_started_anew(fleet, desk, tmp_path):
    gate = tmp_path / "gate"

    async def begin():
        editor = Editor("yes")
        async with connected(fleet, editor) as (peer, process):
            session = await opened(peer, desk)
            words = intention(HELD.format(gate=gate))
            turn = asyncio.create_task(peer.ask("session/prompt", asks(session, words)))
            await editor.until(editor.works)
            process.kill()
            with pytest.raises(EOFError):
                await turn
            return session

    session = asyncio.run(begin())
    (run,) = runs(fleet, "held")
    assert run["state"] == "open", "an editor that goes away ends no run"

    async def go_on():
        editor = Editor()
        async with connected(fleet, editor) as (peer, _):
            await peer.ask(
                "session/load", {"sessionId": session, "cwd": str(desk), "mcpServers": []}
            )
            await editor.until(lambda: editor.of("tool_call"))
            await asyncio.to_thread(fleet.hub.stop)
            await asyncio.to_thread(fleet.hub.start)
            gate.touch()
            await editor.until(lambda: "held is done" in editor.text())
            return editor

    editor = asyncio.run(go_on())
    assert editor.text("user_message_chunk").startswith("Write a file.")
    assert "name: held" in editor.text()

    async def again():
        editor = Editor()
        async with connected(fleet, editor) as (peer, _):
            await peer.ask(
                "session/load", {"sessionId": session, "cwd": str(desk), "mcpServers": []}
            )
            await editor.until(lambda: "held is done" in editor.text())
            return editor

    assert asyncio.run(again()).of("tool_call") == [], "what has ended is told, not followed"


@proves("cli.acp")
def test_what_is_wrong_is_an_error_that_says_so(fleet, desk):
    async def talk():
        editor, said = Editor(), {}

        async def refused(name, method, params):
            with pytest.raises(RpcError) as told:
                await peer.ask(method, params)
            said[name] = (told.value.code, str(told.value))

        async with connected(fleet, editor) as (peer, process):
            process.stdin.write(b"no json\n[[[[\n{}\n")
            session = await opened(peer, desk)
            await refused("method", "session/fly", {})
            await refused("cwd", "session/new", {"cwd": "here"})
            await refused("unknown", "session/prompt", asks("0" * 32, "x"))
            for id in ("../seed", "0" * 32):
                await refused(id, "session/load", {"sessionId": id, "cwd": "/"})
            await refused("empty", "session/prompt", {"sessionId": session, "prompt": []})
            await refused("large", "session/prompt", asks(session, "x" * 70_000))
            text = "I would rather not."
            words = f"Plan. @@script {json.dumps([{'text': text}])}"
            await refused("no plan", "session/prompt", asks(session, words))
            return said

    said = asyncio.run(talk())
    assert said["method"] == (-32601, "there is no session/fly here")
    assert said["cwd"][0] == -32602
    assert said["unknown"][0] == said["../seed"][0] == said["0" * 32][0] == -32002
    assert said["empty"] == (-32602, "a prompt needs a text")
    assert said["large"][0] == -32602
    assert "no plan that can run" in said["no plan"][1]


@proves("cli.acp")
def test_without_a_daemon_an_editor_hears_how_to_start_it(tmp_path):
    with Fleet(["hub"]) as alone:

        async def talk():
            async with connected(alone, Editor()) as (peer, _):
                with pytest.raises(RpcError, match="`muster up --detach` starts it"):
                    await opened(peer, tmp_path)

        asyncio.run(talk())


@proves("cli.acp")
def test_a_session_of_an_editor_is_the_persons_alone(fleet):
    folder = fleet.hub.home.path / "acp"
    modes = {os.stat(file).st_mode & 0o077 for file in [folder, *folder.iterdir()]}
    assert modes == {0}
