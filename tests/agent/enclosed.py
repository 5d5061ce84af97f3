"""Programs run inside real sandboxes, as a user's daemon does it and as root's: tests say which.

The tests may run as root. What "a user" starts is then started by a child of the test that became
one; it imports nothing any more, since it may not even read our interpreter.

    place = Place("dropped root")
    said = place.run(["/bin/sh", "-c", "id -u"], ports=(3128,))     # how it ended, what it said
    apart(kind, run, place.profile(ports=(3128,)), argv, env, serve)  # `serve` gets the listeners

A loop that serves may run in `serve`, in a thread of its own: the child has no other.
"""

import contextlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytest

from muster.agent.sandbox import bubblewrap, enclosure, listener, mounts, ownership, protected
from muster.agent.sandbox.profile import USER_OF_ROOTS, Profile
from muster.errors import Broken, NotFound

LOADED = (bubblewrap, listener, mounts, ownership, protected)
STRANGER = 65534
DROPPED = USER_OF_ROOTS
KINDS = ("user", "dropped root")
BWRAP = shutil.which("bwrap") or "/usr/bin/bwrap"
# Of the system, since it is visible inside.
PYTHON = "/usr/bin/python3"


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def require(kind):
    """Skip where this machine cannot do it, with the reason."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("sandboxes are Linux's, on x86_64 and aarch64")
    if not Path(BWRAP).exists():
        pytest.skip("needs bubblewrap (apt: bubblewrap)")
    if not Path(PYTHON).exists():
        pytest.skip("needs the system's own Python (apt: python3)")
    if kind != "user" and not is_root():
        pytest.skip("only root drops to another user")


def apart(kind, function, *args):
    """What the function returns, as JSON has it, run by a child who is the user of this kind."""
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        # The threads of the test runner hold nothing that the child needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            os.close(reads)
            if kind == "user" and is_root():
                os.setgroups([])
                os.setresgid(STRANGER, STRANGER, STRANGER)
                os.setresuid(STRANGER, STRANGER, STRANGER)
            said = json.dumps(function(*args))
            os.write(writes, said.encode())
        except BaseException as error:  # noqa: BLE001 - told to the test, which fails by it
            os.write(writes, json.dumps({"broken": repr(error)}).encode())
        finally:
            os._exit(0)
    os.close(writes)
    try:
        with open(reads, "rb") as pipe:
            raw = pipe.read()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
        os.waitpid(pid, 0)
    said = json.loads(raw)
    assert not (isinstance(said, dict) and said.get("broken")), said
    return said


class Place:
    """A work folder with a repository and a home, in a folder that nobody else may enter."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.top = Path(tempfile.mkdtemp(prefix="muster-enclosed-"))
        self.work, self.home = self.top / "work", self.top / "home"
        for folder in (self.work, self.home, self.work / ".git", self.work / ".git" / "hooks"):
            folder.mkdir()
        (self.work / ".git" / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
        (self.work / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
        for name in ("objects", "refs"):
            (self.work / ".git" / name).mkdir()
        (self.work / ".git" / "hooks" / "README").write_text("none\n")
        self.own()

    def own(self) -> None:
        """Everything here belongs to whoever starts the programs."""
        if self.kind == "user" and is_root():
            ownership.lend(str(self.top), STRANGER)

    def profile(self, **changes):
        user = DROPPED if self.kind != "user" else 0
        given = {"cwd": str(self.work), "program": BWRAP, "home": str(self.home), "user": user}
        return Profile(**{**given, **changes})

    def run(self, argv, env=None, **changes):
        """Enclosed: how it ended and what it said, or why it was refused."""
        profile = self.profile(**changes)
        env = {"PATH": "/usr/bin:/bin", **(env or {})}
        return apart(self.kind, run, profile, list(argv), env)

    def everything(self):
        return sorted(str(each.relative_to(self.top)) for each in self.top.rglob("*"))

    def close(self) -> None:
        shutil.rmtree(self.top, ignore_errors=True)


def popen(made):
    return subprocess.Popen(
        made.argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=made.env,
        cwd="/",
        pass_fds=made.handles,
        preexec_fn=made.enter,  # noqa: PLW1509 - a forked child has one thread
    )


def dies_while_starting(profile, argv, env):
    """The process inside, of a start that nobody finishes: its shim ends with this answer."""
    made = enclosure.Enclosure(profile, argv, env)
    popen(made)
    return made._inside(time.clock_gettime(time.CLOCK_BOOTTIME) + 20)


def run(profile, argv, env, serve=None):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child, said = None, {"refused": "", "code": None, "out": "", "err": ""}
    listeners = []
    try:
        made = enclosure.Enclosure(profile, argv, env, theirs.fileno())
        try:
            child = popen(made)
            made.confirm()
        finally:
            made.close()
        if profile.ports:
            _, handles, _, _ = socket.recv_fds(ours, 4096, 64)
            listeners = [socket.socket(fileno=handle) for handle in handles]
        if serve is not None:
            serve(listeners)
        out, err = child.communicate(timeout=50)
        said |= {"code": child.returncode, "out": out.decode(), "err": err.decode()}
    except (Broken, NotFound) as error:
        text = b""
        if child is not None:
            child.kill()
            text = child.communicate()[1]
        said |= {"refused": enclosure.explained(error, text), "why": type(error).__name__}
    finally:
        for each in (ours, theirs, *listeners):
            each.close()
        with contextlib.suppress(Broken):
            enclosure.release(
                profile.cwd,
                {"program": profile.program, "home": profile.home, "user": profile.user},
            )
    return said
