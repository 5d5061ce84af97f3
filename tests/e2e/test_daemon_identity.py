"""Real daemons that were copied, restored, revoked, or whose certificates ran out."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.errors import MusterError
from muster.fleet import certificate
from muster.node.host.home import Home
from tests.e2e import checks
from tests.e2e.fleet import Fleet, Machine, now_ms, until
from tests.e2e.test_daemon_recovery import say, texts
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

DAY_MS = 86_400_000


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A hub, and a studio that dials it."""
    with Fleet(["hub", "studio"]) as made:
        yield made


def incarnation(machine: Machine) -> str:
    return str(machine.ask("status")["incarnation"])


def copy_of(machine: Machine, to: Path) -> None:
    """The database as a backup would take it."""
    to.mkdir()
    for path in Path(machine.home.path).glob("log.db*"):
        shutil.copy2(path, to / path.name)


def restore(machine: Machine, backup: Path) -> None:
    for path in Path(machine.home.path).glob("log.db*"):
        path.unlink()
    for path in backup.iterdir():
        shutil.copy2(path, Path(machine.home.path) / path.name)


@proves("node.restored-home")
@pytest.mark.parametrize("marked", [True, False])
def test_a_restored_home_opens_a_new_incarnation_and_gets_its_own_words_back(fleet, marked):
    """With its mark it doubts itself at once; without one it hears of it from the hub."""
    studio = fleet["studio"]
    fleet.start()
    early = say(studio, "hub", "before the backup")
    assert studio.stop() == 0
    copy_of(studio, fleet.root / "backup")
    if not marked:
        mark = fleet.root / "state" / "studio"
        shutil.copytree(mark, fleet.root / "mark")
    studio.start()
    old = incarnation(studio)
    until(lambda: "hub" in studio.linked(), "linked")
    late = {say(studio, "hub", f"after the backup {n}") for n in range(5)}
    studio.kill()
    restore(studio, fleet.root / "backup")
    if not marked:
        shutil.rmtree(mark)
        shutil.copytree(fleet.root / "mark", mark)
    studio.start()
    until(lambda: "hub" in studio.linked(), "linked again")
    until(lambda: studio.ask("status")["settled"], "settled")
    again = say(studio, "hub", "after the restore")
    assert incarnation(studio) != old
    until(lambda: not checks.converged(fleet), lambda: checks.converged(fleet))
    for machine in (fleet.hub, studio):
        log = checks.Log(machine)
        held = {r[0].hex() for r in log.rows("select id from message")}
        forks = log.rows("select count(*) n from fork")[0]["n"]
        log.close()
        assert {early, again, *late} <= held, f"{machine.name} lost what was acknowledged"
        assert forks == 0
    checks.check_logs(fleet)


@proves("node.cloned-home")
def test_a_copy_of_a_home_that_runs_beside_the_original_is_an_incident(fleet):
    fleet.start()
    studio = fleet["studio"]
    say(studio, "hub", "one of us")
    assert studio.stop() == 0
    clone = Machine(fleet, "studio", studio.identity, 0)
    clone.home = Home(fleet.root / "clone")
    shutil.copytree(studio.home.path, clone.home.path)
    text = (clone.home.path / "config.toml").read_text()
    (clone.home.path / "config.toml").write_text(text.replace(f"127.0.0.1:{studio.port}", ""))
    clone.env["MUSTER_STATE"] = str(fleet.root / "state" / "clone")
    studio.start()
    fleet.machines["clone"] = clone
    clone.start()

    def alarmed() -> bool:
        return any("two copies" in i["title"] for i in fleet.hub.ask("incidents"))

    until(alarmed, lambda: str(fleet.hub.ask("incidents")), within_s=8)
    for machine in (studio, clone):
        # Neither obeys: it could be obeyed twice.
        with pytest.raises(MusterError, match="copy"):
            say(machine, "all", "still here", wait=False)
    found = next(i for i in fleet.hub.ask("incidents") if "two copies" in i["title"])
    assert found["severity"] == "critical"
    assert "studio" in found["title"]


@proves("node.revoke-cuts")
def test_a_revoked_machine_is_cut_everywhere_within_a_second_and_stays_out():
    dials = {"studio": ["hub", "laptop"], "laptop": ["hub"]}
    with Fleet(["hub", "studio", "laptop"], dials=dials) as fleet:
        fleet.start()
        say(fleet["studio"], "hub", "I was one of you")
        until(lambda: "studio" in fleet["laptop"].linked(), "the laptop is linked with it")
        before = checks.Log(fleet.hub).streams()
        fleet.hub.order("revoke", "studio", {"name": "studio", "reason": "stolen"})
        until(lambda: "studio" not in fleet.hub.linked(), "the hub cut it", within_s=1)
        until(lambda: "studio" not in fleet["laptop"].linked(), "the laptop cut it", within_s=1)
        size = {n: s for n, (_, s) in before.items() if n.startswith(fleet["studio"].id)}
        # It goes on trying and writing; nobody lets it in or takes anything.
        args = {"text": ["let me in"], "to": "all"}
        fleet["studio"].order("send", "all", args)
        fleet["studio"].kill()
        fleet["studio"].start()
        until(lambda: fleet["studio"].ask("status")["revoked"], "it was shown why")
        assert fleet["studio"].ask("status")["revoked"]["reason"] == "stolen"
        assert {m["state"] for m in fleet["studio"].ask("machines") if m["name"] == "studio"} == {
            "revoked"
        }
        time.sleep(2.0)
        for machine in (fleet.hub, fleet["laptop"]):
            assert "studio" not in machine.linked()
            assert {m["state"] for m in machine.ask("machines") if m["name"] == "studio"} == {
                "revoked"
            }
            log = checks.Log(machine)
            now = {n: s for n, (_, s) in log.streams().items() if n in size}
            log.close()
            assert now == {n: s for n, s in size.items() if n in now}
            assert texts(machine) <= {"I was one of you"}


@proves("node.certificates-renew")
@pytest.mark.parametrize("age_days", [16, 90])
def test_certificates_past_half_their_life_or_long_expired_are_renewed_over_the_link(age_days):
    with Fleet(["hub", "studio"], issued_ms=now_ms() - age_days * DAY_MS) as fleet:
        old = {m.name: m.home.facts()["certificate"] for m in fleet.machines.values()}
        fleet.start()

        def fresh(machine: Machine) -> bool:
            pem = machine.home.facts()["certificate"]
            return bool(pem != old[machine.name])

        for machine in fleet.machines.values():
            until(lambda m=machine: fresh(m), f"{machine.name} has new certificates", within_s=20)
            pem = machine.home.facts()["certificate"].encode()
            assert certificate.renew_at_ms(pem) > now_ms() + 10 * DAY_MS
        assert "hub" in fleet["studio"].linked(), "a renewal cuts no link"
        fleet["studio"].kill()
        fleet["studio"].start()
        until(lambda: "hub" in fleet["studio"].linked(), "the new certificates open a link")
