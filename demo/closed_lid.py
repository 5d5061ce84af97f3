"""The closed lid: three machines, one run, and a laptop that falls asleep in the middle of it.

`make demo` runs this. Three daemons with separate homes run on this computer and talk over mutual
TLS on loopback, as they would on three computers. Every command is shown as you would type it, with
what it says. The lid is closed by stopping every process of the laptop with SIGSTOP: it keeps its
memory, its open connections and its half-done work, and hears nothing, as in sleep. A next release
follows, and says what the fleet remembers of the first.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from muster.node.host.enclosing import Enclosing
from muster.node.host.sandbox_config import SandboxConfig

ROOT: Final = Path(__file__).resolve().parent.parent
# Shorter than the default of 30 s, so that nobody waits that long for the takeover.
LEASE_S: Final = 4
# The desk takes one task at a time, so the first one leaves the other for the laptop.
MACHINES: Final = {"studio": (), "laptop": ("agents",), "desk": ("agents", "tests")}

SPEC: Final = """\
muster: 1
name: release
repo: project
phases:
  tests:                                # on the machine that has what the tests need
    needs: {label: tests}
    agent: shell
    do: |
      { TEST_COMMAND ; } > report.txt 2>&1
      tail -n 1 report.txt
    deliver: report.txt
  notes:                                # on any machine for agents: the laptop, while it is open
    needs: {label: agents}
    agent: AGENT
    do: DO
    deliver: DRAFT.md
    check: test -s DRAFT.md
  release:                              # when both are done, from both their commits
    after: [tests, notes]
    agent: shell
    do: |
      { cat DRAFT.md; echo; echo "Tests: $MUSTER_TESTS_SUMMARY"; } > NOTES.md
      muster remember project/last-release \\
        "written on $MUSTER_NOTES_MACHINE, tests $MUSTER_TESTS_SUMMARY"
    deliver: NOTES.md
    check: grep -q Tests NOTES.md
"""
BY_SHELL: Final = """|
      { echo '# What is new'; git log --no-merges --format='- %s (%an)' -n 9
        sed -n 's/.*project.last-release: /Last time: /p' "$MUSTER_MEMORY"; } > DRAFT.md
      sleep THINKS                      # stands for the agent's thinking"""
BY_AGENT: Final = (
    '"Write DRAFT.md: a heading, and in at most five lines what is new for users. If something is '
    'remembered of the last release, end with one line that begins with Last time: and says it."'
)

PROJECT: Final = {
    ".gitignore": ("ignore what Python makes", "__pycache__/\n"),
    "words.py": ("words: count them", "def count(text):\n    return len(text.split())\n"),
    "test_words.py": (
        "tests: the empty text has no words",
        """\
import unittest

from words import count


class Words(unittest.TestCase):
    def test_an_empty_text_has_none(self):
        self.assertEqual(count(""), 0)

    def test_two_words_are_two(self):
        self.assertEqual(count("two words"), 2)
""",
    ),
    "README.md": ("README: what it is for", "# words\n\nCounts words.\n"),
}


class Demo:
    """Homes, daemons and what the commands say."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.ports = dict(zip(MACHINES, free_ports(len(MACHINES)), strict=True))
        self.env = {**os.environ, "MUSTER_STATE": str(out / "state")}
        self.env.pop("MUSTER_HOME", None)
        # Where nothing can be enclosed these machines, which are thrown away, say so and go on.
        self.obstacle = Enclosing().obstacle(SandboxConfig(), self.env.get("PATH"), 0)
        # Where agents find `muster`, also when nobody put it there.
        self.env["PATH"] = f"{self.env['PATH']}{os.pathsep}{Path(sys.executable).parent}"
        # What lands is committed by somebody, also where git knows nobody yet.
        self.env |= {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "you"), ("EMAIL", "you@home"))
        }

    def home(self, name: str) -> Path:
        return self.out / name

    def muster(self, name: str, *words: str, code: int = 0, lines: int = 40) -> str:
        """One command on one machine; printed as you would type it, with what it says."""
        typed(name, "muster", *words)
        done = subprocess.run(self._argv(name, words), env=self.env, capture_output=True,
                              text=True, check=False)  # fmt: skip
        said = "\n".join(t for t in (done.stdout.rstrip(), done.stderr.rstrip()) if t)
        say("\n".join(said.splitlines()[:lines]))
        if done.returncode != code:
            fail(f"muster {words[0]} on {name} ended with {done.returncode}")
        return said

    def ask(self, name: str, *words: str) -> Any:
        """What a command answers, as data, without a word on the screen."""
        done = subprocess.run(self._argv(name, (*words, "--json")), env=self.env,
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            fail(f"muster {words[0]} on {name} ended with {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def _argv(self, name: str, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "muster", "--home", str(self.home(name)), *words]

    def begin(self, repo: Path) -> None:
        self.repo = repo
        head("Three machines become one fleet")
        if self.obstacle is not None:
            say(f"Work is not enclosed in this demo (--no-sandbox): {self.obstacle.cause}.")
        self._machine("studio", "init", "--name", "studio", "--operator", "you")
        for name in ("laptop", "desk"):
            invitation = self.ask("studio", "invite", name)["invitation"]
            typed("studio", "muster", "invite", name)
            say(f"{invitation[:40]}…   (works once, for {name})")
            self._machine(name, "join", invitation)
        self.wait("three linked machines", self._linked)
        self.muster("studio", "machines")
        self.muster("studio", "repo", "add", "project", str(repo))

    def _machine(self, name: str, *words: str) -> None:
        """A home is made and its daemon started; `join` is shown without its long invitation."""
        listen = ("--listen", f"127.0.0.1:{self.ports[name]}")
        labels = tuple(w for label in MACHINES[name] for w in ("--label", label))
        labels += ("--no-sandbox",) if self.obstacle is not None else ()
        shown = [w if len(w) < 60 else f"{w[:20]}…" for w in (*words, *labels)]
        typed(name, "muster", *shown)
        done = subprocess.run(self._argv(name, (*words, *listen, *labels)), env=self.env,
                              capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            fail(f"muster {words[0]} on {name}: {done.stderr.strip()}")
        config = self.home(name) / "config.toml"
        said = config.read_text().splitlines()
        kept = [line for line in said if not line.startswith(("lease_s", "slots"))]
        slots = 1 if name == "desk" else 2
        config.write_text("\n".join([f"lease_s = {LEASE_S}", f"slots = {slots}", *kept, ""]))
        typed(name, "muster", "up", "--detach")
        subprocess.run(self._argv(name, ("up", "--detach")), env=self.env, check=True,
                       capture_output=True)  # fmt: skip

    def _linked(self) -> bool:
        return bool(self.ask("studio", "status")["machines"]["linked"] == len(MACHINES) - 1)

    def wait(self, what: str, true: Callable[[], Any], seconds: float = 60) -> Any:
        """Ask again until it is so; a demo may poll, Muster does not."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := true():
                return found
            time.sleep(0.1)
        return fail(f"waited {seconds:.0f} s for {what}")

    def play(self, spec: Path) -> tuple[dict[str, Any], str]:
        """The run, seen live, while the lid closes: the task that moved, and its first epoch."""
        head("The work")
        say(spec.read_text().rstrip())
        head("The run, live. As soon as the laptop works, its lid is closed")
        with ThreadPoolExecutor(1) as beside:
            lid = beside.submit(self._close_lid)
            self.live("studio", "run", str(spec))
            epoch = lid.result()
        task = next(t for t in self.ask("studio", "tasks", "--all") if t["phase"] == "notes")
        if task["machine"] == "laptop":
            fail("the notes were not taken over")
        return task, epoch

    def live(self, name: str, *words: str) -> None:
        """A command that draws on this terminal itself."""
        typed(name, "muster", *words)
        done = subprocess.run(self._argv(name, words), env=self.env, check=False)
        if done.returncode:
            fail(f"muster {words[0]} ended with {done.returncode}")

    def _close_lid(self) -> str:
        """The epoch of the attempt that was at work."""
        found = self.wait("the laptop to work", self._on_laptop)
        time.sleep(1)
        self.signal("laptop", signal.SIGSTOP)
        return "-".join(map(str, found["epoch"]))

    def _on_laptop(self) -> dict[str, Any] | None:
        for task in self.ask("studio", "tasks"):
            if (task["phase"], task["machine"], task["state"]) == ("notes", "laptop", "leased"):
                return dict(self.ask("studio", "why", task["task"])["decisions"][-1])
        return None

    def signal(self, name: str, number: int) -> None:
        """To the daemon of a machine and whatever it started."""
        daemon = int((self.home(name) / "run" / "pid").read_text())
        for pid in {daemon, *processes(f"MUSTER_HOME={self.home(name)}".encode())}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wake(self, task: dict[str, Any], epoch: str) -> None:
        """The laptop wakes, and pushes what it had: the repository has a newer lease."""
        head("The lid is opened. The laptop pushes what it had, late")
        self.signal("laptop", signal.SIGCONT)
        self.wait("the laptop to be back", self._linked)
        clone = self.out / "late"
        env = {**self.env, "MUSTER_HOME": str(self.home("laptop"))}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        git(self.out, "clone", "-q", "muster::studio/project", str(clone), env=env)
        (clone / "DRAFT.md").write_text("# Written before the lid closed\n")
        git(clone, "add", "DRAFT.md")
        commit(clone, "laptop", "late")
        ref = f"HEAD:refs/muster/attempt/{task['task']}/{epoch}"
        typed("laptop", "git", "push", "muster::studio/project", f"{ref[:36]}…/{epoch}")
        pushed = subprocess.run(["git", "push", "origin", ref], cwd=clone, env=env,
                                capture_output=True, text=True, check=False)  # fmt: skip
        if pushed.returncode == 0:
            fail("the late push was taken")
        for line in pushed.stderr.splitlines():
            if line.startswith("remote:") and line.strip() != "remote:":
                say("\n".join(textwrap.wrap(line, 100)))
        say("The repository itself refused it: that lease is over, another machine has the work.")

    def prove(self, task: dict[str, Any]) -> None:
        head("Who did it, and why")
        self.muster("studio", "why", task["task"][:12])
        head("The result lands on main")
        self.muster("studio", "land", "release")
        for words in (["log", "--oneline", "-n", "3", "main"], ["show", "main:NOTES.md"]):
            typed("you", "git", *words)
            done = subprocess.run(["git", *words], cwd=self.repo, capture_output=True, text=True,
                                  check=True)  # fmt: skip
            say(done.stdout.rstrip())

    def again(self, spec: Path) -> None:
        """The next release: its agent is told what the first one learned, and says so."""
        head("The next release knows what the last one learned")
        if self.repo == self.out / "project":
            # A person's own repository gets nothing but what lands.
            with (self.repo / "words.py").open("a") as file:
                file.write("\n\ndef lines(text):\n    return len(text.splitlines())\n")
            git(self.repo, "add", "words.py")
            commit(self.repo, "you", "words: count lines, too")
        self.muster("studio", "run", str(spec))
        self.muster("studio", "memory", "project/last-release", "--history")
        self.muster("studio", "land", "release")
        typed("you", "git", "show", "main:NOTES.md")
        done = subprocess.run(["git", "show", "main:NOTES.md"], cwd=self.repo, capture_output=True,
                              text=True, check=True)  # fmt: skip
        say(done.stdout.rstrip())
        if "Last time: " not in done.stdout:
            fail("the second release does not mention what the first one learned")

    def forge(self) -> None:
        """One byte of a copy is changed; verification must name the entry it belongs to."""
        head("The proof: every entry, seal and receipt; then a copy with one byte changed")
        self.muster("studio", "audit", "verify", lines=12)
        copy = self.out / "forged.db"
        source = sqlite3.connect(f"file:{self.home('studio') / 'log.db'}?mode=ro", uri=True)
        with contextlib.closing(source), contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        place, old, new = flip(copy, b'"kind":"task.settle"')
        say(f"\nbyte {place} of {copy.name}: {old!r} is {new!r} now")
        said = self.muster("studio", "audit", "verify", "--file", str(copy), code=1, lines=16)
        if "WRONG" not in said or "its header is not the one" not in said:
            fail("the verification does not name the entry that was changed")

    def end(self) -> None:
        for name in MACHINES:
            if (self.home(name) / "run" / "pid").exists():
                self.signal(name, signal.SIGCONT)
                subprocess.run(self._argv(name, ("down",)), env=self.env, check=False,
                               capture_output=True)  # fmt: skip


def write_project(path: Path) -> Path:
    """A small project with tests and a history, so that the demo takes nothing of yours."""
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    for name, (title, text) in PROJECT.items():
        (path / name).write_text(text)
        git(path, "add", name)
        commit(path, "you", title)
    return path


def write_spec(out: Path, test: str, agent: str, thinks_s: int = 4) -> Path:
    text = SPEC.replace("TEST_COMMAND", test).replace("AGENT", agent)
    path = out / "release.yaml"
    do = BY_SHELL.replace("THINKS", str(thinks_s)) if agent == "shell" else BY_AGENT
    path.write_text(text.replace("do: DO", f"do: {do}"))
    return path


def pick_agent(demo: Demo, wanted: str) -> str:
    """Who writes the notes: an agent program that is here and logged in, else the shell."""
    if wanted == "shell":
        return wanted
    rows = [each for each in demo.ask("studio", "agents") if each["machine"] in ("laptop", "desk")]
    there = Counter(each["agent"] for each in rows)
    logged_in = Counter(each["agent"] for each in rows if each["login"] == "yes")
    if wanted:
        if there[wanted] < 2:
            fail(f"{wanted} is not installed here")
        return wanted
    ready = sorted(name for name, count in logged_in.items() if count == 2)
    if ready:
        say(f"\n{ready[0]} is installed here and logged in: it writes the notes.")
        return ready[0]
    say("\nNo AI agent that is logged in was found here: a shell script writes the notes.")
    return "shell"


def flip(database: Path, words: bytes) -> tuple[int, str, str]:
    """Change one byte of the first entry that holds `words`: where, from what, to what.

    A database file also holds stale copies of pages; the byte must be one that is read.
    """
    raw = bytearray(database.read_bytes())
    place = -1
    while (place := raw.find(words, place + 1)) >= 0:
        at = place + len(words) - 2
        old = raw[at]
        raw[at] ^= 1
        database.write_bytes(raw)
        with contextlib.closing(sqlite3.connect(database)) as changed:
            wrong = words[:-2] + bytes([raw[at]]) + words[-1:]
            query = "select count(*) from entry where instr(header, ?) > 0"
            if changed.execute(query, (wrong,)).fetchone()[0] == 1:
                return at, chr(old), chr(raw[at])
        raw[at] = old
    return fail("the copy holds no such entry")  # type: ignore[no-any-return]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for each in sockets:
        each.close()
    return ports


def processes(marker: bytes) -> list[int]:
    """What runs with this in its environment; without /proc nobody can tell, and none are named."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def git(folder: Path, *words: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(["git", *words], cwd=folder, env=env, capture_output=True, text=True,
                          check=False)  # fmt: skip
    if done.returncode:
        fail(f"git {words[0]}: {done.stderr.strip()}")


def commit(folder: Path, name: str, title: str) -> None:
    who = ("-c", f"user.name={name}", "-c", f"user.email={name}@home")
    git(folder, *who, "commit", "-qm", title)


def typed(name: str, *words: str) -> None:
    say(f"\n{name} $ {shlex.join(words)}".replace("'", ""))


def say(text: str) -> None:
    print(text, flush=True)


def head(text: str) -> None:
    say(f"\n━━ {text} " + "━" * max(0, 96 - len(text)))


def fail(text: str) -> Any:
    raise SystemExit(f"demo: {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repo", default="", help="a git repository (default: a small one)")
    parser.add_argument("--test", default="", help="the command that runs its tests")
    parser.add_argument("--agent", default="", help="the agent that writes the notes")
    parser.add_argument("--out", default=str(ROOT / "demo" / "out"), help="where the homes go")
    given = parser.parse_args()
    if given.repo and not given.test:
        parser.error("--repo needs --test: the command that runs its tests (TEST= for make)")
    out = Path(given.out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    demo = Demo(out)
    began = time.monotonic()
    try:
        repo = Path(given.repo) if given.repo else write_project(out / "project")
        demo.begin(repo)
        agent = pick_agent(demo, given.agent)
        test = given.test or "python3 -m unittest"
        task, epoch = demo.play(write_spec(out, test, agent))
        demo.wake(task, epoch)
        demo.prove(task)
        demo.again(write_spec(out, test, agent, thinks_s=0))
        demo.forge()
    finally:
        demo.end()
    say(f"\nDone in {time.monotonic() - began:.0f} s. The three homes are in {out}.")


if __name__ == "__main__":
    main()
