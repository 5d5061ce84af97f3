"""A machine leaves its fleet: real daemons, and the command as a person types it."""

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cli.world import ended, environment, muster
from tests.e2e import scripted_systemd
from tests.e2e.fleet import until
from tests.ports import free_port
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SPEC = """\
muster: 1
name: long
phases:
  only:
    agent: shell
    needs: {{label: work}}
    do: |
      test -e {gate}/begun || {{ touch {gate}/begun; until test -e {gate}/stop; do sleep 0.1; done; }}
    check: 'true'
"""


class Three(NamedTuple):
    """The hub with authority and operator, and two machines that work."""

    folder: Path
    studio: Path
    build: Path
    spare: Path
    more: dict[str, str]

    def ask(self, home: Path, *words: str) -> Any:
        said = muster(home, *words, "--json", **self.more)
        assert said.code == 0, said
        return said.value

    def join(self, home: Path) -> None:
        line = self.ask(self.studio, "invite", home.name)["invitation"]
        words = ("join", line, "--listen", "", "--label", "work", "--up", "--no-sandbox")
        said = muster(home, *words, **self.more)
        assert said.code == 0, said
        self.here(home.name)

    def here(self, name: str) -> None:
        until(lambda: self.state(name).get("facts") and self.state(name)["state"] == "up", "it is")

    def state(self, name: str) -> dict[str, Any]:
        found = [m for m in self.ask(self.studio, "machines") if m["name"] == name]
        # The one that left, and the one that took its name.
        found.sort(key=lambda m: m["state"] != "revoked")
        return found[-1] if found else {}

    def begin(self) -> str:
        """A run that build works on until `stop` is there; what begins it again is done at once."""
        spec = self.folder / "long.yaml"
        spec.write_text(SPEC.format(gate=self.folder))
        run = str(self.ask(self.studio, "run", str(spec), "--detach", "--again")["run"])
        until((self.folder / "begun").exists, "it works")
        return run

    def leaving(self) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        words = [sys.executable, "-m", "muster", "machine", "leave", self.build.name, "--yes"]
        return ended(subprocess.Popen(
            words, env=environment(self.studio, **self.more), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ))  # fmt: skip

    def task(self, run: str) -> dict[str, Any]:
        (row,) = self.ask(self.studio, "tasks", "--run", run, "--all")
        return dict(row)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    folder = tmp_path_factory.mktemp("leaving")
    more = {**scripted_systemd.put(folder), "XDG_CONFIG_HOME": str(folder / "config")}
    found = Three(folder, folder / "studio", folder / "build", folder / "spare", more)
    listen = f"127.0.0.1:{free_port()}"
    words = (
        "init",
        "--name",
        "studio",
        "--operator",
        "al",
        "--listen",
        listen,
        "--up",
        "--no-sandbox",
    )
    assert muster(found.studio, *words, **more).code == 0
    yield found
    muster(found.studio, "down", **more)


@pytest.fixture
def three(studio: Three) -> Iterator[Three]:
    """With machines of names of their own for each test: those of the others left."""
    number, folder = studio.folder / "number", studio.folder
    n = int(number.read_text()) + 1 if number.exists() else 1
    number.write_text(str(n))
    for gate in ("begun", "stop"):
        (folder / gate).unlink(missing_ok=True)
    found = studio._replace(build=folder / f"build{n}", spare=folder / f"spare{n}")
    found.join(found.build)
    yield found
    for home in (found.build, found.spare):
        if (home / "run" / "pid").exists():
            muster(home, "down", **found.more)
        if found.state(home.name).get("state") in ("up", "away"):
            muster(found.studio, "revoke", home.name, "--yes", **found.more)


@proves("fleet.machine-leaves", "fleet.left-is-shown")
def test_a_machine_that_leaves_ends_its_task_first_and_joins_again_as_another(three: Three):
    run, before = three.begin(), three.state(three.build.name)["machine"]
    three.join(three.spare)
    with three.leaving() as leave:
        assert leave.stderr is not None
        assert "ends 1 that it works on" in leave.stderr.readline()
        assert three.task(run)["state"] == "leased"
        (three.folder / "stop").touch()
        said, _ = leave.communicate(timeout=60)
    assert leave.returncode == 0
    assert f"{three.build.name} left the fleet" in said
    task = three.task(run)
    # It was done where it was begun: nobody had to do it again.
    assert (task["state"], task["machine"], task["losses"]) == ("done", three.build.name, 0)
    gone = three.state(three.build.name)
    assert (gone["state"], gone["left"]) == ("revoked", True)
    assert re.search(
        rf"^{three.build.name} +left ",
        muster(three.studio, "machines", **three.more).out,
        re.MULTILINE,
    )
    assert (
        "left the fleet" in muster(three.studio, "send", three.build.name, "hi", **three.more).err
    )
    # What is left to do is done there, and needs no word of anybody.
    until(lambda: three.ask(three.build, "status")["revoked"], "build hears of it")
    there = muster(three.build, "machine", "leave", **three.more)
    assert there.code == 0, there
    aside = three.build.with_name(f"{three.build.name}.left")
    assert f"Its home is set aside: {aside}" in there.out
    assert (aside / "log.db").exists()
    assert not three.build.exists()
    three.join(three.build)
    fresh = three.state(three.build.name)
    assert fresh["machine"] != before
    assert three.ask(three.build, "status")["doubt"] is None
    # The name is the new one's alone.
    assert muster(three.studio, "send", three.build.name, "hi", "--wait", **three.more).code == 0


@proves("fleet.machine-leaves-now")
def test_a_machine_that_leaves_now_gives_its_task_to_another_at_once(three: Three):
    run = three.begin()
    three.join(three.spare)
    said = muster(
        three.studio, "machine", "leave", three.build.name, "--now", "--yes", **three.more
    )
    assert said.code == 0, said
    until(lambda: three.task(run)["state"] == "done", "another did it", within_s=20)
    task = three.task(run)
    assert (task["machine"], task["losses"]) == (three.spare.name, 1)


@proves("fleet.machine-leaves")
def test_a_person_who_gives_up_waiting_has_the_machine_take_tasks_again(three: Three):
    run = three.begin()
    with three.leaving() as leave:
        assert leave.stderr is not None
        assert "takes no new task" in leave.stderr.readline()
        leave.send_signal(signal.SIGINT)
        leave.communicate(timeout=60)
    assert "left" not in three.state(three.build.name)
    three.ask(three.studio, "cancel", run)
    assert (
        muster(three.studio, "run", str(three.folder / "long.yaml"), "--again", **three.more).code
        == 0
    )


@proves("fleet.machine-leaves-kept")
def test_what_only_it_keeps_is_named_and_it_stays(three: Three):
    project = three.folder / "project"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(project)]
    project.mkdir()
    for words in (["init", "-q", "-b", "main"], ["commit", "-qm", "one", "--allow-empty"]):
        subprocess.run([*git, *words], check=True)
    url = f"file://{project}"
    assert three.ask(three.studio, "repo", "add", "site", url, "--on", three.build.name)
    until(lambda: "site" in three.state(three.build.name)["facts"]["repositories"], "build says so")
    for home, words in ((three.studio, [three.build.name]), (three.studio, [])):
        said = muster(home, "machine", "leave", *words, "--yes", **three.more)
        assert said.code == 3, said
        if words:
            assert "the repositories site" in said.err
        else:
            for kept in ("the role hub", "authority.seed", "the key of al, the only operator"):
                assert kept in said.err
    assert three.state(three.build.name)["state"] == "up"
    # Without a word of a person nothing is done, and at last it is.
    asked = muster(three.studio, "machine", "leave", three.build.name, "--force", **three.more)
    assert asked.code == 3
    assert "--yes" in asked.err
    words = ("machine", "leave", three.build.name, "--force", "--yes")
    assert muster(three.studio, *words, **three.more).code == 0
    assert three.state(three.build.name)["left"]


@proves("fleet.machine-leaves-kept")
def test_a_machine_without_an_operator_is_told_where_to_type_it_and_forced_it_goes(three: Three):
    said = muster(three.build, "machine", "leave", "--yes", **three.more)
    assert said.code == 4
    assert f"`muster machine leave {three.build.name}` where operator.seed is" in said.err
    assert three.ask(three.build, "status")["name"] == three.build.name
    assert three.ask(three.build, "service", "install")["active"] == "active"
    said = muster(three.build, "machine", "leave", "--force", "--yes", "--json", **three.more)
    assert said.code == 0, said
    assert (said.value["told"], said.value["left"]) == (False, three.build.name)
    assert said.value["service"].startswith("muster")
    assert not three.build.exists()
    assert not list((three.folder / "config").rglob("muster*.service"))
    # Nobody heard of it: the others see a machine that is away.
    assert three.state(three.build.name)["state"] in ("away", "up")
