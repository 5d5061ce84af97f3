"""`muster service`: the daemon under the system's own keeper of services, so that it is always up.

Rule 1: what cannot work is refused before anything is written or stopped.
Rule 2: whoever installs it twice has it once; a daemon that runs by hand gives way to it in order.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from msgspec import Struct

from muster.errors import Broken, Conflict, MusterError, NotFound
from muster.node.host import keeper, lock, service
from muster.node.host.home import Home
from muster.verbs.client import Finding
from muster.verbs.daemon import end
from muster.verbs.declaration import Context, Request, opt, pos, verb


class Action(Request, frozen=True):
    action: Annotated[
        Literal["install", "status", "remove"],
        pos("install: start now and after each reboot; status; or remove"),
    ]
    system: Annotated[
        bool, opt("the system's own service, which needs root; it runs as the home's owner")
    ] = False


class Kept(Struct, frozen=True, kw_only=True):
    """How the service of a home is; `to_do` is what a person has to add, `did` what was done."""

    name: str
    scope: str
    file: str
    home: str
    installed: bool
    enabled: bool
    active: str
    pid: int
    since: str
    log: str
    to_do: list[str]
    # That it fails, how often and how; "" where it does not.
    fails: str = ""
    did: Literal["", "installed", "restarted", "removed", "nothing"] = ""
    # The daemon that ran by hand and was ended for it, 0 for none.
    took_over: int = 0


@verb("service", auth="local", runs="client", group="The fleet", on="none")
def keep(context: Context, ask: Action) -> Kept | Finding:
    """Run the daemon as a service of this system, from now on and after each reboot.

    Exit code 1 where `status` finds none that runs.

        muster service install
        muster service status
        muster service remove
    """
    context.home.require()
    if ask.action == "install":
        return install(context, system=ask.system)
    kept = None if ask.system else service.installed(context.home)
    manager = kept or service.manager_of(context.home, system=ask.system)
    if ask.action == "remove":
        return remove(context, manager)
    answer = shown(manager)
    return answer if answer.active == "active" else Finding(answer, 1)


def install(context: Context, *, system: bool = False) -> Kept:
    """The service of this home, running. Raises: NotFound where the system keeps none; Conflict."""
    home = context.home
    manager = service.manager_of(home, system=system)
    _refuse_beside(manager, service.everywhere(home))
    manager.prepare()
    manager.check()
    state, runs = manager.state(), lock.holder(home.lock)
    fresh = not service.says(manager)
    if not fresh and state.enabled and state.active == "active" and state.pid == runs:
        return shown(manager, did="nothing")
    _say_what_stops(context, runs)
    took_over = 0
    # A holder that cannot be told is 0, as is the process of a service that does not run.
    if runs is not None and (runs == 0 or runs != state.pid):
        took_over = end(context)
    # Not before: a unit that lies there while another daemon runs would start beside it.
    service.write(manager)
    for other in service.everywhere(home):
        if _twin(other, manager):
            _take_away(other)
    manager.start()
    if manager.state().active not in ("active", "activating"):
        raise Broken(f"the service was started and does not run; `{manager.log}` shows why")
    did: Literal["restarted", "installed"] = "restarted" if state.enabled else "installed"
    return shown(manager, did=did, took_over=took_over)


def _refuse_beside(manager: service.Manager, others: list[service.Manager]) -> None:
    """Two services of one home would start two daemons, of which one fails for ever."""
    for other in others:
        if other.scope != manager.scope:
            whose = "of the system" if other.scope == "system" else "of its person"
            raise Conflict(
                f"this home has a service {whose} already, {other.service.name}: "
                f"`{keeper.command(other, 'remove')}` takes it away first"
            )


def _say_what_stops(context: Context, runs: int | None) -> None:
    """Attempts end with their daemon, and begin again: a person hears of it."""
    works = []
    if runs is not None:
        # One that answers nothing has no work that a person could still want.
        with contextlib.suppress(MusterError):
            works = context.ask("status", {})["works"]
    if works:
        context.say(f"the daemon ends, and with it {len(works)} attempts: their tasks begin again")


def remove(context: Context, manager: service.Manager) -> Kept:
    """End the service, and take away what says that there is one."""
    state = manager.state()
    if not state.installed:
        return shown(manager, did="nothing")
    kept = True
    try:
        manager.check("remove")
    except NotFound as error:
        # A file that came here with a folder is a file; nobody keeps anything by it.
        context.say(f"only the file of the service is taken away: {error}")
        kept = False
    _say_what_stops(context, state.pid or None)
    for each in [manager, *(o for o in service.everywhere(context.home) if _twin(o, manager))]:
        _take_away(each, stop=kept)
    if not kept:
        end(context)
    return shown(manager, did="removed")


def _twin(other: service.Manager, manager: service.Manager) -> bool:
    """Whether that is a second service of the same kind, as an older Muster could make one."""
    return other.scope == manager.scope and other.file != manager.file


def _take_away(manager: service.Manager, *, stop: bool = True) -> None:
    if stop:
        manager.stop()
    try:
        manager.file.unlink(missing_ok=True)
    except OSError as error:
        raise Broken(f"{manager.file} cannot be removed: {error.strerror}") from error
    manager.forget()


def shown(
    manager: service.Manager,
    did: Literal["", "installed", "restarted", "removed", "nothing"] = "",
    took_over: int = 0,
) -> Kept:
    """How the service is now."""
    state = manager.state()
    to_do = manager.to_do() if state.installed else []
    if state.fails:
        to_do.insert(0, f"to see why: `{keeper.why_it_fails(manager)}`")
    return Kept(
        name=manager.service.name,
        scope=manager.scope,
        file=str(manager.file),
        home=manager.service.home,
        **state._asdict(),
        log=manager.log,
        to_do=to_do,
        did=did,
        took_over=took_over,
    )


def looked_at(home: Home, programs: Callable[[], list[str]]) -> Iterator[tuple[str, str, str]]:
    """What doctor finds of it: how bad it is, a sentence, and what mends it."""
    kept, mend = service.installed(home), "muster service install"
    if kept is None:
        # Where no manager of services is, none can be missed.
        with contextlib.suppress(MusterError):
            service.manager_of(home).check()
            yield "note", "none: nothing starts the daemon after a reboot", mend
        return
    mend, name = keeper.command(kept, "install"), kept.service.name
    try:
        state, to_do = kept.state(), kept.to_do()
    except MusterError as error:
        yield "wrong", str(error), mend
        return
    starts = "starts after a reboot" if state.enabled else "does not start after a reboot"
    if state.fails:
        yield "wrong", f"{name} {state.fails}", f"`{keeper.why_it_fails(kept)}` shows why"
    elif state.active != "active" or not state.enabled:
        yield "wrong", f"{name} is {state.active} and {starts}", mend
    elif found := service.faults(kept, programs()):
        yield "note", "; ".join(found), mend
    else:
        yield "ok", f"{name} runs the daemon ({kept.scope})", ""
    for other in service.everywhere(home)[1:]:
        mend = keeper.command(other, "remove")
        yield "wrong", f"{other.service.name} is a second service of this home", mend
    for each in to_do:
        yield "note", "it does not run without a login", each
