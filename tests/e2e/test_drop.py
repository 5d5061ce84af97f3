"""Two real daemons without any link, and a folder that both see."""

import contextlib
import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from muster.channel import drop
from muster.errors import MusterError
from muster.limits import BLOB_PART_BYTES_MAX
from muster.node.host.config import config_text
from tests.e2e import test_blobs
from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves

pytest.importorskip("pyrage", reason="pip install 'muster-fleet[drop]'")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

BIG = 24_000_000


def share(machine: Machine, place: Path) -> None:
    """Write `[channel.drop]` into its configuration."""
    config = machine.home.config()
    channel = {**config.channel, "drop": drop.Options(place=str(place), deadline_s=1)}
    machine.home.put("config.toml", config_text(replace(config, channel=channel)))


@contextlib.contextmanager
def apart(*places: Path) -> Iterator[Fleet]:
    """A hub and a studio that can only meet in a folder: each has its own path to one."""
    with Fleet(["hub", "studio"], deaf=["hub", "studio"]) as fleet:
        for machine, place in zip((fleet.hub, fleet["studio"]), places, strict=True):
            machine.edit_facts(dial={})
            share(machine, place)
        fleet.start()
        yield fleet


def send(machine: Machine, to: str, text: str, *, wait: bool = True) -> str:
    with machine.client(timeout_s=60) as client:
        return client.order("send", to, {"to": to, "text": [text], "wait": wait})["state"]


def texts(machine: Machine) -> list[str]:
    return [message["text"] for message in machine.ask("inbox")]


@proves("channel.drop-carries", "log.post-receipt-alone")
def test_machines_without_a_link_send_each_other_messages_through_a_folder(tmp_path):
    place = tmp_path / "shared"
    place.mkdir()
    with apart(place, place) as fleet:
        hub, studio = fleet.hub, fleet["studio"]
        assert send(hub, "studio", "one") == "stored"
        assert send(studio, "hub", "two") == "stored"
        assert (texts(studio), texts(hub)) == (["one"], ["two"])
        for machine, other in ((hub, "studio"), (studio, "hub")):
            (row,) = [each for each in machine.ask("machines") if each["name"] == other]
            assert row["state"] != "up", "a mailbox is no presence"
            way = {"channel": "drop", "address": str(place), "state": "worked", "error": ""}
            assert way in row["ways"]
            (shown,) = [each for each in machine.ask("channels") if each["channel"] == "drop"]
            assert (shown["machine"], shown["state"], shown["backlog"]) == (other, "worked", 0)
            assert shown["proof_ms_ago"] > 0
            (message,) = machine.ask("sent")
            found = machine.ask("why", {"task": message["message"]})
            (receiver,) = found["message"]["to"]
            assert {"left", "answers"} <= {each["outcome"] for each in receiver["tries"]}
        until(lambda: not list(place.rglob("*.mp")), "what was dealt with is gone from the folder")
        with hub.client(timeout_s=60) as client:
            pinged = client.call("ping", {"machine": "studio", "via": "drop"})
        assert (pinged["how"], pinged["channel"]) == ("parcel", "drop")
        assert pinged["by"] == studio.id
        # A stick that is taken away, and put back.
        place.rename(tmp_path / "away")
        assert send(hub, "studio", "three", wait=False) == "waiting"
        until(
            lambda: (
                "shared"
                in str(
                    next(w for w in hub.ask("machines") if w["name"] == "studio")["ways"][-1][
                        "error"
                    ]
                )
            ),
            "the place is said to be away",
        )
        (shown,) = [each for each in hub.ask("channels") if each["channel"] == "drop"]
        assert shown["state"] == "failed"
        assert "shared" in shown["reason"]
        (tmp_path / "away").rename(place)
        until(lambda: texts(studio) == ["one", "three"], "it is delivered once the place is back")


@proves("node.blob-mailbox", "node.blob-resumes")
def test_a_deliverable_comes_by_a_folder_alone_and_who_is_killed_meanwhile_goes_on_there(tmp_path):
    place = tmp_path / "shared"
    place.mkdir()
    with apart(place, place) as fleet:
        hub, studio = fleet.hub, fleet["studio"]
        spec = test_blobs.ONE.format(name="big", size=BIG).replace("on-studio", "on-hub")
        run = test_blobs.begin(fleet, "big", spec)
        assert test_blobs.settled(fleet, run) == "done"
        task = test_blobs.tasks(fleet, run)["make"]["task"]
        until(lambda: test_blobs.known(studio, task), "the studio knows the task", within_s=60)
        found = test_blobs.artefact(studio, task)
        words = {"task": task, "path": "big.bin"}

        def try_it() -> None:
            # The daemon is killed meanwhile.
            with contextlib.suppress(MusterError, OSError), studio.client(timeout_s=60) as client:
                client.call("blob.bring", words)

        asking = threading.Thread(target=try_it)
        asking.start()
        folder = Path(studio.home.blobs)
        until(lambda: sum(p.stat().st_size for p in folder.glob(".part-*")) > BIG * 3 // 4,
              "most of it is there", within_s=60)  # fmt: skip
        studio.kill()
        asking.join()
        (part,) = folder.glob(".part-*")
        here = part.stat()
        left = hub.ask("status")["counters"]["parcels-left"]
        studio.start()
        with studio.client(timeout_s=120) as client:
            client.call("blob.bring", words)
        blob = test_blobs.blob(studio, found["sha256"])
        assert blob.stat().st_ino == here.st_ino
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == found["sha256"]
        # The rest of it, a window that was left for who was killed, and what else there was to say.
        again = hub.ask("status")["counters"]["parcels-left"] - left
        assert again < BIG // BLOB_PART_BYTES_MAX


class Syncing:
    """A tool that copies files from one folder to another: late, in pieces, under their names."""

    def __init__(self, one: Path, other: Path) -> None:
        self.sides = (one, other)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        known: set[str] = set()
        while not self.ended.wait(0.05):
            found = [{str(p.relative_to(side)) for p in side.glob("*/*.mp")} for side in self.sides]
            for name in (found[0] | found[1]) - known:
                here, there = self.sides if name in found[0] else self.sides[::-1]
                self.copy(here / name, there / name)
            for name in known - (found[0] & found[1]):
                for side in self.sides:
                    (side / name).unlink(missing_ok=True)
            known |= found[0] | found[1]

    def copy(self, here: Path, there: Path) -> None:
        raw = here.read_bytes()
        there.parent.mkdir(exist_ok=True)
        with there.open("wb") as file:
            file.write(raw[: len(raw) // 2])
            file.flush()
            self.ended.wait(0.1)
            file.write(raw[len(raw) // 2 :])
        shutil.copystat(here, there)

    def end(self) -> None:
        self.ended.set()
        self.thread.join()


@proves("channel.drop-whole-or-not")
def test_a_tool_that_copies_files_by_halves_and_late_carries_messages_too(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    tool = Syncing(here, there)
    try:
        with apart(here, there) as fleet:
            assert send(fleet.hub, "studio", "one") == "stored"
            assert send(fleet["studio"], "hub", "two") == "stored"
            assert (texts(fleet["studio"]), texts(fleet.hub)) == (["one"], ["two"])
            counters = fleet["studio"].ask("status")["counters"]
            assert not [name for name in counters if name.startswith("parcels-refused")]
    finally:
        tool.end()
