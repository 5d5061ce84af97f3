"""Every example of every help page, typed into a shell in a fleet of three real homes.

An example is typed as it stands, comments and all. Where it names what only this fleet knows (a
task, an address), its name is put in its place: `WORDS` for what any example may name, and a
`Row` for what one example needs before it. An example without a row is typed on studio, in the
order of the help page, and ends with 0: a verb that comes later is tried without a line here.

What is listed in `NOT_RUN` needs what no machine for tests has; each says what, and there are few.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from muster.cli import call
from muster.errors import Conflict, NotFound, Unreachable
from muster.fleet import certificate
from muster.fleet.machine import Authority, Identity
from muster.fleet.peer import Door, write_card
from muster.fleet.record import open_record, sign_binding, sign_record
from muster.verbs.table import VERBS
from tests.cli.terminal import Terminal
from tests.cli.world import Said, environment, muster, unenclosed
from tests.e2e import scripted_systemd
from tests.e2e.fleet import ROOT, now_ms, until
from tests.ports import free_port
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LIMIT_S = 90
SHOWN: Final = [verb for verb in VERBS.values() if not verb.hidden]
EXAMPLES: Final = [line for verb in SHOWN for line in verb.examples]
# What cannot be typed here, and why.
NOT_RUN: Final[dict[str, str]] = {
    "muster ask 'mend the flaky test' --edit": "it opens the person's editor; a test of the plan does",
    "muster land 1ae7 --pr": "it needs a forge, and the forge's own program logged in there",
}
NOT_RUN_MAX: Final = 6

NOTES: Final = """\
muster: 1
name: notes
repo: main
inputs: {topic: all of it}
phases:
  write:
    agent: shell
    do: echo "$MUSTER_INPUTS_TOPIC" > report.txt
    deliver: report.txt
"""
REVIEW: Final = NOTES.replace("name: notes", "name: review\non: push")
ASLEEP: Final = "    agent: shell\n    do: sleep 300\n    check: 'true'\n"
PLANNED: Final = "muster: 1\nname: said\nphases:\n  only:\n    agent: shell\n    do: echo hi\n    check: 'true'\n"


class World:
    """Homes in one folder, the person's own folder, and what was made so far under its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.desk, self.user = folder / "desk", folder / "user"
        # A terminal on another machine is this shell.
        self.person = {"HOME": str(self.user), "SHELL": "/bin/sh"}
        self.address = {name: f"127.0.0.1:{free_port()}" for name in ("studio", "build")}
        self.words: dict[str, str] = {
            "studio.local:7447": self.address["studio"],
            "build.local:7447": self.address["build"],
            "nas.local:7447": "127.0.0.1:7",
            "192.168.1.20:7447": self.address["build"],
            "https://example.org/site.git": str(self.user / "src" / "project"),
        }
        self.said: dict[str, Said] = {}
        self.desk.mkdir()
        self.systemd = scripted_systemd.put(self.desk)
        (self.user / "src" / "project").mkdir(parents=True)
        (self.desk / "notes.yaml").write_text(NOTES)
        (self.desk / "review.yaml").write_text(REVIEW)
        source = self.user / "src" / "project"
        (source / "README").write_text("hello\n")
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(source)]
        for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "one"]):
            subprocess.run([*git, *words], check=True)

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    def env(self, name: str) -> dict[str, str]:
        bins = os.pathsep.join([str(Path(sys.executable).parent), self.systemd["PATH"]])
        return environment(self[name], **{**self.person, **self.systemd, "PATH": bins})

    def ok(self, name: str, *words: str) -> Any:
        """What a command answers as JSON; it ends with 0."""
        said = muster(self[name], *words, "--json", **self.person)
        assert said.code == 0, (words, said)
        lines = said.out.strip().splitlines()
        return json.loads(lines[-1]) if lines else None

    def listen(self, name: str) -> None:
        """On loopback only, whatever the example says."""
        unenclosed(self[name])
        config = self[name] / "config.toml"
        text, changed = re.subn(
            r'(?m)^(channel\.http\.listen) = "[^"]*"', rf'\1 = "{self.address[name]}"',
            config.read_text(),
        )  # fmt: skip
        assert changed == 1
        config.write_text(text)

    def up(self, name: str) -> None:
        # Its agents are scripts of the tests, which no sandbox shows.
        unenclosed(self[name])
        self.ok(name, "up", "--detach")

    def run(self, name: str, phases: str, *more: str) -> tuple[str, str]:
        """A run that was begun, and its first task."""
        spec = self.desk / f"{name}.yaml"
        spec.write_text(f"muster: 1\nname: {name}\nphases:\n{phases}")
        run = str(self.ok("studio", "run", str(spec), "--detach", "--again", *more)["run"])
        rows = until(
            lambda: self.ok("studio", "tasks", "--run", run, "--all"), f"{name} has a task"
        )
        return run, str(rows[0]["task"])

    def stands(self, task: str, state: str) -> str:
        """Wait until a task is so."""
        rows = lambda: self.ok("studio", "tasks", "--all")  # noqa: E731
        until(lambda: any(r["task"] == task and r["state"] == state for r in rows()), state)
        return task

    def type(self, line: str, row: "Row") -> Said:
        """An example as a person types it on a machine of the fleet."""
        for word, meant in self.words.items():
            line = re.sub(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", lambda _, m=meant: m, line)
        env, words = self.env(row.at), ["bash", "-c", line]
        if row.ends:
            with Terminal(words, env, columns=120, cwd=str(self.desk)) as terminal:
                shown = row.ends(terminal) or ""
                code = terminal.end(LIMIT_S)
                return Said(shown + terminal.text, "", code)
        done = subprocess.run(
            words, env=env, cwd=self.desk, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
        return Said(done.stdout, done.stderr, done.returncode)

    def end(self) -> None:
        for home in self.folder.iterdir():
            if (home / "run" / "pid").exists():
                muster(home, "down")


Given = Callable[[World], Mapping[str, str] | None]


class Row(NamedTuple):
    """What an example needs: what is made before it (the words that then mean something else),
    the machine on which it is typed, what the person types while it goes on, and its exit code.
    """

    given: Given = lambda world: None
    at: str = "studio"
    ends: Callable[[Terminal], str | None] | None = None
    code: int = 0


def _key_file(world: World) -> None:
    (world.user / ".ssh").mkdir(exist_ok=True)
    (world.user / ".ssh" / "deploy").write_text("a-key-of-the-tests\n")


def types_a_value(terminal: Terminal) -> str:
    shown = terminal.see("DEPLOY_TOKEN: ")
    terminal.type("a-value-of-the-tests\n")
    return shown


def types_an_address(terminal: Terminal) -> str:
    shown = terminal.see("address of ")
    terminal.type("json://127.0.0.1:9/\n")
    return shown


def says_yes(terminal: Terminal) -> str:
    return _answers(terminal, "[y/N")


def agrees(terminal: Terminal) -> str:
    return _answers(terminal, "(y/N)")


def _answers(terminal: Terminal, question: str) -> str:
    shown = terminal.see(question)
    terminal.type("y\n")
    return shown


def logs_out(terminal: Terminal) -> str:
    """Once a shell there is ready for it."""
    shown = terminal.see("# " if os.getuid() == 0 else "$ ")
    terminal.type("exit 0\r")
    return shown


def leaves(what: str) -> Callable[[Terminal], str]:
    """Ctrl-C once this was shown."""

    def ends(terminal: Terminal) -> str:
        shown = terminal.see(what)
        terminal.type("\x03")
        return shown

    return ends


# --- what comes first: the fleet itself -----------------------------------------------------------


def _studio_is_up(world: World) -> None:
    world.listen("studio")
    planner = {
        "title": "Planner",
        "protocol": "acp",
        "command": [sys.executable, "-m", "tests.e2e.scripted_agent"],
        "program": sys.executable,
        "version_probe": [sys.executable, "--version"],
        "env": {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
    }
    found = json.dumps({"version": 1, "agents": {"planner": planner}})
    (world["studio"] / "agents.json").write_text(found)


def _invited(world: World) -> Mapping[str, str]:
    string = re.search(r"muster1\.\S+", world.said["muster invite build"].out)
    assert string
    return {"muster1.….studio.local:7447#build": string[0]}


def _three_are_up(world: World) -> None:
    world.listen("build")
    world.up("build")
    string = world.ok("studio", "invite", "laptop")["invitation"]
    world.ok("laptop", "join", string, "--label", "portable")
    world.up("laptop")
    for name in ("build", "laptop"):
        world.ok("studio", "send", name, "welcome", "--wait")


def _key_of_bob(world: World) -> Mapping[str, str]:
    return {
        "KEY": world.said["muster operator key    # where bob will order: prints a key"].out.strip()
    }


def _string_for_laptop(world: World) -> Mapping[str, str]:
    string = re.search(r"muster-device1\.\S+", next(
        said.out for line, said in world.said.items() if line.startswith("muster device add laptop")
    ))  # fmt: skip
    assert string
    return {"muster-device1.…": string[0]}


def _work(world: World) -> None:
    """What any example may name: a run that is done, its task, a message."""
    done = world.ok("studio", "run", str(world.desk / "notes.yaml"))
    rows = world.ok("studio", "tasks", "--all")
    task = next(row["task"] for row in rows if row["run"] == done["run"])
    message = world.ok("laptop", "send", "studio", "who moved the tests?", "--wait")["message"]
    for word, meant in {"1ae7": done["run"], "7d5e": task, "0827": message}.items():
        world.words[word] = str(meant)[:12]


FIRST: Final[dict[str, Row]] = {
    "muster init --name studio --operator alice --address studio.local:7447": Row(),
    "muster init --name studio --listen ''    # open no port, only dial": Row(at="lonely"),
    "muster up --detach": Row(_studio_is_up),
    "muster invite build": Row(),
    "muster join 'muster1.….studio.local:7447#build' --label tests": Row(_invited, at="build"),
    "muster operator key    # where bob will order: prints a key": Row(_three_are_up, at="laptop"),
    "muster operator add bob --key KEY    # where authority.seed lies": Row(_key_of_bob),
    "muster device add laptop    # where operator.seed lies: prints the next line": Row(),
    "muster device join muster-device1.…    # on laptop": Row(_string_for_laptop, at="laptop"),
    "muster repo add main ~/src/project": Row(),
}

# --- what one example needs -----------------------------------------------------------------------


def _on_build(world: World) -> Mapping[str, str]:
    sent = world.ok("studio", "send", "build", "the tests moved", "--wait")
    return {"0827": str(sent["message"])[:12]}


def _script(world: World) -> Mapping[str, str]:
    said = {"text": f"Here is the plan.\n\n```yaml\n{PLANNED}```\n"}
    return {
        "say in NOTES.md what changed this week": f"Say hi. @@script {json.dumps([said])}",
        "--repo main": "",
    }


def _sleeping_run(world: World) -> Mapping[str, str]:
    run, task = world.run("asleep", f"  test:\n{ASLEEP}")
    world.stands(task, "leased")
    return {"1ae7": run[:12]}


def _nightly(world: World) -> None:
    _, task = world.run("nightly", f"  test:\n{ASLEEP}")
    world.stands(task, "leased")


def _nightly_is_short(world: World) -> None:
    world.run("nightly", "  test:\n    agent: shell\n    do: sleep 2\n    check: 'true'\n")


def _notes(world: World) -> None:
    (world.desk / "notes").mkdir(exist_ok=True)
    (world.desk / "notes" / "one").write_text("one")


def _nightly_failed(world: World) -> None:
    _, task = world.run("nightly", "  test:\n    agent: shell\n    do: exit 3\n    check: 'true'\n")
    world.stands(task, "failed")


def _has_failed(world: World) -> Mapping[str, str]:
    failing = "  only:\n    agent: shell\n    do: exit 3\n    check: 'true'\n"
    run, task = world.run("spent", failing)
    world.stands(task, "failed")
    return {"1ae7": run[:12], "7d5e": task[:12]}


def _tested(world: World) -> Mapping[str, str]:
    run, task = world.run(
        "tested", "  test:\n    agent: shell\n    do: 'true'\n    check: 'true'\n"
    )
    world.stands(task, "done")
    return {"1ae7": run[:12]}


def _waits_to_be_tried_again(world: World) -> Mapping[str, str]:
    failing = "  only:\n    agent: shell\n    do: exit 3\n    check: 'true'\n    retries: 9\n"
    _, task = world.run("again", failing)

    def waits() -> bool:
        """Several seconds, by now: each time it waits twice as long."""
        row = world.ok("studio", "why", task)["task"]
        return row["state"] == "queued" and row["tries"] >= 4

    until(waits, "a task waits for its next try")
    return {"7d5e": task[:12]}


def _asks_a_person(world: World) -> Mapping[str, str]:
    _, task = world.run("approval", "  agree:\n    by: human\n    do: Look at it\n")
    return {"7d5e": world.stands(task, "waiting")[:12]}


def _agent_asks(world: World) -> Mapping[str, str]:
    steps = [{"ask": "other", "title": "call the dentist"}, {"text": "That was all."}]
    do = json.dumps(f"Do it. @@script {json.dumps(steps)}")
    _, task = world.run(
        "asking", f"  work:\n    agent: planner\n    do: {do}\n    check: 'true'\n    retries: 0\n"
    )
    asks = lambda: [q for q in world.ok("studio", "questions") if q["task"] == task]  # noqa: E731
    until(asks, "the agent asks")
    return {"7d5e": task[:12]}


def _incident(world: World) -> Mapping[str, str]:
    # An agent that waits still works: the machine does not take any number of them.
    for each in world.ok("studio", "questions"):
        world.ok("studio", "answer", each["question"], "deny")
    _agent_asks(world)
    rows = until(
        lambda: [i for i in world.ok("studio", "incidents") if i["open"] and not i["by"]],
        "an agent that asks is an incident",
    )
    return {"3fa1": rows[0]["id"][:12], "7d5e": rows[0]["id"][:12]}


def _nothing_needs_anybody(world: World) -> None:
    _laptop_is_linked(world)
    for each in world.ok("studio", "incidents"):
        if each["open"] and not each["by"]:
            world.ok("studio", "acknowledge", each["id"])


def _on_a_port(_: World) -> Mapping[str, str]:
    return {"--next laptop": f"--next laptop --listen 127.0.0.1:{free_port()}"}


def _tests_on_forge(world: World) -> None:
    world.ok("studio", "machine", "relabel", "forge", "+tests")


def _laptop_again(world: World) -> None:
    world.ok("studio", "machine", "rename", "forge", "laptop")


def _short_work(world: World) -> None:
    world.run("brief", "  only:\n    agent: shell\n    do: sleep 3\n    check: 'true'\n")


def _in_a_thread(world: World) -> None:
    world.ok("studio", "thread", "team", "--add", "build")


def _home_is_kept(world: World) -> None:
    """A copy of studio's home from before it wrote more."""
    world.ok("studio", "down")
    shutil.copytree(world["studio"], world.folder / "copy")
    world.up("studio")
    world.ok("studio", "send", "laptop", "what the copy has not", "--wait")


def _restored(world: World) -> None:
    """Studio from that copy, and nobody there who could tell it what it lost."""
    world.ok("laptop", "down")
    shutil.rmtree(world["studio"])
    (world.folder / "copy").rename(world["studio"])
    world.up("studio")
    until(lambda: world.ok("studio", "status")["doubt"], "studio knows that it lost something")


def _has_a_card(world: World) -> None:
    """Of another fleet, whose operator gave it to ours."""
    acme, yard = Authority(b"c" * 32), Identity(b"y" * 32)
    raw = sign_record(
        acme, sign_binding(yard, acme.fleet, "yard"), roles=(), serial=1, issued_ms=now_ms()
    )
    chain = certificate.issue(acme, open_record(raw, acme.fleet), now_ms())
    door = Door("127.0.0.1:7", yard.machine, "yard")
    world.words["CARD"] = write_card(acme.fleet, chain.ca_pem.decode(), [door])


def _knows_acme(world: World) -> None:
    _has_a_card(world)
    world.ok("studio", "peer", "add", world.words["CARD"], "--as", "acme", "--yes")


def _has_a_report(world: World) -> Mapping[str, str]:
    """And a fleet that is to have it, if no example took it in before."""
    (world.desk / "report.pdf").write_text("all is well\n")
    if not world.ok("studio", "peer", "list"):
        _knows_acme(world)
    return {"build.acme": "yard.acme"}


def _build_is_gone(world: World) -> None:
    world.ok("build", "down")
    linked = lambda: [m["name"] for m in world.ok("studio", "machines") if m["state"] == "up"]  # noqa: E731
    until(lambda: "build" not in linked(), "studio sees that build is gone")


def _laptop_is_linked(world: World) -> None:
    """Its link may have led through build, which is no member any more."""
    until(
        lambda: any(m["name"] == "laptop" and m["state"] == "up" for m in world.ok("studio", "machines")),
        "laptop is linked", within_s=60,
    )  # fmt: skip


def _has_a_name(world: World) -> None:
    (world.user / ".gitconfig").write_text("[user]\n\tname = Alice\n\temail = alice@example.com\n")


def _may_hand_on(world: World) -> dict[str, str]:
    """Agents of studio may ask the shell of build, which is the one that there is."""
    world.ok("studio", "grant", "machine:studio", "delegate", "--agent", "shell")
    asked = "'why do the tests fail on macos?'"
    return {"claude": "shell", "mac2": "build", "fix/tests": "main", asked: "'sleep 5'"}


def _handed_on(world: World) -> dict[str, str]:
    _may_hand_on(world)
    return {"1ae7": world.ok("studio", "delegate", "sleep 60", "--agent", "shell")["run"]}


def _folder_of_notes(world: World) -> Mapping[str, str]:
    folder = world.user / "notes"
    folder.mkdir(exist_ok=True)
    (folder / "plan.md").write_text("what we do\n")
    return {}


def _plan_is_known(world: World) -> Mapping[str, str]:
    def known() -> bool:
        words = ("context", "log", "notes/plan.md", "--json")
        return muster(world["studio"], *words, HOME=str(world.user)).code == 0

    until(known, "the plan is a version")
    return {}


def _known_port(world: World) -> dict[str, str]:
    """What counts under the key of the examples, whether one of them wrote it or nobody yet."""
    known = [m for m in world.ok("studio", "memories") if m["key"] == "main/port"]
    if not known:
        return {"3fa9c1": world.ok("studio", "remember", "main/port", "it is 7447")["version"]}
    return {"3fa9c1": known[0]["version"]}


def _said_twice(world: World, key: str = "main/port", text: str = "it is 7447") -> dict[str, str]:
    """What an agent says otherwise than a person, under the key of the examples."""
    known = [m for m in world.ok("studio", "memories") if m["key"] == key]
    over = [word for m in known for word in ("--over", m["version"])]
    if known and known[0]["state"] == "conflict":
        world.ok("studio", "resolve", key, "--text", text)
    elif not known or known[0]["text"] != text:
        world.ok("studio", "remember", key, text, *over)
    (first,) = world.ok("studio", "memory", key)
    socket = call.socket_path(str(world["studio"]))
    asked = {"agent": "shell", "own": "0b2c", "project": str(world.desk)}
    token = call.ask(socket, "session.open", asked)["token"]
    said = {"key": key, "text": [f"{text}\nand no other"], "over": [first["version"]]}
    call.ask(socket, "remember", said, capability=token)
    return {"3fa9c1": first["version"]}


def _notes_said_twice(world: World) -> dict[str, str]:
    return _said_twice(world, "main/notes", "what we know")


def _replaced(world: World) -> dict[str, str]:
    """A key whose text was replaced, and the version that was there before."""
    before = _said_twice(world)
    world.ok("studio", "resolve", "main/port", "--text", "it is 9000")
    return before


def _session(world: World) -> dict[str, str]:
    """A live session on studio, and its name; `shell` is the agent that is there."""
    asked = {"agent": "shell", "own": "0a1b", "project": str(world.desk)}
    opened = call.ask(call.socket_path(str(world["studio"])), "session.open", asked)
    return {"shop-3fa9": opened["session"], "claude": "shell"}


def _claude_has_it(world: World) -> dict[str, str]:
    world.ok("studio", "install", "claude", "--yes")
    return {}


def _nightly_schedule(world: World) -> dict[str, str]:
    """A schedule in a file, beside its spec."""
    (world.desk / "nightly.yaml").write_text(
        "muster: 1\nschedule: nightly\nwhen: {cron: '30 2 * * *', zone: Europe/Berlin}\n"
        "run: watched.yaml\nkeepers: [studio]\nfence: owner\n"
    )
    (world.desk / "watched.yaml").write_text(PLANNED)
    return {}


def _kept_nightly(world: World) -> dict[str, str]:
    kept = world.ok("studio", "schedule", "list")["schedules"]
    if any(each["state"] == "rests" for each in kept):
        world.ok("studio", "schedule", "resume", "nightly")
    _nightly_schedule(world)
    world.ok("studio", "schedule", "add", str(world.desk / "nightly.yaml"))
    return {}


PREPARED: Final[dict[str, Row]] = {
    "muster schedule add nightly.yaml": Row(_nightly_schedule),
    "muster schedule next nightly --count 3": Row(_kept_nightly),
    "muster schedule pause nightly --until 8h": Row(_kept_nightly),
    "muster schedule fire nightly": Row(_kept_nightly),
    # Here no editor is at the other end; tests/e2e/test_acp.py is one.
    "muster acp": Row(code=3),
    "muster secret set DEPLOY_TOKEN    # asks for the value, or reads standard input": Row(
        ends=types_a_value
    ),
    "muster secret set DEPLOY_KEY --from-file ~/.ssh/deploy": Row(_key_file),
    "muster notify add phone    # asks for the address, or reads standard input": Row(
        ends=types_an_address
    ),
    "muster notify add team --as chat": Row(ends=types_an_address),
    # Nobody takes a message there.
    "muster notify test": Row(code=1),
    "muster install claude": Row(ends=agrees),
    "muster uninstall claude": Row(_claude_has_it, ends=agrees),
    "muster send 'claude@studio#shop-3fa9' 'the tests pass here'": Row(_session),
    "muster inbox --agent claude#shop-3fa9": Row(_session),
    "muster sessions": Row(_session),
    "muster session shop-3fa9 --mode focus": Row(_session),
    "muster land notes --dry-run": Row(_has_a_name),
    "muster init": Row(at="plain"),
    "muster init --service --next laptop": Row(_on_a_port, at="kept"),
    "muster machine rename build forge": Row(lambda _: {"build forge": "laptop forge"}),
    "muster machine relabel forge +gpu -tests": Row(_tests_on_forge),
    "muster machine relabel laptop portable    # and nothing else": Row(_laptop_again),
    "muster service install": Row(at="lonely"),
    "muster service status": Row(at="lonely"),
    "muster service remove": Row(at="lonely"),
    "muster ask 'say in NOTES.md what changed this week' --repo main": Row(_script, ends=says_yes),
    "muster tty build": Row(ends=logs_out),
    "muster watch nightly/test": Row(_nightly_is_short),
    "muster runs --follow": Row(_short_work, ends=leaves("brief")),
    "muster await nightly/test 0827 --any": Row(_nightly_is_short),
    # No bridge is here, and nobody is linked: it says what lets there be.
    "muster chat link matrix": Row(code=3),
    "muster chat list": Row(),
    "muster chat unlink matrix:@alice:example.org": Row(code=5),
    "muster rerun nightly --failed": Row(_nightly_failed, code=1),
    "muster rerun 1ae7 --from test --detach": Row(_tested),
    "muster cancel 1ae7 --reason 'wrong branch'": Row(_sleeping_run),
    "muster cancel nightly/test    # a task of the newest run of that spec": Row(_nightly),
    "muster cp -r notes build:": Row(_notes),
    "muster run notes.yaml --push main": Row(lambda _: {"notes.yaml": "review.yaml"}),
    "muster retry 7d5e": Row(_waits_to_be_tried_again),
    "muster retry 7d5e --budget usd=5.00": Row(_has_failed, code=1),
    "muster rerun 1ae7 --failed --budget usd=5.00": Row(_has_failed, code=1),
    "muster decide 7d5e yes --note 'reads well'": Row(_asks_a_person),
    "muster answer 7d5e deny": Row(_agent_asks),
    "muster why 0827        # of a message, by its id in `muster sent`": Row(at="laptop"),
    "muster wake laptop": Row(_laptop_is_linked, code=Conflict.exit_code),
    "muster reply 0827 'seen' --on build": Row(_on_build),
    "muster mark 0827 0828": Row(lambda _: {"0828": ""}),
    "muster send thread:team 'who is up?'": Row(_in_a_thread),
    "muster tail --kind 'task.*'": Row(_short_work, ends=leaves("task."), code=130),
    "muster tail --since 1200 --json": Row(
        lambda _: {"1200": "1"}, ends=leaves('"number"'), code=130
    ),
    "muster remember main/port 'it is 7450' --over 3fa9c1 --tag repo:main": Row(_known_port),
    "muster memory main/port --history": Row(_known_port),
    "muster memory main/port --at 2d": Row(_known_port),
    "muster memory main/port --diff 3fa9c1": Row(_known_port),
    "muster memory main/port --diff 2d --diff 10m --json": Row(
        _known_port, code=NotFound.exit_code
    ),
    "muster context add ~/notes --name notes --writers all": Row(_folder_of_notes),
    "muster context map notes '~/notes' --on studio": Row(_folder_of_notes),
    "muster context log notes/plan.md": Row(_plan_is_known),
    # An hour ago nobody had it.
    "muster context get notes/plan.md --at 1h": Row(_plan_is_known, code=NotFound.exit_code),
    "muster recall port --tag repo:main --all": Row(_known_port),
    "muster digest --task 7d5e": Row(_short_work),
    "muster refute 3fa9c1 'the flag was removed in 2.0'": Row(_known_port),
    "muster grant machine:mac1 delegate --object mac2 --runs 20    # its agents ask others": Row(
        lambda _: {"mac1": "build", "mac2": "studio"}
    ),
    "muster delegate 'why do the tests fail on macos?' --agent claude --machine mac2": Row(
        _may_hand_on
    ),
    "muster delegate 'fix them' --agent claude --repo main --base fix/tests --timeout 20m": Row(
        _may_hand_on
    ),
    "muster withdraw 1ae7 --reason 'the tests pass again'": Row(_handed_on),
    "muster resolve main/port --take 3fa9c1": Row(_said_twice),
    "muster resolve main/port --text 'it is 8443'": Row(_said_twice),
    "muster resolve main/notes --merge": Row(_notes_said_twice),
    "muster undo main/port": Row(_replaced),
    "muster undo main/port --to 3fa9c1": Row(_replaced),
    "muster grant fleet:acme send --object build    # its machines may send letters to build": Row(
        _knows_acme
    ),
    "muster peer add CARD --as acme": Row(_has_a_card, ends=says_yes),
    # Nobody is at the door that the card names.
    "muster cp report.pdf build.acme:    # to another operator's fleet, where that grants it": Row(
        _has_a_report, code=Unreachable.exit_code
    ),
    "muster standin studio build --others tower,nas": Row(lambda _: {"tower,nas": "laptop"}),
    "muster forget 3fa9c1 --reason 'it held a password'": Row(_known_port, ends=says_yes),
    "muster pause laptop --until 2h --why 'a talk'": Row(_laptop_is_linked),
    "muster drain laptop --wait --why 'a new disk'": Row(_laptop_is_linked),
    "muster resume laptop": Row(_laptop_is_linked),
    **dict.fromkeys(
        ("muster health", "muster health --on all", "muster health --json"),
        Row(_nothing_needs_anybody),
    ),
    "muster acknowledge 3fa1": Row(_incident),
    "muster acknowledge 3fa1 --until 8h": Row(_incident),
    "muster acknowledge 7d5e 'a backup was started twice'": Row(_incident),
}
LAST: Final[dict[str, Row]] = {
    "muster revoke bob --operator": Row(_home_is_kept, ends=says_yes),
    "muster takeover build": Row(_build_is_gone, ends=says_yes),
    "muster revoke build --reason 'left in the train'": Row(ends=says_yes),
    "muster machine leave laptop": Row(_laptop_is_linked, ends=says_yes),
    "muster down": Row(),
    "muster rebuild    # after `muster down`": Row(),
    "muster vouch": Row(_restored, ends=says_yes),
}
PLACED: Final = {**FIRST, **PREPARED, **LAST}


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each example printed, and its exit code; all of them, in one fleet."""
    world = World(tmp_path_factory.mktemp("fleet"))
    rest = {line: PREPARED.get(line, Row()) for line in EXAMPLES if line not in {*FIRST, *LAST}}
    rows = {**FIRST, "": Row(_work), **rest, **LAST}
    try:
        for line, row in rows.items():
            if line in NOT_RUN:
                continue
            # What one example has made must not be what the next one finds by chance.
            before = dict(world.words)
            try:
                world.words |= row.given(world) or {}
                if line:
                    world.said[line] = world.type(line, row)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                # The others are tried all the same.
                if line in FIRST:
                    raise
                world.said[line] = Said("", f"could not be tried: {error}", -1)
            if line:
                world.words = before
        yield world.said
    finally:
        world.end()


@proves("cli.examples")
@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_of_a_help_page_does_what_it_says(typed, line):
    if line in NOT_RUN:
        assert line not in typed
        return
    said = typed[line]
    assert said.code == PLACED.get(line, Row()).code, said
    assert "Traceback" not in said.err


@proves("cli.examples")
def test_every_verb_has_an_example_and_nothing_is_prepared_for_one_that_is_gone():
    assert not [verb.name for verb in SHOWN if not verb.examples]
    assert len({*EXAMPLES}) == len(EXAMPLES)
    assert {*PLACED, *NOT_RUN} <= {*EXAMPLES}
    assert len(PLACED) == len(FIRST) + len(PREPARED) + len(LAST)
    assert len(NOT_RUN) <= NOT_RUN_MAX
    assert all(len(why) > 20 for why in NOT_RUN.values())


# What is printed to be copied whole, or to be read by a program.
_DIGITS = re.compile(r".*[0-9a-f]{64}.*")
WHOLE = ("muster operator key ", "muster device add ", "muster invite ", "muster schema")


@proves("cli.short-ids")
def test_no_person_reads_sixty_four_digits(typed):
    shown = {
        line: said.out + said.err
        for line, said in typed.items()
        if not line.startswith(WHOLE) and "--json" not in line
    }
    assert len(shown) > 60
    assert not {line: found[0] for line, text in shown.items() if (found := _DIGITS.search(text))}
