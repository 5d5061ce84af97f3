"""What a person put down is begun by nobody who comes by."""

import pytest

from muster.cli import ssh_serve
from muster.errors import Unreachable
from muster.node.host.home import Home
from muster.verbs import daemon
from tests.promise import proves


@proves("ssh.visited")
@pytest.mark.parametrize("put_down", [True, False])
def test_who_comes_through_sshd_begins_no_daemon_that_a_person_put_down(
    tmp_path, monkeypatch, put_down
):
    begun: list[Home] = []
    monkeypatch.setattr(daemon, "visit", begun.append)
    monkeypatch.setattr(ssh_serve, "_LOOKS", 0)
    monkeypatch.setenv("MUSTER_HOME", str(tmp_path))
    (tmp_path / "seed").touch()
    if put_down:
        Home().put_down.touch()
    with pytest.raises(Unreachable) as found:
        ssh_serve._called(str(tmp_path / "run" / "sock"))
    assert ("put its daemon down" in str(found.value)) == put_down
    assert [each.path for each in begun] == ([] if put_down else [tmp_path])
