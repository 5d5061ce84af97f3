"""Messages of another machine in live sessions of the real programs, as their persons start them.

Muster is put into each program by `muster install`, and the model is scripted: what counts is what
stood in the request that reached it, and what the sender sees proven. One thing alone is otherwise
than a person has it: a hook waits longer for the daemon than 50 ms, for this machine does five
things at once. That limit has tests of its own (tests/agent/plugin).
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import muster
from tests.e2e import install_agents, vendor
from tests.e2e.agents import agents_of, scripted_model
from tests.e2e.fleet import Fleet, until
from tests.e2e.stage import ALL, every
from tests.e2e.test_same_files import Program
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PROGRAMS = ALL
# Programs whose every event is looked at each time; of the others those of the long form.
LOOKED_AT = pytest.mark.parametrize("desk", every("claude", "codex"), indirect=True)
# Programs differ most in how a hook makes a turn go on.
ENDS = pytest.mark.parametrize("desk", every("claude", "codex", "gemini", "copilot"), indirect=True)
# Codex calls no hook for a patch that its model applies in a shell, as the scripted one does.
WRITES = pytest.mark.parametrize(
    "desk", [name for name in every("claude") if name != "codex"], indirect=True
)
ARGV: dict[str, list[str]] = {
    "claude": ["claude", "-p", "--permission-mode", "bypassPermissions", "--model",
               "claude-sonnet-4-5"],
    "codex": ["codex", "exec", "--json", "--skip-git-repo-check",
              "--dangerously-bypass-approvals-and-sandbox"],
    "gemini": ["gemini", "--approval-mode", "yolo", "--skip-trust", "-p"],
    "opencode": ["opencode", "run", "--format", "json", "--auto"],
    "qwen": ["qwen", "--auth-type", "openai", "--yolo", "-p"],
    "copilot": ["copilot", "--allow-all-tools", "-p"],
}  # fmt: skip
START, PROMPT, TOOL = "SessionStart", "UserPromptSubmit", "PostToolUse"
LIMIT_S = 90


class Desk:
    """A person at studio, with one program and its home, and the hub of another person."""

    def __init__(self, fleet: Fleet, name: str, url: str, requests: Path) -> None:
        self.fleet, self.name, self.requests = fleet, name, requests
        self.person = fleet.root / f"{name}-person"
        self.folder = fleet.root / f"{name}-shop"
        self.folder.mkdir()
        self.person.mkdir()
        subprocess.run(["git", "init", "-q", "-b", "trunk", str(self.folder)], check=True)
        paths = install_agents.programs_path(install_agents.folder())
        self.env = {
            "PATH": paths + os.pathsep + os.environ["PATH"], "HOME": str(self.person),
            "TERM": "dumb", "LANG": "C.UTF-8", "NO_PROXY": "127.0.0.1", "IS_SANDBOX": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            **vendor.settled(name, url, self.person),
        }  # fmt: skip

    def muster(self, *words: str) -> Any:
        said = muster(self.fleet["studio"].home.path, *words, "--json", HOME=str(self.person))
        assert said.code == 0, said
        return json.loads(said.out.strip().splitlines()[-1])

    def send(self, text: str, to: str = "") -> str:
        to = to or f"{self.name}@studio"
        sent = self.fleet.hub.order("send", to, {"to": to, "text": [text]})
        until(lambda: self.state(text) != "waiting", "the message is at studio")
        return str(sent["message"])

    @property
    def server(self) -> str:
        """What this home is called in programs."""
        digits = hashlib.sha256(os.fsencode(self.fleet["studio"].home.path)).hexdigest()
        return f"muster-{digits[:6]}"

    def answers(self, text: str) -> list[Any]:
        return [each for each in self.fleet.hub.ask("inbox") if each["text"] == text]

    def state(self, text: str) -> str:
        rows = [each for each in self.fleet.hub.ask("sent") if each["text"] == text]
        return str(rows[-1]["to"][0]["state"])

    def without(self, *events: str) -> None:
        """The program as if it had no such hooks."""
        own = self.fleet["studio"].home.path / "plugins" / self.name
        for file in (own / "muster" / "hooks" / "hooks.json", self.person / ".codex/hooks.json"):
            if file.exists():
                known = json.loads(file.read_text())
                known["hooks"] = {k: v for k, v in known["hooks"].items() if k not in events}
                file.write_text(json.dumps(known))

    def begin(self, *steps: dict[str, Any]) -> "subprocess.Popen[str]":
        self.requests.write_text("")
        prompt = f"Do what the script says. @@script {json.dumps(steps)}"
        # opencode puts quotes around what stands in its arguments.
        told = self.fleet.root / "prompt"
        told.write_text(prompt if self.name == "opencode" else "")
        argv = [*ARGV[self.name], *([] if self.name == "opencode" else [prompt])]
        with told.open() as given:
            return subprocess.Popen(
                argv, env=self.env, cwd=self.folder, stdin=given, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip

    def end(self, process: "subprocess.Popen[str]") -> str:
        said, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, said
        return said

    def asked(self) -> list[str]:
        """What the model was asked, request by request; not those for a title."""
        lines = self.requests.read_text().splitlines()
        return [line for line in lines if "Do what the script says" in line]

    def waits(self) -> dict[str, Any]:
        """A use of a tool that goes on until `go` is there, and says by `began` that it began."""
        return {"tool": "shell", "command": "touch began; until [ -e go ]; do sleep 0.1; done"}

    def during(self, text: str) -> None:
        """Send it while the tool runs."""
        until((self.folder / "began").exists, "the tool began", within_s=LIMIT_S)
        self.send(text)
        (self.folder / "go").touch()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, str, Path]]:
    folder = tmp_path_factory.mktemp("model")
    with scripted_model(folder) as url, Fleet(["hub", "studio"]) as fleet:
        studio = fleet["studio"]
        studio.env["PATH"] = os.pathsep.join(
            [install_agents.programs_path(install_agents.folder()),
             fleet.environment(studio)["PATH"]]
        )  # fmt: skip
        fleet.start()
        there = {n for n in PROGRAMS if not install_agents.missing(install_agents.folder(), n)}
        until(lambda: there <= agents_of(fleet, "studio"), "studio's agents are known")
        yield fleet, url, folder / "requests"


@pytest.fixture
def desk(request: Any, ground: tuple[Fleet, str, Path]) -> Iterator[Desk]:
    absent = install_agents.missing(install_agents.folder(), request.param)
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed: run tests/e2e/install_agents.py")
    fleet, url, requests = ground
    made = Desk(fleet, request.param, url, requests)
    installed = made.muster("install", request.param, "--yes")
    assert installed["done"], installed
    hook = fleet["studio"].home.path / "plugins" / request.param / "hook.py"
    text = hook.read_text()
    assert "LIMIT_S = 0.05" in text
    hook.write_text(text.replace("LIMIT_S = 0.05", "LIMIT_S = 10.0"))
    yield made
    made.muster("uninstall", request.param, "--yes")
    shutil.rmtree(made.person)
    shutil.rmtree(made.folder)


@proves("install.messages-reach-the-model", "hook.shown-is-proven", "install.tools-are-listed")
@pytest.mark.parametrize("desk", PROGRAMS, indirect=True)
def test_a_message_comes_at_the_start_and_after_a_tool_and_the_answer_is_of_that_session(desk):
    desk.send("before the start")
    answer = {"to": "hub", "text": f"done by {desk.name}"}
    tool = {
        "tool": "mcp", "server": desk.server, "name": "send", "arguments": answer, "patient": True,
        # Claude hides a tool from its model whose server came after the first request.
        **({"called": f"mcp__plugin_{desk.server}_muster__send"} if desk.name == "claude" else {}),
    }  # fmt: skip
    process = desk.begin(desk.waits(), tool, {"text": "done"})
    desk.during("while it worked")
    said = desk.end(process)
    asked = desk.asked()
    assert "before the start" in asked[0], said
    assert not any("while it worked" in each for each in asked[:1])
    assert any("while it worked" in each for each in asked[1:]), said
    assert (desk.state("before the start"), desk.state("while it worked")) == ("read", "read")
    (live,) = [s for s in desk.fleet["studio"].ask("sessions") if s["project"] == str(desk.folder)]
    assert (live["agent"], live["branch"]) == (desk.name, "trunk")
    (got,) = until(lambda: desk.answers(answer["text"]), lambda: f"the answer arrived: {said}")
    assert (got["from"], got["session"]) == (f"{desk.name}@studio", live["session"]), got


@proves("install.messages-reach-the-model", "hook.shown-is-proven")
@LOOKED_AT
def test_a_message_is_in_the_request_with_the_prompt(desk):
    desk.without(START)
    desk.send("with the prompt")
    said = desk.end(desk.begin({"tool": "shell", "command": "true"}, {"text": "done"}))
    assert "with the prompt" in desk.asked()[0], said
    assert desk.state("with the prompt") == "read"


@proves("install.messages-reach-the-model", "hook.turns-end")
@ENDS
def test_a_message_at_the_end_of_a_turn_makes_it_go_on_once(desk):
    desk.without(TOOL)
    process = desk.begin(desk.waits(), {"text": "done"})
    desk.during("one thing more")
    said = desk.end(process)
    asked = desk.asked()
    assert "one thing more" in asked[-1], said
    assert len([each for each in asked if "one thing more" in each]) == 1, said
    assert desk.state("one thing more") == "read"


@proves("hook.tells-what-is-new")
@LOOKED_AT
def test_what_another_machine_learned_meanwhile_is_in_the_request_after_a_tool(desk):
    hub, studio, key = desk.fleet.hub, desk.fleet["studio"], f"{desk.name}/port"
    process = desk.begin(desk.waits(), {"tool": "shell", "command": "true"}, {"text": "done"})
    until((desk.folder / "began").exists, "the tool began", within_s=LIMIT_S)
    hub.order("remember", key, {"key": key, "text": ["it is 7450"]})
    until(lambda: key in {each["key"] for each in studio.ask("memories", {})}, "studio knows it")
    (desk.folder / "go").touch()
    said = desk.end(process)
    asked = desk.asked()
    assert "it is 7450" not in asked[0]
    assert any(f"New in memory, {key} (active)" in each for each in asked[1:]), said
    # It is in this machine's journal that this session was shown it.
    (known,) = studio.ask("memory", {"key": key})
    assert [each["actor"] for each in known["shown_to"]] == [f"{desk.name}@studio"]


@proves("hook.collisions-across-machines")
@WRITES
def test_who_else_edits_the_file_on_another_machine_is_in_the_request_after_a_tool(desk):
    origin = "git@example.com:acme/shop.git"
    subprocess.run(["git", "-C", str(desk.folder), "remote", "add", "origin", origin], check=True)
    other = Program(desk.fleet.hub, desk.fleet.root / f"{desk.name}-copy", origin)
    # Each program has a file of its own: who wrote one a minute ago is told of it, too.
    name = f"{desk.name}.py"
    other.edits(name)
    write = {"tool": "write", "path": str(desk.folder / name), "content": "x = 1\n"}
    process = desk.begin(write, desk.waits(), {"text": "done"})
    until((desk.folder / "began").exists, "the tool began", within_s=LIMIT_S)
    try:
        # It is told last: when it is, the program's daemon knows of both.
        told = until(lambda: other.hook("UserPromptSubmit"), "the other session is told")
    finally:
        (desk.folder / "go").touch()
        said = desk.end(process)
    asked = desk.asked()
    assert f"[muster] {desk.name}@studio#" in told
    assert not any(f"{other.address} wrote {name}" in each for each in asked[:2])
    assert f"{other.address} wrote {name}, too" in asked[-1], said


@proves("hook.delays-nothing")
@LOOKED_AT
def test_without_a_daemon_the_program_works_as_before(desk):
    studio = desk.fleet["studio"]
    studio.stop()
    try:
        said = desk.end(desk.begin({"tool": "shell", "command": "true"}, {"text": "all is well"}))
    finally:
        studio.start()
    assert "all is well" in said
