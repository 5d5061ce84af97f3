"""What a sandbox costs the start of a program: `/bin/true`, enclosed with a listener, and plainly.

Both in turns in one small process, as a shim is, of a user's daemon and of root's (where the bench
runs as root). bubblewrap alone, with as few namespaces as it makes, stands beside it; what is above
that is ours.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.agent import enclosed

import muster
from bench.figure import Figure, p50

# Run by the system's Python, which a user without rights can read; prints milliseconds by round.
_LOOP = """
import json, os, socket, subprocess, sys, time
source, user, count, words = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
sys.path.insert(0, source)
if user:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
from muster.agent.sandbox.enclosure import Enclosure, release
from muster.agent.sandbox.profile import profile_of

given = json.loads(words)
bare = ("--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true")
pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def plain(*argv):
    child = subprocess.Popen(argv, **pipes)
    child.communicate()
    assert child.returncode == 0


def inside():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Enclosure(profile_of(given["cwd"], given), ["/bin/true"], {}, theirs.fileno())
    how = {"env": made.env, "cwd": "/", "pass_fds": made.handles, "preexec_fn": made.enter}
    child = subprocess.Popen(made.argv, **pipes, **how)
    made.confirm()
    child.communicate()
    assert child.returncode == 0
    _, handles, _, _ = socket.recv_fds(ours, 100, 1)
    for handle in (*handles, ours.detach(), theirs.detach()):
        os.close(handle)
    release(given["cwd"], given)


def ms(what, *argv):
    began = time.perf_counter()
    what(*argv)
    return (time.perf_counter() - began) * 1000


rounds = [
    [ms(plain, "/bin/true"), ms(plain, given["program"], *bare), ms(inside)] for _ in range(count)
]
print(json.dumps(rounds))
"""


def _rounds(kind: str, count: int) -> list[list[float]]:
    place = enclosed.Place(kind)
    source = Path(place.top) / "src"
    shutil.copytree(Path(muster.__file__).parent, source / "muster")
    place.own()
    sandbox = {
        "cwd": str(place.work),
        "home": str(place.home),
        "program": enclosed.BWRAP,
        "user": 0 if kind == "user" else enclosed.DROPPED,
        "ports": [3128],
    }
    user = enclosed.STRANGER if kind == "user" and enclosed.is_root() else 0
    words = [str(source), str(user), str(count), json.dumps(sandbox)]
    try:
        ran = subprocess.run(
            [enclosed.PYTHON, "-S", "-c", _LOOP, *words], check=True, stdout=subprocess.PIPE
        )
    finally:
        place.close()
    rounds: list[list[float]] = json.loads(ran.stdout)
    return rounds


async def run(*, short: bool) -> list[Figure]:
    if sys.platform != "linux" or not shutil.which("bwrap"):
        return []
    figures = []
    for kind in enclosed.KINDS if enclosed.is_root() else enclosed.KINDS[:1]:
        rounds = _rounds(kind, 40 if short else 200)
        plain, bare, ours = (p50(times) for times in zip(*rounds, strict=True))
        added = p50([each[2] - each[0] for each in rounds])
        raw = f"true {plain:.1f} ms, bwrap alone {bare:.1f}, enclosed {ours:.1f}"
        figures.append(
            Figure(f"a start enclosed, over a plain one, as {kind}, p50", added, 30, raw, unit="ms")
        )
    return figures
