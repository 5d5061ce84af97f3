"""What keeps a sandbox from being built keeps the command from running: each way caused for real."""

import os
import platform
import resource
import stat
import uuid
from pathlib import Path

import pytest
from tests.agent import enclosed
from tests.agent.enclosed import BWRAP, Place
from tests.agent.world import marked, wait_until
from tests.promise import proves

from muster.agent import process_tree
from muster.agent.sandbox import seccomp

RAN = ["/bin/sh", "-c", "touch ran; echo ran"]


@pytest.fixture(params=enclosed.KINDS)
def place(request):
    enclosed.require(request.param)
    made = Place(request.param)
    yield made
    made.close()


def script(place, text):
    program = place.top / "bwrap"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    place.top.chmod(0o755)
    return str(program)


# What stands where bubblewrap should, and what is said of it.
NO_BWRAP = {
    "missing": (None, "install the package bubblewrap"),
    "not executable": ("", "may not be run"),
    "says nothing": ("exit 0", "bubblewrap made no sandbox"),
    "fails": ("echo it broke >&2; exit 1", "it broke"),
    "says it made one, and made none": (
        'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
        "bubblewrap made no sandbox",
    ),
    "never says anything": ("exec sleep 600", "in time"),
}


@proves("enclosure.fails-closed")
@pytest.mark.parametrize("how", NO_BWRAP)
def test_without_a_bubblewrap_that_works_nothing_runs(place, how, monkeypatch):
    monkeypatch.setattr(enclosed.enclosure, "_BUILD_S_MAX", 1.0)
    text, says = NO_BWRAP[how]
    program = str(place.top / "bwrap") if text is None else script(place, text)
    if text == "":
        Path(program).chmod(0o644)
    place.own()
    before = place.everything()
    said = place.run(RAN, program=program)
    assert said["code"] is None
    assert says in said["refused"]
    assert place.everything() == before


@proves("enclosure.fails-closed")
def test_one_that_lies_about_its_process_is_found_out(place):
    """It says that the test itself, or whatever it likes, is inside."""
    text = (
        'for w; do [ "$p" = --args ] && a=$w; p=$w; done\n'
        f'{enclosed.PYTHON} - "$a" <<"EOF"\n'
        "import os, sys\n"
        'words = os.read(int(sys.argv[1]), 1 << 20).split(b"\\0")\n'
        'info = int(words[words.index(b"--info-fd") + 1])\n'
        "os.write(info, b'{\"child-pid\": %d}' % os.getppid())\n"
        "EOF\n"
        'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
    )
    program = script(place, text)
    place.own()
    said = place.run(RAN, program=program)
    assert "namespace is the machine's own" in said["refused"]
    assert not (place.work / "ran").exists()


@proves("enclosure.fails-closed")
def test_where_user_namespaces_are_forbidden_nothing_runs(place):
    """As in a container: under a filter that refuses them, such as ours."""
    rules = seccomp.program(platform.machine())
    filtered = (
        f"exec {enclosed.PYTHON} - \"$@\" <<'END'\n"
        "import ctypes, os, sys\n"
        f"rules = bytes.fromhex('{rules.hex()}')\n"
        "class Program(ctypes.Structure):\n"
        "    _fields_ = [('count', ctypes.c_ushort), ('lines', ctypes.c_char_p)]\n"
        "made = Program(len(rules) // 8, rules)\n"
        "libc = ctypes.CDLL(None)\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0\n"
        "assert libc.prctl(22, 2, ctypes.byref(made)) == 0\n"
        f"os.execv('{BWRAP}', ['bwrap', *sys.argv[1:]])\n"
        "END"
    )
    program = script(place, filtered)
    place.own()
    said = place.run(RAN, program=program)
    assert said["code"] is None
    assert "lets nobody make user namespaces" in said["refused"]
    assert "muster doctor" in said["refused"]
    assert not (place.work / "ran").exists()


@proves("enclosure.fails-closed")
@pytest.mark.parametrize("path", [".git/hooks", ".git", ".mcp.json", ".claude"])
def test_a_link_in_a_protected_place_keeps_it_from_starting(place, path):
    if (place.work / path).exists():
        (place.work / path).rename(place.top / "moved")
    (place.work / path).symlink_to("/etc")
    said = place.run(RAN)
    assert "is a link" in said["refused"]
    assert not (place.work / "ran").exists()


@proves("enclosure.fails-closed")
@pytest.mark.parametrize("what", ["work", "home", "a link for the work folder"])
def test_a_folder_that_is_not_there_keeps_it_from_starting(place, what):
    (place.top / what.replace(" ", "-")).mkdir(exist_ok=True)
    if what.startswith("a link"):
        place.work.rename(place.top / "real")
        place.work.symlink_to(place.top / "real")
    else:
        (place.top / what).rename(place.top / "moved")
    place.own()
    said = place.run(RAN)
    assert "not there" in said["refused"]


@proves("enclosure.fails-closed")
def test_a_listener_that_cannot_be_made_keeps_it_from_starting(place):
    """Two on one port: the second is refused by the kernel."""
    said = place.run(RAN, ports=(3128, 3128))
    assert "no listener could be made" in said["refused"]
    assert not (place.work / "ran").exists()


@proves("enclosure.fails-closed")
def test_a_path_that_cannot_be_shown_keeps_it_from_starting(place):
    said = place.run(RAN, writable=(str(place.top / "nowhere"),))
    assert "is not there" in said["refused"]
    said = place.run(RAN, placed={"/etc/passwd/x": str(place.work / ".git" / "config")})
    assert said["refused"]
    said = place.run(RAN, placed={f"{place.work}/x": str(place.work / ".git" / "config")})
    assert "in the work folder" in said["refused"]
    assert not (place.work / "ran").exists()


@proves("enclosure.fails-closed")
def test_a_program_that_is_not_inside_is_named_as_the_agents_lack(place):
    said = place.run(["no-such-agent"])
    assert said["why"] == "NotFound"
    assert "not in the sandbox" in said["refused"]


@proves("enclosure.fails-closed", "enclosure.ends")
def test_whoever_dies_while_it_starts_has_started_nothing(place):
    """What waits inside goes on when its block's other end is gone; its gate does not."""
    mark = uuid.uuid4().hex
    env = {"PATH": "/usr/bin:/bin", process_tree.MARKER: mark}
    inside = enclosed.apart(
        place.kind, enclosed.dies_while_starting, place.profile(), ["touch", "ran"], env
    )
    assert wait_until(lambda: inside not in process_tree.procfs_table())
    assert wait_until(lambda: not marked(f"{process_tree.MARKER}={mark}"))
    assert not (place.work / "ran").exists()


@proves("enclosure.never-root")
def test_root_is_never_who_is_enclosed(place):
    said = place.run(RAN, user=0)
    if place.kind == "user":
        assert said["code"] == 0
        return
    assert "does not hold root" in said["refused"]
    assert not (place.work / "ran").exists()


@proves("enclosure.never-root", "enclosure.lent-folders")
def test_the_program_has_its_folders_and_they_are_the_daemons_again(place):
    said = place.run(["/bin/sh", "-c", "id -u; pwd; echo hi > made; echo $HOME; touch ~/kept"])
    assert (said["code"], said["err"]) == (0, "")
    assert said["out"].split() == ["1000", str(place.work), "/home/agent"]
    owner = os.lstat(place.top).st_uid
    for path in (place.work, place.work / "made", place.home / "kept", place.work / ".git"):
        assert os.lstat(path).st_uid == owner
    assert stat.S_IMODE(os.lstat(place.top).st_mode) == 0o700


@proves("enclosure.protected-paths")
def test_nothing_of_what_was_occupied_is_left(place):
    before = place.everything()
    assert place.run(["/bin/true"])["code"] == 0
    assert place.everything() == before


def bounded(profile, argv, env):
    resource.setrlimit(resource.RLIMIT_NPROC, (1500, 1500))
    return enclosed.run(profile, argv, env)


@proves("enclosure.limits")
def test_a_daemon_that_is_bounded_itself_gives_no_more_than_it_has(place):
    env = {"PATH": "/usr/bin:/bin"}
    profile = place.profile(processes=4096)
    said = enclosed.apart(place.kind, bounded, profile, ["cat", "/proc/self/limits"], env)
    (line,) = [each for each in said["out"].splitlines() if each.startswith("Max processes")]
    assert line.split()[2:4] == ["1500", "1500"]


@proves("enclosure.limits")
@pytest.mark.parametrize(("memory", "most"), [(0, 2832 << 20), (1 << 30, 1 << 30)])
def test_what_lies_in_memory_has_a_bound_together_within_that_of_its_order(place, memory, most):
    program = (
        "import os\n"
        "places = '/tmp', '/var/tmp', '/dev/shm', '/run'\n"
        "assert len({os.stat(each).st_dev for each in places}) == 4\n"
        "found = map(os.statvfs, places)\n"
        "print(sum(each.f_blocks * each.f_frsize for each in found))"
    )
    said = place.run([enclosed.PYTHON, "-c", program], memory_bytes=memory)
    assert 0 < int(said["out"]) <= most, said
