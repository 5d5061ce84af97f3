"""What a phase says to an agent that it has not, or to several of which one would understand it."""

from collections.abc import Iterator

from muster.task.secret import is_free
from muster.task.spec import Phase, listed


def misplaced(phase: Phase) -> Iterator[tuple[str, str, bool]]:
    """Each such key, what is wrong with it, and whether that is a warning."""
    if phase.interpreter and not phase.shell and not phase.check:
        yield "shell", "has nothing to read here; leave it out, or add a check", False
    for key in ("model", "mode"):
        # A name of one agent's means nothing to another, and a shell has neither.
        if getattr(phase, key) and (phase.shell or len(set(phase.agents)) != 1):
            yield key, "is a name that one agent knows; name that one agent beside it", False
    if phase.mcp and phase.shell:
        yield (
            "mcp",
            "is for an agent that is asked in words; a shell has no use for a server",
            False,
        )
    yield from _unenclosed(phase)
    for name in listed(phase.secrets):
        if name in (phase.env or {}):
            yield "secrets", f"names {name}, which env sets, too; leave one of them out", False
        elif not is_free(name):
            yield "secrets", f"names {name}, a variable that every program needs", False
    if phase.shell and len(set(phase.agents)) > 1:
        what = "may go to the shell or to another agent, and the same `do` is source to one "
        what += "and a prompt to the other; make sure that it fits both"
        yield "agent", what, True


def _unenclosed(phase: Phase) -> Iterator[tuple[str, str, bool]]:
    """What does not go with a phase that is to run without a sandbox."""
    if phase.sandbox != "off":
        return
    if set(phase.agents) != {"shell"}:
        what = "off is for agent: shell alone, whose source a person signed; what another agent "
        what += "does is known to nobody before: leave it out"
        yield "sandbox", what, False
    for key in ("network", "paths"):
        if getattr(phase, key) is not None:
            what = "says what a sandbox lets through, and with sandbox: off there is none; keep one"
            yield key, what, False
    if phase.needs is not None and phase.needs.sandbox is not None:
        yield "needs", "wants a machine that encloses, and sandbox: off is not enclosed", False
