"""Kill `muster install` and `uninstall` before each thing they change, and see what comes after.

    python -m tests.cli.killed_install HOME MACHINE PROGRAM

A process of its own, with one thread, because it forks: each try is a child that the system kills.
Prints how many moments there were, of each verb.
"""

import contextlib
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from muster.agent.plugin.edit import Edit, Members, Whole
from muster.agent.plugin.place import Place
from muster.agent.plugin.programs import PROGRAMS
from muster.errors import NotFound
from muster.node.host.home import Home
from muster.verbs import install

_CHANGING = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class World:
    def __init__(self, person: Path, machine: Path, name: str) -> None:
        self.person, self.machine, self.name = person, machine, name
        self.own = machine / "plugins"
        self.context: Any = SimpleNamespace(
            home=Home(machine), say=lambda _: None, question=None, note=lambda _: None
        )

    def install(self) -> None:
        install.install(self.context, install.Install(self.name, yes=True))

    def uninstall(self) -> None:
        install.uninstall(self.context, install.Uninstall(self.name, yes=True))

    def all(self) -> dict[str, tuple[int, bytes]]:
        """Every file and folder of both, with its rights and what it says."""
        found = {}
        for top in (self.person, self.own):
            for path in sorted(top.rglob("*")):
                said = path.read_bytes() if path.is_file() else b""
                found[str(path)] = stat.S_IMODE(path.lstat().st_mode), said
        return found

    def back_to(self, kept: Path) -> None:
        for top, name in ((self.person, "person"), (self.own, "own")):
            shutil.rmtree(top, ignore_errors=True)
            shutil.copytree(kept / name, top)

    def keep(self, kept: Path) -> Path:
        self.own.mkdir(exist_ok=True)
        shutil.copytree(self.person, kept / "person")
        shutil.copytree(self.own, kept / "own")
        return kept


def killed(work: Callable[[], None], number: int) -> bool:
    """Whether the work was killed before its change of this number; else it came to its end."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or status == 0, status
        return os.WIFSIGNALED(status)
    left = number

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(args[2], int) and args[2] & _WRITES
        if event in _CHANGING or writes:
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - a child of a fork must not go on as its parent
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def older(place: Place, edits: Callable[[Place], list[Edit]]) -> list[Edit]:
    """What a version before wrote: the same files with other words, and one more."""
    found: list[Edit] = []
    for edit in edits(place):
        if isinstance(edit, Whole):
            found.append(Whole(edit.path, f"{edit.text}// old\n"))
        elif isinstance(edit, Members):
            sets = (*edit.sets, (("old", place.name), {"at": edit.mark}))
            found.append(Members(edit.path, edit.mark, edit.needs, sets, edit.adds, edit.reads))
        else:
            found.append(edit)
    return [*found, Members(place.person / ".old" / "one.json", str(place.own),
                            sets=((("old", place.name), {"at": str(place.own)}),))]  # fmt: skip


def tries(world: World, start: Path, work: Callable[[], None], clean: Any, there: Any) -> int:
    """After each moment at which it was cut off: taken out it is clean, put in it is as it is."""
    for number in range(1000):
        world.back_to(start)
        if not killed(work, number):
            return number
        middle = world.keep(start.parent / f"{start.name}-{work.__name__}-{number}")
        with contextlib.suppress(NotFound):
            world.uninstall()
        assert world.all() == clean, (number, "uninstall", differs(world.all(), clean))
        world.back_to(middle)
        world.install()
        assert world.all() == there, (number, "install", differs(world.all(), there))
        world.uninstall()
        assert world.all() == clean, (number, "both", differs(world.all(), clean))
        shutil.rmtree(middle)
    raise AssertionError("it never came to its end")


def differs(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    names = sorted(one.keys() | other.keys())
    return [name for name in names if one.get(name) != other.get(name)]


def main(person: Path, machine: Path, name: str, scratch: Path) -> None:
    sys.dont_write_bytecode = True
    os.fsync = lambda _: None
    world, now = World(person, machine, name), PROGRAMS[name]
    clean_at = world.keep(scratch / "clean")
    clean = world.all()
    world.install()
    there_at, there = world.keep(scratch / "there"), without_records(world)
    world.all = lambda: without_records(world)  # type: ignore[method-assign]
    counted = [tries(world, clean_at, world.install, clean, there)]
    counted.append(tries(world, there_at, world.uninstall, clean, there))
    world.back_to(clean_at)
    PROGRAMS[name] = now._replace(edits=lambda place: older(place, now.edits))
    world.install()
    before_at = world.keep(scratch / "before")
    PROGRAMS[name] = now
    counted.append(tries(world, before_at, world.install, clean, there))
    print(*counted)


def without_records(world: World) -> dict[str, tuple[int, bytes]]:
    found = World.all(world)
    return {
        name: (mode, b"" if name.endswith("installed.json") else said)
        for name, (mode, said) in found.items()
    }


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]), sys.argv[3], Path(sys.argv[4]))
