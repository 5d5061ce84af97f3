"""`muster doctor`: what is wrong with this machine, and how it is mended.

Rule 1: every check says what it found in one sentence and, where something is to be done, what.
Rule 2: three answers: `ok`; `note` is worth knowing and no fault; `wrong` must be mended, and one
of them makes the exit code 1.
Rule 3: a check never changes anything of anybody's, and one that cannot be made says so. What
`--fix` does stands in repair.py, and is looked at again afterwards.
"""

import asyncio
import contextlib
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import UNSET, Struct, UnsetType, convert, field, to_builtins

from muster.agent.catalogue import gives_no_server, load, which
from muster.agent.servers import lack
from muster.errors import MusterError, Refused
from muster.fleet import certificate
from muster.git import command as gits
from muster.limits import DISK_CRITICAL_BYTES, DISK_LOW_BYTES, SOCKET_PATH_BYTES_MAX
from muster.log import canon
from muster.node.host import clock, owner
from muster.node.host.home import Home
from muster.node.host.person_path import person_path
from muster.node.host.reach import check_config
from muster.store.sqlite import check_version
from muster.task.text_types import NAME
from muster.verbs import acp_stop
from muster.verbs import agent as agents
from muster.verbs import service as kept
from muster.verbs.checks import Check, guarded, tried
from muster.verbs.client import Finding
from muster.verbs.daemon_checks import PAST, hung, of_daemon, of_hung
from muster.verbs.declaration import Context, Request, opt, verb
from muster.verbs.integration_checks import of_programs
from muster.verbs.mesh_checks import of_mesh
from muster.verbs.place_checks import of_places, of_their_use
from muster.verbs.repair import Repaired, broken_hooks, programs_of, repair
from muster.verbs.sandbox_checks import of_sandbox
from muster.verbs.secret_checks import of_secrets

_CONFIGURATION: Final = "configuration"

# Several machines are looked at by as many threads.
canon.learn(Check)


class Checks(Struct, frozen=True):
    """What was looked at; with `--fix` what was done before, with `--dry-run` what would be."""

    checks: list[Check]
    done: list[Repaired] | UnsetType = UNSET
    would: list[Repaired] | UnsetType = UNSET


class Ask(Request, frozen=True):
    fix: Annotated[bool, opt("do what can be done safely, and say what is left")] = False
    dry_run: Annotated[bool, opt("say what --fix would do, and do nothing")] = field(
        default=False, name="dry-run"
    )


@verb("doctor", auth="local", runs="client", group="The fleet", harmless=True, on="many")
def doctor(context: Context, ask: Ask) -> Checks | Finding:
    """Check this machine and say how to mend what is wrong.

    Exit code 1 where something is. With --fix it first does what takes nothing from anybody: start
    the daemon, shut the home to others, let the service find what your shell finds.

        muster doctor
        muster doctor --fix
        muster doctor --dry-run
        muster doctor --on all
    """
    if context.on:
        if ask.fix or ask.dry_run:
            mends = "--fix mends the machine it is typed on"
            raise Refused(f"{mends}: type `muster doctor --fix` on {context.on} itself")
        found = context.ask("doctor.report", {}, on=context.on)
        return _judged(Checks([convert(each, Check) for each in found["checks"]]))
    done: list[Repaired] | UnsetType = UNSET
    would: list[Repaired] | UnsetType = UNSET
    if ask.dry_run:
        would = repair(context, dry=True)
    elif ask.fix:
        done = repair(context, dry=False)
    return _judged(Checks(_looked_at(context), done, would))


def _judged(value: Checks) -> Checks | Finding:
    return Finding(value, 1) if any(check.state == "wrong" for check in value.checks) else value


def _looked_at(context: Context) -> list[Check]:
    home = context.home
    well, newest = "new enough", "install the newest apsw: pip install -U apsw"
    hangs = _hangs(context)
    checks = [
        *guarded("SQLite", newest, check_version, well),
        *guarded("git", "install git 2.29 or newer", gits.check_version, well),
        *tried("agents", "mend the file it names", partial(_agents, context, asks=hangs is None)),
        *tried("MCP servers", "mend the file it names", partial(_servers, context.home)),
        *tried("sandbox", "mend the file it names", partial(of_sandbox, context.home)),
        *tried("secrets", "mend the file it names", partial(of_secrets, context.home)),
        *_of_path(os.environ.get("PATH", "")),
        *_of_home(home),
    ]
    if os.path.exists(home.path / "seed"):
        checks += tried("service", "muster service install", partial(_service, home))
        if hangs is None:
            checks += tried("daemon", "", partial(of_daemon, context))
        else:
            checks.append(of_hung(context, hangs))
        runs = hangs is None and _is_well("daemon", checks)
        checks += of_programs(context, runs=runs)
        checks += tried("places", "mend the file it names", partial(of_places, home))
        if runs:
            checks += tried("places", "", partial(of_their_use, context))
            checks += tried("mesh", "muster mesh status", partial(of_mesh, context))
        checks += tried("editors", "", partial(_stops, home))
    # What is wrong with the past of a machine makes everything else doubtful.
    return sorted(_said_once(checks), key=lambda check: check.name != PAST)


def _said_once(checks: list[Check]) -> list[Check]:
    """A mistake in the configuration is said by its own check; others that met it were not made."""
    wrong = {each.text for each in checks if each.name == _CONFIGURATION and each.state == "wrong"}
    return [
        Check(each.name, "note", "not looked at: it needs the configuration, which is wrong")
        if each.text in wrong and each.name != _CONFIGURATION
        else each
        for each in checks
    ]


def _is_well(name: str, checks: list[Check]) -> bool:
    return any(check.name == name and check.state == "ok" for check in checks)


def _hangs(context: Context) -> int | None:
    # Where the lock cannot be looked at, the checks of the home say why.
    with contextlib.suppress(MusterError, OSError):
        return hung(context)
    return None


def _stops(home: Home) -> Iterator[Check]:
    """What a Stop in an editor said, and no machine has heard."""
    for stop in acp_stop.left(home):
        run = stop.run[:12]
        if stop.refused:
            text = f"run {run}, stopped in an editor, could not be: {stop.refused}"
            yield Check("editors", "wrong", text, f"muster cancel {run}; then muster acp --stops")
        else:
            text = f"run {run} was stopped in an editor, and its machine has not heard it yet"
            yield Check("editors", "note", text, "`muster acp --stops` says it again until it does")


# --- the system -----------------------------------------------------------------------------------


def _agents(context: Context, *, asks: bool = True) -> Iterator[Check]:
    rows, config = _rows(context, asks=asks), context.home.config()
    there = [row for row in rows if row["state"] != agents.ABSENT]
    well = [row for row in there if row["state"] != agents.SILENT]
    names = ", ".join(f"{row['agent']} {row['version']}".strip() for row in well)
    mends = ", ".join(f"`{row['mend']}`" for row in rows if row["mend"].startswith(("npm ", "uv ")))
    none = "none that answers" if there else "no AI agent"
    yield Check("agents", "ok" if names else "note", f"found: {names or none}",
                "" if there else f"one of them is enough: {mends}")  # fmt: skip
    for row in there:
        name, way = row["agent"], f" (driven by {row['driver']})" if row["driver"] else ""
        if row["state"] == agents.SILENT:
            text = f"{name} is on PATH and does not answer"
            yield Check(f"agent {name}", "note", text, row["mend"])
        elif row["state"] == agents.LOGIN:
            text = f"{name} is on PATH but not logged in: it gets no work"
            yield Check(f"agent {name}", "note", text, row["mend"])
        else:
            login = "is logged in" if row["login"] else "is here; nobody can tell of its login"
            yield Check(f"agent {name}", "ok", f"{name} {login}{way}")
    drivers = {row["agent"]: row["driver"] for row in rows}
    for wished in sorted(each for each in config.headless if drivers.get(each, "acp") == "acp"):
        yield Check("headless", "note", f"`headless` names {wished[:40]!r}, which has no such mode "
                    "that keeps to the work folder", "take it out of `headless`")  # fmt: skip
    known = load(context.home.path) if config.mcp else {}
    for server, row in ((each, row) for each in config.mcp for row in there if row["driver"]):
        if why := gives_no_server(known[row["agent"]], row["driver"], server):
            what, _, mend = why.partition("; ")
            yield Check(f"MCP server {server}", "note", f"{row['agent']} {what}", mend)


def _servers(home: Home) -> Iterator[Check]:
    """The MCP servers of config.toml that no agent can be given, so that no work for them comes."""
    try:
        config, file = home.config(), home.agent_variables()
    except MusterError:
        # Said by the check before.
        return
    if not config.mcp:
        return
    path = asyncio.run(person_path(config.path, os.environ))
    source = {**os.environ, **file}
    for name, server in config.mcp.items():
        if lacks := lack(name, server, source, lambda program: which(program, path)):
            yield Check(f"MCP server {name}", "note", f"{lacks}: it gets no work",
                        "put the variable into agents.env, or install the program")  # fmt: skip


def _of_path(path: str) -> Iterator[Check]:
    """Where somebody else can put a `claude` that runs as this person."""
    for folder in dict.fromkeys(path.split(os.pathsep)):
        # A folder that is not there gives no programs.
        with contextlib.suppress(OSError):
            if os.path.isabs(folder) and os.stat(folder).st_mode & stat.S_IWOTH:
                yield Check("PATH", "note", f"{folder} is on PATH, and every user of this machine "
                            "may put a program there that then runs as you",
                            f"chmod o-w {folder}, or take it from your PATH")  # fmt: skip


def _rows(context: Context, *, asks: bool) -> list[dict[str, Any]]:
    """The agents of this machine as its daemon has them, else as it would find them."""
    # A daemon that does not answer has a line of its own; here it is looked up without it.
    with contextlib.suppress(MusterError):
        if asks and context.home.has_seed("seed"):
            name = str(context.ask("status", {})["name"])
            return list(context.ask("agents", {"machine": name}))
    return list(to_builtins(agents.here(context.home, context.note)))


# --- the home ----------------------------------------------------------------------


def _of_home(home: Home) -> Iterator[Check]:
    try:
        lives = home.exists
    except OSError as error:
        yield Check("home", "wrong", f"{home.path} cannot be entered: {error.strerror}",
                    owner.whose(str(home.path / "seed")))  # fmt: skip
        return
    if not lives:
        text, _, mend = home.absent().partition(": ")
        yield Check("home", "wrong", text, mend)
        return
    yield from tried("home", "", partial(_whose, home))

    def config() -> None:
        check_config(home.config(), home.facts(), str(home.path / "config.toml"))

    well = "config.toml and fleet.json can be read"
    yield from guarded(_CONFIGURATION, "mend the file it names", config, well)
    yield from tried("labels", "", partial(_labels, home))
    for name in ("seed", "authority.seed", "operator.seed", "device.seed"):
        mend = "put it back from a copy of this home"
        yield from tried(name, mend, partial(_seed, home, name))
    yield from tried("home's mode", "", partial(_folder_mode, "home's mode", home.path))
    state = Path(home.mark_folder)
    yield from tried("state's mode", "", partial(_folder_mode, "state's mode", state))
    yield from tried("socket", "", partial(_socket, home))
    yield from tried("repositories", "", partial(_repositories, home))
    yield from tried("disk", "", partial(_space, home))
    yield from tried("certificate", "join again", partial(_certificates, home))


def _whose(home: Home) -> Iterator[Check]:
    """The home; what somebody else starts in it writes files that its owner cannot open."""
    theirs = owner.stranger(home.path)
    if theirs is None:
        yield Check("home", "ok", str(home.path))
        return
    who = owner.called(os.geteuid())
    text = f"{home.path} belongs to {owner.called(theirs)}, and you are {who}"
    as_them = owner.command_as(theirs, home.path, "doctor")
    yield Check("home", "note", text, f"be that user for whatever runs in it: {as_them}")


def _seed(home: Home, name: str) -> Iterator[Check]:
    if not home.has_seed(name):
        return
    try:
        home.seed(name)
    except Refused as error:
        yield Check(name, "wrong", str(error), "whoever could read it can do what you can: "
                    "`muster revoke` shuts its key out")  # fmt: skip
    else:
        yield Check(name, "ok", "for nobody else to read")


def _socket(home: Home) -> Iterator[Check]:
    size = len(os.fsencode(home.socket))
    inside = home.socket.startswith(str(home.path))
    if size > SOCKET_PATH_BYTES_MAX:
        yield Check("socket", "wrong", f"its path has {size} bytes, {SOCKET_PATH_BYTES_MAX} fit",
                    "set XDG_RUNTIME_DIR to a short folder")  # fmt: skip
    else:
        yield Check("socket", "ok", home.socket if inside else f"{home.socket} (the home is deep)")


def _repositories(home: Home) -> Iterator[Check]:
    for folder in (home.repos, home.blobs, home.work, home.run):
        if os.path.lexists(folder) and not os.path.isdir(folder):
            yield Check(os.path.basename(folder), "wrong", f"{folder} is no folder",
                        "move it away; put the folder back from a copy")  # fmt: skip
    for name in broken_hooks(home):
        yield Check(f"repository {name}", "wrong", "its hooks are broken", "muster doctor --fix")


def _labels(home: Home) -> Iterator[Check]:
    """What stands in config.toml as a label, and no spec can name."""
    try:
        labels = home.config().labels
    except MusterError:
        # Said by the check before.
        return
    for label in labels:
        if not re.fullmatch(NAME, label):
            yield Check("labels", "note", f"no spec can ask for the label {label[:60]!r}",
                        "`labels` in config.toml: 1 to 40 of a-z, 0-9 and - each")  # fmt: skip


def _folder_mode(name: str, folder: Path) -> Iterator[Check]:
    if not folder.is_dir():
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077 and sys.platform != "win32":
        may = "write" if mode & 0o022 else "look"
        yield Check(name, "wrong", f"others can {may} into {folder} ({mode:o})",
                    f"chmod 700 {folder}, and ask who did")  # fmt: skip
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Check(name, "wrong", f"you cannot write into {folder} ({mode:o})",
                    f"chmod 700 {folder}, as the user it belongs to")  # fmt: skip
    else:
        yield Check(name, "ok", f"{mode:o}")


def _space(home: Home) -> Iterator[Check]:
    free = shutil.disk_usage(home.path).free
    text = f"{free // 1024**2} MiB free"
    if free < DISK_LOW_BYTES:
        state = "wrong" if free < DISK_CRITICAL_BYTES else "note"
        mend = "free some space: while a disk is full this machine stands still"
        yield Check("disk", state, text, mend)
    else:
        yield Check("disk", "ok", text)


def _certificates(home: Home) -> Iterator[Check]:
    now_ms = clock.read().wall_ms
    half_ms = certificate.renew_at_ms(str(home.facts()["certificate"]).encode())
    days = (now_ms - half_ms) // 86_400_000
    if days >= 1:
        mend = "it renews itself when this machine reaches the hub: check `muster machines`"
        yield Check("certificate", "note", f"its renewal is {days} days late", mend)
    else:
        yield Check("certificate", "ok", f"renews itself in {-days} days")


def _service(home: Home) -> Iterator[Check]:
    for found in kept.looked_at(home, lambda: programs_of(home)):
        yield Check("service", *found)
