"""The page docs/guide/week.md, typed: three homes, real daemons, each of its commands in its order.

A command of the page is given to a shell as it stands there, on the machine that the page says. What
a reader replaces too is replaced here (`GIVEN`); what happens beside the commands (an agent's words,
a failure, a lost machine) is done by the function of its section. No command of the page is left out.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.terminal import Terminal
from tests.cli.world import unenclosed
from tests.e2e.fleet import ROOT, until
from tests.git.repositories import commit, sh
from tests.ports import free_port
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PAGE: Final = (ROOT / "docs" / "guide" / "week.md").read_text(encoding="utf-8")
LIMIT_S = 90
LEASE_S = 5
# What the page says of a machine in words, as the beginning of a command; all else is on studio.
PLACES: Final = {
    "muster inbox": "build",
    "git clone": "build",
    "export ": "build",
    "muster device join": "laptop",
    "muster machine leave spare": "studio",
    "muster machine leave": "spare",
    "muster reach": "pad",
}
# What cannot be undone, and is asked for at a terminal.
ASKS: Final = ("muster takeover", "muster revoke", "muster machine leave spare")
# An agent that writes, and that rejects what has not its second word yet.
REJECTS: Final = {"verdict": "reject", "reasons": ["say more"]}
SCRIPT: Final = [
    {"when": "rejected", "write": "quiet.txt", "content": "quiet, and said why\n"},
    {"unless": "rejected", "write": "quiet.txt", "content": "quiet\n"},
    {"verdict": {"verdict": "accept", "reasons": ["now it does"]}, "holds": ["quiet.txt", "why"]},
    {"text": "Done."},
]


class Person:
    """Somebody with a computer for each machine, each with a home folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first = "studio"
        self.typed: list[str] = []
        self.given: dict[str, str] = {}
        self.ports = {name: free_port() for name in ("studio", "build")}
        (folder / "script.json").write_text(json.dumps(SCRIPT))

    def home(self, machine: str) -> Path:
        return self.folder / machine

    def environment(self, machine: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MUSTER_", "XDG_"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        home = self.home(machine)
        home.mkdir(exist_ok=True)
        return kept | {
            "HOME": str(home),
            "MUSTER_HOME": str(home / ".local/share/muster"),
            "MUSTER_STATE": str(home / "state"),
            "PATH": path,
            "SHELL": "/bin/false",
            "GIT_AUTHOR_NAME": "Ann", "GIT_AUTHOR_EMAIL": "ann@example.org",
            "GIT_COMMITTER_NAME": "Ann", "GIT_COMMITTER_EMAIL": "ann@example.org",
        }  # fmt: skip

    def type(self, machine: str, line: str, *, code: int = 0) -> str:
        """What a line prints, typed to a shell in the folder where one would be."""
        home, env = self.home(machine), self.environment(machine)
        source = home / "src/project"
        done = subprocess.run(
            ["sh", "-c", line], env=env, cwd=source if source.exists() else home, timeout=LIMIT_S,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{machine} $ {line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def ask(self, machine: str, line: str) -> Any:
        return json.loads(self.type(machine, f"{line} --json").splitlines()[-1])

    def of_page(self, line: str) -> str:
        """A command of the page, typed where it says."""
        self.typed.append(line)
        place = next((PLACES[each] for each in PLACES if line.startswith(each)), self.first)
        for written, meant in self.given.items():
            line = line.replace(written, meant)
        if not line.startswith(ASKS):
            return self.type(place, line)
        with Terminal(["sh", "-c", line], self.environment(place)) as terminal:
            terminal.see("[y/N]")
            terminal.type("y\n")
            assert terminal.end() == 0, f"{place} $ {line}\n{terminal.text}"
        return ""

    def told(self, machine: str) -> None:
        """Wait until a machine that is shut out knows."""
        until(lambda: "was revoked" in self.type(machine, "muster status"), f"{machine} knows")

    def join(self, name: str) -> None:
        """Invite a machine where the first is, and join it."""
        self.home(name).mkdir(exist_ok=True)
        invited = self.type(self.first, f"muster invite {name}")
        (line,) = re.findall(r"muster join \S+", invited)
        self.type(name, line)
        self.settle(name)
        self.type(name, "muster up --detach")

    def settle(self, machine: str) -> None:
        """A short lease, and agents that follow a script."""
        home = Path(self.environment(machine)["MUSTER_HOME"])
        text = (home / "config.toml").read_text()
        (home / "config.toml").write_text(re.sub(r"lease_s = \d+", f"lease_s = {LEASE_S}", text))
        # The scripts of these tests stand for its agents, and no sandbox shows them.
        unenclosed(home)
        entry = {
            "title": "Claude", "protocol": "acp", "program": sys.executable,
            "command": [sys.executable, "-m", "tests.e2e.scripted_agent"],
            "version_probe": [sys.executable, "--version"],
            "env": {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
                    "AGENT_SCRIPT": str(self.folder / "script.json")},
        }  # fmt: skip
        agents = {"version": 1, "agents": {"claude": entry}}
        (home / "agents.json").write_text(json.dumps(agents))

    def kill(self, machine: str) -> None:
        os.kill(int(self.ask(machine, "muster status")["process"]["pid"]), 9)

    def down(self) -> None:
        for home in self.folder.iterdir():
            if (home / ".local/share/muster").exists():
                self.type(home.name, "muster down || true")


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    """Studio, build and laptop as the page begins: one fleet, a project on studio."""
    found = Person(tmp_path)
    port = found.ports["studio"]
    source = found.home("studio") / "src/project"
    source.mkdir(parents=True)
    sh(source, "init", "-q", "-b", "main")
    commit(source, "begin", Makefile="test:\n\ttest -s quiet.txt\n")
    address = f"127.0.0.1:{port}"
    begun = found.type(
        "studio", f"muster init --name studio --operator ann --listen {address} --address {address}"
    )
    assert "muster invite build" in begun
    found.settle("studio")
    found.type("studio", "muster up --detach")
    try:
        for name in ("build", "laptop"):
            found.join(name)
        yield found
    finally:
        found.down()


def sections() -> dict[str, list[str]]:
    """The commands of the page without their comments, by the title above them."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        lines = re.findall(r"^    ((?:muster|git|python|export) .*)$", text, re.MULTILINE)
        found[title] = [re.sub(r" +# .*", "", line).strip() for line in lines]
    return found


def spec(name: str) -> str:
    """A spec of the page."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if f"\nname: {name}\n" in block]
    return str(found)


def write(person: Person, name: str, text: str, machine: str = "studio") -> None:
    (person.home(machine) / "src/project" / f"{name}.yaml").write_text(text)


# --- what happens beside the commands --------------------------------------------------------------


def nothing(_person: Person) -> None:
    """All is said by the commands."""


def a_spec(person: Person) -> None:
    write(person, "notes", spec("notes"))


def a_failure(person: Person) -> None:
    """The check of the newest run fails, and what it wants is there the next time."""
    fine = person.folder / "fine"
    text = spec("notes").replace("test -s NOTES.md", f"test -s NOTES.md && test -e {fine}")
    write(person, "notes", text)
    assert "notes: failed" in person.type("studio", "muster run notes.yaml", code=1)
    fine.touch()


def a_review(person: Person) -> None:
    # Once rejected, then accepted: the agents of the page, played by a script.
    script = json.loads((person.folder / "script.json").read_text())
    script.insert(2, {"verdict": REJECTS, "holds": ["quiet.txt", "quiet\n"]})
    (person.folder / "script.json").write_text(json.dumps(script))
    write(person, "feature", spec("feature"))
    said = person.type("studio", "muster run feature.yaml")
    assert "reject: say more" in said
    assert "accept: now it does" in said
    shown = person.ask("studio", "muster runs feature")
    authors = {t["machine"] for t in shown["tasks"] if t["phase"] == "write"}
    reviewers = {t["machine"] for t in shown["tasks"] if t["phase"] == "verdict"}
    assert not authors & reviewers
    assert "claude" in person.type("studio", "muster agents")


def a_plug(person: Person) -> None:
    """The machine that has a task dies; another has the task when the lease is over."""
    write(person, "long", spec("long").replace("sleep 40", "sleep 8"))
    person.type("studio", "muster run long.yaml --detach")

    def lost() -> str:
        tasks = person.ask("studio", "muster runs long")["tasks"]
        away = [t["machine"] for t in tasks if t["machine"] not in ("", "studio")]
        return away[0] if away else ""

    machine = until(lost, "another machine has a task")
    person.kill(machine)
    person.type("studio", "muster await long --timeout 2m")
    tasks = person.ask("studio", "muster runs long")["tasks"]
    (moved,) = [t for t in tasks if t["losses"]][:1]
    said = person.type("studio", f"muster why long/{moved['phase']}")
    assert f"{machine} has it no more: the lease ended without a word" in said
    person.type(machine, "muster up --detach")


def a_spare(person: Person) -> None:
    person.join("spare")


def an_order_of_the_device(person: Person) -> None:
    """A phase that waits for a person is decided by the laptop's own key."""
    home = person.home("laptop")
    (home / "ask.yaml").write_text(
        "muster: 1\nname: sure\nphases:\n  sure:\n    by: human\n    do: Sure?\n"
    )
    person.type("laptop", "muster run ask.yaml --detach")
    until(lambda: "waiting" in person.type("laptop", "muster runs sure"), "it asks")
    person.type("laptop", "muster decide sure/sure yes")
    person.type("laptop", "muster await sure --timeout 1m")


def a_lost_machine(person: Person) -> None:
    """It knows, and another one takes its place under another name."""
    person.told("laptop")
    person.type("laptop", "muster down")
    person.join("pad")


def a_lost_hub(person: Person) -> None:
    """Nothing of studio is left but the two seeds that were kept."""
    old = Path(person.environment("studio")["MUSTER_HOME"])
    new = Path(person.environment("build")["MUSTER_HOME"])
    person.kill("studio")
    for name in ("authority.seed", "operator.seed"):
        shutil.copy2(old / name, new / name)
    shutil.rmtree(old)
    address = f"127.0.0.1:{person.ports['build']}"
    text = (new / "config.toml").read_text()
    listens = text.replace('http.listen = ""', f'http.listen = "{address}"')
    assert listens != text
    (new / "config.toml").write_text(listens)
    person.given["tower.local:7447"] = address
    person.first = "build"


def a_new_hub(person: Person) -> None:
    """Who is left, who is new, and a run over both."""
    until(lambda: "tower" in person.type("pad", "muster machines"), "pad knows")
    person.join("nas")
    text = spec("notes").replace("{label: tests}", "{machine: nas}")
    (person.home("build") / "notes.yaml").write_text(text)
    until(
        lambda: all(m["state"] != "away" for m in person.ask("build", "muster machines")
                    if m["name"] in ("pad", "nas")),
        "nobody is away",
    )  # fmt: skip
    assert "notes: done" in person.type("build", "muster run notes.yaml")


def an_export(person: Person) -> None:
    person.given["python verify/"] = f"{sys.executable} {ROOT}/verify/"


# What happens before the first command of a section, and after its last.
BEFORE: Final[dict[str, Callable[[Person], None]]] = {
    "A spec": a_spec, "When a phase failed": a_failure, "A second opinion": a_review,
    "Pull a plug": a_plug, "The first machine is lost": a_lost_hub,
    "Names, labels, leaving": a_spare, "Ask what happened, and check it": an_export,
}  # fmt: skip
AFTER: Final[dict[str, Callable[[Person], None]]] = {
    "A second device": an_order_of_the_device, "A machine is lost": a_lost_machine,
    "The first machine is lost": a_new_hub,
}  # fmt: skip


@proves("install.week-as-typed")
def test_the_week_of_the_guide_goes_as_its_page_says(person):
    page = sections()
    assert len([line for lines in page.values() for line in lines]) > 25
    for title, lines in page.items():
        BEFORE.get(title, nothing)(person)
        for line in lines:
            said = person.of_page(line)
            if line == "muster machine leave spare":
                person.told("spare")
            if line.startswith("muster device add"):
                (person.given["muster-device1.…"],) = re.findall(r"muster-device1\.\S+", said)
            if line.startswith("muster send"):
                person.given["MESSAGE"] = person.ask("studio", "muster sent")[0]["message"][:12]
        AFTER.get(title, nothing)(person)
    assert person.typed == [line for lines in page.values() for line in lines]
    landed = sh(person.home("studio") / "src/project", "log", "--format=%s", "-1", "main")
    assert landed.startswith("notes: ")
