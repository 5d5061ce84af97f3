"""What a phase says to an agent that it has not, or to several of which one would understand it."""

from collections.abc import Iterator

from muster.task.spec import Phase


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
    if phase.shell and len(set(phase.agents)) > 1:
        what = "may go to the shell or to another agent, and the same `do` is source to one "
        what += "and a prompt to the other; make sure that it fits both"
        yield "agent", what, True
