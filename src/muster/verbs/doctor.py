"""`muster doctor`: what is wrong with this machine, and how it is mended.

Rule 1: every check says what it found in one sentence and, where something is to be done, what.
Rule 2: three answers: `ok`; `note` is worth knowing and no fault; `wrong` must be mended, and one
of them makes the exit code 1.
Rule 3: a check never changes anything, and one that cannot be made says so. What `--fix` does
stands in repair.py, and is looked at again afterwards.
"""

import contextlib
import os
import re
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import UNSET, Struct, UnsetType, field, to_builtins

from muster.errors import MusterError
from muster.fleet import certificate
from muster.git import command as gits
from muster.limits import SOCKET_PATH_BYTES_MAX
from muster.node.host import clock
from muster.node.host.home import Home
from muster.node.host.reach import check_config
from muster.store.sqlite import check_version
from muster.task.spec import NAME
from muster.verbs import agent as agents
from muster.verbs import service as kept
from muster.verbs.client import Finding
from muster.verbs.declaration import Context, Request, opt, verb
from muster.verbs.repair import Repaired, broken_hooks, programs_of, repair

# The check that comes first, and the incidents that are told by it.
PAST: Final = "past"
GRAVE: Final = ("set-back", "clone-")
SKEW_MS_MAX: Final = 30_000
FREE_BYTES_LOW: Final = 1024**3
# What keeps one task keeps the others.
WAITING_LOOKED_AT: Final = 5
FREE_BYTES_MIN: Final = 128 * 1024**2


class Check(Struct, frozen=True):
    """One thing looked at; `mend` says what to do, "" where there is nothing to do."""

    name: str
    state: str
    text: str
    mend: str = ""


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


@verb("doctor", auth="local", runs="client", group="The fleet", harmless=True)
def doctor(context: Context, ask: Ask) -> Checks | Finding:
    """Check this machine and say how to mend what is wrong.

    Exit code 1 where something is. With --fix it first does what takes nothing from anybody: start
    the daemon, shut the home to others, let the service find what your shell finds.

        muster doctor
        muster doctor --fix
        muster doctor --dry-run
    """
    done: list[Repaired] | UnsetType = UNSET
    would: list[Repaired] | UnsetType = UNSET
    if ask.dry_run:
        would = repair(context, dry=True)
    elif ask.fix:
        done = repair(context, dry=False)
    value = Checks(_looked_at(context), done, would)
    return Finding(value, 1) if any(check.state == "wrong" for check in value.checks) else value


def _looked_at(context: Context) -> list[Check]:
    well, newest = "new enough", "install the newest apsw: pip install -U apsw"
    checks = [
        _guarded("SQLite", newest, check_version, well),
        _guarded("git", "install git 2.29 or newer", gits.check_version, well),
        *_agents(context),
        *_of_path(os.environ.get("PATH", "")),
        *_of_home(context.home),
    ]
    if os.path.exists(context.home.path / "seed"):
        home = context.home
        found = kept.looked_at(home, lambda: programs_of(home))
        checks += [*(Check("service", *each) for each in found), *_of_daemon(context)]
    # What is wrong with the past of a machine makes everything else doubtful.
    return sorted(checks, key=lambda check: check.name != PAST)


def _guarded(name: str, mend: str, look: Callable[[], object], well: str) -> Check:
    """A check that is well when it raises nothing."""
    try:
        look()
    except (MusterError, OSError) as error:
        return Check(name, "wrong", str(error), mend)
    return Check(name, "ok", well)


# --- the system -----------------------------------------------------------------------------------


def _agents(context: Context) -> Iterator[Check]:
    home = context.home
    try:
        rows, wanted = _rows(context), home.config().headless
    except MusterError as error:
        yield Check("agents", "wrong", str(error), "mend the file it names")
        return
    there = [row for row in rows if row["state"] != agents.ABSENT]
    names = ", ".join(f"{row['agent']} {row['version']}".strip() for row in there)
    mends = ", ".join(f"`{row['mend']}`" for row in rows if row["mend"])
    yield Check("agents", "ok" if names else "note", f"found: {names or 'no AI agent'}",
                "" if names else f"one of them is enough: {mends}")  # fmt: skip
    for row in there:
        name, way = row["agent"], f" (driven by {row['driver']})" if row["driver"] else ""
        if row["state"] == agents.LOGIN:
            text = f"{name} is on PATH but not logged in: it gets work only where no other has it"
            yield Check(f"agent {name}", "note", text, row["mend"])
        else:
            known = "is logged in" if row["login"] else "is here; nobody can tell of its login"
            yield Check(f"agent {name}", "ok", f"{name} {known}{way}")
    drivers = {row["agent"]: row["driver"] for row in rows}
    for wished in sorted(each for each in wanted if drivers.get(each, "acp") == "acp"):
        yield Check("headless", "note", f"`headless` names {wished[:40]!r}, which has no such mode "
                    "that keeps to the work folder", "take it out of `headless`")  # fmt: skip
    user = "root" if hasattr(os, "getuid") and os.getuid() == 0 else "your own user"
    yield Check("sandbox", "note", f"agents run as {user}, unsandboxed: each is as powerful as you "
                "are, and can read this home's keys", "run Muster under a user of its own, or give "
                "it only specs whose agents you trust")  # fmt: skip


def _of_path(path: str) -> Iterator[Check]:
    """Where somebody else can put a `claude` that runs as this person."""
    for folder in dict.fromkeys(path.split(os.pathsep)):
        with contextlib.suppress(OSError):
            if os.path.isabs(folder) and os.stat(folder).st_mode & stat.S_IWOTH:
                yield Check("PATH", "note", f"{folder} is on PATH, and every user of this machine "
                            "may put a program there that then runs as you",
                            f"chmod o-w {folder}, or take it from your PATH")  # fmt: skip


def _rows(context: Context) -> list[dict[str, Any]]:
    """The agents of this machine as its daemon has them, else as it would find them."""
    with contextlib.suppress(MusterError):
        if context.home.has_seed("seed"):
            name = str(context.ask("status", {})["name"])
            return list(context.ask("agents", {"machine": name}))
    return list(to_builtins(agents.here(context.home)))


# --- the home ----------------------------------------------------------------------


def _of_home(home: Home) -> Iterator[Check]:
    try:
        lives = home.exists
    except OSError as error:
        yield Check("home", "wrong", f"{home.path} cannot be entered: {error.strerror}",
                    f"`ls -ld {home.path}` shows whose it is and what its mode allows")  # fmt: skip
        return
    if not lives:
        text, _, mend = home.absent().partition(": ")
        yield Check("home", "wrong", text, mend)
        return
    yield Check("home", "ok", str(home.path))

    def config() -> None:
        check_config(home.config(), home.facts(), str(home.path / "config.toml"))

    well = "config.toml and fleet.json can be read"
    yield _guarded("configuration", "mend the file it names", config, well)
    yield from _labels(home)
    for name in ("seed", "authority.seed", "operator.seed", "device.seed"):
        if home.has_seed(name):
            yield _guarded(name, "whoever could read it can do what you can: `muster revoke` "
                           "shuts its key out", partial(home.seed, name),
                           "for nobody else to read")  # fmt: skip
    yield _folder_mode("home's mode", home.path)
    state = Path(home.mark_folder)
    if state.is_dir():
        yield _folder_mode("state's mode", state)
    size = len(os.fsencode(home.socket))
    inside = home.socket.startswith(str(home.path))
    if size > SOCKET_PATH_BYTES_MAX:
        yield Check("socket", "wrong", f"its path has {size} bytes, {SOCKET_PATH_BYTES_MAX} fit",
                    "set XDG_RUNTIME_DIR to a short folder")  # fmt: skip
    else:
        yield Check("socket", "ok", home.socket if inside else f"{home.socket} (the home is deep)")
    for name in broken_hooks(home):
        yield Check(f"repository {name}", "wrong", "its hooks are broken", "muster doctor --fix")
    yield _space(home)
    yield _certificates(home)


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


def _folder_mode(name: str, folder: Path) -> Check:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077 and sys.platform != "win32":
        may = "write" if mode & 0o022 else "look"
        return Check(name, "wrong", f"others can {may} into {folder} ({mode:o})",
                     f"chmod 700 {folder}, and ask who did")  # fmt: skip
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check(name, "wrong", f"you cannot write into {folder} ({mode:o})",
                     f"chmod 700 {folder}, as the user it belongs to")  # fmt: skip
    return Check(name, "ok", f"{mode:o}")


def _space(home: Home) -> Check:
    free = shutil.disk_usage(home.path).free
    text = f"{free // 1024**2} MiB free"
    if free < FREE_BYTES_LOW:
        state = "wrong" if free < FREE_BYTES_MIN else "note"
        mend = "free some space: while a disk is full this machine stands still"
        return Check("disk", state, text, mend)
    return Check("disk", "ok", text)


def _certificates(home: Home) -> Check:
    now_ms = clock.read().wall_ms
    try:
        half_ms = certificate.renew_at_ms(str(home.facts()["certificate"]).encode())
    except (MusterError, KeyError) as error:
        return Check("certificate", "wrong", f"it cannot be read: {error}", "join again")
    days = (now_ms - half_ms) // 86_400_000
    if days >= 1:
        mend = "it renews itself when this machine reaches the hub: check `muster machines`"
        return Check("certificate", "note", f"its renewal is {days} days late", mend)
    return Check("certificate", "ok", f"renews itself in {-days} days")


# --- the daemon --------------------------------------------------------------------


def _of_daemon(context: Context) -> Iterator[Check]:
    try:
        status = context.ask("status", {})
    except MusterError as error:
        yield Check("daemon", "wrong", str(error), "muster up --detach")
        return
    yield Check("daemon", "ok", f"{status['name']} answers")
    if status["revoked"]:
        yield Check(
            "membership", "wrong", "this machine is no member any more: nothing it does counts",
            "`muster machine leave` sets its home aside; then `muster join` with a new invitation",
        )  # fmt: skip
        # Nobody links to it or vouches for it any more, and no advice on that would help.
        return
    yield from _past(status)
    if not status.get("operators", 1):
        yield Check(
            "operators", "wrong", "nobody can order anything: the last operator was revoked",
            "where authority.seed lies, move the old operator.seed away, then `muster operator "
            "add NAME --here`",
        )  # fmt: skip
    yield from _links(context)
    yield from _skews(context)
    exposed = int(status["exposed"])
    alone = status["machines"]["known"] < 2
    yield Check(
        "witnesses",
        "note" if exposed else "ok",
        f"no other machine vouched for {exposed} of its own entries yet" if exposed
        else "another machine vouched for every own entry",
        "" if not exposed else "let a second machine join: `muster invite NAME`" if alone
        else "a link to any other machine closes this gap",
    )  # fmt: skip
    yield from _waiting(context)
    yield from _ownerless(context)
    for incident in status["incidents"]:
        if incident["key"].startswith(GRAVE):
            continue
        state = "wrong" if incident["severity"] == "critical" else "note"
        own = incident["machine"] == status["name"]
        who = "" if own else f"{incident['machine']}: "
        yield Check("incident", state, f"{who}{incident['title']}", "muster incidents")


def _waiting(context: Context) -> Iterator[Check]:
    """Tasks that a machine could take, and that something here keeps from it."""
    queued = [task for task in context.ask("tasks", {}) if task["state"] == "queued"]
    for task in queued[:WAITING_LOOKED_AT]:
        now = context.ask("why", {"task": task["task"]}).get("now") or {}
        if now.get("reason") and any(each["fits"] for each in now.get("candidates") or ()):
            what = f"{task['phase'] or 'a task'} waits: {now['reason']}"
            yield Check("work", "note", what, f"muster why {task['task'][:12]}")


def _ownerless(context: Context) -> Iterator[Check]:
    """Runs that stand still because the machine that goes on with them is away."""
    runs = Counter(str(run["waits_for"]) for run in context.ask("runs", {}) if run.get("waits_for"))
    for owner, count in sorted(runs.items()):
        what = f"{count} run{'s wait' if count > 1 else ' waits'} for {owner}, which is away"
        mend = "only their owner goes on with them; if it is lost, `muster cancel RUN` ends each, "
        yield Check("runs", "note", what, f"{mend}and `muster run` orders it anew")


def _past(status: Mapping[str, Any]) -> Iterator[Check]:
    doubt = status.get("doubt")
    if doubt is not None:
        waits = f"; it waits for {doubt['awaits']}" if doubt["waits"] else ""
        mend = "if you know why, and that no copy of it runs: `muster resume`, as the operator"
        yield Check(
            PAST, "wrong",
            f"this machine does not know all of its own past: {' '.join(doubt['reasons'])}{waits}",
            mend if doubt["id"] else "stop one of the two copies, or revoke it and join anew",
        )  # fmt: skip
    for incident in status["incidents"]:
        own = incident["machine"] == status["name"] and incident["key"] == "set-back"
        if incident["key"].startswith(GRAVE) and not (doubt is not None and own):
            # Any machine can say what it likes of another one.
            who = "" if incident["machine"] == status["name"] else f"{incident['machine']} says: "
            yield Check(PAST, "wrong", f"{who}{incident['title']}", "muster incidents")


def _links(context: Context) -> Iterator[Check]:
    machines = context.ask("machines", {})
    away = []
    for machine in machines:
        if machine["state"] == "away":
            # Why the likeliest way to it is none.
            errors = [str(way["error"]) for way in machine.get("ways", ()) if way["error"]]
            why = f" ({errors[0].removesuffix('; try later')})" if errors else ""
            away.append(f"{machine['name']}{why}")
    if away:
        yield Check("links", "note", f"away: {', '.join(away)}",
                    "they catch up by themselves when they are back; of one that moved, "
                    "`muster reach NAME HOST:PORT` tells this machine")  # fmt: skip
    else:
        yield Check("links", "ok", "nobody is away")
    relayed = [f"{m['name']} through {m['through']}" for m in machines if m.get("through")]
    if relayed:
        yield Check("links", "note", f"no direct way: {', '.join(relayed)}",
                    "all works, as long as that machine is up; `listen` in config.toml of either "
                    "opens a direct way")  # fmt: skip


def _skews(context: Context) -> Iterator[Check]:
    far = [
        (str(m["name"]), int(m["skew_ms"]))
        for m in context.ask("machines", {})
        if abs(int(m.get("skew_ms") or 0)) > SKEW_MS_MAX
    ]
    for name, skew_ms in far:
        mend = "let both take their time from the network (timedatectl set-ntp true)"
        yield Check("clock", "wrong", f"{name} is {skew_ms // 1000} s off from here", mend)
    if not far:
        yield Check("clock", "ok", "no linked machine is half a minute off")
