"""`muster service`: the daemon under the system's own keeper of services, so that it is always up.

Rule 1: what cannot work is refused before anything is written or stopped.
Rule 2: whoever installs it twice has it once; a daemon that runs by hand gives way to it in order.
"""

import contextlib
from typing import Annotated, Literal

from msgspec import Struct

from muster.errors import Broken, MusterError
from muster.node.host import lock, service
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
    manager = service.manager_of(context.home, system=ask.system)
    if not ask.system:
        manager = service.installed(context.home) or manager
    if ask.action == "remove":
        return remove(context, manager)
    answer = shown(manager)
    return answer if answer.active == "active" else Finding(answer, 1)


def install(context: Context, *, system: bool = False) -> Kept:
    """The service of this home, running. Raises: NotFound where the system keeps none."""
    manager = service.manager_of(context.home, system=system)
    manager.prepare()
    manager.check()
    state, runs = manager.state(), lock.holder(context.home.lock)
    fresh = service.write(manager)
    if not fresh and state.enabled and state.active == "active" and state.pid == runs:
        return shown(manager, did="nothing")
    _say_what_stops(context, runs)
    took_over = 0
    if runs is not None and runs != state.pid:
        took_over = end(context)
    manager.start()
    if manager.state().active not in ("active", "activating"):
        raise Broken(f"the service was started and does not run; `{manager.log}` shows why")
    did: Literal["restarted", "installed"] = "restarted" if state.enabled else "installed"
    return shown(manager, did=did, took_over=took_over)


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
    manager.check()
    _say_what_stops(context, state.pid or None)
    manager.stop()
    manager.file.unlink(missing_ok=True)
    manager.forget()
    return shown(manager, did="removed")


def shown(
    manager: service.Manager,
    did: Literal["", "installed", "restarted", "removed", "nothing"] = "",
    took_over: int = 0,
) -> Kept:
    """How the service is now."""
    state = manager.state()
    return Kept(
        name=manager.service.name,
        scope=manager.scope,
        file=str(manager.file),
        home=manager.service.home,
        **state._asdict(),
        log=manager.log,
        to_do=manager.to_do() if state.installed else [],
        did=did,
        took_over=took_over,
    )
