"""One service of one home: of a person or of the system, whatever path leads to the home."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.cli import context, parse
from muster.errors import Broken, Conflict, Denied
from muster.node.host import keeper, service, systemd
from muster.node.host.home import Home
from muster.verbs import daemon, leave
from muster.verbs.service import looked_at
from tests.cli.world import muster
from tests.e2e import scripted_systemd
from tests.promise import proves


class World(SimpleNamespace):
    """A home in a folder with a blank, and where the units of its person and of the system lie."""

    home: Path
    system: Path
    user: Path


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    found = World(
        home=tmp_path / "a home", system=tmp_path / "etc", user=tmp_path / "config/systemd/user"
    )
    found.system.mkdir()
    for name, value in {
        **scripted_systemd.put(tmp_path),
        "SCRIPTED_SYSTEM_UNITS": str(found.system),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "HOME": str(tmp_path),
        "MUSTER_HOME": str(found.home),
        "MUSTER_STATE": str(tmp_path / "state"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MUSTER_SOCK", raising=False)
    monkeypatch.setattr(systemd, "SYSTEM_UNITS", found.system)
    assert muster(found.home, "init", "--name", "studio", "--listen", "").code == 0
    yield found
    for kept in service.everywhere(Home(found.home)):
        kept.stop()
    muster(found.home, "down")


def typed(*words: str) -> dict[str, Any]:
    value, _ = context.CommandContext(parse.parse(list(words))).inside()
    return dict(value)


@proves("service.one-of-a-home")
@pytest.mark.parametrize("first", ["system", "user"])
def test_beside_a_service_of_the_other_kind_none_is_installed(world: World, first: str) -> None:
    words = [["service", "install"], ["service", "install", "--system"]]
    if first == "system":
        words.reverse()
    kept = typed(*words[0])
    assert kept["scope"] == first
    way = f"service remove --system --home '{world.home}'" if first == "system" else (
        "muster service remove"
    )  # fmt: skip
    with pytest.raises(Conflict, match=f"{way}` takes it away first"):
        typed(*words[1])
    files = [p for folder in (world.system, world.user) for p in folder.glob("*.service")]
    assert [str(each) for each in files] == [kept["file"]]
    assert typed("service", "status")["pid"] == kept["pid"]
    assert typed("service", "remove")["did"] == "removed"
    assert typed(*words[1])["did"] == "installed"


@proves("service.one-of-a-home")
def test_a_home_has_one_service_and_one_mark_whatever_path_leads_to_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = typed("service", "install")
    link = tmp_path / "link"
    link.symlink_to(world.home)
    assert Home(link).mark_folder == Home(world.home).mark_folder
    monkeypatch.setenv("MUSTER_HOME", str(link))
    assert typed("service", "status")["pid"] == kept["pid"]
    typed("service", "install")
    assert [p.name for p in world.user.glob("*.service")] == [Path(kept["file"]).name]


@proves("service.one-of-a-home")
def test_a_service_and_a_mark_of_before_are_found_under_their_names(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They had a name of the path that was typed, not of the place that it leads to."""
    link = tmp_path / "link"
    link.symlink_to(world.home)
    short = hashlib.sha256(os.fsencode(link)).hexdigest()
    monkeypatch.setenv("MUSTER_HOME", str(link))
    home = Home(link)
    made = service.manager_of(home)
    assert service.write(made)
    older = made.file.rename(made.file.with_name(f"muster-{short[:8]}.service"))
    for each in (home, Home(world.home)):
        found = service.installed(each)
        assert found is not None
        assert found.file == older
    assert service.manager_of(home).service.name == older.stem
    assert typed("service", "install")["file"] == str(older)
    assert [p.name for p in world.user.glob("*.service")] == [older.name]
    mark = tmp_path / "other state" / short[:16]
    monkeypatch.setenv("MUSTER_STATE", str(mark.parent))
    assert Home(link).mark_folder != str(mark)
    mark.mkdir(parents=True)
    assert Home(link).mark_folder == str(mark)


@proves("service.one-of-a-home")
def test_what_only_root_may_take_away_is_told_with_the_command_that_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("service", "install", "--system")
    system = typed("service", "status")
    home = Home(world.home)
    # As for everybody but root.
    may = os.access
    monkeypatch.setattr(
        os, "access", lambda path, how: Path(path) != world.system and may(path, how)
    )
    way = f"service remove --system --home '{world.home}'`"
    with pytest.raises(Denied, match=f"root's to take away: `sudo .* {way}"):
        typed("service", "remove")
    goer = {"name": "studio", "machine": "m", "here": True, "member": True}
    asking = SimpleNamespace(home=home, ask=lambda verb, args: goer, say=print)
    with pytest.raises(Denied, match=f"{way}; then `muster up --detach`, and `muster machine leav"):
        leave.leave(asking, "", now=False, force=False)
    with pytest.raises(Denied, match="service install --system --home '"):
        typed("service", "install", "--system")
    assert typed("service", "status")["pid"] == system["pid"]
    # Doctor proposes what there is.
    manager = service.installed(home)
    assert manager is not None
    Path(manager.file).write_text("[Service]\n")
    ((state, _, mend),) = looked_at(home, list)
    assert (state, mend) == ("note", keeper.command(manager, "install"))
    assert f"service install --system --home '{world.home}'" in mend


@proves("service.one-of-a-home")
def test_a_file_under_our_name_that_names_another_home_is_not_our_service(
    world: World, tmp_path: Path
) -> None:
    kept = Path(typed("service", "install")["file"])
    other = Home(tmp_path / "another")
    taken = service.manager_of(other).file
    taken.write_bytes(kept.read_bytes())
    assert service.installed(other) is None
    assert service.manager_of(other).file != taken
    taken.unlink()


@proves("service.one-of-a-home")
def test_what_is_no_plain_file_of_a_service_is_looked_at_and_waited_for_by_nobody(
    world: World,
) -> None:
    world.user.mkdir(parents=True, exist_ok=True)
    os.mkfifo(world.user / "a-muster-pipe.service")
    (world.user / "a-muster-end.service").symlink_to("/dev/zero")
    (world.user / "a-muster-folder.service").mkdir()
    assert service.installed(Home(world.home)) is None


@proves("service.whose-home")
def test_a_process_of_which_nothing_tells_whose_it_is_is_not_ended_for_another_person(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(daemon.lock, "holder", lambda _path: 4321)
    monkeypatch.setattr(daemon.lock, "user_of", lambda _pid: None)
    monkeypatch.setattr(daemon.os, "kill", lambda pid, _signal: ended.append(pid))
    with pytest.raises(Broken, match="4321"):
        daemon._terminate(Home(world.home), 1234)
    assert ended == []


@proves("service.one-of-a-home")
def test_a_home_that_is_set_aside_leaves_no_mark_of_any_path_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_STATE", str(tmp_path / "state"))
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for path in ("home", "link"):
        short = hashlib.sha256(os.fsencode(tmp_path / path)).hexdigest()[:16]
        (tmp_path / "state" / short).mkdir(parents=True)
    Home(tmp_path / "link").set_aside()
    assert not Path(Home(tmp_path / "link").mark_folder).exists()
    assert not Path(Home(tmp_path / "home").mark_folder).exists()
