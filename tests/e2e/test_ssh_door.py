"""Two daemons of which one reaches the other through its sshd alone, and what a revocation ends."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from muster.channel.ssh import Options
from muster.errors import Refused, Unreachable
from muster.fleet.ssh_certificate import PROGRAM
from muster.node.host import lock
from muster.node.host.config import config_text
from tests.channel import sshd
from tests.channel.sshd import Sshd
from tests.e2e.fleet import Fleet, Machine, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
LATER_S = 90.0


@pytest.fixture
def door() -> Iterator[Sshd]:
    sshd.require()
    made = Sshd()
    made.keys.write_text("# nobody yet\n")
    yield made
    made.close()


def settings(machine: Machine, **channel: Any) -> None:
    config = machine.home.config()
    changed = replace(config, channel=channel)
    machine.home.put("config.toml", config_text(changed))


def has_certificates(machine: Machine) -> bool:
    return Path(machine.home.path / "ssh" / "certificates.json").exists()


def ssh_state(machine: Machine, other: str) -> tuple[str, str]:
    """State and reason of the channel, as `muster channels` shows it."""
    rows = [r for r in machine.ask("channels") if (r["machine"], r["channel"]) == (other, "ssh")]
    return (rows[0]["state"], rows[0]["reason"]) if rows else ("", "")


@proves("ssh.followed")
def test_two_machines_exchange_all_through_sshd_until_one_is_revoked(door: Sshd):
    with Fleet(["hub", "laptop"]) as fleet:
        hub, laptop = fleet["hub"], fleet["laptop"]
        hub.env["HOME"] = str(door.folder)
        fleet.start()
        until(lambda: has_certificates(hub) and has_certificates(laptop), "both have certificates")
        # Nobody of the fleet is let in before a person says so.
        door.program.unlink(missing_ok=True)
        trusted = hub.ask("ssh", {"action": "trust", "file": str(door.keys)})
        assert trusted == {"did": "trusted", "file": str(door.keys), "machines": 1}
        assert (door.folder / PROGRAM).exists()
        # From elsewhere nobody says which file is written.
        with laptop.client() as client:
            args = {"action": "trust", "file": str(door.folder / "another")}
            statement = fleet.sign("ssh", "*", hub, args)
            with pytest.raises(Refused, match="leave --file away"):
                client.call("ssh", args, on="hub", statement=statement)
        assert not (door.folder / "another").exists()
        assert laptop.id in door.keys.read_text()
        for machine in (hub, laptop):
            machine.stop()
        # From here on nothing of ours listens, and the laptop knows sshd alone.
        settings(hub)
        settings(laptop, ssh=Options(peers={"hub": door.account}))
        laptop.edit_facts(dial={})
        for machine in (hub, laptop):
            machine.edit_facts(address="", listen="")
            machine.start()
        until(lambda: ssh_state(laptop, "hub")[0] == "speaks", lambda: str(laptop.ask("channels")),
              within_s=LATER_S)  # fmt: skip
        for one, other in ((laptop, "hub"), (hub, "laptop")):
            args = {"to": other, "text": [f"to {other}"], "wait": True}
            with one.client(timeout_s=LATER_S) as client:
                assert client.order("send", other, args)["state"] == "stored"
        sessions = door.log().count("Starting session: forced-command")
        assert sessions >= 1
        hub.order("revoke", "laptop", {"name": "laptop"})
        until(lambda: laptop.id not in door.keys.read_text(), "its name is gone from the keys")
        assert "nobody" in door.keys.read_text()
        until(lambda: ssh_state(laptop, "hub")[0] not in ("up", "speaks"), "it is cut",
              within_s=LATER_S)  # fmt: skip
        until(lambda: hub.ask("status")["counters"].get("ssh-cut"), "sshd's connection is cut")
        machines = {m["name"]: m for m in hub.ask("machines")}
        assert machines.get("laptop", {}).get("state") != "up"


@proves("ssh.followed")
def test_who_was_let_in_before_its_revocation_was_known_to_sshd_is_refused_inside(door: Sshd):
    """The file of keys may be late, or an administrator's: TLS inside refuses all the same."""
    with Fleet(["hub", "laptop"]) as fleet:
        hub, laptop = fleet["hub"], fleet["laptop"]
        hub.env["HOME"] = str(door.folder)
        settings(laptop, ssh=Options(peers={"hub": door.account}))
        fleet.start()
        until(lambda: has_certificates(hub) and has_certificates(laptop), "both have certificates")
        hub.ask("ssh", {"action": "trust", "file": str(door.keys)})
        line = door.keys.read_text()
        for machine in (laptop, hub):
            machine.stop()
        # Over http it would be shown its revocation, and dial nobody any more.
        settings(hub)
        hub.edit_facts(address="", listen="")
        hub.start()
        hub.order("revoke", "laptop", {"name": "laptop"})
        until(lambda: laptop.id not in door.keys.read_text(), "its name is gone from the keys")
        # As an administrator may have it, who trusts the key and follows nothing.
        door.keys.write_text(line.replace("muster-fleet-", "by-hand-"))
        laptop.edit_facts(dial={})
        laptop.start()
        until(lambda: hub.ask("status")["counters"].get("ssh-refused-denied"), "TLS refuses it",
              within_s=LATER_S)  # fmt: skip
        until(lambda: hub.ask("status")["counters"].get("ssh-cut"), "and cuts it")
        assert laptop.linked() == set()
        again = hub.ask("ssh", {"action": "trust", "file": str(door.keys)})
        assert again["machines"] == 0


def muster(machine: Machine, *words: str) -> None:
    """A command that a person types there."""
    subprocess.run(
        [sys.executable, "-m", "muster", "--home", str(machine.home.path), *words],
        env=machine.fleet.environment(machine) | machine.env, check=True, capture_output=True,
        timeout=LATER_S,
    )  # fmt: skip


def said(machine: Machine, to: str, text: str) -> str:
    """How far a message came that was sent and waited for."""
    args = {"to": to, "text": [text], "wait": True}
    with machine.client(timeout_s=LATER_S) as client:
        return str(client.order("send", to, args)["state"])


@proves("ssh.visited")
def test_where_no_daemon_runs_sshd_begins_one_that_ends_after_the_visit(door: Sshd):
    with Fleet(["hub", "laptop"]) as fleet:
        hub, laptop = fleet["hub"], fleet["laptop"]
        hub.env["HOME"] = str(door.folder)
        fleet.start()
        until(lambda: has_certificates(hub) and has_certificates(laptop), "both have certificates")
        hub.ask("ssh", {"action": "trust", "file": str(door.keys)})
        for machine in (hub, laptop):
            machine.stop()
        assert lock.holder(hub.home.lock) is None
        settings(laptop, ssh=Options(peers={"hub": door.account}))
        laptop.edit_facts(dial={})
        laptop.start()
        assert said(laptop, "hub", "nobody is there") == "stored"
        status = hub.ask("status")
        assert status["process"]["visiting"]
        assert status["process"]["pid"] == lock.holder(hub.home.lock)
        # It listens nowhere, and takes no work.
        with pytest.raises(OSError):  # noqa: SIM117
            with sshd.socket.create_connection(("127.0.0.1", hub.port), 5):
                pass
        until(lambda: hub.ask("facts")["slots"] == 0, "it offers no room for work")
        laptop.stop()
        until(lambda: lock.holder(hub.home.lock) is None, "it ends after the visit",
              within_s=LATER_S)  # fmt: skip
        with pytest.raises(Unreachable):
            hub.ask("status")
        # And one that a person begins takes its place while somebody is there.
        laptop.start()
        assert said(laptop, "hub", "again") == "stored"
        assert hub.ask("status")["process"]["visiting"]
        muster(hub, "up", "--detach")
        try:
            assert not hub.ask("status")["process"]["visiting"]
            assert said(laptop, "hub", "to one that stays") == "stored"
            texts = [m["text"] for m in hub.ask("inbox")]
            assert texts == ["nobody is there", "again", "to one that stays"]
        finally:
            muster(hub, "down")
        # What a person put down stays down, and whoever dials is told so.
        told = lambda: "put its daemon down" in str(laptop.ask("machines"))  # noqa: E731
        until(told, lambda: str(laptop.ask("machines")), within_s=LATER_S)
        assert lock.holder(hub.home.lock) is None
        laptop.stop()
