"""The mission: three machines, a real repository, one of them killed in the middle.

`make demo` runs this. Three daemons with separate homes run on this computer and talk over mutual
TLS on loopback, as they would on three computers. The fleet runs the tests of a repository on a
machine labelled `tests` while the hub drafts release notes from the git log, and merges both when
both are done. As soon as the tests run, the machine that runs them is killed with `kill -9`; the
other one that fits takes over. Then everything is proved from the logs, and a copy of a log with
one byte changed is shown to be caught.

Nothing here is simulated: every line printed comes from a `muster` command you can type yourself.
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
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
# Without a given test command: some hundred of Muster's own tests, a few seconds of real work.
OWN_TEST: Final = "{python} -m pytest -q -x -p no:cacheprovider tests/log tests/message"
# Shorter than the default of 30 s, so that you need not wait that long for the takeover.
LEASE_S: Final = 8
MACHINES: Final = {"studio": ("hub",), "build": ("tests",), "spare": ("tests",)}


class Mission:
    """Homes, daemons and what the commands say."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.ports = dict(zip(MACHINES, free_ports(len(MACHINES)), strict=True))
        self.env = {**os.environ, "MUSTER_STATE": str(out / "state")}
        self.env.pop("MUSTER_HOME", None)

    def home(self, name: str) -> Path:
        return self.out / name

    def muster(self, name: str, *words: str, quiet: bool = False, code: int = 0) -> str:
        """One command on one machine; printed as you would type it, with what it says."""
        if not quiet:
            say(f"\n{name} $ muster {shlex.join(words)}")
        done = subprocess.run(
            [sys.executable, "-m", "muster", "--home", str(self.home(name)), *words],
            env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not quiet:
            say("\n".join(t for t in (done.stdout.rstrip(), done.stderr.rstrip()) if t))
        if done.returncode != code:
            fail(f"muster {words[0]} on {name} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout + done.stderr if code else done.stdout

    def ask(self, name: str, *words: str) -> Any:
        return json.loads(self.muster(name, *words, "--json", quiet=True))

    def begin(self, repo: str) -> None:
        """Three machines, one fleet, one repository."""
        head("Three machines become one fleet")
        for name, labels in MACHINES.items():
            address = f"127.0.0.1:{self.ports[name]}"
            marks = [w for label in labels for w in ("--label", label)]
            if name == "studio":
                self.muster(name, "init", "--name", name, "--operator", "you",
                            "--listen", address, *marks)  # fmt: skip
            else:
                invitation = self.ask("studio", "invite", name)["invitation"]
                self.muster(name, "join", invitation, "--listen", address, *marks)
            config = self.home(name) / "config.toml"
            text = "\n".join(
                line for line in config.read_text().splitlines() if not line.startswith("lease_s")
            )
            config.write_text(f"{text}\nlease_s = {LEASE_S}\n")
            self.muster(name, "up", "--detach")
        self.wait("three linked machines", lambda: self._linked() == len(MACHINES) - 1)
        self.muster("studio", "machines")
        self.muster("studio", "repo", "add", "project", repo)
        self.muster("studio", "send", "all", "The mission begins.", "--wait")

    def _linked(self) -> int:
        return int(self.ask("studio", "status")["machines"]["linked"])

    def wait(self, what: str, true: Any, seconds: float = 120) -> Any:
        """Ask again until it is so; a demo may poll, Muster does not."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := true():
                return found
            time.sleep(0.1)
        return fail(f"waited {seconds:.0f} s for {what}")

    def play(self, spec: Path) -> str:
        """Hand the spec in, kill the machine that runs the tests, see it through."""
        head("The mission is handed in")
        self.muster("studio", "check", str(spec))
        run = str(self.ask("studio", "run", str(spec), "--detach")["run"])
        say(f"run {run[:12]} began")
        task = self.wait("the tests to run somewhere", lambda: self._running(run))
        head(f"The tests run on {task['machine']}: kill -9")
        self.kill(task["machine"])
        say(f"The lease of {task['machine']} ends within {LEASE_S} s; the others go on meanwhile.")
        self.wait("the run to settle", lambda: self._settled(run), seconds=1800)
        moved = next(t for t in self._tasks(run) if t["phase"] == "test")
        if moved["machine"] == task["machine"]:
            fail("the tests were not taken over")
        say(f"The tests were taken over by {moved['machine']}.")
        self.muster(task["machine"], "up", "--detach")
        self.wait("it to come back", lambda: self._linked() == len(MACHINES) - 1)
        return run

    def _tasks(self, run: str) -> list[dict[str, Any]]:
        return list(self.ask("studio", "tasks", "--run", run))

    def _running(self, run: str) -> dict[str, Any] | None:
        found = [t for t in self._tasks(run) if t["phase"] == "test"]
        if found and found[0]["state"] == "done":
            fail("the test command ended before the machine could be killed; take a longer one")
        return found[0] if found and found[0]["state"] == "leased" else None

    def _settled(self, run: str) -> bool:
        found = self.ask("studio", "runs", run)
        if found["state"] == "failed":
            self.muster("studio", "runs", run)
            for task in found["tasks"]:
                say(f"{task['phase']}: {task['state']} {task['reason']}")
            fail("the run failed")
        return bool(found["state"] == "done")

    def kill(self, name: str) -> None:
        pid = int((self.home(name) / "run" / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        say(f"kill -9 {pid}   # the daemon of {name}")
        marker = f"MUSTER_HOME={self.home(name)}".encode()
        self.wait("its agent to end with it", lambda: not processes(marker), seconds=15)
        say(f"Nothing that {name} had started is left running.")

    def prove(self, run: str) -> None:
        """The graph, the reasons, the receipts, the notes, the logs, and a forgery."""
        head("Who did what, and why")
        self.muster("studio", "runs", run)
        for task in self._tasks(run):
            self.muster("studio", "why", task["task"][:12])
        head("The receipts")
        self.muster("studio", "sent")
        self.muster("studio", "status")
        head("The notes, in a commit signed by the machine that made it")
        git = ["git", "--git-dir", str(self.home("studio") / "repos" / "project.git")]
        branch = f"muster/{run}/merge"
        for words in (["log", "-1", "--format=%H%n%an, %ad%n%s", branch],
                      ["show", f"{branch}:NOTES.md"]):  # fmt: skip
            done = subprocess.run([*git, *words], capture_output=True, text=True, check=True)
            say("\n".join(done.stdout.splitlines()[:40]))
        head("The proof: every log, checked entry by entry")
        for name in MACHINES:
            self.muster(name, "audit", "verify")
        self.forge()

    def forge(self) -> None:
        """One byte of a copy is changed; verification must name the entry it belongs to."""
        head("The same log with one byte changed")
        copy = self.out / "forged.db"
        source = sqlite3.connect(f"file:{self.home('studio') / 'log.db'}?mode=ro", uri=True)
        with contextlib.closing(source), contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        place, old, new = flip(copy, b'"kind":"task.settle"')
        say(f"byte {place} of {copy.name}: {old!r} is {new!r} now")
        said = self.muster("studio", "audit", "verify", "--file", str(copy), code=1)
        if "WRONG" not in said or "its header is not the one" not in said:
            fail("the verification does not name the entry that was changed")

    def end(self) -> None:
        for name in MACHINES:
            if (self.home(name) / "run" / "pid").exists():
                self.muster(name, "down", quiet=True)


def write_spec(out: Path, test: str, agent: str) -> Path:
    """The mission as a spec."""
    if agent == "shell":
        draft = (
            "{ echo '# Release notes'; echo; "
            "git log --no-merges --format='- %s (%h, %an)' -n 20; } > DRAFT.md"
        )
    else:
        draft = (
            "Write DRAFT.md: release notes for the users of this project, from the last twenty "
            "commits of `git log`. Group them by what changes for a user. At most forty lines."
        )
    spec = {
        "muster": 1,
        "name": "mission",
        "repo": "project",
        "phases": {
            "test": {
                "needs": {"label": "tests"},
                "agent": "shell",
                "do": f"{{ {test} ; }} > report.txt 2>&1; code=$?\n"
                "tail -n 1 report.txt\nexit $code",
                "deliver": ["report.txt"],
                "check": "test -s report.txt",
                "timeout": "20m",
            },
            "draft": {
                "needs": {"label": "hub"},
                "agent": agent,
                "do": draft,
                "deliver": ["DRAFT.md"],
                "check": "test -s DRAFT.md",
            },
            "merge": {
                "after": ["test", "draft"],
                "needs": {"label": "hub"},
                "agent": "shell",
                "do": "{ cat DRAFT.md; echo; echo '## Tests'; echo; "
                'echo "$MUSTER_TEST_SUMMARY"; echo; echo "on $MUSTER_TEST_MACHINE"; } > NOTES.md',
                "deliver": ["NOTES.md"],
                "check": "grep -q Tests NOTES.md",
            },
        },
    }
    path = out / "mission.yaml"
    # JSON is YAML, and json.dumps quotes what a person's test command may hold.
    path.write_text(json.dumps(spec, indent=1, ensure_ascii=False))
    return path


def pick_agent(mission: Mission, wanted: str) -> str:
    """Who writes the notes: an agent program with a model at hand, else the shell."""
    found = mission.ask("studio", "machines")
    agents = next(m["facts"]["agents"] for m in found if m["name"] == "studio")
    if wanted:
        if wanted not in agents:
            fail(f"{wanted} is not installed here; there are: {', '.join(sorted(agents))}")
        return wanted
    say("\nThe notes are written by the shell agent from the git log. With an agent program and")
    say("a model at hand, `make demo AGENT=claude` lets it write them.")
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
    """Lives whose environment holds this; without /proc nobody can tell, and none are named."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in path.read_bytes().split(b"\0") and b"MUSTER_TASK" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def say(text: str) -> None:
    print(text, flush=True)


def head(text: str) -> None:
    say(f"\n━━ {text} " + "━" * max(0, 76 - len(text)))


def fail(text: str) -> Any:
    raise SystemExit(f"demo: {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--repo", default=str(ROOT), help="a git repository (default: this one)")
    parser.add_argument("--test", default="", help="the command that runs its tests")
    parser.add_argument("--agent", default="", help="the agent that writes the notes")
    parser.add_argument("--out", default=str(ROOT / "demo" / "out"), help="where the homes go")
    given = parser.parse_args()
    test = given.test or (
        OWN_TEST.format(python=shlex.quote(sys.executable)) if given.repo == str(ROOT) else ""
    )
    if not test:
        parser.error("--repo needs --test: the command that runs its tests (TEST= for make)")
    out = Path(given.out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    mission = Mission(out)
    began = time.monotonic()
    try:
        mission.begin(given.repo)
        run = mission.play(write_spec(out, test, pick_agent(mission, given.agent)))
        mission.prove(run)
    finally:
        mission.end()
    say(f"\nThe mission is done, {time.monotonic() - began:.0f} s. The homes are in {out}.")


if __name__ == "__main__":
    main()
