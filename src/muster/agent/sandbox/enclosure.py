"""A program started inside its sandbox, or not at all.

Rule 1: fail closed. What bubblewrap starts is a gate (GATE), which becomes the command when it is
told to, and ends when it is told nothing: a shim that died tells nothing. It is told when the
sandbox is seen to stand: namespaces that are not ours, a user that is not root, its limits set, its
listeners with the daemon. (The block of bubblewrap itself opens when whoever holds it dies.)
Rule 2: never as uid 0: what belongs to root in the kernel's files could be written from inside.
Where the daemon is root the program is another user, who is lent its folders (ownership.py).
Rule 3: what was lent and occupied is taken back by `release`, which needs nothing but the order:
the shim calls it at the end, the daemon for a shim that died, the next one for a daemon that died.
Rule 4: bubblewrap's own environment is the mark of the attempt and nothing else, for anybody inside
can read it (its process is number 1 there); what is secret and what is long travels through files
in memory.

    made = Enclosure(profile, argv, env)            # nothing runs yet
    child = Popen(made.argv, preexec_fn=made.enter, pass_fds=made.handles, env=made.env, cwd="/")
    made.confirm()                                  # from here on the command runs
"""

import contextlib
import fcntl
import json
import os
import platform
import resource
import select
import signal
import socket
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from muster.agent import process_tree
from muster.agent.sandbox import bubblewrap, mounts, ownership, protected, seccomp
from muster.agent.sandbox.listener import Listener
from muster.agent.sandbox.profile import Profile, profile_of
from muster.errors import Broken, NotFound
from muster.git import baseline

# A start takes 20 ms on a quiet machine; machines are not quiet, and some disks sleep.
_BUILD_S_MAX: Final = 20.0
# What the gate says, and is told; the largest number of a descriptor that every shell can name.
_GATE_AT: Final = 9
_THERE, _ABSENT, _GO = b"there\n", b"absent\n", b"go\n"
GATE: Final = (
    'command -v "$1" >/dev/null 2>&1 || { echo absent >&9; exit 127; }; '
    'echo there >&9 && read -r muster_go_ <&9 && [ "$muster_go_" = go ] || exit 125; '
    'unset muster_go_; exec 9>&-; exec "$@"'
)
_INFO_BYTES_MAX: Final = 4096
_SAID_BYTES_MAX: Final = 2000
_NAMESPACES: Final = ("user", "mnt", "pid", "net", "ipc", "uts")
_FORBIDDEN: Final = (
    "No permissions to create new namespace", "Creating new namespace failed", "setting up uid map",
    "Failed RTM_NEWADDR", "Can't mount proc",
)  # fmt: skip
ADVICE: Final = (
    "this machine lets nobody make user namespaces (in a container, by AppArmor or by "
    "user.max_user_namespaces); `muster doctor` says what to do"
)


class Enclosure:
    """One sandbox that is being built; used once."""

    def __init__(
        self,
        profile: Profile,
        argv: Sequence[str],
        env: Mapping[str, str],
        to_daemon: int | None = None,
    ) -> None:
        """Prepare the folders and all that bubblewrap is told. Raises: Broken."""
        self._profile = profile
        self._open: list[int] = []
        self._listener: Listener | None = None
        self._gate: socket.socket | None = None
        try:
            self._check()
            if profile.ports:
                if to_daemon is None:
                    raise Broken("nobody serves the ports of this sandbox; nothing was started")
                self._listener = Listener(profile.ports, to_daemon)
            self._prepare(argv, env)
        except OSError as error:
            self.close()
            raise Broken(f"the sandbox cannot be prepared: {error}") from error
        except (Broken, KeyError):
            self.close()
            raise

    def _check(self) -> None:
        profile = self._profile
        if platform.machine() not in seccomp.ARCHITECTURES:
            raise Broken(f"there is no sandbox for {platform.machine()} machines yet")
        if os.geteuid() == 0 and not profile.user:
            raise Broken(
                "a sandbox does not hold root; name the user of its attempts in this machine's "
                "configuration, or run the daemon as a user"
            )
        if not (os.path.isfile(profile.program) and os.access(profile.program, os.X_OK)):
            raise Broken(
                f"bubblewrap is not at {profile.program or 'any place'}, or may not be run; "
                "install the package bubblewrap, then run `muster doctor`"
            )
        for folder in (profile.home, *profile.writable):
            if not os.path.exists(folder):
                raise Broken(f"{folder}, which the sandbox is given, is not there")

    def _prepare(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        profile = self._profile
        protection = protected.occupy(profile.cwd, profile.free)
        self._sources: list[str] = []
        self._place = ""
        at: bubblewrap.At = str
        if profile.drops:
            if os.geteuid() != 0:
                raise Broken("only a daemon of root runs its attempts as another user")
            self._sources = bubblewrap.sources(profile)
            self._place = mounts.place_for(self._sources)
            if not self._place:
                raise Broken("no folder of this machine is free for the sandbox's sources")
            self._lend()
            at = self._staged
        words = bubblewrap.arguments(profile, protection, env, self._given, at)
        words += ["--seccomp", str(self._given(seccomp.program(platform.machine())))]
        self._info, info = self._pipe()
        blocks, self._block = self._pipe()
        self._failed, self._fails = self._pipe()
        words += ["--info-fd", str(info), "--block-fd", str(blocks)]
        told = self._given(os.fsencode("\0".join([*words, ""])))
        self.argv = [profile.program, "--args", str(told), "--", "/bin/sh", "-c", GATE, "sh", *argv]
        self.env = {name: env[name] for name in (process_tree.MARKER,) if name in env}
        ours = {self._info, self._block, self._failed, self._fails}
        self._theirs = [each for each in self._open if each not in ours]
        self._gate, gate = socket.socketpair()
        self._gate_of_child = self._kept(gate.detach())
        # It has to be a descriptor of ours, whichever, to be one of the child's.
        try:
            os.fstat(_GATE_AT)
        except OSError:
            # No descriptor of ours has this number yet.
            self._open.append(os.dup2(self._gate_of_child, _GATE_AT, inheritable=False))
        self.handles = [*self._theirs, _GATE_AT]

    def _lend(self) -> None:
        profile = self._profile
        with _untouched_stays(profile):
            ownership.lend(profile.cwd, profile.user)
        ownership.lend(profile.home, profile.user)
        for path in profile.placed.values():
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.chown(path, profile.user, profile.user, follow_symlinks=False)

    def _staged(self, path: str) -> str:
        return f"{self._place}/{self._sources.index(path)}"

    def _kept(self, handle: int) -> int:
        """The same with a number that the gate's never is, to be closed at last."""
        try:
            moved: int = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, _GATE_AT + 1)
        finally:
            os.close(handle)
        self._open.append(moved)
        return moved

    def _given(self, data: bytes) -> int:
        handle = self._kept(os.memfd_create("muster", os.MFD_CLOEXEC))
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
        os.lseek(handle, 0, os.SEEK_SET)
        return handle

    def _pipe(self) -> tuple[int, int]:
        reads, writes = os.pipe()
        return self._kept(reads), self._kept(writes)

    def enter(self) -> None:
        """In the child, between fork and exec; what fails is told to `confirm`."""
        profile = self._profile
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if profile.drops:
                # The work folder and the home are ours to follow: an earlier attempt had them.
                mounts.stage(self._place, self._sources, unfollowed=2)
                os.setgroups([])
                os.setresgid(profile.user, profile.user, profile.user)
                os.setresuid(profile.user, profile.user, profile.user)
            # Whoever becomes another user has lost it.
            process_tree.prctl(process_tree.PR_SET_PDEATHSIG, signal.SIGKILL)
            os.dup2(self._gate_of_child, _GATE_AT)
        except OSError as error:
            os.write(self._fails, str(error).encode()[:_SAID_BYTES_MAX])
            os._exit(127)

    def confirm(self) -> None:
        """See the child's sandbox stand, then let its command begin.

        Raises: Broken, or NotFound for a program that is not inside; then the command has not
        begun and never will, and the caller ends the child.
        """
        until_s = time.clock_gettime(time.CLOCK_BOOTTIME) + _BUILD_S_MAX
        for handle in (*self._theirs, self._gate_of_child, self._fails, _GATE_AT):
            self._close(handle)
        try:
            inside = self._inside(until_s)
            _check_apart(inside)
            self._limit(inside)
            if self._listener is not None:
                self._listener.begin(inside)
            self._close(self._block)
            self._wait_for_gate(until_s)
            if self._listener is not None:
                self._listener.confirm()
            assert self._gate is not None
            self._gate.sendall(_GO)
        except OSError as error:
            raise Broken(f"the sandbox did not come to be: {error}") from error
        finally:
            self.close()

    def _inside(self, until_s: float) -> int:
        """The first process inside, as bubblewrap says. It says so before it mounts anything."""
        raw = b""
        while len(raw) < _INFO_BYTES_MAX:
            left_s = until_s - time.clock_gettime(time.CLOCK_BOOTTIME)
            if left_s <= 0 or not select.select([self._info], [], [], left_s)[0]:
                raise Broken("bubblewrap made no sandbox in time")
            data = os.read(self._info, _INFO_BYTES_MAX)
            raw += data
            try:
                pid = int(json.loads(raw)["child-pid"])
            except (ValueError, KeyError, TypeError):
                pid = 0
            if pid > 1:
                return pid
            if not data:
                break
        raise Broken(self._failure() or "bubblewrap made no sandbox")

    def _failure(self) -> str:
        """What `enter` told."""
        if not select.select([self._failed], [], [], 0)[0]:
            return ""
        said = os.read(self._failed, _SAID_BYTES_MAX).decode("utf-8", "replace")
        return said and f"the folders of the sandbox cannot be shown to its user: {said}"

    def _limit(self, inside: int) -> None:
        profile = self._profile
        bounds = {
            resource.RLIMIT_AS: profile.memory_bytes,
            resource.RLIMIT_NPROC: profile.processes,
            resource.RLIMIT_FSIZE: profile.file_bytes,
        }
        wanted = {kind: most for kind, most in bounds.items() if most}
        # Of the one inside: outside its namespace the same user may run anything. Root itself may
        # lack the right to limit others (in a container); whoever is the same user needs none.
        if wanted and profile.drops:
            os.setresgid(profile.user, -1, -1)
            os.setresuid(profile.user, -1, -1)
        try:
            for kind, most in wanted.items():
                # Nobody raises what whoever started us bounded further.
                hard = resource.prlimit(inside, kind)[1]
                bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.prlimit(inside, kind, (bound, bound))
        finally:
            if wanted and profile.drops:
                os.setresuid(0, -1, -1)
                os.setresgid(0, -1, -1)

    def _wait_for_gate(self, until_s: float) -> None:
        assert self._gate is not None
        said = b""
        while not said.endswith(b"\n"):
            left_s = until_s - time.clock_gettime(time.CLOCK_BOOTTIME)
            if left_s <= 0 or not select.select([self._gate], [], [], left_s)[0]:
                raise Broken("bubblewrap did not finish the sandbox in time")
            data = self._gate.recv(64)
            if not data:
                raise Broken("bubblewrap could not finish the sandbox")
            said += data
        if said == _ABSENT:
            raise NotFound("its program is not in the sandbox; the folder must be readable there")
        if said != _THERE:
            raise Broken("bubblewrap started something else in the sandbox")

    def _close(self, handle: int) -> None:
        if handle in self._open:
            self._open.remove(handle)
            os.close(handle)

    def close(self) -> None:
        """Let go of what we hold; harmless when repeated."""
        for handle in tuple(self._open):
            self._close(handle)
        if self._gate is not None:
            self._gate.close()
        if self._listener is not None:
            self._listener.close()


def _check_apart(inside: int) -> None:
    """A program that only says it made a sandbox made none. Raises: Broken, OSError."""
    for name in _NAMESPACES:
        if os.stat(f"/proc/{inside}/ns/{name}").st_ino == os.stat(f"/proc/self/ns/{name}").st_ino:
            raise Broken(f"bubblewrap made no sandbox: its {name} namespace is the machine's own")
    with open(f"/proc/{inside}/status", encoding="utf-8") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    if "0" in status["Uid"].split():
        raise Broken("bubblewrap made no sandbox: its program is root")
    if status["NoNewPrivs"].strip() != "1":
        raise Broken("bubblewrap made no sandbox: its program may gain privileges")


def explained(error: Exception, said: bytes) -> str:
    """The reason in one sentence, with what bubblewrap itself said of it."""
    text = " ".join(said.decode("utf-8", "replace").split())[-_SAID_BYTES_MAX:]
    if any(each in text for each in _FORBIDDEN):
        return f"{error}: {text}; {ADVICE}"
    return f"{error}: {text}" if text else str(error)


def release(cwd: str, sandbox: Mapping[str, Any]) -> None:
    """Take back what an attempt was lent, and remove what was occupied for it.

    Nothing of the attempt runs any more. Harmless when repeated.
    """
    profile = profile_of(cwd, sandbox)
    protected.release(cwd)
    if profile.drops and os.geteuid() == 0:
        # What stays the other user's is read and removed by root all the same.
        with contextlib.suppress(OSError), _untouched_stays(profile):
            ownership.take_back(cwd, profile.user)
        # As above, and each for itself.
        with contextlib.suppress(OSError):
            ownership.take_back(profile.home, profile.user)


def _untouched_stays(profile: Profile) -> contextlib.AbstractContextManager[None]:
    if not profile.notes:
        return contextlib.nullcontext()
    return baseline.kept(Path(profile.notes), Path(profile.cwd))
