"""Two real daemons without any link, and a git repository that both reach."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from muster.channel import git
from muster.node.host.config import config_text
from tests.channel.git_places import bare
from tests.e2e.fleet import Fleet, Machine, until
from tests.e2e.test_drop import send, texts
from tests.e2e.test_pushes import git as pushed
from tests.e2e.test_pushes import let_push
from tests.git.repositories import sh
from tests.promise import proves

pytest.importorskip("pyrage", reason="pip install 'muster-fleet[sealed]'")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

WITHIN_S = 120.0


@contextlib.contextmanager
def apart(place: Path) -> Iterator[Fleet]:
    """A hub and a studio that can only meet in the repository."""
    with Fleet(["hub", "studio"], deaf=["hub", "studio"]) as fleet:
        for machine in fleet.machines.values():
            machine.edit_facts(dial={})
            config = machine.home.config()
            options = git.Options(place=str(place), deadline_s=1)
            channel = {**config.channel, "git": options}
            machine.home.put("config.toml", config_text(replace(config, channel=channel)))
        fleet.start()
        yield fleet


def branch(machine: Machine) -> str:
    return f"refs/heads/muster-post/{machine.id[:16]}"


@proves("channel.git-carries", "log.post-receipt-alone")
def test_machines_without_a_link_send_each_other_messages_through_a_repository(tmp_path):
    place = bare(tmp_path / "shared.git")
    with apart(place) as fleet:
        hub, studio = fleet.hub, fleet["studio"]
        assert send(hub, "studio", "a secret word") == "stored"
        assert send(studio, "hub", "two") == "stored"
        assert (texts(studio), texts(hub)) == (["a secret word"], ["two"])
        for machine, other in ((hub, "studio"), (studio, "hub")):
            (row,) = [each for each in machine.ask("machines") if each["name"] == other]
            assert row["state"] != "up", "a mailbox is no presence"
            way = {"channel": "git", "address": str(place), "state": "worked", "error": ""}
            assert way in row["ways"]
        shown = subprocess.run(
            ["git", "cat-file", "--batch-all-objects", "--batch"],
            cwd=place, capture_output=True, check=True,
        ).stdout  # fmt: skip
        assert b"age-encryption.org" in shown
        assert b"secret word" not in shown
        # A person tidies up, the repository is away for a while, and a machine is killed meanwhile.
        for machine in (hub, studio):
            sh(place, "update-ref", "-d", branch(machine))
        place.rename(tmp_path / "away")
        assert send(hub, "studio", "three", wait=False) == "waiting"
        hub.kill()
        (tmp_path / "away").rename(place)
        hub.start()
        until(
            lambda: texts(studio) == ["a secret word", "three"],
            lambda: f"it came: {texts(studio)} {hub.ask('status')['counters']}",
            within_s=WITHIN_S,
        )
        heads = sh(place, "for-each-ref", "--format=%(refname)").split()
        assert set(heads) <= {branch(hub), branch(studio)}
        for head in heads:
            assert sh(place, "rev-list", "--count", head) == "1"
        assert (hub.stop(), studio.stop()) == (0, 0)


@proves("channel.git-event", "git.parcels-own-branch")
def test_a_repository_of_the_fleet_tells_at_once_what_was_left_and_lets_each_write_its_own(
    tmp_path,
):
    with Fleet(["hub", "studio"]) as fleet:
        place = fleet.add_repository()
        fleet.start()
        hub, studio = fleet.hub, fleet["studio"]
        for machine in (hub, studio):
            let_push(fleet, machine)
            # Nobody looks of itself.
            config = machine.home.config()
            options = git.Options(place="muster::hub/main", deadline_s=86_400)
            channel = {**config.channel, "git": options}
            machine.home.put("config.toml", config_text(replace(config, channel=channel)))
        for machine in (hub, studio):
            machine.stop()
        fleet.start()

        def came(machine: Machine) -> int:
            return int(machine.ask("status")["counters"].get("parcels-came", 0))

        def counters() -> str:
            return str([machine.ask("status")["counters"] for machine in (hub, studio)])

        until(lambda: came(hub) and came(studio), counters, within_s=WITHIN_S)
        for machine in (hub, studio):
            assert sh(place, "rev-list", "--count", branch(machine)) == "1"
        # By hand, as the machine that it is.
        clone, env = tmp_path / "clone", {"MUSTER_PUSHES": "machine"}
        assert not pushed(
            studio, fleet.root, "clone", "-q", "muster::hub/main", str(clone)
        ).returncode
        words = ("push", "-q", "--force", "origin")
        for word in ("one", "two"):
            made = sh(clone, "commit-tree", "-m", word, "HEAD^{tree}")
            # The daemon may be putting its own back at this moment.
            until(
                lambda c=made: (
                    pushed(studio, clone, *words, f"{c}:{branch(studio)}", **env).returncode == 0
                ),
                "a machine rewrites its own branch",
                within_s=WITHIN_S,
            )
            done = pushed(studio, clone, *words, f"{made}:{branch(hub)}", **env)
            assert "holds the parcels of another machine" in done.stderr
        # What was overwritten comes back.
        until(lambda: "to" in sh(place, "ls-tree", "--name-only", branch(studio)).split(),
              "the branch is the machine's again", within_s=WITHIN_S)  # fmt: skip
