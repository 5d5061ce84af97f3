"""Messages of another machine wake live sessions of the real programs that rest.

As in test_live_sessions.py: Muster is put in by `muster install`, the model is scripted, and what
counts is what stood in the request that reached it.
"""

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import test_live_sessions as live
from tests.e2e import vendor
from tests.e2e.fleet import until
from tests.e2e.test_live_sessions import ARGV, LIMIT_S, Desk
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ground, desk = live.ground, live.desk
STREAM = ["--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
CLAUDE = pytest.mark.parametrize("desk", ["claude"], indirect=True)
DONE = "Do what the script says. @@script " + json.dumps([{"text": "the turn is over"}])


def waiting(desk: Desk) -> list[int]:
    """The programs that wait beside sessions of this home."""
    mark = str(desk.fleet["studio"].home.path / "plugins" / desk.name / "wait_script.py").encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found


def woken(desk: Desk, text: str) -> list[str]:
    """The requests to the model that have this text."""
    return [line for line in desk.requests.read_text().splitlines() if text in line]


class Headless:
    """Claude Code as a program drives it: prompts on a pipe, for as long as that is open."""

    def __init__(self, desk: Desk) -> None:
        desk.requests.write_text("")
        self.process = subprocess.Popen(
            [*ARGV["claude"], *STREAM], env=desk.env, cwd=desk.folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.lines: list[str] = []
        self.reading = threading.Thread(target=self._read, daemon=True)
        self.reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        body = {"role": "user", "content": [{"type": "text", "text": text}]}
        self.process.stdin.write(json.dumps({"type": "user", "message": body}) + "\n")
        self.process.stdin.flush()

    def results(self) -> int:
        return sum('"type":"result"' in line for line in self.lines)

    def end(self) -> float:
        """How long it takes to end when its input does, in seconds."""
        assert self.process.stdin is not None
        began = time.perf_counter()
        self.process.stdin.close()
        assert self.process.wait(LIMIT_S) == 0, "".join(self.lines)[-3000:]
        return time.perf_counter() - began


@pytest.fixture
def headless(desk: Desk) -> Iterator[Headless]:
    made = Headless(desk)
    yield made
    made.process.kill()
    made.process.wait()
    made.reading.join(LIMIT_S)
    assert made.process.stdout is not None
    made.process.stdout.close()


@proves("hook.wakes", "hook.shown-is-proven", "hook.wait-ends")
@CLAUDE
def test_a_headless_session_that_rests_is_woken_and_ends_when_its_input_does(desk, headless):
    headless.say(DONE)
    until(lambda: headless.results() == 1, "its turn is over", within_s=LIMIT_S)
    until(lambda: len(waiting(desk)) == 1, "one waits beside it", within_s=LIMIT_S)
    for number, text in enumerate(("wake up", "and once more"), 1):
        desk.send(text)
        until(lambda n=number: headless.results() == n + 1, "it was woken", within_s=LIMIT_S)
        until(lambda t=text: desk.state(t) == "read", "its sender sees it")
        assert len(woken(desk, text)) >= 1, headless.lines[-5:]
        until(lambda: len(waiting(desk)) == 1, "one waits again", within_s=LIMIT_S)
    first = [line for line in woken(desk, "wake up") if "and once more" not in line]
    assert len(first) == 1, "no message comes twice"
    assert json.dumps(json.loads(first[0])["said"]).count("wake up") == 1
    # Claude waits 30 s for whoever waits still.
    assert headless.end() < 25
    until(lambda: waiting(desk) == [], "nobody waits any more", within_s=LIMIT_S)


def _claude(desk: Desk) -> list[str]:
    known = {
        "hasCompletedOnboarding": True, "bypassPermissionsModeAccepted": True,
        "projects": {str(desk.folder): {"hasTrustDialogAccepted": True}},
        "customApiKeyResponses": {"approved": [vendor.KEY[-20:]], "rejected": []},
    }  # fmt: skip
    (desk.person / ".claude.json").write_text(json.dumps(known))
    return ["--model", "claude-sonnet-4-5"]


def _codex(desk: Desk) -> list[str]:
    config = desk.person / ".codex" / "config.toml"
    trusted = f'\n[projects."{desk.folder}"]\ntrust_level = "trusted"\n'
    config.write_text(config.read_text() + trusted)
    # Without the server that would go on when it is killed.
    return ["--no-daemon", DONE]


COMES_BACK: dict[str, Callable[[Desk], list[str]]] = {"claude": _claude, "codex": _codex}
# What a terminal is asked, and says.
ANSWERS = {
    b"\x1b[6n": b"\x1b[1;1R", b"\x1b[c": b"\x1b[?62c", b"\x1b[?u": b"\x1b[?0u",
    b"\x1b]11;?": b"\x1b]11;rgb:0000/0000/0000\x1b\\",
    b"\x1b]10;?": b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\",
}  # fmt: skip


class Terminal:
    """A program at a terminal, as a person has it who was there before."""

    def __init__(self, desk: Desk) -> None:
        desk.requests.write_text("")
        argv = COMES_BACK[desk.name](desk)
        program = shutil.which(desk.name, path=desk.env["PATH"])
        assert program is not None
        env = {**desk.env, "TERM": "xterm-256color"}
        pid, self.screen = pty.fork()
        if pid == 0:
            os.chdir(desk.folder)
            os.execve(program, [desk.name, *argv], env)
        self.pid = pid
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.shown = b""

    def until(self, what: Callable[[], object], text: str) -> None:
        """Look at the screen until it is so."""
        end = time.perf_counter() + LIMIT_S
        while not what():
            assert time.perf_counter() < end, f"{text}: {self.shown[-3000:]!r}"
            if select.select([self.screen], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    came = os.read(self.screen, 1 << 16)
                    self.shown += came
                    for question, answer in ANSWERS.items():
                        os.write(self.screen, answer if question in came else b"")

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(desk: Desk) -> Iterator[Terminal]:
    made = Terminal(desk)
    yield made
    made.kill()
    os.close(made.screen)


@proves("hook.wakes", "hook.shown-is-proven", "hook.wait-ends")
@CLAUDE
def test_a_session_at_a_terminal_is_woken_and_nobody_waits_when_it_is_killed(desk, terminal):
    terminal.until(lambda: len(waiting(desk)) == 1, "one waits beside it before its first prompt")
    terminal.until(lambda: "❯".encode() in terminal.shown, "it waits for a prompt")
    desk.send("before any prompt")
    terminal.until(lambda: woken(desk, "before any prompt"), "it was woken")
    terminal.until(lambda: desk.state("before any prompt") == "read", "its sender sees it")
    terminal.until(lambda: len(waiting(desk)) == 1, "one waits again")
    terminal.kill()
    until(lambda: waiting(desk) == [], "nobody waits any more", within_s=LIMIT_S)
    desk.send("nobody is there")
    assert desk.state("nobody is there") == "stored"


@proves("hook.wait-ends")
@CLAUDE
def test_what_answers_one_prompt_is_not_held_up(desk):
    desk.end(desk.begin({"text": "done"}))
    assert waiting(desk) == []
    # Claude would wait for who waits, for 30 s at its end, and say so.
    process = desk.begin({"tool": "shell", "command": "touch began; sleep 0.5"}, {"text": "done"})
    until((desk.folder / "began").exists, "it works", within_s=LIMIT_S)
    assert waiting(desk) == []
    desk.end(process)


@proves("hook.wakes", "hook.shown-is-proven", "hook.wait-ends")
@pytest.mark.parametrize("desk", ["codex"], indirect=True)
def test_a_session_of_codex_that_rests_is_woken_by_a_prompt_without_a_text(desk, terminal):
    terminal.until(lambda: len(woken(desk, "the turn is over")) >= 1, "it has its first prompt")
    terminal.until(lambda: len(waiting(desk)) == 1, "one waits beside it")
    desk.send("wake up")
    terminal.until(lambda: woken(desk, "wake up"), "it was woken")
    terminal.until(lambda: desk.state("wake up") == "read", "its sender sees it")
    terminal.until(lambda: len(waiting(desk)) == 1, "one waits again")
    terminal.kill()
    until(lambda: waiting(desk) == [], "nobody waits any more", within_s=LIMIT_S)


# What opencode does with a plugin, and no more of it: RAN with 1.18.33, `opencode serve` needs half
# a minute to more than one for its first session where its vendor's address does not answer.
OPENCODE = """
import { Muster } from "PLUGIN"
import { createInterface } from "node:readline"
const say = (each) => process.stdout.write(JSON.stringify(each) + "\\n")
const client = { session: { promptAsync: async ({ path, body }) => {
  const output = { message: { id: "msg_1", sessionID: path.id }, parts: body.parts }
  await plugin["chat.message"]({ sessionID: path.id }, output)
  say({ prompt: body.parts[0].text })
} } }
const plugin = await Muster({ client, directory: process.cwd() })
for await (const line of createInterface({ input: process.stdin })) {
  if (line !== "idle") break
  await plugin.event({ event: { type: "session.idle", properties: { sessionID: "ses_1" } } })
  say({ rests: true })
}
"""


@proves("hook.wakes", "hook.shown-is-proven", "hook.wait-ends")
@pytest.mark.parametrize("desk", ["opencode"], indirect=True)
def test_the_plugin_in_opencode_is_told_what_wakes_its_session_and_ends_with_it(desk):
    (plugin,) = (desk.person / ".config" / "opencode" / "plugins").glob("*.js")
    program = desk.folder / "opencode.mjs"
    program.write_text(OPENCODE.replace("PLUGIN", plugin.as_uri()))
    with subprocess.Popen(
        ["node", program], env=desk.env, cwd=desk.folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("wake up", "and once more"):
            process.stdin.write("idle\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"rests": True}
            until(lambda: len(waiting(desk)) == 1, "one waits beside it", within_s=LIMIT_S)
            desk.send(text)
            prompt = json.loads(process.stdout.readline())["prompt"]
            assert text in prompt
            until(lambda t=text: desk.state(t) == "read", "its sender sees it")
        process.stdin.write("idle\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"rests": True}
        # It ends although one waits, and that one with it.
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0
    until(lambda: waiting(desk) == [], "nobody waits any more", within_s=LIMIT_S)
