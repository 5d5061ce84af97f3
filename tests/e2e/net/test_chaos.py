"""Thrice two rounds of chaos with some faults each; twelve are a line of .ci/run, two hundred `make chaos`."""

import pytest

from tests.e2e.net import chaos
from tests.e2e.net.stage import require
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@proves("chaos.nothing-lost")
def test_nothing_is_lost_while_a_cable_loses_and_a_daemon_is_killed_and_another_set_back(capsys):
    require()
    code = chaos.main(["--rounds", "2", "--seed", "210"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "2 rounds, seed 210" in said
    assert "0 lost, 0 twice, order kept" in said


@proves("chaos.nothing-lost")
def test_nothing_is_lost_while_servers_of_mailboxes_are_killed_and_stand_still_and_a_machine_is_away(
    capsys,
):
    require()
    for name, extra in (("nats", "nats"), ("pyrage", "sealed")):
        pytest.importorskip(name, reason=f"pip install 'muster-fleet[{extra}]'")
    places = ["--beside", "nats,git,cloud,drop"]
    code = chaos.main(["--rounds", "2", "--seed", "721", *places])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "0 lost, 0 twice, order kept" in said
    for fault in ("nats: kill -9 of its server", "cloud: standstill of its server", "away"):
        assert f"1 {fault}" in said


@proves("chaos.nothing-lost")
def test_nothing_is_lost_while_the_sshd_that_is_the_only_way_in_is_killed_and_that_of_a_folder(
    capsys,
):
    require()
    for name, extra in (("asyncssh", "ssh"), ("pyrage", "drop")):
        pytest.importorskip(name, reason=f"pip install 'muster-fleet[{extra}]'")
    code = chaos.main(["--rounds", "2", "--seed", "144", "--beside", "ssh,sftp"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "0 lost, 0 twice, order kept" in said
    for fault in ("ssh: kill -9 of its server", "sftp: kill -9 of its server", "kill -9"):
        assert f"1 {fault}" in said
