"""What a person types who lost the first machine, or a key, and kept copies; and a second device.

Each test is a real fleet of daemons: hub (init ran here) and studio, which listens, too.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.terminal import at_terminal
from tests.cli.world import Said, muster
from tests.ports import free_port
from tests.promise import proves

pytestmark = pytest.mark.e2e

SEEDS = ("authority.seed", "operator.seed")


class Fleet:
    """Homes in one folder, each with its daemon while it is up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = folder / "kept"
        self.kept.mkdir()

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    def say(self, name: str, *words: str) -> Said:
        return muster(self[name], *words)

    def ok(self, name: str, *words: str) -> Any:
        said = muster(self[name], *words, "--json")
        assert said.code == 0, (words, said)
        lines = said.out.strip().splitlines()
        return json.loads(lines[-1]) if lines else None

    def begin(self) -> "Fleet":
        address = f"127.0.0.1:{free_port()}"
        self.ok("hub", "init", "--name", "hub", "--operator", "alice", "--listen", address)
        for name in SEEDS:
            shutil.copy2(self["hub"] / name, self.kept / name)
        self.ok("hub", "up", "--detach")
        self.join("studio", self.ok("hub", "invite", "studio")["invitation"])
        self.ok("hub", "send", "studio", "welcome", "--wait")
        return self

    def join(self, name: str, invitation: str) -> None:
        self.ok(name, "join", invitation, "--listen", f"127.0.0.1:{free_port()}")
        self.ok(name, "up", "--detach")

    def put_back(self, name: str, *seeds: str) -> None:
        for seed in seeds:
            shutil.copy2(self.kept / seed, self[name] / seed)

    def lose(self, name: str) -> None:
        """The machine burns: its daemon and everything in its home are gone."""
        pid = int((self[name] / "run" / "pid").read_text())
        os.kill(pid, 9)
        shutil.rmtree(self[name])

    def end(self) -> None:
        for home in self.folder.iterdir():
            if (home / "run" / "pid").exists():
                muster(home, "down")


@pytest.fixture
def fleet(tmp_path):
    found = Fleet(tmp_path)
    try:
        yield found.begin()
    finally:
        found.end()


def states(fleet: Fleet, at: str) -> dict[str, str]:
    return {m["name"]: m["state"] for m in fleet.ok(at, "machines")}


@proves("cli.recovery")
def test_the_first_machine_is_lost_and_another_one_takes_its_place_with_the_kept_seeds(fleet):
    """README, step 11."""
    address = str(json.loads((fleet["studio"] / "fleet.json").read_text())["address"])
    fleet.lose("hub")
    refused = fleet.say("studio", "invite", "nas")
    assert (refused.code, "operator.seed" in refused.err) == (4, True)
    fleet.put_back("studio", *SEEDS)
    fleet.ok("studio", "down")
    fleet.ok("studio", "up", "--detach")
    assert fleet.ok("studio", "revoke", "hub", "--reason", "burnt")["hub_left"] is False
    invited = fleet.ok("studio", "invite", "nas", "--address", address)
    assert invited["became_hub"] == "studio"
    fleet.join("nas", invited["invitation"])
    fleet.ok("studio", "send", "nas", "welcome", "--wait")
    assert states(fleet, "nas") == {"hub": "revoked", "studio": "up", "nas": "here"}
    roles = {m["name"]: m["roles"] for m in fleet.ok("nas", "machines")}
    assert "hub" in roles["studio"]
    assert fleet.say("studio", "doctor").code == 0


@proves("cli.recovery")
def test_a_lost_operators_key_is_put_back_or_replaced_where_the_authority_is(fleet):
    (fleet["hub"] / "operator.seed").unlink()
    assert fleet.say("hub", "send", "studio", "hi").code == 4
    fleet.put_back("hub", "operator.seed")
    assert fleet.say("hub", "send", "studio", "hi").code == 0
    # No copy was kept: whoever holds the authority makes a new operator, who shuts the old one out.
    (fleet["hub"] / "operator.seed").unlink()
    taken = fleet.say("hub", "operator", "add", "alice", "--here")
    assert (taken.code, "already" in taken.err) == (6, True)
    assert not (fleet["hub"] / "operator.seed").exists()
    fleet.ok("hub", "operator", "add", "alice-anew", "--here")
    fleet.ok("hub", "operator", "revoke", "alice")
    fleet.ok("hub", "send", "studio", "hi again", "--wait")
    listed = fleet.ok("hub", "operator", "list")["operators"]
    assert {o["name"]: o["state"] for o in listed} == {"alice": "revoked", "alice-anew": "orders"}
    away = fleet.say("studio", "operator", "add", "me", "--here")
    assert (away.code, "authority.seed" in away.err) == (5, True)


@proves("cli.recovery")
def test_a_home_with_the_kept_seeds_begins_the_same_fleet_anew(fleet):
    known = fleet.ok("hub", "status")["fleet"]
    fleet.lose("hub")
    fleet["anew"].mkdir(mode=0o700)
    fleet.put_back("anew", *SEEDS)
    begun = fleet.ok("anew", "init", "--name", "anew", "--operator", "alice", "--listen",
                     f"127.0.0.1:{free_port()}")  # fmt: skip
    assert begun["fleet"] == known
    fleet.ok("anew", "up", "--detach")
    listed = fleet.ok("anew", "operator", "list")["operators"]
    assert [(o["name"], o["state"]) for o in listed] == [("alice", "orders")]
    assert fleet.ok("anew", "invite", "nas")["name"] == "nas"


@proves("cli.operators")
def test_a_second_operator_orders_with_a_key_that_never_left_its_machine(fleet):
    key = fleet.say("studio", "operator", "key").out.strip()
    assert len(key) == 64
    assert fleet.say("studio", "operator", "key").out.strip() == key
    whose = fleet.say("hub", "operator", "add", "bob")
    assert (whose.code, "muster operator key" in whose.err) == (3, True)
    fleet.ok("hub", "operator", "add", "bob", "--key", key)
    fleet.ok("hub", "send", "studio", "you may", "--wait")
    fleet.ok("studio", "send", "hub", "from bob", "--wait")
    keys = {(fleet[name] / "operator.seed").read_bytes() for name in ("hub", "studio")}
    assert len(keys) == 2
    assert "bob" in fleet.say("studio", "operator", "list").out


@proves("cli.devices")
def test_a_second_device_orders_with_a_key_of_its_own_until_it_is_revoked(fleet):
    before = fleet.say("studio", "send", "hub", "hi")
    assert (before.code, "muster device add" in before.err) == (4, True)
    shown = fleet.say("hub", "device", "add", "studio")
    assert shown.code == 0, shown
    string = next(w for w in shown.out.split() if w.startswith("muster-device1."))
    wrong = fleet.say("hub", "device", "join", string)
    assert (wrong.code, "studio" in wrong.err) == (4, True)
    assert not (fleet["hub"] / "device.seed").exists()
    joined = fleet.say("studio", "device", "join", string)
    assert joined.code == 0, joined
    seed = fleet["studio"] / "device.seed"
    assert seed.stat().st_mode & 0o777 == 0o600
    assert not (fleet["studio"] / "operator.seed").exists()
    fleet.ok("studio", "send", "hub", "from my laptop", "--wait")
    assert fleet.say("studio", "revoke", "hub", "--yes").code == 4
    assert fleet.say("studio", "invite", "nas").code == 4
    assert fleet.say("hub", "device", "add", "studio").code == 6
    assert "studio" in fleet.say("studio", "device", "list").out
    fleet.ok("hub", "device", "revoke", "studio")
    fleet.ok("hub", "send", "studio", "you are out", "--wait")
    assert fleet.say("studio", "send", "hub", "hi").code == 4
    assert fleet.say("studio", "device", "join", string).code == 4
    assert states(fleet, "hub") == {"hub": "here", "studio": "up"}
    # A new string makes a new key; the old file is kept under another name.
    old = seed.read_bytes()
    again = fleet.ok("hub", "device", "add", "studio", "--may", "send:hub")["string"]
    fleet.ok("hub", "send", "studio", "come back", "--wait")
    fleet.ok("studio", "device", "join", again)
    assert seed.read_bytes() != old
    fleet.ok("studio", "send", "hub", "back", "--wait")
    assert fleet.say("studio", "send", "studio", "to me").code == 4


@proves("cli.asks-before-what-destroys")
def test_a_person_at_a_terminal_is_asked_and_a_script_says_yes_or_is_refused(fleet):
    for answer in ("n", ""):
        code, text = at_terminal(fleet["hub"], "revoke", "studio", answer=answer)
        assert ("for good" in text, "[y/N]" in text, code) == (True, True, 3)
        assert states(fleet, "hub")["studio"] == "up"
    code, text = at_terminal(fleet["hub"], "revoke", "nobody", "--yes", answer="")
    assert ("[y/N]" in text, code) == (False, 5)
    # What would be refused is not asked about, and who is meant is said.
    for words, found in ((("revoke", "nobody"), 5), (("revoke", "alice"), 3), (("revoke", "hub"), 3),
                         (("operator", "revoke", "alice"), 3), (("device", "revoke", "studio"), 5)):  # fmt: skip
        code, text = at_terminal(fleet["hub"], *words, answer="y")
        assert ("[y/N]" in text, code) == (False, found)
    code, text = at_terminal(fleet["hub"], "revoke", "studio", answer="n")
    assert "machine studio is shut out" in text
    refused = fleet.say("hub", "repo", "remove", "main")
    assert (refused.code, "--yes" in refused.err) == (3, True)
    assert states(fleet, "hub")["studio"] == "up"
    code, text = at_terminal(fleet["hub"], "revoke", "studio", answer="y")
    assert ("[y/N]" in text, code) == (True, 0)
    assert states(fleet, "hub")["studio"] == "revoked"
    last = fleet.say("hub", "revoke", "alice")
    assert (last.code, "[y/N]" in last.err, "--last" in last.err) == (3, False, True)


@proves("fleet.one-space-of-names")
def test_a_machine_and_its_operator_do_not_begin_with_one_name(tmp_path):
    refused = muster(tmp_path / "a", "init", "--name", "alice", "--operator", "alice")
    assert (refused.code, "--operator" in refused.err) == (3, True)
    assert not (tmp_path / "a").exists()
    login = muster(tmp_path / "b", "init", "--name", "b", "--listen", "", "--json").value
    same = muster(tmp_path / "c", "init", "--name", login["operator"], "--listen", "", "--json")
    assert same.value["operator"] == "owner"
