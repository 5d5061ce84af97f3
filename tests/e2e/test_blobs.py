"""Deliverables between real daemons where no repository carries them.

The studio and the laptop have a link to the hub only: what goes between them goes through it.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

from muster.channel.frame import Type, decode, encode
from muster.channel.http import HttpChannel
from muster.channel.knock import Knock
from muster.channel.tls import Credentials
from muster.cli import main as command
from muster.errors import Conflict, Denied, MusterError, Unreachable
from muster.fleet import certificate
from tests.e2e import checks
from tests.e2e.fleet import Fleet, Machine, now_ms, until
from tests.e2e.test_daemon_doors import as_stranger, as_studio, ask, question
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SIZE = 5_000_000
CARRY = """\
muster: 1
name: {name}
phases:
  make:
    needs: {{label: on-studio}}
    agent: shell
    do: |
      head -c {size} /dev/urandom > big.bin
      mkdir -p out/deep && echo one > out/one && echo two > out/deep/two
      printf '#!/bin/sh\\necho ran\\n' > tool && chmod +x tool
      sha256sum < big.bin > sum
    deliver: [big.bin, out, sum, tool]
  agree:
    after: make
    by: human
    do: Look at it
  use:
    after: agree
    needs: {{label: on-laptop}}
    agent: shell
    do: |
      sha256sum < big.bin | cmp - sum
      cat out/one out/deep/two > both
      ./tool >> both
    deliver: both
    check: grep -q ran both && grep -q two both
"""
OVER = """\
muster: 1
name: over
phases:
  first:
    needs: {label: on-studio}
    agent: shell
    do: echo 1 > kept; mkdir out; cd out; echo 1 > changed; echo 1 > same
    deliver: [kept, out]
  second:
    after: first
    needs: {label: on-laptop}
    agent: shell
    do: echo 2 > out/changed
    deliver: out/changed
  third:
    after: second
    needs: {label: on-hub}
    agent: shell
    do: cat kept out/changed out/same > all
    check: test "$(tr -d '\\n' < all)" = 121
"""
RACE = """\
muster: 1
name: race
phases:
  pick:
    race: 2
    agent: shell
    do: echo picked > got
    deliver: got
  use:
    after: pick
    agent: shell
    do: cat got > again
    check: grep -q picked again
"""
LINK = """\
muster: 1
name: link
phases:
  make:
    agent: shell
    do: ln -s /etc/hostname stolen
    deliver: stolen
"""
TWICE = """\
muster: 1
name: twice
phases:
  left:
    agent: shell
    do: echo left > same.txt
    deliver: same.txt
  right:
    agent: shell
    do: echo right > same.txt
    deliver: same.txt
  both:
    after: [left, right]
    agent: shell
    do: cat same.txt
    check: "true"
"""
ONE = """\
muster: 1
name: {name}
phases:
  make:
    needs: {{label: on-studio}}
    agent: shell
    do: head -c {size} /dev/urandom > big.bin
    deliver: big.bin
"""


@pytest.fixture(scope="module")
def fleet():
    with Fleet(["hub", "studio", "laptop"]) as made:
        made.start()
        yield made


def begin(fleet: Fleet, name: str, spec: str) -> str:
    args = {"base": "", "repo": "", "spec": spec, "values": {}}
    return str(fleet.hub.order("run", name, args)["run"])


def tasks(fleet: Fleet, run: str) -> dict[str, dict]:
    return {t["phase"]: t for t in fleet.hub.ask("runs", {"run": run})["tasks"]}


def state(fleet: Fleet, run: str, phase: str) -> str:
    return str(tasks(fleet, run).get(phase, {}).get("state", ""))


def settled(fleet: Fleet, run: str) -> str:
    def over() -> str:
        found = str(fleet.hub.ask("runs", {"run": run})["state"])
        return "" if found == "open" else found

    return str(until(over, lambda: str(fleet.hub.ask("runs", {"run": run})), within_s=60))


def made(fleet: Fleet, name: str, size: int) -> str:
    """A task of the studio that delivered `big.bin`; known to the laptop, too."""
    run = begin(fleet, name, ONE.format(name=name, size=size))
    assert settled(fleet, run) == "done"
    task = str(tasks(fleet, run)["make"]["task"])
    until(lambda: known(fleet["laptop"], task), "the laptop knows the task")
    return task


def known(machine: Machine, task: str) -> bool:
    return any(
        t["task"] == task and t["state"] == "done" for t in machine.ask("tasks", {"all": True})
    )


def files(machine: Machine) -> list[str]:
    folder = Path(machine.home.blobs)
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def blob(machine: Machine, sha256: str) -> Path:
    return Path(machine.home.blobs) / sha256[:2] / sha256[2:]


def artefact(machine: Machine, task: str) -> dict:
    return dict(machine.ask("artefacts", {"task": task})["artefacts"][0])


def fetch(machine: Machine, *words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("MUSTER_HOME", str(machine.home.path))
    monkeypatch.delenv("MUSTER_SOCK", raising=False)
    return command.main(["fetch", *words])


@proves("node.blob-handed-on")
def test_what_one_machine_delivered_another_uses_and_a_person_fetches(
    fleet, tmp_path, monkeypatch, capsys
):
    run = begin(fleet, "carry", CARRY.format(name="carry", size=SIZE))
    until(lambda: state(fleet, run, "agree") == "waiting", "the person is asked", within_s=60)
    task = tasks(fleet, run)["agree"]["task"]
    fleet.hub.order("decide", task, {"task": task, "answer": "yes"})
    assert settled(fleet, run) == "done", fleet.hub.ask("runs", {"run": run})
    assert tasks(fleet, run)["use"]["machine"] == "laptop"
    assert not [name for name in files(fleet.hub) if not name.endswith(".claims")]

    make, target = tasks(fleet, run)["make"]["task"], tmp_path / "there"
    assert fetch(fleet.hub, make, "--to", str(target), monkeypatch=monkeypatch) == 0
    assert "big.bin  5000000 bytes" in capsys.readouterr().out
    sha256 = hashlib.sha256((target / "big.bin").read_bytes()).hexdigest()
    assert (target / "sum").read_text().split()[0] == sha256
    assert (target / "out/deep/two").read_text() == "two\n"
    assert os.access(target / "tool", os.X_OK)
    assert not os.access(target / "sum", os.X_OK)
    # Again, without and with force.
    (target / "sum").write_text("mine")
    assert (
        fetch(fleet.hub, make, "--to", str(target), monkeypatch=monkeypatch) == Conflict.exit_code
    )
    assert (target / "sum").read_text() == "mine"
    words = (make, "sum", "--to", str(target), "--force", "--json")
    assert fetch(fleet.hub, *words, monkeypatch=monkeypatch) == 0
    assert (target / "sum").read_text().split()[0] == sha256


@proves("node.blob-handed-on")
def test_a_phase_gets_what_far_phases_delivered_with_the_later_changes(fleet):
    run = begin(fleet, "over", OVER)
    assert settled(fleet, run) == "done", fleet.hub.ask("runs", {"run": run})
    assert tasks(fleet, run)["third"]["machine"] == "hub"


@proves("node.blob-handed-on")
def test_of_a_race_only_the_winner_hands_on_what_it_delivered(fleet):
    run = begin(fleet, "race", RACE)
    assert settled(fleet, run) == "done", fleet.hub.ask("runs", {"run": run})


@proves("node.blob-delivery-no-links")
def test_an_attempt_that_delivers_a_link_fails_and_says_so(fleet):
    before = {name: files(machine) for name, machine in fleet.machines.items()}
    run = begin(fleet, "link", LINK)
    assert settled(fleet, run) == "failed"
    assert "stolen cannot be delivered: it is a link" in tasks(fleet, run)["make"]["reason"]
    assert {name: files(machine) for name, machine in fleet.machines.items()} == before


@proves("node.blob-handed-on", "spec.collisions")
def test_two_prerequisites_with_the_same_path_are_refused_before_anything_runs(fleet):
    with pytest.raises(MusterError, match="is delivered to by left, too"):
        begin(fleet, "twice", TWICE)


@proves("node.blob-hash-is-no-capability")
def test_a_machine_that_may_not_read_is_denied_by_a_real_daemon(fleet):
    task = made(fleet, "denied", 10_000)
    found = artefact(fleet.hub, task)
    args = {"entry": "00" * 32, "sha256": found["sha256"]}

    async def asked(dial) -> dict:
        link = await dial(fleet)
        try:
            return dict(await ask(link, 5, question("blob.serve", args)) or {})
        finally:
            await link.close("done")

    for dial in (as_stranger, as_studio):
        assert asyncio.run(asked(dial))["error"]["kind"] == Denied.__name__
    with pytest.raises(Denied):
        fleet.hub.ask("blob.serve", args)


@proves("node.blob-whole-or-nothing")
def test_tampered_bytes_are_refused_and_nothing_is_left_behind(
    fleet, tmp_path, monkeypatch, capsys
):
    task = made(fleet, "tampered", 1_000_000)
    found = artefact(fleet["studio"], task)
    path = blob(fleet["studio"], found["sha256"])
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    before = files(fleet["laptop"])
    words = (task, "--to", str(tmp_path / "to"))
    assert fetch(fleet["laptop"], *words, monkeypatch=monkeypatch) != 0
    assert files(fleet["laptop"]) == before
    assert not (tmp_path / "to").exists()
    path.write_bytes(good)
    assert fetch(fleet["laptop"], *words, monkeypatch=monkeypatch) == 0
    assert (tmp_path / "to/big.bin").read_bytes() == good


@proves("node.blob-whole-or-nothing", "node.blob-resumes")
def test_a_kill_in_the_middle_is_no_blob_and_a_repeat_goes_on_there(fleet, tmp_path, monkeypatch):
    laptop = fleet["laptop"]
    task = made(fleet, "killed", 200_000_000)
    found = artefact(laptop, task)
    folder = Path(laptop.home.blobs)

    def try_it() -> None:
        # The daemon is killed meanwhile.
        with contextlib.suppress(MusterError, OSError), laptop.client(timeout_s=60) as client:
            client.call("blob.bring", {"task": task, "path": "big.bin"})

    asking = threading.Thread(target=try_it)
    asking.start()
    end = time.perf_counter() + 30
    parts = f".part-{found['sha256']}-*"
    while not any(p.stat().st_size for p in folder.glob(parts)):
        assert time.perf_counter() < end
        time.sleep(0.001)
    laptop.kill()
    asking.join()
    assert not blob(laptop, found["sha256"]).exists()
    (part,) = folder.glob(parts)
    here = part.stat()
    laptop.start()
    assert (part.stat().st_ino, part.stat().st_size) == (here.st_ino, here.st_size)
    assert not blob(laptop, found["sha256"]).exists()
    until(lambda: "hub" in laptop.linked(), "the laptop is linked again")
    assert fetch(laptop, task, "--to", str(tmp_path), monkeypatch=monkeypatch) == 0
    assert hashlib.sha256((tmp_path / "big.bin").read_bytes()).hexdigest() == found["sha256"]
    assert blob(laptop, found["sha256"]).stat().st_ino == here.st_ino
    # What an entry names outlives the next start.
    laptop.stop()
    laptop.start()
    assert blob(laptop, found["sha256"]).exists()


@proves("node.blob-hash-is-no-capability")
def test_a_machine_that_was_shut_out_gets_no_blob_with_the_right_entry(fleet):
    """Last of this file: it takes the laptop out of the fleet."""
    studio = fleet["studio"]
    task = made(fleet, "shut-out", 10_000)
    args = {"entry": finish_of(studio, task), "sha256": artefact(studio, task)["sha256"]}
    answer, data = asyncio.run(ask_studio(fleet, args))
    assert (answer["ok"], data) == (True, 10_000)
    fleet.hub.order("revoke", "laptop", {"name": "laptop"})
    until(lambda: is_revoked(studio, "laptop"), "the studio knows")
    try:
        answer, data = asyncio.run(ask_studio(fleet, args))
    except MusterError:
        answer, data = {}, 0
    assert (answer.get("ok", False), data) == (False, 0)


def is_revoked(machine: Machine, name: str) -> bool:
    return any(m["name"] == name and m["state"] == "revoked" for m in machine.ask("machines"))


def finish_of(machine: Machine, task: str) -> str:
    log = checks.Log(machine)
    try:
        rows = log.rows(f"select hex(ended) id from attempt where task = '{task}'")
    finally:
        log.close()
    return str(rows[0]["id"]).lower()


async def ask_studio(fleet: Fleet, args: dict) -> tuple[dict, int]:
    """A question of the laptop's key, past its daemon: the answer, and how many bytes came."""
    facts = fleet["laptop"].home.facts()
    certificates = certificate.CertificateChain(facts["certificate"].encode(), facts["ca"].encode())
    credentials = Credentials(*certificate.tls_files(fleet["laptop"].identity, certificates))
    channel = HttpChannel(credentials, lambda _der: fleet["studio"].id)
    channel.knock = Knock(fleet.fleet, "", now_ms, lambda: False)
    link = await channel.dial(f"127.0.0.1:{fleet['studio'].port}")
    answer, data = {}, 0
    try:
        await link.send(encode(Type.CALL, 5, question("blob.serve", args)))
        async with asyncio.timeout(5):
            while True:
                frame = decode(await link.receive())
                if frame.channel != 5:
                    continue
                if frame.type is Type.REPLY:
                    answer = json.loads(frame.payload[1:])
                    if not answer["ok"]:
                        break
                data += len(frame.payload) if frame.type is Type.DATA else 0
                if frame.type is Type.CLOSE:
                    break
    except (TimeoutError, Unreachable):
        pass
    finally:
        await link.close("done")
    return answer, data
