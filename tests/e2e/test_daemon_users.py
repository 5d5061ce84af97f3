"""What a program of another user on the same machine gets from a real daemon: nothing."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet
from tests.e2e.test_daemon_doors import effects
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """A hub alone."""
    with Fleet(["hub"]) as made:
        made.start()
        yield made


# Without our interpreter, which another user may not even be allowed to start.
PROBE = """\
use Socket;
my $path = shift @ARGV;
socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die;
if (!connect($s, pack_sockaddr_un($path))) { print "no: $!\\n" }
else { sysread($s, my $b, 400); print "heard: $b\\n" }
for (@ARGV) { print open(my $f, "<", $_) ? "read $_\\n" : "no: $!\\n" }
"""
as_root = pytest.mark.skipif(
    os.name != "posix" or os.getuid() != 0 or shutil.which("perl") is None,
    reason="only root may become another user",
)


def as_nobody(*paths: Path) -> list[str]:
    """What another user's program gets from a socket and some files."""
    done = subprocess.run(
        ["perl", "-e", PROBE, *map(str, paths)], user=65534, group=65534, extra_groups=[],
        capture_output=True, text=True, errors="replace", check=True, cwd="/",
    )  # fmt: skip
    return done.stdout.splitlines()


@as_root
@proves("node.other-users-get-nothing")
def test_a_process_of_another_user_reaches_neither_socket_nor_seeds(fleet):
    home = fleet.hub.home
    home.put_seed("operator.seed", fleet.operator_seed)
    secret = ["seed", "authority.seed", "operator.seed", "log.db", "fleet.json"]
    found = as_nobody(Path(home.socket), *(home.path / name for name in secret))
    assert found == ["no: Permission denied"] * 6


@as_root
@proves("node.other-users-get-nothing")
def test_another_user_is_turned_away_by_the_socket_itself(fleet):
    """Also where the folder lets it pass, the kernel's word about its uid decides."""
    socket = Path(fleet.hub.home.socket)
    modes = [(p, p.stat().st_mode & 0o7777) for p in (fleet.hub.home.path, socket.parent, socket)]
    before = effects(fleet.hub)
    try:
        for path, _ in modes:
            path.chmod(0o777)
        heard = as_nobody(socket)
    finally:
        for path, mode in modes:
            path.chmod(mode)
    assert "uid 65534 is not uid 0" in heard[0]
    assert effects(fleet.hub) == before
