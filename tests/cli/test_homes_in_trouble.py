"""A home that is wrong in itself, and labels, names and threads that are wrong before anything is."""

import os
import stat
from pathlib import Path

import pytest

from muster.address import split_address
from muster.channel.unproven import why_nobody_listens
from muster.cli import show
from muster.errors import Malformed
from muster.node.host.home import Home
from muster.task.spec import check_nameable, parse
from muster.verbs import doctor
from tests.cli.world import muster
from tests.promise import proves


@proves("cli.init-once")
@pytest.mark.parametrize("label", ["", "a,b", "a b", "x" * 41, "GPU", "a.b", "-a"])
def test_an_init_with_a_label_that_is_none_leaves_no_keys_behind(tmp_path, label):
    said = muster(tmp_path / "home", "init", "--listen", "", f"--label={label}")
    assert said.code in (2, 3)
    assert "label" in said.err
    assert not (tmp_path / "home").exists()


@proves("cli.join-leaves-nothing")
def test_a_join_with_a_label_that_is_none_spends_no_invitation(tmp_path):
    invitation = (
        "muster1.og7d2rgxjyy3v7aoeknappwdnx25of4adis2ju7qrx2jgl3ujzbymiqhz2r5aeqgyrgsdhlmnegq7drh"
        ".127.0.0.1:17447#build"
    )
    said = muster(tmp_path / "home", "join", invitation, "--label", "a b")
    assert said.code == 3
    assert "The label 'a b' is nothing that a spec can name" in said.err
    assert "asking" not in said.err
    assert not (tmp_path / "home").exists()


@proves("cli.doctor-finds", "spec.one-form")
def test_a_label_is_what_a_spec_can_ask_for_here_and_there(tmp_path):
    home = Home(tmp_path)
    home.put("config.toml", b'labels = ["GPU", "tests"]\n')
    assert [check.text for check in doctor._labels(home)] == ["no spec can ask for the label 'GPU'"]
    raw = (
        "muster: 1\nname: a\nphases: {{a: {{agent: shell, do: x, check: y, needs: {{label: {}}}}}}}"
    )
    parse(raw.format("tests").encode())
    with pytest.raises(Malformed):
        parse(raw.format("GPU").encode())


@proves("cli.nameable")
@pytest.mark.parametrize("name", ["x" * 41, "-a", "A", "a.b", "ü"])
def test_what_no_spec_can_name_is_not_made(tmp_path, name):
    with pytest.raises(Malformed):
        check_nameable(name, "It")
    said = muster(tmp_path / "home", "init", "--listen", "", f"--name={name}")
    assert (said.code, "name" in said.err) == (3, True)
    assert not (tmp_path / "home").exists()


@proves("cli.open-seeds")
def test_a_key_that_others_can_read_is_said_before_it_is_used(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "init", "--listen", "").code == 0
    (home / "operator.seed").chmod(0o644)
    said = muster(home, "up", "--detach")
    muster(home, "down")
    assert said.code == 0
    assert f"chmod 600 {home}/operator.seed" in said.err
    (home / "operator.seed").chmod(0o600)
    assert Home(home).open_seeds() == []


@proves("cli.doctor-finds")
def test_doctor_says_that_a_home_cannot_be_written_or_entered(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir(mode=0o700)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    (found,) = doctor._folder_mode("home's mode", tmp_path / "home")
    assert (found.state, "cannot write into" in found.text) == ("wrong", True)

    def closed(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "exists", closed)
    (found,) = doctor._of_home(Home(tmp_path / "home"))
    assert (found.state, "cannot be entered" in found.text) == ("wrong", True)
    assert stat.S_ISDIR(os.stat(tmp_path / "home").st_mode)


@proves("cli.nobody-orders")
def test_a_fleet_without_an_operator_is_no_fleet_in_which_nothing_is_wrong(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "init", "--listen", "", "--operator", "alice").code == 0
    assert muster(home, "up", "--detach").code == 0
    try:
        assert "nobody can order" not in muster(home, "status").out.lower()
        only = muster(home, "revoke", "alice")
        assert "muster operator key" in only.err
        assert "move the old operator.seed away" in only.err
        assert muster(home, "revoke", "alice", "--last", "--yes").code == 0
        assert "Nobody can order anything" in muster(home, "status").out
        looked = muster(home, "doctor", "--json")
        assert looked.code == 1
        assert {c["name"]: c["state"] for c in looked.value["checks"]}["operators"] == "wrong"
        # What both sentences say to do is all that it takes.
        (home / "operator.seed").rename(tmp_path / "kept")
        assert muster(home, "operator", "add", "alice", "--here").code == 0
        assert "nobody can order" not in muster(home, "status").out.lower()
    finally:
        muster(home, "down")


@proves("cli.says-why-it-cannot-listen")
def test_a_port_in_use_and_an_address_of_another_computer_are_told_apart():
    used = why_nobody_listens(OSError(98, "Address already in use"))
    assert used == "another program listens there; take another port, `listen` in config.toml"
    assert "no such address" in why_nobody_listens(OSError(99, "Cannot assign requested address"))
    assert why_nobody_listens(OSError(13, "Permission denied")).startswith("Permission denied")
    for port in ("65536", "9" * 5000):
        with pytest.raises(Malformed, match="from 1 to 65535"):
            split_address(f"127.0.0.1:{port}")


@proves("cli.nobody-orders")
def test_a_daemon_of_an_older_version_that_does_not_count_operators_is_believed_to_have_one():
    shown = {
        "name": "old", "settled": True, "revoked": None, "incidents": [], "unread": 0, "exposed": 0,
        "runs": 0, "works": [], "machines": {"known": 1, "away": []},
    }  # fmt: skip
    assert "Nobody" not in show.text("status", shown, {})
    assert "Nobody can order" in show.text("status", {**shown, "operators": 0}, {})


@proves("cli.up-says-why")
def test_what_keeps_a_daemon_from_starting_ends_up_with_the_same_code_in_the_background(tmp_path):
    home = tmp_path / "home"
    assert muster(home, "init", "--listen", "").code == 0
    (home / "seed").chmod(0o644)
    here, apart = muster(home, "up"), muster(home, "up", "--detach")
    assert (here.code, apart.code) == (3, 3)
    assert all(f"chmod 600 {home}/seed" in said.err for said in (here, apart))
    (home / "seed").chmod(0o600)
    (home / "fleet.json").unlink()
    assert (muster(home, "up").code, muster(home, "up", "--detach").code) == (5, 5)
