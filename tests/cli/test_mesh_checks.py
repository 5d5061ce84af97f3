"""What doctor says of the fleet's own mesh: gone, heard by nobody, not followed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.node.host import program, service
from muster.verbs import mesh
from muster.verbs.checks import Check
from muster.verbs.mesh_checks import of_mesh
from tests.promise import proves


def peer(state: Any) -> mesh.Neighbour:
    return mesh.Neighbour("studio", "fd00::2", "192.0.2.7:7447", state)


class Computer:
    """A computer whose mesh, service and programs are what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.programs = {"wg"}
        self.kept: Any = None
        monkeypatch.setattr(program, "there", lambda name: name in self.programs)
        monkeypatch.setattr(service, "installed", lambda _home: self.kept)

    def looked_at(self, *states: str, up: bool = True, port: int = 7447, follows: bool = True):
        found = mesh.Mesh(
            interface="muster-1a", up=up, address="fd00::1", endpoint="", port=port,
            follows=follows, others=[], peers=[peer(each) for each in states],
        )  # fmt: skip
        self.monkeypatch.setattr(mesh, "looked_at", lambda _context: found)
        context: Any = SimpleNamespace(home=None)
        return list(of_mesh(context))

    def serve(self, folder: Path, scope: str, drop_in: str = "") -> None:
        unit = folder / "muster.service"
        if drop_in:
            (folder / "muster.service.d").mkdir()
            (folder / "muster.service.d" / "mesh.conf").write_text(drop_in)
        self.kept = SimpleNamespace(scope=scope, file=unit)


@pytest.fixture
def computer(monkeypatch) -> Computer:
    return Computer(monkeypatch)


@proves("cli.doctor-mesh")
def test_where_nobody_made_a_mesh_nothing_is_said_and_one_that_is_gone_is_wrong(computer):
    assert computer.looked_at(up=False, port=0) == []
    (gone,) = computer.looked_at("unknown", up=False)
    assert (gone.state, gone.mend) == ("wrong", "muster mesh up")
    assert "its interface is gone" in gone.text


@proves("cli.doctor-mesh")
@pytest.mark.parametrize(
    ("states", "state", "says"),
    [
        (("up", "silent"), "ok", "1 of 2 machines were heard"),
        (("up", "missing"), "note", "1 that joined are not let in yet"),
        (("silent", "missing"), "note", "none of 2 machines was heard within three minutes"),
        (("unknown",), "ok", "only root can tell"),
        ((), "ok", "no other machine could be"),
    ],
)
def test_who_is_heard_in_it_is_said(computer, states, state, says):
    (found,) = computer.looked_at(*states)
    assert (found.name, found.state) == ("mesh", state)
    assert says in found.text
    if "none of" in says:
        assert "UDP port 7447" in found.mend


@proves("cli.doctor-mesh")
def test_without_wg_nobody_can_look_and_the_package_is_named(computer):
    computer.programs.clear()
    (found,) = computer.looked_at("unknown")
    assert (found.state, found.mend) == ("note", "apt install wireguard-tools")


def right(found: list[Check]) -> Check:
    assert len(found) == 2
    assert found[1].state == "note"
    assert "the daemon may not change it" in found[1].text
    return found[1]


@proves("cli.doctor-mesh")
def test_a_daemon_without_the_right_is_said_and_what_gives_it_to_a_service(computer, tmp_path):
    assert right(computer.looked_at("up", follows=False)).mend == "muster mesh up"
    computer.serve(tmp_path, "system")
    mend = right(computer.looked_at("up", follows=False)).mend
    assert mend == (
        "sudo systemctl edit muster.service, with [Service] and AmbientCapabilities=CAP_NET_ADMIN"
    )
    computer.serve(tmp_path, "system", "[Service]\n AmbientCapabilities=CAP_NET_ADMIN\n")
    found = right(computer.looked_at("up", follows=False))
    assert "started before the drop-in of muster.service gave it" in found.text
    assert found.mend == "sudo systemctl restart muster.service"
    assert len(computer.looked_at("up", follows=True)) == 1


@proves("cli.doctor-mesh")
def test_a_drop_in_of_a_persons_service_gives_nothing_and_that_is_said(computer, tmp_path):
    computer.serve(tmp_path, "user", "[Service]\n# AmbientCapabilities=CAP_NET_ADMIN\n")
    assert right(computer.looked_at("up", follows=False)).mend == "muster mesh up"
    (tmp_path / "muster.service.d" / "mesh.conf").write_text("AmbientCapabilities=CAP_NET_ADMIN")
    found = right(computer.looked_at("up", follows=False))
    assert "a person's systemd lacks" in found.text
    assert found.mend == "muster service install --system"
