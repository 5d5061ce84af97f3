"""Which folder may become a home, and what is said of a home that lost its key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from muster.errors import Broken, Conflict
from muster.fleet.invite import write_invite
from muster.log.stream import FleetId
from muster.node.host.home import Home
from muster.verbs import doctor
from tests.cli.world import environment, everything_in, muster
from tests.promise import proves

INIT = ("init", "--listen", "")
JOIN = ("join", f"{write_invite(FleetId('a' * 64), bytes(16), '127.0.0.1:1')}#desk")


@proves("cli.home-is-its-own")
@pytest.mark.parametrize("words", [INIT, JOIN])
@pytest.mark.parametrize("names", [["config.toml"], ["notes.txt", ".profile", "a", "b"], ["run/x"]])
def test_a_folder_with_anything_in_it_is_refused_and_stays_as_it_is(tmp_path, words, names):
    folder = tmp_path / "shared here"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("somebody's")
    folder.chmod(0o1777)
    before = everything_in(folder)
    said = muster(folder, *words)
    assert said.code == 6
    assert f"--home '{folder}/muster'" in said.err
    assert everything_in(folder) == before
    assert folder.stat().st_mode & 0o7777 == 0o1777


@proves("cli.home-is-its-own")
def test_an_empty_folder_a_disk_and_what_a_refused_join_left_become_a_home(tmp_path):
    for name in ("empty", "disk/lost+found", "left/run"):
        (tmp_path / name).mkdir(parents=True)
        home = tmp_path / name.partition("/")[0]
        assert muster(home, *INIT).code == 0
        assert home.stat().st_mode & 0o777 == 0o700


@proves("cli.home-is-its-own")
@pytest.mark.parametrize("left", ["joining.seed", "authority.seed", "operator.seed"])
def test_an_init_that_was_cut_short_goes_on_but_not_where_others_could_have_begun_it(
    tmp_path, left
):
    home = Home(tmp_path / "home")
    home.create()
    home.put_seed(left, bytes(range(32)))
    home.put("config.toml", b"")
    home.path.chmod(0o1777)
    assert muster(home.path, *INIT).code == 6
    home.path.chmod(0o700)
    assert muster(home.path, *INIT).code == 0
    now = "seed" if left == "joining.seed" else left
    assert home.seed(now) == bytes(range(32))


@proves("cli.home-is-its-own")
def test_seeds_in_a_folder_of_another_user_are_not_taken_for_ours(tmp_path, monkeypatch):
    home = Home(tmp_path / "home")
    home.create()
    home.put_seed("joining.seed", bytes(32))
    home.check_vacant()
    monkeypatch.setattr(os, "geteuid", lambda: home.path.stat().st_uid + 1)
    with pytest.raises(Conflict, match="anybody's"):
        home.check_vacant()


@proves("cli.lost-seed")
@pytest.mark.parametrize("kept", [["log.db"], ["fleet.json"], ["log.db", "fleet.json"]])
def test_a_home_without_its_seed_says_so_and_is_changed_by_no_command(tmp_path, kept):
    home = tmp_path / "home"
    assert muster(home, *INIT).code == 0
    (home / "log.db").touch()
    (home / "seed").rename(tmp_path / "kept.seed")
    for name in {"log.db", "fleet.json"}.difference(kept):
        (home / name).unlink()
    before = everything_in(home)
    for words in (INIT, JOIN, ("up",), ("status",), ("operator", "key")):
        said = muster(home, *words)
        assert said.code == 8, words
        assert f"{home}/seed is missing" in said.err
        assert "put it back from a copy of this home, or join the fleet anew" in said.err
        assert "muster init" not in said.err
    assert everything_in(home) == before


@proves("cli.lost-seed")
def test_a_log_beside_the_seed_of_a_join_is_a_lost_machine_all_the_same(tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    home.put_seed("joining.seed", bytes(32))
    home.put("fleet.json", b"{}")
    home.check_vacant()
    home.put("log.db", b"")
    with pytest.raises(Broken, match="seed is missing"):
        home.check_vacant()


@proves("node.setback-is-said")
def test_a_folder_of_the_mark_is_meant_from_where_it_was_typed(tmp_path, monkeypatch):
    home = tmp_path / "home"
    env = {**environment(home), "MUSTER_STATE": "state", "MUSTER_HOME": "home"}
    for words in (INIT, ("up", "--detach"), ("down",)):
        command = [sys.executable, "-m", "muster", *words]
        subprocess.run(command, env=env, cwd=tmp_path, check=True, capture_output=True, timeout=90)
    monkeypatch.setenv("MUSTER_STATE", "state")
    monkeypatch.chdir(tmp_path)
    mark = Path(Home(home).mark_folder)
    assert mark.parent == tmp_path / "state"
    assert (mark / "mark.json").is_file()


@proves("cli.lost-seed", "cli.doctor")
def test_doctor_says_that_the_seed_is_missing_and_makes_nothing(tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    home.put("log.db", b"")
    (check,) = doctor._of_home(home)
    assert (check.state, check.text.startswith(f"{home.path}/seed is missing")) == ("wrong", True)
    assert "copy of this home" in check.mend
    assert "init" not in check.mend
