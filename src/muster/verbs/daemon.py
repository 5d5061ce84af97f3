"""The daemon as a program: started, found, stopped.

Rule 1: one daemon per home. Whoever is second says so and changes nothing.
Rule 2: `up --detach` returns when the daemon answers, or says why it does not; it waits for the
daemon's own word through a pipe, not for time.
Rule 3: `down` returns when the process is gone, so that the next command may use the database.
"""

import asyncio
import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

from msgspec import UNSET, Struct, UnsetType, convert

from muster.channel.backoff import Backoff
from muster.channel.unproven import raise_descriptors
from muster.errors import (
    Broken,
    Conflict,
    Denied,
    Exhausted,
    MusterError,
    NotFound,
    Silent,
    Unreachable,
    of_exit,
)
from muster.limits import DESCRIPTORS_WANTED
from muster.node.exposed import Exposed, sentence
from muster.node.host import daemon_log, ending, lock, owner, service, signals
from muster.node.host.home import Home
from muster.node.host.supervised import Supervised
from muster.node.verb import Line
from muster.verbs.declaration import Context, Daemon, Nothing, Perform, Request, opt, verb
from muster.verbs.table import VERBS

READY_FD: Final = "MUSTER_READY_FD"
# What `ssh-serve` is told to be the daemon itself.
VISIT: Final = "--visit"
READY_S: Final = 60.0
# An agent gets fifteen seconds to end; then the daemon closes its database and goes.
GONE_S: Final = 40.0
# A daemon answers in milliseconds, and on a busy small machine in a second or two.
ANSWER_S: Final = 10.0
# The answer must be written to its link before the links are closed.
STOP_DELAY_S: Final = 0.05


class Up(Request, frozen=True):
    detach: Annotated[
        bool, opt("return once it answers; it goes on in the background", short="d")
    ] = False


class Running(Struct, frozen=True):
    """`listens` says where others can dial it, and who can; "" where nobody can."""

    name: str
    pid: int
    log: str
    listens: str = ""


@verb("up", auth="local", runs="client", group="The fleet", harmless=True,
      says=(Line("{name} is up (process {pid}); its log is {log}"),
            Line("It listens at {listens}.", "listens")))  # fmt: skip
def up(context: Context, ask: Up) -> Running | None:
    """Run this machine's daemon.

    muster up --detach
    """
    home = context.home
    home.require()
    owner.require_own(home.path, "up")
    # The lock first: a daemon that hangs holds it, and is not waited for.
    if lock.holder(home.lock) is not None or context.running():
        visits: bool | None = False
        with contextlib.suppress(Unreachable):  # It is just beginning or ending.
            visits = _visits(context)
        if visits is None:
            raise Conflict(
                f"the daemon of {home.path} is there and does not answer; `muster doctor` "
                "says what ends it"
            )
        if not visits:
            raise Conflict(f"the daemon of {home.path} runs already; `muster status` shows it")
        # It serves whoever came through sshd; they come back to the one that stays.
        home.stay_down()
        end(context)
    for warning in home.open_seeds():
        context.say(warning)
    if ask.detach:
        return begin(context)
    _serve(home, context.say)
    return None


def begin(context: Context) -> Running:
    """Start the daemon in the background: as the service of this home, where it has one."""
    owner.require_own(context.home.path, "up --detach")
    kept = service.installed(context.home)
    if kept is not None:
        try:
            kept.check("start")
        except (NotFound, Denied) as error:
            # Its file came here with a home, or it is root's to start.
            context.say(f"the service {kept.service.name} cannot be started: {error}")
            kept = None
    if kept is None:
        pid = _detach(context.home, ["muster", "--home", str(context.home.path), "up"])
        log = context.home.daemon_log
    else:
        kept.start()
        pid, log = kept.state().pid, kept.log
    here = next(each for each in context.ask("machines", {}) if each["state"] == "here")
    heard = sentence(convert(each, Exposed) for each in here["listens"])
    return Running(here["name"], pid, log, heard)


def visit(home: Home) -> None:
    """Begin a daemon for whoever came through sshd; it ends after them.

    Raises: Conflict where one runs, or begins.
    """
    owner.require_own(home.path, "ssh-serve")
    _detach(home, ["muster.cli.ssh_serve", str(home.path), VISIT])


def be_visited(home: Home, say: Callable[[str], None]) -> None:
    """Be that daemon, in this process. Raises: as `up`."""
    _serve(home, say, visiting=True)


def _serve(home: Home, say: Callable[[str], None], *, visiting: bool = False) -> None:
    """The life of the daemon, in this process.

    Raises: Conflict where one runs already; Broken when it ended badly.
    """
    factory = None
    with contextlib.suppress(ImportError):  # Not every platform has it.
        import uvloop  # noqa: PLC0415 - not on every platform

        factory = uvloop.new_event_loop
    # Before anything is opened: two programs must never have one database.
    with lock.held(home.lock):
        if not visiting:
            home.put_down.unlink(missing_ok=True)
        elif home.put_down.exists():
            raise Conflict(f"a person put the daemon of {home.path} down")
        home.note_socket()
        raise_descriptors(DESCRIPTORS_WANTED)
        daemon_log.bound(home.daemon_log)
        end = ending.Ending(home.cut_off)
        pid_file = Path(home.pid_file)
        serving = False
        system = Supervised()

        def ready(daemon: Daemon) -> None:
            nonlocal serving
            if serving:
                return
            serving = True
            pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
            heard = sentence(daemon.core.exposed())
            at = f" and listens at {heard}" if heard else ""
            say(f"{daemon.core.name} is up{at}; Ctrl-C or `muster down` stops it")
            system.ready()
            if inherited := os.environ.pop(READY_FD, ""):
                os.write(int(inherited), b"1")
                os.close(int(inherited))

        with asyncio.Runner(loop_factory=factory) as runner, end.bounded():
            try:
                why = runner.run(_live(home, ready, end, visiting=visiting))
            finally:
                system.say("STOPPING=1")
                if serving:
                    pid_file.unlink(missing_ok=True)
            if why:
                raise Broken(f"the daemon stopped: {why}")


async def _live(
    home: Home, ready: "Callable[[Daemon], None]", end: ending.Ending, *, visiting: bool
) -> str:
    """One daemon after the other, as long as one ends by our own mistake; why the last ended.

    Each begins from the store, which holds nothing of the step that failed. The pause grows, so
    that a mistake that comes back at once costs neither a processor nor a disk.
    """
    from muster.node.daemon import Daemon  # noqa: PLC0415 - only where one begins
    from muster.node.installation import Installation  # noqa: PLC0415 - as above
    from muster.node.parts import PARTS  # noqa: PLC0415 - as above

    pauses = Backoff(random.SystemRandom().random)
    loop = asyncio.get_running_loop()

    def told() -> None:
        end.begin(wanted=True)
        with contextlib.suppress(RuntimeError):  # The loop has ended meanwhile.
            loop.call_soon_threadsafe(lambda: daemon.stop())  # noqa: PLW0108 - by then another one

    with signals.heard(told):
        while True:
            began = loop.time()
            daemon = Daemon(Installation(home, PARTS, visiting=visiting), VERBS)
            daemon.ends = lambda wanted: end.begin(wanted=wanted)
            end.count(daemon.core.counters)
            await daemon.run(lambda: ready(daemon))  # noqa: B023 - called before the next one
            if not await daemon.goes_on(pauses.lost(int((loop.time() - began) * 1000)) / 1000):
                return daemon.why_stopped


def _detach(home: Home, words: Sequence[str]) -> int:
    """Start the daemon as a session of its own; its pid, once it answers. Raises: Broken."""
    reader, writer = os.pipe()
    log = os.open(home.daemon_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    began = os.fstat(log).st_size
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writer,),
            env={**os.environ, READY_FD: str(writer)},
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(writer)
        os.close(log)
    try:
        readable, _, _ = select.select([reader], [], [], READY_S)
        said = os.read(reader, 1) if readable else b""
    finally:
        os.close(reader)
    if said:
        # It outlives us on purpose; without this the interpreter warns of it.
        child.returncode = 0
        return child.pid
    if not readable:
        child.terminate()
    # What ended it ends us: a script that starts the daemon must tell a full disk from a bad home.
    kind = of_exit(child.wait())
    with open(home.daemon_log, "rb") as file:
        file.seek(began)
        lines = file.read()[-4000:].decode("utf-8", "replace").split("\n")
    told = [line.removeprefix("muster: ") for line in lines if line.strip()]
    why = (told[-1][:300] if told else "") or _SILENT.get(kind, "it said nothing")
    raise kind(f"the daemon did not start: {why}; see {home.daemon_log}")


# The log lies on the disk that is full.
_SILENT: Final[dict[type[MusterError], str]] = {
    Exhausted: "the disk is full, or descriptors or memory are used up; free some"
}


class Stopped(Struct, frozen=True):
    """What was stopped; what it was before, where nothing ran; the service that starts it again."""

    stopped: str
    pid: int | UnsetType = UNSET
    was: str | UnsetType = UNSET
    service: str | UnsetType = UNSET


@verb(
    "down", auth="local", runs="client", group="The fleet", on="one",
    says=(
        Line("The daemon was not running.", "was"), Line("The daemon has stopped.", "pid"),
        Line("{stopped} is stopping.", "!was !pid"),
        Line("The service {service} starts it again after a reboot; `muster service remove` "
             "takes that away.", "service"),
    ),
)  # fmt: skip
def down(context: Context, ask: Nothing) -> Stopped:
    """Stop this machine's daemon.

    muster down
    """
    if context.on:
        context.ask("stop", {}, on=context.on)
        return Stopped(context.on)
    home = context.home
    home.require()
    # Before it ends: who comes through sshd at that moment would begin another.
    home.stay_down()
    pid, kept = end(context), service.installed(home)
    stays = UNSET if kept is None else kept.service.name
    if not pid:
        return Stopped("", was="not running", service=stays)
    return Stopped(str(home.path), pid, service=stays)


def _visits(context: Context) -> bool | None:
    """Whether the daemon that is there only serves who comes through sshd; None where it says
    nothing. Raises: Unreachable where none listens.
    """
    try:
        return bool(context.ask("status", {}, within_s=ANSWER_S)["process"].get("visiting"))
    except Silent:
        return None


def end(context: Context) -> int:
    """End the daemon of this home, in order; its process, 0 where none runs. Raises: Broken.

    As root that of another person's home as well, who alone may talk to it.
    """
    home = context.home
    theirs = owner.stranger(home.path)
    if theirs is not None and os.geteuid() == 0:
        pid = _terminate(home, theirs)
    else:
        try:
            pid = int(context.ask("stop", {}, within_s=ANSWER_S)["pid"])
        except Silent:  # It hangs, so a signal tells it.
            pid = _terminate(home, None)
            if pid:
                context.say(
                    f"the daemon (process {pid}) does not answer; it is told to end, and "
                    f"`kill -9 {pid}` ends it at once"
                )
        except Unreachable:
            pid = _terminate(home, None)
    if pid:
        _wait_gone(pid, GONE_S)
    return pid


def _terminate(home: Home, user: int | None) -> int:
    """Tell the process that holds the home's lock to end; which one it is, 0 for none.

    A number in a file may be that of any program by now, and `user` can write any: only a process
    counts that has the lock open, and runs as that user where one is named. Raises: Broken.
    """
    pid = lock.holder(home.lock)
    if pid is None:
        return 0
    if pid == 0:
        raise Broken(
            f"a program holds {home.lock} and it cannot be told which one; "
            f"`fuser {home.lock}` names it"
        ) from None
    if user is not None and lock.user_of(pid) != user:
        raise Broken(
            f"{home.lock} names the process {pid}, which is not {owner.called(user)}'s: "
            f"`fuser {home.lock}` tells who holds it"
        )
    with contextlib.suppress(ProcessLookupError):  # It has ended by itself.
        os.kill(pid, signal.SIGTERM)
        # One that was stopped hears nothing before it goes on.
        os.kill(pid, signal.SIGCONT)
    return pid


def _wait_gone(pid: int, within_s: float) -> None:
    """Returns when the process has ended. Raises: Broken when it does not."""
    if hasattr(os, "pidfd_open"):
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:  # It has ended by itself.
            return
        try:
            gone, _, _ = select.select([handle], [], [], within_s)
        finally:
            os.close(handle)
    else:
        # Nothing tells when a process that is not our child ends.
        for _ in range(int(within_s * 20)):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)
        gone = []
    if not gone:
        raise Broken(f"the daemon (process {pid}) does not end; `kill -9 {pid}` ends it")


class Stopping(Struct, frozen=True):
    pid: int


@verb("stop", auth="local", runs="async")
async def stop(daemon: Daemon, call: Perform, ask: Nothing) -> Stopping:
    """End the daemon after its current step."""
    asyncio.get_running_loop().call_later(STOP_DELAY_S, daemon.stop)
    return Stopping(os.getpid())
